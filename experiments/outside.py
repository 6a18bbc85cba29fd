"""Things that a user owns: experiments and parts of them, of FILE.py:NAME, of module:NAME, or of entry points.

Only what a user names in a command is imported. A run folder says where its experiment came from, with the hash of
the file; to open the run again the user names the same thing again.
"""

import dataclasses
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

GROUP = "metarl.experiments"
"""The group of entry points that experiments are installed under."""

_LOADED_FROM = "__metarl_file__"
_OWN: set[str] = set()
"""Names of the packages and modules that users' words have loaded."""


@dataclass(frozen=True)
class Source:
    """The origin of an object of a user.

    Attributes:
        word: Words that name it on the command line: FILE.py:NAME, module:NAME, or the name of an entry point.
        sha256: Hash of the file's content.
    """

    word: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        """The form of it in a run folder; the folder that the file lies in is left out."""
        return {"source": Path(self.word).name if ".py:" in self.word else self.word, "sha256": self.sha256}


@dataclass(frozen=True)
class OwnWords:
    """Words for what a run was made with and its folder does not hold, because it is a user's own code.

    Attributes:
        experiment: FILE.py:NAME of the experiment that the run was made with, if it is not built in.
        benchmark: FILE.py:NAME of the benchmark, or of the few-shot data, that the run was made with, if it is not
            built in.
        reward: FILE.py:NAME of the reward that the run was made with, if it is a function of your own.
        backbone: FILE.py:NAME of the few-shot learner's network that the run was made with, if it is your own.
    """

    experiment: str | None = None
    benchmark: str | None = None
    reward: str | None = None
    backbone: str | None = None

    @classmethod
    def of(cls, sources: Mapping[str, Source]) -> "OwnWords":
        """The words of origins, by what they are the origins of."""
        return cls(
            **{part.name: sources[part.name].word for part in dataclasses.fields(cls) if part.name in sources}
        )

    @property
    def options(self) -> str:
        """The options that name them on a command line, each behind a space; empty if nothing is a user's own."""
        words = dataclasses.asdict(self)
        return "".join(f" --{part} {word}" for part, word in words.items() if word is not None)


def names_object(word: str) -> bool:
    """True if a word is FILE.py:NAME or module:NAME, and not the name of something built in."""
    place, separator, name = word.rpartition(":")
    if place.endswith(".py"):
        return True
    return bool(separator and re.fullmatch(r"[A-Za-z_][\w.]*", place) and re.fullmatch(r"[A-Za-z_][\w.]*", name))


def load_object(word: str) -> tuple[Any, Source]:
    """The object that a word names; a function without arguments is not called here.

    Raises:
        ValueError: if there is no such file, module or name, or the file raises; says the file and the line.
    """
    place, _, name = word.rpartition(":")
    if not place:
        raise ValueError(f"{word} must say what to take of the file: expected {word}:NAME")
    if place.endswith(".py"):
        path = Path(place).expanduser().resolve()
        if not path.is_file():
            raise ValueError(f"no such file: {place}; expected FILE.py:NAME")
        module = _file_module(path, place)
    else:
        module = _module(place)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            there = ", ".join(sorted(key for key in vars(module) if not key.startswith("_"))) or "nothing"
            raise ValueError(f"{place} has no {name!r}; it has {there}")
        value = getattr(value, part)
    file = getattr(module, "__file__", None)
    return value, Source(word, hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else "")


def call_if_function(value: Any, word: str) -> Any:
    """The result of a function without arguments; anything else as it is.

    Raises:
        ValueError: if the function raises; says the file and the line.
    """
    if not callable(value) or isinstance(value, torch.nn.Module):
        return value
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # so that a network that the function makes is the same every time
            return value()
    except Exception as error:  # a user's code may raise anything
        raise ValueError(_where(error, word)) from error


def installed(group: str = GROUP) -> Mapping[str, EntryPoint]:
    """The experiments that other packages install, by name."""
    return {point.name: point for point in entry_points(group=group)}


def _file_module(path: Path, shown: str) -> ModuleType:
    """The module of a file, under the name that worker processes will import it by."""
    name = path.stem
    if not name.isidentifier():
        raise ValueError(f"the name of {shown} must be one that Python can import, got {name!r}; rename the file")
    present, digest = sys.modules.get(name), hashlib.sha256(path.read_bytes()).hexdigest()
    if present is not None:
        loaded = getattr(present, _LOADED_FROM, None)
        if loaded == (path, digest):
            return present
        if loaded is None and Path(getattr(present, "__file__", None) or "").resolve() != path:
            raise ValueError(f"{shown} has the name of another module, {name}; rename the file")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))  # as `python FILE.py` has it
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, _LOADED_FROM, (path, digest))
    _OWN.add(name)
    sys.modules[name] = module
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)  # so that a network that the file makes is the same every time
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        del sys.modules[name]
        raise ValueError(_where(error, shown)) from error
    return module


def _module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` has it
    _OWN.add(name.partition(".")[0])
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(f"no such module: {name}; expected FILE.py:NAME or module:NAME") from error
        raise ValueError(_where(error, name)) from error
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        raise ValueError(_where(error, name)) from error


def own_mistake(error: BaseException) -> str | None:
    """One line on an error that a user's loaded code raised, or had a library raise; None for any other."""
    place = own_place(error)
    return None if place is None else f"{place}: {type(error).__name__}: {error}"


def own_place(error: BaseException) -> str | None:
    """The file and the line of a user's loaded code where an error was raised; None if it was raised elsewhere."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "metarl":
            return None
        if package in _OWN:
            return f"{frame.f_code.co_filename}, line {line}"
    return None


def _where(error: BaseException, shown: str) -> str:
    """One line on an error of a user's code that is being loaded: the file, the line, and what was raised.

    The line is the user's own also where that calls something of ours which refuses it.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [
        (str(frame.f_globals.get("__name__", "")).partition(".")[0], f"{frame.f_code.co_filename}, line {line}")
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    places = [place for package, place in frames if package in _OWN]
    places = places or [place for package, place in frames if package not in ("metarl", "importlib")]
    return f"{places[-1] if places else shown}: {type(error).__name__}: {error}"


def sources_of(experiment: Any) -> dict[str, Source]:
    """The files that a user's own things in an experiment come from, as "reward" or else as "experiment".

    The word names the experiment, or the reward, if it is a variable of the file, and says NAME otherwise.
    """
    sources: dict[str, Source] = {}
    for field in dataclasses.fields(experiment):
        part = getattr(experiment, field.name)
        module = sys.modules.get(getattr(part, "__module__", None) or "")
        file = getattr(module, "__file__", None)
        if module is None or file is None or module.__name__.split(".")[0] in ("metarl", "torch"):
            continue
        what, value = ("reward", part) if field.name == "reward" else ("experiment", experiment)
        name = next((key for key, known in vars(module).items() if known is value), "NAME")
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        sources.setdefault(what, Source(f"{Path(file).name}:{name}", digest))
    return sources
