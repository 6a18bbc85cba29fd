"""Torch's threads do not spin for long beside other work, and how they wait changes no result."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from metarl.experiments.bench import threads
from metarl.experiments.bench.updates import UpdateSizes, make_updates
from metarl.runs.threads import SPINS, limit_spinning

TINY = UpdateSizes(num_trials=2, num_tasks=2, num_images=1, at_least_s=0.0)


def _python(code: str, variables: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | variables, capture_output=True, text=True, check=True
    )


@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp's settings")
def test_libgomp_reads_the_number_of_spins_of_the_command_line(tmp_path: Path) -> None:
    """A torch that ends the process when it has loaded libgomp, as torch does first, stands in for the whole."""
    (libgomp,) = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libgomp" in line
    }
    (tmp_path / "torch.py").write_text(f"import ctypes\nctypes.CDLL({libgomp!r})\nraise SystemExit(7)\n")
    code = f"""
import sys, metarl.experiments.cli
assert "torch" not in sys.modules
sys.path.insert(0, {str(tmp_path)!r})
try:
    metarl.experiments.cli.main(["study"])
except SystemExit as end:
    assert end.code == 7
"""
    shown = _python(code, {"OMP_DISPLAY_ENV": "verbose"}).stderr
    assert f"GOMP_SPINCOUNT = '{SPINS}'" in shown


def test_a_users_waiting_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert not limit_spinning()
    assert "GOMP_SPINCOUNT" not in os.environ
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")  # so that it is put back
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert limit_spinning()
    assert os.environ["GOMP_SPINCOUNT"] == str(SPINS)


def test_after_torch_is_imported_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert "torch" in sys.modules
    assert not limit_spinning()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_the_updates_of_the_bench_are_those_of_presets() -> None:
    updates = make_updates(TINY)
    assert list(updates) == ["rl2", "promp", "conv", "quickstart"]
    metrics = updates["quickstart"]()
    assert isinstance(metrics, dict)
    assert "train/return_post" in metrics


def test_ratios_are_over_the_first_setting_alone_and_fit_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["rl2", "promp", "conv", "quickstart"]
    seconds = {"": (2.0, 38.0 * 2), "1": (3.0, 5.0)}

    def measure(setting: Mapping[str, str], sizes: UpdateSizes) -> tuple[dict[str, float], dict[str, float]]:
        alone, beside = seconds[setting.get("OMP_NUM_THREADS", "")]
        return dict.fromkeys(kinds, alone), dict.fromkeys(kinds, beside)

    monkeypatch.setattr(threads, "_measure", measure)
    result = threads.bench(3, TINY)
    assert result["ratios"]["libgomp's own"] == {
        "alone": dict.fromkeys(kinds, 1.0),
        "beside": dict.fromkeys(kinds, 38.0),
    }
    assert result["ratios"]["one thread"]["beside"]["conv"] == 2.5
    assert len(result["rounds"]["one thread"]["alone"]) == 3
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.slow
def test_the_bench_measures_in_processes_with_the_setting() -> None:
    result = threads.bench(1, TINY, {"default": {}, "one thread": {"OMP_NUM_THREADS": "1"}})
    for places in result["seconds"].values():
        assert all(seconds > 0 for by_kind in places.values() for seconds in by_kind.values())


@pytest.mark.slow
def test_the_way_of_waiting_changes_no_bit() -> None:
    code = """
import hashlib, json, sys, torch
from metarl.experiments.bench import updates
torch.set_num_threads(2)
losses = {}
for name, update in updates.make_updates(updates.UpdateSizes(20, 4, 4)).items():
    for _ in range(3):
        metrics = update()
    losses[name] = {k: v.hex() if isinstance(v, float) else str(v) for k, v in metrics.items() if "time" not in k}
print(json.dumps(losses))
"""
    settings = ({"GOMP_SPINCOUNT": "0"}, {"GOMP_SPINCOUNT": "1000"}, {"GOMP_SPINCOUNT": "300000"})
    results = [json.loads(_python(code, setting).stdout) for setting in settings]
    assert results[0]["rl2"]
    assert results[0] == results[1] == results[2]
