"""MAML-TRPO and ProMP: they adapt, update as derived, learn, and round-trip."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agents.maml import (
    AdaptationConfig,
    AdaptivePolicy,
    GradientActor,
    MetaBatch,
    PolicyConfig,
    check_finite,
    mean_kl,
)
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.envs import make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.experiments.bench.reward_scale import ScaledMaker
from metarl.learning.bilevel import Params, flatten
from metarl.runs.seeding import streams
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers

CPU = torch.device("cpu")
POINT = make_benchmark("point")
POLICY = PolicyConfig(hidden_sizes=(16,), output_scale=1.0)
ADAPTATION = AdaptationConfig(inner_lr=0.5, num_episodes=4)

Agent = Promp | MamlTrpo


def _agents(adaptation: AdaptationConfig = ADAPTATION, policy: PolicyConfig = POLICY) -> list[Agent]:
    env = POINT.family.make_env(1)
    return [
        Promp(env, PrompConfig(policy=policy, adaptation=adaptation), iterations=1, seed=0, device=CPU),
        MamlTrpo(env, MamlTrpoConfig(policy=policy, adaptation=adaptation), seed=0, device=CPU),
    ]


def _experience(agent: Agent, num_tasks: int = 3, horizon: int = 12) -> MetaBatch:
    generators = streams(1)
    tasks = POINT.train.sample(num_tasks, generators["tasks"])
    with Workers(EnvMaker(POINT.family, horizon)) as workers:
        return agent.collect(workers, tasks, generators["workers"])


def _theta(agent: Agent) -> torch.Tensor:
    return flatten(agent.learner.params()).detach().clone()


@pytest.mark.parametrize("index", [0, 1])
def test_an_update_changes_the_parameters_and_counts_every_step(index: int) -> None:
    agent = _agents()[index]
    before = _theta(agent)
    metrics = agent.update(_experience(agent))
    assert not torch.equal(before, _theta(agent))
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["loss/outer_after"] < metrics["loss/outer"]


_OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "step sizes": ({}, {"learn_inner_lr": True}),
    "context": ({"context_size": 3}, {"inner_lr": 5.0}),
    "credit": ({}, {"exploration_coef": 1e-2}),
    "dice": ({}, {"inner_loss": "dice"}),
    "all": ({"context_size": 3}, {"learn_inner_lr": True, "exploration_coef": 1e-2, "inner_steps": 2}),
}


@pytest.mark.parametrize("option", _OPTIONS)
@pytest.mark.parametrize("index", [0, 1])
def test_options_of_the_inner_loop_train_what_they_should(index: int, option: str) -> None:
    policy, adaptation = _OPTIONS[option]
    agent = _agents(replace(ADAPTATION, **adaptation), replace(POLICY, **policy))[index]
    before = {name: p.detach().clone() for name, p in agent.learner.params().items()}
    adapted = {name for name in before if name.startswith("inner_lr.")}
    assert bool(adapted) == ("learn_inner_lr" in adaptation)
    experience = _experience(agent)
    metrics = agent.update(experience)
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(not torch.equal(p, before[name]) for name, p in agent.learner.params().items())
    actor = agent.actor().adapt_to(experience.batches[0])
    assert actor._params is not None
    own = {name for name in before if not name.startswith("inner_lr.")}
    moved = {name for name in own if not torch.equal(actor._params[name][0], agent.learner.params()[name])}
    if "context_size" in policy:  # it alone adapts
        assert not moved
        assert (actor._params["context"].abs().sum(1) > 0).all()
    else:
        assert moved == own
    fresh = _agents(replace(ADAPTATION, **adaptation), replace(POLICY, **policy))[index]
    fresh.load_state_dict(copy.deepcopy(agent.state_dict()))
    assert torch.equal(_theta(fresh), _theta(agent))


def test_dice_needs_whole_episodes() -> None:
    with pytest.raises(ValueError, match="fisher_fraction must be 1 with inner_loss dice"):
        MamlTrpoConfig(adaptation=AdaptationConfig(inner_loss="dice"), fisher_fraction=0.2)


def test_several_inner_steps_have_their_closed_form() -> None:
    """Of the last layer's biases and the log standard deviations, step after step, with rates of their own."""
    agent = _agents(replace(ADAPTATION, inner_steps=3, learn_inner_lr=True, num_episodes=3))[0]
    learner, last = agent.learner, "mean.bias_1"
    with torch.no_grad():
        learner.inner_lrs[last].copy_(torch.tensor([[0.3, 0.05]]))
    experience = _experience(agent)
    assert len(experience.batches) == 4
    trace = learner.adapt_through(learner.params(), experience.batches[:-1])
    for before, after, batch in zip(trace, trace[1:], experience.batches, strict=False):
        std = batch.old.log_std.exp()  # type: ignore[union-attr]
        scores = (batch.actions - batch.old.mean) / std  # type: ignore[union-attr]
        weights = (batch.advantages / batch.mask.sum(1, keepdim=True)).unsqueeze(-1)
        # grad log N(a; mean, std): z / std in the mean, and z^2 - 1 in the logarithm of the standard deviation.
        mean_step = (weights * scores / std).sum(1) * torch.tensor([0.3, 0.05])
        std_step = (weights * (scores.square() - 1)).sum(1) * 0.5
        torch.testing.assert_close(after[last] - before[last], mean_step, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(after["log_std"] - before["log_std"], std_step, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**14])
