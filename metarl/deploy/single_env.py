"""One plain environment: an actor's seat in it, and its episodes as they were recorded there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Actor, Deployable, Outcome
from metarl.deploy.recordings import UNKNOWN_TASK, Recording
from metarl.observations import Arrays, as_arrays, map_parts, space_parts
from metarl.runs.seeding import episode_seeds, task_seeds
from metarl.trajectories import Observations, Trajectories, as_tensors, map_observations

_PATIENCE = 100_000  # steps after which an environment without a time limit is taken not to end its episode


@dataclass(frozen=True)
class Episode:
    """One episode: its return and success, and the time that it took.

    Attributes:
        env_return: Undiscounted sum of the rewards.
        success: True if the environment reported success at some step; None if it reports none.
        act_s: Seconds that acting and reading the outcome took, [step].
        env_s: Seconds that the environment took, [step].
    """

    env_return: float
    success: bool | None
    act_s: np.ndarray
    env_s: np.ndarray

    @property
    def num_steps(self) -> int:
        """Number of environment steps."""
        return len(self.act_s)


class Seat:
    """One row of an actor's batch of one task: it reads this environment's observations, other rows read zeros.

    All that comes from the environment is checked here: its shapes, and that it is finite.

    Args:
        actor: Acts, and reads what follows.
        env_space: Action space of the environment.
        seeds: Seed of the actor's noise, [1].
        row: Row of the batch that this environment has.
        num_rows: Number of rows of the batch.
    """

    def __init__(
        self, actor: Actor, env_space: spaces.Space[Any], seeds: np.ndarray, *, row: int, num_rows: int
    ) -> None:
        self.actor = actor
        self._parts: dict[str, tuple[int, ...]] | None = None
        if isinstance(actor, Deployable):
            observed = space_parts(actor.interface.observation_space)
            self._parts = {name: part.shape or () for name, part in observed.items()}
        self._steps = 0  # of the episode
        self._space, self._row = env_space, row
        self._flags = torch.zeros(3, 1, num_rows, dtype=torch.bool)  # terminated, truncated, alive
        self._flags[2, 0, row] = True
        self._rewards = torch.zeros(1, num_rows)
        self.observations: Observations = torch.empty(0)
        self.outputs = torch.empty(0)
        self.records: dict[str, Tensor] = {}
        actor.begin(seeds, num_rows)

    def begin_episode(self) -> None:
        """The next episode starts."""
        self._steps = 0
        self.actor.begin_episode()

    def act(self, observation: Any) -> Any:
        """The environment's action at an observation in Gymnasium's form."""
        row = self._row
        batch = self._batch(observation)
        with torch.no_grad():
            chosen = self.actor.act(batch)
        self.observations = map_observations(itemgetter((0, row)), batch)
        self.outputs = chosen.actions[0, row]
        self.records = {name: values[0, row] for name, values in chosen.records.items()}
        action = chosen.env_actions[0, row]
        return action.astype(self._space.dtype) if self._space.shape else int(action)

    def observe(
        self, observation: Any, reward: float, terminated: bool, truncated: bool, infos: dict[str, Tensor]
    ) -> None:
        """Read the outcome of the last action."""
        row = self._row
        self._steps += 1
        if not np.isfinite(reward):
            raise FloatingPointError(f"the reward is not finite after step {self._steps} of an episode")
        rewards, flags = self._rewards.clone(), self._flags.clone()
        rewards[0, row] = float(reward)
        flags[0, 0, row], flags[1, 0, row] = bool(terminated), bool(truncated)
        with torch.no_grad():
            self.actor.observe(Outcome(self._batch(observation), rewards, flags[0], flags[1], flags[2], infos))

    def _batch(self, observation: Any) -> Observations:
        """Observations, each part [1, row, *shape]."""
        arrays = as_arrays(observation)
        if self._parts is not None:
            came = {name: part.shape for name, part in _named(arrays).items()}
            if came != self._parts:
                expected = described(self._parts)
                raise ValueError(
                    f"the agent reads observations of {expected}, the observation has {described(came)}"
                )
        for part in _named(arrays).values():
            if not np.isfinite(part).all():
                raise FloatingPointError(f"the observation is not finite after step {self._steps} of an episode")
        return map_observations(self._in_row, as_tensors(arrays))

    def _in_row(self, part: Tensor) -> Tensor:
        rows = self._rewards.shape[1]
        if rows == 1:
            return part[None, None]
        batch = torch.zeros(1, rows, *part.shape, dtype=part.dtype)
        batch[0, self._row] = part
        return batch


def _named(arrays: Arrays) -> dict[str, np.ndarray]:
    return arrays if isinstance(arrays, dict) else {"": arrays}


def described(parts: dict[str, tuple[int, ...]]) -> str:
    """Shapes of observations in words: "shape (4,)", or "image (7, 7, 3), speed (4,)"."""
    return ", ".join(f"{name or 'shape'} {shape}" for name, shape in parts.items())


@dataclass
class EpisodeLog:
    """The steps of one episode as they come."""

    observations: list[Observations] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    records: list[dict[str, Tensor]] = field(default_factory=list)
    actions: list[Any] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    flags: list[tuple[bool, bool]] = field(default_factory=list)
    following: list[Observations] = field(default_factory=list)
    successes: list[bool] = field(default_factory=list)
    act_s: list[float] = field(default_factory=list)
    env_s: list[float] = field(default_factory=list)

    def summary(self) -> Episode:
        """Return, success and times of the episode."""
        success = any(self.successes) if self.successes else None
        return Episode(float(np.sum(self.rewards)), success, np.array(self.act_s), np.array(self.env_s))


def run_trial(
    actor: Actor, env: gymnasium.Env[Any, Any], episodes: int, seed: int, max_episode_steps: int | None
) -> list[EpisodeLog]:
    """Episodes one after the other as one trial: the later ones go on with the first one's random stream."""
    first = int(episode_seeds(seed, 1, episodes)[0, 0])
    seat = Seat(actor, env.action_space, task_seeds(seed, 1), row=0, num_rows=1)
    return [run_episode(seat, env, None if k else first, max_episode_steps) for k in range(episodes)]


