"""Prototypical networks whose features are fine-tuned on every new task (PMF, Hu et al. 2022, arXiv:2204.07305).

Training is that of prototypical networks. On a new task, with S its support set:

    repeat num_rounds times, steps_per_round times each:
        S' = distorted copies of S, if it is of images, else one example of every class, which is left out of S
        theta = Adam(theta, grad of the cross-entropy of S' by prototypes of S)
    stop early: theta is the one of least loss on held-out support, the last example of every class, by prototypes
    of the others; the unadapted theta is among the candidates

The final prototypes are of all of S. With one example of a class nothing can be held out, and all steps are taken.

Transductive fine-tuning (Dhillon et al. 2020, arXiv:1909.02729) adds to the loss of a step, with Q the query set,

    entropy_coef mean_Q H(p(y | x; theta)),       p by prototypes of S

PMF chooses the step size on validation tasks, which is `choose_inner_lr`.

How we differ: theirs have no held-out support, and Dhillon et al. fine-tune a linear classifier of the features
beside them; averages of batch norm stay as training left them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.data.augmentation import Augmentation
from metarl.fewshot.episodes import Episodes, EpisodeSource, Examples
from metarl.fewshot.learner import LearnerConfig, LearnerSetup, ModuleLearner, Predictor, differentiable_in_queries
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.metric import check_classes
from metarl.fewshot.objectives import Objective, TaskObjective
from metarl.learning.bilevel import Params
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, check_counts, check_not_negative


@dataclass(frozen=True)
class FineTuningConfig(LearnerConfig):
    """The hyperparameters of prototypical networks that are fine-tuned on every new task.

    Attributes:
        prototypical: Hyperparameters of the prototypical networks and their training.
        num_rounds: Number of rounds of fine-tuning, the adaptation steps of evaluations.
        steps_per_round: Number of gradient steps of a round.
        inner_lr: Step size of fine-tuning.
        inner_optimizer: Optimiser of fine-tuning.
        distorted: Whether distorted copies of the support set are classified, where it is of images; otherwise
            an example of every class is left out in turn and classified by the others.
        early_stopping: Whether the weights of least loss on held-out support are taken, where every class has two
            examples or more.
        entropy_coef: Weight of the mean entropy of the queries' predictions, which transductive fine-tuning
            minimises, too; 1 in Dhillon et al. 2020, and 0 for none, so that predictions do not depend on the
            other queries.
        inner_lr_choices: Step sizes that evaluations choose from on validation tasks, 0 for no fine-tuning among
            them; empty for inner_lr.
        choice_tasks: Number of validation tasks that the step size is chosen on.
    """

    prototypical: PrototypicalConfig = field(default_factory=PrototypicalConfig)
    num_rounds: int = 5
    steps_per_round: int = 10
    inner_lr: float = 1e-3
    inner_optimizer: Literal["adam", "sgd"] = "adam"
    distorted: bool = True
    early_stopping: bool = True
    entropy_coef: float = 0.0
    inner_lr_choices: tuple[float, ...] = ()
    choice_tasks: int = 20

    def __post_init__(self) -> None:
        check_counts(self, "num_rounds", "steps_per_round", most=MOST_REPEATS)
        check_counts(self, "choice_tasks", most=MOST_TASKS)
        check_not_negative(self, "inner_lr", "entropy_coef")
        if not all(math.isfinite(rate) and rate >= 0 for rate in self.inner_lr_choices):
            raise ValueError(f"inner_lr_choices must be zero or more each, got {list(self.inner_lr_choices)}")

    def make(self, setup: LearnerSetup) -> "FineTuning":
        """The untrained learner, whose network puts out features."""
        prototypical = replace(self.prototypical, outer=self.prototypical.outer.over(setup.num_updates))
        setup.require("classification", self)
        config = replace(self, prototypical=prototypical)
        return FineTuning(setup.feature_network(exact=True), config).trained_by(setup.objective)


class FineTuning(ModuleLearner):
    """Prototypical networks with fine-tuning at test time; see `metarl.fewshot.learner.Learner`.

    Args:
        module: Maps [row, *input] to [row, feature]; its parameters are trained in place.
        config: Hyperparameters.

    Attributes:
        base: Prototypical networks, which training trains.

    Raises:
        ValueError: If features of an example depend on other examples.
    """

    def __init__(self, module: nn.Module, config: FineTuningConfig) -> None:
        self.config = config
        self.base = Prototypical(module, config.prototypical)
        if not self.base.embeds_rows_alone:
            raise ValueError(
                "fine-tuning takes batch norm's averages as they are: normalisation must be running or frozen, "
                f"got {config.prototypical.normalisation!r}"
            )
        self.num_steps = config.num_rounds
        super().__init__(self.base.network, {"head": self.base.head, "outer": self.base.outer})

    def trained_by(self, objective: Objective | TaskObjective) -> Self:
        """The learner itself, with the loss of training and of fine-tuning and the score of an objective."""
        self.base.trained_by(objective)
        return super().trained_by(objective)

    @property
    def data_parallel(self) -> bool:
        """Whether several processes can train it."""
        return self.base.data_parallel

    @property
    def judges_queries_together(self) -> bool:
        """Whether predictions are fine-tuned on the queries, too."""
        return self.config.entropy_coef > 0

    def update(self, episodes: Episodes, rng: np.random.Generator) -> dict[str, float]:
        """Take one outer step; returns metrics by name."""
        return self.base.update(episodes, rng)

    def adapt(self, support: Examples, num_steps: int) -> list[Predictor]:
        """Predictors after 0, 1, ... `num_steps` rounds of fine-tuning on every task.

        Raises:
            ValueError: If targets are not 0 to N - 1, or a class has no example.
        """
        check_classes(support.targets)
        tasks = [Examples(x.unsqueeze(0), y.unsqueeze(0)) for x, y in zip(*support, strict=True)]
        tuned = self._tuned_by_queries(tasks, num_steps)

        def predictor(rounds: int) -> Predictor:
            @differentiable_in_queries
            @self.network.evaluating(self.base.head)
            def predict(inputs: Tensor) -> Tensor:
                parts = zip(tuned(inputs.detach()), tasks, inputs.unsqueeze(1), strict=True)
                return torch.cat([self._outputs(params[rounds], task, x) for params, task, x in parts])

            return predict

        return [predictor(rounds) for rounds in range(num_steps + 1)]

    def _tuned_by_queries(self, tasks: list[Examples], num_rounds: int) -> Callable[[Tensor], list[list[Params]]]:
        """The parameters of every task after 0, 1, ... rounds, as a function of the queries [task, row, *input].

        They are computed at once, or of transductive fine-tuning whenever queries differ from the last ones.
        """
        if not self.judges_queries_together:
            fixed = [self.fine_tuned(task, num_rounds) for task in tasks]
            return lambda inputs: fixed
        last: list[tuple[Tensor, list[list[Params]]]] = []

        def tuned(inputs: Tensor) -> list[list[Params]]:
            if not last or not torch.equal(last[0][0], inputs):
                pairs = zip(tasks, torch.split(inputs, 1), strict=True)
                last[:] = [(inputs.clone(), [self.fine_tuned(task, num_rounds, x) for task, x in pairs])]
            return last[0][1]

        return tuned

    def fine_tuned(self, task: Examples, num_rounds: int, queries: Tensor | None = None) -> list[Params]:
        """The network's parameters after 0, 1, ... rounds on one task; of early stopping the best until then.

        Args:
            task: Support set of one task.
            num_rounds: Number of rounds.
            queries: Queries [1, row, *input] whose entropy falls, too, of transductive fine-tuning; None for none.
        """
        with torch.inference_mode(mode=False):  # which is without gradients, by which this adapts
            return self._rounds(task.kept(), num_rounds, None if queries is None else queries.clone())

    def _rounds(self, task: Examples, num_rounds: int, queries: Tensor | None) -> list[Params]:
        params = {name: p.detach().clone().requires_grad_() for name, p in self.network.params.items()}
        best, rounds = _copied(params), [_copied(params)]
        known, held_out = self._divided(task)
        with torch.enable_grad(), self.network.evaluating(self.base.head):
            most = self._held_out_score(params, known, held_out)
            num_steps = num_rounds * self.config.steps_per_round
            for place, loss in enumerate(self._steps(params, known, num_steps, queries), 1):
                score = self._held_out_score(params, known, held_out)
                if score >= most:
                    most, best = score, _copied(params)
                if place % self.config.steps_per_round == 0:
                    rounds.append(best)
                if not torch.isfinite(loss):
                    break
        return rounds + [rounds[-1]] * (num_rounds + 1 - len(rounds))

    @torch.no_grad()
    def _held_out_score(self, params: Params, known: Examples, held_out: Examples | None) -> float:
        """Minus the loss on held-out examples; without any, 0 where outputs are finite. What is not is least."""
        if held_out is None:
            return 0.0 if bool(self._outputs(params, known, known.inputs).isfinite().all()) else -torch.inf
        return -float(self._loss(params, known, held_out).nan_to_num(torch.inf))

    def _steps(
        self, params: Params, known: Examples, num_steps: int, queries: Tensor | None = None
    ) -> Iterator[Tensor]:
        """Move the parameters step by step; gives the loss before each."""
        config, generator, distort = self.config, torch.Generator().manual_seed(0), Augmentation()
        kind = torch.optim.Adam if config.inner_optimizer == "adam" else torch.optim.SGD
        optimizer = kind(list(params.values()), lr=config.inner_lr)
        images = config.distorted and known.inputs.dim() == 5
        for step in range(num_steps):
            shown, judged = known, known
            if images:
                copies = distort(known.inputs[0], None, generator).unsqueeze(0)
                judged = Examples(copies, known.targets)
            elif _fewest(known) > 1:
                # An example is nearest to the prototype that it is part of, whatever the features are.
                shown, judged = _without_one(known, step)
            loss = self._loss(params, shown, judged)
            if queries is not None:
                loss = loss + config.entropy_coef * mean_entropy(self._outputs(params, known, queries))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            yield loss.detach()

    def _divided(self, task: Examples) -> tuple[Examples, Examples | None]:
        """The examples to learn from, and those held out: the last of every class, if every class has two."""
        if not self.config.early_stopping or _fewest(task) < 2:
            return task, None
        return _without_one(task, -1)

    def _loss(self, params: Params, known: Examples, judged: Examples) -> Tensor:
        return self.objective.losses(self._outputs(params, known, judged.inputs), judged.targets).sum()

    def _outputs(self, params: Params, known: Examples, inputs: Tensor) -> Tensor:
        """The outputs [1, row, way] for inputs of one task, by features of some parameters."""
        support, query = (self.network(params, part) for part in (known.inputs, inputs))
        return self.base.outputs(support, known.targets, query)


def mean_entropy(outputs: Tensor) -> Tensor:
    """The mean entropy of the softmax of outputs [..., way], in nats."""
    logs = outputs.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1).mean()


def choose_inner_lr(
    learner: FineTuning, source: EpisodeSource, rng: np.random.Generator, *, num_steps: int
) -> dict[float, float]:
    """Choose the step size of fine-tuning among those of the configuration, by the same validation tasks.

    Args:
        learner: Trained learner; its configuration gets the step size of the best mean score, the least of equals.
        source: Source of the validation tasks.
        rng: Random stream that the tasks are drawn from.
        num_steps: Number of rounds.

    Returns:
        The mean score of each step size.

    Raises:
        ValueError: if the configuration has none to choose from.
    """
    config = learner.config
    if not config.inner_lr_choices:
        raise ValueError("there is nothing to choose from; set inner_lr_choices, such as (0.003, 0.01, 0.03)")
    tasks = source.sample(config.choice_tasks, rng)
    pieces = tasks.alone() if tasks.is_ragged else tasks.split(1)
    scores: dict[float, float] = {}
    for inner_lr in sorted(set(config.inner_lr_choices)):
        learner.config = replace(config, inner_lr=inner_lr)
        of_tasks = [
            learner.objective.scores(learner.adapt(support, num_steps)[-1](query.inputs), query.targets)
            for support, query in pieces
        ]
        scores[inner_lr] = float(torch.cat(of_tasks).nan_to_num(-torch.inf).mean())
    learner.config = replace(config, inner_lr=max(scores, key=scores.__getitem__))
    return scores


def _fewest(task: Examples) -> int:
    """The number of examples of the class that has fewest."""
    return int(torch.bincount(task.targets[0]).min())


def _without_one(task: Examples, turn: int) -> tuple[Examples, Examples]:
    """The examples but for one of each class, and those; the class's examples are left out in turn."""
    targets = task.targets[0]
    of_classes = [(targets == place).nonzero().squeeze(1) for place in range(int(targets.max()) + 1)]
    left_out = torch.stack([rows[turn % len(rows)] for rows in of_classes])
    others = torch.ones_like(targets, dtype=torch.bool).index_fill(0, left_out, False).nonzero().squeeze(1)
    return task.rows(others.unsqueeze(0)), task.rows(left_out.unsqueeze(0))


def _copied(params: Params) -> Params:
    return {name: p.detach().clone() for name, p in params.items()}
