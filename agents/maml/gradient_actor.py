"""Acting with the meta-parameters or with each task's adapted ones, and the experience of a meta-iteration."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metarl.agent import Actions, Collector, Interface, Outcome, SavedActor
from metarl.agents.maml.adaptive_policy import AdaptationConfig, AdaptivePolicy, PolicyConfig
from metarl.agents.maml.batches import MetaBatch, PolicyBatch, credit_of, full_parts
from metarl.agents.maml.step import ParametersStep
from metarl.learning.bilevel import Params, adapt_params, expand
from metarl.nets.filling import check_settings, check_tensors, fill, tensor_groups
from metarl.nets.policies import CONTEXT
from metarl.runs import codec, parallel
from metarl.runs.seeding import TaskNoise, draw_seed
from metarl.tasks import Task
from metarl.trajectories import Observations, Trajectories


class GradientActor:
    """Acts with the meta-parameters, or with each task's adapted ones.

    Args:
        learner: The policy and its inner loop.
        params: Adapted parameters [task, ...]; None for the meta-parameters.
        sampling: True to sample actions, false to take the distribution's mode.
    """

    sequential = False
    reads_outcomes = False
    saved_as: ClassVar[str] = "gradient"

    def __init__(self, learner: AdaptivePolicy, params: Params | None, *, sampling: bool = True) -> None:
        self._learner = learner
        self._sampling = sampling
        self._params = params
        self._acting: Params = {}
        self._noise: TaskNoise | None = None

    @property
    def interface(self) -> Interface:
        """The spaces that the policy was made for."""
        return self._learner.interface

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's actions for environment actions [..., *shape]."""
        return self._learner.actions.from_env(env_actions)

    def select(self, tasks: slice) -> "GradientActor":
        """The actor of some of the tasks."""
        params = self._params
        if params is not None:
            params = {name: p[tasks] for name, p in params.items()}
        return GradientActor(self._learner, params, sampling=self._sampling)

    def deterministic(self) -> "GradientActor":
        """The same actor, which takes the distribution's mode; its episodes are no data to adapt from."""
        return GradientActor(self._learner, self._params, sampling=False)

    def __getstate__(self) -> dict[str, Any]:
        """What worker processes get: parameters on the CPU, so that none of them opens a CUDA context."""
        params = self._params
        if params is not None:
            params = {name: p.detach().cpu() for name, p in params.items()}
        return vars(self) | {"_params": params, "_learner": self._learner.on_cpu()}

    def saved(self) -> SavedActor:
        """The parameters of the one task that it has adapted to, or else the meta-parameters."""
        learner = self._learner
        params = expand(learner.start(learner.params()), 1) if self._params is None else self._params
        settings = {
            "agent": learner.agent,
            "policy": codec.encode(learner.policy_config, {}),
            "adaptation": codec.encode(learner.config, {}),
            "sampling": self._sampling,
        }
        groups = {"params": params, "inner_lrs": learner.inner_lrs}
        tensors = {f"{group}.{name}": p.detach() for group, part in groups.items() for name, p in part.items()}
        return SavedActor(settings, tensors)

    @classmethod
    def from_saved(cls, interface: Interface, contents: SavedActor) -> Self:
        """The actor of a file."""
        kinds = {"agent": str, "policy": dict, "adaptation": dict, "sampling": bool}
        settings = check_settings(contents.settings, kinds)
        learner = AdaptivePolicy(
            interface,
            codec.decode(PolicyConfig, settings["policy"], "policy", {}),
            codec.decode(AdaptationConfig, settings["adaptation"], "adaptation", {}),
            agent=settings["agent"],
            seed=0,
            device=torch.device("cpu"),
        )
        groups = tensor_groups(contents.tensors, ("params", "inner_lrs"))
        params = groups["params"]
        check_tensors(expand(learner.start(learner.params()), 1), params, "params")
        fill(learner.policy, {name: p[0] for name, p in params.items() if name != CONTEXT}, "params")
        check_tensors(learner.inner_lrs, groups["inner_lrs"], "inner_lrs")
        learner.inner_lrs = groups["inner_lrs"]
        return cls(learner, params, sampling=settings["sampling"])

    def policy_step(self) -> ParametersStep:
        """The step of the one task that it has adapted to, or else of the meta-parameters."""
        return ParametersStep(self._learner, self._params, sampling=self._sampling)

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start parallel episodes of all tasks."""
        learner = self._learner
        params = learner.start(learner.params()) if self._params is None else self._params
        self._acting = {name: p.detach().cpu() for name, p in params.items()}
        actions = learner.actions
        self._noise = TaskNoise(task_seeds, (num_parallel, *actions.shape), kind=actions.noise)

    def begin_episode(self) -> None:
        """Nothing is kept from step to step."""

    def observe(self, outcome: Outcome) -> None:
        """Nothing is learned while acting."""

    def act(self, observations: Observations) -> Actions:
        """Sample actions [task, parallel, ...]."""
        assert self._noise is not None, "begin comes before act"
        distribution = full_parts(self._learner.distribution(self._acting, observations))
        actions = distribution.sample(self._noise.next()) if self._sampling else distribution.mode()
        return Actions(self._learner.actions.to_env(actions), actions, distribution._asdict())

    def adapt(self, trajectories: Trajectories) -> "GradientActor":
        """One more inner step from these trajectories."""
        return self.adapt_to(self._learner.batch(trajectories, self._params))

    def adapt_to(self, batch: PolicyBatch) -> "GradientActor":
        """One more inner step from a batch; no graph is kept."""
        learner = self._learner
        theta = learner.params()
        start = expand(learner.start(theta), len(batch.mask)) if self._params is None else self._params
        trace = adapt_params(
            learner.inner_loss, start, [batch], learner.rule(theta), order="none", adapted=learner.adapted
        )
        return GradientActor(learner, trace[-1], sampling=self._sampling)


def collect_levels(
    learner: AdaptivePolicy,
    collector: Collector,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    *,
    num_levels: int | None = None,
) -> MetaBatch:
    """Episodes of the tasks before adaptation and after each inner step; of a process's share of them.

    Args:
        learner: Policy and inner loop.
        collector: Collector that runs the episodes.
        tasks: Tasks of the whole batch.
        rng: Generator that draws the seeds of the episodes.
        num_levels: Number of levels, the unadapted policy's among them; None for all that are trained through.
    """
    own = parallel.share(len(tasks))
    num_steps = learner.config.inner_steps if num_levels is None else num_levels - 1
    actor = GradientActor(learner, None)
    trajectories: list[Trajectories] = []
    batches: list[PolicyBatch] = []
    for step in range(num_steps + 1):
        seed, places = draw_seed(rng), range(len(tasks))[own]
        episodes = collector.collect(actor, tasks[own], learner.config.num_episodes, seed, places=places)
        trajectories.append(episodes)
        batches.append(learner.batch(episodes))
        if step < num_steps:
            actor = actor.adapt_to(batches[-1])
    if learner.config.exploration_coef:
        scaled = learner.config.advantage_normalisation != "none"  # as the advantages are
        credit = credit_of(trajectories[-1], scaled=scaled).to(learner.device)
        batches[-1] = batches[-1]._replace(credit=credit)
    return MetaBatch(trajectories, batches)
