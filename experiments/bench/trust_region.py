"""MAML-TRPO's trust-region step beside the way its public codes compute it: task by task, with double backward."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from metarl.agent import Actor
from metarl.agents.maml import AdaptationConfig, MetaBatch, PolicyBatch, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig, TrustRegionStep
from metarl.experiments.bench.timing import (
    interleave,
    ratio,
    ratio_cells,
    relative_difference,
    seconds_per_call,
)
from metarl.experiments.console import show_table
from metarl.learning.bilevel import Params, flatten, unflatten
from metarl.nets.distributions import DiagonalGaussian
from metarl.runs.seeding import task_seeds, torch_generator
from metarl.tasks import Task, TaskEnv
from metarl.trajectories import Trajectories


@dataclass(frozen=True)
class TrustRegionSizes:
    """The policy, the experience and the fractions of the states that the Fisher matrix is estimated on."""

    num_tasks: int = 40
    num_episodes: int = 10
    horizon: int = 100
    obs_size: int = 20
    act_size: int = 6
    hidden_sizes: tuple[int, ...] = (100, 100)
    fractions: tuple[float, ...] = (0.2, 0.1)


class SyntheticEpisodes:
    """A collector that needs no simulator: random observations, and rewards for following each task's own matrix.

    Args:
        sizes: Sizes of the experience.
        seed: Seed of the tasks and the observations.
    """

    steps_collected = 0

    def __init__(self, sizes: TrustRegionSizes, seed: int) -> None:
        self._sizes = sizes
        self._generator = torch_generator(seed)
        shape = (sizes.num_tasks, sizes.obs_size, sizes.act_size)
        self._targets = torch.randn(shape, generator=self._generator) / math.sqrt(sizes.obs_size)

    def collect(
        self,
        actor: Actor,
        tasks: Sequence[Task],
        num_episodes: int,
        seed: int,
        *,
        places: Sequence[int] | None = None,
    ) -> Trajectories:
        """Generate episodes of all tasks with the actor's actions."""
        sizes = self._sizes
        shape = (len(tasks), num_episodes, sizes.horizon)
        observations = torch.randn(*shape, sizes.obs_size, generator=self._generator)
        actor.begin(task_seeds(seed, len(tasks)), num_episodes)
        with torch.no_grad():
            steps = [actor.act(observations[:, :, t]) for t in range(sizes.horizon)]
        actions = torch.stack([step.actions for step in steps], dim=2)
        wanted = torch.einsum("neto,noa->neta", observations, self._targets)
        ended = torch.zeros(shape, dtype=torch.bool)
        return Trajectories(
            tasks=tuple(tasks),
            observations=observations,
            actions=actions,
            rewards=-(actions - wanted).square().mean(-1),
            terminated=ended,
            truncated=ended,
            mask=~ended,
            last_observations=observations[:, :, -1],
            records={k: torch.stack([step.records[k] for step in steps], dim=2) for k in ("mean", "log_std")},
            infos={},
        )


def synthetic_experience(sizes: TrustRegionSizes, *, inner_steps: int = 1) -> tuple[MamlTrpo, MetaBatch]:
    """An agent, and the experience of one meta-iteration collected as the agent does it."""
    env = SimpleNamespace(
        single_observation_space=spaces.Box(-np.inf, np.inf, (sizes.obs_size,)),
        single_action_space=spaces.Box(-1.0, 1.0, (sizes.act_size,)),
    )
    config = MamlTrpoConfig(
        policy=PolicyConfig(hidden_sizes=sizes.hidden_sizes),
        adaptation=AdaptationConfig(inner_steps=inner_steps, num_episodes=sizes.num_episodes),
    )
    # The agent asks an environment for its spaces only.
    agent = MamlTrpo(cast(TaskEnv, env), config, seed=0, device=torch.device("cpu"))
    tasks = [Task.of("synthetic", number=float(i)) for i in range(sizes.num_tasks)]
    return agent, agent.collect(SyntheticEpisodes(sizes, seed=1), tasks, np.random.default_rng(2))


