"""Runs: killed and resumed equals uninterrupted, checkpoints are whole, divergence stops a run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agents.es_maml import EsAdaptationConfig, EsMamlConfig
from metarl.agents.maml import AdaptationConfig, MetaBatch, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.memory_sac import MemorySacConfig, SoftPolicyConfig
from metarl.agents.memory_sac.learner import CriticConfig
from metarl.agents.multi_task import MultiTaskConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.reptile import ReptileConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.teacher_student import InformedPolicyConfig, TeacherStudentConfig
from metarl.agents.varibad import BeliefPolicyConfig, VaribadConfig
from metarl.experiments.configuration import Experiment, decode, encode, make_agent, make_workers
from metarl.experiments.loading import open_run, prepare_run
from metarl.experiments.presets.table import RL_PRESETS
from metarl.experiments.runs import make_run
from metarl.loop import TrainingDiverged
from metarl.runs import files, seeding
from metarl.runs.checkpoint import BEST, CHECKPOINT, PREVIOUS, CheckpointError, load_checkpoint, save_checkpoint
from metarl.runs.files import WriteError
from metarl.runs.loggers import TensorBoardLogger
from metarl.runs.metrics import CsvLogger
from metarl.runs.seeding import streams
from metarl.training import EvaluationConfig, TrainingConfig, restore, train
from tests.run_folders import rows_of, values

POLICY = PolicyConfig(hidden_sizes=(8,), output_scale=1.0)
ADAPTATION = AdaptationConfig(inner_lr=0.5, num_episodes=3)
AGENTS = {
    "promp": PrompConfig(policy=POLICY, adaptation=ADAPTATION, adaptive_kl=True),
    "maml-trpo": MamlTrpoConfig(policy=POLICY, adaptation=ADAPTATION),
    "rl2": Rl2Config(
        policy=TrialPolicyConfig(memory_size=8, normalise_observations=True),
        epochs=2,
        final_outer_lr=1e-4,
        final_gae_lambda=0.9,
        final_entropy_coef=0.0,
    ),
    "varibad": VaribadConfig(
        policy=BeliefPolicyConfig(latent_size=2, memory_size=8, decoder_sizes=(8,), normalise_observations=True),
        epochs=2,
        belief_updates=2,
        belief_trials=2,
        num_posteriors=4,
        num_decoded=5,
    ),
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
        replay_capacity=24,  # fuller than full after some iterations
    ),
    "memory-sac": MemorySacConfig(
        policy=SoftPolicyConfig(memory_size=8, normalise_observations=True),
        critics=CriticConfig(hidden_sizes=(8,), num_members=3, normalise_values=True),
        other_gammas=(0.5,),
        final_target_entropy=-2.0,
        imitation_coef=0.1,
        num_updates=3,
        batch_size=4,
        replay_capacity=60,  # five trials; fuller than full after some iterations
    ),
    "promp with options": PrompConfig(
        policy=replace(POLICY, context_size=2),
        adaptation=replace(ADAPTATION, learn_inner_lr=True, inner_loss="dice", exploration_coef=1e-2),
    ),
    "maml-trpo with step sizes": MamlTrpoConfig(POLICY, replace(ADAPTATION, learn_inner_lr=True)),
    "reptile": ReptileConfig(POLICY, replace(ADAPTATION, inner_steps=2)),
    "multi-task": MultiTaskConfig(POLICY, ADAPTATION),
    "teacher-student": TeacherStudentConfig(
        policy=InformedPolicyConfig(memory_size=8, normalise_observations=True),
        final_outer_lr=1e-4,
        final_student_lr=1e-4,
        teacher_fraction=1 / 3,  # so that a run is stopped in its student's half
    ),
    "es-maml": EsMamlConfig(adaptation=EsAdaptationConfig(num_episodes=3)),
}


def _experiment(agent: str, iterations: int = 6, benchmark: str = "point") -> Experiment:
    return Experiment(
        benchmark=benchmark,
        agent=AGENTS[agent],  # type: ignore[arg-type]
        training=TrainingConfig(iterations=iterations, meta_batch_size=2, checkpoint_every=2, evaluate_every=3),
        evaluation=EvaluationConfig(num_tasks=2, num_steps=1, num_episodes=2),
        horizon=6,
        num_train_tasks=3 if agent == "pearl" else None,
        num_threads=1,
    )


def _made(name: str, experiment: Experiment, folder: Path) -> Any:
    return make_run(prepare_run(name, experiment), folder)


def _train(run: Any, stop: Callable[[], bool] = lambda: False) -> Any:
    agent = make_agent(run.experiment, run.benchmark)
    with make_workers(run.experiment, run.benchmark) as workers:
        train(
            agent,
            run.benchmark,
            workers,
            run.experiment.training,
            run.experiment.evaluation,
            folder=run.folder,
            seed=run.experiment.seed,
            test_tasks=run.test_tasks,
            loggers=[CsvLogger(run.folder), TensorBoardLogger(run.folder)],
            report=lambda progress, metrics: None,
            stop=stop,
        )
    return agent


def _stop_at(iteration: int) -> Callable[[], bool]:
    calls: list[int] = []

    def stop() -> bool:
        calls.append(0)
        return len(calls) == iteration

    return stop


def _same(first: Path, second: Path) -> bool:
    a, b = (values(load_checkpoint(folder / CHECKPOINT)) for folder in (first, second))
    assert len(a) == len(b) > 5
    return a == b


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("agent", "benchmark"),
    [
        ("promp", "half-cheetah-vel"),
        ("maml-trpo", "half-cheetah-dir"),
        ("promp", "point"),
        ("rl2", "half-cheetah-vel"),
        ("rl2", "gridnavi"),
        ("varibad", "half-cheetah-vel"),
        ("varibad", "gridnavi"),
        ("memory-sac", "gridnavi"),
        ("pearl", "half-cheetah-vel"),
        ("pearl", "sparse-point"),
        ("promp with options", "point"),
        ("maml-trpo with step sizes", "gridnavi"),
        ("reptile", "point"),
        ("multi-task", "gridnavi"),
        ("es-maml", "half-cheetah-vel"),
        ("es-maml", "gridnavi"),
        ("teacher-student", "half-cheetah-vel"),
        ("teacher-student", "gridnavi"),
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(agent: str, benchmark: str, tmp_path: Path) -> None:
    experiment = _experiment(agent, iterations=4, benchmark=benchmark)
    whole = _made("whole", experiment, tmp_path / "whole")
    _train(whole)
    parts = _made("parts", experiment, tmp_path / "parts")
    _train(parts, _stop_at(3))  # after an evaluation, between two checkpoints
    assert load_checkpoint(parts.folder / CHECKPOINT)["progress"]["iteration"] == 3
    _train(open_run(parts.folder))
    assert _same(whole.folder, parts.folder)
    assert rows_of(whole.folder) == rows_of(parts.folder)


@pytest.mark.thorough
def test_killed_between_checkpoints_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    experiment = _experiment("promp")
    whole = _made("whole", experiment, tmp_path / "whole")
    _train(whole)
    parts = _made("parts", experiment, tmp_path / "parts")

    def die() -> bool:
        if len(rows_of(parts.folder)) == 5:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        _train(parts, die)
    assert load_checkpoint(parts.folder / CHECKPOINT)["progress"]["iteration"] == 4
    _train(open_run(parts.folder))
    assert _same(whole.folder, parts.folder)
    assert rows_of(whole.folder) == rows_of(parts.folder)


def test_another_seed_trains_otherwise(tmp_path: Path) -> None:
    experiment = _experiment("promp", iterations=1)
    runs = [_made("a", experiment, tmp_path / "a")]
    runs.append(_made("b", Experiment(**{**vars(experiment), "seed": 1}), tmp_path / "b"))
    for run in runs:
        _train(run)
    assert runs[0].test_tasks != runs[1].test_tasks
    assert not _same(runs[0].folder, runs[1].folder)


def test_metrics_count_every_step_adaptation_included(tmp_path: Path) -> None:
    run = _made("run", _experiment("promp", iterations=2, benchmark="half-cheetah-dir"), tmp_path / "run")
    _train(run)
    # 2 tasks x 3 episodes x 6 steps, before and after adaptation
    assert [row["env_steps"] for row in rows_of(run.folder)] == ["72", "144"]


def test_evaluations_are_in_the_metrics_and_cost_no_training_steps(tmp_path: Path) -> None:
    run = _made("run", _experiment("promp"), tmp_path / "run")
    _train(run)
    filled = [row["iteration"] for row in rows_of(run.folder) if row["test/return_after_1"]]
    assert filled == ["3", "6"]


def test_tensorboard_has_the_metrics_over_environment_steps(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = _made("run", _experiment("promp", iterations=2), tmp_path / "run")
    _train(run)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    rows = rows_of(run.folder)
    recorded = events.Scalars("train/return_post")
    assert [event.step for event in recorded] == [int(row["env_steps"]) for row in rows]
    np.testing.assert_allclose(
        [e.value for e in recorded], [float(r["train/return_post"]) for r in rows], rtol=1e-6
    )


def test_divergence_names_iteration_and_task_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metarl.agents.promp import Promp

    run = _made("run", _experiment("promp", iterations=5), tmp_path / "run")
    collect = Promp.collect
    calls: list[int] = []

    def poisoned(self: Promp, *arguments: Any) -> MetaBatch:
        batch = collect(self, *arguments)
        calls.append(0)
        if len(calls) == 3:
            batch.batches[-1].advantages[1] = torch.nan
        return batch

    monkeypatch.setattr(Promp, "collect", poisoned)
    with pytest.raises(TrainingDiverged, match=r"iteration 3: .* is nan on task 1 .*checkpoint of iteration 2"):
        _train(run)
    state = load_checkpoint(run.folder / CHECKPOINT)
    assert state["progress"]["iteration"] == 2
    assert all(torch.isfinite(p).all() for p in state["agent"]["policy"].values())


def test_checkpoint_round_trips_and_keeps_the_one_before(tmp_path: Path) -> None:
    for number in range(3):
        save_checkpoint(tmp_path, {"x": torch.tensor(float(number)), "name": "a"})
    assert load_checkpoint(tmp_path / CHECKPOINT)["x"].item() == 2.0
    assert load_checkpoint(tmp_path / PREVIOUS)["x"].item() == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CHECKPOINT, PREVIOUS])


def test_a_truncated_checkpoint_is_an_error_that_points_to_the_one_before(tmp_path: Path) -> None:
    for _ in range(2):
        save_checkpoint(tmp_path, {"x": torch.zeros(1000)})
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CheckpointError, match=f"damaged or not a checkpoint.*{PREVIOUS}"):
        load_checkpoint(path)
    assert len(load_checkpoint(tmp_path / PREVIOUS)["x"]) == 1000


class Hostile:
    """What a file from elsewhere could hold: reading it must not run it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("hostile").touch, ())


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x89PNG\r\n", {"weights": [1]}, [1, 2], Hostile()])
def test_a_foreign_file_is_an_error_and_is_not_executed(
    content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / CHECKPOINT
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=CHECKPOINT):
        load_checkpoint(path)
    assert not Path("hostile").exists()


