"""The command line, `metarl COMMAND`.

Commands are imported when they are run, so that help and mistyped commands are answered at once.
"""

import importlib
import os
import sys
import time
import warnings
from collections.abc import Sequence

from metarl.runs.cores import check_alone, is_first

USAGE = """usage: metarl COMMAND ...

see what there is, and train it
  metarl list [experiments | benchmarks | studies] [TEXT]
  metarl train EXPERIMENT [--out DIR] [--seed N] [any field]
  metarl train ALGORITHM --benchmark NAME [--out DIR] [--seed N] [any field]
  metarl resume DIR [--iterations N]
measure, watch and compare what was trained
  metarl evaluate DIR [--tasks FILE.json | --num-tasks N] [--seed N] [--json FILE]
  metarl video DIR [--out FILE.mp4] [--num-tasks N] [--num-steps K]
  metarl compare DIR ... [--out FOLDER] [--latex True]
  metarl report DIR ... [--out FILE.html]
take it elsewhere
  metarl export DIR --onnx FILE.onnx [--recording FILE.npz] [--support FOLDER]
use a few-shot learner on images or tables, and keep its tasks
  metarl predict DIR --support FOLDER|TABLE --query FOLDER|TABLE [--json FILE] [--csv FILE]
  metarl diagnose DIR [--split test] [--num-tasks N] [--json FILE]
  metarl episodes DIR --out FILE.json [--split test] [--num-tasks N]
train many
  metarl queue LIST.txt [--out DIR] [--jobs N] [--hours H]
  metarl sweep EXPERIMENT --over SETTING=RANGE ... [--trials N] [--out DIR]
  metarl study STUDY [--out DIR] [--seed N] [--runs NAME=DIR ...]
published benchmarks, speed, and the page of results
  metarl lake all_runs.zip [DIR ...] [--views N] [--json FILE]
  metarl bench NAME [--json FILE]
  metarl results [FOLDER] [--add DIR ...]

Begin with `metarl train point-promp`, one to three minutes on two cores, and look at
it with `metarl video runs/point-promp-seed0`.

EXPERIMENT is a name of `metarl list`, or FILE.py:NAME for one of your own; then
resume, evaluate and study take --experiment FILE.py:NAME again. Parts of your own
are --benchmark FILE.py:NAME, --reward, and --backbone of few-shot learners.
`metarl COMMAND --help` describes a command, `metarl train EXPERIMENT --help`
its fields."""

_MOST_SHOWN = 500
"""Characters of the beginning, and of the end, of an error that is too long to be read."""

_NO_MEMORY = (
    "can't allocate memory",
    "calculation overflowed",
    "ould not allocate memory",
    "not enough memory",
    "out of memory",
)
"""Words of torch and MuJoCo for memory that is not there."""

_SILENCE_S = 2.0
"""Time in seconds for which a later process of torchrun keeps an error to itself."""

_COMMANDS = {
    "list": "commands.listing",
    "train": "commands.train",
    "resume": "commands.resume",
    "evaluate": "commands.evaluate",
    "episodes": "commands.episodes",
    "predict": "commands.predict",
    "diagnose": "commands.diagnose",
    "export": "commands.export",
    "video": "commands.video",
    "compare": "commands.compare",
    "report": "commands.report",
    "results": "commands.results",
    "queue": "commands.queue",
    "sweep": "commands.sweep",
    "study": "study.command",
    "lake": "commands.lake",
    "bench": "commands.bench",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    plain, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        return _run(words)
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        reason = _reason(error)
        if reason is None:
            raise
        _let_the_first_speak()
        print(f"metarl: error: {_one_line(reason)}", file=sys.stderr)
        return _status(error) or 2
    except KeyboardInterrupt:
        print("metarl: interrupted; a run's checkpoints are as they were", file=sys.stderr)
        return 130
    finally:
        warnings.formatwarning = plain


def _run(words: list[str]) -> int:
    """Find the command and run it."""
    if words[0] not in _COMMANDS:
        raise ValueError(f"unknown command {words[0]!r}; known: {', '.join(_COMMANDS)}")
    if words[0] not in ("train", "resume"):
        check_alone(f"metarl {words[0]} is run")
    from metarl.runs.allocator import keep_freed_memory  # noqa: PLC0415  # not needed for help
    from metarl.runs.threads import limit_spinning  # noqa: PLC0415

    keep_freed_memory()
    limit_spinning()  # before a command imports torch
    status: int = importlib.import_module(f"metarl.experiments.{_COMMANDS[words[0]]}").command(words[1:])
    return status


def _let_the_first_speak() -> None:
    """Wait, as a later process of torchrun, which ends all as soon as the first has said it and ended."""
    if not is_first():
        time.sleep(_SILENCE_S)


def _status(error: Exception) -> int | None:
    """The exit status of an error that one line explains: 2 if the user can mend it; None for a fault of ours."""
    # Imported here: nothing of it is needed before something fails.
    from metarl.loop import TrainingDiverged  # noqa: PLC0415
    from metarl.runs.cores import WorkerError  # noqa: PLC0415
    from metarl.runs.files import WriteError  # noqa: PLC0415

    if isinstance(error, TrainingDiverged | FloatingPointError | WorkerError | WriteError):
        return 1
    return 2 if isinstance(error, ValueError | OSError) or _is_engine(error) or _is_memory(error) else None


def _reason(error: Exception) -> str | None:
    """The message of an error, with its place if that is in a user's file; None for a fault of ours."""
    if _is_memory(error):
        return f"not enough memory for what was asked ({error}); ask for less"
    outside = sys.modules.get("metarl.experiments.outside")  # it has loaded the user's files, if there are any
    mistake: str | None = None if outside is None else outside.own_mistake(error)
    if mistake is not None or _status(error) is None:
        return mistake
    place = None if outside is None or error.__cause__ is None else outside.own_place(error.__cause__)
    return str(error) if place is None or place in str(error) else f"{error} ({place})"


def _warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning on one line, without the place in the sources that it comes from."""
    return f"metarl: warning: {_one_line(str(message))}\n"


def _is_memory(error: Exception) -> bool:
    """Whether there was not enough memory; torch says so in a RuntimeError like any other, MuJoCo in many ways."""
    says_so = isinstance(error, RuntimeError | ValueError) or _is_engine(error)
    return isinstance(error, MemoryError) or (says_so and any(words in str(error) for words in _NO_MEMORY))


def _is_engine(error: Exception) -> bool:
    """Whether MuJoCo's engine stopped; its errors are of no built-in kind, and it need not be imported here."""
    return type(error).__module__.partition(".")[0] == "mujoco"


def _one_line(text: str) -> str:
    """The text on one line that fits on a screen, whatever of a user's it repeats."""
    line = " ".join(text.split())
    return line if len(line) <= 2 * _MOST_SHOWN else f"{line[:_MOST_SHOWN]} ... {line[-_MOST_SHOWN:]}"


if __name__ == "__main__":
    sys.exit(main())
