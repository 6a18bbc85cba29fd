"""Collection: what is recorded, and that it does not depend on how the work is split."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agent import Actions, Outcome
from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.agents.pearl.actor import LatentActor
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.varibad import BeliefPolicyConfig, Varibad, VaribadConfig
from metarl.envs import make_benchmark
from metarl.runs.seeding import TaskNoise
from metarl.tasks import Task, Transition
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers


def _actor(benchmark: str) -> GradientActor:
    env = make_benchmark(benchmark).family.make_env(1)
    config = AdaptationConfig(num_episodes=3)
    learner = AdaptivePolicy(env, PolicyConfig(), config, seed=0, device=torch.device("cpu"))
    return GradientActor(learner, None)


def _tasks(benchmark: str, count: int) -> list[Task]:
    return make_benchmark(benchmark).train.sample(count, np.random.default_rng(0))


def _equal(first: Trajectories, second: Trajectories) -> bool:
    for field in fields(Trajectories):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, Tensor) and not torch.equal(a, b):
            return False
        if isinstance(a, dict) and not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return first.tasks == second.tasks


class Toward:
    """Walks straight to each task's goal; an actor without learning, for known answers."""

    sequential = False

    def __init__(self, goals: Tensor) -> None:
        self._goals = goals

    def select(self, tasks: slice) -> "Toward":
        return Toward(self._goals[tasks])

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        pass

    def begin_episode(self) -> None:
        pass

    def observe(self, outcome: Outcome) -> None:
        pass

    def act(self, observations: Tensor) -> Actions:
        step = (self._goals[:, None] - observations).clamp(-0.1, 0.1)
        return Actions(step.numpy(), step, {})

    def adapt(self, trajectories: Trajectories) -> "Toward":
        return self


def test_known_walk_gives_known_trajectories() -> None:
    tasks = [Task.of("point", goal=(0.25, 0.0)), Task.of("point", goal=(0.0, -0.5))]
    goals = torch.tensor([[0.25, 0.0], [0.0, -0.5]])
    with Workers(EnvMaker(make_benchmark("point").family, 10)) as workers:
        walk = workers.collect(Toward(goals), tasks, 2, seed=0)
        assert workers.steps_collected == walk.num_steps == 2 * 3 + 2 * 5
    # distances after each step: 0.15, 0.05, 0.0 and then the episode ends
    assert torch.allclose(walk.rewards[0, 0], torch.tensor([-0.15, -0.05] + [0.0] * 8), atol=1e-6)
    assert torch.allclose(walk.returns()[1], torch.full((2,), -(0.4 + 0.3 + 0.2 + 0.1)), atol=1e-6)
    assert walk.mask.sum(-1).tolist() == [[3, 3], [5, 5]]
    assert walk.terminated[0, 0].nonzero().tolist() == [[2]]
    assert not walk.truncated.any()
    assert torch.allclose(walk.last_observations[0, 1], torch.tensor([0.25, 0.0]), atol=1e-6)
    assert torch.allclose(walk.observations[1, 0, :5, 1], -0.1 * torch.arange(5.0), atol=1e-6)
    # A distance of 0.2 is near enough: all steps of the first walk are, and the last three of the second.
    assert walk.infos["success"][:, 1, :5].tolist() == [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]]
    successes = walk.successes()
    assert successes is not None
    assert successes.all()


class TowardInTrials(Toward):
    """The same walk, one episode after the other."""

    sequential = True


def test_the_episodes_of_a_trial_go_on_with_one_random_stream() -> None:
    tasks, goals = [Task.of("point-uniform-start", goal=(0.5, 0.5))] * 2, torch.full((2, 2), 0.5)
    with Workers(EnvMaker(make_benchmark("point-uniform-start").family, 2)) as workers:
        walk = workers.collect(TowardInTrials(goals), tasks, 3, seed=0)
    assert len(torch.unique(walk.observations[:, :, 0].flatten(0, 1), dim=0)) == 6


