"""Relabelled trials: rewards of other tasks against environments that have these tasks."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agent import AgentSetup
from metarl.agents.memory_sac import MemorySacConfig, SoftPolicyConfig
from metarl.agents.memory_sac.learner import CriticConfig
from metarl.envs import make_benchmark
from metarl.envs.toy.gridnavi import GOALS
from metarl.learning.relabelling import KnowsRewards, RecordedSteps, relabelled
from metarl.tasks import Task
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers

CPU = torch.device("cpu")
HORIZON = 12
FAMILIES = ("gridnavi", "point-uniform-start", "sparse-point", "half-cheetah-vel", "half-cheetah-dir")


def _rollout(name: str, task: Task) -> RecordedSteps:
    """An episode of random actions, the same for every task."""
    env = make_benchmark(name).family.make_env(1, horizon=HORIZON, num_threads=1)
    env.set_tasks([task])
    env.reset(seed=3)
    env.single_action_space.seed(4)
    steps = [env.advance(np.asarray(env.single_action_space.sample())[None]) for _ in range(HORIZON)]
    env.close()
    infos = {name: np.concatenate([step.infos[name] for step in steps]) for name in steps[0].infos}
    rewards = np.concatenate([step.rewards for step in steps])
    return RecordedSteps(np.concatenate([np.asarray(step.observations) for step in steps]), rewards, infos)


def _known(name: str) -> Any:
    family = make_benchmark(name).family
    assert isinstance(family, KnowsRewards)
    return family


@pytest.mark.parametrize("name", FAMILIES)
def test_rewards_of_another_task_are_those_of_an_environment_that_has_it(name: str) -> None:
    family = _known(name)
    # As goals that these steps reach: of a goal nowhere near all sparse rewards are zero.
    own = make_benchmark(name).test.sample(1, np.random.default_rng(0))[0]
    reached = family.task_reached(_rollout(name, own), np.random.default_rng(1))
    others = make_benchmark(name).train.sample(6, np.random.default_rng(2))
    steps = _rollout(name, others[0])
    for task in (*others, reached):
        family.check(task)
        assert family.rewards_in(task, steps) == pytest.approx(_rollout(name, task).rewards, abs=1e-12)
    differing = [not np.allclose(family.rewards_in(task, steps), steps.rewards) for task in (*others, reached)]
    assert any(differing)  # the premise: tasks pay differently


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_do_better_in_the_task_that_they_reached_than_in_most(name: str) -> None:
    family, rng = _known(name), np.random.default_rng(0)
    others = make_benchmark(name).train.sample(20, rng)
    steps = _rollout(name, others[0])
    own = np.mean([family.rewards_in(family.task_reached(steps, rng), steps).sum() for _ in range(20)])
    assert own > np.mean([family.rewards_in(task, steps).sum() for task in others])


def test_where_no_goal_was_visited_any_goal_is_taken() -> None:
    family, rng = _known("gridnavi"), np.random.default_rng(0)
    steps = RecordedSteps(np.zeros((4, 2), np.float32), np.full(4, -0.1), {})
    drawn = {family.task_reached(steps, rng)["goal"] for _ in range(200)}
    assert drawn == {tuple(map(float, goal)) for goal in GOALS}


def _agent(name: str = "sparse-point", **changes: Any) -> Any:
    benchmark = make_benchmark(name)
    config = MemorySacConfig(
        SoftPolicyConfig(memory_size=4, head_sizes=(4,)),
        CriticConfig(hidden_sizes=(4,)),
        num_updates=2,
        batch_size=4,
        num_initial_trials=1,
        **changes,
    )
    env = benchmark.family.make_env(1, horizon=HORIZON, num_threads=1)
    return config.make(AgentSetup(env, benchmark, 3, 0, CPU))


def _collect(agent: Any, name: str = "sparse-point") -> Trajectories:
    benchmark = make_benchmark(name)
    tasks = benchmark.train.sample(3, np.random.default_rng(0))
    with Workers(EnvMaker(benchmark.family, HORIZON), num_threads=1) as workers:
        experience: Trajectories = agent.collect(workers, tasks, np.random.default_rng(1))[0]
    return experience


@pytest.mark.parametrize("relabelled_with", ["reached", "drawn"])
def test_copies_of_trials_are_stored_with_the_rewards_of_other_tasks(relabelled_with: str) -> None:
    agent = _agent(num_relabelled=2, relabelled_with=relabelled_with)
    experience = _collect(agent)
    assert not experience.rewards.any()  # the premise: no trial found its goal
    agent.update([experience])
    assert agent.replay.num_trials == 9
    stored = agent.replay.draw(200, 2 * HORIZON, torch.Generator()).trials
    paid = (stored.rewards > 0).any(0)
    assert paid.any() == (relabelled_with == "reached")  # a walk about the origin reaches no drawn goal
    assert not paid.all()
    assert float(agent.policy.reward_scale) == 0.0  # statistics are of rewards that were really paid


def test_trials_keep_their_steps_and_get_rewards_where_they_have_steps() -> None:
    experience = _collect(_agent("gridnavi"), "gridnavi")
    mask = experience.mask.clone()
    mask[1, 1, 7:] = False  # an episode that ended early
    rng = np.random.default_rng(0)
    cut = replace(experience, mask=mask, rewards=experience.rewards * mask)
    copy = relabelled(cut, _known("gridnavi"), lambda *of: Task.of("gridnavi", goal=(0.0, 0.0)), rng)
    assert copy.tasks == (Task.of("gridnavi", goal=(0.0, 0.0)),) * 3
    at_start = (copy.next_observations() == 0).all(-1)  # type: ignore[union-attr]
    assert at_start[mask].any()
    assert copy.rewards[mask].tolist() == pytest.approx(torch.where(at_start[mask], 1.0, -0.1).tolist())
    assert not copy.rewards[~mask].any()
    assert torch.equal(copy.actions, experience.actions)


@pytest.mark.parametrize("name", ["point", "ant-goal"])
def test_a_family_that_knows_no_other_rewards_is_one_line(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"rewards of its other tasks, and '{name}' has no .*set num_relabelled to 0"
    ):
        _agent(name, num_relabelled=1)
