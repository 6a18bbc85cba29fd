"""ADML: meta-learning from clean and adversarial examples, crossed (Yin et al. 2018, arXiv:1806.03316).

For a batch of tasks, all of them at once:

    S', Q' = adversarial copies of the support and query sets S, Q, by one step along the sign of the gradient
    theta_adv   = theta - alpha_1 grad L(S'; theta),      theta_clean = theta - alpha_2 grad L(S; theta)
    theta = Adam(theta, grad mean_i [ L(Q; theta_adv) + L(Q'; theta_clean) ] / 2)

How we differ: one step on both outer losses, where the paper takes one on each in turn; Adam for both.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from metarl.fewshot.attacks import Attack, InputRange, check_range
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.layers import check_attackable
from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.objectives import Objective, TaskObjective, task_losses
from metarl.fewshot.outer import OuterLosses
from metarl.runs.configs import check_not_negative


@dataclass(frozen=True)
class AdmlConfig(LearnerConfig):
    """The hyperparameters of ADML.

    Attributes:
        maml: Hyperparameters of the inner and the outer loop.
        attack_size: Largest change of an input's entry by the adversary, in the input's units.
        input_range: Least and largest value that an attacked entry may have, 0 and 1 for images; None for any.
    """

    maml: MamlConfig = field(default_factory=MamlConfig)
    attack_size: float = 0.1
    input_range: InputRange | None = None

    def __post_init__(self) -> None:
        check_not_negative(self, "attack_size")
        if self.input_range is not None:
            check_range(self.input_range)

    def make(self, setup: LearnerSetup) -> "Adml":
        """The untrained learner, whose network has an output per way or predicted number."""
        maml = replace(self.maml, outer=self.maml.outer.over(setup.num_updates))
        return Adml(setup.output_network(), replace(self, maml=maml), objective=setup.objective)


class Adml(Maml):
    """An ADML learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, out]; its parameters are trained in place.
        config: Hyperparameters.
        objective: Loss of every task; cross-entropy for integer targets and squared error for others by default.
    """

    def __init__(
        self, module: nn.Module, config: AdmlConfig, *, objective: Objective | TaskObjective = task_losses
    ) -> None:
        super().__init__(module, config.maml, objective=objective)
        check_attackable(module)
        self._attack = Attack(config.attack_size, input_range=config.input_range)

    def outer_losses(self, episodes: Episodes) -> OuterLosses:
        """The mean of both outer losses, and the outputs on clean queries of learning from attacked examples."""
        support, query = (self.attacked(examples) for examples in episodes)
        clean = super().outer_losses(Episodes(support, episodes.query))
        attacked = super().outer_losses(Episodes(episodes.support, query))
        return OuterLosses((clean.losses + attacked.losses) / 2, clean.outputs)

    def attacked(self, examples: Examples) -> Examples:
        """The examples, each moved by the attack's size where it raises the loss of the meta-parameters."""
        params = {name: p.detach() for name, p in self.network.params.items()}

        def losses(inputs: Tensor) -> Tensor:
            return self.objective.losses(self.network(params, inputs), examples.targets)

        return Examples(self._attack(examples.inputs, losses), examples.targets)
