"""One step of a policy with adapted parameters, as a function of tensors alone."""

import copy

from metarl.agents.maml.adaptive_policy import AdaptivePolicy
from metarl.deploy.steps import PolicyStep, StepInputs
from metarl.learning.bilevel import Params
from metarl.nets.distributions import AnyDistribution
from metarl.nets.filling import fill
from metarl.nets.memories import Carry


class ParametersStep(PolicyStep):
    """Acts with the parameters of one task; nothing is learned while acting.

    Args:
        learner: The policy and its inner loop.
        params: Adapted parameters [1, ...]; None for the meta-parameters.
        sampling: True to sample actions, false to take the distribution's mode.
    """

    def __init__(self, learner: AdaptivePolicy, params: Params | None, *, sampling: bool) -> None:
        super().__init__(learner.interface, learner.actions, sampling=sampling)
        self.policy, self.encoder = copy.deepcopy(learner.policy).cpu(), learner.encoder
        if params is not None:
            fill(self.policy, {name: p[0].detach().cpu() for name, p in params.items()}, "params")

    def decide(self, inputs: StepInputs) -> tuple[AnyDistribution, Carry]:
        """The distribution over actions; there is no state."""
        return self.policy.distribution(self.policy.parameter_dict(), self.encoder(inputs.observations)), ()
