"""Groups of run folders: runs that differ by their seeds, and not by their settings."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metarl.experiments import configuration
from metarl.experiments.fewshot import configuration as fewshot
from metarl.experiments.runs import CONFIG, read_config
from metarl.runs.reading import shorten

_MAY_DIFFER = ("seed", "device", "num_workers", "num_threads", "workers", "ray_address", "loggers", "video_every")
_MAY_DIFFER_IN_TRAINING = ("evaluate_every", "checkpoint_every", "overlap_evaluation")  # how often it is looked at


def run_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a run's, or the run folders directly inside.

    Raises:
        ValueError: if there is none.
    """
    if (folder / CONFIG).is_file():
        return [folder]
    inside = sorted(path.parent for path in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []
    if not inside:
        raise ValueError(f"{folder} is no run folder and holds none; `metarl train` makes them")
    return inside


def grouped(folders: Sequence[Path]) -> dict[str, list[Path]]:
    """Run folders by group: a folder is a run, or holds runs that differ by their seeds.

    Single runs of one name and the same settings become one group; names that occur twice are told apart by
    folders.

    Args:
        folders: Folders of runs, or of groups of runs.

    Raises:
        ValueError: if a folder holds no run, or runs of different settings.
    """
    groups: list[_Group] = []
    for folder in folders:
        for run in run_folders(folder):
            config = read_config(run)
            settings = shared_settings(config, but=("evaluation",))
            if run == folder:
                own = _Group(config["name"], None, settings)
                group = next((each for each in groups if each == own), own)
            else:
                own = _Group(folder.resolve().name, folder, settings)
                group = next((each for each in groups if each.folder == folder), own)
                if differs := difference(group.settings, settings):
                    raise ValueError(
                        f"{folder} holds runs of different settings, {group.runs[0].name} and {run.name} "
                        f"({differs}); give the runs of each, or folders of them"
                    )
            if group is own:
                groups.append(own)
            group.runs.append(run)
    names = [group.name for group in groups]
    result: dict[str, list[Path]] = {}
    for group in groups:
        where = f" ({group.folder or group.runs[0]})" if names.count(group.name) > 1 else ""
        result[group.name + where] = group.runs
    return result


@dataclass
class _Group:
    """Runs of one name, in a folder of their own or each given by itself."""

    name: str
    folder: Path | None
    settings: Mapping[str, Any]
    runs: list[Path] = field(default_factory=list, compare=False)


def shared_settings(config: Mapping[str, Any], but: Collection[str] = ()) -> dict[str, Any]:
    """The settings that runs of one group share, with those that are newer than a run.

    Args:
        config: Content of a run's config.json.
        but: Further parts of the experiment that may differ.
    """
    kind = configuration if config["kind"] == "rl" else fewshot
    settings = config["experiment"]
    with suppress(ValueError):  # classes and objects of a user's own
        settings = kind.encode(kind.decode(settings))
    shared = {key: value for key, value in settings.items() if key not in (*_MAY_DIFFER, *but)}
    if isinstance(training := settings.get("training"), Mapping):
        shared["training"] = {k: v for k, v in training.items() if k not in _MAY_DIFFER_IN_TRAINING}
    if "init_from" in shared:  # every seed may start from a run of its own
        shared["init_from"] = shared["init_from"] is not None
    return shared


def difference(first: object, second: object, where: str = "") -> str:
    """The first setting that differs with both values, such as "agent.gamma: 0.9, 0.99"; empty if none does."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys((*first, *second)):
            inside = f"{where}.{key}" if where else str(key)
            if differs := difference(first.get(key), second.get(key), inside):
                return differs
        return ""
    return "" if first == second else f"{where}: {shorten(first)}, {shorten(second)}"
