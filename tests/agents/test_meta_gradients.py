"""Meta-gradients against the exact ones of an MDP of two states, whose episodes can all be enumerated.

Every task here is one possible outcome: the episodes of every inner step, and one episode of the adapted policy.
Weighted by their probabilities, the agent's gradients on them have exactly the mean and the variance that the
estimator has on episodes that are drawn.
"""

import itertools
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agents.maml import AdaptationConfig, MetaBatch, PolicyBatch, PolicyConfig, change_parts
from metarl.agents.maml.batches import credit_of
from metarl.agents.promp import Promp, PrompConfig
from metarl.envs import make_benchmark
from metarl.learning.bilevel import Params, expand, flatten, unflatten
from metarl.learning.losses import dice_loss
from metarl.workers import EnvMaker, Workers
from tests.environments import anything

HORIZON = 2
NEXT = ((0, 1), (1, 0))  # state after (state, action)
REWARDS = ((1.0, -0.5), (2.0, 0.3))
BASELINE = (1.2, 0.4)
InnerLoss = Literal["ratio", "dice", "log_likelihood"]


def _episodes() -> tuple[Tensor, Tensor, Tensor]:
    """States one-hot [episode, time, 2], actions and rewards [episode, time] of all episodes from state 0."""
    states, rewards, choices = [], [], list(itertools.product((0, 1), repeat=HORIZON))
    for actions in choices:
        state, visited, paid = 0, [], []
        for action in actions:
            visited.append(state)
            paid.append(REWARDS[state][action])
            state = NEXT[state][action]
        states.append(visited)
        rewards.append(paid)
    one_hot = torch.eye(2, dtype=torch.float64)[torch.tensor(states)]
    return one_hot, torch.tensor(choices), torch.tensor(rewards, dtype=torch.float64)


STATES, ACTIONS, PAID = _episodes()
TO_GO = PAID.flip(1).cumsum(1).flip(1)


class Enumeration:
    """A ProMP agent, and all outcomes of its meta-iteration as tasks.

    Args:
        inner_loss: Inner loss of the agent.
        credit: True for E-MAML's credit.
        num_episodes: Number of episodes per inner step.
        inner_steps: Number of inner steps.
        baseline: True to subtract a baseline of the state from the inner steps' returns to go.
    """

    def __init__(
        self,
        inner_loss: InnerLoss,
        *,
        credit: bool = False,
        num_episodes: int = 2,
        inner_steps: int = 1,
        baseline: bool = False,
        learn_inner_lr: bool = False,
        context_size: int = 0,
    ) -> None:
        adaptation = AdaptationConfig(
            inner_lr=1.0,
            learn_inner_lr=learn_inner_lr,
            inner_steps=inner_steps,
            num_episodes=num_episodes,
            inner_loss=inner_loss,
            exploration_coef=float(credit),
        )
        policy = PolicyConfig(hidden_sizes=(3,), context_size=context_size)
        env = anything(spaces.Box(0.0, 1.0, (2,)), spaces.Discrete(2)).make_env(1, num_threads=1)
        self.agent = Promp(env, PrompConfig(policy, adaptation), iterations=1, seed=2, device=torch.device("cpu"))
        self.learner = self.agent.learner
        with torch.no_grad():
            self.learner.policy.outputs.weight_1.mul_(100)  # type: ignore[union-attr]
        self.learner.policy.double()
        self.learner.inner_lrs = {
            n: r.detach().double().requires_grad_() for n, r in self.learner.inner_lrs.items()
        }
        combinations = list(itertools.product(range(len(ACTIONS)), repeat=num_episodes))
        outcomes = list(itertools.product(*[combinations] * inner_steps, [(k,) for k in range(len(ACTIONS))]))
        self._levels = [torch.tensor(level) for level in zip(*outcomes, strict=True)]  # [outcome, episode] each
        self._baseline = STATES @ torch.tensor(BASELINE, dtype=torch.float64) if baseline else torch.zeros(4, 2)

    def experience(self) -> MetaBatch:
        """The batches of all outcomes."""
        batches: list[PolicyBatch] = []
        for params, chosen in zip(self._trace(), self._levels, strict=True):
            last = len(batches) == len(self._levels) - 1
            observations, actions = STATES[chosen].flatten(1, 2), ACTIONS[chosen].flatten(1)
            old = change_parts(self.learner.policy.distribution(params, observations), Tensor.detach)
            advantages = TO_GO[chosen] if last else TO_GO[chosen] - self._baseline[chosen]
            worth = PAID[chosen].mean((1, 2))
            batches.append(
                PolicyBatch(
                    observations=observations,
                    actions=actions,
                    advantages=advantages.flatten(1),
                    mask=torch.ones_like(actions, dtype=torch.bool),
                    old=old,
                    old_log_probs=old.log_prob(actions),
                    steps=torch.arange(HORIZON).repeat(len(actions), chosen.shape[1]),
                    credit=worth if last else torch.zeros_like(worth),
                )
            )
        return MetaBatch([], batches)

    def probabilities(self) -> Tensor:
        """Probability of each outcome, [outcome]."""
        total = torch.zeros(len(self._levels[0]), dtype=torch.float64)
        for params, chosen in zip(self._trace(), self._levels, strict=True):
            distribution = self.learner.policy.distribution(params, STATES[chosen].flatten(1, 2))
            total = total + distribution.log_prob(ACTIONS[chosen].flatten(1)).sum(1)
        return total.exp().detach()

    def gradients(self) -> Tensor:
        """The estimate of the gradient of the adapted policy's return from each outcome, [outcome, parameter]."""
        losses = -HORIZON * self.agent.outer_losses(self.experience())[0]
        leaves = list(self.learner.params().values())
        return torch.stack([flatten(torch.autograd.grad(x, leaves, retain_graph=True)) for x in losses])

    def expected_return(self) -> float:
        """Exact expected return of the policy that is adapted to episodes that are drawn."""
        return float(self.probabilities() @ PAID[self._levels[-1]].sum((1, 2)))

    def _trace(self) -> list[Params]:
        """Parameters before each inner step and after the last of every outcome, as numbers."""
        learner = self.learner
        trace = [expand(learner.start(learner.params()), len(self._levels[0]))]
        for chosen in self._levels[:-1]:
            rule = learner.rule(learner.params())
            gradients = self._reinforce(trace[-1], chosen)
            with torch.no_grad():
                moved = {name: rule(len(trace) - 1, name, trace[-1][name], g) for name, g in gradients.items()}
            trace.append(trace[-1] | moved)
        return trace

    def _reinforce(self, params: Params, chosen: Tensor) -> Params:
        """The gradient of the inner loss at the policy that acted: REINFORCE's, for every outcome."""
        names = self.learner.adapted or tuple(params)
        leaves = {name: params[name].detach().requires_grad_() for name in names}
        distribution = self.learner.policy.distribution(params | leaves, STATES[chosen].flatten(1, 2))
        advantages = (TO_GO[chosen] - self._baseline[chosen]).flatten(1)
        loss = -(distribution.log_prob(ACTIONS[chosen].flatten(1)) * advantages).mean(1).sum()
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


