"""Reward scale: what every algorithm reaches on a small task when all rewards are multiplied by a constant.

A point in the plane looks for one of four goals. Scaling the rewards changes neither the tasks nor the best
policy, so that an algorithm which learns at one scale and not at another depends on units that nobody should have
to choose. Returns are reported in the units of the unscaled reward, beside what a blind agent and the best can
reach.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
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
from metarl.evaluation import adaptation_curve
from metarl.experiments.bench.timing import machine
from metarl.experiments.console import say, show_table
from metarl.tasks import Task, TaskEnv, Transition
from metarl.workers import EnvMaker, Workers

GOALS = [Task.of("point", goal=goal) for goal in ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))]
FACTORS = (0.001, 0.01, 1.0, 100.0, 10_000.0)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class RewardScaleSizes:
    """Lengths of the runs.

    Attributes:
        horizon: Steps per episode.
        rl2: Updates of RL2, on 40 trials each.
        promp: Updates of ProMP, on 20 tasks each.
        maml_trpo: Updates of MAML-TRPO, on 20 tasks each.
        pearl: Updates of PEARL, of 100 gradient steps each.
    """

    horizon: int = 15
    rl2: int = 80
    promp: int = 60
    maml_trpo: int = 40
    pearl: int = 15


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


def _rl2(env: TaskEnv, iterations: int, seed: int) -> Agent[Any]:
    config = Rl2Config(policy=TrialPolicyConfig(memory_size=32), outer_lr=3e-3)
    return Rl2(env, config, iterations=iterations, seed=seed, device=_CPU)


def _promp(env: TaskEnv, iterations: int, seed: int) -> Agent[Any]:
    adaptation = AdaptationConfig(inner_lr=0.1, num_episodes=10)
    policy = PolicyConfig(hidden_sizes=(32, 32), output_scale=1.0)
    return Promp(env, PrompConfig(policy=policy, adaptation=adaptation, outer_lr=1e-3), seed=seed, device=_CPU)


def _maml_trpo(env: TaskEnv, iterations: int, seed: int) -> Agent[Any]:
    adaptation = AdaptationConfig(inner_lr=0.1, num_episodes=10)
    policy = PolicyConfig(hidden_sizes=(32, 32), output_scale=1.0)
    return MamlTrpo(env, MamlTrpoConfig(policy=policy, adaptation=adaptation), seed=seed, device=_CPU)


def _pearl(env: TaskEnv, iterations: int, seed: int) -> Agent[Any]:
    config = PearlConfig(
        context=ContextConfig(latent_size=2, hidden_sizes=(32, 32)),
        hidden_sizes=(64, 64),
        num_initial_episodes=10,
        num_prior_episodes=5,
        num_extra_episodes=5,
        num_updates=100,
        update_tasks=4,
        batch_size=64,
        context_size=32,
        gamma=0.9,
        reward_scale=5.0,
        kl_coef=0.1,
        outer_lr=3e-3,
        target_rate=0.05,
        exploration_episodes=1,
    )
    return Pearl(env, config, GOALS, iterations=iterations, seed=seed, device=_CPU)


_MAKERS: dict[str, tuple[Callable[[TaskEnv, int, int], Agent[Any]], int]] = {
    "rl2": (_rl2, 10),
    "promp": (_promp, 5),
    "maml-trpo": (_maml_trpo, 5),
    "pearl": (_pearl, 1),
}


def bench(repeats: int, sizes: RewardScaleSizes | None = None) -> dict[str, Any]:
    """Train every algorithm at every scale with some seeds, show a table and return the same as JSON types."""
    sizes = sizes or RewardScaleSizes()
    lengths = {"rl2": sizes.rl2, "promp": sizes.promp, "maml-trpo": sizes.maml_trpo, "pearl": sizes.pearl}
    blind = -0.5 * sizes.horizon
    best = -sum(max(0.0, 0.5 - 0.1 * (step + 1)) for step in range(sizes.horizon))
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name in _MAKERS:
        results[name] = {}
        for factor in FACTORS:
            run = partial(_run, name, lengths[name], sizes.horizon, factor)
            results[name][f"{factor:g}"] = [run(seed) for seed in range(repeats)]
            say(f"{name}, rewards x {factor:g}: {results[name][f'{factor:g}']}")
    rows = [[name, *(_cell(runs) for runs in by_factor.values())] for name, by_factor in results.items()]
    title = f"return after adaptation, in unscaled units; blind {blind:.2f}, best {best:.2f}"
    show_table(title, ["algorithm", *(f"rewards x {factor:g}" for factor in FACTORS)], rows)
    return {
        "bench": "reward-scale",
        "repeats": repeats,
        "machine": machine(),
        "blind": blind,
        "best": best,
        "runs": results,
    }


def _cell(runs: list[dict[str, Any]]) -> str:
    returns = [run["return_after"] for run in runs]
    return "not finite" if None in returns else f"{np.mean(returns):.2f}"


def _run(algorithm: str, iterations: int, horizon: int, factor: float, seed: int) -> dict[str, Any]:
    """Returns of the first and of the second episode or step of a trained agent; None if training failed."""
    make, copies = _MAKERS[algorithm]
    maker, rng, start = ScaledMaker(horizon, factor), np.random.default_rng(seed), time.perf_counter()
    agent = make(maker(1, 1), iterations, seed)
    with Workers(maker, num_threads=1) as workers:
        try:
            for _ in range(iterations):
                agent.update(agent.collect(workers, GOALS * copies, rng))
        except FloatingPointError as error:
            return {"seed": seed, "return_before": None, "return_after": None, "error": str(error)}
        curve = adaptation_curve(agent.actor(), workers, GOALS, rng, num_steps=1, num_episodes=20)
    before, after = (float(step.mean() / factor) for step in curve.returns)
    seconds = time.perf_counter() - start
    return {"seed": seed, "return_before": before, "return_after": after, "seconds": round(seconds, 1)}