def test_a_checkpoint_of_another_network_is_an_error(tmp_path: Path) -> None:
    run = _made("run", _experiment("promp", iterations=1), tmp_path / "run")
    _train(run)
    ant = _made("ant", _experiment("promp", benchmark="half-cheetah-dir"), tmp_path / "ant")
    with pytest.raises(
        ValueError, match="a checkpoint of Promp on point, expected one of Promp on half-cheetah-dir"
    ):
        restore(make_agent(ant.experiment, ant.benchmark), streams(0), run.folder / CHECKPOINT, ant.benchmark)
    wider = replace(run.experiment, agent=replace(AGENTS["promp"], policy=PolicyConfig(hidden_sizes=(9,))))
    with pytest.raises(ValueError, match=r"another agent or network.*size mismatch"):
        restore(make_agent(wider, run.benchmark), streams(0), run.folder / CHECKPOINT, run.benchmark)


def test_metrics_of_iterations_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    logger = CsvLogger(tmp_path)
    for iteration in (1, 2, 3):
        logger.log(iteration, 10 * iteration, {"a": iteration / 3})
    logger = CsvLogger(tmp_path)
    logger.begin(2, 20)
    logger.log(3, 30, {"a": 7.5, "late": 1.0})
    rows = rows_of(tmp_path)
    assert [row["iteration"] for row in rows] == ["1", "2", "3"]
    assert [float(row["a"]) for row in rows] == [1 / 3, 2 / 3, 7.5]
    assert [row["late"] for row in rows] == ["", "", "1"]


