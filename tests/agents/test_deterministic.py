"""Acting without sampling: every algorithm's actor takes its mode, and evaluation says what is measured."""

import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from metarl.agent import AgentSetup
from metarl.agents.es_maml import EsAdaptationConfig, EsMaml, EsMamlConfig
from metarl.agents.maml import AdaptationConfig
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.memory_sac import MemorySacConfig, SoftPolicyConfig
from metarl.agents.pearl.actor import LatentActor
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.strategies.bandits import Random
from metarl.agents.varibad import BeliefPolicyConfig, VaribadConfig
from metarl.deploy.adapting import adapt
from metarl.envs.benchmarks import make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.runs.seeding import task_seeds
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers

CPU = torch.device("cpu")
POINT = make_benchmark("point").family
TASKS = [Task.of("point", goal=(0.3, 0.4)), Task.of("point", goal=(-0.5, 0.0))]
ALGORITHMS = ("promp", "maml-trpo", "rl2", "varibad", "memory-sac", "pearl", "es-maml")


def _agent(name: str) -> Any:
    env, adaptation = POINT.make_env(1, horizon=5), AdaptationConfig(num_episodes=3)
    if name == "promp":
        return Promp(env, PrompConfig(adaptation=adaptation), iterations=1, seed=0, device=CPU)
    if name == "maml-trpo":
        return MamlTrpo(env, MamlTrpoConfig(adaptation=adaptation), seed=0, device=CPU)
    if name == "es-maml":
        return EsMaml(env, EsMamlConfig(adaptation=EsAdaptationConfig(num_episodes=3)), seed=0)
    if name == "pearl":
        return Pearl(env, PearlConfig(hidden_sizes=(8,)), TASKS, iterations=1, seed=0, device=CPU)
    trials: dict[str, Any] = {
        "rl2": Rl2Config(policy=TrialPolicyConfig(memory_size=8)),
        "varibad": VaribadConfig(policy=BeliefPolicyConfig(memory_size=8)),
        "memory-sac": MemorySacConfig(policy=SoftPolicyConfig(memory_size=8)),
    }
    return trials[name].make(AgentSetup(env, make_benchmark("point"), iterations=1, seed=0, device=CPU))


def _sampling(agent: Any) -> Any:
    if isinstance(agent, Pearl):
        return LatentActor(agent.acting, num_prior=1, num_context=None, deterministic=False)
    return agent.actor()


def _first_actions(actor: Any, seed: int) -> torch.Tensor:
    parallel = 1 if actor.sequential else 2  # the first of ES-MAML's parallel episodes is not perturbed
    actor.begin(task_seeds(seed, 2), parallel)
    with torch.no_grad():
        actor.begin_episode()
        if isinstance(actor, LatentActor):
            actor._latents = torch.zeros_like(actor._latents)  # drawn all the same
        return actor.act(torch.zeros(2, parallel, 2)).actions


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_mode_does_not_depend_on_noise_also_after_a_pickle(name: str) -> None:
    actor = _sampling(_agent(name))
    assert not torch.equal(_first_actions(actor, 0), _first_actions(actor, 1))
    mode = actor.deterministic()
    first = _first_actions(mode, 0)
    assert torch.equal(first, _first_actions(mode, 1))
    assert torch.equal(first, _first_actions(pickle.loads(pickle.dumps(mode)), 2))
    assert torch.equal(first, _first_actions(mode.select(slice(0, 2)), 3))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_evaluation_measures_the_mode(name: str) -> None:
    agent = _agent(name)
    with Workers(EnvMaker(POINT, 5), num_threads=1) as workers:
        curve = adaptation_curve(
            agent.actor(),
            workers,
            TASKS,
            np.random.default_rng(0),
            num_steps=1,
            num_episodes=3,
            deterministic=True,
        )
        if name in ("promp", "maml-trpo", "es-maml"):
            # Episodes of one policy and start are equal; adaptation had sampled ones, which moved the policy.
            assert np.ptp(curve.returns, axis=2).max() == 0
            assert (curve.returns[0] != curve.returns[1]).all()
            assert curve.num_steps == 3 * 2 * 3 * 5  # three collections of two tasks, three episodes, five steps
        if name in ("rl2", "varibad", "memory-sac"):
            assert np.ptp(curve.returns, axis=2).max() == 0
        sampled = adaptation_curve(
            agent.actor(), workers, TASKS, np.random.default_rng(0), num_steps=1, num_episodes=3
        )
    assert np.ptp(sampled.returns, axis=2).max() > 0


def test_an_actor_without_a_mode_is_refused() -> None:
    family = make_benchmark("bernoulli-bandit-k2").family
    tasks = make_benchmark("bernoulli-bandit-k2").train.sample(1, np.random.default_rng(0))
    with Workers(EnvMaker(family)) as workers, pytest.raises(ValueError, match="Random cannot act determinist"):
        adaptation_curve(
            Random(2), workers, tasks, np.random.default_rng(0), num_steps=1, num_episodes=1, deterministic=True
        )


class _Point(gymnasium.Env[np.ndarray, np.ndarray]):
    """A single point with a goal, as a plain Gymnasium environment."""

    def __init__(self) -> None:
        self.env = POINT.make_env(1, horizon=5)
        self.env.set_tasks(TASKS[:1])
        self.observation_space = self.env.single_observation_space
        self.action_space = self.env.single_action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        observations, _ = self.env.reset(seed=seed)
        return observations[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        taken = self.env.advance(action[None])
        return (
            taken.observations[0],
            float(taken.rewards[0]),
            bool(taken.terminated[0]),
            bool(taken.truncated[0]),
            {},
        )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_adapted_policy_may_be_deterministic(name: str) -> None:
    agent, env = _agent(name), _Point()
    adapted = adapt(agent, env, episodes=3, deterministic=True)
    if name in ("promp", "maml-trpo", "es-maml"):
        assert len(set(adapted.returns)) == 3  # adaptation sampled
    returns = {adapted.policy.run_episode(env, seed=0).env_return for _ in range(2)}
    if name not in ("rl2", "varibad", "memory-sac", "pearl"):  # these learn on
        assert len(returns) == 1
    elif name != "pearl":
        again = adapt(agent, env, episodes=3, seed=9, deterministic=True)
        assert again.returns == adapted.returns