@pytest.mark.parametrize("index", [0, 1])
def test_learning_does_not_depend_on_the_units_of_rewards(index: int, factor: float) -> None:
    # With powers of two nothing is rounded differently, so that the policies are equal to the bit.
    results = []
    for by in (1.0, factor):
        agent, generators = _agents()[index], streams(1)
        tasks = POINT.train.sample(3, generators["tasks"])
        start = _theta(agent)
        with Workers(ScaledMaker(8, by), num_threads=1) as workers:
            for _ in range(2):
                agent.update(agent.collect(workers, tasks, generators["workers"]))
        results.append(_theta(agent))
        assert not torch.equal(results[-1], start)
    assert torch.equal(*results)


@pytest.mark.parametrize("index", [0, 1])
def test_an_update_is_deterministic(index: int) -> None:
    results = []
    for _ in range(2):
        agent = _agents()[index]
        agent.update(_experience(agent))
        results.append(_theta(agent))
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize("index", [0, 1])
def test_state_round_trips(index: int) -> None:
    trained, fresh = _agents()[index], _agents()[index]
    experience = _experience(trained)
    trained.update(experience)
    fresh.load_state_dict(copy.deepcopy(trained.state_dict()))
    assert torch.equal(_theta(trained), _theta(fresh))
    trained.update(experience)
    fresh.update(experience)
    assert torch.equal(_theta(trained), _theta(fresh))


def test_collecting_does_not_change_the_parameters() -> None:
    for agent in _agents():
        before = _theta(agent)
        _experience(agent)
        assert torch.equal(before, _theta(agent))


def test_the_inner_learning_rate_is_the_one_used() -> None:
    for adaptation in (ADAPTATION, replace(ADAPTATION, inner_lr=1e-3)):
        agent = _agents(adaptation)[0]
        learner = agent.learner
        batch = _experience(agent).batches[0]
        adapted = agent.actor().adapt_to(batch)._params
        assert adapted is not None
        for name, p in learner.params().items():
            for task in range(3):
                loss = learner.inner_loss(learner.params(), batch.select(slice(task, task + 1)))[0]
                (grad,) = torch.autograd.grad(loss, p)
                assert torch.allclose(adapted[name][task], p - adaptation.inner_lr * grad, atol=1e-6)


def test_the_standard_deviation_adapts_too() -> None:
    agent = _agents()[0]
    adapted = agent.actor().adapt_to(_experience(agent).batches[0])._params
    assert adapted is not None
    assert not torch.equal(adapted["log_std"][0], agent.learner.params()["log_std"])


def test_replayed_adaptation_is_the_one_that_collected() -> None:
    agent = _agents(replace(ADAPTATION, inner_steps=2))[0]
    experience = _experience(agent)
    trace = agent.learner.adapt_through(agent.learner.params(), experience.batches[:-1])
    for params, batch in zip(trace, experience.batches, strict=True):
        distribution = agent.learner.policy.distribution(params, batch.observations)
        assert torch.allclose(distribution.mean, batch.old.mean, atol=1e-5)


