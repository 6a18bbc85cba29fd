"""Families from YAML files: a model, its ranges and what changes; the reward is a function."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from metarl.envs.dynamics.family import DynamicsFamily, ForwardReward, Reward
from metarl.envs.dynamics.physics import LITERATURE, PHYSICAL
from metarl.envs.dynamics.ranges import Change, Randomization, Range
from metarl.envs.mujoco.robots import ROBOTS, Robot

_PHYSICS = {"physical": PHYSICAL, "literature": LITERATURE}
_NUMBERS = (
    "low",
    "high",
    "ring",
    "reset_noise",
    "frame_skip",
    "horizon",
    "hidden_qpos",
    "first_step",
    "last_step",
)
_TEXTS = ("field", "scale", "mode", "name")
_FAMILY = (
    "name",
    "robot",
    "model",
    "frame_skip",
    "hidden_qpos",
    "reset_noise",
    "horizon",
    "physics",
    "ranges",
    "change",
)


def load_family(path: Path, reward: Reward | None = None) -> DynamicsFamily:
    """The family that a YAML file describes.

        name: my-arm
        model: arm.xml              # beside the YAML file; or `robot: half-cheetah`, one of metarl's own
        frame_skip: 5
        horizon: 200
        ranges:
          - {field: mass, targets: [forearm], low: 0.5, high: 2, scale: log, ring: 0.25}
          - {field: delay, low: 0, high: 3}
        change:
          first_step: 50
          last_step: 150
          ranges:
            - {field: strength, targets: [elbow], low: 0.3, high: 0.7}

    Args:
        path: of the file.
        reward: of a step; forward velocity with the robot's own weights by default.

    Raises:
        ValueError: naming the file, the entry and what is wrong with it.
    """
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the family file {path}: {error}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"the family file {path} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return _family(data, path.parent, reward)
    except ValueError as error:
        raise ValueError(f"the family file {path}: {error}") from error


def _family(data: object, folder: Path, reward: Reward | None) -> DynamicsFamily:
    entries = _entries(data, "the file", _FAMILY, required=("name",))
    robot = _robot(entries, folder)
    physics = entries.get("physics", "physical")
    if physics not in _PHYSICS:
        raise ValueError(f"physics must be one of {', '.join(_PHYSICS)}, got {physics!r}")
    change = None
    if "change" in entries:
        steps = ("first_step", "last_step")
        found = _entries(entries["change"], "change", (*steps, "ranges"), required=(*steps, "ranges"))
        first, last = (_whole(found, name) for name in steps)
        change = Change(_ranges(found["ranges"], "change.ranges"), first, last)
    return DynamicsFamily(
        str(entries["name"]),
        robot,
        Randomization(_ranges(entries.get("ranges", []), "ranges"), change),
        reward or ForwardReward(robot.healthy_reward, robot.ctrl_weight),
        horizon=_whole(entries, "horizon", 200),
        physics=_PHYSICS[physics],
    )


def _robot(entries: dict[str, Any], folder: Path) -> Robot:
    """One of metarl's robots, or that of a model file."""
    if ("robot" in entries) == ("model" in entries):
        raise ValueError("give either robot, one of metarl's own, or model, an MJCF file")
    if "robot" in entries:
        if entries["robot"] not in ROBOTS:
            raise ValueError(f"robot must be one of {', '.join(ROBOTS)}, got {entries['robot']!r}")
        if given := [name for name in ("frame_skip", "hidden_qpos", "reset_noise") if name in entries]:
            raise ValueError(f"{given[0]} is that of the robot {entries['robot']!r}; give it with a model")
        return ROBOTS[entries["robot"]]
    file = (folder / str(entries["model"])).resolve()
    if not file.is_file():
        raise ValueError(f"model: there is no file {file}")
    return Robot(
        str(entries["name"]),
        str(file),
        _whole(entries, "frame_skip", 1),
        _whole(entries, "hidden_qpos", 0),
        float(entries.get("reset_noise", 0.0)),
        "uniform",
    )


def _ranges(data: object, where: str) -> tuple[Range, ...]:
    if not isinstance(data, list):
        raise ValueError(f"{where} must be a list of ranges, got {data!r}")
    known = tuple(f.name for f in fields(Range))
    found = []
    for number, entry in enumerate(data):
        entries = _entries(entry, f"{where}[{number}]", known, required=("field", "low", "high"))
        targets = entries.pop("targets", [])
        targets = [targets] if isinstance(targets, str) else targets
        if not isinstance(targets, list):
            raise ValueError(f"{where}[{number}]: targets must be a list of names, got {targets!r}")
        for name, kind, what in (*((text, str, "text") for text in _TEXTS), ("each", bool, "true or false")):
            if name in entries and not isinstance(entries[name], kind):
                raise ValueError(f"{where}[{number}]: {name} must be {what}, got {entries[name]!r}")
        found.append(Range(targets=tuple(str(target) for target in targets), **entries))
    return tuple(found)


def _entries(data: object, where: str, known: tuple[str, ...], required: tuple[str, ...]) -> dict[str, Any]:
    """The mapping that an entry must be, with its numbers as numbers."""
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be a mapping with {', '.join(required)}, got {data!r}")
    for name in data:
        if name not in known:
            raise ValueError(f"{where}: unknown entry {name!r}; known: {', '.join(known)}")
    for name in required:
        if name not in data:
            raise ValueError(f"{where}: {name} is missing")
    # YAML 1.1 reads 1e-3, without a dot, as text.
    return {name: _number(name, value, where) if name in _NUMBERS else value for name, value in data.items()}


def _number(name: str, value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{where}: {name} must be a number, got {value!r}")
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(f"{where}: {name} must be a number, got {value!r}") from error


def _whole(entries: dict[str, Any], name: str, default: int = -1) -> int:
    value: float = entries.get(name, default)
    if value != int(value) or value < 0:
        raise ValueError(f"{name} must be a whole number, got {value:g}")
    return int(value)