def _by_differences(enumeration: Enumeration) -> Tensor:
    """The gradient of the exact expected return, by central differences, [parameter]."""
    theta = enumeration.learner.params()
    start = flatten(theta).detach().clone()

    def at(vector: Tensor) -> float:
        with torch.no_grad():
            for name, values in unflatten(vector, theta).items():
                theta[name].copy_(values)
        return enumeration.expected_return()

    found = [(at(start + row) - at(start - row)) / 2e-5 for row in 1e-5 * torch.eye(len(start)).double()]
    at(start)
    return torch.tensor(found, dtype=torch.float64)


def moments(enumeration: Enumeration, exact: Tensor) -> tuple[float, float]:
    """Bias and standard deviation of an estimator, relative to the norm of the exact gradient."""
    gradients, weights = enumeration.gradients(), enumeration.probabilities()
    assert torch.isclose(weights.sum(), torch.ones((), dtype=torch.float64))
    mean = weights @ gradients
    variance = weights @ (gradients - mean).square().sum(1)
    return float((mean - exact).norm() / exact.norm()), float(variance.sqrt() / exact.norm())


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_episodes": 1, "inner_steps": 2},
        {"num_episodes": 1, "inner_steps": 2, "learn_inner_lr": True},
        {"context_size": 2},
    ],
    ids=["one step", "two steps", "learned step sizes", "context"],
)
def test_credit_for_exploration_makes_the_meta_gradient_unbiased(options: dict[str, Any]) -> None:
    exact = _by_differences(Enumeration("log_likelihood", **options))
    assert exact.norm() > 0.1
    if "learn_inner_lr" in options:
        assert len(exact) == 2 * len(flatten(Enumeration("ratio").learner.params()))
    assert moments(Enumeration("log_likelihood", credit=True, **options), exact)[0] < 1e-6
    for inner_loss in ("ratio", "dice", "log_likelihood"):
        bias = moments(Enumeration(inner_loss, **options), exact)[0]
        assert bias > (1e-4 if "context_size" in options else 0.03)  # a small context changes little