def test_a_foreign_metrics_file_is_an_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n1,2\n")
    with pytest.raises(ValueError, match="not a run's metrics"):
        CsvLogger(tmp_path).begin(0, 0)
    assert path.read_text() == "step,loss\n1,2\n"


def test_a_row_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("iteration,env_steps,a\n1,10,0.5\n2,20,0.25\n1")
    CsvLogger(tmp_path).begin(2, 20)
    assert [row["iteration"] for row in rows_of(tmp_path)] == ["1", "2"]


@pytest.mark.parametrize("name", sorted(RL_PRESETS))
def test_every_preset_survives_json(name: str) -> None:
    import json

    experiment = RL_PRESETS[name].configuration
    assert decode(json.loads(json.dumps(encode(experiment)))) == experiment


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["sed"], 3, r"unknown fields \['sed'\]"),
        (["agent", "algorithm"], "dqn", "unknown algorithm 'dqn'; known: promp, maml-trpo"),
        (["agent", "outer_lr"], "fast", "outer_lr must be float, got 'fast'"),
        (["agent", "policy"], 3, "policy must be an object, got 3"),
        (["training", "iterations"], 0, "iterations"),
        (["device"], "tpu", "device must be"),
    ],
)
def test_a_malformed_configuration_names_the_field(path: Sequence[str], value: Any, message: str) -> None:
    data = encode(RL_PRESETS["quickstart"].configuration)
    inner = data
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=message):
        decode(data)


