"""Meta-World's environments of many rows as one batch, in threads of one process.

A step simulates all rows, those of one class after another, in as many threads as there are cores; then numpy
computes observations, rewards and successes of every class's rows at once. The first observation of a task's
episode, and the state behind it, are computed once per task.

Physics and observations are the package's to the bit. Rewards are the package's for an action in double precision:
for one in single precision, some of the package's rewards for grasping are rounded to single precision.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from metarl.envs.metaworld.physics import ClassPhysics
from metarl.envs.metaworld.sawyer import new_environment
from metarl.envs.metaworld.skills import SKILLS
from metarl.envs.metaworld.starts import Start, Starts
from metarl.envs.vector import Infos, TaskVectorEnv
from metarl.tasks import Task, TaskFamily

Vector = tuple[float, ...]


class MetaWorldEnv(TaskVectorEnv):
    """Sub-environments of any of Meta-World's classes, simulated together.

    Args:
        family: Family of the tasks.
        num_envs: Number of sub-environments.
        observation_space: Space of one sub-environment's observations.
        action_space: Space of one sub-environment's actions.
        reward_version: Version of the rewards, "v1" or "v2".
        goal_observed: Whether observations contain the goal.
        vector_of: Function that reads a task's vector.
        num_threads: Number of threads that simulate; the calling one is among them.
        max_episode_steps: Time limit of an episode.
        autoreset_mode: Behaviour of `step` after an episode ends.
    """

    def __init__(
        self,
        family: TaskFamily,
        num_envs: int,
        observation_space: spaces.Box,
        action_space: spaces.Box,
        *,
        reward_version: str,
        goal_observed: bool,
        vector_of: Callable[[Task], Vector],
        num_threads: int,
        max_episode_steps: int,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        super().__init__(
            family,
            num_envs,
            observation_space,
            action_space,
            max_episode_steps=max_episode_steps,
            autoreset_mode=autoreset_mode,
        )
        self._old, self._goal_observed, self._vector_of = reward_version == "v1", goal_observed, vector_of
        self._threads = max(1, min(num_threads, num_envs))
        self._pool: ThreadPoolExecutor | None = None
        self._physics: dict[str, ClassPhysics] = {}
        self._drawn: dict[str, Any] = {}
        self._vectors: list[Vector] = []
        self._classes: dict[str, np.ndarray] = {}
        self._places = np.zeros(num_envs, dtype=np.int64)

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        if self.closed:
            raise RuntimeError("the environment was closed; make a new one")
        rows: dict[str, list[int]] = {}
        self._vectors = []
        for row, task in enumerate(tasks):
            rows.setdefault(task.family.partition("/")[2], []).append(row)
            self._vectors.append(self._vector_of(task))
        self._classes = {name: np.array(numbers) for name, numbers in rows.items()}
        for name, numbers in self._classes.items():
            if name not in self._physics:
                version = "v1" if self._old else "v2"
                self._physics[name] = ClassPhysics(Starts(name, version, self._goal_observed), self._threads)
            self._physics[name].resize(len(numbers))
            self._places[numbers] = np.arange(len(numbers))

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        observations = np.zeros((len(rows), 39))
        self._compute_starts(rows)
        for name, chosen, places in self._by_class(rows):
            physics = self._physics[name]
            starts = [self._start(physics, row) for row in rows[chosen].tolist()]
            observations[chosen] = physics.begin(places.tolist(), starts)
        return observations, {}

    def _start(self, physics: ClassPhysics, row: int) -> Start:
        start = physics.starts.known(self._vectors[row])
        return physics.starts.compute(self._vectors[row]) if start is None else start

    def _compute_starts(self, rows: np.ndarray) -> None:
        """Compute the starts of new tasks among the rows' in all threads."""
        missing = {
            (name, self._vectors[row]): self._physics[name].starts
            for name, chosen, _ in self._by_class(rows)
            for row in rows[chosen].tolist()
            if self._physics[name].starts.known(self._vectors[row]) is None
        }
        jobs = [(starts, vector) for (_, vector), starts in missing.items()]
        computed: list[Start | None] = [None] * len(jobs)

        def compute(thread: int, numbers: Iterator[int]) -> None:
            for number in numbers:
                starts, vector = jobs[number]
                computed[number] = starts.compute(vector)

        self._share(len(jobs), compute)
        for (starts, vector), start in zip(jobs, computed, strict=True):
            assert start is not None
            starts.keep(vector, start)

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        stepped = np.arange(self.num_envs) if rows is None else rows
        actions = np.asarray(actions, dtype=np.float32)
        if actions.shape != (len(stepped), 4):
            raise ValueError(f"expected actions of shape {(len(stepped), 4)}, got {actions.shape}")
        parts = list(self._by_class(stepped))
        jobs: list[tuple[ClassPhysics, int, np.ndarray, np.ndarray]] = []
        for name, chosen, places in parts:
            physics = self._physics[name]
            guides, fingers = physics.controls(places, actions[chosen])
            jobs += [(physics, *job) for job in zip(places.tolist(), guides, fingers, strict=True)]

        def step(thread: int, numbers: Iterator[int]) -> None:
            for number in numbers:
                physics, place, guide, fingers = jobs[number]
                physics.step(thread, place, guide, fingers)

        self._share(len(jobs), step)
        observations, rewards = np.zeros((len(stepped), 39)), np.zeros(len(stepped))
        successes = np.zeros(len(stepped))
        for name, chosen, places in parts:
            result = self._evaluate(name, places, actions[chosen])
            observations[chosen], rewards[chosen], successes[chosen] = result
        if not np.isfinite(rewards).all():
            row = int(stepped[np.flatnonzero(~np.isfinite(rewards))[0]])
            raise ValueError(f"{self._tasks[row].family}: the reward must be finite, got {rewards[row]}")
        return observations, rewards, np.zeros(len(stepped), dtype=np.bool_), {"success": successes}

    def _evaluate(
        self, name: str, places: np.ndarray, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations, rewards and successes of rows of one class."""
        physics, skill = self._physics[name], SKILLS[name]
        rows = physics.rows(places)
        rows.target = rows.noted("_target_pos") if skill.goal is None else skill.goal(rows)
        rows.observations = physics.observe(places, skill.observe(rows), rows.target)
        rows.actions = actions.astype(np.float64)
        outcome = (skill.old if self._old else skill.reward)(rows)
        return rows.observations, outcome.rewards, outcome.successes

    def _by_class(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """By class: positions of its rows among some rows, and their places in the class."""
        position = np.full(self.num_envs, -1)
        position[rows] = np.arange(len(rows))
        for name, numbers in self._classes.items():
            chosen = position[numbers]
            chosen = chosen[chosen >= 0]
            if len(chosen):
                yield name, chosen, self._places[rows[chosen]]

    def _share(self, count: int, work: Callable[[int, Iterator[int]], None]) -> None:
        """Have threads take numbers below a count, one after another, until none is left."""
        if self._threads == 1 or count < 2:
            work(0, iter(range(count)))
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads - 1)
        counter = itertools.count()  # taking its next number cannot be interrupted by another thread

        def numbers() -> Iterator[int]:
            while (number := next(counter)) < count:
                yield number

        others = [self._pool.submit(work, thread, numbers()) for thread in range(1, self._threads)]
        try:
            work(0, numbers())
        finally:
            errors = [other.exception() for other in others]  # waits for all of them
        for error in errors:
            if error is not None:
                raise error

    @property
    def render_fps(self) -> int:
        """Number of steps per second of the simulated world."""
        return 80

    @property
    def control_period_s(self) -> float:
        """Seconds between two actions."""
        return 1 / 80

    def render_row(self, row: int) -> np.ndarray:
        """A picture of a row by the package's camera, uint8 [height, width, 3]."""
        name = self._tasks[row].family.partition("/")[2]
        if name not in self._drawn:
            self._drawn[name] = new_environment(name, fast_step=False)
            self._drawn[name].render_mode = "rgb_array"
        env, (qpos, start) = self._drawn[name], self._physics[name].state(int(self._places[row]))
        env.model.body_pos[:], env.model.site_pos[:] = start.body_pos, start.site_pos
        env.data.qpos[:] = qpos
        mujoco.mj_forward(env.model, env.data)
        picture: np.ndarray = env.render()
        return picture

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the threads and free the simulations."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._physics, self._drawn = {}, {}
