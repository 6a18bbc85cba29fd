"""The reference strategies against the published tables of Duan et al. 2016."""

import numpy as np
import pytest

from metarl.agent import Actor
from metarl.envs import make_benchmark
from metarl.experiments.references import reference_actors
from metarl.workers import EnvMaker, Workers

BANDIT_NAMES = ("Random", "Gittins", "TS", "OTS", "UCB1", "epsilon-greedy", "Greedy")
MDP_NAMES = ("Random", "PSRL", "OPSRL", "UCRL2", "BEB", "epsilon-greedy", "Greedy")


def _collect(actor: Actor, name: str, num_tasks: int, num_episodes: int) -> np.ndarray:
    """Returns [task, episode] on fresh tasks."""
    benchmark = make_benchmark(name)
    tasks = benchmark.test.sample(num_tasks, np.random.default_rng(1))
    with Workers(EnvMaker(benchmark.family, None), num_threads=1) as workers:
        returns: np.ndarray = workers.collect(actor, tasks, num_episodes, seed=2).returns().double().numpy()
    return returns


def _assert_published(returns: np.ndarray, published: float) -> None:
    """Within 3 standard errors of the difference, the published mean being over 1000 tasks and rounded to 0.1."""
    error = returns.std() * (1 / len(returns) + 1 / 1000) ** 0.5
    assert abs(returns.mean() - published) < 3 * error + 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_pulls", "num_arms", "published"),
    [  # Duan et al. 2016, table 1
        (10, 5, (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6)),
        (10, 50, (5.1, 6.5, 5.2, 5.5, 6.6, 6.5, 6.5)),
        (100, 5, (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8)),
        (100, 10, (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1)),
    ],
)
def test_bandit_strategies_earn_what_was_published(
    num_pulls: int, num_arms: int, published: tuple[float, ...]
) -> None:
    benchmark = f"bernoulli-bandit-k{num_arms}"
    actors = reference_actors(make_benchmark(benchmark).family, num_pulls, [])
    for name, expected in zip(BANDIT_NAMES, published, strict=True):
        _assert_published(_collect(actors[name], benchmark, 1000, num_pulls).sum(1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", MDP_NAMES)
def test_mdp_strategies_earn_what_was_published(name: str) -> None:
    # Duan et al. 2016, table 2: after 10 and 25 episodes.
    table = {
        "Random": (100.1, 250.2),
        "PSRL": (138.1, 408.8),
        "OPSRL": (144.1, 425.2),
        "UCRL2": (146.6, 424.1),
        "BEB": (150.2, 427.8),
        "epsilon-greedy": (132.8, 377.3),
        "Greedy": (134.8, 368.8),
    }
    actor = reference_actors(make_benchmark("tabular-mdp").family, 25, [])[name]
    returns = _collect(actor, "tabular-mdp", 1000, 25)
    for episodes, published in zip((10, 25), table[name], strict=True):
        _assert_published(returns[:, :episodes].sum(1), published)
