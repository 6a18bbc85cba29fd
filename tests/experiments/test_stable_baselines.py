"""Stable-Baselines3 on our engine: what it sees, what it learns, and what it keeps."""

import math
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from metarl.envs.mujoco.families import HalfCheetahVel, RunForward
from metarl.envs.mujoco.robots import HOPPER
from metarl.experiments.study.configuration import StablePpo
from metarl.experiments.study.stable_baselines import Snapshot, StableLearner, TaskVecEnv
from metarl.runs.checkpoint import save_checkpoint
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers
from tests.environments import anything


def test_stable_baselines_sees_what_our_engine_does() -> None:
    """Rows take new tasks when time is up; one that fell goes on with its task, and says how it ended."""
    family, drawn = RunForward(HOPPER), []
    env = family.make_env(3, horizon=40, num_threads=1)

    def draw() -> list[Task]:
        drawn.append([Task.of("hopper-forward")] * 3)
        return drawn[-1]

    rows = TaskVecEnv(env, draw, np.random.default_rng(0))
    observations = rows.reset()
    fell = cut = 0
    rng = np.random.default_rng(1)
    for step in range(1, 81):
        expected = env.physics.states.copy()
        observations, rewards, ends, infos = rows.step(rng.uniform(-1, 1, (3, 3)).astype(np.float32))
        assert observations.dtype == rewards.dtype == np.float32
        assert len(expected) == 3
        for row in range(3):
            assert ("terminal_observation" in infos[row]) == bool(ends[row])
            if not ends[row]:
                continue
            last = infos[row]["terminal_observation"]
            unhealthy = last[0] <= 0.7 or abs(last[1]) >= 0.2
            assert infos[row]["TimeLimit.truncated"] == (not unhealthy)
            assert observations[row, 0] > 1.2  # stands again
            fell, cut = fell + unhealthy, cut + (not unhealthy)
        assert ends.all() == (step % 40 == 0) or ends.all()
    assert fell
    assert cut
    assert len(drawn) == 3
    rows.close()


def test_ppo_learns_the_same_as_in_stable_baselines_own_environment() -> None:
    """One task, one row: SB3's own wrapper of a plain environment gives bit-identical parameters."""
    config = StablePpo(num_envs=1, minibatches=2, epochs=2)
    task, family = Task.of("half-cheetah-vel", velocity=1.0), HalfCheetahVel()
    ours = StableLearner(
        family.make_env(1, horizon=20, num_threads=1), lambda: [task], config, learning_rate=1e-3, seed=4
    )
    ours.learn(3)
    seeds = np.random.default_rng(4)

    class Plain(gymnasium.Env[np.ndarray, Any]):
        def __init__(self) -> None:
            self.engine = family.make_env(1, horizon=20, num_threads=1)
            self.engine.set_tasks([task])
            self.observation_space = self.engine.single_observation_space
            self.action_space = self.engine.single_action_space

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
            return self.engine.reset(seed=seeds.integers(2**31, size=1).tolist())[0][0].astype(np.float32), {}

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            after = self.engine.advance(action[None])
            seen = after.observations[0].astype(np.float32)
            return seen, float(after.rewards[0]), bool(after.terminated[0]), bool(after.truncated[0]), {}

    units = VecNormalize(DummyVecEnv([lambda: Monitor(Plain())]), gamma=config.gamma)
    theirs = PPO(
        "MlpPolicy",
        units,
        learning_rate=1e-3,
        n_steps=20,
        batch_size=10,
        n_epochs=2,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        policy_kwargs={"log_std_init": math.log(0.5)},
        seed=4,
        device="cpu",
    )
    theirs.set_logger(Logger(None, []))
    theirs.learn(60)
    for name, values in theirs.policy.state_dict().items():
        assert torch.equal(ours.snapshot().policy[name], values), name
    ours.close()


def test_what_ppo_learned_goes_through_a_file(tmp_path: Path) -> None:
    task, family = Task.of("half-cheetah-vel", velocity=1.0), HalfCheetahVel()
    config = StablePpo(num_envs=2, minibatches=2, epochs=1)

    def learner(start: Snapshot | None) -> StableLearner:
        env = family.make_env(2, horizon=10, num_threads=1)
        return StableLearner(env, lambda: [task] * 2, config, learning_rate=1e-3, seed=1, start=start)

    first = learner(None)
    first.learn(2)
    first.snapshot().save(tmp_path)
    second = learner(Snapshot.load(tmp_path / "checkpoint.pt"))
    assert second.snapshot().steps == 40
    rewards = np.array([-3.0, 0.5], np.float32)  # the value was learned in these units
    assert np.array_equal(first._units.normalize_reward(rewards), second._units.normalize_reward(rewards))
    fresh = learner(None)
    assert not np.allclose(fresh._units.normalize_reward(rewards), second._units.normalize_reward(rewards))
    fresh.close()
    with Workers(EnvMaker(family, 10), num_threads=1) as workers:
        a, b = (workers.collect(each.actor(), [task], 3, seed=5) for each in (first, second))
    assert torch.equal(a.rewards, b.rewards)
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("observations", "actions", "message"),
    [
        (spaces.Dict(a=spaces.Discrete(2)), spaces.Discrete(2), r"observations of a Box, got Dict\(a: Discrete"),
        (spaces.Box(-1, 1, (2,)), spaces.Discrete(2), r"bounded Box actions, got Discrete\(2\)"),
    ],
)
def test_spaces_that_the_baseline_cannot_take_are_refused(observations: Any, actions: Any, message: str) -> None:
    env = anything(observations, actions).make_env(1, num_threads=1)
    with pytest.raises(ValueError, match=f"the PPO baseline takes {message}"):
        TaskVecEnv(env, list, np.random.default_rng(0))


def test_a_checkpoint_with_the_former_names_of_counts_loads(tmp_path: Path) -> None:
    units = {"mean": torch.zeros(2), "variance": torch.ones(2), "return_mean": 0.5, "return_variance": 2.0}
    former = {"policy": {}, **units, "seen": 30.0, "returns_seen": 40.0, "steps": 50}
    save_checkpoint(tmp_path, {"of": "Stable-Baselines3 PPO", "snapshot": former})
    snapshot = Snapshot.load(tmp_path / "checkpoint.pt")
    assert (snapshot.num_observations, snapshot.num_returns, snapshot.steps) == (30.0, 40.0, 50)
