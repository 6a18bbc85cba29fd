"""One environment serves batches of every size: results are those of an environment of exactly that size."""

import multiprocessing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.envs import make_benchmark
from metarl.envs.observed import TaskObserved
from metarl.tasks import Task, TaskEnv, TaskFamily
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers
from tests.environments import COUNTDOWNS, MARK, WALKS, Countdown, walk

CPU = torch.device("cpu")


class _Counting:
    """Makes environments and keeps them."""

    def __init__(self, family: TaskFamily, horizon: int) -> None:
        self.maker, self.made = EnvMaker(family, horizon), list[TaskEnv]()

    def __call__(self, num_envs: int, num_threads: int) -> TaskEnv:
        self.made.append(self.maker(num_envs, num_threads))
        return self.made[-1]


def _actor(family: TaskFamily) -> GradientActor:
    env = family.make_env(1, num_threads=1)
    return GradientActor(AdaptivePolicy(env, PolicyConfig((8,)), AdaptationConfig(), seed=0, device=CPU), None)


def _assert_equal(first: Trajectories, second: Trajectories) -> None:
    for field in fields(Trajectories):
        one, other = getattr(first, field.name), getattr(second, field.name)
        parts = one.items() if isinstance(one, dict) else [("", one)]
        for name, part in parts:
            same = other[name] if isinstance(one, dict) else other
            assert torch.equal(part, same) if isinstance(part, Tensor) else part == same, (field.name, name)


def _collect(workers: Workers, family: TaskFamily, tasks: list[Task]) -> Trajectories:
    return workers.collect(_actor(family), tasks, 2, seed=len(tasks))


def _family(name: str) -> tuple[TaskFamily, list[Task]]:
    if name == "walk":
        return WALKS, [walk(0.3 * index) for index in range(5)]
    made = make_benchmark(name.removeprefix("observed "))
    family = TaskObserved(made.family) if name.startswith("observed ") else made.family
    return family, made.train.sample(5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "threads", "num_made"),
    [
        ("point-uniform-start", 1, 4),
        ("gridnavi", 1, 4),
        ("half-cheetah-dir", 2, 1),
        ("hopper-dynamics", 1, 1),
        ("observed hopper-dynamics", 2, 1),
        ("observed point-uniform-start", 1, 4),
        ("walk", 1, 1),
        ("walk", 2, 1),
    ],
)
def test_every_size_of_a_batch_gives_what_an_environment_of_that_size_gives(
    name: str, threads: int, num_made: int
) -> None:
    family, tasks = _family(name)
    maker = _Counting(family, 12)
    with Workers(maker, num_threads=threads) as workers:
        for size in (5, 2, 1, 4):
            with Workers(EnvMaker(family, 12), num_threads=1) as fresh:
                _assert_equal(_collect(workers, family, tasks[-size:]), _collect(fresh, family, tasks[-size:]))
    assert len(maker.made) == num_made


def test_a_larger_batch_gets_a_larger_environment_instead_of_the_one_before() -> None:
    maker = _Counting(WALKS, 6)
    with Workers(maker, num_threads=1) as workers:
        for size in (2, 3, 2):
            _collect(workers, WALKS, [walk(0.0)] * size)
    assert [env.num_envs for env in maker.made] == [4, 4]  # two episodes of two tasks at last
    assert maker.made[0].closed  # type: ignore[attr-defined]


@pytest.mark.thorough
def test_pearl_makes_an_environment_per_task_and_a_process_per_core_when_episodes_end_early() -> None:
    tasks = [Task.of("countdown", length=1 + index % 6 + 0.01 * index) for index in range(20)]
    config = PearlConfig(
        context=ContextConfig(latent_size=2, hidden_sizes=(8,)),
        hidden_sizes=(8,),
        num_initial_episodes=2,
        num_prior_episodes=1,
        num_extra_episodes=1,
        num_updates=1,
        batch_size=4,
        context_size=4,
        replay_capacity=100,
    )
    for threads, num_processes in ((1, 0), (2, 2)):
        maker, before = _Counting(COUNTDOWNS, 6), set(multiprocessing.active_children())
        agent = Pearl(COUNTDOWNS.make_env(1, num_threads=1), config, tasks, iterations=1, seed=0, device=CPU)
        Countdown.made = 0
        with Workers(maker, num_threads=threads) as workers:
            collections = agent.collect(workers, tasks[:10], np.random.default_rng(0))
            processes = set(multiprocessing.active_children()) - before
        sizes = [len(part.tasks) for collection in collections for part in collection.rounds]
        assert len(set(sizes)) >= 6, sizes  # episodes did end early, of tasks that differ
        assert max(sizes) == 20
        assert len(maker.made) == 1
        assert len(processes) == num_processes
        assert Countdown.made == 1 + (20 if threads == 1 else 0)  # one more was asked for its spaces


def test_a_lost_process_is_made_up_for_with_fewer_rows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))
    with Workers(EnvMaker(WALKS, 6), num_threads=2) as workers:
        _collect(workers, WALKS, [walk(0.1)] * 5)
        with pytest.warns(RuntimeWarning, match="started again and the run goes on"):
            lost = _collect(workers, WALKS, [walk(0.1), walk(0.2, trouble=3.0), walk(0.3)])
        again = _collect(workers, WALKS, [walk(0.1), walk(0.2, trouble=3.0), walk(0.3)])
    _assert_equal(lost, again)