def test_time_limit_truncates() -> None:
    with Workers(EnvMaker(make_benchmark("point").family, 2)) as workers:
        walk = workers.collect(Toward(torch.tensor([[0.5, 0.5]])), [Task.of("point", goal=(0.5, 0.5))], 1, seed=0)
    assert walk.truncated[0, 0].tolist() == [False, True]
    assert not walk.terminated.any()


class _CutShort:
    """Point navigation whose rows are cut by a limit of their own: one step more for each."""

    def __init__(self, env: Any) -> None:
        self._env, self._elapsed = env, np.zeros(env.num_envs, dtype=np.int64)
        self.stepped: list[list[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def advance(self, actions: np.ndarray, rows: np.ndarray | None = None) -> Transition:
        numbers = np.arange(self._env.num_envs) if rows is None else rows
        self.stepped.append(numbers.tolist())
        self._elapsed[numbers] += 1
        after = self._env.advance(actions, rows)
        return after._replace(truncated=after.truncated | (self._elapsed[numbers] > numbers))


def test_a_truncated_episode_is_over_while_others_go_on() -> None:
    made: list[_CutShort] = []

    def make(num_envs: int, num_threads: int) -> Any:
        made.append(_CutShort(EnvMaker(make_benchmark("point").family, 4)(num_envs, num_threads)))
        return made[-1]

    tasks = [Task.of("point", goal=(3.0, 3.0))] * 3
    with Workers(make) as workers:
        walk = workers.collect(Toward(torch.full((3, 2), 3.0)), tasks, 1, seed=0)
    assert made[-1].stepped == [[0, 1, 2], [1, 2], [2]]
    assert walk.mask.sum(-1).flatten().tolist() == [1, 2, 3]
    assert walk.truncated.sum(-1).flatten().tolist() == [1, 1, 1]
    assert not walk.terminated.any()
    assert torch.allclose(walk.last_observations[:, 0, 0], torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(walk.rewards != 0, walk.mask)


@pytest.mark.parametrize("benchmark", ["point", "half-cheetah-dir"])
def test_same_result_for_any_number_of_threads(benchmark: str) -> None:
    results = []
    for num_threads in (1, 2, 3):
        with Workers(EnvMaker(make_benchmark(benchmark).family, 15), num_threads=num_threads) as workers:
            results.append(workers.collect(_actor(benchmark), _tasks(benchmark, 4), 3, seed=7))
    assert _equal(results[0], results[1])
    assert _equal(results[0], results[2])


def _close(first: Trajectories, second: Trajectories) -> bool:
    """Equal up to what a few steps make of a product's last bit, which depends on the batch around it."""
    names = ("observations", "actions", "rewards", "last_observations")
    flags = ("mask", "terminated", "truncated")
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in flags) and all(
        torch.allclose(getattr(first, name), getattr(second, name), atol=1e-4) for name in names
    )


def test_same_result_for_any_number_of_workers_adapted_or_not() -> None:
    tasks = _tasks("half-cheetah-dir", 3)
    results = []
    for num_workers in (1, 2):
        maker = EnvMaker(make_benchmark("half-cheetah-dir").family, 5)
        with Workers(maker, num_workers=num_workers, num_threads=2) as workers:
            actor = _actor("half-cheetah-dir")
            before = workers.collect(actor, tasks, 3, seed=7)
            after = workers.collect(actor.adapt(before), tasks, 3, seed=8)
            results.append((before, after))
    assert _close(results[0][0], results[1][0])
    assert _close(results[0][1], results[1][1])


def test_other_seed_gives_other_episodes() -> None:
    with Workers(EnvMaker(make_benchmark("half-cheetah-dir").family, 5)) as workers:
        first = workers.collect(_actor("half-cheetah-dir"), _tasks("half-cheetah-dir", 2), 2, seed=1)
        second = workers.collect(_actor("half-cheetah-dir"), _tasks("half-cheetah-dir", 2), 2, seed=2)
    assert not torch.equal(first.observations, second.observations)
    # and no two episodes of one call are alike
    starts = first.observations[:, :, 0].reshape(4, -1)
    assert len(torch.unique(starts, dim=0)) == 4


def test_finished_episodes_are_not_simulated_but_padded() -> None:
    with Workers(EnvMaker(make_benchmark("hopper-dynamics").family, 60)) as workers:
        actor = _actor("hopper-dynamics")
        trajectories = workers.collect(actor, _tasks("hopper-dynamics", 2), 4, seed=0)
    ends = trajectories.terminated | trajectories.truncated
    assert (ends.sum(-1) == 1).all()
    lengths = trajectories.mask.sum(-1)
    assert lengths.min() < 60  # the premise: some episodes end early, at different times
    assert len(lengths.unique()) > 1
    assert torch.equal(ends.float().argmax(-1) + 1, lengths)
    assert trajectories.rewards[~trajectories.mask].abs().sum() == 0


def test_noise_of_a_task_does_not_depend_on_the_others() -> None:
    together, alone = TaskNoise([1, 2], (3, 2), block=4), TaskNoise([2], (3, 2), block=7)
    for _ in range(9):
        assert torch.equal(together.next()[1], alone.next()[0])


def test_collecting_nothing_is_an_error() -> None:
    with (
        Workers(EnvMaker(make_benchmark("point").family, 5)) as workers,
        pytest.raises(ValueError, match="needs tasks and episodes, got 0 and 1"),
    ):
        workers.collect(Toward(torch.zeros(0, 2)), [], 1, seed=0)


def test_a_stream_of_noise_waits_while_its_task_does() -> None:
    noise, alone = TaskNoise([1, 2], (2,), block=4), TaskNoise([2], (2,), block=4)
    waits = {1, 4, 5, 6, 9}
    for step in range(15):
        drawn = noise.next(torch.tensor([True, step not in waits]))
        if step not in waits:
            assert torch.equal(drawn[1], alone.next()[0])


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Workers]:
    with Workers(EnvMaker(make_benchmark("point").family, 40), num_workers=2, num_threads=2) as workers:
        yield workers


@pytest.mark.thorough
@pytest.mark.parametrize("algorithm", ["rl2", "varibad", "pearl"])
def test_a_trial_depends_on_no_other_task_where_episodes_end_early(algorithm: str, two_workers: Workers) -> None:
    # The point starts at the first goal's edge, so that its episodes end early; the others run to the limit.
    tasks = [Task.of("point", goal=(0.01 * i, 0.02)) for i in range(3)] + [Task.of("point", goal=(5.0, 5.0))]
    made, horizon = make_benchmark("point"), 40  # as the two workers
    env = made.family.make_env(1, horizon=horizon)
    setup = {"seed": 0, "device": torch.device("cpu"), "iterations": 1}
    if algorithm == "rl2":
        config = Rl2Config(policy=TrialPolicyConfig(memory_size=8, init_std=0.5))
        agent: Any = Rl2(env, config, **setup)
        actor: Any = agent.actor()
    elif algorithm == "varibad":
        agent = Varibad(env, VaribadConfig(policy=BeliefPolicyConfig(memory_size=8)), **setup)
        actor = agent.actor()
    else:
        agent = Pearl(env, PearlConfig(hidden_sizes=(8,), replay_capacity=10**6), tasks, **setup)
        actor = LatentActor(agent.acting, num_prior=1, num_context=None, deterministic=False)
    with Workers(EnvMaker(made.family, horizon), num_threads=1) as workers:
        together = workers.collect(actor, tasks, 3, seed=5)
        lengths = together.mask.sum(-1)
        assert int(lengths[3].min()) == horizon  # the premise: the others' episodes end early, at different times
        assert len(set(lengths[:3].flatten().tolist())) > 1
        assert int(lengths[:3].min()) < horizon
        for rows in ([1, 2], [0, 3]):
            alone = workers.collect(actor, [tasks[row] for row in rows], 3, seed=5, places=rows)
            for name in ("observations", "actions", "rewards"):
                real, mask = getattr(together, name)[rows], together.mask[rows]
                assert torch.equal(alone.mask, mask)
                assert torch.allclose(real[mask], getattr(alone, name)[mask], atol=1e-5), (rows, name)
    sharded = two_workers.collect(actor, tasks, 3, seed=5)
    assert torch.equal(sharded.mask, together.mask)
    assert torch.allclose(sharded.actions[together.mask], together.actions[together.mask], atol=1e-5)
