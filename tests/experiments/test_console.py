"""What is shown fits in a terminal of 80 columns: live lines, tables, listings, runs, and help."""

import itertools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from metarl.experiments.catalogue import experiment_of_word
from metarl.experiments.cli import main
from metarl.experiments.commands.listing import lines
from metarl.experiments.comparison.tables import show
from metarl.experiments.console import TrainingDisplay, fitted, shortened, show_curves, show_families, show_table
from metarl.experiments.loading import prepare_run
from metarl.experiments.outside import OwnWords
from metarl.experiments.seeds import Member, _Lines
from metarl.loop import Progress

LONG = "an-experiment-whose-name-is-as-long-as-that-of-a-benchmark-and-an-algorithm-together"


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of standard output, none of them longer than the terminal."""
    text = capsys.readouterr().out.splitlines()
    assert text
    assert max(map(len, text)) <= 80
    return text


def cells(text: list[str]) -> set[str]:
    return {cell.strip() for line in text for cell in re.split("[│┃]", line)}


def test_the_time_left_is_the_last_that_a_live_line_gives_up() -> None:
    line = "iteration 1/2  1,000 steps  9,999/s  return -1.00 -> 2.00  0:07 left"
    assert fitted(line, 80) == line
    assert fitted(line, 60) == "iteration 1/2  1,000 steps  return -1.00 -> 2.00  0:07 left"
    assert fitted(line, 40) == "iteration 1/2  1,000 steps  0:07 left"
    assert fitted(line, 27) == "iteration 1/2  0:07 left"
    for width in range(1, 80):
        assert len(fitted(line, width)) <= width
        assert fitted(line, width).endswith("left") or width < 13


def test_a_long_text_is_shortened_in_its_middle() -> None:
    assert shortened("0123456789", 7) == "012…789"
    assert shortened("0123456789", 10) == "0123456789"


def test_the_live_line_of_a_long_training_fits(capsys: pytest.CaptureFixture[str]) -> None:
    run = prepare_run("point-promp", experiment_of_word("point-promp").experiment, {})
    display = TrainingDisplay(10_000, run.describe)
    metrics = {"time/env_steps_per_s": 123456.0, "train/return_pre": -12345.67, "train/return_post": -12345.67}
    progress = Progress(iteration=10_000, env_steps=10_000_000_000, elapsed_s=1.0)
    whole = display.line(progress, metrics)
    assert len(whole) > 80
    display.report(progress, metrics)
    (line,) = shown(capsys)
    assert line.startswith("iteration 10000/10000  ")
    assert line.endswith("  0:00 left")


def test_lines_of_several_runs_fit(capsys: pytest.CaptureFixture[str]) -> None:
    members = [Member(Path("run"), f"{LONG} {seed}", OwnWords()) for seed in range(2)]
    for member in members:
        member.state = "training"
        member.line = "iteration 1/2  1,000 steps  9,999/s  return -1000.00 -> 2000.00  0:07 left"
    display = _Lines(members)
    display._printed = {0: ("waiting", -1e9), 1: ("waiting", -1e9)}
    display.show()
    text = shown(capsys)
    assert len(text) == 2
    assert all(line.endswith("0:07 left") for line in text)


CURVE = {
    "step": 3,
    "return_mean": -12345.67,
    "return_ci95": [-12345.67, -12345.67],
    "return_worst_decile": -12345.67,
    "worst_decile_cross_fitted": True,
    "success_mean": 0.25,
    "success_ci95": [0.125, 0.375],
}


def test_an_evaluation_of_long_names_fits_whole(capsys: pytest.CaptureFixture[str]) -> None:
    show_curves(LONG, {LONG: [CURVE], "untrained": [CURVE]})
    show_families(LONG, {LONG: {"num_tasks": 1000, "adaptation": [CURVE]}})
    text = shown(capsys)
    assert {"-12345.67", "[-12345.67, -12345.67]", "[0.125, 0.375]", "0.250", "untrained"} <= cells(text)


@pytest.mark.parametrize("keys", [1, 2, 3])
@pytest.mark.parametrize("width", [80, 60])
def test_a_table_of_any_size_fits_and_loses_nothing(
    keys: int, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    columns = ["name", "steps", "episodes", *(f"a long heading of a number {i}" for i in range(6)), "95% interval"]
    rows = [[LONG, "100,000", "7", *(f"{row}{i}.12345" for i in range(6)), f"[{row}.5, {row}.7]"] for row in "12"]
    show_table("title", columns, rows, keys=keys)
    text = shown(capsys)
    assert max(map(len, text)) <= width
    assert set(itertools.chain(*(row[1:] for row in rows))) <= cells(text)
    assert "".join(re.sub(r"\s", "", line.split("│")[1]) for line in text if "│" in line).count(LONG) >= 2


def test_a_table_that_fits_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    show_table("title", ["name", "a number"], [["a", "1"], ["b", "2"]])
    assert len(shown(capsys)) == 7


def test_a_table_in_a_file_lines_up_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr("shutil.get_terminal_size", os.terminal_size)
    show_table("title", ["name", *("a number" for _ in range(20))], [["a" * 100, *("12345" for _ in range(20))]])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 14  # of several tables
    assert max(map(len, lines)) <= 80


def test_the_bounds_of_a_ratio_stay_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["contender", *(f"heading{i}" * 2 for i in range(2)), "times as fast", "lowest, highest"]
    show_table("title", columns, [["this", "1" * 20, "2" * 20, "1.00", "[0.90, 1.10]"]])
    (row,) = [line for line in shown(capsys) if "1.00" in line]
    assert "[0.90, 1.10]" in row
    assert "1" * 20 not in row  # so that there are several tables


def test_a_comparison_of_long_names_fits(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"step": 100, "return_mean": -1234.5, "return_ci95": [-1234.5, -1234.5], "return_iqm": -1234.5}
    group = {"seeds": [0, 1, 2], "adaptation": [row | {"success_mean": 0.5}]}
    pair = {"first": LONG, "second": "b", "difference": -1234.5, "difference_ci95": [-1234.5, -1234.5]}
    pair |= {"probability_of_improvement": 0.5, "probability_ci95": [0.25, 0.75]}
    show({"benchmark": "point", "num_tasks": 40, "groups": {LONG: group, "b": group}, "pairs": [pair]})
    assert {"-1234.5", "[-1234.5, -1234.5]", "0.50", "[0.25, 0.75]"} <= cells(shown(capsys))


def test_a_listing_of_long_names_fits() -> None:
    listing = lines({"family": [(LONG[:70], "a text " * 20), ("short", "a text")]}, 80)
    assert max(map(len, listing)) <= 80
    assert "  " + LONG[:70] in listing
    assert any(re.fullmatch("  short +a text", line) for line in listing)


def test_a_printed_run_fits(tmp_path: Path) -> None:
    run = prepare_run(LONG, experiment_of_word("point-promp").experiment, {})
    text = str(replace(run, folder=tmp_path)).removesuffix(f"\n  {tmp_path}").splitlines()
    assert max(map(len, text)) <= 80
    assert " ".join(map(str.strip, text)).endswith("seed 0: 50 iterations, not evaluated yet")
    assert text[0].startswith(LONG[:70])
    (tmp_path / "evaluation.json").touch()
    assert "50 iterations, evaluated\n" in str(replace(run, folder=tmp_path))


COMMANDS = ["resume", "evaluate", "video", "queue", "compare", "bench", "list", "study quick", "train point-promp"]


@pytest.mark.parametrize("words", [*COMMANDS, "train omniglot-protonet", "train sinusoid-maml"])
def test_help_reads_well_and_fits(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words.split(), "--help"])
    assert not stop.value.code
    text = "\n".join(shown(capsys))
    assert "{None}" not in text
    assert "{fixed}" not in text
    assert "default: None" not in text
    if words in ("evaluate", "train point-promp"):
        assert "--horizon INT or none" in text


@dataclass(frozen=True)
class _Options:
    count: int | None = 3
    device: str | None = None


@pytest.mark.parametrize("word", ["none", "None", "NONE"])
def test_none_is_read_in_any_case(word: str) -> None:
    from metarl.experiments.arguments import parse

    assert parse(_Options, ["--count", word], "program").count is None
    assert parse(_Options, ["--count", "7", "--device", "cpu"], "program") == _Options(7, "cpu")
