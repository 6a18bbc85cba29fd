"""The batch that PPO on trials learns from: trials with inputs, advantages, value targets, and their baseline."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from metarl.learning.trials import Trials
from metarl.tasks import Task
from metarl.trajectories import Trajectories, observation_parts

_ALONE_RATE = 0.1  # of the value's baseline at steps that one trial alone reaches, towards its return


class TrialBatch(NamedTuple):
    """Trials with what the losses need beside them, each [time, trial].

    Attributes:
        trials: Steps, on the device.
        inputs: Inputs of the policy, [time, trial, in].
        advantages: Advantages of unit scale; zero in padding.
        targets: Targets of the value head, in its units; zero in padding.
        task_indices: Place in the batch of the task that a step belongs to, int64.
    """

    trials: Trials
    inputs: Tensor
    advantages: Tensor
    targets: Tensor
    task_indices: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "TrialBatch":
        """The same change made to every array."""
        return TrialBatch(self.trials.map(change), *(change(part) for part in self[1:]))

    def single_steps(self) -> "TrialBatch":
        """All real steps as trials of one step: padding is left out."""
        real = self.trials.mask
        return self.map(lambda values: values[real].unsqueeze(0))


def baseline(returns: Tensor, mask: Tensor, known: Tensor) -> Tensor:
    """The centre of the value at every step, [time, 1]: the mean return of the trials that reach it.

    Of a trial that is alone at a step the mean would be its own return, so that the baseline of earlier batches
    moves a tenth of the way to it instead.

    Args:
        returns: Returns, [time, trial].
        mask: Ones for real steps, [time, trial].
        known: Baseline of earlier batches, [time, 1]; zero where a step was never reached.
    """
    count = mask.sum(1, keepdim=True)
    mean = (returns * mask).sum(1, keepdim=True) / count.clamp(min=1)
    slowly = (count == 1) & (known != 0)
    return torch.where(slowly, known.lerp(mean, _ALONE_RATE), mean)


def centre_over_others(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages minus, at every step, the mean of the other trials that reach it, [time, trial].

    A trial that is alone at a step keeps its advantage: it has the value network's estimate as its only baseline.

    Args:
        advantages: Advantages against the value network, zero in padding, [time, trial].
        mask: Ones for real steps, [time, trial].
    """
    others = mask.sum(1, keepdim=True) - 1
    return (advantages - (advantages.sum(1, keepdim=True) - advantages) / others.clamp(min=1)) * mask


def root_mean_square(values: Tensor, mask: Tensor) -> float:
    """Root mean square of the real steps; values are zero in padding."""
    return float((values.square().sum() / mask.sum()).sqrt())


def check_finite(experience: Trajectories) -> None:
    """Raise a FloatingPointError that names the first task with a reward or an observation that is not finite."""
    numbers = (experience.rewards, *observation_parts(experience.observations))
    finite = torch.stack([torch.isfinite(part).flatten(1).all(1) for part in numbers]).all(0)
    wrong = (~finite).nonzero()
    if len(wrong):
        index = int(wrong[0])
        raise FloatingPointError(f"experience of task {index}, {experience.tasks[index]}, is not finite")


def raise_not_finite(
    terms: Sequence[Tensor], chunk: TrialBatch, tasks: Sequence[Task], algorithm: str
) -> NoReturn:
    """Raise a FloatingPointError that names the first task with a loss that is not finite."""
    for name, term in zip(("policy loss", "value loss", "entropy"), terms, strict=True):
        values = term.detach().expand_as(chunk.advantages)
        bad = ~torch.isfinite(values) & chunk.trials.mask
        if bad.any():
            index = int(chunk.task_indices[bad][0])
            raise FloatingPointError(
                f"{algorithm}'s {name} is {float(values[bad][0])} on task {index} of the batch, {tasks[index]}; "
                "lower outer_lr"
            )
    raise FloatingPointError(f"{algorithm}'s loss is not finite; lower outer_lr")
