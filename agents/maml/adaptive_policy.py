"""A policy that is adapted by policy gradients, for all tasks at once: its configuration and its inner loop.

Finn et al. 2017 (arXiv:1703.03400), algorithm 3. For each task of a meta-batch:

    collect episodes with theta;  A = advantages against a linear baseline fitted to those episodes
    theta' = theta - alpha * grad L(theta),   L = -E[ pi_theta(a|s) / pi_old(a|s) * A ]
    collect episodes with theta' (the next step's data, or the outer loss's)

The inner loss is the likelihood ratio, whose gradient at theta is REINFORCE's and whose Hessian is that of the
low-variance curvature estimator (Rothfuss et al. 2019, eq. 8), so the second-order meta-gradient is the
better-behaved one at no cost; `inner_loss="log_likelihood"` is the original, and `"dice"` has the Hessian of the
expected return, without bias. Episodes are collected with parameters adapted without a graph; the update repeats
the adaptation on the stored episodes and differentiates it.

What else of the inner loop is an option: step sizes learned for every parameter (Meta-SGD, Li et al. 2017), a
context that alone adapts while the rest is meta-learned (CAVIA, Zintgraf et al. 2019), and credit of the episodes
before adaptation for the returns after it (E-MAML, Stadie et al. 2018).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from metarl.agent import Interface
from metarl.agents.maml.batches import PolicyBatch, full_parts
from metarl.learning.advantages import Normalisation, linear_baseline_advantages
from metarl.learning.bilevel import Params, UpdateRule, adapt_params, expand, init_rates, learned_rates, sgd
from metarl.learning.losses import dice_loss, policy_gradient_loss, ratio_loss
from metarl.nets.actions import ActionMap, action_map
from metarl.nets.devices import on_cpu
from metarl.nets.distributions import AnyDistribution
from metarl.nets.encoders import FLAT
from metarl.nets.networks import Activation
from metarl.nets.policies import CONTEXT, ChoicePolicy, FunctionalPolicy, GaussianPolicy
from metarl.observations import describe
from metarl.runs.configs import (
    MOST_REPEATS,
    MOST_TASKS,
    MOST_UNITS,
    Configuration,
    check_counts,
    check_fraction,
    check_not_negative,
    check_positive,
    check_sizes,
)
from metarl.runs.seeding import torch_generator
from metarl.tasks import HasSpaces
from metarl.trajectories import Observations, Trajectories

_RATE = "inner_lr."  # before the names of parameters in those of their step sizes
_MAX_FEATURES = 1000
"""Observation features; the linear baseline of each task solves a system of twice as many equations."""


@dataclass(frozen=True)
class PolicyConfig(Configuration):
    """A policy whose parameters are adapted: Gaussian for continuous actions, categorical for discrete ones.

    Attributes:
        hidden_sizes: Widths of the policy network's hidden layers.
        activation: Activation of the policy network's hidden layers.
        init_std: Standard deviation of continuous actions before training, in units of the policy's output.
        min_std: Least standard deviation of continuous actions, in units of the policy's output.
        output_scale: Factor of the policy's continuous output, after which +-1 is mapped to the action bounds and
            clipped. ProMP divides by 10: exploration starts at a tenth of the action range, without which
            HalfCheetah learns nothing in the first millions of steps.
        context_size: Number of context parameters: inputs of the policy beside the observation, zero before
            adaptation, which alone adapt (CAVIA, Zintgraf et al. 2019); 0 for none, all parameters adapt.
    """

    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    init_std: float = 1.0
    min_std: float = 1e-6
    output_scale: float = 0.1
    context_size: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "context_size", least=0, most=MOST_UNITS)
        check_sizes(self, "hidden_sizes")
        check_positive(self, "init_std", "min_std", "output_scale")


@dataclass(frozen=True)
class AdaptationConfig(Configuration):
    """Settings of the inner loop.

    Attributes:
        inner_lr: Step size alpha of every inner step; the initial one if step sizes are learned.
        learn_inner_lr: A step size of every parameter is learned with the policy (Meta-SGD, Li et al. 2017).
        inner_steps: Number of gradient steps that training differentiates through; evaluation may take more.
        num_episodes: Number of episodes per task and adaptation step.
        gamma: Discount factor per environment step, in [0, 1].
        gae_lambda: Weight of longer advantage estimates, in [0, 1]; 1 gives Monte-Carlo advantages, as the MAML
            literature has it. On HalfCheetah direction 0.95 gives meta-gradients of the same direction whose
            cosine between two batches of 20 tasks is 0.23 instead of 0.15, and an inner step 2.4 times as long, so
            that learning is more than twice as fast.
        inner_loss: Inner loss: "ratio" has the low-variance Hessian, "dice" an unbiased one of more variance
            (loaded DiCE, Farquhar et al. 2019), "log_likelihood" is Finn et al. 2017's.
        advantage_normalisation: Divisor of centred advantages: "std", or "variance" to reproduce garage's numbers.
        first_order: Second derivatives are left out of the meta-gradient.
        exploration_coef: Weight of the credit that every step before adaptation gets for the returns after it
            (E-MAML, Stadie et al. 2018); 0 for none. 1 gives the whole gradient, of much variance; the published
            code's weight is one divided by the number of steps per task.
    """

    inner_lr: float = 0.1
    learn_inner_lr: bool = False
    inner_steps: int = 1
    num_episodes: int = 20
    gamma: float = 0.99
    gae_lambda: float = 1.0
    inner_loss: Literal["ratio", "dice", "log_likelihood"] = "ratio"
    advantage_normalisation: Normalisation = "std"
    first_order: bool = False
    exploration_coef: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr")
        check_not_negative(self, "exploration_coef")
        check_counts(self, "inner_steps", most=MOST_REPEATS)
        check_counts(self, "num_episodes", most=MOST_TASKS)
        check_fraction(self, "gamma", "gae_lambda")


def check_plain(policy: PolicyConfig, adaptation: AdaptationConfig, agent: str) -> None:
    """Raise a ValueError if the settings hold what only a meta-gradient trains."""
    for config, name in (
        (policy, "context_size"),
        (adaptation, "learn_inner_lr"),
        (adaptation, "exploration_coef"),
    ):
        if getattr(config, name):
            raise ValueError(
                f"{name} needs a meta-gradient, of which {agent} has none, got {getattr(config, name)}; "
                "leave it out, or use ProMP or MAML-TRPO"
            )


class AdaptivePolicy:
    """A policy, the map from its output to actions, and its inner loop: what actors and agents share.

    Args:
        env: Environment of the family, read for its spaces alone.
        policy: Configuration of the policy.
        adaptation: Configuration of the inner loop.
        agent: Name of the algorithm, for messages.
        seed: Seed of the initial weights.
        device: Device of parameters and losses; acting is on the CPU.

    Raises:
        ValueError: if the policy cannot act in these spaces.
    """

    def __init__(
        self,
        env: HasSpaces,
        policy: PolicyConfig,
        adaptation: AdaptationConfig,
        *,
        agent: str = "a gradient-based agent",
        seed: int,
        device: torch.device,
    ) -> None:
        self.interface = Interface(env.single_observation_space, env.single_action_space)
        self.config, self.device = adaptation, device
        self.policy_config, self.agent = policy, agent
        self.actions = action_map(env.single_action_space, agent, scale=policy.output_scale)
        generator = torch_generator(seed)
        # Without weights: every task would need its own, and convolutions with a task axis are another matter.
        self.encoder = FLAT.make(env.single_observation_space, generator)
        size, space = self.encoder.output_size, env.single_observation_space
        if size > _MAX_FEATURES:
            raise ValueError(
                f"{agent} takes observations of up to {_MAX_FEATURES:,} numbers, which its linear baseline is "
                f"fitted on, got {size:,} in {describe(space)}; RL2 takes more"
            )
        num_inputs = self.encoder.output_size + policy.context_size
        self.policy = _make_policy(num_inputs, self.actions, policy, generator).to(device)
        self._context_size = policy.context_size
        self.inner_lrs: Params = {}
        if adaptation.learn_inner_lr:
            start = self.start(self.params())
            adapting = start if self.adapted is None else {name: start[name] for name in self.adapted}
            self.inner_lrs = init_rates(adapting, adaptation.inner_lr)

    def on_cpu(self) -> "AdaptivePolicy":
        """This learner itself if it is on the CPU, otherwise a copy that is."""
        if self.device.type == "cpu":
            return self
        learner = copy.copy(self)
        learner.policy, learner.device = on_cpu(self.policy), torch.device("cpu")
        learner.inner_lrs = {name: rate.detach().cpu() for name, rate in self.inner_lrs.items()}
        return learner

    @property
    def adapted(self) -> tuple[str, ...] | None:
        """Names of the parameters that adapt; None for all."""
        return (CONTEXT,) if self._context_size else None

    def params(self) -> Params:
        """The meta-parameters theta by name: the policy's, and the step sizes if they are learned."""
        return self.policy.parameter_dict() | {f"{_RATE}{name}": rate for name, rate in self.inner_lrs.items()}

    def start(self, params: Params) -> Params:
        """The policy's parameters before adaptation, of meta-parameters theta: with a context of zeros, if any."""
        start = {name: p for name, p in params.items() if not name.startswith(_RATE)}
        if self._context_size:
            start[CONTEXT] = next(iter(start.values())).new_zeros(self._context_size)
        return start

    def rule(self, params: Params) -> UpdateRule:
        """The inner update, by the step sizes of meta-parameters theta."""
        if not self.config.learn_inner_lr:
            return sgd(self.config.inner_lr)
        return learned_rates({name[len(_RATE) :]: p for name, p in params.items() if name.startswith(_RATE)})

    def distribution(self, params: Params, observations: Observations) -> AnyDistribution:
        """The action distribution at observations, each part [task, parallel, *shape]."""
        return self.policy.distribution(params, self.encoder(observations))

    def batch(self, trajectories: Trajectories, params: Params | None = None) -> PolicyBatch:
        """Advantages and old distributions of the trajectories, as rows, on the device.

        Args:
            trajectories: Episodes to learn from.
            params: Parameters of the acting policy, [...] or [task, ...]; needed where the trajectories were not
                recorded by one of our actors, so that nobody knows the distributions their actions came from. The
                actions are then taken as this policy's own, and the inner loss's gradient is REINFORCE's at it.
        """
        config = self.config
        features = self.encoder(trajectories.observations)
        advantages = linear_baseline_advantages(
            trajectories,
            features,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
            normalisation=config.advantage_normalisation,
        )
        records, observations = trajectories.records, self._rows(features)
        if records:
            old = self.actions.kind(*(self._rows(records[name]) for name in self.actions.kind._fields))
        else:
            with torch.no_grad():
                acting = self.start(self.params()) if params is None else params
                old = full_parts(self.policy.distribution(acting, observations))
        actions, mask = self._rows(trajectories.actions), self._rows(trajectories.mask)
        num_tasks, num_episodes, num_steps = trajectories.mask.shape
        steps = torch.arange(num_steps, device=self.device).repeat(num_tasks, num_episodes)
        return PolicyBatch(
            observations=observations,
            actions=actions,
            advantages=self._rows(advantages),
            mask=mask,
            old=old,
            old_log_probs=old.log_prob(actions),
            steps=steps,
            credit=torch.zeros(num_tasks, device=self.device),
        )

    def inner_loss(self, params: Params, batch: PolicyBatch) -> Tensor:
        """The loss that adaptation descends, [task]."""
        log_probs = self.policy.distribution(params, batch.observations).log_prob(batch.actions)
        if self.config.inner_loss == "log_likelihood":
            return policy_gradient_loss(log_probs, batch.advantages, batch.mask)
        if self.config.inner_loss == "dice":
            return dice_loss(log_probs, batch.advantages, batch.mask, batch.steps)
        return ratio_loss(log_probs, batch.old_log_probs, batch.advantages, batch.mask)

    def adapt_through(self, params: Params, batches: Sequence[PolicyBatch]) -> list[Params]:
        """Adapt theta to every task with a graph, one step per batch; params are [...], results [task, ...]."""
        start = expand(self.start(params), len(batches[0].mask))
        order: Literal["first", "second"] = "first" if self.config.first_order else "second"
        rule = self.rule(params)
        return adapt_params(self.inner_loss, start, batches, rule, order=order, adapted=self.adapted)

    def exploration_loss(self, trace: Sequence[Params], inner: Sequence[PolicyBatch], credit: Tensor) -> Tensor:
        """E-MAML's part of the outer loss, [task]: steps before adaptation are credited with the return after it.

        Its gradient is that of -sum log pi_theta^k(a|s) * credit over all steps of all inner steps k: the part of
        the gradient that is missed where the inner steps' data are taken as given.

        Args:
            trace: Parameters before each inner step, and after the last.
            inner: Batches of the inner steps.
            credit: Worth of each task's adapted policy, centred, [task].
        """
        losses = torch.zeros_like(credit)
        if self.config.exploration_coef == 0:
            return losses
        for params, batch in zip(trace, inner, strict=False):
            log_probs = self.policy.distribution(params, batch.observations).log_prob(batch.actions)
            gains = torch.expm1(log_probs - batch.old_log_probs) * batch.mask
            losses = losses - self.config.exploration_coef * credit * gains.sum(1)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """The policy's parameters, and the step sizes if they are learned."""
        state: dict[str, Any] = {"policy": self.policy.state_dict()}
        return state | ({"inner_lrs": dict(self.inner_lrs)} if self.inner_lrs else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        with torch.no_grad():
            for name, rate in self.inner_lrs.items():
                rate.copy_(state["inner_lrs"][name])

    def _rows(self, array: Tensor) -> Tensor:
        return array.flatten(1, 2).to(self.device)


def _make_policy(
    num_features: int, actions: ActionMap, config: PolicyConfig, generator: torch.Generator
) -> FunctionalPolicy:
    if actions.noise == "uniform":
        return ChoicePolicy(
            num_features,
            actions,
            hidden_sizes=config.hidden_sizes,
            activation=config.activation,
            generator=generator,
        )
    return GaussianPolicy(
        num_features,
        actions.num_outputs,
        hidden_sizes=config.hidden_sizes,
        activation=config.activation,
        init_std=config.init_std,
        min_std=config.min_std,
        generator=generator,
    )