def run_batch(
    actor: Actor, env: gymnasium.Env[Any, Any], episodes: int, seed: int, max_episode_steps: int | None
) -> list[EpisodeLog]:
    """Episodes that an actor would run in parallel, each with its own row's noise."""
    seeds, noise = episode_seeds(seed, 1, episodes)[0], task_seeds(seed, 1)
    logs = []
    for row in range(episodes):
        seat = Seat(actor, env.action_space, noise, row=row, num_rows=episodes)
        logs.append(run_episode(seat, env, int(seeds[row]), max_episode_steps))
    return logs


def run_episode(
    seat: Seat, env: gymnasium.Env[Any, Any], seed: int | None, max_episode_steps: int | None
) -> EpisodeLog:
    """Run one whole episode.

    Args:
        seat: Acts, and reads what follows.
        env: Environment to act in.
        seed: Seed of the reset; None goes on with the environment's random stream.
        max_episode_steps: Number of steps after which the episode is cut; None leaves the end to the environment.
    """
    if max_episode_steps is not None:
        check_count("max_episode_steps", max_episode_steps)
    log, ended = EpisodeLog(), False
    observation, _ = env.reset(seed=seed)
    seat.begin_episode()
    limit = max_episode_steps or _PATIENCE
    while not ended:
        began = time.perf_counter()
        action = seat.act(observation)
        acted = time.perf_counter()
        observation, env_reward, terminated, truncated, info = env.step(action)
        stepped = time.perf_counter()
        reward, step = float(env_reward), len(log.rewards) + 1
        truncated = bool(truncated) or step == max_episode_steps
        log.observations.append(seat.observations)
        log.outputs.append(seat.outputs)
        log.records.append(seat.records)
        log.actions.append(action)
        log.rewards.append(reward)
        log.flags.append((bool(terminated), truncated))
        log.following.append(as_tensors(as_arrays(observation)))
        log.successes += [bool(info[name]) for name in ("success", "is_success") if name in info][:1]
        reading = time.perf_counter()
        seat.observe(observation, reward, bool(terminated), truncated, {})
        log.act_s.append(acted - began + time.perf_counter() - reading)
        log.env_s.append(stepped - acted)
        ended = bool(terminated) or truncated
        if not ended and step >= limit:
            raise ValueError(f"an episode did not end in {limit:,} steps; give max_episode_steps")
    return log


def check_count(name: str, value: int) -> None:
    """Raise a ValueError unless a number is a whole one of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")


def as_trajectories(logs: Sequence[EpisodeLog]) -> Trajectories:
    """The episodes as those of one unknown task, padded to the longest."""

    def padded(*parts: Tensor) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True)[None]

    def stacked(parts: Callable[[EpisodeLog], Tensor]) -> Tensor:
        return padded(*(parts(log) for log in logs))

    flags = stacked(lambda log: torch.tensor(log.flags))
    return Trajectories(
        tasks=(UNKNOWN_TASK,),
        observations=map_observations(padded, *(_stack(log.observations) for log in logs)),
        actions=stacked(lambda log: torch.stack(log.outputs)),
        rewards=stacked(lambda log: torch.tensor(log.rewards)),
        terminated=flags[..., 0],
        truncated=flags[..., 1],
        mask=stacked(lambda log: torch.ones(len(log.rewards), dtype=torch.bool)),
        last_observations=map_observations(lambda part: part[None], _stack([log.following[-1] for log in logs])),
        records={
            name: stacked(lambda log, name=name: torch.stack([step[name] for step in log.records]))  # type: ignore[misc]
            for name in logs[0].records[0]
        },
        infos={},
    )


def as_recording(logs: Sequence[EpisodeLog]) -> Recording:
    """The transitions of the episodes, one after the other."""
    flags = np.array([pair for log in logs for pair in log.flags])
    return Recording(
        observations=map_parts(Tensor.numpy, _stack([step for log in logs for step in log.observations])),
        actions=np.stack([np.asarray(action) for log in logs for action in log.actions]),
        rewards=np.array([reward for log in logs for reward in log.rewards]),
        terminated=flags[:, 0],
        truncated=flags[:, 1],
        next_observations=map_parts(Tensor.numpy, _stack([step for log in logs for step in log.following])),
    )


def _stack(steps: Sequence[Observations]) -> Observations:
    """Observations of many steps along a new first axis."""

    def stack(*parts: Tensor) -> Tensor:
        return torch.stack(parts)

    return map_observations(stack, *steps)
