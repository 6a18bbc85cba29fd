"""The configuration of a run as a report shows it: what differs from defaults, and the command that repeats it."""

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docstring_parser import DocstringStyle, parse

from metarl.experiments import configuration
from metarl.experiments.configuration import ALGORITHMS, Experiment
from metarl.experiments.fewshot import configuration as fewshot
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.fewshot_settings import LEARNERS
from metarl.experiments.presets.table import PRESETS
from metarl.experiments.report.page import NONE
from metarl.experiments.runs import Kind, read_config
from metarl.experiments.settings import settings_for
from metarl.runs.loggers import flatten
from metarl.runs.reading import shorten
from metarl.tasks import Benchmark

AnyExperiment = Experiment | FewshotExperiment
_NOT_SHOWN = ("seed", "loggers")
_KINDS: Mapping[str, type[Any]] = {"training": dict, "evaluation": dict, "data": dict, "seed": int}


@dataclass(frozen=True)
class Described:
    """The configuration of a run, as its folder holds it; nothing of it is executed.

    Attributes:
        folder: Run folder.
        name: Name of the experiment.
        kind: Kind of the run.
        data: Experiment as JSON types.
        experiment: Decoded experiment; None if it holds classes or objects that are not built in.
        sources: Origins of what is a user's own.
        versions: Versions that the run was made with.
    """

    folder: Path
    name: str
    kind: Kind
    data: Mapping[str, Any]
    experiment: AnyExperiment | None
    sources: Mapping[str, Any]
    versions: Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One field whose value is not its default.

    Attributes:
        field: Dotted name.
        value: Value of the run.
        default: Default value, a dash where there is none.
        meaning: Documentation of the field.
    """

    field: str
    value: str
    default: str
    meaning: str


def described(folder: Path) -> Described:
    """The configuration of a run folder.

    Raises:
        ValueError: if it is no run folder, or a part of the configuration is of a wrong kind.
    """
    config = read_config(folder)
    for part, kind in _KINDS.items():
        value = config["experiment"].get(part, kind())
        if not isinstance(value, kind):
            raise ValueError(
                f"{folder}: expected {part} of the experiment as {kind.__name__}, got {shorten(value)}"
            )
    experiment: AnyExperiment | None
    try:
        decode: Any = fewshot.decode if config["kind"] == "few-shot" else configuration.decode
        experiment = decode(config["experiment"])
    except (ValueError, TypeError, KeyError):  # a class or an object of a user, which is not imported here
        experiment = None
    versions = config.get("versions")
    return Described(
        folder,
        config["name"],
        config["kind"],
        config["experiment"],
        experiment,
        config.get("sources", {}),
        versions if isinstance(versions, dict) else {},
    )


def differences(value: Any) -> list[Difference]:
    """The fields of a configuration that differ from the defaults of their classes."""
    return list(_differences(value, None, ""))


def _differences(value: Any, reference: Any, prefix: str) -> Iterator[Difference]:
    meanings = _meanings(type(value))
    for field in dataclasses.fields(value):
        own, default = getattr(value, field.name), _default(field, reference)
        if not prefix and field.name in _NOT_SHOWN:
            continue
        if dataclasses.is_dataclass(own) and not isinstance(own, type | Benchmark):
            yield from _differences(own, default if type(default) is type(own) else None, f"{prefix}{field.name}.")
        elif own != default:
            yield Difference(f"{prefix}{field.name}", _text(own), _text(default), meanings.get(field.name, ""))


def _default(field: "dataclasses.Field[Any]", reference: Any) -> Any:
    if reference is not None:
        return getattr(reference, field.name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _meanings(kind: type[Any]) -> dict[str, str]:
    """The documentation of a configuration's fields, which is the help of the command line."""
    meanings: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        for part in parse(parent.__doc__ or "", style=DocstringStyle.GOOGLE).params:
            meanings[part.arg_name] = " ".join((part.description or "").split())
    return meanings


def _text(value: Any) -> str:
    if value is dataclasses.MISSING:
        return NONE
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "none"
    name = value.name if isinstance(value, Benchmark) else getattr(value, "__name__", None)
    return "none" if value is None else str(name or value)


