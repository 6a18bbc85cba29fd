"""metarl results: the recorded page is what the command makes, and what it takes in, combines and refuses."""

import csv
import json
import math
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import metarl
from metarl.experiments.cli import main
from metarl.experiments.commands.results import write_page
from metarl.experiments.comparison.records import METRICS
from metarl.experiments.evidence.adding import add
from metarl.experiments.evidence.entries import best, curve, read_entries, reference, untrained
from metarl.experiments.evidence.figures import draw
from metarl.experiments.evidence.markdown import amount, duration, table
from metarl.experiments.evidence.notes import read_notes
from metarl.experiments.evidence.page import FIGURES, PAGE, Part, page, parts_of
from metarl.experiments.loading import prepare_run
from metarl.experiments.presets.table import PRESETS, preset
from metarl.experiments.runs import make_run

ROOT = Path(metarl.__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
REMEDY = "run `metarl results experiments/results` and commit what it writes"


@pytest.fixture(scope="module")
def parts() -> list[Part]:
    return parts_of(RESULTS)


def test_the_recorded_page_is_what_the_command_makes(parts: list[Part]) -> None:
    assert page(RESULTS, parts) == (RESULTS / PAGE).read_text(encoding="utf-8"), REMEDY


def _same_matplotlib() -> bool:
    """Whether figures can be compared byte by byte: others draw the same curves a little differently."""
    return f"matplotlib=={version('matplotlib')}" in (ROOT / "constraints.txt").read_text().split()


@pytest.mark.skipif(not _same_matplotlib(), reason="the recorded figures are of another matplotlib")
@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[] if n == 4 else [pytest.mark.slow]) for n in range(10)]
)
def test_the_recorded_figures_are_what_the_command_draws(parts: list[Part], number: int) -> None:
    part = parts[number]
    drawn = draw(best(part.entries), part.note.measure)
    assert drawn == (RESULTS / FIGURES / part.figure).read_bytes(), REMEDY


def test_every_section_and_run_is_on_the_page(parts: list[Part]) -> None:
    assert len(parts) >= 10
    assert {part.figure for part in parts} == {path.name for path in (RESULTS / FIGURES).glob("*.svg")}
    recorded = {path.parent for path in [*RESULTS.glob("*/config.json"), *RESULTS.glob("*/*/config.json")]}
    assert {folder for part in parts for entry in part.entries for folder in entry.folders} == recorded
    names = {entry.name for part in parts for entry in part.entries}
    assert set(read_notes(RESULTS).runs) - names <= set(PRESETS)  # figures of presets that are not recorded yet


def evaluation(seed: int, last: float, half: float = 1.0) -> dict[str, Any]:
    """An evaluation of two steps, with its baselines."""

    def row(step: int, mean: float) -> dict[str, Any]:
        return {"step": step, "return_mean": mean, "return_ci95": [mean - half, mean + half]}

    baselines = {
        "untrained": [row(0, 0.0), row(1, 0.5)],
        "A": [row(0, 2.0), row(1, 3.0)],
        "B": [row(0, 9.0), row(1, 2)],
    }
    data = {"seed": seed, "num_tasks": 4, "num_episodes": 2, "train_env_steps": 1200, "train_wall_s": 10.0 + seed}
    return data | {"adaptation": [row(0, 1.0), row(1, last)], "baselines": baselines}