def test_both_inner_losses_adapt_alike_but_have_other_meta_gradients() -> None:
    gradients, adapted = [], []
    for inner_loss in ("ratio", "log_likelihood"):
        agent = _agents(replace(ADAPTATION, inner_loss=inner_loss))[0]  # type: ignore[arg-type]
        assert isinstance(agent, Promp)
        experience = _experience(agent)
        adapted.append(agent.learner.adapt_through(agent.learner.params(), experience.batches[:1])[-1])
        losses, _, _ = agent.outer_losses(experience)
        gradients.append(flatten(torch.autograd.grad(losses.mean(), list(agent.learner.params().values()))))
    assert all(torch.allclose(adapted[0][name], adapted[1][name], atol=1e-6) for name in adapted[0])
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-2)


def _fisher_case() -> tuple[MamlTrpo, MetaBatch]:
    agent = _agents()[1]
    assert isinstance(agent, MamlTrpo)
    experience = _experience(agent)
    agent.learner.policy.double()
    batches = [
        b._replace(
            **{name: x.double() for name, x in b._asdict().items() if name != "old" and x.is_floating_point()},
            old=type(b.old)(b.old.mean.double(), b.old.log_std.double()),
        )
        for b in experience.batches
    ]
    # In double precision the post-adaptation data must come from the policy adapted in double precision.
    adapted = agent.learner.adapt_through(agent.learner.params(), batches[:1])[-1]
    distribution = agent.learner.policy.distribution(adapted, batches[1].observations)
    old = type(batches[1].old)(
        distribution.mean.detach(), distribution.log_std.detach().expand_as(distribution.mean)
    )
    batches[1] = batches[1]._replace(old=old, old_log_probs=old.log_prob(batches[1].actions))
    return agent, MetaBatch(experience.trajectories, batches)


def test_fisher_product_equals_double_backward_through_the_adaptation() -> None:
    agent, experience = _fisher_case()
    theta = agent.learner.params()
    distribution = agent._adapt(theta, experience.batches)[1]
    kl = mean_kl(distribution, experience.batches[-1]).mean()
    gradient = flatten(torch.autograd.grad(kl, list(theta.values()), create_graph=True))
    assert gradient.abs().max() < 1e-10
    v = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = flatten(torch.autograd.grad(gradient @ v, list(theta.values()))) + 1e-5 * v
    for size in (1, 2, 3):
        chunks = [[b.select(slice(i, i + size)) for b in experience.batches] for i in range(0, 3, size)]
        found = agent.linearise(theta, chunks)[2](v)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_trust_region_step_solves_the_constrained_problem() -> None:
    agent, experience = _fisher_case()
    theta = agent.learner.params()
    step = agent.trust_region_step(experience)
    assert step.search.accepted
    assert step.search.loss < step.loss_before
    assert 0 < step.search.kl <= agent.config.max_kl
    moved = step.params - flatten(theta).detach()
    quadratic = 0.5 * moved @ agent.linearise(theta, [experience.batches])[2](moved)
    assert torch.isclose(quadratic, torch.tensor(step.search.fraction**2 * 0.01, dtype=torch.float64), rtol=1e-6)


def test_fisher_product_on_a_fraction_of_the_steps_is_close() -> None:
    agent = _agents()[1]
    assert isinstance(agent, MamlTrpo)
    experience = _experience(agent, num_tasks=10, horizon=40)
    theta = agent.learner.params()
    v = torch.randn(sum(p.numel() for p in theta.values()), generator=torch.Generator().manual_seed(0))
    full = agent.linearise(theta, [experience.batches])[2](v)
    agent.config = replace(agent.config, fisher_fraction=0.25)
    part = agent.linearise(theta, [experience.batches])[2](v)
    assert torch.cosine_similarity(full, part, dim=0) > 0.9
    assert not torch.equal(full, part)


