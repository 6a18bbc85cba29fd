"""The strategies that learned ones are compared with, by benchmark.

Those of bandits and MDPs are as published for RL2 (Duan et al. 2016, arXiv:1611.02779). Their constants were tuned
for each setting, and the paper does not state them. The constants below were chosen to match the published tables,
with one choice for all settings wherever one is enough; 117 of 126 cells then agree within their noise.
"""

from collections.abc import Sequence

import numpy as np

from metarl.agent import Actor
from metarl.agents.strategies import bandits, mdps
from metarl.agents.strategies.grid import SearchThenGo
from metarl.agents.strategies.point import GoToGoal
from metarl.envs.toy.bandits import BernoulliBandit, GaussianBandit
from metarl.envs.toy.gridnavi import GOALS, SIZE, GridNavi
from metarl.envs.toy.point import PointEnv, PointFamily
from metarl.envs.toy.tabular import NUM_ACTIONS, NUM_STATES, TabularMdp
from metarl.tasks import Task, TaskFamily

GAUSSIAN_PRIOR_COUNT = 12.0  # a uniform prior in [0, 1] has variance 1/12, the noise variance 1


def reference_actors(family: TaskFamily, num_episodes: int, tasks: Sequence[Task]) -> dict[str, Actor]:
    """The reference strategies for a task family, by name and in the order of the published tables.

    Args:
        family: Family of the tasks; the result is empty for families without references.
        num_episodes: Number of episodes in a trial.
        tasks: Tasks of the trials, one each, for strategies that know their task.

    Returns:
        Strategies by name, in the order of the published tables.
    """
    if isinstance(family, BernoulliBandit):
        return _bernoulli(family.num_arms, num_episodes)
    if isinstance(family, GaussianBandit):
        return _gaussian(family.num_arms)
    if isinstance(family, TabularMdp):
        return _mdp(family.horizon)
    if isinstance(family, GridNavi):
        return {"SearchThenGo": SearchThenGo(SIZE, GOALS, family.horizon)}
    if isinstance(family, PointFamily):
        goals = np.array([dict(task.params)["goal"] for task in tasks])
        return {"told the goal": GoToGoal(goals, PointEnv.STEP)}
    return {}


def _bernoulli(num_arms: int, num_pulls: int) -> dict[str, Actor]:
    # Best of 0.01, 0.02, 0.05 and 0.1, or within noise of it: exploring pays in long trials only.
    epsilon = 0.01 if num_pulls <= 50 else 0.02 if num_pulls <= 200 else 0.05
    return {
        "Random": bandits.Random(num_arms),
        "Gittins": bandits.Gittins(num_arms, num_pulls, gamma=max(0.5, 1 - 2 / num_pulls)),
        "TS": bandits.Thompson(num_arms),
        "OTS": bandits.LikeliestThompson(num_arms, num_samples=20),
        # Best of 0.1, 0.2, ... 0.5, or within noise of it, with 100 and 500 pulls; within 2% of the best with 10.
        "UCB1": bandits.Ucb1(num_arms, bonus=0.2),
        "epsilon-greedy": bandits.EpsilonGreedy(num_arms, epsilon),
        "Greedy": bandits.Greedy(num_arms),
    }


def _gaussian(num_arms: int) -> dict[str, Actor]:
    prior = GAUSSIAN_PRIOR_COUNT
    return {
        "Random": bandits.Random(num_arms),
        "TS": bandits.NormalThompson(num_arms, prior_count=prior),
        # Best of 0.1, 0.2, ... 0.7, or within noise of it, with 100 and 500 pulls of 5 and 10 arms.
        "UCB1": bandits.Ucb1(num_arms, bonus=0.4, prior_count=prior),
        "Greedy": bandits.Greedy(num_arms, prior_count=prior),
    }


def _mdp(horizon: int) -> dict[str, Actor]:
    size = (NUM_STATES, NUM_ACTIONS, horizon)
    return {
        "Random": mdps.Random(*size),
        "PSRL": mdps.Psrl(*size),
        "OPSRL": mdps.Psrl(*size, num_samples=20),
        "UCRL2": mdps.Ucrl2(*size, scale=0.3),
        "BEB": mdps.Beb(*size, bonus=25.0),
        "epsilon-greedy": mdps.EpsilonGreedy(*size, epsilon=0.1),
        "Greedy": mdps.Greedy(*size),
    }
