"""Reward scale: what every algorithm reaches on a small task when all rewards are multiplied by a constant.

A point in the plane looks for its goal, to the left or to the right. Scaling the rewards changes neither the tasks
nor the best policy, so that an algorithm which learns at one scale and not at another depends on units that nobody
should have to choose. PEARL is measured twice: with rewards as they are, as published, and in units of their
running scale. Returns are reported in the units of the unscaled reward, beside what a blind agent and the best can
reach. The goals are those of training: this measures learning, and no generalisation.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from metarl.agent import Agent
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.envs import make_benchmark
from metarl.envs.toy.point import PointEnv
from metarl.evaluation import adaptation_curve
from metarl.experiments.bench.timing import machine
from metarl.experiments.console import say, show_table
from metarl.tasks import Task, TaskEnv, Transition
from metarl.workers import EnvMaker, Workers

GOALS = [Task.of("point", goal=(x, 0.0)) for x in (-0.5, 0.5)]
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RewardScaleSizes:
    """Lengths of the runs.

    Attributes:
        factors: Factors of the rewards.
        horizon: Steps per episode.
        copies: Copies of each goal in a batch of ProMP and MAML-TRPO; twice as many in one of RL2.
        rl2: Updates of RL2.
        promp: Updates of ProMP.
        maml_trpo: Updates of MAML-TRPO.
        pearl: Updates of PEARL.
        pearl_steps: Gradient steps in an update of PEARL.
    """

    factors: tuple[float, ...] = (0.001, 0.01, 1.0, 100.0, 10_000.0)
    horizon: int = 15
    copies: int = 10
    rl2: int = 60
    promp: int = 60
    maml_trpo: int = 40
    pearl: int = 12
    pearl_steps: int = 200


class ScaledMaker:
    """Makes point environments that pay a multiple of the reward."""

    def __init__(self, horizon: int, factor: float) -> None:
        self._make, self._factor = EnvMaker(make_benchmark("point").family, horizon), factor

    def __call__(self, num_envs: int, num_threads: int) -> TaskEnv:
        """A vector environment of so many points."""
        env = self._make(num_envs, num_threads)
        advance = env.advance

        def scaled(actions: np.ndarray, rows: np.ndarray | None = None) -> Transition:
            transition = advance(actions, rows)
            return transition._replace(rewards=transition.rewards * self._factor)

        env.advance = scaled  # type: ignore[method-assign]
        return env


@dataclass(frozen=True)
class Contender:
    """An algorithm as it is measured.

    Attributes:
        make: Makes the agent of an environment and a seed.
        iterations: Number of updates.
        copies: Copies of each goal in a batch.
    """

    make: Callable[[TaskEnv, int], Agent[Any]]
    iterations: int
    copies: int


def contenders(sizes: RewardScaleSizes) -> dict[str, Contender]:
    """All algorithms by name."""
    adaptation = AdaptationConfig(inner_lr=0.1, num_episodes=10)
    policy = PolicyConfig(hidden_sizes=(32, 32), output_scale=1.0)
    promp = PrompConfig(policy=policy, adaptation=adaptation, outer_lr=1e-3)
    maml_trpo = MamlTrpoConfig(policy=policy, adaptation=adaptation)
    rl2 = Rl2Config(policy=TrialPolicyConfig(memory_size=32), outer_lr=3e-3)
    pearl = PearlConfig(
        context=ContextConfig(latent_size=2, hidden_sizes=(32, 32)),
        hidden_sizes=(64, 64),
        num_initial_episodes=10,
        num_prior_episodes=5,
        num_extra_episodes=5,
        num_updates=sizes.pearl_steps,
        update_tasks=len(GOALS),
        batch_size=64,
        context_size=32,
        gamma=0.9,
        reward_scale=5.0,
        kl_coef=0.1,
        outer_lr=3e-3,
        target_rate=0.05,
        exploration_episodes=1,
    )

    def make_rl2(env: TaskEnv, seed: int) -> Agent[Any]:
        return Rl2(env, rl2, iterations=sizes.rl2, seed=seed, device=_CPU)

    def make_promp(env: TaskEnv, seed: int) -> Agent[Any]:
        return Promp(env, promp, iterations=sizes.promp, seed=seed, device=_CPU)

    def make_maml_trpo(env: TaskEnv, seed: int) -> Agent[Any]:
        return MamlTrpo(env, maml_trpo, seed=seed, device=_CPU)

    def make_pearl(env: TaskEnv, seed: int, *, config: PearlConfig) -> Agent[Any]:
        return Pearl(env, config, GOALS, iterations=sizes.pearl, seed=seed, device=_CPU)

    normalised = replace(pearl, normalise_rewards=True)
    return {
        "rl2": Contender(make_rl2, sizes.rl2, 2 * sizes.copies),
        "promp": Contender(make_promp, sizes.promp, sizes.copies),
        "maml-trpo": Contender(make_maml_trpo, sizes.maml_trpo, sizes.copies),
        "pearl": Contender(partial(make_pearl, config=pearl), sizes.pearl, 1),
        "pearl, normalise_rewards": Contender(partial(make_pearl, config=normalised), sizes.pearl, 1),
    }


def bench(repeats: int, sizes: RewardScaleSizes | None = None) -> dict[str, Any]:
    """Train every algorithm at every scale with some seeds, show a table and return the same as JSON types."""
    sizes = sizes or RewardScaleSizes()
    blind = -0.5 * sizes.horizon
    best = -sum(max(0.0, 0.5 - PointEnv.STEP * (step + 1)) for step in range(sizes.horizon))
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, contender in contenders(sizes).items():
        results[name] = {}
        for factor in sizes.factors:
            runs = [measure(contender, sizes.horizon, factor, seed) for seed in range(repeats)]
            results[name][f"{factor:g}"] = runs
            say(f"{name}, rewards x {factor:g}: {_cell(runs)} ({sum(run['seconds'] for run in runs):.0f} s)")
    rows = [[name, *(_cell(runs) for runs in by_factor.values())] for name, by_factor in results.items()]
    title = f"return after adaptation, in unscaled units; blind {blind:.2f}, best {best:.2f}"
    show_table(title, ["rewards", *(f"x {factor:,g}" for factor in sizes.factors)], rows)
    return {
        "bench": "reward-scale",
        "repeats": repeats,
        "machine": machine(),
        "sizes": asdict(sizes),
        "blind": blind,
        "best": best,
        "runs": results,
    }


def _cell(runs: list[dict[str, Any]]) -> str:
    returns = [run["return_after"] for run in runs]
    return "not finite" if None in returns else f"{np.mean(returns):.2f}"


def measure(contender: Contender, horizon: int, factor: float, seed: int) -> dict[str, Any]:
    """Returns of the first and of the second episode or step of a trained agent; None if training failed."""
    maker, rng, start = ScaledMaker(horizon, factor), np.random.default_rng(seed), time.perf_counter()
    agent = contender.make(maker(1, 1), seed)
    result: dict[str, Any] = {"seed": seed, "return_before": None, "return_after": None}
    with Workers(maker, num_threads=1) as workers:
        try:
            for _ in range(contender.iterations):
                agent.update(agent.collect(workers, GOALS * contender.copies, rng))
            curve = adaptation_curve(agent.actor(), workers, GOALS, rng, num_steps=1, num_episodes=20)
            before, after = (float(step.mean() / factor) for step in curve.returns)
            result |= {"return_before": before, "return_after": after}
        except FloatingPointError as error:
            result["error"] = str(error)
    return result | {"seconds": round(time.perf_counter() - start, 1)}
