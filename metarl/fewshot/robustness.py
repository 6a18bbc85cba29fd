"""Accuracy under attack: queries that an adversary moves, who knows the adapted learner."""

import functools
from collections.abc import Hashable, Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from metarl.fewshot.attacks import Attack
from metarl.fewshot.episodes import EpisodeSource, Examples
from metarl.fewshot.evaluation import OnTasks, check_least, drawn_tasks
from metarl.fewshot.learner import Learner, ModuleLearner, Predictor, check_numbers
from metarl.fewshot.objectives import ByTargets, Objective, is_classification
from metarl.runs.seeding import torch_generator

Name = TypeVar("Name", bound=Hashable)


def attacked_scores(
    learner: Learner,
    source: EpisodeSource,
    rng: np.random.Generator,
    *,
    attacks: Mapping[Name, Attack],
    num_tasks: int,
    num_steps: int,
    tasks_at_once: int = 20,
    progress: OnTasks | None = None,
) -> dict[Name, np.ndarray]:
    """The scores on queries that an adversary moves, who knows the learner as it is after its adaptation.

    Support sets are left as they are. Of classes the adversary raises the margin of the best wrong output over the
    right one: cross-entropy has no gradient left where outputs are large. Of numbers it raises the loss.

    Args:
        learner: Trained learner; it is left as it is.
        source: Source of the tasks.
        rng: Random stream that the tasks are drawn from.
        attacks: Attacks by name, all on the same queries.
        num_tasks: Number of tasks.
        num_steps: Number of adaptation steps, of learners that have them.
        tasks_at_once: Number of tasks that are held in memory together.
        progress: Function that is called after each part.

    Returns:
        The score of every task, float64 [task], by the attack's name.

    Raises:
        FloatingPointError: If a score is not finite.
        ValueError: If inputs are integers, or out of an attack's range.
    """
    objective = learner.objective if isinstance(learner, ModuleLearner) else ByTargets()
    parts: dict[Name, list[Tensor]] = {name: [] for name in attacks}
    # A stream of its own, so that the tasks are those of other evaluations by the same stream.
    generator = torch_generator(0)
    check_least(0, num_steps=num_steps)
    for done, (support, query) in drawn_tasks(source, rng, num_tasks, tasks_at_once):
        predict = learner.adapt(support, num_steps)[-1]
        rising = functools.partial(_rising, predict, query, objective)
        for name, attack in attacks.items():
            moved = attack(query.inputs, rising, generator)
            scores = objective.scores(predict(moved), query.targets)
            check_numbers(learner, scores.isfinite(), "a score", done - len(scores))
            parts[name].append(scores)
        if progress is not None:
            progress(done, num_tasks)
    return {name: torch.cat(scores).double().cpu().numpy() for name, scores in parts.items()}


def _rising(predict: Predictor, query: Examples, objective: Objective, inputs: Tensor) -> Tensor:
    """What the adversary raises: margins [task, row] of classes, or losses [task]."""
    outputs = predict(inputs)
    if not is_classification(query.targets) or query.targets.dim() != 2:
        return objective.losses(outputs, query.targets)
    right = nn.functional.one_hot(query.targets, outputs.shape[-1]).bool()
    return outputs.masked_fill(right, -torch.inf).amax(-1) - outputs[right].view(query.targets.shape)