def algorithm(run: Described) -> str:
    """The name of the algorithm or learner of a run."""
    part = run.data.get("agent", run.data.get("learner"))
    named = part.get("algorithm", part.get("class")) if isinstance(part, dict) else None
    return str(named).rpartition(":")[2] if named else "an agent of its own"


def train_command(runs: Sequence[Described]) -> tuple[str, str]:
    """The command that trains runs again which differ by their seeds, and what it leaves out, or an empty text."""
    first = runs[0]
    seeds = [str(run.data.get("seed", 0)) for run in runs]
    ending = f"--seeds {','.join(seeds)}{',' * (len(seeds) == 1)}" if len(runs) > 1 else f"--seed {seeds[0]}"
    word, base = _base(first)
    if base is None or first.experiment is None:
        return f"metarl train {word} {ending}", "It takes the settings of the file that it names as they are now."
    options, complete = _options(base, first.experiment, with_seeds=len(runs) > 1)
    note = "" if complete else "A part of the configuration has another class than the command's; see below."
    return " ".join(["metarl train", word, *options, ending]), note


def _base(run: Described) -> tuple[str, AnyExperiment | None]:
    """The words that name an experiment on the command line, and the experiment before any option."""
    words = {part: shlex.quote(str(origin.get("source", ""))) for part, origin in run.sources.items()}
    own = "".join(f" --{part} {words[part]}" for part in ("benchmark", "reward", "backbone") if part in words)
    if "experiment" in words:
        return f"{words['experiment']}{own}", None
    name, benchmark = algorithm(run), run.data.get("benchmark")
    if own:
        learner = max((each for each in LEARNERS if run.name.endswith(f"-{each}")), key=len, default=name)
        by_name = (learner if run.kind == "few-shot" else name) if "benchmark" in words else shlex.quote(run.name)
        return f"{by_name}{own}", None
    if run.name in PRESETS:
        return run.name, PRESETS[run.name].configuration
    if name in ALGORITHMS and isinstance(benchmark, str):
        try:
            return f"{name} --benchmark {shlex.quote(benchmark)}", settings_for(name, benchmark)
        except (ValueError, ImportError, OSError):  # a file that is gone, a simulator that is not installed
            return f"{name} --benchmark {shlex.quote(benchmark)}", None
    return shlex.quote(run.name), None


def _options(base: AnyExperiment, experiment: AnyExperiment, *, with_seeds: bool) -> tuple[list[str], bool]:
    """The options that make an experiment of another one, and whether they do so in full."""
    before, after = (_leaves(each) for each in (base, experiment))
    options, complete = [], True
    for name, value in after.items():
        if name == "seed" or before.get(name, dataclasses.MISSING) == value:
            continue
        if with_seeds and name == "evaluation.task_seed" and value == 0:  # what --seeds makes of it
            continue
        if name not in before or name.rpartition(".")[2] in ("algorithm", "class", "kind", "architecture"):
            complete = False
            continue
        words = value if isinstance(value, list) else [value]
        options.append(f"--{name.replace('_', '-')} {' '.join(shlex.quote(str(word)) for word in words)}")
    return options, complete and set(before) == set(after)


def _leaves(experiment: AnyExperiment) -> dict[str, Any]:
    """The fields of an experiment by dotted name, those that are None included."""
    encode: Any = fewshot.encode if isinstance(experiment, FewshotExperiment) else configuration.encode
    leaves: dict[str, Any] = {}

    def walk(data: Mapping[str, Any], prefix: str) -> None:
        for name, value in data.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")
            else:
                leaves[f"{prefix}{name}"] = value

    walk(encode(experiment), "")
    return leaves


def as_text(data: Mapping[str, Any]) -> str:
    """A whole configuration as JSON text."""
    return json.dumps(data, indent=1, ensure_ascii=False)


def flat_text(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A configuration that cannot be decoded, as names and values."""
    return [(name, str(value)) for name, value in flatten(data).items() if name not in _NOT_SHOWN]