def _killed_at(run: Any, iteration: int) -> None:
    """Train until metrics.csv has the row of this iteration, and die there without a checkpoint."""

    def die() -> bool:
        if len(rows_of(run.folder)) == iteration:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        _train(run, die)


@pytest.mark.thorough
def test_killed_twice_before_the_first_checkpoint_equals_uninterrupted(tmp_path: Path) -> None:
    experiment = _experiment("promp")
    whole = _made("whole", experiment, tmp_path / "whole")
    _train(whole)
    parts = _made("parts", experiment, tmp_path / "parts")
    _killed_at(parts, 1)
    CsvLogger(parts.folder).begin(0, 0)  # as far as a resumed process came before it was killed too
    assert len((parts.folder / "metrics.csv").read_text().splitlines()) == 1
    assert not (parts.folder / CHECKPOINT).exists()
    _train(open_run(parts.folder))
    assert _same(whole.folder, parts.folder)
    assert rows_of(whole.folder) == rows_of(parts.folder)


@pytest.mark.thorough
@pytest.mark.parametrize("agent", ["promp", "pearl"])
def test_a_deleted_checkpoint_goes_on_from_the_one_before(
    agent: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    experiment = _experiment(agent)
    whole = _made("whole", experiment, tmp_path / "whole")
    _train(whole)
    parts = _made("parts", experiment, tmp_path / "parts")
    _killed_at(parts, 5)
    (parts.folder / CHECKPOINT).unlink()
    assert load_checkpoint(parts.folder / PREVIOUS)["progress"]["iteration"] == 2
    _train(open_run(parts.folder))
    assert f"going on from {parts.folder / PREVIOUS}" in caplog.text
    assert _same(whole.folder, parts.folder)
    assert rows_of(whole.folder) == rows_of(parts.folder)


@pytest.mark.thorough
def test_a_run_whose_checkpoints_are_all_gone_is_not_started_from_scratch(tmp_path: Path) -> None:
    run = _made("run", _experiment("promp"), tmp_path / "run")
    _killed_at(run, 5)
    for name in (CHECKPOINT, PREVIOUS):
        (run.folder / name).unlink()
    before = (run.folder / "metrics.csv").read_bytes()
    with pytest.raises(CheckpointError, match=r"no checkpoint, but its metrics\.csv is of 5 iterations"):
        _train(open_run(run.folder))
    assert (run.folder / "metrics.csv").read_bytes() == before


def _tampered(run: Any, change: Callable[[dict[str, Any]], None]) -> None:
    state = load_checkpoint(run.folder / CHECKPOINT)
    change(state)
    save_checkpoint(run.folder, state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("progress"), "progress"),
        (lambda s: s.update(progress=3), "progress"),
        (lambda s: s["progress"].pop("iteration"), "iteration"),
        (lambda s: s["progress"].update(iteration=-5), "iteration to be a whole number of zero or more, got -5"),
        (lambda s: s["progress"].update(iteration="3"), "iteration"),
        (lambda s: s["progress"].update(iteration=True), "iteration"),
        (lambda s: s["progress"].update(env_steps=1.5), "env_steps"),
        (lambda s: s["progress"].update(elapsed_s=float("nan")), "elapsed_s"),
        (lambda s: s["progress"].update(speed=3), "speed"),
        (lambda s: s.pop("generators"), "generators"),
        (lambda s: s.update(generators="{}"), "random streams"),
        (lambda s: s.update(generators="nonsense"), "Expecting value"),
        (lambda s: s.update(generators=s["generators"].replace("PCG64", "MT19937")), "PCG64|MT19937"),
        (lambda s: s.update(generators=seeding.dump_states(streams(1))), "another seed"),
        (lambda s: s.pop("agent"), "agent"),
        (lambda s: s.update(agent=[1]), "indices"),
    ],
)
def test_a_tampered_checkpoint_is_one_line(change: Any, message: str, tmp_path: Path) -> None:
    run = _made("run", _experiment("promp", iterations=1), tmp_path / "run")
    _train(run)
    _tampered(run, change)
    agent = make_agent(run.experiment, run.benchmark)
    with pytest.raises(ValueError, match=message) as raised:
        restore(agent, streams(0), run.folder / CHECKPOINT, run.benchmark)
    assert "\n" not in str(raised.value)
    assert str(run.folder / CHECKPOINT) in str(raised.value)