def test_a_thinned_fisher_product_is_that_of_the_parameters_adapted_on_all_steps() -> None:
    """Fewer steps give the Jacobian and the mean; the policy that they are taken at is the one that collected."""
    agent, experience = _fisher_case()
    agent.config = replace(agent.config, fisher_fraction=0.5, cg_damping=0.0)
    theta = agent.learner.params()
    thinned = [batch.thin(0.5) for batch in experience.batches]
    full = agent.learner.adapt_through(theta, experience.batches[:1])[-1]
    of_fewer = agent.learner.adapt_through(theta, thinned[:1])[-1]
    moved = {name: p + (full[name] - p).detach() for name, p in of_fewer.items()}
    assert max(float((full[name] - p).abs().max().detach()) for name, p in of_fewer.items()) > 1e-2
    distribution = agent.learner.policy.distribution(moved, thinned[1].observations)
    # The Hessian, at theta, of the KL from the policy that acted to the one that theta is adapted to.
    kl = mean_kl(distribution, thinned[1]).mean()
    gradient = flatten(torch.autograd.grad(kl, list(theta.values()), create_graph=True))
    assert gradient.abs().max() < 1e-10
    v = torch.randn(len(gradient), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = flatten(torch.autograd.grad(gradient @ v, list(theta.values())))
    found = agent.linearise(theta, [experience.batches])[2](v)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_rejected_step_leaves_the_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = _agents()[1]
    assert isinstance(agent, MamlTrpo)
    before = _theta(agent)
    experience = _experience(agent)
    tried: list[float] = []

    def outside(theta: Params, chunks: Any) -> tuple[float, float]:
        tried.append(float((flatten(theta) - before).norm()))
        return -1e9, 2 * agent.config.max_kl  # a lower loss, beyond the trust region

    monkeypatch.setattr(agent, "_evaluate", outside)
    metrics = agent.update(experience)
    assert torch.equal(before, _theta(agent))
    assert metrics["trust_region/accepted"] == 0.0
    np.testing.assert_allclose(np.divide(tried[1:], tried[:-1]), 0.8, rtol=1e-3)
    assert len(tried) == agent.config.max_backtracks


def test_inner_kl_penalty_holds_the_unadapted_policy_back() -> None:
    moved = []
    for coef in (0.0, 100.0):
        env = POINT.family.make_env(1)
        config = PrompConfig(policy=POLICY, adaptation=ADAPTATION, inner_kl_coef=coef)
        agent = Promp(env, config, iterations=1, seed=0, device=CPU)
        moved.append(agent.update(_experience(agent))["promp/inner_kl_0"])
    assert moved[1] < 0.5 * moved[0]


def test_ratios_are_clipped_where_they_pay() -> None:
    agent = _agents()[0]
    assert isinstance(agent, Promp)
    *inner, outer = _experience(agent).batches
    # The replayed policy is the one that acted, so that every ratio is e once the old log densities are less by 1.
    batches = [*inner, outer._replace(old_log_probs=outer.old_log_probs - 1)]
    losses, _, _ = agent.outer_losses(MetaBatch([], batches))
    gains = torch.where(outer.advantages > 0, 1 + agent.config.clip_ratio, np.e) * outer.advantages
    by_hand = -(gains * outer.mask).sum(1) / outer.mask.sum(1)
    assert (outer.advantages > 0).any()
    assert (outer.advantages < 0).any()
    torch.testing.assert_close(losses.detach(), by_hand, atol=1e-4, rtol=1e-4)


def test_adaptive_kl_coefficient_follows_its_target() -> None:
    env = POINT.family.make_env(1)
    config = PrompConfig(policy=POLICY, adaptation=ADAPTATION, adaptive_kl=True, target_inner_kl=1e3)
    agent = Promp(env, config, iterations=1, seed=0, device=CPU)
    agent.update(_experience(agent))
    assert agent.inner_kl_coefs == [config.inner_kl_coef / 2]
    agent.config = replace(config, target_inner_kl=1e-12)
    agent.update(_experience(agent))
    assert agent.inner_kl_coefs == [config.inner_kl_coef]


@pytest.mark.parametrize(
    ("share", "factor"), [(0.6, 0.5), (0.7, 1.0), (1.0, 1.0), (1.4, 1.0), (1.6, 2.0)], ids=str
)
def test_the_kl_coefficient_stays_while_the_kl_is_near_its_target(share: float, factor: float) -> None:
    """The band is from the target divided by 1.5 to the target times 1.5 (PPO's, in ProMP's code)."""
    config = PrompConfig(policy=POLICY, adaptation=ADAPTATION, adaptive_kl=True, target_inner_kl=0.01)
    agent = Promp(POINT.family.make_env(1), config, iterations=1, seed=0, device=CPU)
    agent._adapt_coef(0, share * 0.01)
    assert agent.inner_kl_coefs == [factor * config.inner_kl_coef]


def test_the_outer_step_size_is_annealed_over_the_run_and_goes_on_after_loading() -> None:
    """ProMP's step size falls linearly from outer_lr at the first update to final_outer_lr at the last."""
    config = PrompConfig(policy=POLICY, adaptation=ADAPTATION, outer_lr=8e-3, final_outer_lr=0.0, outer_steps=1)
    env = POINT.family.make_env(1)

    def make(seed: int) -> Promp:
        return Promp(env, config, iterations=5, seed=seed, device=CPU)

    agent, rates = make(0), []
    for _ in range(3):
        agent.update(_experience(agent))
        rates.append(agent.optimizer.param_groups[0]["lr"])
    resumed = make(1)
    resumed.load_state_dict(agent.state_dict())
    for _ in range(3):
        theta = {name: p.detach().clone() for name, p in resumed.learner.params().items()}
        resumed.update(_experience(resumed))
        rates.append(resumed.optimizer.param_groups[0]["lr"])
    np.testing.assert_allclose(rates, [8e-3, 6e-3, 4e-3, 2e-3, 0, 0], atol=1e-12)
    assert all(torch.equal(theta[name], p) for name, p in resumed.learner.params().items())  # a step of size 0


def test_policy_output_is_scaled_mapped_to_the_bounds_and_clipped() -> None:
    env = make_benchmark("humanoid-dir").family.make_env(1)  # bounds +-0.4
    learner = AdaptivePolicy(env, PolicyConfig(output_scale=0.1), ADAPTATION, seed=0, device=CPU)
    outputs = torch.full((1, 1, 17), 5.0)
    np.testing.assert_allclose(learner.actions.to_env(outputs), 0.2, rtol=1e-6)
    np.testing.assert_allclose(learner.actions.to_env(-100 * outputs), -0.4, rtol=1e-6)
    env.close()


def test_a_loss_that_is_not_finite_names_the_task() -> None:
    tasks = [Task.of("point", goal=(0.0, float(i))) for i in range(3)]
    with pytest.raises(FloatingPointError, match=r"the outer loss is nan on task 1 of the batch.*1\.0"):
        check_finite(torch.tensor([0.0, torch.nan, 0.0]), tasks, "the outer loss")


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (PolicyConfig, {"output_scale": 0.0}),
        (PolicyConfig, {"hidden_sizes": ()}),
        (AdaptationConfig, {"inner_lr": -1.0}),
        (AdaptationConfig, {"gamma": 1.5}),
        (AdaptationConfig, {"inner_steps": 0}),
        (PrompConfig, {"outer_steps": 0}),
        (PrompConfig, {"clip_ratio": float("nan")}),
        (PrompConfig, {"inner_kl_coef": -1.0}),
        (PrompConfig, {"final_outer_lr": -1.0}),
        (MamlTrpoConfig, {"max_kl": 0.0}),
        (MamlTrpoConfig, {"fisher_fraction": 1.5}),
        (MamlTrpoConfig, {"cg_iters": 0}),
    ],
)
def test_configurations_reject_nonsense(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)


