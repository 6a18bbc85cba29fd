"""A policy on a recorded context: numbers that its heads read beside the observation, and that PPO reads as such.

The context is what the policy knows of its task when it decides: a belief, or the task's parameters. It is the
last part of the carry. Acting records it, and PPO's inputs are these records: no gradient goes to what made them.
"""

from abc import ABC

import torch
from torch import Tensor

from metarl.agents.trials.network import Decision, TrialNetwork
from metarl.learning.trials import Trials
from metarl.nets.memories import Carry
from metarl.trajectories import Observations

CONTEXT = "context"
"""Name of the context among the numbers that acting records."""


class ContextNetwork(TrialNetwork, ABC):
    """A network whose heads read a recorded context and the observation of the same step.

    Attributes:
        context_size: Number of numbers in the context.
    """

    remembers = False
    context_size: int

    def records(self, decision: Decision, actions: Tensor, carry: Carry) -> dict[str, Tensor]:
        """Numbers that PPO needs of a decision, and the context that it was made on."""
        return super().records(decision, actions, carry) | {CONTEXT: carry[-1]}

    def act(self, observations: Observations, carry: Carry, alive: Tensor) -> tuple[Decision, Carry]:
        """The decision at observations [trial, ...] and at the context; the carry stays as it is."""
        return self.decide(carry[-1], self.features(observations)), carry

    def trial_inputs(self, trials: Trials) -> Tensor:
        """The recorded contexts, then features of observations unless they are learned, [time, trial, in]."""
        contexts = trials.records[CONTEXT]
        return contexts if self.encoder.learns else torch.cat((contexts, self.features(trials.observations)), -1)

    def start_unroll(self, num_trials: int) -> Carry:
        """The carry of PPO's reading, which is empty: contexts are among the inputs."""
        return ()

    def decisions(self, inputs: Tensor, observations: Observations, carry: Carry) -> tuple[Decision, Carry]:
        """Decisions at all steps [time, trial] from inputs of `trial_inputs`."""
        context, features = inputs[..., : self.context_size], inputs[..., self.context_size :]
        return self.decide(context, self.features(observations) if self.encoder.learns else features), ()
