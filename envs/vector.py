"""TaskVectorEnv: a gymnasium VectorEnv whose sub-environments take tasks and advance as one batch.

A subclass simulates rows of a batch (`_begin`, `_simulate`, `_observe`). This class owns what every vector
environment must get right once: seeding, time limits, the three autoreset modes, partial resets and infos.
Collectors call `advance`, which steps any subset of rows and never resets; `step` is Gymnasium's interface.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from metarl.observations import as_nested, row_format, stored_parts
from metarl.tasks import Task, TaskFamily, Transition

Infos = dict[str, np.ndarray]


class TaskVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many sub-environments of one task family, one task each.

    Args:
        family: Family of the tasks that the sub-environments take.
        num_envs: Number of sub-environments (rows).
        observation_space: Space of one sub-environment's observations.
        action_space: Space of one sub-environment's actions.
        max_episode_steps: Time limit; the step that reaches it is truncated.
        autoreset_mode: Behaviour of `step` after an episode ends; `advance` never resets.

    Attributes:
        capacity: Number of sub-environments that it was made for.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        if max_episode_steps < 1:
            raise ValueError(f"the horizon must be at least 1 step, got {max_episode_steps}")
        self.family = family
        self.max_episode_steps = max_episode_steps
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {"render_modes": [], "autoreset_mode": self.autoreset_mode}
        self.render_mode = None
        self.spec = None
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.capacity = num_envs
        self._take_rows(num_envs)

    def _take_rows(self, num_envs: int) -> None:
        """Have so many rows, without tasks and generators."""
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._tasks: tuple[Task, ...] = ()
        self._rngs: list[np.random.Generator] = []
        self._seeds: list[int] = []
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._ended = np.zeros(num_envs, dtype=np.bool_)
        shape, dtype = row_format(self.single_observation_space)
        self._observations = np.zeros((num_envs, *shape), dtype=dtype)

    def resize(self, num_envs: int) -> bool:
        """Take another number of rows, up to the capacity, and keep threads and processes; then come tasks.

        Returns:
            False where nothing would be kept: make a new environment instead.
        """
        return False

    @abstractmethod
    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        """Take the tasks' parameters, arrays of shape [row] or [row, size]."""

    @abstractmethod
    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        """Start an episode in the rows; observations [row, ...] as `row_format` stores them, and infos."""

    @abstractmethod
    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        """One step of the rows (None: all): observations, rewards, terminated, infos."""

    @property
    def can_render(self) -> bool:
        """Whether rows can be drawn by `render_row`."""
        return type(self).render_row is not TaskVectorEnv.render_row

    @property
    def render_fps(self) -> int:
        """Number of steps per second of the simulated world, for pictures that play as it runs."""
        return 5

    @property
    def control_period_s(self) -> float | None:
        """Seconds of the simulated world between two actions; None where a step takes no particular time."""
        return None

    def render_row(self, row: int) -> np.ndarray:
        """A picture of one sub-environment as it is now, uint8 [height, width, 3].

        Raises:
            ValueError: if this family's environments cannot be drawn.
        """
        raise ValueError(f"environments of {self.family.name!r} cannot be drawn")

    def _seeded(self, rows: np.ndarray) -> None:
        """The rows have new generators: forget what was drawn from the old ones."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The task of every sub-environment; empty before `set_tasks`."""
        return self._tasks

    @property  # type: ignore[misc]  # read-only, and one per sub-environment, as SyncVectorEnv has it
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The generator of every sub-environment."""
        self._ensure_rngs()
        return tuple(self._rngs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of every sub-environment's generator."""
        self._ensure_rngs()
        return tuple(self._seeds)

    def set_tasks(self, tasks: Sequence[Task]) -> None:
        """Give every sub-environment its task. The next call must be `reset`.

        Raises:
            ValueError: if there is not exactly one task per sub-environment, or one is not of this family.
        """
        if len(tasks) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} tasks, one per sub-environment, got {len(tasks)}")
        self._set_task_params(self.family.stack(tasks), tasks)
        self._tasks = tuple(tasks)
        self._ended[:] = True

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every sub-environment, or in those of `options["reset_mask"]`.

        Args:
            seed: Seeds of the rows that are reset: an integer s seeds row i with s + i; a list seeds each row,
                None keeping its stream.
            options: Dictionary that may hold "reset_mask", bool [row] with at least one true.
        """
        if not self._tasks:
            raise RuntimeError("reset needs tasks: call set_tasks first")
        rows = np.arange(self.num_envs)
        if options is not None and "reset_mask" in options:
            rows = np.flatnonzero(self._check_mask(options["reset_mask"]))
        self._seed(seed, rows)
        infos = self._restart(rows)
        return self._nested(self._observations), self._masked(infos, rows)

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every sub-environment and reset those that ended, as the autoreset mode says."""
        actions = self._check_actions(actions)
        if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._ended.any():
            return self._step_after_ends(actions)
        if self._ended.any():  # with SAME_STEP only between set_tasks and reset
            raise ValueError(
                f"sub-environments {np.flatnonzero(self._ended).tolist()} have ended: reset them with "
                'options={"reset_mask": ...} before stepping'
            )
        observations, rewards, terminated, truncated, infos = self.advance(actions)
        rows = np.arange(self.num_envs)
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            return self._same_step(rewards, terminated, truncated, infos)
        nested = as_nested(self.single_observation_space, observations)
        return nested, rewards, terminated, truncated, self._masked(infos, rows)

    def advance(self, actions: np.ndarray, rows: np.ndarray | None = None) -> Transition:
        """Step the rows once, without any reset.

        Args:
            actions: Actions of the stepped rows, shape [row, ...].
            rows: Indices of the rows to step, ascending; None for all.
        """
        observations, rewards, terminated, infos = self._simulate(actions, rows)
        index: slice | np.ndarray = slice(None) if rows is None else rows
        self._observations[index] = observations
        self._elapsed[index] += 1
        truncated = self._elapsed[index] >= self.max_episode_steps
        self._ended[index] = terminated | truncated
        after = stored_parts(self._observations[index].copy())
        return Transition(after, rewards, terminated, truncated, infos)

    def _step_after_ends(
        self, actions: np.ndarray
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """NEXT_STEP: rows that ended ignore their action and give the reset observation instead."""
        ended, going = np.flatnonzero(self._ended), np.flatnonzero(~self._ended)
        rewards = np.zeros(self.num_envs)
        flags = np.zeros((2, self.num_envs), dtype=np.bool_)
        infos = self._masked(self._restart(ended), ended)
        if len(going):
            _, rewards[going], flags[0, going], flags[1, going], step_infos = self.advance(actions[going], going)
            infos = self._merge(infos, self._masked(step_infos, going))
        return self._nested(self._observations), rewards, flags[0], flags[1], infos

    def _same_step(
        self, rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, infos: Infos
    ) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """SAME_STEP: rows that ended give the reset observation and keep the last one in the infos."""
        ended, going = np.flatnonzero(self._ended), np.flatnonzero(~self._ended)
        final_obs = np.full(self.num_envs, None, dtype=object)
        for row in ended:
            final_obs[row] = self._nested(self._observations[row])
        mask = self._ended.copy()
        final_info = self._masked({name: values[ended] for name, values in infos.items()}, ended)
        merged = self._merge(
            self._masked({name: values[going] for name, values in infos.items()}, going),
            self._masked(self._restart(ended), ended),
        )
        merged |= {"final_obs": final_obs, "_final_obs": mask, "final_info": final_info, "_final_info": mask}
        return self._nested(self._observations), rewards, terminated, truncated, merged

    def _nested(self, stored: np.ndarray) -> Any:
        """Copies of stored observations in Gymnasium's form."""
        return as_nested(self.single_observation_space, stored_parts(stored.copy()))

    def _restart(self, rows: np.ndarray) -> Infos:
        self._ensure_rngs()
        every = len(rows) == self.num_envs  # rows ascend, so they are all of them in order
        observations, infos = self._begin(rows, self._rngs if every else [self._rngs[row] for row in rows])
        self._observations[rows] = observations
        self._elapsed[rows] = 0
        self._ended[rows] = False
        return infos

    def _seed(self, seed: int | Sequence[int | None] | None, rows: np.ndarray) -> None:
        if seed is None:
            return
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, one per sub-environment, got {len(seeds)}")
        chosen = {int(row): int(s) for row in rows if (s := seeds[row]) is not None}
        self._ensure_rngs(blank=len(chosen) == self.num_envs)
        for row, s in chosen.items():
            self._rngs[row], self._seeds[row] = seeding.np_random(s)
        self._seeded(np.fromiter(chosen, dtype=np.int64))

    def _ensure_rngs(self, blank: bool = False) -> None:
        """Make the generators when they are first needed; blank when all are about to be replaced."""
        if self._rngs:
            return
        if blank:
            self._rngs = [np.random.default_rng(0)] * self.num_envs
            self._seeds = [0] * self.num_envs
            return
        pairs = [seeding.np_random(None) for _ in range(self.num_envs)]
        self._rngs, self._seeds = [rng for rng, _ in pairs], [seed for _, seed in pairs]

    def _check_mask(self, mask: object) -> np.ndarray:
        if not isinstance(mask, np.ndarray):
            raise TypeError(f"`options['reset_mask']` must be a numpy array, got {type(mask)}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"`options['reset_mask']` must have shape `({self.num_envs},)`, got {mask.shape}")
        if mask.dtype != np.bool_:
            raise TypeError(f"`options['reset_mask']` must have `dtype=np.bool_`, got {mask.dtype}")
        if not mask.any():
            raise ValueError(
                "`options['reset_mask']` must contain a boolean array with at least one True value, "
                f"got reset_mask={mask}"
            )
        return mask

    def _check_actions(self, actions: np.ndarray) -> np.ndarray:
        if not self._tasks:
            raise RuntimeError("step needs tasks: call set_tasks and reset first")
        if np.ndim(actions) == 0:
            raise TypeError(f"expected {self.num_envs} actions, one per sub-environment, got the scalar {actions}")
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"expected actions of shape {self.action_space.shape}, got {actions.shape}")
        return actions

    def _masked(self, infos: Infos, rows: np.ndarray) -> dict[str, Any]:
        """Gymnasium's vector info format: full arrays, and under "_name" a mask of the rows that are set."""
        masked: dict[str, Any] = {}
        if not len(rows):  # as in Gymnasium, a name that no row set is absent
            return masked
        for name, values in infos.items():
            masked[name] = np.zeros((self.num_envs, *values.shape[1:]), dtype=values.dtype)
            masked[name][rows] = values
            masked[f"_{name}"] = np.zeros(self.num_envs, dtype=np.bool_)
            masked[f"_{name}"][rows] = True
        return masked

    @staticmethod
    def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
        """Two masked infos of disjoint rows as one."""
        merged = dict(first)
        for name, value in second.items():
            if name not in first:
                merged[name] = value
            elif name.startswith("_"):
                merged[name] = first[name] | value
            else:
                merged[name] = np.where(_expand(second[f"_{name}"], value.ndim), value, first[name])
        return merged


def _expand(mask: np.ndarray, ndim: int) -> np.ndarray:
    return mask.reshape(-1, *([1] * (ndim - 1)))


class NumpyFamily(TaskFamily):
    """A family whose environments are vectorised in numpy: the number of threads is no matter to them."""

    @abstractmethod
    def new_env(self, num_envs: int, max_episode_steps: int, autoreset_mode: AutoresetMode | str) -> TaskVectorEnv:
        """Create a vectorised environment of many rows."""

    def make_env(
        self,
        num_envs: int,
        *,
        horizon: int | None = None,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> TaskVectorEnv:
        """A vectorised environment with the family's own horizon or another; threads are ignored."""
        return self.new_env(num_envs, self.horizon if horizon is None else horizon, autoreset_mode)
