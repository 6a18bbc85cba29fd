"""The strategy that is told the goal in point navigation."""

import numpy as np
import pytest

from metarl.agents.strategies.point import GoToGoal
from metarl.envs import make_benchmark
from metarl.envs.toy.point import PointEnv
from metarl.experiments.references import reference_actors
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers


def test_it_goes_straight_to_every_goal() -> None:
    family = make_benchmark("point").family
    goals = [(0.25, 0.0), (-0.1, 0.3)]
    tasks = [Task.of("point", goal=goal) for goal in goals]
    actor = reference_actors(family, 2, tasks)["told the goal"]
    with Workers(EnvMaker(family, 5), num_threads=1) as workers:
        returns = workers.collect(actor, tasks, 2, seed=0).returns().numpy()
    first = -(0.15 + 0.05)
    second = -(np.hypot(0, 0.2) + 0.1)
    assert returns == pytest.approx(np.array([[first, first], [second, second]]), abs=1e-6)


def test_nothing_that_was_tried_is_better() -> None:
    """From random starts, against random detours."""
    family = make_benchmark("point-uniform-start").family
    tasks = [Task.of("point-uniform-start", goal=(0.3, -0.8))] * 50

    class Detours(GoToGoal):
        def act(self, observations):  # type: ignore[no-untyped-def]
            self.goals = self.goals + np.random.default_rng(len(self.goals)).normal(0, 0.05, self.goals.shape)
            return super().act(observations)

    actor = reference_actors(family, 1, tasks)["told the goal"]
    assert isinstance(actor, GoToGoal)
    with Workers(EnvMaker(family, None), num_threads=1) as workers:
        best = workers.collect(actor, tasks, 1, seed=0).returns()
        other = workers.collect(Detours(actor.goals, PointEnv.STEP), tasks, 1, seed=0).returns()
    assert (best >= other).all()
    assert (best > other).any()


def test_too_few_goals_are_an_error() -> None:
    with pytest.raises(ValueError, match="expected 1 tasks"):
        GoToGoal(np.zeros((1, 2)), 0.1).begin(np.zeros(2, np.uint64), 1)
