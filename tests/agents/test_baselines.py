"""Reptile and multi-task pre-training: their updates by hand, and that they learn and adapt."""

from typing import Any

import numpy as np
import pytest
import torch

from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.multi_task import MultiTask, MultiTaskConfig
from metarl.agents.reptile import Reptile, ReptileConfig
from metarl.envs import make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.learning.bilevel import flatten
from metarl.runs.seeding import streams
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers

CPU = torch.device("cpu")
POINT = make_benchmark("point")
POLICY = PolicyConfig(hidden_sizes=(16,), output_scale=1.0)


def _agent(kind: Any, benchmark: Any = POINT, **settings: Any) -> Any:
    adaptation = AdaptationConfig(inner_lr=0.5, num_episodes=4, inner_steps=2)
    config = (ReptileConfig if kind is Reptile else MultiTaskConfig)(POLICY, adaptation, **settings)
    return kind(benchmark.family.make_env(1), config, seed=0, device=CPU)


def test_reptile_goes_a_fraction_of_the_way_to_the_mean_of_the_adapted_policies() -> None:
    agent, rng = _agent(Reptile, outer_lr=0.3), np.random.default_rng(0)
    before = {name: p.detach().clone() for name, p in agent.learner.params().items()}
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        experience = agent.collect(workers, POINT.train.sample(3, rng), rng)
    assert len(experience.batches) == 3
    actor = agent.actor()
    for batch in experience.batches[:-1]:
        actor = actor.adapt_to(batch)
    metrics = agent.update(experience)
    assert metrics["reptile/step"] > 0
    for name, p in agent.learner.params().items():
        expected = 0.7 * before[name] + 0.3 * actor._params[name].mean(0)
        torch.testing.assert_close(p.detach(), expected, atol=1e-6, rtol=1e-5)


def test_multi_task_training_descends_the_policy_gradient_of_all_tasks() -> None:
    agent, rng = _agent(MultiTask, outer_steps=1, outer_lr=1e-3), np.random.default_rng(0)
    leaves = list(agent.learner.params().values())
    before = flatten(agent.learner.params()).detach().clone()
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        experience = agent.collect(workers, POINT.train.sample(3, rng), rng)
        assert workers.steps_collected == 3 * 4 * 8  # nothing is adapted
    (batch,) = experience.batches
    log_probs = agent.learner.policy.distribution(agent.learner.params(), batch.observations).log_prob(
        batch.actions
    )
    reinforce = -(log_probs * batch.advantages * batch.mask).sum(1) / batch.mask.sum(1)
    gradient = flatten(torch.autograd.grad(reinforce.mean(), leaves))
    metrics = agent.update(experience)
    moved = flatten(agent.learner.params()).detach() - before
    clear = gradient.abs() > 1e-5
    assert clear.sum() > 20
    torch.testing.assert_close(
        moved[clear], -1e-3 * gradient[clear].sign(), rtol=1e-2, atol=0
    )  # Adam's first step
    assert metrics["loss/outer_after"] < metrics["loss/outer"]
    assert metrics["multi_task/kl"] > 0


@pytest.mark.parametrize("kind", [ReptileConfig, MultiTaskConfig])
def test_what_only_a_meta_gradient_trains_is_refused(kind: Any) -> None:
    for policy, adaptation, field in [
        (PolicyConfig(context_size=2), AdaptationConfig(), "context_size"),
        (PolicyConfig(), AdaptationConfig(learn_inner_lr=True), "learn_inner_lr"),
        (PolicyConfig(), AdaptationConfig(exploration_coef=1.0), "exploration_coef"),
    ]:
        with pytest.raises(ValueError, match=field):
            kind(policy, adaptation)
    with pytest.raises(ValueError, match="outer_lr"):
        kind(outer_lr=0.0)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [Reptile, MultiTask])
def test_learns_what_tasks_share_and_adapts(kind: Any) -> None:
    """All goals lie on one side: the way there is shared, and the rest is for the inner steps."""
    generators = streams(0)
    env = POINT.family.make_env(1)
    adaptation = AdaptationConfig(inner_lr=0.3, num_episodes=8, inner_steps=2)
    settings = {"outer_lr": 1e-2} if kind is MultiTask else {}
    config = (ReptileConfig if kind is Reptile else MultiTaskConfig)(POLICY, adaptation, **settings)
    agent = kind(env, config, seed=0, device=CPU)

    def tasks(count: int) -> list[Task]:
        goals = generators["tasks"].uniform((0.3, -0.4), (0.5, 0.4), (count, 2))
        return [Task.of("point", goal=tuple(goal)) for goal in goals.tolist()]

    test_tasks = tasks(12)
    with Workers(EnvMaker(POINT.family, 20), num_threads=1) as workers:

        def returns() -> np.ndarray:
            rng = np.random.default_rng(5)
            curve = adaptation_curve(agent.actor(), workers, test_tasks, rng, num_steps=1, num_episodes=8)
            return curve.returns.mean((1, 2))

        untrained = returns()
        for _ in range(15):
            agent.update(agent.collect(workers, tasks(12), generators["workers"]))
        trained = returns()
    assert trained[0] > untrained[0] + 1.5
    assert trained[1] > trained[0]
