"""Families from YAML files: a model, its ranges, what changes within an episode, and the terms of its reward."""

import math
import os
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from metarl.envs.dynamics.family import DynamicsFamily
from metarl.envs.dynamics.physics import LITERATURE, PHYSICAL
from metarl.envs.dynamics.ranges import Change, Randomization, Range
from metarl.envs.dynamics.rewards import ForwardReward, Reward
from metarl.envs.dynamics.splits import DynamicsTasks
from metarl.envs.dynamics.terms import Health, Term, TermReward
from metarl.envs.mujoco.robots import ASSETS, ROBOTS, Robot
from metarl.runs.files import atomic_write
from metarl.runs.reading import open_regular, read_yaml, shorten
from metarl.tasks import Benchmark

T = TypeVar("T", Health, Term)
_PHYSICS = {"physical": PHYSICAL, "literature": LITERATURE}
_REWARD = tuple(f.name for f in fields(ForwardReward))
_NUMBERS = (
    *("low", "high", "ring", "reset_noise", "frame_skip", "horizon", "hidden_qpos", "first_step", "last_step"),
    *_REWARD,
    *("weight", "clip"),
)
_TERM = tuple(f.name for f in fields(Term))
_HEALTH = tuple(f.name for f in fields(Health))
_FILES = ("file", "fileright", "fileleft", "fileup", "filedown", "filefront", "fileback")
_MOST_BYTES = 256 * 2**20
_FOLDERS = ("assetdir", "meshdir", "texturedir")
_TEXTS = ("field", "scale", "mode", "name")
_OF_MODELS = ("frame_skip", "hidden_qpos", "reset_noise")
_FAMILY = (
    "name",
    "robot",
    "model",
    *_OF_MODELS,
    "horizon",
    "physics",
    "reward",
    "healthy",
    "places",
    "contacts",
    "ranges",
    "change",
)


def load_family(path: Path | str, reward: Reward | None = None) -> DynamicsFamily:
    """The family that a YAML file describes.

        name: my-arm
        model: arm.xml              # beside the YAML file; or `robot: half-cheetah`, one of metarl's own
        frame_skip: 5
        horizon: 200
        reward: {forward_weight: 1, ctrl_weight: 0.1}     # of `ForwardReward`, where no function is given
        ranges:
          - {field: mass, targets: [forearm], low: 0.5, high: 2, scale: log, ring: 0.25}
          - {field: delay, low: 0, high: 3}
        change:
          first_step: 50
          last_step: 150
          ranges:
            - {field: strength, targets: [elbow], low: 0.3, high: 0.7}

    A range of field `target` is where something should be; in a change, one of the same name is where it moves to.

    Args:
        path: Path of the YAML file.
        reward: Reward of a step; by default the file's, or forward velocity with the robot's own weights. A model
            file has none of its own.

    Raises:
        ValueError: naming the file, the entry and what is wrong with it.
    """
    path = Path(path)
    data = read_yaml(path, "family file")
    try:
        return _family(data, path.parent, reward)
    except ValueError as error:
        raise ValueError(f"the family file {path}: {error}") from error


def is_family_file(benchmark: str) -> bool:
    """Whether a benchmark's name is the path of a family file, by its ending."""
    return benchmark.endswith((".yaml", ".yml"))


def file_benchmark(path: str, copied: Path | None = None, reward: Reward | None = None) -> Benchmark:
    """The family of a file as a benchmark: trained on combinations of values, and tested on new ones.

    Args:
        path: Path of the family file, which names the benchmark.
        copied: Copy of the file to read instead; None to read the file itself.
        reward: Reward of a step instead of the file's; None for the file's.

    Raises:
        ValueError: as `load_family` does.
    """
    family = load_family(copied or path, reward)
    train, test = DynamicsTasks(family, "train"), DynamicsTasks(family, "interpolation")
    return Benchmark(path, train, test, shared=False, description=f"{family.name}, tested on new combinations")


