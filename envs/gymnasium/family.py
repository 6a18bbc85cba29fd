"""Any Gymnasium environments as one vector environment: many to a worker process, one process per core.

Bring your own: `YourFamily` takes a factory and a function that sets a task. See `metarl.envs.gymnasium.hosts`
for where the environments live and what happens when a process is lost.
"""

import multiprocessing
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.gymnasium.environments import Call, Env, Layout, Rows, Settings
from metarl.envs.gymnasium.hosts import HostProcess, InlineHost
from metarl.envs.vector import Infos, TaskVectorEnv
from metarl.runs.cores import WorkerError, usable_cores
from metarl.tasks import Parameter, Task, TaskFamily, Transition


class GymnasiumFamily(TaskFamily):
    """Tasks that plain Gymnasium environments are given; picklable, because worker processes have a copy.

    Attributes:
        info_names: numbers that the environments report in their infos, to be passed on; "success" is one that
            evaluation counts.
        longest: steps that the environments can take in an episode; None for any number.
        steps_here_too: the calling process steps the last share of the environments itself, in the place of one
            worker process: a fifth to a third faster, for environments that neither hang nor crash.
    """

    info_names: tuple[str, ...] = ()
    longest: int | None = None
    steps_here_too: ClassVar[bool] = False

    @abstractmethod
    def new_environment(self, kind: str) -> Env:
        """An environment of a kind, to be given one task after another."""

    @abstractmethod
    def give_task(self, env: Env, task: Task) -> None:
        """Set the task of an environment; takes effect at its next reset."""

    def kind(self, task: Task) -> str:
        """Which environments can be given this task: those that were made for its kind."""
        return ""

    def spaces(self) -> tuple[spaces.Box, spaces.Space[Any]]:
        """Of observations and of actions; here, those of an environment that is made to be asked.

        Raises:
            ValueError: if observations are not vectors.
        """
        env = self.new_environment("")
        try:
            seen = env.observation_space
            if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
                raise ValueError(
                    f"observations must be vectors, got {seen}; wrap it in gymnasium.wrappers.FlattenObservation"
                )
            return seen, env.action_space
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
    ) -> "ProcessVectorEnv":
        """A vector environment for this family.

        Args:
            num_envs: number of environments.
            horizon: steps after which an episode is truncated; the family's own by default.
            num_threads: processes, one per core by default; 1 for none but this, which is one of them too where
                the family `steps_here_too`.
            autoreset_mode: what `step` does after an episode ends.
            timeout_s: a process hangs if one environment takes longer over one thing; None for no limit.
        """
        steps = self.horizon if horizon is None else horizon
        if self.longest is not None and steps > self.longest:
            raise ValueError(
                f"{self.name} has at most {self.longest} steps in an episode, got the horizon {steps}"
            )
        cores = usable_cores() if num_threads is None else num_threads
        # A daemon, as a process of `Workers` is, may not have processes of its own.
        wanted = 1 if multiprocessing.current_process().daemon else max(1, min(cores, num_envs))
        return ProcessVectorEnv(
            self,
            num_envs,
            num_processes=wanted,
            max_episode_steps=steps,
            autoreset_mode=autoreset_mode,
            timeout_s=timeout_s,
        )


class YourFamily(GymnasiumFamily):
    """Your own environments as a task family: a factory, and a function that sets a task.

    Args:
        name: of the family, as tasks carry it.
        parameters: of a task.
        make: makes an environment; defined at the top of a module, so that worker processes can import it.
        set_task: gives an environment a task.
        horizon: steps after which an episode is truncated.
        info_names: numbers of the infos to pass on.
    """

    def __init__(
        self,
        name: str,
        parameters: tuple[Parameter, ...],
        *,
        make: Callable[[], Env],
        set_task: Callable[[Env, Task], None],
        horizon: int,
        info_names: tuple[str, ...] = (),
    ) -> None:
        self.name, self.parameters, self.horizon, self.info_names = name, parameters, horizon, info_names
        self._make, self._set_task = make, set_task

    def new_environment(self, kind: str) -> Env:
        """What the factory makes."""
        return self._make()

    def give_task(self, env: Env, task: Task) -> None:
        """What the function does."""
        self._set_task(env, task)


