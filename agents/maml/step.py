"""One step of a policy with adapted parameters, as a function of tensors alone."""

import copy

from torch import Tensor

from metarl.agents.maml.adaptive_policy import AdaptivePolicy
from metarl.deploy.steps import PolicyStep, StepInputs
from metarl.learning.bilevel import Params
from metarl.nets.distributions import AnyDistribution
from metarl.nets.filling import fill
from metarl.nets.memories import Carry
from metarl.nets.policies import CONTEXT


class ParametersStep(PolicyStep):
    """Acts with the parameters of one task; nothing is learned while acting.

    Args:
        learner: The policy and its inner loop.
        params: Adapted parameters [1, ...]; None for the meta-parameters.
        sampling: True to sample actions, false to take the distribution's mode.
    """

    context: Tensor | None

    def __init__(self, learner: AdaptivePolicy, params: Params | None, *, sampling: bool) -> None:
        super().__init__(learner.interface, learner.actions, sampling=sampling)
        self.policy, self.encoder = copy.deepcopy(learner.policy).cpu(), learner.encoder
        own = learner.start(learner.params()) if params is None else {name: p[0] for name, p in params.items()}
        context = own.pop(CONTEXT, None)
        self.register_buffer(CONTEXT, None if context is None else context.detach().cpu())
        fill(self.policy, {name: p.detach().cpu() for name, p in own.items()}, "params")

    def decide(self, inputs: StepInputs) -> tuple[AnyDistribution, Carry]:
        """The distribution over actions; there is no state."""
        params = self.policy.parameter_dict()
        if self.context is not None:
            params[CONTEXT] = self.context
        return self.policy.distribution(params, self.encoder(inputs.observations)), ()