def record(folder: Path, seed: int, last: float, **changes: Any) -> Path:
    """A finished run folder of point-promp, with weights that no copy should have."""
    run = make_run(prepare_run("point-promp", preset("point-promp")), folder)
    config = json.loads((run.folder / "config.json").read_text())
    config["experiment"] |= {"seed": seed, **changes}
    (run.folder / "config.json").write_text(json.dumps(config))
    (run.folder / "evaluation.json").write_text(json.dumps(evaluation(seed, last)))
    with (run.folder / "metrics.csv").open("w", newline="") as file:
        rows = [(i + 1, 100 * (i + 1), i + seed) for i in range(12)]
        csv.writer(file).writerows([("iteration", "env_steps", "train/return_post"), *rows])
    (run.folder / "checkpoint.pt").write_bytes(b"weights")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of results with three seeds of one name."""
    tmp_path = tmp_path_factory.mktemp("made")
    for seed, last in enumerate((4.0, 5.0, 6.0)):
        record(tmp_path / "runs" / "point-promp" / f"seed{seed}", seed, last)
    assert main(["results", str(tmp_path / "results"), "--add", str(tmp_path / "runs" / "point-promp")]) == 0
    return tmp_path / "results"


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "results"))


def test_added_runs_are_slim_and_on_the_page(results: Path) -> None:
    assert {path.name for path in (results / "point-promp" / "seed2").iterdir()} == {
        "config.json",
        "evaluation.json",
        "metrics.csv",
    }
    text = (results / PAGE).read_text()
    assert "metarl train point-promp --seeds 0,1,2" in text
    assert "| [point-promp](point-promp) | 0, 1, 2 | 1.2 k | 0:10 to 0:12 | 4 tasks, 2 each |" in text
    assert f"![Learning curves: Other runs]({FIGURES}/other-runs.svg)" in text
    assert (results / FIGURES / "other-runs.svg").read_text().count("<svg") == 1
    (results / FIGURES / "gone.svg").write_text("<svg/>")
    write_page(results)
    text = text.replace("made0/results", f"{results.parent.name}/results")
    assert [path.name for path in (results / FIGURES).iterdir()] == ["other-runs.svg"]
    assert (results / PAGE).read_text() == text


def test_rows_of_very_many_tasks_are_left_out_of_a_copy(results: Path, tmp_path: Path) -> None:
    run = record(tmp_path / "many", 3, 5.0)
    result = json.loads((run / "evaluation.json").read_text())
    for name, count in (("evaluation-few.json", 200), ("evaluation-many.json", 201)):
        (run / name).write_text(json.dumps(result | {"tasks": [{"family": "point", "params": {}}] * count}))
    (copy,) = add([run], results)
    assert len(json.loads((copy / "evaluation-few.json").read_text())["tasks"]) == 200
    many = json.loads((copy / "evaluation-many.json").read_text())
    assert many["tasks"] == []
    assert many["adaptation"] == result["adaptation"]


def test_intervals_are_over_seeds_and_tasks(results: Path) -> None:
    (entry,) = read_entries(results)
    assert entry.seeds == [0, 1, 2]
    first, last = curve(entry.main, "return")
    assert first.mean == 1.0
    assert (first.low, first.high) == pytest.approx((0.0, 2.0))  # seeds agree: what is left is over tasks
    # Student's t with two degrees of freedom is 4.3027, the spread of 4, 5 and 6 is 1, the width over tasks is 1.
    half = math.hypot(4.302652729749464 / math.sqrt(3), 1.0)
    assert last == pytest.approx((5.0, 5.0 - half, 5.0 + half))
    bare = untrained(entry.main, "return")
    assert bare is not None
    assert bare.mean == 0.5
    other = reference(entry.main, "return")
    assert other is not None
    assert (other[0], other[1].mean) == ("A", 3.0)  # the best after the last step, not before
    assert curve(entry.main, "success") == []


@pytest.mark.thorough
def test_sections_published_figures_and_findings_come_from_the_notes(results: Path) -> None:
    (results / "notes.yaml").write_text(
        "sections:\n  - {title: Points, measure: return, runs: ['point-*'], finding: It learns.}\n"
        "runs:\n  point-promp: {published: 5.5, source: 'Someone | 2016', finding: Near.}\n"
    )
    (results / "findings.md").write_text("# Notes\n\n## Points\n\nMore.\n\n## Speed\n\nFast.\n")
    write_page(results)
    text = (results / PAGE).read_text()
    for part in (
        "## Points\n\nIt learns.\n\nMore in the [notes](findings.md#points).",
        r"| 5.5 (Someone \| 2016) |",
        "- **point-promp**: Near.",
        "- [Speed](findings.md#speed)",
        f"({FIGURES}/points.svg)",
    ):
        assert part in text, part
    assert "Other runs" not in text
    (results / "findings.md").write_text("## Points\n\nMore.")  # without a line before
    write_page(results)
    assert "More in the [notes](findings.md#points)." in (results / PAGE).read_text()


def test_the_summary_has_the_entry_with_the_most_seeds(results: Path) -> None:
    shutil.copytree(results / "point-promp" / "seed0", results / "point-promp-seed0")
    entries = read_entries(results)
    assert [len(entry.runs) for entry in entries] == [3, 1]
    assert best(entries) == [entries[0]]
    shutil.rmtree(results / "point-promp" / "seed1")
    shutil.rmtree(results / "point-promp" / "seed2")
    assert [entry.grouped for entry in best(read_entries(results))] == [True]  # of equal ones, the newer layout


def test_settings_that_are_newer_than_a_run_are_what_they_were_by_default(results: Path, tmp_path: Path) -> None:
    path = results / "point-promp" / "seed1" / "config.json"
    config = json.loads(path.read_text())
    assert config["experiment"].pop("observe_task") is False
    path.write_text(json.dumps(config))
    differs = record(tmp_path / "differs", 8, 1.0, observe_task=True)
    with pytest.raises(ValueError, match=r"other settings than .*differs \(observe_task: False, True\)"):
        add([differs], results)
    assert add([record(tmp_path / "same", 7, 1.0)], results) == [results / "point-promp" / "seed7"]


def test_seeds_may_have_been_looked_at_more_or_less_often(results: Path, tmp_path: Path) -> None:
    config = json.loads((results / "point-promp" / "seed1" / "config.json").read_text())
    often = config["experiment"]["training"] | {"evaluate_every": 3, "checkpoint_every": 5}
    assert often != config["experiment"]["training"]
    assert add([record(tmp_path / "often", 7, 1.0, training=often)], results) == [
        results / "point-promp" / "seed7"
    ]


def test_a_run_of_seed_0_has_the_test_tasks_of_several_seeds(results: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        shutil.rmtree(results / "point-promp" / f"seed{seed}")
    config = json.loads((results / "point-promp" / "seed0" / "config.json").read_text())
    evaluation = config["experiment"]["evaluation"]
    assert evaluation["task_seed"] is None
    others = {seed: evaluation | {"task_seed": seed} for seed in (0, 5)}
    with pytest.raises(ValueError, match=r"evaluation\.task_seed: None, 5"):
        add([record(tmp_path / "other", 7, 1.0, evaluation=others[5])], results)
    assert add([record(tmp_path / "same", 7, 1.0, evaluation=others[0])], results) == [
        results / "point-promp" / "seed7"
    ]


def test_what_cannot_be_added_is_refused_as_a_whole(results: Path, tmp_path: Path) -> None:
    good = record(tmp_path / "good", 7, 1.0)
    again = record(tmp_path / "again", 1, 1.0)
    other = record(tmp_path / "other", 8, 1.0, horizon=7)
    unfinished = record(tmp_path / "unfinished", 9, 1.0)
    (unfinished / "evaluation.json").unlink()
    damaged = [record(tmp_path / name, 9, 1.0) for name in ("list", "cut", "null", "rows")]
    whole = (damaged[1] / "evaluation.json").read_text()
    for folder, text in zip(damaged[:3], ("[]", whole[:100], '{"tasks": null}'), strict=True):
        (folder / "evaluation.json").write_text(text)
    (damaged[3] / METRICS).write_text("")
    before = sorted(results.rglob("*"))
    for bad, message in (
        (again, "is there already"),
        (other, "other settings"),
        (unfinished, "not finished"),
        (damaged[0], "is no evaluation: expected names with values"),
        (damaged[1], "is not JSON"),
        (damaged[2], "is no evaluation"),
        (damaged[3], "has no column env_steps or no rows"),
    ):
        with pytest.raises(ValueError, match=message):
            add([good, bad], results)
        assert sorted(results.rglob("*")) == before
    with pytest.raises(ValueError, match=r"got '\.\./x'"):
        add([good], results, "../x")
    assert add([other], results, "apart") == [results / "apart" / "seed8"]
    add([good], results, "my [run] 2")
    write_page(results)
    assert r"[my \[run\] 2](my%20%5Brun%5D%202)" in (results / PAGE).read_text()


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ("- a", "expected sections and runs"),
        ("sections:\n  - {title: A, measure: size, runs: [a]}", "measure must be one of return, trial"),
        ("sections:\n  - {title: A, measure: return}", "a section needs runs"),
        ("sections:\n  - {title: A, measure: return, runs: a}", "runs must be a list of texts"),
        ("runs:\n  a: {publish: 3}", "expected some of published, source, finding"),
        ("runs:\n  a: {published: [3]}", "published must be a text"),
        ("runs: 3", "expected names of runs"),
        ("sections: 3", "expected a list of sections"),
    ],
)
def test_malformed_notes_are_one_line(
    results: Path, notes: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "notes.yaml").write_text(notes)
    before = (results / PAGE).read_text()
    capsys.readouterr()
    assert main(["results", str(results)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (results / PAGE).read_text() == before


def test_mistakes_are_one_line(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    (results / "point-promp" / "seed0" / "evaluation.json").write_text('{"adaptation": []}')
    for words, message in (
        ([str(tmp_path / "none")], "is no folder of results"),
        ([str(results), "--name", "x"], "--name is the name of the runs that --add adds"),
        ([str(results), "--add", str(tmp_path)], "no run folder"),
        ([str(results)], "is no evaluation"),
    ):
        assert main(["results", *words]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_an_empty_folder_has_a_page(tmp_path: Path) -> None:
    write_page(tmp_path)
    assert "No runs are recorded yet." in (tmp_path / PAGE).read_text()


def test_a_page_and_figures_of_others_are_left_as_they_are(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, run = tmp_path / "project", next(results.glob("*/*/config.json")).parent
    (project / FIGURES).mkdir(parents=True)
    (project / FIGURES / "own.svg").write_text("a drawing")
    (project / PAGE).write_text("# A project")
    capsys.readouterr()
    assert main(["results", str(project), "--add", str(run)]) == 2
    assert "is no page of results" in capsys.readouterr().err
    assert (project / PAGE).read_text() == "# A project"
    assert {path.name for path in project.iterdir()} == {PAGE, FIGURES}
    (project / PAGE).unlink()
    write_page(project)
    assert (project / FIGURES / "own.svg").read_text() == "a drawing"


def test_tables_leave_out_empty_columns_and_numbers_are_short() -> None:
    assert table([{"a": "1", "b": "", "c": "x|y"}, {"a": "", "b": "", "c": "z"}]) == [
        "| a | c |",
        "|---|---|",
        r"| 1 | x\|y |",
        "|  | z |",
    ]
    assert [duration(seconds) for seconds in (9.6, 65, 3725)] == ["0:10", "1:05", "1 h 02"]
    assert [amount(count) for count in (0, 12, 2860000, 28800)] == ["", "12", "2.86 M", "28.8 k"]


@pytest.mark.parametrize(
    "change",
    [
        {"num_tasks": None},
        {"train_env_steps": None},
        {"train_wall_s": "long"},
        {"adaptation": [{"step": 0, "return_mean": None, "return_ci95": None}]},
        {"adaptation": [{"step": None, "return_mean": 1.0, "return_ci95": None}]},
        {"adaptation": [{"step": 0, "return_mean": 1.0, "return_ci95": [1.0]}]},
        {"baselines": None},
        {"baselines": {"untrained": [None]}},
        {"splits": []},
        {"trials": {"meta-trained": 3}},
    ],
)
def test_damaged_evaluations_are_one_line(
    results: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(results.glob("*/*/evaluation.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    capsys.readouterr()
    assert main(["results", str(results)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("part", ["training", "evaluation", "seed"])
def test_damaged_configurations_are_one_line(results: Path, part: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(results.glob("*/*/config.json"))
    data = json.loads(path.read_text())
    data["experiment"][part] = None
    path.write_text(json.dumps(data))
    capsys.readouterr()
    assert main(["results", str(results)]) == 2
    error = capsys.readouterr().err
    assert f"expected {part} of the experiment" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "content",
    [
        {"learners": [], "sets": {}},
        {"learners": {}, "sets": {"all": {"meaning": "all", "num_tasks": 3}}, "versions": {}},
        {
            "learners": {"promp": {"train_env_steps": 1, "train_wall_s": 1.0}},
            "oracle": None,
            "sets": {"all": {"learners": {"promp": {"adaptation": []}}}},
        },
    ],
)
def test_damaged_studies_are_one_line(
    results: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = results / "a-study"
    folder.mkdir()
    (folder / "study.json").write_text("{}")
    (folder / "results.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["results", str(results)]) == 2
    error = capsys.readouterr().err
    assert f"{folder} holds no results of a study" in error
    assert error.count("\n") == 1
