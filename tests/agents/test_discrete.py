"""Discrete and image spaces: gradients against references in double precision, and learning in seconds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.agent import AgentSetup
from metarl.agents.maml import (
    AdaptationConfig,
    MetaBatch,
    PolicyBatch,
    PolicyConfig,
    change_parts,
    full_parts,
    mean_kl,
)
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.envs import make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.learning.bilevel import flatten, unflatten
from metarl.nets.distributions import Categorical
from metarl.nets.encoders import EncoderConfig
from metarl.tasks import Task, TaskFamily
from metarl.workers import EnvMaker, Workers
from tests.environments import anything, corners

CPU = torch.device("cpu")
ADAPTATION = AdaptationConfig(inner_lr=0.5, num_episodes=4)
FAMILIES = {
    "gridnavi": make_benchmark("gridnavi").family,
    "choices": anything(spaces.Box(-1.0, 1.0, (2,)), spaces.MultiDiscrete([2, 4])),
    "bits": anything(spaces.Discrete(3), spaces.MultiBinary(3)),
}


def _tasks(family: TaskFamily, count: int) -> list[Task]:
    if family.name == "gridnavi":
        return make_benchmark("gridnavi").train.sample(count, np.random.default_rng(0))
    return [Task.of("anything", number=float(k % 2)) for k in range(count)]


def _double(batch: PolicyBatch) -> PolicyBatch:
    old = change_parts(batch.old, torch.Tensor.double)
    parts = {name: part for name, part in batch._asdict().items() if name != "old"}
    doubled = {name: p.double() if p.is_floating_point() else p for name, p in parts.items()}
    return PolicyBatch(**doubled, old=old)


def _case(
    kind: Any,
    family: TaskFamily,
    inner: AdaptationConfig = ADAPTATION,
    context_size: int = 0,
    **settings: Any,
) -> tuple[Any, MetaBatch]:
    """An agent and its experience in double precision, as if double precision had collected it."""
    env = family.make_env(1, num_threads=1)
    config = (MamlTrpoConfig if kind is MamlTrpo else PrompConfig)(
        PolicyConfig(hidden_sizes=(8,), context_size=context_size), inner, **settings
    )
    benchmark = make_benchmark("point")  # which these agents do not look at
    agent: Any = config.make(AgentSetup(env, benchmark, iterations=1, seed=0, device=CPU))
    with torch.no_grad():  # away from uniform, where much is zero
        agent.learner.policy.outputs.weight_1.mul_(100)
    with Workers(EnvMaker(family), num_threads=1) as workers:
        experience = agent.collect(workers, _tasks(family, 3), np.random.default_rng(1))
    agent.learner.policy.double()
    for name, rate in agent.learner.inner_lrs.items():
        agent.learner.inner_lrs[name] = rate.detach().double().requires_grad_()
    batches = [_double(batch) for batch in experience.batches]
    params = agent.learner.adapt_through(agent.learner.params(), batches[:1])
    for level, adapted in enumerate(params):
        with torch.no_grad():
            old = full_parts(agent.learner.policy.distribution(adapted, batches[level].observations))
        batches[level] = batches[level]._replace(old=old, old_log_probs=old.log_prob(batches[level].actions))
    return agent, MetaBatch(experience.trajectories, batches)


def _hessian_product(agent: MamlTrpo, distribution: Any, batch: PolicyBatch, vector: torch.Tensor) -> torch.Tensor:
    """The damped Hessian of the KL from the present distribution, by differentiating its gradient."""
    leaves = list(agent.learner.params().values())
    still = batch._replace(old=change_parts(full_parts(distribution), torch.Tensor.detach))
    gradient = flatten(torch.autograd.grad(mean_kl(distribution, still).mean(), leaves, create_graph=True))
    assert gradient.abs().max() < 1e-10
    return flatten(torch.autograd.grad(gradient @ vector, leaves)) + agent.config.cg_damping * vector


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_fisher_product_is_the_hessian_of_the_kl_through_the_adaptation(name: str, fraction: float) -> None:
    agent, experience = _case(MamlTrpo, FAMILIES[name], fisher_fraction=fraction)
    theta, batches = agent.learner.params(), experience.batches
    product = agent.linearise(theta, [batches])[2]
    vector = torch.randn(len(flatten(theta)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adapted, distribution, _ = agent._adapt(theta, batches)
    if fraction < 1:
        batches = [batch.thin(fraction) for batch in batches]
        assert batches[0].mask.shape[1] < experience.batches[0].mask.shape[1]
        distribution = agent._thin_distribution(theta, batches, adapted)
    expected = _hessian_product(agent, distribution, batches[-1], vector)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(product(vector), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("context_size", [0, 2])
def test_the_fisher_product_goes_through_learned_step_sizes_and_a_context(context_size: int) -> None:
    adaptation = replace(ADAPTATION, learn_inner_lr=True)
    agent, experience = _case(MamlTrpo, FAMILIES["choices"], adaptation, context_size)
    theta, batches = agent.learner.params(), experience.batches
    vector = torch.randn(len(flatten(theta)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = _hessian_product(agent, agent._adapt(theta, batches)[1], batches[-1], vector)
    rates = flatten({name: p for name, p in theta.items() if name.startswith("inner_lr.")})
    num_adapting = context_size or len(flatten(agent.learner.policy.parameter_dict()))
    assert len(rates) == num_adapting
    assert expected[-num_adapting:].abs().max() > 1e-4
    assert torch.allclose(agent.linearise(theta, [batches])[2](vector), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_meta_gradient_is_that_of_finite_differences(name: str) -> None:
    agent, experience = _case(Promp, FAMILIES[name])
    theta = agent.learner.params()
    start = flatten(theta).detach().clone()

    gradient = flatten(torch.autograd.grad(agent.outer_losses(experience)[0].mean(), list(theta.values())))
    assert gradient.abs().max() > 1e-3

    def loss(vector: torch.Tensor) -> torch.Tensor:
        for leaf, values in unflatten(vector, theta).items():
            theta[leaf].copy_(values)
        return agent.outer_losses(experience)[0].mean()

    for seed in range(3):
        direction = torch.randn(len(start), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            difference = (loss(start + 1e-6 * direction) - loss(start - 1e-6 * direction)) / 2e-6
        assert torch.isclose(gradient @ direction, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [Promp, MamlTrpo])
def test_gradient_agents_learn_to_adapt_with_choices(kind: Any) -> None:
    benchmark = make_benchmark("gridnavi")
    env = benchmark.family.make_env(1)
    adaptation = AdaptationConfig(inner_lr=1.0, num_episodes=20, gae_lambda=0.95)
    policy = PolicyConfig(hidden_sizes=(16,))
    config = (
        PrompConfig(policy, adaptation, outer_lr=1e-2) if kind is Promp else MamlTrpoConfig(policy, adaptation)
    )
    agent: Any = config.make(AgentSetup(env, benchmark, iterations=1, seed=0, device=CPU))
    rng = np.random.default_rng(0)
    tasks = benchmark.test.sample(20, rng)
    with Workers(EnvMaker(benchmark.family), num_threads=1) as workers:

        def adapted_return() -> float:
            curve = adaptation_curve(
                agent.actor(), workers, tasks, np.random.default_rng(5), num_steps=1, num_episodes=20
            )
            return float(curve.returns[1].mean())

        untrained = adapted_return()
        for _ in range(10):
            agent.update(agent.collect(workers, benchmark.train.sample(10, rng), rng))
        assert adapted_return() > untrained + 0.5


@pytest.mark.thorough
@pytest.mark.parametrize("images", ["cnn", "mlp", "flat"])
def test_rl2_learns_what_an_image_says(images: Any) -> None:
    family = corners()
    encoder = EncoderConfig(images, channels=(8,), image_features=16)
    config = Rl2Config(
        TrialPolicyConfig(memory_size=16, encoder=encoder), outer_lr=1e-2, epochs=3, minibatches=2, num_episodes=2
    )
    agent = Rl2(family.make_env(1, num_threads=1), config, iterations=12, seed=0, device=CPU)
    rng, tasks = np.random.default_rng(0), [Task.of("corners", shift=1)] * 30
    with Workers(EnvMaker(family), num_threads=1) as workers:
        first = agent.collect(workers, tasks, rng)
        assert len(set(first.mask.sum(-1).flatten().tolist())) > 1, "episodes must end at different times"
        returns = [float(first.returns().mean())]
        for _ in range(12):
            agent.update(agent.collect(workers, tasks, rng))
        returns.append(float(agent.collect(workers, tasks, rng).returns().mean()))
    assert returns[0] < 1.0  # chance alone gives a third
    assert returns[1] > 2.5  # of at most three


@pytest.mark.slow
def test_rl2_finds_out_within_a_trial_what_an_image_means() -> None:
    """Two tasks: of two actions that an image can mean, the first episode shows which it does."""
    family = corners()
    policy = TrialPolicyConfig(
        memory_size=64,
        embedding_size=64,
        head_sizes=(64,),
        encoder=EncoderConfig(channels=(8,), image_features=32),
    )
    config = Rl2Config(
        policy,
        num_episodes=4,
        gamma=0.95,
        gae_lambda=0.9,
        outer_lr=2e-3,
        entropy_coef=0.1,
        epochs=3,
        minibatches=2,
    )
    agent = Rl2(family.make_env(1, num_threads=1), config, iterations=400, seed=0, device=CPU)
    rng = np.random.default_rng(0)
    benchmark = family.benchmark(train=[Task.of("corners", shift=0), Task.of("corners", shift=1)])
    with Workers(EnvMaker(family), num_threads=1) as workers:
        for _ in range(240):
            agent.update(agent.collect(workers, benchmark.train.sample(100, rng), rng))
        returns = agent.collect(workers, benchmark.train.sample(400, rng), rng).returns().mean(0)
    assert returns[0] < 1.8  # nobody can know: half of the tasks fail at once, the others give 3
    assert returns[3] > 2.2


def test_the_entropy_of_choices_is_reported() -> None:
    """An untrained policy is nearly uniform over gridnavi's five moves; a certain one has no entropy."""
    agent, experience = _case(Promp, FAMILIES["gridnavi"])
    for factor, low, high in ((1e-3, np.log(5) - 1e-3, np.log(5)), (1e4, 0.0, 0.1)):
        logits = experience.batches[-1].old.log_probs * factor  # type: ignore[union-attr]
        batch = experience.batches[-1]._replace(old=Categorical.of(logits))
        metrics = MetaBatch(experience.trajectories, [batch]).metrics(agent.learner.policy)
        assert low <= metrics["policy/entropy"] <= high
        assert "policy/std" not in metrics
