"""Evaluating while training goes on: the same numbers to the bit, also after a stop and for what ends badly."""

import copy
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agent import Actor, AgentConfig, Collector
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.pearl.collection import Collection, return_metrics
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.gradients import GradientStep
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.envs import make_benchmark
from metarl.experiments.agent_run import AgentRun
from metarl.experiments.arguments import interruptible
from metarl.experiments.configuration import Experiment, make_agent
from metarl.experiments.loading import open_run, prepare_run
from metarl.experiments.runs import make_run
from metarl.loop import TrainingDiverged
from metarl.runs.checkpoint import BEST, CHECKPOINT, load_checkpoint
from metarl.runs.cores import WorkerError
from metarl.runs.metrics import CsvLogger
from metarl.runs.pending import Pending
from metarl.tasks import Benchmark, Task
from metarl.training import EvaluationConfig, TrainingConfig, train
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers
from tests.run_folders import rows_of, values

pytestmark = pytest.mark.thorough

AGENTS: dict[str, AgentConfig] = {
    "promp": PrompConfig(PolicyConfig(hidden_sizes=(8,)), AdaptationConfig(inner_lr=0.5, num_episodes=3)),
    "rl2": Rl2Config(policy=TrialPolicyConfig(memory_size=8, normalise_observations=True), epochs=1),
    "pearl": PearlConfig(
        context=ContextConfig(hidden_sizes=(8,)),
        hidden_sizes=(8,),
        num_initial_episodes=1,
        num_prior_episodes=1,
        num_extra_episodes=1,
        num_updates=3,
        update_tasks=2,
        batch_size=4,
        context_size=4,
        replay_capacity=48,
        normalise_rewards=True,
    ),
}


def _experiment(agent: str) -> Experiment:
    return Experiment(
        benchmark="point",
        agent=AGENTS[agent],
        # The evaluation of iteration 3 is that of a checkpoint, and goes on in iteration 4.
        training=TrainingConfig(iterations=5, meta_batch_size=2, checkpoint_every=3, evaluate_every=3),
        evaluation=EvaluationConfig(num_tasks=2, num_steps=1, num_episodes=2),
        horizon=6,
        num_train_tasks=3 if agent == "pearl" else None,
    )


def _maker() -> EnvMaker:
    return EnvMaker(make_benchmark("point").family, 6)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with Workers(_maker(), num_workers=2, num_threads=2, timeout_s=60) as made:
        yield made


class Late:
    """Workers whose evaluations wait for the next update, and the other way round: without overlap both in vain.

    Args:
        workers: Workers in other processes.
        then: Called once, in the update that an evaluation waits for.
    """

    def __init__(self, workers: Workers, then: Callable[[], None] = lambda: None) -> None:
        self._workers, self._then = workers, then
        self._evaluates, self._updates = threading.Event(), threading.Event()
        self.steps_collected, self.num_waits = 0, 0

    def begin_update(self) -> None:
        if self.num_waits and not self._updates.is_set():
            assert self._evaluates.wait(30), "the evaluation did not begin"
            self._then()
            self._updates.set()

    def collect(
        self, actor: Actor, tasks: Sequence[Task], num_episodes: int, seed: int, *, places: Any = None
    ) -> Trajectories:
        trajectories = self._workers.collect(actor, tasks, num_episodes, seed, places=places)
        self.steps_collected += trajectories.num_steps
        return trajectories

    def beside(self) -> Collector:
        others = self._workers.beside()
        assert others is not None
        self.num_waits += 1
        plain = others.collect

        def collect(*arguments: Any, **named: Any) -> Trajectories:
            self._evaluates.set()
            assert self._updates.wait(30), "the next update did not begin"
            return plain(*arguments, **named)

        others.collect = collect  # type: ignore[method-assign]
        return others


