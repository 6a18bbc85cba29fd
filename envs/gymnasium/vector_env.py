"""ProcessVectorEnv: any Gymnasium environments as one vector environment, many to a process."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from gymnasium.vector import AutoresetMode

from metarl.envs.gymnasium.host_rows import Call, EnvProvider, HostSettings, Rows
from metarl.envs.gymnasium.hosts import HostProcess, InlineHost
from metarl.envs.gymnasium.shared_arrays import ArrayLayout
from metarl.envs.vector import Infos, TaskVectorEnv
from metarl.runs.cores import WorkerError
from metarl.runs.processes import check_timeout
from metarl.tasks import Task, TaskFamily, Transition


class ProcessVectorEnv(TaskVectorEnv):
    """Gymnasium environments in worker processes; row i is in process i modulo the number of processes.

    Args:
        family: Task family whose tasks the environments take.
        num_envs: Number of environments.
        provider: Maker of the environments; the family itself.
        num_processes: Number of processes. With 1 the calling process steps all environments; it also steps the
            last share where the provider `steps_here_too`.
        max_episode_steps: Time limit in steps; an environment may truncate sooner.
        autoreset_mode: Behaviour of `step` after an episode ends.
        timeout_s: Longest time in seconds that one environment may take over one call; None for no limit.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        *,
        provider: EnvProvider,
        num_processes: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        timeout_s: float | None = 60.0,
    ) -> None:
        if num_processes < 1:
            raise ValueError(f"num_processes must be at least 1, got {num_processes}")
        check_timeout(timeout_s)
        observation_space, action_space = provider.spaces()
        super().__init__(
            family,
            num_envs,
            observation_space,
            action_space,
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self._provider = provider
        self._num_processes, self._timeout_s = min(num_processes, num_envs), timeout_s
        self._hosts: list[HostProcess | InlineHost] = []
        self._layout = ArrayLayout(num_envs, observation_space, action_space, len(provider.info_names))
        self._memory = self._layout.memory()
        self._shared = self._layout.arrays(self._memory)
        self._cut = np.zeros(num_envs, dtype=np.bool_)
        self._failed = False

    def resize(self, num_envs: int) -> bool:
        """Take another number of rows, up to the capacity; the processes keep all environments that they made."""
        if num_envs > self.capacity:
            return False
        self._take_rows(num_envs)
        self._cut = np.zeros(num_envs, dtype=np.bool_)
        return True

    def _start(self) -> list[HostProcess | InlineHost]:
        """The processes, started when they are first needed."""
        if self.closed:
            raise RuntimeError("the environment was closed; make a new one")
        if not self._hosts:
            count = self._num_processes
            settings = [
                HostSettings(self._provider, self._layout, self._memory, slice(number, None, count))
                for number in range(count)
            ]
            # What is here is asked last, so that this process works while the others do.
            num_away = count - 1 if count == 1 or self._provider.steps_here_too else count
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
        infos = {name: shared.infos[stepped, column] for column, name in enumerate(self._provider.info_names)}
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

    @property
    def render_fps(self) -> int:
        """Number of pictures per second, as usual in Gymnasium."""
        return 30

    def render_row(self, row: int) -> np.ndarray:
        """A picture that the row's environment makes of itself; only of rows that this process steps.

        Raises:
            ValueError: if a worker process has the row, or the environment cannot be drawn.
        """
        host = self._start()[row % self._num_processes]
        if not isinstance(host, InlineHost):
            raise ValueError("only environments of the calling process can be drawn: make them with num_threads=1")
        return host.render(row // self._num_processes)

    def close_extras(self, **kwargs: object) -> None:
        """End the processes and close the environments."""
        for host in self._hosts:
            host.stop()
        deadline = time.monotonic() + 5
        for host in self._hosts:
            host.close(deadline)
        self._hosts = []