class LoopOverTasks:
    """MAML-TRPO's step as pytorch-maml-rl and its kin compute it; shares no code with ours but the flattening.

    Args:
        agent: Agent whose parameters and configuration are used; it is not changed.
        experience: Experience of one meta-iteration.
    """

    def __init__(self, agent: MamlTrpo, experience: MetaBatch) -> None:
        self._config = agent.config
        self._theta = agent.learner.params()
        num_tasks = len(experience.batches[0].mask)
        self._tasks = [[batch.select(i) for batch in experience.batches] for i in range(num_tasks)]

    def trust_region_step(self) -> Tensor:
        """The parameters after the step, a flat vector; nothing is changed."""
        config, leaves = self._config, list(self._theta.values())
        loss, kl = self._surrogate(self._theta, create_graph=True)
        gradient = flatten(torch.autograd.grad(loss, leaves, retain_graph=True))
        kl_gradient = flatten(torch.autograd.grad(kl, leaves, create_graph=True))

        def product(vector: Tensor) -> Tensor:
            image = torch.autograd.grad(kl_gradient.dot(vector), leaves, retain_graph=True)
            return flatten(image) + config.cg_damping * vector

        direction = torch.zeros_like(gradient)
        residual, search = gradient.clone(), gradient.clone()
        squared = residual.dot(residual)
        for _ in range(config.cg_iters):
            image = product(search)
            length = squared / search.dot(image)
            direction += length * search
            residual -= length * image
            following = residual.dot(residual)
            if following < 1e-10:
                break
            search = residual + following / squared * search
            squared = following
        full_step = torch.sqrt(2 * config.max_kl / direction.dot(product(direction))) * direction
        start = flatten(self._theta).detach()
        for power in range(config.max_backtracks):
            params = start - config.backtrack_ratio**power * full_step
            leaf_params = {k: p.requires_grad_() for k, p in unflatten(params, self._theta).items()}
            new_loss, new_kl = self._surrogate(leaf_params, create_graph=False)
            if new_loss < loss and new_kl <= config.max_kl:
                return params.detach()
        return start

    def _surrogate(self, theta: Params, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        """Loss and KL of the adapted policies, means over the tasks."""
        losses, kls = [], []
        for *inner, outer in self._tasks:
            params = theta
            for batch in inner:
                loss = self._loss(self._policy(params, batch), batch)
                grads = torch.autograd.grad(loss, list(params.values()), create_graph=create_graph)
                lr = self._config.adaptation.inner_lr
                params = {k: p - lr * g for (k, p), g in zip(params.items(), grads, strict=True)}
            with torch.set_grad_enabled(create_graph):
                policy = self._policy(params, outer)
                assert isinstance(outer.old, DiagonalGaussian)
                old = Independent(Normal(outer.old.mean, outer.old.log_std.exp()), 1)
                losses.append(self._loss(policy, outer))
                kls.append((kl_divergence(old, policy) * outer.mask).sum() / outer.mask.sum())
        return torch.stack(losses).mean(), torch.stack(kls).mean()

    def _policy(self, params: Params, batch: PolicyBatch) -> Independent[Normal]:
        hidden = batch.observations
        layers = len(self._config.policy.hidden_sizes)
        for layer in range(layers + 1):
            weight, bias = params[f"mean.weight_{layer}"], params[f"mean.bias_{layer}"]
            hidden = torch.addmm(bias, hidden, weight)
            hidden = torch.tanh(hidden) if layer < layers else hidden
        std = params["log_std"].clamp(min=math.log(self._config.policy.min_std)).exp()
        return Independent(Normal(hidden, std), 1)

    @staticmethod
    def _loss(policy: Independent[Normal], batch: PolicyBatch) -> Tensor:
        ratios = torch.exp(policy.log_prob(batch.actions) - batch.old_log_probs)  # type: ignore[no-untyped-call]
        return -(ratios * batch.advantages * batch.mask).sum() / batch.mask.sum()


def measure_trust_region(
    sizes: TrustRegionSizes, repeats: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Seconds per trust-region step, how often ours is as fast as the loop, and what the steps achieve.

    Raises:
        RuntimeError: If our step from all states is more than 1e-4 away from the loop's, relative to its length.
    """
    agent, experience = synthetic_experience(sizes)
    full, start = agent.config, flatten(agent.learner.params()).detach()
    configs = {"metarl": full}
    configs |= {f"metarl_{fraction:g}": replace(full, fisher_fraction=fraction) for fraction in sizes.fractions}
    loop = LoopOverTasks(agent, experience)
    reference = loop.trust_region_step() - start

    def step(config: MamlTrpoConfig) -> TrustRegionStep:
        agent.config = config
        return agent.trust_region_step(experience)

    steps: dict[str, dict[str, float]] = {}
    for name, config in configs.items():
        taken = step(config)
        steps[name] = {
            "fisher_fraction": config.fisher_fraction,
            "kl": taken.search.kl,
            "surrogate_gain": taken.loss_before - taken.search.loss,
            "relative_difference": relative_difference(taken.params - start, reference),
        }
    if not steps["metarl"]["relative_difference"] < 1e-4:
        raise RuntimeError(f"our step differs from the loop's by {steps['metarl']['relative_difference']:.2g}")
    contenders: dict[str, Callable[[], float]] = {"loop": lambda: seconds_per_call(loop.trust_region_step)}
    for name, config in configs.items():
        contenders[name] = partial(seconds_per_call, partial(step, config))
    times = interleave(contenders, repeats, progress)
    return {
        "seconds": {name: median(values) for name, values in times.items()},
        "times_as_fast_as_loop": {name: ratio(times["loop"], times[name]) for name in configs},
        "steps": steps,
    }


def show_trust_region(sizes: TrustRegionSizes, measured: dict[str, Any]) -> None:
    """Print a measurement of trust-region steps as a table."""
    lines = [["loop, KL differentiated twice", f"{measured['seconds']['loop']:.2f}", *[""] * 5]]
    for name, step in measured["steps"].items():
        label = f"metarl, Fisher matrix on {step['fisher_fraction']:.0%} of the states"
        faster = ratio_cells(measured["times_as_fast_as_loop"][name])
        gains = [f"{step[what]:.5f}" for what in ("kl", "surrogate_gain")]
        difference = f"{step['relative_difference']:.0e}"
        lines.append([label, f"{measured['seconds'][name]:.2f}", *faster, *gains, difference])
    states = sizes.num_episodes * sizes.horizon
    title = f"MAML-TRPO step, {sizes.num_tasks} tasks x {states} states, policy {sizes.hidden_sizes}"
    columns = ["contender", "s", "times as fast", "lowest, highest", "KL", "surrogate gain", "relative difference"]
    show_table(title, columns, lines)
