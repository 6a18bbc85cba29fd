"""The main job, whole: what the README's first command promises."""

import json
from pathlib import Path

import pytest

from metarl.experiments.cli import main


@pytest.mark.slow
def test_quickstart_adapts_in_one_gradient_step(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main(["train", "quickstart", "--out", str(folder)]) == 0
    result = json.loads((folder / "evaluation.json").read_text())
    before, after = result["adaptation"][:2]
    assert after["return_ci95"][0] > before["return_ci95"][1] + 30
    assert after["return_ci95"][0] > result["baselines"]["untrained"][1]["return_ci95"][1] + 30
