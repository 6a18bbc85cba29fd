"""The actor of networks that learn of a task while they act through its trial."""

import copy
from operator import itemgetter
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Interface, Outcome, SavedActor
from metarl.agents.trials.network import TrialNetwork
from metarl.agents.trials.step import NetworkStep
from metarl.learning.trials import TrialSteps, as_steps
from metarl.nets.devices import on_cpu
from metarl.nets.filling import check_settings, fill, tensor_groups
from metarl.nets.memories import Carry
from metarl.runs import codec
from metarl.runs.seeding import TaskNoise
from metarl.trajectories import Observations, Trajectories, map_observations


class TrialActor:
    """Acts through trials; all that it learns of a task is in its carry.

    Args:
        policy: Network, on any device; acting is on the CPU.
        read: The network's carry, where trials go on from; None for trials that start.
        sampling: True to sample actions, false to take the distribution's mode.
    """

    sequential = True

    def __init__(self, policy: TrialNetwork, read: Carry | None = None, *, sampling: bool = True) -> None:
        self._policy = policy
        self._sampling = sampling
        self._read = read
        self._carry: Carry = ()
        self._observations: Observations = torch.empty(0)
        self._actions = torch.empty(0)
        self._alive = torch.empty(0)
        self._noise: TaskNoise | None = None

    @property
    def interface(self) -> Interface:
        """The spaces that the policy was made for."""
        return self._policy.interface

    @property
    def reads_outcomes(self) -> bool:
        """True where the network learns while it acts: every step reads the last action, reward and flags."""
        return self._policy.reads_outcomes

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's actions for environment actions [..., *shape]."""
        return self._policy.actions.from_env(env_actions)

    def select(self, tasks: slice) -> "TrialActor":
        """The actor of some of the tasks; itself where every trial starts in the same state."""
        if self._read is None:
            return self
        return TrialActor(self._policy, tuple(part[tasks] for part in self._read), sampling=self._sampling)

    def deterministic(self) -> "TrialActor":
        """The same actor, which takes the distribution's mode from the first episode of a trial on."""
        return TrialActor(self._policy, self._read, sampling=False)

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: the network on the CPU, so that none of them opens a CUDA context."""
        return vars(self) | {"_policy": on_cpu(self._policy)}

    @property
    def saved_as(self) -> str:
        """Name of the kind of network in files."""
        return self._policy.saved_as

    def saved(self) -> SavedActor:
        """The network, and what trials start from."""
        tensors = {f"policy.{name}": tensor for name, tensor in self._policy.state_dict().items()}
        tensors |= {f"carry.{place}": part for place, part in enumerate(self._read or ())}
        settings = {"policy": codec.encode(self._policy.config, {}), "sampling": self._sampling}
        return SavedActor(settings, tensors)

    @classmethod
    def from_saved(cls, interface: Interface, contents: SavedActor, *, network: type[TrialNetwork]) -> Self:
        """The actor of a file, with a network of this class."""
        settings = check_settings(contents.settings, {"policy": dict, "sampling": bool})
        policy = network.from_settings(interface, settings["policy"])
        parts = tensor_groups(contents.tensors, ("policy", "carry"))
        fill(policy, parts["policy"], "policy")
        read = policy.check_carry(parts["carry"]) if parts["carry"] else None
        return cls(policy, read, sampling=settings["sampling"])

    def policy_step(self) -> NetworkStep:
        """The step of one trial, from what was read before."""
        return NetworkStep(self._policy, self._read, sampling=self._sampling)

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start trials, one per task, or go on from what was read."""
        if num_parallel != 1:
            raise ValueError(f"a trial's episodes follow one another, got {num_parallel} in parallel")
        self._policy = policy = on_cpu(self._policy)
        self._start(len(task_seeds))
        self._noise = TaskNoise(task_seeds, policy.actions.shape, kind=policy.actions.noise)

    def begin_episode(self) -> None:
        """All tasks go on; the memory is kept."""
        self._alive = torch.ones(len(self._carry[-1]), dtype=torch.bool)

    def act(self, observations: Observations) -> Actions:
        """Sample actions [trial, 1, ...]."""
        assert self._noise is not None, "begin comes before act"
        policy = self._policy
        self._observations = map_observations(lambda part: part.squeeze(1), observations)
        decision, self._carry = policy.act(self._observations, self._carry, self._alive)
        distribution, noise = decision.distribution, self._noise.next(self._alive)
        self._actions = distribution.sample(noise) if self._sampling else distribution.mode()
        records = policy.records(decision, self._actions, self._carry)
        actions = self._actions.unsqueeze(1)
        recorded = {name: part.unsqueeze(1) for name, part in records.items()}
        return Actions(policy.actions.to_env(actions), actions, recorded)

    def observe(self, outcome: Outcome) -> None:
        """Keep what the next step reads of this one."""
        following = map_observations(lambda part: part.squeeze(1), outcome.observations)
        rewards, terminated, truncated, alive = (part.squeeze(1) for part in outcome[1:5])
        step = TrialSteps(self._observations, self._actions, rewards, terminated, truncated, following)
        self._carry = self._policy.read(step, self._carry, alive)
        self._alive = alive & ~(terminated | truncated)

    def adapt(self, trajectories: Trajectories) -> "TrialActor":
        """An actor whose trials have begun with these, one per task, and go on from there.

        While it acts, an actor adapts without this method, which is for recorded trials and for going on later.
        """
        actor = TrialActor(copy.deepcopy(self._policy).cpu(), self._read)
        policy, (steps, mask) = actor._policy, as_steps(trajectories)
        actor._start(len(trajectories.tasks))
        with torch.no_grad():
            for t, alive in enumerate(mask):
                step = steps.map(itemgetter(t))
                _, carry = policy.act(step.observations, actor._carry, alive)
                actor._carry = policy.read(step, carry, alive)
        return TrialActor(policy, actor._carry, sampling=self._sampling)

    def _start(self, num_tasks: int) -> None:
        """Start from what was read, or from nothing; a memory may write into its carry, so that it gets a copy."""
        if self._read is None:
            self._carry = self._policy.start(num_tasks)
        else:
            self._carry = tuple(part.clone() for part in self._read)
