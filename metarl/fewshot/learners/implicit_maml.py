"""Implicit MAML: differentiate the solution of the inner problem, not the path to it (Rajeswaran et al. 2019,
arXiv:1909.04630, algorithm 2).

For a batch of tasks, all of them at once:

    phi_i = argmin L(support_i; phi) + lambda/2 |phi - theta|^2        by inner_steps gradient steps, no graph kept
    g_i = grad L(query_i; phi_i)
    (I + H_i / (lambda + damping)) v_i = g_i,   by conjugate gradient; H_i the support loss's Hessian at phi_i
    theta = Adam(theta, mean_i v_i)
    what does not adapt, gamma: its own gradient minus (d^2 L(support_i) / d gamma d phi) v_i / (lambda + damping)

The conjugate gradient is the trust region's (`metarl.learning.trust_region`), one system per task.

How we differ: the proximal term is in every inner step; the reference code takes plain steps and one proximal step
at the end, with a damping of 10 and another 1 for the I, the paper without damping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import GradientLearner, InnerLoop, StepBatch, head_of, names_to_adapt
from metarl.fewshot.learner import LearnerConfig, LearnerSetup
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import Objective, TaskObjective, as_objective, task_losses
from metarl.fewshot.outer import OuterConfig, OuterOptimizer, check_finite, in_pieces
from metarl.learning.bilevel import Order, Params, sgd
from metarl.learning.trust_region import conjugate_gradient
from metarl.runs import parallel
from metarl.runs.configs import MOST_REPEATS, check_counts, check_not_negative, check_positive


@dataclass(frozen=True)
class ImplicitMamlConfig(LearnerConfig):
    """Implicit MAML's hyperparameters, with the published ones for 5-way 1-shot Omniglot.

    Attributes:
        inner_lr: Step size of the gradient steps that solve the inner problem.
        inner_steps: Number of gradient steps towards the inner problem's solution.
        regularisation: Strength of the pull towards the meta-parameters, lambda.
        cg_iters: Number of conjugate-gradient iterations.
        cg_damping: Number added to lambda in the system that is solved. Where the Hessian has eigenvalues below
            -lambda, the conjugate gradient of the undamped system goes astray.
        normalisation: Statistics that batch-norm layers normalise by.
        outer: Outer optimiser.
    """

    renamed: ClassVar[Mapping[str, str]] = {"cg_iterations": "cg_iters"}

    inner_lr: float = 0.1
    inner_steps: int = 16
    regularisation: float = 2.0
    cg_iters: int = 5
    cg_damping: float = 0.0
    normalisation: NormStatistics = "transductive"
    outer: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr", "regularisation")
        check_not_negative(self, "cg_damping")
        check_counts(self, "inner_steps", "cg_iters", most=MOST_REPEATS)

    def make(self, setup: LearnerSetup) -> "ImplicitMaml":
        """The untrained learner, whose network has an output per way or predicted number."""
        config = replace(self, outer=self.outer.over(setup.num_updates))
        return ImplicitMaml(setup.output_network(), config, objective=setup.objective)


class ProximalLoop(InnerLoop):
    """An inner loop that is pulled towards the meta-parameters.

    Args:
        network: The network whose parameters adapt.
        config: Hyperparameters.
        objective: The loss of every task.
    """

    def __init__(self, network: TaskModule, config: ImplicitMamlConfig, objective: Objective) -> None:
        super().__init__(network, sgd(config.inner_lr), names_to_adapt(network, "all"), objective)
        self._regularisation = config.regularisation

    def trace_on(self, batches: list[Examples], num_tasks: int, order: Order) -> list[Params]:
        """The parameters after each step."""
        centre = {name: p.detach() for name, p in self.network.params.items()}

        def losses(params: Params, batch: StepBatch) -> Tensor:
            distances = [(params[name] - centre[name]).square().flatten(1).sum(1) for name in self.adapted]
            pull = torch.stack(distances).sum(0)
            return self.losses(params, batch) + self._regularisation / 2 * pull

        return self.descend(losses, self.start(num_tasks), batches, order)


class ImplicitMaml(GradientLearner):
    """An implicit MAML learner; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, out]; its parameters are trained in place.
        config: Hyperparameters.
        objective: Loss of every task; cross-entropy for integer targets and squared error for others by default.
    """

    def __init__(
        self, module: nn.Module, config: ImplicitMamlConfig, *, objective: Objective | TaskObjective = task_losses
    ) -> None:
        self.config = config
        network = TaskModule(module, normalisation=config.normalisation, num_steps=config.inner_steps, twice=True)
        outer = OuterOptimizer(list(network.weights.values()), config.outer, head=head_of(network, config.outer))
        inner = ProximalLoop(network, config, as_objective(objective))
        super().__init__(inner, outer, config.inner_steps, first_order=False)

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step; returns metrics by name."""
        params = self.network.params
        self.inner.track(episodes.support)
        for p in params.values():
            p.grad = torch.zeros_like(p)
        losses, scores, residuals = [], [], []
        own = parallel.share(episodes.num_tasks)
        for place, part in in_pieces(episodes.select(own), self.config.outer.tasks_at_once):
            grads, loss, outputs, residual = self.meta_gradients(part)
            check_finite(loss, own.start + place)
            for name, grad in grads.items():
                total = params[name].grad
                assert total is not None
                total += (grad.sum(0) if name in self.inner.adapted else grad) / episodes.num_tasks
            losses.append(loss)
            residuals.append(residual)
            scores.append(self.objective.scores(outputs, part.query.targets))
        parallel.sum_gradients(params.values())
        return {
            "loss/outer": _overall_mean(losses),
            f"train/{self.objective.score_name(episodes.query.targets)}_post": _overall_mean(scores),
            "loss/cg_residual": _overall_mean(residuals),
            **self.outer.step(),
        }

    def meta_gradients(self, episodes: Episodes) -> tuple[Params, Tensor, Tensor, Tensor]:
        """The implicit gradient, and what it was made of.

        Returns:
            Gradients by name, [task, ...] of what adapts and summed over tasks of what does not; query losses
            [task]; query outputs; and the conjugate gradient's residual relative to the right-hand side, [task].
        """
        inner, names = self.inner, self.inner.adapted
        solution = inner.trace(episodes.support, self.config.inner_steps, "none")[-1]
        params = self.network.params | {name: solution[name].detach().requires_grad_() for name in names}
        outputs = inner.outputs(params, episodes.support, episodes.query.inputs, self.config.inner_steps)
        losses = self.objective.losses(outputs, episodes.query.targets)
        direct = torch.autograd.grad(
            losses.sum(), list(params.values()), allow_unused=True, materialize_grads=True
        )
        grads = dict(zip(params, direct, strict=True))
        leaves = [params[name] for name in names]
        support = inner.losses(params, StepBatch(self.config.inner_steps, episodes.support))
        slope = torch.autograd.grad(support.sum(), leaves, create_graph=True, materialize_grads=True)
        # Only slopes that depend on a weight themselves can be differentiated.
        bent = [place for place, part in enumerate(slope) if part.requires_grad]
        sizes = [leaf[0].numel() for leaf in leaves]
        pull = self.config.regularisation + self.config.cg_damping

        def product(vectors: Tensor) -> Tensor:
            pieces = [v.view_as(x) for v, x in zip(torch.split(vectors, sizes, 1), leaves, strict=True)]
            curved = torch.autograd.grad(
                [slope[place] for place in bent],
                leaves,
                [pieces[place] for place in bent],
                retain_graph=True,
                materialize_grads=True,
            )
            return vectors + _per_task(curved) / pull

        right = _per_task([grads[name] for name in names])
        solved = conjugate_gradient(product, right, iterations=self.config.cg_iters)
        implicit = zip(names, torch.split(solved.x, sizes, 1), leaves, strict=True)
        grads |= {name: piece.view_as(leaf) for name, piece, leaf in implicit}
        others = [name for name in params if name not in names]
        if others:  # gains and shifts shape the support loss, and so move its solution
            pulled = [grads[name] / pull for name in names]
            moved = torch.autograd.grad(
                [slope[place] for place in bent],
                [params[name] for name in others],
                [pulled[place] for place in bent],
                materialize_grads=True,
            )
            grads |= {name: grads[name] - change for name, change in zip(others, moved, strict=True)}
        residual = solved.residual.norm(dim=1) / right.norm(dim=1)
        return grads, losses.detach(), outputs.detach(), residual


def _overall_mean(parts: Sequence[Tensor]) -> float:
    """The mean of parts [task] of this process's tasks, and of all others' where they are divided."""
    return float(parallel.gathered(torch.cat(list(parts))).mean())


def _per_task(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors [task, ...] as one vector per task, [task, entry]."""
    return torch.cat([t.flatten(1) for t in tensors], 1)
