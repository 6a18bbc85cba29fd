"""Stable-Baselines3's PPO on our tasks: randomised over them, and trained on one that is new.

    from scratch   a new PPO learns on the held-out task, as many steps as the others adapt for
    fine-tuned     PPO learns on randomised tasks first, and goes on learning on the held-out one

Both are SB3's own classes (PPO, MlpPolicy, VecNormalize); ours is the adapter from the batched engine to its
VecEnv, which gives every sub-environment a new task whenever an episode's time is up.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import Tensor
from torch.distributions import Normal

from metarl.agent import Actions, Outcome
from metarl.experiments.study.configuration import StablePpo
from metarl.observations import describe
from metarl.runs.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from metarl.runs.reading import shorten
from metarl.runs.seeding import TaskNoise
from metarl.tasks import Task, TaskEnv
from metarl.trajectories import Trajectories

DrawTasks = Callable[[], Sequence[Task]]
_RENAMED = {"seen": "num_observations", "returns_seen": "num_returns"}  # in older checkpoints


class TaskVecEnv(VecEnv):
    """A batched task environment behind the interface of SB3's vector environments.

    All sub-environments take new tasks together, when an episode's time is up. One that ended before goes on with
    its task until then, and what is running then is truncated, with its last observation to bootstrap from.

    Args:
        env: Environment that simulates the rows.
        draw_tasks: Function that draws one task per sub-environment.
        rng: Generator that seeds the resets.
    """

    def __init__(self, env: TaskEnv, draw_tasks: DrawTasks, rng: np.random.Generator) -> None:
        observations, actions = env.single_observation_space, env.single_action_space
        if not isinstance(observations, spaces.Box):
            raise ValueError(f"the PPO baseline takes observations of a Box, got {describe(observations)}")
        if not isinstance(actions, spaces.Box):
            raise ValueError(f"the PPO baseline takes bounded Box actions, got {describe(actions)}")
        super().__init__(env.num_envs, observations, actions)
        self._env, self._draw_tasks, self._rng = env, draw_tasks, rng
        self._actions = np.zeros(0)
        self._observations = np.zeros(0)
        self._clock = 0

    def reset(self) -> np.ndarray:
        """Draw new tasks and start an episode of each; returns the observations [row, feature]."""
        self._env.set_tasks(self._draw_tasks())
        self._clock = 0
        seeds = self._rng.integers(2**31, size=self.num_envs).tolist()
        self._observations, _ = self._env.reset(seed=seeds)
        return self._observations.astype(np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for the step that `step_wait` takes."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all rows, with SB3's resets within the step."""
        after = self._env.advance(self._actions)
        self._clock += 1
        time_is_up = self._clock == self._env.max_episode_steps
        ends = after.terminated | after.truncated | time_is_up
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(ends):
            last = after.observations[row].astype(np.float32)
            infos[row] = {"terminal_observation": last, "TimeLimit.truncated": not after.terminated[row]}
        observations = after.observations
        if time_is_up:
            observations = self.reset()
        elif ends.any():
            observations, _ = self._env.reset(options={"reset_mask": ends})
        return observations.astype(np.float32), after.rewards.astype(np.float32), ends, infos

    def close(self) -> None:
        """Release the engine's threads."""
        self._env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of a name, once per sub-environment; the rendering mode is None."""
        return [None if attr_name == "render_mode" else getattr(self._env, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Raise NotImplementedError, as sub-environments are rows of one batch."""
        raise NotImplementedError("sub-environments are rows of one batch")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Raise NotImplementedError, as sub-environments are rows of one batch."""
        raise NotImplementedError("sub-environments are rows of one batch")

    def env_is_wrapped(self, wrapper_class: type[Any], indices: Any = None) -> list[bool]:
        """False for every sub-environment, as none has a wrapper."""
        return [False] * self.num_envs


class Snapshot(NamedTuple):
    """The policy, the value and the running units of observations and rewards of a PPO, without Adam's moments.

    Attributes:
        policy: State dictionary of SB3's policy.
        mean: Mean of the observations, [obs].
        variance: Variance of the observations, [obs].
        num_observations: Number of observations behind the mean and the variance.
        return_mean: Mean of the discounted returns.
        return_variance: Variance of the discounted returns; rewards are divided by its root.
        num_returns: Number of discounted returns behind their mean and variance.
        steps: Number of environment steps of the training.
    """

    policy: dict[str, Tensor]
    mean: Tensor
    variance: Tensor
    num_observations: float
    return_mean: float
    return_variance: float
    num_returns: float
    steps: int

    def save(self, folder: Path) -> None:
        """Write the snapshot as a checkpoint into a folder."""
        save_checkpoint(folder, {"of": "Stable-Baselines3 PPO", "snapshot": self._asdict()})

    @staticmethod
    def load(path: Path) -> "Snapshot":
        """Read a checkpoint; nothing in it is executed.

        Raises:
            CheckpointError: if the file is damaged, or holds something else.
        """
        values = load_checkpoint(path).get("snapshot")
        try:
            if not isinstance(values, dict):
                raise TypeError("expected a snapshot")
            snapshot = Snapshot(**{_RENAMED.get(str(name), str(name)): value for name, value in values.items()})
            _check_snapshot(snapshot)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is no snapshot of PPO ({error}); delete it to train again") from error
        return snapshot


def _check_snapshot(snapshot: Snapshot) -> None:
    """Raise a ValueError unless the parts are of the kinds that they should be."""
    policy = snapshot.policy
    tensors = list(policy.values()) if isinstance(policy, dict) else [None]
    for value in (*tensors, snapshot.mean, snapshot.variance):
        if not isinstance(value, Tensor) or not value.isfinite().all():
            raise ValueError(f"its policy, mean and variance must be finite tensors, got {shorten(value)}")
    for name in ("num_observations", "return_mean", "return_variance", "num_returns", "steps"):
        number = getattr(snapshot, name)
        if type(number) not in (int, float) or not math.isfinite(number):
            raise ValueError(f"{name} must be a finite number, got {shorten(number)}")


class StableActor:
    """An actor that samples from a PPO's policy; see `metarl.agent.Actor`.

    Args:
        ppo: PPO whose policy acts.
        units: Running units of its observations.
    """

    sequential = False

    def __init__(self, ppo: PPO, units: VecNormalize) -> None:
        assert isinstance(ppo.action_space, spaces.Box), "checked by PPO's caller"
        self._policy, self._space = ppo.policy, ppo.action_space
        running = _statistics(units)
        self._mean, self._scale = running.mean.copy(), np.sqrt(running.var + units.epsilon)
        self._limit = units.clip_obs
        self._noise: TaskNoise | None = None

    def select(self, tasks: slice) -> "StableActor":
        """Itself, as it is the same for all tasks."""
        return self

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start parallel episodes of all tasks."""
        self._noise = TaskNoise(task_seeds, (num_parallel, *self._space.shape))

    def begin_episode(self) -> None:
        """Do nothing, as no state is kept from step to step."""

    def act(self, observations: Tensor) -> Actions:
        """Sample actions [task, parallel, act]."""
        assert self._noise is not None, "begin comes before act"
        scaled = np.clip((observations.numpy() - self._mean) / self._scale, -self._limit, self._limit)
        rows = torch.from_numpy(scaled.astype(np.float32)).flatten(0, 1)
        normal, noise = self._policy.get_distribution(rows).distribution, self._noise.next()
        assert isinstance(normal, Normal), "actions are a Box"
        actions = normal.mean.view_as(noise) + normal.stddev.view_as(noise) * noise
        return Actions(np.clip(actions.numpy(), self._space.low, self._space.high), actions, {})

    def observe(self, outcome: Outcome) -> None:
        """Do nothing, as nothing is learned while acting."""

    def adapt(self, trajectories: Trajectories) -> "StableActor":
        """Raise NotImplementedError, as PPO learns from episodes that it collects itself."""
        raise NotImplementedError("Stable-Baselines3's PPO collects its own episodes")