@pytest.mark.thorough
@pytest.mark.parametrize("index", [0, 1])
def test_learns_to_adapt_in_point_navigation(index: int) -> None:
    env = POINT.family.make_env(1)
    adaptation = replace(ADAPTATION, num_episodes=10)
    agent: Agent = [
        Promp(
            env, PrompConfig(policy=POLICY, adaptation=adaptation, outer_lr=1e-2), iterations=1, seed=0, device=CPU
        ),
        MamlTrpo(env, MamlTrpoConfig(policy=POLICY, adaptation=adaptation, max_kl=0.03), seed=0, device=CPU),
    ][index]  # type: ignore[assignment]
    generators = streams(0)
    test_tasks = POINT.test.sample(20, generators["test_tasks"])
    with Workers(EnvMaker(POINT.family, 20)) as workers:

        def adapted_return(actor: GradientActor) -> float:
            rng = np.random.default_rng(5)
            curve = adaptation_curve(actor, workers, test_tasks, rng, num_steps=1, num_episodes=10)
            return float(curve.returns[1].mean())

        untrained = adapted_return(agent.actor())
        for _ in range(15):
            tasks = POINT.train.sample(15, generators["tasks"])
            agent.update(agent.collect(workers, tasks, generators["workers"]))
        trained = adapted_return(agent.actor())
    # Standing still at the origin returns -20 * 0.38 = -7.7 on average.
    assert untrained < -7.0
    assert trained > untrained + 1.5
