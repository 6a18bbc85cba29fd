"""Bounds of whole numbers: what no machine can do is refused in one line before torch or MuJoCo get it."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from metarl.envs.dynamics import SimulatorGap, load_family
from metarl.envs.dynamics.ranges import Change, Range
from metarl.envs.mujoco.robots import ROBOTS
from metarl.experiments.cli import main
from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.presets.table import PRESETS

Field = tuple[Any, str, bool]


def _parts(value: Any) -> Iterator[Any]:
    """All configurations within one, itself first."""
    if is_dataclass(value):
        yield value
        for field in fields(value):
            yield from _parts(getattr(value, field.name))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _parts(part)


def _whole_numbers() -> dict[str, Field]:
    """All fields of whole numbers by name: an object that has it, its name, whether it is a tuple."""
    by_label: dict[str, Field] = {}
    others = [SimulatorGap(), ROBOTS["half-cheetah"]]
    for configuration in [*(preset.configuration for preset in [*PRESETS.values(), *STUDIES.values()]), *others]:
        for part in _parts(configuration):
            for name, hint in get_type_hints(type(part)).items():
                kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
                sizes = any(get_origin(kind) is tuple and int in get_args(kind) for kind in kinds)
                if (int in kinds or sizes) and name in {field.name for field in fields(part) if field.init}:
                    by_label.setdefault(f"{type(part).__name__}.{name}", (part, name, sizes))
    return by_label


_FIELDS = _whole_numbers()


def test_the_fields_are_those_of_all_configurations() -> None:
    assert len(_FIELDS) > 90
    kinds = {name.partition(".")[0] for name in _FIELDS}
    assert kinds >= {
        *("Experiment", "TrainingConfig", "EvaluationConfig", "PearlConfig", "Rl2Config", "TrialPolicyConfig"),
        *("FewshotExperiment", "FewshotTrainingConfig", "EpisodesConfig", "StandardBackbone", "ReptileConfig"),
        *("Study", "SimulatorGap", "Robot", "OmniglotData", "MamlTrpoConfig", "EncoderConfig"),
    }


@pytest.mark.parametrize("value", [10**400, -(10**400), 2**70])
def test_every_whole_number_of_a_configuration_has_bounds(value: int) -> None:
    for label, (part, name, is_tuple) in _FIELDS.items():
        with pytest.raises(ValueError, match=name) as caught:
            replace(part, **{name: (value,) if is_tuple else value})
        assert "\n" not in str(caught.value), label
        assert len(str(caught.value)) < 250, label


def test_a_million_of_millions_is_refused_as_every_count_but_a_seed() -> None:
    for label, (part, name, is_tuple) in _FIELDS.items():
        if "seed" not in name:
            with pytest.raises(ValueError, match=name):
                replace(part, **{name: (10**12,) if is_tuple else 10**12})
        else:
            assert getattr(replace(part, **{name: 10**12}), name) == 10**12, label


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "rollout", "--repeats"],
        ["resume", "folder", "--iterations"],
        ["evaluate", "folder", "--num-tasks"],
        ["video", "folder", "--num-tasks"],
        ["queue", "list", "--jobs"],
        ["study", "quick", "--num-tasks"],
        ["train", "point-promp", "--seeds"],
        ["train", "point-promp", "--training.iterations"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("value", [10**12, 10**400], ids=["12 digits", "400 digits"])
def test_a_number_of_the_command_line_has_bounds(
    words: list[str], value: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, str(value)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words[-1].rpartition(".")[2].strip("-").replace("-", "_") in error.replace("-", "_")


@pytest.mark.parametrize("field", ["delay", "delay_jitter", "frame_skip"])
def test_steps_of_a_range_have_bounds(field: str) -> None:
    assert Range(field, (), 1, 1000).high == 1000
    for high, ring in [(10**12, 0.0), (10**6, 0.5)]:
        with pytest.raises(ValueError, match=f"range .{field}.: high plus the ring must be at most 1,000,000"):
            Range(field, (), 1, high, ring=ring)
    with pytest.raises(ValueError, match=rf"range '{field}': high must be a finite number, got 1000"):
        Range(field, (), 1, 10**400)


def test_the_steps_of_a_change_have_bounds() -> None:
    ranges = (Range("strength", (), 0.5, 0.7),)
    with pytest.raises(ValueError, match="high must be a finite number"):
        Change(ranges, 0, 10**400)
    with pytest.raises(ValueError, match="at most 1,000,000 steps, got 1e"):
        Change(ranges, 0, 10**12)


_RANGES = "ranges: [{field: strength, low: 0.5, high: 1}]"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"horizon: {10**12}", "horizon must be at most 1,000,000"),
        (f"horizon: {10**400}", "numbers must be finite, got an integer of 401 digits"),
        (
            f"change: {{first_step: 1, last_step: {10**12}, ranges: [{{field: strength, low: 0.5, high: 1}}]}}",
            "at most",
        ),
    ],
    ids=["12 digits", "400 digits", "change"],
)
def test_a_number_of_a_family_file_has_bounds(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "family.yaml").write_text(f"name: a\nrobot: half-cheetah\n{_RANGES}\n{line}\n")
    with pytest.raises(ValueError, match=message):
        load_family(tmp_path / "family.yaml")