class StableLearner:
    """A PPO and the environment that it learns in.

    Args:
        env: Environment with continuous actions; closed with the learner.
        draw_tasks: Function that draws one task per sub-environment, for every episode.
        config: Hyperparameters of PPO.
        learning_rate: Adam step size.
        seed: Seed of weights, actions and resets.
        start: Snapshot to start from; None for random weights.
    """

    def __init__(
        self,
        env: TaskEnv,
        draw_tasks: DrawTasks,
        config: StablePpo,
        *,
        learning_rate: float,
        seed: int,
        start: Snapshot | None = None,
    ) -> None:
        rows = TaskVecEnv(env, draw_tasks, np.random.default_rng(seed))
        self._units = VecNormalize(rows, gamma=config.gamma)
        self._rollout = env.max_episode_steps * env.num_envs
        self._ppo = PPO(
            "MlpPolicy",
            self._units,
            learning_rate=learning_rate,
            n_steps=env.max_episode_steps,
            batch_size=self._rollout // _divisor(self._rollout, config.minibatches),
            n_epochs=config.epochs,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            policy_kwargs={"log_std_init": math.log(config.init_std)},
            seed=seed % 2**31,
            device="cpu",
        )
        self._ppo.set_logger(Logger(None, []))  # SB3's own makes a folder in the temporary one for every PPO
        self._before = 0
        if start is not None:
            units = _statistics(self._units)
            if not start.mean.shape == start.variance.shape == units.mean.shape:
                raise ValueError(
                    f"the snapshot must have observations of shape {units.mean.shape}; train PPO again"
                )
            try:
                self._ppo.policy.load_state_dict(start.policy)
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise ValueError(f"the snapshot is of another network than the study's PPO: {reason}") from error
            units.mean, units.var, units.count = start.mean.numpy(), start.variance.numpy(), start.num_observations
            returns = self._units.ret_rms  # the value was learned in these units
            returns.mean, returns.var = np.array(start.return_mean), np.array(start.return_variance)
            returns.count = start.num_returns
            self._before = start.steps

    def learn(self, num_rollouts: int) -> None:
        """Train on a number of rollouts, each one episode long."""
        self._ppo.learn(num_rollouts * self._rollout, reset_num_timesteps=False)

    def actor(self) -> StableActor:
        """An actor with the current policy."""
        return StableActor(self._ppo, self._units)

    def snapshot(self) -> Snapshot:
        """A copy of what was learned so far."""
        policy = {name: values.clone() for name, values in self._ppo.policy.state_dict().items()}
        units = _statistics(self._units)
        mean, variance = torch.from_numpy(units.mean.copy()), torch.from_numpy(units.var.copy())
        steps = self._before + int(self._ppo.num_timesteps)
        returns = self._units.ret_rms
        return Snapshot(
            policy=policy,
            mean=mean,
            variance=variance,
            num_observations=float(units.count),
            return_mean=float(returns.mean),
            return_variance=float(returns.var),
            num_returns=float(returns.count),
            steps=steps,
        )

    def close(self) -> None:
        """Release the engine's threads."""
        self._units.close()


def _divisor(number: int, least: int) -> int:
    """The least divisor that is not below: all minibatches are then of one size, of two steps at least."""
    return next((divisor for divisor in range(least, number // 2 + 1) if number % divisor == 0), 1)


def _statistics(units: VecNormalize) -> RunningMeanStd:
    """The running statistics of observations that are one array."""
    assert isinstance(units.obs_rms, RunningMeanStd)
    return units.obs_rms