@pytest.mark.thorough
def test_the_best_checkpoint_is_that_of_the_best_evaluation(tmp_path: Path) -> None:
    episodes = EvaluationConfig(num_tasks=2, num_steps=1, num_episodes=10)  # so many that success rates differ
    run = _made("run", replace(_experiment("promp"), evaluation=episodes), tmp_path / "run")
    _train(run)
    tested = {
        int(row["iteration"]): float(row["test/success_after_1"])  # success counts where a family has it
        for row in rows_of(run.folder)
        if row["test/success_after_1"]
    }
    assert len(set(tested.values())) == 2
    best = load_checkpoint(run.folder / BEST)
    assert best["progress"]["iteration"] == max(tested, key=lambda iteration: tested[iteration])
    assert best["progress"]["best"] == pytest.approx(max(tested.values()))


def test_a_failing_write_says_which_checkpoint_is_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = _made("run", _experiment("promp"), tmp_path / "run")

    def fail_at_the_fourth() -> bool:
        if len(rows_of(run.folder)) == 3:
            monkeypatch.setattr(files.os, "fsync", full)
        return False

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"cannot write .*No space left.*[\d,]+ bytes.*of iteration 2 is intact"):
        _train(run, fail_at_the_fourth)
    monkeypatch.undo()
    assert load_checkpoint(run.folder / CHECKPOINT)["progress"]["iteration"] == 2
    assert not list(run.folder.glob(".*.tmp"))


def test_the_number_of_threads_is_restored_with_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = _made("run", _experiment("promp", iterations=1), tmp_path / "run")
    _train(run)
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        restore(make_agent(run.experiment, run.benchmark), streams(0), run.folder / CHECKPOINT, run.benchmark)
        assert torch.get_num_threads() == before
    finally:
        torch.set_num_threads(before)
    assert f"torch computes on {before} threads" in caplog.text