def _family(data: object, folder: Path, reward: Reward | None) -> DynamicsFamily:
    entries = _entries(data, "the file", _FAMILY, required=("name",))
    for name in ("name", "robot", "model", "physics"):
        if name in entries and not (isinstance(entries[name], str) and entries[name]):
            raise ValueError(f"{name} must be text, got {shorten(entries[name])}")
    if not isinstance(entries.get("contacts", False), bool):
        raise ValueError(f"contacts must be true or false, got {shorten(entries['contacts'])}")
    physics = entries.get("physics", "physical")
    if physics not in _PHYSICS:
        raise ValueError(f"physics must be one of {', '.join(_PHYSICS)}, got {shorten(physics)}")
    robot = _robot(entries, folder)
    change = None
    if "change" in entries:
        steps = ("first_step", "last_step")
        changes = _entries(entries["change"], "change", (*steps, "ranges"), required=(*steps, "ranges"))
        first, last = (_whole(changes, name) for name in steps)
        change = Change(_ranges(changes["ranges"], "change.ranges"), first, last)
    return DynamicsFamily(
        entries["name"],
        robot,
        Randomization(_ranges(entries.get("ranges", []), "ranges"), change),
        reward or _reward(entries, robot),
        horizon=_whole(entries, "horizon", 200, least=1),
        physics=_PHYSICS[physics],
        health=tuple(
            _made(Health, entry, f"healthy[{number}]", _HEALTH, ("term", "of"))
            for number, entry in enumerate(_list(entries.get("healthy", []), "healthy"))
        ),
        places=tuple(str(name) for name in _list(entries.get("places", []), "places")),
        contacts=entries.get("contacts", False),
    )


def _robot(entries: dict[str, Any], folder: Path) -> Robot:
    """One of metarl's robots, or that of a model file."""
    if ("robot" in entries) == ("model" in entries):
        raise ValueError("give either robot, one of metarl's own, or model, an MJCF file")
    if "robot" in entries:
        if entries["robot"] not in ROBOTS:
            raise ValueError(f"robot must be one of {', '.join(ROBOTS)}, got {shorten(entries['robot'])}")
        if unexpected := [name for name in _OF_MODELS if name in entries]:
            raise ValueError(f"{unexpected[0]} is that of the robot {entries['robot']!r}; give it with a model")
        return ROBOTS[entries["robot"]]
    file = _model_file(entries["model"], folder)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "there is no file"
        raise ValueError(f"model: {what} {file}; expected an MJCF file")
    robot = Robot(
        entries["name"],
        str(file),
        _whole(entries, "frame_skip", 1, least=1),
        _whole(entries, "hidden_qpos", 0),
        entries.get("reset_noise", 0.0),
        "uniform",
    )
    try:
        robot.build_model()
    except ValueError as error:
        raise ValueError(f"model: MuJoCo cannot read {file}: {' '.join(str(error).split())}") from error
    return robot


def family_files(path: Path | str) -> list[Path]:
    """All files that a family file needs, itself first: its model, what that includes, meshes and textures.

    A copy of them that keeps their places relative to the family file is a family file of its own.

    Raises:
        ValueError: if the file, or its model, cannot be read.
    """
    path = Path(path).resolve()
    entries = read_yaml(path, "family file")
    if not isinstance(entries, dict) or not isinstance(entries.get("model"), str):
        return [path]
    try:
        return [path, *_model_files(_model_file(entries["model"], path.parent), [])]
    except (ElementTree.ParseError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the family file {path}: model: cannot read {entries['model']}: {error}") from error


def copy_family(path: Path | str, folder: Path, reward: Reward | None = None) -> Path:
    """Copy a family file and all files that it needs into a new folder; the path of the copied family file.

    Args:
        path: Path of the family file.
        folder: Folder to copy into.
        reward: Reward of a user's own, which stays where it is; None for the file's.

    Raises:
        ValueError: if a file lies elsewhere than under the family file's folder or is too large, or if the copy is
            no family.
    """
    path = Path(path).resolve()
    content: dict[Path, bytes] = {}
    for file in family_files(path):
        root = next((root for root in (path.parent, ASSETS) if file.is_relative_to(root)), None)
        if root is None or not file.resolve().is_relative_to(root.resolve()):
            raise ValueError(
                f"the family file {path}: {file} lies outside of {path.parent}; a run keeps a copy of all files "
                "of its family; put it into that folder"
            )
        try:
            with open_regular(file) as opened:
                content[file.relative_to(root)] = opened.read(_MOST_BYTES + 1)
        except OSError as error:
            raise ValueError(f"the family file {path}: cannot read {file}: {error.strerror}") from error
        if sum(map(len, content.values())) > _MOST_BYTES:
            raise ValueError(
                f"the family file {path}: its files must have at most {_MOST_BYTES // 2**20} MiB together"
            )
    for place, data in content.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / place, data)
    load_family(folder / path.name, reward)
    return folder / path.name


