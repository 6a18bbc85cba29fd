"""The teacher, which observes the parameters of its task, and the student, which infers them from its trial.

    teacher  z = mu(parameters)                                         action ~ policy(o, z)
    student  z = estimate(memory(trial)), or mu of an estimate          action ~ policy(o, z)

The student has a copy of the teacher's policy and of its encoder mu, which no longer change, so that both act
alike where the student has inferred its task.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from metarl.agent import Interface
from metarl.agents.rl2.trial_policy import TrialPolicy, TrialPolicyConfig
from metarl.agents.trials.context import ContextNetwork
from metarl.agents.trials.network import Decision, TrialNetworkConfig
from metarl.learning.trials import TrialSteps
from metarl.nets.memories import Carry
from metarl.nets.networks import Mlp
from metarl.runs import codec
from metarl.runs.configs import MOST_UNITS, check_counts, check_sizes
from metarl.tasks import HasSpaces

Inference = Literal["latent", "actions", "parameters"]


@dataclass(frozen=True)
class InformedPolicyConfig(TrialPolicyConfig):
    """A policy that observes features of the task, and the memory that a student infers them with.

    Attributes:
        latent_size: Number of features z of the task that the policy observes.
        task_encoder_sizes: Widths of the hidden layers of the encoder mu, which makes these features of the task's
            parameters.
        infers: Quantity that the student learns to infer: the teacher's "latent" z (RMA), a latent that leads to
            the teacher's "actions" (distillation), or the task's "parameters" (system identification).
    """

    latent_size: int = 8
    task_encoder_sizes: tuple[int, ...] = (64, 32)
    infers: Inference = "latent"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "latent_size", most=MOST_UNITS)
        check_sizes(self, "task_encoder_sizes", least_layers=0)
        if self.memory == "none":
            raise ValueError("a student needs a memory to infer its task with, got memory 'none'")


@dataclass(frozen=True)
class SizedPolicyConfig(InformedPolicyConfig):
    """The same for tasks of a known size, as files of adapted policies have it.

    Attributes:
        num_parameters: Number of numbers that a task's parameters are.
    """

    num_parameters: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "num_parameters", most=MOST_UNITS)

    @staticmethod
    def of(config: InformedPolicyConfig, num_parameters: int) -> "SizedPolicyConfig":
        """A configuration with its number of parameters."""
        values = {field.name: getattr(config, field.name) for field in fields(InformedPolicyConfig)}
        return SizedPolicyConfig(**values, num_parameters=num_parameters)

    def task_encoder(self, generator: torch.Generator) -> Mlp:
        """The encoder mu of a task's parameters."""
        sizes = (self.num_parameters, self.task_encoder_sizes, self.latent_size)
        return Mlp(*sizes, activation="tanh", generator=generator)


class Teacher(ContextNetwork):
    """A policy that observes its task: its carry is the task's parameters, which a trial begins with.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Kinds and sizes.
        generator: Source of the weights.

    Raises:
        ValueError: if the policy cannot act in these spaces.
    """

    reads_outcomes = True  # it has no use for them, but an exported step keeps its carry, the task, only so
    saved_as: ClassVar[str] = "teacher"

    def __init__(self, env: HasSpaces, config: SizedPolicyConfig, *, generator: torch.Generator) -> None:
        super().__init__(env, config, "the teacher", generator)
        self.context_size = config.num_parameters
        self.task_encoder = config.task_encoder(generator)
        self.add_heads(config, config.latent_size, self.encoder.output_size, generator)

    @classmethod
    def from_settings(cls, interface: Interface, settings: Mapping[str, Any]) -> Self:
        """The network of a configuration, its weights still to be filled in."""
        config = codec.decode(SizedPolicyConfig, settings, "policy", {})
        return cls(interface, config, generator=torch.Generator())

    def start(self, num_trials: int) -> Carry:
        """The parameters in the middle of their ranges; a teacher's trial goes on from those of its task."""
        return (self.reward_scale.new_zeros(num_trials, self.context_size),)

    def read(self, step: TrialSteps, carry: Carry, alive: Tensor) -> Carry:
        """The same carry: a teacher learns nothing while it acts."""
        return carry

    def decide(self, context: Tensor, inputs: Tensor) -> Decision:
        """Distribution and value, from the task's parameters and features of the observation."""
        return super().decide(self.task_encoder(context), inputs)


