"""A robot of a YAML file learns to reach: MuJoCo's reacher, by reward terms, to a place that is the task."""

from pathlib import Path

import pytest

import metarl
from metarl.experiments.cli import main
from tests.envs.test_reward_terms import REACHER


@pytest.mark.slow
def test_a_reacher_of_a_family_file_learns_to_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("reacher.yaml").write_text(REACHER)
    words = ["--training.iterations", "20", "--training.evaluate-every", "0", "--out", "run"]
    assert main(["train", "rl2", "--benchmark", "reacher.yaml", *words]) == 0
    result = metarl.open_run("run").evaluate(num_tasks=40)
    trained, untrained = (
        curve[0]["return_mean"] for curve in (result["adaptation"], result["baselines"]["untrained"])
    )
    assert untrained == pytest.approx(-10.2, abs=1.0)
    assert trained > untrained + 1.5
