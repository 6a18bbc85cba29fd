"""Training a few-shot learner: updates on fresh tasks, evaluation on held-out ones, metrics, checkpoints.

repeat updates_per_iteration times:
    episodes = sources.train.sample(meta_batch_size)
    metrics  = learner.update(episodes)
now and then: scores on held-out tasks, and a checkpoint
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import Learner, ModuleLearner
from metarl.fewshot.objectives import ByTargets
from metarl.fewshot.sources import Sources
from metarl.loop import Progress, Report, Tested, begin, repeat
from metarl.runs import parallel
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, MOST_UPDATES, check_counts
from metarl.runs.lock import locked
from metarl.runs.loggers import Logger
from metarl.runs.pending import Pending
from metarl.runs.seeding import draw_seed, streams
from metarl.states import load_state, state_of


@dataclass(frozen=True)
class FewshotTrainingConfig:
    """The length and the batch sizes of the training.

    Attributes:
        iterations: Number of iterations of the run, each of some outer updates whose mean metrics are recorded.
        updates_per_iteration: Number of outer updates per iteration.
        meta_batch_size: Number of tasks per outer update.
        checkpoint_every: Number of iterations between checkpoints; one more is written at the end.
        evaluate_every: Number of iterations between evaluations on held-out tasks; 0 for none while training.
    """

    iterations: int = 100
    updates_per_iteration: int = 100
    meta_batch_size: int = 4
    checkpoint_every: int = 5
    evaluate_every: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "iterations", "updates_per_iteration", "checkpoint_every", most=MOST_UPDATES)
        check_counts(self, "evaluate_every", least=0, most=MOST_UPDATES)
        check_counts(self, "meta_batch_size", most=MOST_TASKS)


@dataclass(frozen=True)
class FewshotEvaluationConfig:
    """The numbers of tasks and adaptation steps of evaluations.

    Attributes:
        num_tasks: Number of tasks of every split.
        num_steps: Number of adaptation steps; learners without any ignore it.
        training_tasks: Number of tasks of each evaluation while training.
        score_every: Number of adaptation steps from one score to the next; scoring costs as much as a step.
        views: Number of views of every image, itself and distorted copies, whose mean features are compared; more
            than 1 for learners that compare images alone.
    """

    num_tasks: int = 600
    num_steps: int = 10
    training_tasks: int = 100
    score_every: int = 1
    views: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "training_tasks", "views", most=MOST_TASKS)
        check_counts(self, "score_every", most=MOST_REPEATS)
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)


def train(
    learner: Learner,
    sources: Sources,
    config: FewshotTrainingConfig,
    evaluation: FewshotEvaluationConfig,
    *,
    folder: Path,
    seed: int,
    identity: str,
    loggers: Sequence[Logger],
    report: Report,
    stop: Callable[[], bool],
) -> Progress:
    """Train until the configured number of iterations, or until `stop` says so.

    Continues from the folder's checkpoint if there is one, to the bit as an uninterrupted run would have.

    Args:
        learner: Learner, trained in place.
        sources: Sources of training and held-out tasks.
        config: Length and batch sizes.
        evaluation: Sizes of the evaluations while training.
        folder: Run folder; checkpoints go there.
        seed: Seed of all random streams.
        identity: Name of the learner and its data; a checkpoint of another is refused.
        loggers: Receivers of the metrics; left open.
        report: Function that is called after every iteration.
        stop: Function that is asked after every iteration; a checkpoint is written before leaving.

    Raises:
        TrainingDiverged: if a loss is not finite; says the iteration and the task.
        LockedError: if another process trains in the folder.
        WriteError: if a file cannot be written.
    """
    generators = streams(seed)
    parallel.check_divisible(learner, config.meta_batch_size)
    with locked(folder):
        progress = begin(
            folder, config, loggers, lambda path: load_state(learner, generators, path, identity), "tasks"
        )
        work = _LearnerTraining(learner, sources, config, evaluation, identity, generators)
        repeat(work, progress, config, folder=folder, loggers=loggers, axis="tasks", report=report, stop=stop)
    return progress


@dataclass
class _LearnerTraining:
    """The work of one iteration: updates on fresh tasks."""

    learner: Learner
    sources: Sources
    config: FewshotTrainingConfig
    evaluation: FewshotEvaluationConfig
    identity: str
    generators: dict[str, np.random.Generator]

    def iterate(self, progress: Progress) -> dict[str, float]:
        """Take the iteration's updates; returns the means of their metrics."""
        rng, sums = self.generators["workers"], dict[str, float]()
        num_updates = self.config.updates_per_iteration
        # Modules may drop units at random, from torch's own generator: it follows from the run's seed in here.
        with torch.random.fork_rng():
            torch.manual_seed(draw_seed(rng) % 2**63)
            for _ in range(num_updates):
                episodes = self.sources.train.sample(self.config.meta_batch_size, self.generators["tasks"])
                metrics: object = self.learner.update(episodes, rng)
                if not isinstance(metrics, Mapping):
                    what = f"{type(self.learner).__name__}.update"
                    raise ValueError(f"{what} must return metrics, numbers by name, got {type(metrics).__name__}")
                for name, value in metrics.items():
                    sums[name] = sums.get(name, 0.0) + value / num_updates
        progress.tasks += num_updates * self.config.meta_batch_size
        return sums

    def test(self) -> Pending[Tested]:
        """Scores of the learner as it is now; they are there at once."""
        pending = Pending(self._scores)
        pending.begin(beside=False)
        return pending

    def _scores(self) -> Tested:
        """Scores on validation tasks, or others where there are none; the last of them is what is best."""
        held_out = self.sources.held_out
        split = next(name for name in ("validation", "test", "train") if name in held_out)
        name, scores = adaptation_scores(
            self.learner,
            held_out[split],
            self.generators["evaluation"],
            num_tasks=self.evaluation.training_tasks,
            num_steps=self.evaluation.num_steps,
            score_every=self.evaluation.score_every,
            views=self.evaluation.views,
        )
        every = self.evaluation.score_every
        metrics = {f"{split}/{name}_after_{place * every}": float(row.mean()) for place, row in enumerate(scores)}
        last = float(scores[-1].mean())
        objective = self.learner.objective if isinstance(self.learner, ModuleLearner) else ByTargets()
        return Tested(metrics, -last if objective.is_error(name) else last)

    def state(self, progress: Progress) -> dict[str, Any]:
        """The learner and its random streams."""
        return state_of(self.learner, self.generators, progress, self.identity)

    def save_data(self) -> None:
        """Nothing: all that a learner keeps is in the checkpoint."""
