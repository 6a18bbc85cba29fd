"""Task families of plain Gymnasium environments: `CustomFamily` makes one of a factory and a function.

`metarl.envs.gymnasium.vector_env` runs the environments, many to a process.
"""

import multiprocessing
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.gymnasium.checks import Env, checked_env
from metarl.envs.gymnasium.vector_env import ProcessVectorEnv
from metarl.envs.uniform import Bounds, UniformTasks
from metarl.envs.vector import TaskVectorEnv
from metarl.observations import space_parts
from metarl.runs.cores import usable_cores
from metarl.tasks import Benchmark, FiniteTasks, Parameter, Task, TaskDistribution, TaskFamily

Tasks = TaskDistribution | Sequence[Task] | Mapping[str, Bounds] | None
"""Tasks of a benchmark: a distribution, a list, or ranges of parameters; None for all values of all parameters."""


class GymnasiumFamily(TaskFamily):
    """Tasks of plain Gymnasium environments; picklable, because worker processes have a copy.

    Attributes:
        info_names: Names of the numbers in the environments' infos that are passed on, 0 in steps that do not
            report them. Evaluation counts "success", which environments may also report as "is_success".
        longest: Greatest number of steps that the environments can take in an episode; None for any number.
        steps_here_too: Whether the calling process steps the last share of the environments itself, instead of one
            worker process: a fifth to a third faster, for environments that neither hang nor crash.
    """

    info_names: tuple[str, ...] = ()
    longest: int | None = None
    steps_here_too: bool = False

    @abstractmethod
    def new_environment(self, kind: str) -> Env:
        """An environment of a kind, to be given one task after another."""

    @abstractmethod
    def give_task(self, env: Env, task: Task) -> None:
        """Set the task of an environment; takes effect at its next reset."""

    def kind(self, task: Task) -> str:
        """The kind of environments that can be given this task: those that were made for it."""
        return ""

    def spaces(self) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        """Spaces of observations and of actions; here, those of an environment that is made to be asked.

        Raises:
            ValueError: if observations are not numbers, arrays of numbers, or dictionaries or tuples of these.
        """
        env = checked_env(self.name, self.new_environment(""))
        try:
            space_parts(env.observation_space)
            return env.observation_space, env.action_space
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        finally:
            env.close()

    def make_env(
        self,
        num_envs: int,
        *,
        horizon: int | None = None,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        timeout_s: float | None = 60.0,
    ) -> TaskVectorEnv:
        """A vector environment for this family.

        Args:
            num_envs: Number of environments.
            horizon: Steps after which an episode is truncated; the family's own by default.
            num_threads: Number of processes, one per core by default. With 1 the calling process steps all
                environments.
            autoreset_mode: Behaviour of `step` after an episode ends.
            timeout_s: Longest time in seconds that one environment may take over one call; None for no limit.
        """
        steps = self.checked_horizon(horizon)
        cores = usable_cores() if num_threads is None else num_threads
        # A daemon, as a process of `Workers` is, may not have processes of its own.
        wanted = 1 if multiprocessing.current_process().daemon else max(1, min(cores, num_envs))
        return ProcessVectorEnv(
            self,
            num_envs,
            provider=self,
            num_processes=wanted,
            max_episode_steps=steps,
            autoreset_mode=autoreset_mode,
            timeout_s=timeout_s,
        )

    def checked_horizon(self, horizon: int | None) -> int:
        """The horizon, the family's own if it is None.

        Raises:
            ValueError: if the environments' episodes are shorter.
        """
        steps = self.horizon if horizon is None else horizon
        if self.longest is not None and steps > self.longest:
            raise ValueError(
                f"{self.name} has at most {self.longest} steps in an episode, got the horizon {steps}"
            )
        return steps

    def benchmark(self, *, train: Tasks = None, test: Tasks = None, name: str | None = None) -> Benchmark:
        """A benchmark of this family in one call: `family.benchmark(train={"gravity": (5, 15)})`.

        Args:
            train: Training tasks: ranges (low, high) by parameter, drawn uniformly; or a list of tasks; or a
                distribution. By default every parameter is drawn from all its values.
            test: Test tasks, in the same forms; by default fresh draws of the training ranges, which coincide with
                training tasks with probability zero where a parameter is continuous.
            name: Name of the benchmark; the family's own by default.

        Raises:
            ValueError: if a parameter that is to be drawn has no finite bounds.
        """
        training = self._tasks(train)
        testing = training if test is None else self._tasks(test)
        listed = [set(t.tasks) if isinstance(t, FiniteTasks) else None for t in (training, testing)]
        if listed[0] is not None and listed[1] is not None:
            shared = bool(listed[0] & listed[1])
        else:
            shared = all(parameter.choices for parameter in self.parameters)
        described = ", ".join(parameter.name for parameter in self.parameters) or "nothing"
        return Benchmark(
            name or self.name,
            training,
            testing,
            shared=shared,
            description=f"{self.name}: tasks differ in {described}",
        )

    def _tasks(self, tasks: Tasks) -> TaskDistribution:
        if isinstance(tasks, TaskDistribution):
            return tasks
        if tasks is None or isinstance(tasks, Mapping):
            return UniformTasks(self, tasks)
        return FiniteTasks(self, tuple(tasks))


class CustomFamily(GymnasiumFamily):
    """A task family of environments of one's own: a factory, and a function that sets a task.

    Args:
        name: Name of the family, which its tasks carry.
        parameters: Parameters of a task.
        make: Factory of an environment; a function at the top of a module, so that worker processes can import it.
        set_task: Function that gives an environment a task; at the top of a module too.
        horizon: Steps after which an episode is truncated.
        info_names: Names of the numbers in the infos that are passed on; "success" is counted by evaluation.
    """

    def __init__(
        self,
        name: str,
        parameters: Sequence[Parameter],
        *,
        make: Callable[[], Env],
        set_task: Callable[[Env, Task], None],
        horizon: int,
        info_names: Sequence[str] = (),
    ) -> None:
        for argument, function in (("make", make), ("set_task", set_task)):
            if not callable(function):
                raise TypeError(f"{name}: {argument} must be a function, got {function!r}")
        self.name, self.parameters, self.horizon = name, tuple(parameters), horizon
        self.info_names = tuple("success" if info == "is_success" else info for info in info_names)
        self._make, self._set_task = make, set_task

    def new_environment(self, kind: str) -> Env:
        """The environment that the factory makes."""
        return self._make()

    def give_task(self, env: Env, task: Task) -> None:
        """Set the task by the function."""
        self._set_task(env, task)
