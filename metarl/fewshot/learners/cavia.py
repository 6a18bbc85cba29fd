"""CAVIA: a few context numbers adapt, the network is shared (Zintgraf et al. 2019, arXiv:1810.03642).

For a batch of tasks, all of them at once:

    phi_i = 0;  inner_steps times: phi_i = phi_i - alpha grad_phi L(support_i; theta, phi_i)
    theta = Adam(theta, grad mean_i L(query_i; theta, phi_i))

Since only the context differs from task to task, the network runs once over the rows of all tasks.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import GradientLearner, InnerLoop, head_of, without
from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import Objective, TaskObjective, as_objective, task_losses
from metarl.fewshot.outer import OuterConfig, OuterOptimizer
from metarl.learning.bilevel import Params, sgd
from metarl.runs.configs import MOST_REPEATS, MOST_UNITS, check_counts, check_positive


@dataclass(frozen=True)
class CaviaConfig(LearnerConfig):
    """CAVIA's hyperparameters, with the published ones for the sinusoid.

    Attributes:
        num_context: Numbers in the context, phi, which alone adapts.
        inner_lr: Step size of the inner loop, alpha.
        inner_steps: Number of inner steps that training differentiates through; adaptation may take more.
        first_order: Whether second derivatives are left out of the outer gradient.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    num_context: int = 5
    inner_lr: float = 1.0
    inner_steps: int = 1
    first_order: bool = False
    normalisation: NormStatistics = "transductive"
    outer: OuterConfig = field(default_factory=lambda: OuterConfig(max_grad=10.0))

    def __post_init__(self) -> None:
        check_counts(self, "num_context", most=MOST_UNITS)
        check_counts(self, "inner_steps", most=MOST_REPEATS)
        check_positive(self, "inner_lr")

    def make(self, setup: LearnerSetup) -> "Cavia":
        """The untrained learner, whose network takes a context."""
        network = setup.output_network(num_context=self.num_context)
        config = replace(self, outer=self.outer.over(setup.num_updates))
        return Cavia(network, config, objective=setup.objective)


class ContextLoop(InnerLoop):
    """An inner loop in which only a context adapts, the second argument of the network.

    Args:
        network: The network, which takes inputs and the context of every row.
        config: Hyperparameters.
        objective: The loss of every task.
    """

    def __init__(self, network: TaskModule, config: CaviaConfig, objective: Objective) -> None:
        super().__init__(network, sgd(config.inner_lr), ["context"], objective)
        self._num_context = config.num_context

    @property
    def adapted(self) -> list[str]:
        """The names of what adapts, which is the context alone."""
        return ["context"]

    def start(self, num_tasks: int) -> Params:
        """The meta-parameters, and a context of zeros for every task."""
        params = self.network.params
        return params | {"context": next(iter(params.values())).new_zeros(num_tasks, self._num_context)}

    def arguments(self, params: Params, inputs: Tensor) -> tuple[Params, tuple[Tensor, ...]]:
        """The network's own parameters, and the inputs with every task's context for each of its rows."""
        rows = params["context"].unsqueeze(1).expand(-1, inputs.shape[1], -1)
        return without(params, "context"), (inputs, rows)


class Cavia(GradientLearner):
    """A CAVIA learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] and the rows' context [row, context] to [row, out]; its parameters are trained
            in place. See `metarl.fewshot.backbones` for `ContextAsInput`, and `FilmConv4` for images.
        config: Hyperparameters.
        objective: Loss of every task; cross-entropy for integer targets and squared error for others by default.
    """

    def __init__(
        self, module: nn.Module, config: CaviaConfig, *, objective: Objective | TaskObjective = task_losses
    ) -> None:
        network = TaskModule(
            module,
            normalisation=config.normalisation,
            num_steps=config.inner_steps,
            twice=not config.first_order,
            num_arguments=2,
        )
        outer = OuterOptimizer(list(network.weights.values()), config.outer, head=head_of(network, config.outer))
        inner = ContextLoop(network, config, as_objective(objective))
        super().__init__(inner, outer, config.inner_steps, first_order=config.first_order)
