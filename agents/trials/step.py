"""One step of a network that learns while it acts, as a function of tensors alone."""

import copy

import torch

from metarl.agents.trials.network import TrialNetwork
from metarl.deploy.steps import PolicyStep, StepInputs
from metarl.nets.distributions import AnyDistribution, TanhGaussian
from metarl.nets.memories import Carry


class NetworkStep(PolicyStep):
    """Reads the last step, then acts.

    Args:
        network: Network on any device.
        read: Carry of one trial that acting goes on from; None for a trial that starts.
        sampling: True to sample actions, false to take the distribution's mode.
    """

    def __init__(self, network: TrialNetwork, read: Carry | None, *, sampling: bool) -> None:
        network = copy.deepcopy(network).cpu()
        learns = network.reads_outcomes
        super().__init__(
            network.interface,
            network.actions,
            sampling=sampling,
            state=network.compact(network.start(1) if read is None else read) if learns else (),
            reads="every outcome" if learns else "nothing",
            growing=network.growing,
        )
        self.network, self._learns = network, learns

    def decide(self, inputs: StepInputs) -> tuple[AnyDistribution | TanhGaussian, Carry]:
        """The distribution over actions, and the carry after the step."""
        network, alive = self.network, torch.ones(1, dtype=torch.bool)
        if not self._learns:
            return network.act(inputs.observations, network.start(1), alive)[0].distribution, ()
        carry = network.read(inputs.last, inputs.state, inputs.happened)
        decision, carry = network.act(inputs.observations, carry, alive)
        # A carry with room for further steps is what runs fast here; an exported one grows instead.
        return decision.distribution, carry if torch.compiler.is_exporting() else network.compact(carry)
