"""Agents in Meta-World's own evaluation: each of them runs, and hears there what it hears in our workers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import metaworld
import numpy as np
import pytest
import torch
from metaworld.evaluation import Timestep, metalearning_evaluation

from metarl.agent import Actor
from metarl.agents.maml import PolicyConfig
from metarl.envs import make_benchmark
from metarl.envs.metaworld.protocol import MetaWorldAgent
from metarl.experiments.configuration import Experiment, experiment_benchmark, make_agent
from metarl.experiments.presets.table import preset
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers

pytestmark = pytest.mark.thorough

HORIZON = 12
AGENTS = ("ml1-reach-promp", "ml1-reach-maml-trpo", "ml1-reach-rl2", "ml1-reach-pearl")


def untrained(name: str) -> Actor:
    """The actor of a preset, for short episodes."""
    experiment: Experiment = replace(preset(name), horizon=HORIZON)
    if hasattr(experiment.agent, "policy") and isinstance(experiment.agent.policy, PolicyConfig):
        adaptation = replace(experiment.agent.adaptation, num_episodes=2)  # type: ignore[union-attr]
        experiment = replace(experiment, agent=replace(experiment.agent, adaptation=adaptation))
    return make_agent(experiment, experiment_benchmark(experiment)).actor()


@pytest.fixture(scope="module")
def reach() -> Iterator[gymnasium.vector.VectorEnv]:
    """Two of the package's environments, with other goals each, and short episodes."""
    envs = metaworld.make_ml_envs(
        "reach-v3",
        seed=0,
        meta_batch_size=2,
        split="test",
        max_episode_steps=HORIZON,
        recurrent_info_in_obs=True,
    )
    yield envs
    envs.close()


@pytest.mark.parametrize("name", AGENTS)
def test_metaworlds_evaluation_drives_every_agent(name: str, reach: gymnasium.vector.VectorEnv) -> None:
    agent = MetaWorldAgent(untrained(name))
    success, mean_return, by_name = metalearning_evaluation(
        agent,  # type: ignore[arg-type]  # what it calls auxiliary outputs need not be arrays for it
        reach,  # type: ignore[arg-type]
        num_evals=1,
        adaptation_episodes=2,
        evaluation_episodes=2,
    )
    assert 0.0 <= success <= 1.0
    assert mean_return > 0.0
    assert list(by_name) == ["reach-v3"]


def test_a_trial_there_is_the_trial_here() -> None:
    """The same steps told by the protocol and by our workers lead to the same actions, episode after episode."""
    actor = untrained("ml1-reach-rl2")
    benchmark = make_benchmark("ml1-reach")
    [task] = benchmark.test.sample(1, np.random.default_rng(0))
    with Workers(EnvMaker(benchmark.family, HORIZON), num_threads=1) as workers:
        ours = workers.collect(actor, [task], 3, seed=0)
    agent = MetaWorldAgent(actor, seed=-1)  # the first tasks then have the noise of the call above
    agent.init()
    for episode in range(2):
        for t in range(HORIZON):
            seen = ours.observations[0, episode, t].double().numpy()[None]
            actions, auxiliary = agent.adapt_action(seen)
            assert np.allclose(actions[0], ours.actions[0, episode, t].clamp(-1, 1), atol=1e-5)
            ended = np.array([t == HORIZON - 1])
            reward = ours.rewards[0, episode, t : t + 1].numpy()
            agent.step(Timestep(seen, actions, reward, np.array([False]), ended, auxiliary))
    agent.adapt()
    agent.reset(np.array([True]))
    told = np.zeros(6)
    for t in range(HORIZON):
        seen = np.concatenate((ours.observations[0, 2, t].double().numpy(), told))[None]
        actions = agent.eval_action(seen)
        assert np.allclose(actions[0], ours.actions[0, 2, t].clamp(-1, 1), atol=1e-5)
        told[-2] = float(ours.rewards[0, 2, t]) / 10


def test_a_gradient_agent_adapts_to_the_episodes_that_it_was_told_of() -> None:
    actor = untrained("ml1-reach-promp")
    benchmark = make_benchmark("ml1-reach")
    [task] = benchmark.test.sample(1, np.random.default_rng(0))
    with Workers(EnvMaker(benchmark.family, HORIZON), num_threads=1) as workers:
        ours = workers.collect(actor, [task], 2, seed=0)
    agent = MetaWorldAgent(actor)
    agent.init()
    for episode in range(2):
        for t in range(HORIZON):
            seen = ours.observations[0, episode, t].double().numpy()[None]
            actions, auxiliary = agent.adapt_action(seen)
            step = agent._places[0].pending
            assert step is not None
            step.actions = ours.actions[0, episode, t].view(1, 1, -1)  # as if it had drawn these
            ended = np.array([t == HORIZON - 1])
            reward = ours.rewards[0, episode, t : t + 1].numpy()
            agent.step(Timestep(seen, actions, reward, np.array([False]), ended, auxiliary))
    agent.adapt()
    expected = _adapted(actor, ours)
    found = agent._places[0].actor
    for name, value in expected.items():
        assert torch.allclose(found._params[name], value, atol=1e-5), name  # type: ignore[attr-defined]


def _adapted(actor: Any, trajectories: Trajectories) -> dict[str, torch.Tensor]:
    """Parameters after one step; the last observations are those that the protocol knows of."""
    known = replace(trajectories, last_observations=trajectories.observations[:, :, -1])
    params: dict[str, torch.Tensor] = actor.adapt(known)._params
    return params


def test_an_agent_that_reads_rewards_is_not_measured_without_them() -> None:
    agent = MetaWorldAgent(untrained("ml1-reach-rl2"))
    agent.init()
    with pytest.raises(ValueError, match="reads rewards while it acts: make the environments with recurrent"):
        agent.eval_action(np.zeros((2, 39)))
    MetaWorldAgent(untrained("ml1-reach-pearl")).eval_action(np.zeros((2, 39)))