class Student(TrialPolicy):
    """A policy that infers what its teacher observes; see `metarl.agents.rl2.trial_policy` for what it reads.

    Before training its estimate is near zero: the middle of the parameters' ranges.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Kinds and sizes, the teacher's too.
        generator: Source of the weights.
    """

    saved_as: ClassVar[str] = "student"
    config: SizedPolicyConfig

    def __init__(self, env: HasSpaces, config: SizedPolicyConfig, *, generator: torch.Generator) -> None:
        super().__init__(env, config, generator=generator)
        inferring = {id(parameter) for parameter in self.inferring()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in inferring)

    @classmethod
    def from_settings(cls, interface: Interface, settings: Mapping[str, Any]) -> Self:
        """The network of a configuration, its weights still to be filled in."""
        config = codec.decode(SizedPolicyConfig, settings, "policy", {})
        return cls(interface, config, generator=torch.Generator())

    def add_heads(
        self, config: TrialNetworkConfig, context_size: int, input_size: int, generator: torch.Generator
    ) -> None:
        """Make the estimator on the memory's outputs, and heads of the teacher's sizes on a latent."""
        assert isinstance(config, SizedPolicyConfig), "the constructor takes no other"
        self.task_encoder = config.task_encoder(generator)
        size = config.num_parameters if config.infers == "parameters" else config.latent_size
        self.estimator = Mlp(context_size, (), size, activation="tanh", generator=generator)
        with torch.no_grad():
            self.estimator.get_parameter("weight_0").mul_(0.01)
        super().add_heads(config, config.latent_size, self.encoder.output_size, generator)

    def inferring(self) -> list[nn.Parameter]:
        """The parameters of the memory and the estimator; the others are the teacher's."""
        parts = (self.embedding, self.memory, self.estimator)
        return [p for part in parts if isinstance(part, nn.Module) for p in part.parameters()]

    def copy_teacher(self, teacher: Teacher) -> None:
        """Take all that the teacher has: its policy, its encoder of tasks, and its scales of inputs."""
        self.load_state_dict(self.state_dict() | teacher.state_dict())

    def decide(self, context: Tensor, inputs: Tensor) -> Decision:
        """Distribution and value, from the memory's outputs and the inputs of the same steps."""
        return self._decide_on(self._latents(self.estimator(context)), inputs)

    def errors(self, remembered: Tensor, inputs: Tensor, parameters: Tensor) -> Tensor:
        """Distances of the student from its teacher at every step, [..., trial].

        Args:
            remembered: Outputs of the memory, [..., trial, feature].
            inputs: Inputs of the same steps, [..., trial, in].
            parameters: Parameters of the trials' tasks, which the teacher observes, [trial, parameter].

        Returns:
            Mean squared errors of the estimated latent or parameters; or KL(teacher || student) of the actions.
        """
        estimates, latents = self.estimator(remembered), self.task_encoder(parameters)
        if self.config.infers == "actions":
            acts = self._decide_on(estimates, inputs).distribution
            taught = self._decide_on(latents.expand_as(estimates), inputs).distribution
            divergences: Tensor = taught.kl(acts)  # type: ignore[arg-type]  # two of one kind
            return divergences
        targets = parameters if self.config.infers == "parameters" else latents
        errors: Tensor = (estimates - targets).square().mean(-1)
        return errors

    def _latents(self, estimates: Tensor) -> Tensor:
        return self.task_encoder(estimates) if self.config.infers == "parameters" else estimates

    def _decide_on(self, latents: Tensor, inputs: Tensor) -> Decision:
        """Distribution and value of the teacher's heads, which read the observation's part of the inputs."""
        return super().decide(latents, inputs[..., : self.encoder.output_size])
