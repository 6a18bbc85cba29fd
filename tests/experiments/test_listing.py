"""metarl list: families, filters, and terminals of 80 columns."""

import os

import pytest

from metarl.experiments.cli import main
from metarl.experiments.commands import listing
from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.presets.table import PRESETS


def test_every_preset_is_listed_below_the_heading_of_its_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    blocks = capsys.readouterr().out.strip().split("\n\n")
    families = {block.splitlines()[0]: [line.split()[0] for line in block.splitlines()[1:]] for block in blocks}
    assert families["point robots"][:2] == ["point-promp", "point-maml-trpo"]
    assert "ml10-pearl" in families["Meta-World"]
    assert "omniglot-protonet" in families["few-shot, Omniglot"]
    assert sorted(name for names in families.values() for name in names) == sorted(PRESETS)


@pytest.mark.parametrize("words", [["gridnavi"], ["experiments", "gridnavi"], ["experiments", "GRID NAV"]])
def test_a_list_is_filtered_by_a_text_or_by_its_family(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", *words]) == 0
    shown = capsys.readouterr().out
    assert "gridnavi-rl2" in shown
    assert "quickstart" not in shown


def test_a_text_that_nothing_contains_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "benchmarks", "moon"]) == 2
    assert capsys.readouterr().err == "metarl: error: nothing of benchmarks contains 'moon'\n"


@pytest.mark.parametrize("what", ["experiments", "benchmarks", "studies"])
def test_no_line_is_longer_than_a_terminal_of_80_columns(
    what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["list", what]) == 0
    whole = capsys.readouterr().out
    assert max(map(len, whole.splitlines())) > 80  # what other programs read is a line for each row
    monkeypatch.setattr(listing.sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(listing.shutil, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    assert main(["list", what]) == 0
    wrapped = capsys.readouterr().out
    assert max(map(len, wrapped.splitlines())) <= 80
    assert wrapped.split() == whole.split()


def test_benchmarks_say_whether_their_tasks_are_shared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "benchmarks", "half-cheetah"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    assert rows["half-cheetah-dir"].endswith("; shared")
    assert not rows["half-cheetah-vel"].endswith("shared")


def test_studies_are_listed_with_their_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "studies"]) == 0
    shown = capsys.readouterr().out
    for name, preset in STUDIES.items():
        assert f"  {name} " in shown
        assert preset.configuration.benchmark in shown
        assert preset.source in shown
