"""The part that all networks share which act through trials: inputs, statistics, policy head and value head.

What the heads read beside the present observation is a context: a memory's outputs, or a belief about the task.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from metarl.agent import Interface
from metarl.agents.trials.hypernetwork import WrittenMlp
from metarl.learning.reward_scale import observed_scale, updated_scale
from metarl.learning.trials import Trials, TrialSteps
from metarl.nets.actions import action_map
from metarl.nets.devices import widened
from metarl.nets.distributions import AnyDistribution, TanhGaussian
from metarl.nets.encoders import EncoderConfig
from metarl.nets.filling import check_parts
from metarl.nets.memories import Carry
from metarl.nets.networks import Mlp
from metarl.runs.configs import Configuration, check_positive, check_sizes
from metarl.tasks import HasSpaces
from metarl.trajectories import Observations

_REWARD_LIMIT = 10.0  # of observed rewards


@dataclass(frozen=True)
class TrialNetworkConfig(Configuration):
    """A policy that acts through trials.

    Attributes:
        head_sizes: Widths of the hidden layers of the policy's and of the value's network, which read the memory's
            features, or the belief, and the inputs.
        init_std: Standard deviation of continuous actions before training, with action bounds of +-1.
        min_std: Least standard deviation of continuous actions, with action bounds of +-1.
        max_std: Greatest standard deviation of continuous actions, with action bounds of +-1.
        normalise_observations: Observations are normalised by their running mean and standard deviation; learned
            features of images are not.
        encoder: Network that makes features of images.
        hypernetwork: Linear network that writes the policy's weights from the memory's features or from the belief
            (Beck et al. 2022), so that the policy reads the inputs alone: "bias-hyperinit" starts with weights
            that do not depend on these, "kaiming" with weights that do. "none" for a policy with its own weights.
    """

    head_sizes: tuple[int, ...] = ()
    init_std: float = 0.5
    min_std: float = 1e-3
    max_std: float = 4.0
    normalise_observations: bool = False
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    hypernetwork: Literal["none", "bias-hyperinit", "kaiming"] = "none"

    def __post_init__(self) -> None:
        check_sizes(self, "head_sizes", least_layers=0)
        check_positive(self, "init_std", "min_std", "max_std")
        if not self.min_std <= self.init_std <= self.max_std:
            raise ValueError(
                "init_std must lie between min_std and max_std, "
                f"got {self.init_std}, {self.min_std} and {self.max_std}"
            )


class Decision(NamedTuple):
    """Outputs of the policy's heads.

    Attributes:
        distribution: Distribution over actions.
        values: Values in units of the normalised return, [...]; None of a policy that has no value head.
    """

    distribution: AnyDistribution | TanhGaussian
    values: Tensor | None = None


class TrialNetwork(nn.Module, ABC):
    """A network that acts through trials. PPO trains it, in whole or in part, if it has a value head.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Sizes of the heads, and how observations are read.
        agent: Name of the algorithm, for messages.
        generator: Source of the weights.

    Attributes:
        remembers: Whether PPO trains a memory, so that the steps of a trial stay together.
        reads_outcomes: Whether the network learns of a task while it acts.
        saved_as: Name of this kind of network in the files of adapted policies.
        growing: Places of the parts of an exported carry that are longer by one after every step.

    Raises:
        ValueError: if the policy cannot act in these spaces.
    """

    remembers: bool
    reads_outcomes: bool
    saved_as: ClassVar[str]
    growing: tuple[int, ...] = ()
    policy: Mlp | WrittenMlp
    value: Mlp
    observation_mean: Tensor
    observation_scale: Tensor
    observation_count: Tensor
    reward_scale: Tensor
    reward_count: Tensor
    reward_mean: Tensor
    reward_steps: Tensor
    observed_scale: Tensor
    reward_limit: Tensor

    def __init__(self, env: HasSpaces, config: TrialNetworkConfig, agent: str, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.interface = Interface(env.single_observation_space, env.single_action_space)
        self.actions = action_map(env.single_action_space, agent)
        self.encoder = config.encoder.make(env.single_observation_space, generator)
        obs_size = self.encoder.output_size
        self.num_fixed = int(self.encoder.fixed.sum())
        self._normalises = config.normalise_observations and self.num_fixed > 0
        self.log_std: nn.Parameter | None = None
        if self.actions.noise == "normal":
            self.log_std = nn.Parameter(torch.full((self.actions.num_outputs,), math.log(config.init_std)))
        self._log_std_range = (math.log(config.min_std), math.log(config.max_std))
        self.register_buffer("observation_mean", torch.zeros(obs_size))
        self.register_buffer("observation_scale", torch.ones(obs_size))
        self.register_buffer("observation_count", torch.zeros(()))
        # Before the first update no unit is known and the policy observes no reward: one of 10,000 would drive
        # its outputs so far that the first update's likelihood ratios overflow.
        self.register_buffer("reward_scale", torch.zeros(()))
        self.register_buffer("reward_count", torch.zeros(()))
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_steps", torch.zeros(()))
        self.register_buffer("observed_scale", torch.zeros(()))
        self.register_buffer("reward_limit", torch.tensor(_REWARD_LIMIT))

    def add_heads(
        self, config: TrialNetworkConfig, context_size: int, input_size: int, generator: torch.Generator
    ) -> None:
        """Make the policy's and the value's network, for so many numbers of context and of inputs."""
        self.add_policy(config, context_size, input_size, self.actions.num_outputs, generator)
        features = context_size + input_size
        self.value = Mlp(features, config.head_sizes, 1, activation="tanh", generator=generator)

    def add_policy(
        self,
        config: TrialNetworkConfig,
        context_size: int,
        input_size: int,
        outputs: int,
        generator: torch.Generator,
    ) -> None:
        """Make the policy's network, with so many outputs for so many numbers of context and of inputs."""
        features = context_size + input_size
        if config.hypernetwork == "none":
            own = self.policy = Mlp(features, config.head_sizes, outputs, activation="tanh", generator=generator)
        elif not context_size:
            raise ValueError(f"hypernetwork {config.hypernetwork!r} needs a memory, got memory 'none'")
        else:
            self.policy = WrittenMlp(
                context_size, input_size, config.head_sizes, outputs, init=config.hypernetwork, generator=generator
            )
            own = self.policy.bias
        with torch.no_grad():  # start near uniform, so that exploration does
            own.get_parameter(f"weight_{own.num_layers - 1}").mul_(0.01)

    @classmethod
    @abstractmethod
    def from_settings(cls, interface: Interface, settings: Mapping[str, Any]) -> Self:
        """The network of a configuration in JSON types, its weights still to be filled in.

        Raises:
            ValueError: if it is no such configuration; one line.
        """

    def compact(self, carry: Carry) -> Carry:
        """The carry of one trial without room for further steps."""
        return carry

    def check_carry(self, carry: Mapping[str, Tensor]) -> Carry:
        """The carry of one trial by the places of its parts, as a file has it.

        Raises:
            ValueError: if its parts are not those of `start(1)`; one line.
        """
        return check_parts(self.start(1), carry, "carry")

    @abstractmethod
    def start(self, num_trials: int) -> Carry:
        """The carry of so many trials before their first step, while acting."""

    @abstractmethod
    def act(self, observations: Observations, carry: Carry, alive: Tensor) -> tuple[Decision, Carry]:
        """The decision at observations [trial, ...], and the carry after it.

        Args:
            observations: Observations before the step, each part [trial, *shape].
            carry: Carry of the trials.
            alive: True where an episode goes on, [trial]; of other rows the carry stays as it is.
        """

    @abstractmethod
    def read(self, step: TrialSteps, carry: Carry, alive: Tensor) -> Carry:
        """The carry after the outcome of a step, [trial, ...], where it took place: where alive [trial]."""

    @abstractmethod
    def trial_inputs(self, trials: Trials) -> Tensor:
        """Inputs of every step of whole trials, [time, trial, in]; without the features of a learned encoder."""

    @abstractmethod
    def start_unroll(self, num_trials: int) -> Carry:
        """The carry of so many trials before their first step, while PPO reads them."""

    @abstractmethod
    def decisions(self, inputs: Tensor, observations: Observations, carry: Carry) -> tuple[Decision, Carry]:
        """Decisions at all steps [time, trial] from inputs of `trial_inputs`, and the carry after the last."""

    def records(self, decision: Decision, actions: Tensor, carry: Carry) -> dict[str, Tensor]:
        """Numbers that training needs of a decision, by name, [trial, ...]: by default those that PPO needs."""
        assert decision.values is not None, "PPO needs a value head"
        return {"log_prob": decision.distribution.log_prob(actions), "value": decision.values}

    def reinforced(self) -> list[nn.Parameter]:
        """The parameters that PPO trains: all, unless another loss trains some."""
        return list(self.parameters())

    def normalised(self, features: Tensor) -> Tensor:
        """Encoded observations [..., feature], perhaps normalised."""
        if not self._normalises:
            return features
        return ((features - self.observation_mean) * self.observation_scale).clamp(-10, 10)

    def features(self, observations: Observations) -> Tensor:
        """Encoded and perhaps normalised observations, [..., feature]."""
        return self.normalised(self.encoder(observations))

    def fixed_features(self, observations: Observations) -> Tensor:
        """Encoded and perhaps normalised observations without what is learned of images, [..., fixed feature]."""
        fixed = self.encoder.fixed_features(observations)
        if not self._normalises:
            return fixed
        places = self.encoder.fixed_places
        mean, scale = (part.index_select(0, places) for part in (self.observation_mean, self.observation_scale))
        return ((fixed - mean) * scale).clamp(-10, 10)

    def observed_rewards(self, rewards: Tensor) -> Tensor:
        """Rewards of any shape as the network observes them: less their running mean, in units of their spread."""
        observed = (rewards - self.reward_mean) * self.observed_scale
        return observed.clamp(-self.reward_limit, self.reward_limit)

    def decide(self, context: Tensor, inputs: Tensor) -> Decision:
        """Distribution and value, from the context and the inputs of the same steps."""
        distribution = self.actions.distribution(self.policy_outputs(context, inputs), self.log_std)
        return Decision(distribution, self.value(torch.cat((context, inputs), -1)).squeeze(-1))

    def policy_outputs(self, context: Tensor, inputs: Tensor) -> Tensor:
        """Outputs of the policy's network, [..., out]."""
        if isinstance(self.policy, WrittenMlp):
            return self.policy(context, inputs)  # type: ignore[no-any-return]
        return self.policy(torch.cat((context, inputs), -1))  # type: ignore[no-any-return]

    def bound_std(self) -> None:
        """Put the standard deviation back into its range; called after each optimiser step.

        The parameter itself is bounded: of a bound in the forward pass it would never get a gradient again.
        """
        if self.log_std is not None:
            with torch.no_grad():
                self.log_std.clamp_(*self._log_std_range)

    def see(self, trials: Trials) -> None:
        """Take the trials' rewards and observations into the running statistics that inputs are scaled by."""
        self._see_rewards(trials.rewards[trials.mask])
        if not self._normalises:
            return
        fixed = self.encoder.fixed
        rows = widened(self.encoder.fixed_features(trials.observations)[trials.mask])
        count, total = float(self.observation_count), float(self.observation_count) + len(rows)
        mean, variance = widened(self.observation_mean[fixed]), widened(self.observation_scale[fixed]) ** -2
        shift = rows.mean(0) - mean
        between = shift.square() * (count * len(rows) / total**2)
        spread = (count * variance + len(rows) * rows.var(0, correction=0)) / total + between
        self.observation_mean[fixed] = (mean + shift * (len(rows) / total)).float()
        self.observation_scale[fixed] = spread.clamp(min=1e-6).rsqrt().float()
        self.observation_count.fill_(total)

    def _see_rewards(self, rewards: Tensor) -> None:
        """Take rewards into their running statistics."""
        scale, count = updated_scale(self.reward_scale, self.reward_count, rewards)
        if math.isinf(count) or not len(rewards):  # statistics that stay as they are
            return
        steps, mean = float(self.reward_steps) + len(rewards), float(self.reward_mean)
        mean += (float(widened(rewards).sum()) - len(rewards) * mean) / steps
        self.reward_scale.fill_(scale)
        self.reward_count.fill_(count)
        self.reward_mean.fill_(mean)
        self.reward_steps.fill_(steps)
        self.observed_scale.fill_(observed_scale(scale, count, mean, steps))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Also read states from before rewards were observed in these units: they observe them as they did."""
        if prefix + "reward_mean" not in state_dict:
            zero, one, endless = torch.zeros(()), torch.ones(()), torch.tensor(math.inf)
            scale = state_dict.get(prefix + "reward_scale", one)
            limit = state_dict.get(prefix + "reward_limit", endless)
            former = {"reward_scale": scale, "reward_limit": limit, "reward_count": endless}
            former |= {"reward_mean": zero, "reward_steps": zero, "observed_scale": scale}
            state_dict |= {prefix + name: value for name, value in former.items()}
        super()._load_from_state_dict(state_dict, prefix, *others)
