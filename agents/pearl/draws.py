"""The random numbers of PEARL's updates: which transitions are read, and the noise of latents and actions."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.learning.replay import MultiTaskReplay, Transitions


class UpdateDraw(NamedTuple):
    """The random numbers of one update.

    Attributes:
        places: Places of transitions in the replay, [task, row].
        context_places: Places of the contexts' transitions in the replay, [task, row].
        latent_noise: Standard normal noise of the latents, [task, latent].
        action_noise: Standard normal noise of the actions, [task, row, act].
    """

    places: Tensor
    context_places: Tensor
    latent_noise: Tensor
    action_noise: Tensor

    def select(self, tasks: slice) -> "UpdateDraw":
        """The random numbers of some of the tasks."""
        return UpdateDraw(*(part[tasks] for part in self))


@dataclass(frozen=True)
class UpdateSizes:
    """Sizes of the draws of an update.

    Attributes:
        num_tasks: Number of tasks; each is drawn once before any is drawn again.
        batch_size: Transitions per task for the critics and the actor.
        context_size: Transitions per task for the encoder.
        latent_size: Number of dimensions of the latent.
        act_size: Number of action dimensions.
        ordered: Whether the encoder reads consecutive transitions.
        shortest: Least number of steps of the window that contexts are drawn from; None for all of the context.
    """

    num_tasks: int
    batch_size: int
    context_size: int
    latent_size: int
    act_size: int
    ordered: bool
    shortest: int | None

    def draw(self, replay: MultiTaskReplay[Transitions], generator: torch.Generator) -> UpdateDraw:
        """Tasks, transitions and noise of one update, on the replay's device."""
        device, num_stored = replay.device, replay.num_tasks
        orders = [
            torch.randperm(num_stored, generator=generator, device=device)
            for _ in range(-(-self.num_tasks // num_stored))
        ]
        tasks = torch.cat(orders)[: self.num_tasks]

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        return UpdateDraw(
            places=replay.draw(tasks, self.batch_size, generator),
            context_places=replay.draw_context(
                tasks, self.context_size, generator, ordered=self.ordered, shortest=self.shortest
            ),
            latent_noise=normal(self.num_tasks, self.latent_size),
            action_noise=normal(self.num_tasks, self.batch_size, self.act_size),
        )
