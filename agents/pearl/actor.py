"""Acting with a latent task variable, drawn from the prior, later from the posterior of the trial so far."""

import copy
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Interface, Outcome, SavedActor
from metarl.agents.pearl.networks import ActingConfig, ActingNetworks, make_acting_networks
from metarl.agents.pearl.step import LATENT_STREAM, LatentStep
from metarl.learning.trials import as_trials
from metarl.nets.devices import on_cpu
from metarl.nets.filling import check_parts, check_settings, fill, tensor_groups
from metarl.nets.memories import Carry
from metarl.runs import codec
from metarl.runs.seeding import TaskNoise
from metarl.trajectories import Observations, Trajectories, map_observations


class LatentActor:
    """Runs trials: a latent is drawn for every episode, from the prior or from the posterior.

    Args:
        networks: Networks on any device; acting is on the CPU.
        num_prior: Episodes at the start of a trial whose latent is drawn from the prior.
        num_context: Episodes whose transitions are read; later ones use the posterior and add nothing. None for
            all.
        deterministic: Whether to take the policy's mode; latents are drawn in any case.
        read: Carry of the contexts that were read before, with which trials start; None for an empty context.
    """

    sequential = True
    reads_outcomes = False
    saved_as: ClassVar[str] = "pearl"

    def __init__(
        self,
        networks: ActingNetworks,
        *,
        num_prior: int,
        num_context: int | None,
        deterministic: bool,
        read: Carry | None = None,
    ) -> None:
        self._networks = networks
        self._read = read
        self.num_context = num_context
        self._num_prior, self._deterministic = num_prior, deterministic
        self._episode = 0
        self._carry: Carry = ()
        self._latents = self._actions = torch.empty(0)
        self._observations: Observations = torch.empty(0)
        self._alive = torch.empty(0)
        self._action_noise: TaskNoise | None = None
        self._latent_noise: TaskNoise | None = None

    @property
    def interface(self) -> Interface:
        """The observation and action spaces of the policy."""
        return self._networks.interface

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's actions for environment actions [..., *shape]."""
        return self._networks.actions.from_env(env_actions)

    def deterministic(self) -> "LatentActor":
        """The same actor, which takes the policy's mode; latents are drawn all the same."""
        return LatentActor(
            self._networks,
            num_prior=self._num_prior,
            num_context=self.num_context,
            deterministic=True,
            read=self._read,
        )

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: networks on the CPU, so that none of them opens a CUDA context."""
        read = None if self._read is None else tuple(part.cpu() for part in self._read)
        return vars(self) | {"_networks": on_cpu(self._networks), "_read": read}

    def select(self, tasks: slice) -> "LatentActor":
        """The actor of some of the tasks; itself where every trial starts in the same state."""
        if self._read is None:
            return self
        return self._that_read(self._networks, tuple(part[tasks] for part in self._read))

    def saved(self) -> SavedActor:
        """The networks, and the context that trials start from."""
        networks = self._networks
        tensors = {f"networks.{name}": tensor for name, tensor in networks.state_dict().items()}
        tensors |= {f"read.{place}": part for place, part in enumerate(self._read or ())}
        settings = {
            "networks": codec.encode(networks.config, {}),
            "num_prior": self._num_prior,
            "num_context": -1 if self.num_context is None else self.num_context,
            "deterministic": self._deterministic,
        }
        return SavedActor(settings, tensors)

    @classmethod
    def from_saved(cls, interface: Interface, contents: SavedActor) -> Self:
        """The actor of a file."""
        kinds = {"networks": dict, "num_prior": int, "num_context": int, "deterministic": bool}
        settings = check_settings(contents.settings, kinds)
        config = codec.decode(ActingConfig, settings["networks"], "networks", {})
        networks = make_acting_networks(interface, config, generator=torch.Generator())
        parts = tensor_groups(contents.tensors, ("networks", "read"))
        fill(networks, parts["networks"], "networks")
        read = check_parts(networks.encoder.start(1), parts["read"], "read") if parts["read"] else None
        num_context = settings["num_context"]
        return cls(
            networks,
            num_prior=settings["num_prior"],
            num_context=None if num_context < 0 else num_context,
            deterministic=settings["deterministic"],
            read=read,
        )

    def policy_step(self) -> LatentStep:
        """The step of one task, from the context that was read before."""
        return LatentStep(
            self._networks,
            self._read,
            num_prior=self._num_prior,
            num_context=self.num_context,
            sampling=not self._deterministic,
        )

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start trials, one per task, with the contexts read so far."""
        if num_parallel != 1:
            raise ValueError(f"a trial's episodes follow one another, got {num_parallel} in parallel")
        self._networks = on_cpu(self._networks)
        policy = self._networks.policy
        self._episode = 0
        self._carry = self._networks.encoder.start(len(task_seeds)) if self._read is None else self._read
        self._action_noise = TaskNoise(task_seeds, (policy.act_size,))
        self._latent_noise = TaskNoise(task_seeds ^ np.uint64(LATENT_STREAM), (policy.latent_size,))

    def begin_episode(self) -> None:
        """Draw every task's latent for this episode."""
        assert self._latent_noise is not None, "begin comes before begin_episode"
        noise = self._latent_noise.next()
        if self._episode < self._num_prior:
            self._latents = noise
        else:
            self._latents = self._networks.encoder.posterior(self._carry).sample(noise)
        self._episode += 1
        self._alive = torch.ones(len(noise), dtype=torch.bool)

    def act(self, observations: Observations) -> Actions:
        """Actions [task, 1, act]."""
        assert self._action_noise is not None, "begin comes before act"
        self._observations = map_observations(lambda part: part.squeeze(1), observations)
        features = self._networks.observations(self._observations)
        distribution = self._networks.policy.distribution(features, self._latents)
        if self._deterministic:
            self._actions = distribution.mode()
        else:
            self._actions = distribution.sample(self._action_noise.next(self._alive))
        actions = self._actions.unsqueeze(1)
        return Actions(self._networks.actions.to_env(actions), actions, {})

    def observe(self, outcome: Outcome) -> None:
        """Read the transition, in the tasks whose episode was running."""
        self._alive = (outcome.alive & ~(outcome.terminated | outcome.truncated)).squeeze(1)
        if self.num_context is not None and self._episode > self.num_context:
            return
        following = map_observations(lambda part: part.squeeze(1), outcome.observations)
        rewards, alive = outcome.rewards.squeeze(1), outcome.alive
        rows = self._networks.context_rows(self._observations, self._actions, rewards, following)
        carry = self._networks.encoder.read(rows.unsqueeze(1), self._carry)
        self._carry = tuple(torch.where(alive, new, old) for new, old in zip(carry, self._carry, strict=True))

    def adapt(self, trajectories: Trajectories) -> "LatentActor":
        """An actor that has read these trials' transitions, one trial per task, and uses the posterior at once.

        While it acts an actor adapts without being told to; this is for trials that something else recorded, and
        for going on later.
        """
        networks = copy.deepcopy(self._networks).cpu()
        rows = networks.context_rows(
            trajectories.observations, trajectories.actions, trajectories.rewards, trajectories.next_observations()
        )
        trials = as_trials(replace(trajectories, observations=rows))  # joined as observations are
        carry = networks.encoder.start(len(trajectories.tasks)) if self._read is None else self._read
        with torch.no_grad():
            for row, alive in zip(trials.observations, trials.mask, strict=True):
                after = networks.encoder.read(row.unsqueeze(1), carry)
                running = alive.unsqueeze(1)
                carry = tuple(torch.where(running, new, old) for new, old in zip(after, carry, strict=True))
        return self._that_read(networks, carry)

    def _that_read(self, networks: ActingNetworks, carry: Carry) -> "LatentActor":
        """The same actor with a carry; it uses the posterior from its first episode on."""
        return LatentActor(networks, num_prior=0, num_context=None, deterministic=self._deterministic, read=carry)
