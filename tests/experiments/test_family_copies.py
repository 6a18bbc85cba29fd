"""Runs on a family file keep a copy of all its files, and are read from there."""

import json
import shutil
from pathlib import Path

import pytest

import metarl
from metarl.experiments.cli import main
from tests.experiments.tiny import TINY

FAMILY = """
name: slider
model: slider.xml
horizon: 6
ranges: [{field: damping, low: 0.5, high: 2}]
reward: [{term: position, of: hand}]
"""
MODEL = """<mujoco><include file="parts/option.xml"/>
<worldbody><body name="hand"><joint name="j" type="slide" damping="1"/><geom size="0.1"/></body></worldbody>
<actuator><motor joint="j" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""
WORDS = [*TINY, "--agent.policy.hidden-sizes", "8"]


@pytest.fixture
def slider(tmp_path: Path) -> Path:
    """A family file, its model, and what that includes."""
    folder = tmp_path / "slider"
    (folder / "parts").mkdir(parents=True)
    (folder / "family.yaml").write_text(FAMILY)
    (folder / "slider.xml").write_text(MODEL)
    (folder / "parts" / "option.xml").write_text('<mujoco><option timestep="0.004"/></mujoco>')
    return folder / "family.yaml"


def _train(family: Path, run: Path) -> int:
    return main(["train", "point-promp", "--benchmark", str(family), "--horizon", "6", "--out", str(run), *WORDS])


@pytest.mark.thorough
def test_a_run_needs_none_of_its_familys_files_any_more(slider: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert _train(slider, run) == 0
    copies = sorted(p.relative_to(run / "family").as_posix() for p in (run / "family").rglob("*.*"))
    assert copies == ["family.yaml", "parts/option.xml", "slider.xml"]
    assert json.loads((run / "config.json").read_text())["experiment"]["benchmark"] == str(slider.resolve())
    shutil.rmtree(slider.parent)
    assert main(["resume", str(run), "--iterations", "2"]) == 0
    assert main(["evaluate", str(run), "--num-tasks", "2"]) == 0
    moved = run.rename(tmp_path / "moved")
    assert metarl.open_run(moved).agent() is not None


def test_a_run_is_not_changed_by_a_change_of_its_family(slider: Path, tmp_path: Path) -> None:
    assert _train(slider, tmp_path / "run") == 0
    before = metarl.open_run(tmp_path / "run").benchmark.family
    slider.write_text(FAMILY.replace("high: 2", "high: 3"))
    (slider.parent / "parts" / "option.xml").write_text('<mujoco><option timestep="0.002"/></mujoco>')
    after = metarl.open_run(tmp_path / "run").benchmark.family
    assert after.parameters == before.parameters
    assert after.build_model().opt.timestep == 0.004


def test_files_from_elsewhere_are_refused_in_one_line(
    slider: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = slider.parent / "slider.xml"
    outside = model.rename(tmp_path / "secret.xml")
    shutil.copytree(slider.parent / "parts", tmp_path / "parts")
    for name in ("slider.xml", "../secret.xml"):
        if name == "slider.xml":
            model.symlink_to(outside)
        slider.write_text(FAMILY.replace("slider.xml", name))
        capsys.readouterr()
        assert _train(slider, tmp_path / "run") == 2
        error = capsys.readouterr().err
        assert "lies outside of" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "run").exists()
        assert not list(tmp_path.glob(".run*"))


def test_files_that_are_too_large_are_refused(
    slider: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("metarl.envs.dynamics.files._MOST_BYTES", 300)
    assert _train(slider, tmp_path / "run") == 2
    assert "at most 0 MiB together" in capsys.readouterr().err