def _model_files(xml: Path, above: list[Path]) -> list[Path]:
    """A model file and all files that it names."""
    files = [xml]
    tree = ElementTree.parse(xml)  # of the user's own model
    folders = [Path()] + [Path(c.get(name, "")) for c in tree.iter("compiler") for name in _FOLDERS if c.get(name)]
    roots = [*(parent.parent for parent in above), xml.parent]
    for element in tree.iter():
        for name in (element.get(attribute) for attribute in _FILES):
            places = [root / folder / name for root in roots for folder in folders] if name else []
            there = next((_plain(place) for place in places if place.is_file()), None)
            if there is None or there in files or there in above:
                continue
            files += _model_files(there, [*above, xml]) if element.tag == "include" else [there]
    return list(dict.fromkeys(files))


def _plain(path: Path) -> Path:
    """The whole path without dots; links stay, so that a copy has the names that its files know."""
    return Path(os.path.abspath(path))


def _model_file(name: str, folder: Path) -> Path:
    """The model file of a name: beside the family file, or else one of Gymnasium's."""
    beside = _plain(folder / name)
    return beside if beside.exists() or not (ASSETS / name).is_file() else ASSETS / name


def _reward(entries: dict[str, Any], robot: Robot) -> ForwardReward | TermReward:
    """The file's, or the robot's own."""
    if "reward" in entries:
        if not isinstance(entries["reward"], list):
            return ForwardReward(**_entries(entries["reward"], "reward", _REWARD, required=()))
        terms = [
            _made(Term, entry, f"reward[{number}]", _TERM, ("term",))
            for number, entry in enumerate(entries["reward"])
        ]
        return TermReward(tuple(terms))
    if "model" in entries:
        raise ValueError(
            "reward is missing: a model file has none of its own; "
            f"give a list of terms or a mapping with {', '.join(_REWARD)} here, or --reward FILE.py:NAME"
        )
    return ForwardReward(robot.healthy_reward, robot.ctrl_weight, robot.forward_weight)


def _ranges(data: object, where: str) -> tuple[Range, ...]:
    if not isinstance(data, list):
        raise ValueError(f"{where} must be a list of ranges, got {shorten(data)}")
    known = tuple(f.name for f in fields(Range))
    ranges = []
    for number, entry in enumerate(data):
        entries = _entries(entry, f"{where}[{number}]", known, required=("field", "low", "high"))
        targets = entries.pop("targets", [])
        targets = [targets] if isinstance(targets, str) else targets
        if not isinstance(targets, list):
            raise ValueError(f"{where}[{number}]: targets must be a list of names, got {shorten(targets)}")
        for name, kind, what in (*((text, str, "text") for text in _TEXTS), ("each", bool, "true or false")):
            if name in entries and not isinstance(entries[name], kind):
                raise ValueError(f"{where}[{number}]: {name} must be {what}, got {shorten(entries[name])}")
        try:
            ranges.append(Range(targets=tuple(str(target) for target in targets), **entries))
        except ValueError as error:
            raise ValueError(f"{where}[{number}]: {error}") from error
    return tuple(ranges)


def _made(kind: type[T], data: object, where: str, known: tuple[str, ...], required: tuple[str, ...]) -> T:
    """A term, or a range of health, of an entry."""
    entries = _entries(data, where, known, required)
    for name in ("term", "of", "axes", "name"):
        if name in entries and not isinstance(entries[name], str):
            raise ValueError(f"{where}: {name} must be text, got {entries[name]!r}")
    goal = entries.get("to")
    parts = goal if isinstance(goal, list) else [goal]
    if "to" in entries and any(isinstance(p, bool) or not isinstance(p, str | int | float) for p in parts):
        raise ValueError(f"{where}: to must be a name, a number or a list of them, got {shorten(goal)}")
    try:
        return kind(**entries)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _list(data: object, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError(f"{where} must be a list, got {shorten(data)}")
    return data


def _entries(data: object, where: str, known: tuple[str, ...], required: tuple[str, ...]) -> dict[str, Any]:
    """The mapping that an entry must be, with its numbers as numbers."""
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be a mapping with {', '.join(required or known)}, got {shorten(data)}")
    for name in data:
        if name not in known:
            raise ValueError(f"{where}: unknown entry {shorten(name)}; known: {', '.join(known)}")
    for name in required:
        if name not in data:
            raise ValueError(f"{where}: {name} is missing")
    # YAML 1.1 reads 1e-3, without a dot, as text.
    return {name: _number(name, value, where) if name in _NUMBERS else value for name, value in data.items()}


def _number(name: str, value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{where}: {name} must be a number, got {shorten(value)}")
    try:
        return float(value)
    except ValueError as error:
        raise ValueError(f"{where}: {name} must be a number, got {shorten(value)}") from error


def _whole(entries: dict[str, Any], name: str, default: int = -1, *, least: int = 0) -> int:
    value: float = entries.get(name, default)
    if not math.isfinite(value) or value % 1 or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value:g}")
    return int(value)