def test_drawn_episodes_agree_within_their_standard_errors() -> None:
    exact = _by_differences(Enumeration("log_likelihood"))
    rng = np.random.default_rng(0)
    errors = []
    for credit in (True, False):
        enumeration = Enumeration("log_likelihood", credit=credit)
        along = enumeration.gradients() @ exact / exact.norm()
        weights = enumeration.probabilities().numpy()
        drawn = along.numpy()[rng.choice(len(along), size=20_000, p=weights / weights.sum())]
        errors.append((drawn.mean() - float(exact.norm())) / (drawn.std() / len(drawn) ** 0.5))
    assert abs(errors[0]) < 3.5
    assert abs(errors[1]) > 10


def expected_jacobian_bias(inner_loss: InnerLoss, *, baseline: bool) -> float:
    """Relative bias of the adapted parameters' derivative along a direction: of the Hessian of the return."""
    enumeration = Enumeration(inner_loss, baseline=baseline)
    learner, theta = enumeration.learner, enumeration.learner.params()
    leaves = list(theta.values())
    vector = torch.randn(len(flatten(theta)), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = enumeration.probabilities()
    adapted = learner.adapt_through(theta, enumeration.experience().batches[:-1])[-1]
    mean = flatten({name: torch.einsum("t,t...->...", weights, p) for name, p in adapted.items()})
    found = flatten(torch.autograd.grad(mean @ vector, leaves)) - vector
    log_probs = learner.policy.distribution(expand(theta, 4), STATES).log_prob(ACTIONS).sum(1)
    expected_return = log_probs.exp() @ PAID.sum(1)
    gradient = flatten(torch.autograd.grad(expected_return, leaves, create_graph=True))
    hessian = flatten(torch.autograd.grad(gradient @ vector, leaves)) / HORIZON  # inner_lr is 1
    return float((found - hessian).norm() / hessian.norm())


@pytest.mark.parametrize("baseline", [False, True])
def test_only_dice_has_the_hessian_of_the_expected_return(baseline: bool) -> None:
    assert expected_jacobian_bias("dice", baseline=baseline) < 1e-9
    assert expected_jacobian_bias("ratio", baseline=baseline) > 0.05
    assert expected_jacobian_bias("log_likelihood", baseline=baseline) > 0.05


def test_all_inner_losses_have_one_gradient_and_dice_is_that_of_its_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(2, 6, generator=generator, dtype=torch.float64).requires_grad_()
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 1, 0, 0]], dtype=torch.bool)  # two episodes of three steps
    rewards = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64) * mask.view(2, 2, 3)
    to_go = rewards.flip(2).cumsum(2).flip(2).flatten(1)
    ours = dice_loss(log_probs, to_go, mask, torch.arange(3).repeat(2, 2))
    # Foerster et al. 2018, eq. 5: the sum over t of box(a_0 ... a_t) r_t.
    summed = (log_probs * mask).view(2, 2, 3).cumsum(2)
    theirs = -(torch.exp(summed - summed.detach()) * rewards).sum((1, 2)) / mask.sum(1)
    reinforce = -(log_probs * to_go * mask).sum(1) / mask.sum(1)
    first = [torch.autograd.grad(loss.sum(), log_probs, create_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(first[0], first[1])
    torch.testing.assert_close(first[0], torch.autograd.grad(reinforce.sum(), log_probs)[0])
    second = [torch.autograd.grad((gradient * to_go).sum(), log_probs)[0] for gradient in first]
    assert second[0].abs().max() > 0.1
    torch.testing.assert_close(second[0], second[1])


def test_credit_is_each_tasks_reward_beside_that_of_the_others() -> None:
    family = make_benchmark("point").family
    tasks = make_benchmark("point").train.sample(3, np.random.default_rng(0))
    config = PrompConfig(adaptation=AdaptationConfig(num_episodes=2, exploration_coef=0.1))
    agent = Promp(family.make_env(1), config, iterations=1, seed=0, device=torch.device("cpu"))
    with Workers(EnvMaker(family, 7), num_threads=1) as workers:
        experience = agent.collect(workers, tasks, np.random.default_rng(0))
    last = experience.trajectories[-1]
    rates = last.rewards.sum((1, 2)).numpy() / last.mask.sum((1, 2)).numpy()
    expected = [rate - np.mean(np.delete(rates, task)) for task, rate in enumerate(rates)]
    np.testing.assert_allclose(credit_of(last, scaled=False), expected, rtol=1e-5)
    np.testing.assert_allclose(experience.batches[-1].credit, np.array(expected) / rates.std(), rtol=1e-5)
    assert not experience.batches[0].credit.any()
    assert experience.batches[0].steps.tolist() == [[*range(7)] * 2] * 3
    agent.learner.config = replace(agent.learner.config, exploration_coef=0.0)
    without = agent.outer_losses(experience)[0]
    agent.learner.config = replace(agent.learner.config, exploration_coef=1.0)
    gain = agent.outer_losses(experience)[0] - without
    torch.testing.assert_close(
        gain, torch.zeros(3), atol=1e-3, rtol=0
    )  # at the policy that acted: only a gradient
