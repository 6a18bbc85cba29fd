"""A gradient step of PEARL on transitions from replay: critics and encoder, then value, actor and temperature."""

from collections.abc import Sequence
from operator import itemgetter
from typing import ClassVar, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from metarl.agents.pearl.adam import DeviceAdam
from metarl.agents.pearl.draws import UpdateDraw
from metarl.agents.pearl.networks import ActingNetworks
from metarl.agents.pearl.soft_actor_critic import SoftActorCritic
from metarl.learning.replay import MultiTaskReplay, Transitions
from metarl.learning.reward_scale import RewardScale
from metarl.runs import parallel
from metarl.tasks import Task


class StepSettings(NamedTuple):
    """The settings of a gradient step; see `PearlConfig`.

    Attributes:
        gamma: Discount per environment step.
        reward_scale: Factor of the rewards that the critics learn from.
        kl_coef: Weight of the KL per task.
        regularisation: Weight of the squares of the policy's means and log standard deviations.
        target_rate: Fraction by which the target value moves towards the value.
        target_entropy: Entropy in nats that the temperature is adjusted to; None for a fixed temperature.
    """

    gamma: float
    reward_scale: float
    kl_coef: float
    regularisation: float
    target_rate: float
    target_entropy: float | None


class GradientStep:
    """Takes gradient steps of all networks; what it is called with may be drawn for part of the tasks.

    Args:
        settings: Weights of the losses.
        learner: Policy, critics and value.
        acting: Encoder, and the scales of what networks read.
        rewards: Scale of the rewards that the critics learn from.
        replay: Replay that draws point into.
        tasks: Training tasks in the order of their replays, for errors.
        lr: Adam step size of all networks.
    """

    METRICS: ClassVar = (
        *("loss/critic", "loss/kl", "loss/value", "loss/actor"),
        *("policy/entropy", "policy/temperature"),
    )

    def __init__(
        self,
        settings: StepSettings,
        learner: SoftActorCritic,
        acting: ActingNetworks,
        rewards: RewardScale,
        *,
        replay: MultiTaskReplay[Transitions],
        tasks: Sequence[Task],
        lr: float,
    ) -> None:
        self._settings, self._learner, self._acting, self._rewards = settings, learner, acting, rewards
        self._replay, self._tasks = replay, tasks
        self._device = next(learner.parameters()).device
        self._critic_leaves: list[nn.Parameter] = [*acting.encoder.parameters(), *learner.critics.parameters()]
        self._actor_leaves: list[nn.Parameter] = [*learner.policy.parameters(), *learner.value.parameters()]
        self._actor_leaves.append(learner.log_temperature)
        self.critic_optimizer = DeviceAdam(self._critic_leaves, lr, self._device)
        self.actor_optimizer = DeviceAdam(self._actor_leaves, lr, self._device)

    def set_rate(self, lr: float) -> None:
        """Set the step size of all networks."""
        for optimizer in (self.critic_optimizer, self.actor_optimizer):
            optimizer.set_rate(lr)

    def __call__(self, draw: UpdateDraw) -> Tensor:
        """Take one step and return the means of METRICS.

        Args:
            draw: Tasks, transitions and noise.

        Raises:
            FloatingPointError: On a CPU, if the critics' loss is not finite; names the task.
        """
        settings, learner = self._settings, self._learner
        batch, context = self._replay.gather(draw.places), self._replay.gather(draw.context_places)
        encoder = self._acting.encoder
        rows = self._acting.context_rows(
            context.observations, context.actions, context.context_rewards, context.next_observations
        )
        posterior = encoder.posterior(encoder.read(rows, encoder.start(len(rows))))
        latents, kl = posterior.sample(draw.latent_noise), posterior.kl().mean()
        repeated = latents.repeat_interleave(batch.rewards.shape[1], 0)
        encode = self._acting.observations
        flat = batch.map(lambda part: part.flatten(0, 1))
        flat = flat._replace(
            observations=encode(flat.observations),
            rewards=self._rewards(flat.rewards),
            next_observations=encode(flat.next_observations),
        )
        critic_loss = self._critic_loss(flat, repeated)
        if self._device.type == "cpu" and not bool(torch.isfinite(critic_loss + kl)):
            self._raise_not_finite(flat, repeated, draw)
        self.critic_optimizer.zero_grad()
        (critic_loss + settings.kl_coef * kl).backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(self._critic_leaves)
        self.critic_optimizer.step()
        losses = learner.actor_losses(
            flat.observations,
            repeated,
            draw.action_noise.flatten(0, 1),
            regularisation=settings.regularisation,
            target_entropy=settings.target_entropy,
        )
        self.actor_optimizer.zero_grad()
        (losses.actor + losses.value + losses.temperature).backward()  # type: ignore[no-untyped-call]
        parallel.average_gradients(self._actor_leaves)
        self.actor_optimizer.step()
        learner.follow(settings.target_rate)
        temperature = learner.log_temperature.exp()
        return torch.stack((critic_loss, kl, losses.value, losses.actor, -losses.log_prob, temperature)).detach()

    def _critic_loss(self, flat: Transitions, latents: Tensor) -> Tensor:
        settings = self._settings
        return self._learner.critic_loss(flat, latents, gamma=settings.gamma, reward_scale=settings.reward_scale)

    def _raise_not_finite(self, flat: Transitions, latents: Tensor, draw: UpdateDraw) -> NoReturn:
        """Raise a FloatingPointError that names the first task of the step whose loss is not finite."""
        num_rows = draw.places.shape[1]
        for index, place in enumerate(draw.places[:, 0].tolist()):
            rows = slice(index * num_rows, (index + 1) * num_rows)
            loss = self._critic_loss(flat.map(itemgetter(rows)), latents[rows])
            if not bool(torch.isfinite(loss)):
                task = place // self._replay.capacity
                raise FloatingPointError(
                    f"PEARL's critic loss is {float(loss.detach())} on training task {task}, {self._tasks[task]}; "
                    "lower outer_lr or reward_scale"
                )
        raise FloatingPointError("PEARL's loss is not finite; lower outer_lr, reward_scale or kl_coef")