class ProcessVectorEnv(TaskVectorEnv):
    """Gymnasium environments in worker processes; row i is in process i modulo their number.

    Args:
        family: whose tasks they take.
        num_envs: number of environments.
        num_processes: 1 for none but this, which is one of them too where the family `steps_here_too`.
        max_episode_steps: time limit; an environment may truncate sooner.
        autoreset_mode: what `step` does after an episode ends.
        timeout_s: a process hangs if one environment takes longer over one thing; None for no limit.
    """

    family: GymnasiumFamily

    def __init__(
        self,
        family: GymnasiumFamily,
        num_envs: int,
        *,
        num_processes: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        timeout_s: float | None = 60.0,
    ) -> None:
        if num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, got {num_processes}")
        if timeout_s is not None and not 0 < timeout_s < np.inf:
            raise ValueError(f"timeout_s must be positive, or None for no limit, got {timeout_s}")
        observation_space, action_space = family.spaces()
        super().__init__(
            family,
            num_envs,
            observation_space,
            action_space,
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self._num_processes, self._timeout_s = min(num_processes, num_envs), timeout_s
        self._hosts: list[HostProcess | InlineHost] = []
        self._layout = Layout(num_envs, observation_space, action_space, len(family.info_names))
        self._memory = self._layout.memory()
        self._shared = self._layout.arrays(self._memory)
        self._cut = np.zeros(num_envs, dtype=np.bool_)
        self._failed = False

    def _start(self) -> list[HostProcess | InlineHost]:
        """The processes, started when they are first needed."""
        if self.closed:
            raise RuntimeError("the environment was closed; make a new one")
        if not self._hosts:
            count = self._num_processes
            settings = [
                Settings(self.family, self._layout, self._memory, slice(number, None, count))
                for number in range(count)
            ]
            # What is here is asked last, so that this process works while the others do.
            num_away = count - 1 if count == 1 or self.family.steps_here_too else count
            self._hosts = [HostProcess(n, own, self._timeout_s) for n, own in enumerate(settings[:num_away])]
            self._hosts += [InlineHost(own) for own in settings[num_away:]]
        return self._hosts

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        self._failed = False
        self._ask({host.rows.start or 0: Call("set_tasks", (tasks[host.rows],)) for host in self._start()})

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        seeds = np.array([int(rng.integers(2**31)) for rng in rngs])
        calls = {}
        for number, (own, places) in self._split(rows).items():
            calls[number] = Call("reset", (own, seeds[places].tolist()))
        self._ask(calls)
        return self._shared.observations[rows].copy(), {}

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        stepped = np.arange(self.num_envs) if rows is None else rows
        expected = (len(stepped), *self._shared.actions.shape[1:])
        if np.shape(actions) != expected:
            raise ValueError(f"expected actions of shape {expected}, got {np.shape(actions)}")
        calls = {}
        for number, (own, places) in self._split(stepped).items():
            calls[number] = Call("step", (own,), np.array(actions[places]))
        self._ask(calls)
        shared = self._shared
        self._cut[stepped] = shared.truncated[stepped]
        infos = {name: shared.infos[stepped, column] for column, name in enumerate(self.family.info_names)}
        return (
            shared.observations[stepped],
            shared.rewards[stepped],
            shared.terminated[stepped],
            infos,
        )

    def advance(self, actions: np.ndarray, rows: np.ndarray | None = None) -> Transition:
        """Step the rows once, without any reset; an environment's own truncation counts too."""
        transition = super().advance(actions, rows)
        index: slice | np.ndarray = slice(None) if rows is None else rows
        cut = self._cut[index]
        self._ended[index] |= cut
        return transition._replace(truncated=transition.truncated | cut)

    def _split(self, rows: np.ndarray) -> dict[int, tuple[Rows, np.ndarray]]:
        """By process: its own numbers of some rows (None for all it has), and their places among the rows."""
        count = self._num_processes
        parts: dict[int, tuple[Rows, np.ndarray]] = {}
        for number in range(count):
            places = np.flatnonzero(rows % count == number)
            if len(places):
                whole = len(places) == len(range(number, self.num_envs, count))
                parts[number] = (None if whole else rows[places] // count, places)
        return parts

    def _ask(self, calls: Mapping[int, Call]) -> None:
        """Have several processes work at the same time; all answers are taken before an error is raised."""
        hosts = self._start()
        if self._failed:
            raise RuntimeError(
                "a call has failed since the last set_tasks: call set_tasks and reset before going on"
            )
        self._failed = True  # until all is well
        for number, call in calls.items():
            hosts[number].ask(call)
        failure: WorkerError | None = None
        for number in calls:
            try:
                hosts[number].answer(self._observations[hosts[number].rows])
            except WorkerError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        self._failed = False

    def close_extras(self, **kwargs: object) -> None:
        """End the processes."""
        for host in self._hosts:
            host.stop()
        deadline = time.monotonic() + 5
        for host in self._hosts:
            host.close(deadline)
        self._hosts = []