def _train(
    run: Any, collector: Collector, stop: Callable[[], bool] = lambda: False, *, overlap: bool = True
) -> list[int]:
    """Train a run; the iterations in the order in which they are reported."""
    reported: list[int] = []
    agent: Any = make_agent(run.experiment, run.benchmark)
    if isinstance(collector, Late):
        late, update = collector, agent.update
        agent.update = lambda experience: (late.begin_update(), update(experience))[1]
    train(
        agent,
        run.benchmark,
        collector,
        replace(run.experiment.training, overlap_evaluation=overlap),
        run.experiment.evaluation,
        folder=run.folder,
        seed=run.experiment.seed,
        test_tasks=run.test_tasks,
        loggers=[CsvLogger(run.folder)],
        report=lambda progress, metrics: reported.append(progress.iteration),
        stop=stop,
    )
    return reported


def _made(agent: str, folder: Path) -> Any:
    return make_run(prepare_run("run", _experiment(agent)), folder)


def _assert_same(first: Path, second: Path) -> None:
    """Metrics and checkpoints of two run folders are the same to the bit."""
    assert rows_of(first) == rows_of(second)
    for name in (CHECKPOINT, BEST):
        assert values(load_checkpoint(first / name)) == values(load_checkpoint(second / name)), name


@pytest.fixture(scope="module")
def plain(workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an agent's run whose iterations wait for evaluations."""
    folders: dict[str, Path] = {}

    def folder(agent: str) -> Path:
        if agent not in folders:
            folders[agent] = tmp_path_factory.mktemp("plain") / agent
            _train(_made(agent, folders[agent]), workers, overlap=False)
        return folders[agent]

    return folder


@pytest.mark.parametrize("agent", AGENTS)
def test_an_evaluation_beside_the_next_iteration_changes_no_bit(
    agent: str, workers: Workers, plain: Callable[[str], Path], tmp_path: Path
) -> None:
    run, late = _made(agent, tmp_path / "run"), Late(workers)
    assert _train(run, late) == [1, 2, 3, 4, 5]
    assert late.num_waits == 1
    assert [row["iteration"] for row in rows_of(run.folder) if row["test/return_after_1"]] == ["3"]
    _assert_same(plain(agent), run.folder)


def test_a_run_that_is_terminated_beside_an_evaluation_goes_on_as_if_it_was_not(
    workers: Workers, plain: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _made("pearl", tmp_path / "run")
    late = Late(workers, then=lambda: os.kill(os.getpid(), signal.SIGTERM))
    with interruptible(run.folder) as interrupted:
        assert _train(run, late, interrupted) == [1, 2, 3, 4]
    assert "stopping after this iteration" in capsys.readouterr().err
    assert load_checkpoint(run.folder / CHECKPOINT)["progress"]["iteration"] == 4
    assert load_checkpoint(run.folder / BEST)["progress"]["iteration"] == 3
    assert _train(open_run(run.folder), workers) == [5]
    _assert_same(plain("pearl"), run.folder)


def test_a_stop_after_an_evaluated_iteration_waits_for_the_evaluation(
    workers: Workers, plain: Callable[[str], Path], tmp_path: Path
) -> None:
    run, asked = _made("promp", tmp_path / "run"), list[int]()

    def third() -> bool:
        asked.append(0)
        return len(asked) == 3

    assert _train(run, workers, third) == [1, 2, 3]
    assert rows_of(run.folder)[2]["test/return_after_1"]
    assert _train(open_run(run.folder), workers) == [4, 5]
    _assert_same(plain("promp"), run.folder)


def test_a_killed_run_makes_the_evaluation_again(
    workers: Workers, plain: Callable[[str], Path], tmp_path: Path
) -> None:
    run = _made("pearl", tmp_path / "run")

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _train(run, Late(workers, then=die))
    assert len(rows_of(run.folder)) == 2
    assert not (run.folder / CHECKPOINT).exists()
    assert (run.folder / "replay.bin").exists()  # of the checkpoint that was not written
    assert _train(open_run(run.folder), workers) == [1, 2, 3, 4, 5]
    _assert_same(plain("pearl"), run.folder)


def _failing(monkeypatch: pytest.MonkeyPatch, error: Exception, number: int) -> None:
    """Have the update of one iteration fail."""
    update, calls = Promp.update, list[int]()

    def fail(self: Promp, experience: Any) -> dict[str, float]:
        calls.append(0)
        if len(calls) == number:
            raise error
        return update(self, experience)

    monkeypatch.setattr(Promp, "update", fail)


@pytest.mark.parametrize("error", [FloatingPointError("nan on task 1"), WorkerError("worker 1 failed")])
def test_what_fails_beside_an_evaluation_leaves_the_evaluated_iteration_whole(
    error: Exception,
    workers: Workers,
    plain: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, expected = _made("promp", tmp_path / "run"), plain("promp")
    _failing(monkeypatch, error, 4)
    kind = TrainingDiverged if isinstance(error, FloatingPointError) else WorkerError
    with pytest.raises(kind, match=r"iteration 4: nan on task 1; the checkpoint of iteration 3|worker 1 failed"):
        _train(run, Late(workers))
    assert rows_of(run.folder) == rows_of(expected)[:3]
    assert load_checkpoint(run.folder / CHECKPOINT)["progress"]["iteration"] == 3
    assert values(load_checkpoint(run.folder / BEST)) == values(load_checkpoint(expected / BEST))


def test_an_evaluation_that_is_not_finite_names_its_own_iteration(
    workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _made("promp", tmp_path / "run")

    def fail(trajectories: Trajectories) -> np.ndarray:
        raise FloatingPointError("the return on test task 0 is not finite")

    monkeypatch.setattr("metarl.evaluation._finite_returns", fail)
    with pytest.raises(TrainingDiverged, match=r"iteration 3: the return on test task 0 .*no checkpoint yet"):
        _train(run, Late(workers))
    assert [row["iteration"] for row in rows_of(run.folder)] == ["1", "2"]


def _collecting(**options: Any) -> Experiment:
    pearl = AGENTS["pearl"]
    assert isinstance(pearl, PearlConfig)
    return replace(_experiment("pearl"), agent=replace(pearl, **{"collect_while_updating": True, **options}))


class Meanwhile:
    """Workers whose collections beside an update wait until it has begun, and which count them.

    Args:
        workers: Workers in other processes.
        updates: Set while the networks are updated.
        then: Called in each collection beside an update, with their number so far.
    """

    def __init__(
        self, workers: Workers, updates: threading.Event, then: Callable[[int], None] = lambda number: None
    ) -> None:
        self._workers, self._updates, self._then = workers, updates, then
        self.steps_collected, self.num_beside = 0, 0

    def collect(self, *arguments: Any, **named: Any) -> Trajectories:
        if threading.current_thread() is not threading.main_thread():
            assert self._updates.wait(30), "the update did not begin"
            self.num_beside += 1
            self._then(self.num_beside)
        trajectories = self._workers.collect(*arguments, **named)
        self.steps_collected += trajectories.num_steps
        return trajectories

    def beside(self) -> Collector | None:
        return self._workers.beside()


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set while PEARL takes gradient steps."""
    event, descend = threading.Event(), Pearl._descend

    def watched(self: Pearl) -> dict[str, float]:
        event.set()
        metrics = descend(self)
        event.clear()
        return metrics

    monkeypatch.setattr(Pearl, "_descend", watched)
    return event


def _pearl(**options: Any) -> tuple[Pearl, Benchmark]:
    own = _collecting(normalise_rewards=False, **options)
    run = prepare_run("run", own)
    assert isinstance(run, AgentRun)
    agent = make_agent(own, run.benchmark)
    assert isinstance(agent, Pearl)
    return agent, run.benchmark


def test_pearl_that_collects_while_updating_learns_from_the_iteration_before(
    workers: Workers, updates: threading.Event
) -> None:
    """The same as a plain loop that gives each update the trials of the iteration before."""
    agent, benchmark = _pearl()
    plain, _ = _pearl(collect_while_updating=False)
    usual, _ = _pearl(collect_while_updating=False)
    meanwhile = Meanwhile(workers, updates)
    rngs = [np.random.default_rng(0) for _ in range(3)]
    before: list[Collection] = []
    for iteration in range(3):
        tasks = benchmark.train.sample(2, np.random.default_rng(iteration))
        metrics = agent.update(agent.collect(meanwhile, tasks, rngs[0]))
        *initial, trials = plain.collect(workers, tasks, rngs[1])
        expected = plain.update(initial or before) | return_metrics(trials, num_prior=1)
        before = [trials]
        usual.update(usual.collect(workers, tasks, rngs[2]))
        names = GradientStep.METRICS
        assert {name: metrics[name] for name in names} == {name: expected[name] for name in names}
        assert metrics["train/return_post"] == expected["train/return_post"]
        assert values(agent.learned_state()) == values(plain.learned_state())
        assert values(agent.learned_state()) != values(usual.learned_state())
    assert meanwhile.num_beside == 3
    plain.store(before[0])
    assert values(agent.replay.state_dict()) == values(plain.replay.state_dict())


@pytest.fixture(scope="module")
def collecting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of PEARL that collects while it updates, by two workers in this process."""
    run: Any = make_run(prepare_run("run", _collecting()), tmp_path_factory.mktemp("collecting") / "run")
    with (
        Workers(_maker(), kind="local", num_workers=2, num_threads=1) as local,
        pytest.warns(RuntimeWarning, match="^collect_while_updating saves no time with workers in this process"),
    ):
        _train(run, local)
    folder: Path = run.folder
    return folder


def test_collecting_while_updating_gives_the_same_bits_wherever_the_workers_are(
    workers: Workers, updates: threading.Event, collecting: Path, tmp_path: Path
) -> None:
    run = make_run(prepare_run("run", _collecting()), tmp_path / "run")
    meanwhile = Meanwhile(workers, updates)
    _train(run, meanwhile)
    assert meanwhile.num_beside == 5
    _assert_same(collecting, run.folder)


def test_a_run_that_is_terminated_while_it_collects_and_updates_goes_on_as_if_it_was_not(
    workers: Workers,
    updates: threading.Event,
    collecting: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_run(prepare_run("run", _collecting()), tmp_path / "run")

    def terminate(number: int) -> None:
        if number == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with interruptible(run.folder) as interrupted:
        assert _train(run, Meanwhile(workers, updates, terminate), interrupted) == [1, 2, 3, 4]
    assert "stopping after this iteration" in capsys.readouterr().err
    assert _train(open_run(run.folder), workers) == [5]
    _assert_same(collecting, run.folder)


def test_an_update_that_fails_waits_for_what_is_collected_beside_it(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, benchmark = _pearl()
    begins = threading.Event()
    meanwhile = Meanwhile(workers, begins)
    monkeypatch.setattr(GradientStep, "__call__", lambda self, draw: torch.full((len(self.METRICS),), torch.nan))
    rng = np.random.default_rng(0)
    experience = agent.collect(meanwhile, benchmark.train.sample(2, rng), rng)
    before = values(agent.learned_state())
    begins.set()
    with pytest.raises(FloatingPointError, match="PEARL's loss is not finite"):
        agent.update(experience)
    assert meanwhile.num_beside == 1
    steps = meanwhile.steps_collected
    assert steps == 3 * 6 + 2 * 2 * 6  # one episode of each of three tasks, and of two tasks two
    assert values(agent.learned_state()) == before


def test_threads_that_share_workers_get_the_bits_that_each_gets_alone(workers: Workers) -> None:
    run = prepare_run("run", _experiment("rl2"))
    assert hasattr(run, "benchmark")
    actor, tasks = (
        make_agent(run.experiment, run.benchmark).actor(),
        run.benchmark.train.sample(4, np.random.default_rng(0)),
    )
    before, others = workers.steps_collected, workers.beside()
    assert others is not None
    expected = [workers.collect(actor, tasks, 2, seed) for seed in (0, 1)]
    assert workers.steps_collected - before == 2 * expected[0].num_steps
    assert others.steps_collected == 0
    together = Pending(lambda: [others.collect(copy.deepcopy(actor), tasks, 2, seed=0) for _ in range(5)])
    together.begin(beside=True)
    mine = [workers.collect(actor, tasks, 2, seed=1) for _ in range(5)]
    for trajectories, like in (*((t, expected[0]) for t in together.result()), *((t, expected[1]) for t in mine)):
        assert torch.equal(trajectories.rewards, like.rewards)
        assert torch.equal(trajectories.observations, like.observations)
    assert others.steps_collected == 5 * expected[0].num_steps


def _collect_until_closed(workers: Workers) -> BaseException | None:
    """Close workers with which another thread collects; the error that ends it."""
    run = prepare_run("run", _experiment("rl2"))
    assert isinstance(run, AgentRun)
    actor, tasks = (
        make_agent(run.experiment, run.benchmark).actor(),
        run.benchmark.train.sample(4, np.random.default_rng(0)),
    )
    others, collects = workers.beside(), threading.Event()
    assert others is not None

    def collect() -> None:
        while others.collect(actor, tasks, 2, seed=0):
            collects.set()

    ended = Pending(collect)
    ended.begin(beside=True)
    assert collects.wait(60)
    workers.close()
    try:
        ended.result()
    except BaseException as error:
        return error
    return None


def test_workers_that_are_closed_while_a_thread_collects_leave_nothing_behind(workers: Workers) -> None:
    before = set(multiprocessing.active_children())
    others = Workers(_maker(), num_workers=2)
    assert len(set(multiprocessing.active_children()) - before) == 2
    assert isinstance(_collect_until_closed(others), WorkerError)
    assert set(multiprocessing.active_children()) == before


@pytest.mark.slow
def test_ray_actors_work_beside_training_with_the_same_bits(
    cluster: Any, updates: threading.Event, plain: Callable[[str], Path], collecting: Path, tmp_path: Path
) -> None:
    import ray

    run = _made("promp", tmp_path / "promp")
    pearl = make_run(prepare_run("run", _collecting()), tmp_path / "pearl")
    with Workers(_maker(), kind="ray", num_workers=2, ray_address=cluster.address) as actors:
        executor: Any = actors.executor
        late = Late(actors, then=lambda: os.kill(executor.pids()[0], signal.SIGKILL))
        with pytest.warns(RuntimeWarning, match="it is replaced and its share is collected once more"):
            _train(run, late)
        assert late.num_waits == 1
        meanwhile = Meanwhile(actors, updates)
        _train(pearl, meanwhile)
        assert meanwhile.num_beside == 5
        assert isinstance(_collect_until_closed(actors), WorkerError)
        assert not ray.is_initialized()
    _assert_same(plain("promp"), run.folder)
    _assert_same(collecting, pearl.folder)


def test_workers_in_this_process_are_not_shared_by_threads(workers: Workers) -> None:
    for kind, number in (("local", 2), ("processes", 1)):
        with Workers(_maker(), kind=kind, num_workers=number) as alone:  # type: ignore[arg-type]
            assert alone.beside() is None
    assert workers.beside() is not None


def test_work_at_once_raises_at_once_and_work_beside_where_it_is_asked_for() -> None:
    def fail() -> None:
        raise ValueError(threading.current_thread() is threading.main_thread())

    with pytest.raises(ValueError, match="True"):
        Pending(fail).begin(beside=False)
    pending = Pending(fail)
    assert not pending.is_done
    pending.begin(beside=True)
    pending.wait()
    assert pending.is_done
    with pytest.raises(ValueError, match="False"):
        pending.result()


def test_work_that_was_not_begun_is_done_when_it_is_asked_for() -> None:
    pending = Pending(lambda: 7)
    pending.wait()  # for nothing
    assert pending.result() == 7
    pending.begin(beside=False)
    assert pending.is_done
