"""Puts single-line faults into a copy of the sources, one at a time, and counts those that the tests let through.

    python -m tests.faults                     all faults, one at a time
    python -m tests.faults --only trust_region those whose file or line contains a word
    python -m tests.faults --check             only whether every fault's line is still in its file
    python -m tests.faults --json FILE         the result of every fault, and counts by file, written as they come
    python -m tests.faults --json FILE --again all but those that FILE says are killed
    python -m tests.faults --jobs 2            two at a time

A fault is killed if the tests named beside it fail with it, crash or hang. They must pass without it, which is
tried first. Every attempt is a fork of this process, which has imported the libraries once for all of them.
"""

import argparse
import compileall
import importlib
import json
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults import agent_lines, core_lines, env_lines, fewshot_lines, teacher_lines
from tests.faults.fault import Fault

ROOT = Path(__file__).resolve().parents[2]
FAULTS = [
    *core_lines.FAULTS,
    *agent_lines.FAULTS,
    *teacher_lines.FAULTS,
    *env_lines.FAULTS,
    *fewshot_lines.FAULTS,
]
_LIBRARIES = (
    "numpy",
    "torch",
    "torch.func",
    "gymnasium",
    "gymnasium.vector",
    "mujoco",
    "mujoco.rollout",
    "pytest",
)
_TIMEOUT_S = 300  # of one test, on a machine that others use
_IGNORED = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "*.egg-info")


def copy_sources(tree: Path) -> None:
    """Copy the repository but for runs that lie beside the sources, and compile it."""
    shutil.copytree(
        ROOT,
        tree,
        symlinks=True,
        ignore=lambda at, names: _IGNORED(at, names) | ({"runs"} if at == str(ROOT) else set()),
    )
    # By the sources' contents: a fault is put in within the same second, and may not change a file's length.
    for folder in ("metarl", "agents", "envs", "experiments", "tests"):
        compileall.compile_dir(
            tree / folder, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )


def _run_pytest(tree: Path, words: Sequence[str]) -> int:
    """The exit status of pytest in a tree, in a process that was forked for it."""
    log = os.open(tree.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(tree)
    os.environ["PYTHONPATH"] = str(tree)
    sys.path[:] = [str(tree), *(entry for entry in sys.path if Path(entry or ".").resolve() not in (ROOT, tree))]
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "metarl")]:
        del sys.modules[name]
    sys.modules["__main__"] = types.ModuleType("__main__")  # which worker processes would import
    sys.dont_write_bytecode = True
    pytest = importlib.import_module("pytest")
    options = ["-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--tb=line", f"--timeout={_TIMEOUT_S}"]
    options += ["-m", "not slow and not chaos"]
    status = int(pytest.main([*options, *words]))
    if not Path(sys.modules["metarl"].__file__ or "").is_relative_to(tree):
        return 99
    return status


class Job(NamedTuple):
    """One run of pytest.

    Attributes:
        about: What the run is for.
        words: Arguments of pytest.
        prepare: Function that changes the tree before the run.
    """

    about: Any
    words: Sequence[str]
    prepare: Callable[[Path], None] = lambda tree: None


class Trees:
    """Copies of the sources in which tests run at the same time, one process in each.

    Args:
        folder: Folder of the copies.
        count: Number of copies.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self._free = [folder / str(number) / "tree" for number in range(count)]
        self._running: dict[int, tuple[Path, Any, float]] = {}
        for tree in self._free:
            copy_sources(tree)

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Any, Path, bool, float]]:
        """Run pytest on each job's words, as many at a time as there are trees.

        Yields:
            What a job is for, the tree that it ran in, whether pytest passed, and in how many seconds; log.txt
            beside the tree has its output. The tree is used again once the caller has mended it.
        """
        waiting = list(jobs)
        while waiting or self._running:
            while waiting and self._free:
                tree, job = self._free.pop(), waiting.pop(0)
                job.prepare(tree)
                self._running[self._start(tree, job.words)] = (tree, job.about, time.monotonic())
            child, status = os.wait()
            tree, about, start = self._running.pop(child)
            with suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)  # worker processes that tests left behind
            if os.waitstatus_to_exitcode(status) == 99:
                raise RuntimeError("the tests imported another metarl than the copy")
            yield about, tree, status == 0, round(time.monotonic() - start, 1)
            self._free.append(tree)

    def _start(self, tree: Path, words: Sequence[str]) -> int:
        """The process in which pytest runs."""
        child = os.fork()
        if child == 0:
            status = 98
            try:
                os.setsid()
                status = _run_pytest(tree, words)
            finally:
                os._exit(status)
        return child


def put_in(fault: Fault, tree: Path) -> None:
    """Put a fault into a tree; the sound file is kept beside the tree."""
    path = tree / fault.path
    shutil.copyfile(path, tree.parent / "sound")
    path.write_text(fault.put_into(path.read_text()))


def take_out(fault: Fault, tree: Path) -> None:
    """Mend the file of a tree that has a fault."""
    shutil.copyfile(tree.parent / "sound", tree / fault.path)


def sound_tests(trees: Trees, faults: Sequence[Fault], num_parts: int) -> str:
    """The output of the tests that fail without a fault; nothing if all pass."""
    words = sorted({test for fault in faults for test in fault.tests})
    parts = [Job(part, words[part::num_parts]) for part in range(min(num_parts, len(words)))]
    return "".join(log_of(tree)[-3000:] for _, tree, passed, _ in trees.run(parts) if not passed)


def log_of(tree: Path) -> str:
    """Output of the last run in a tree."""
    return (tree.parent / "log.txt").read_text()


def stale(faults: Sequence[Fault]) -> list[str]:
    """What is wrong with faults: lines that are not in their files, and faults that are there twice."""
    problems = []
    for fault in faults:
        try:
            fault.put_into((ROOT / fault.path).read_text())
        except (OSError, ValueError) as error:
            problems.append(str(error))
        problems += [f"{test} is not there" for test in fault.tests if not (ROOT / test.split("::")[0]).exists()]
    twice = Counter((fault.path, fault.before, fault.after) for fault in faults)
    return problems + [f"{path}: {after!r} is there twice" for (path, _, after), n in twice.items() if n > 1]


def main() -> int:
    """Run the faults that are asked for; the exit status is 1 if more than 3% survive, 2 if they cannot be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="Word that a fault's file or line must contain.")
    parser.add_argument("--check", action="store_true", help="Only check that the faults fit the sources.")
    parser.add_argument("--json", type=Path, help="File that the results are written to.")
    parser.add_argument("--jobs", type=int, default=1, help="Number of faults that are tried at a time.")
    parser.add_argument("--again", action="store_true", help="Leave out faults that the file says are killed.")
    arguments = parser.parse_args()
    if problems := stale(FAULTS):
        print("\n".join(problems))
        return 2
    faults = [fault for fault in FAULTS if arguments.only in f"{fault.path} {fault.before}"]
    if arguments.check or not faults:
        print(f"{len(faults)} faults fit the sources")
        return 0 if faults else 2
    results = killed_before(arguments.json, faults) if arguments.again and arguments.json else []
    before = {(result["path"], result["before"], result["after"]) for result in results}
    faults = [fault for fault in faults if fault[:3] not in before]
    if not faults:
        print("every fault was killed before")
        return report(results)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in _LIBRARIES:
        importlib.import_module(name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        trees = Trees(Path(folder), arguments.jobs)
        if failures := sound_tests(trees, faults, arguments.jobs):
            print(f"{failures}\nthe tests fail without any fault; mend them first")
            return 2
        print(f"the tests pass without a fault, in {time.monotonic() - began:.0f} s", flush=True)
        attempts = [Job(fault, fault.tests, partial(put_in, fault)) for fault in faults]
        for number, (fault, tree, survived, seconds) in enumerate(trees.run(attempts), 1):
            take_out(fault, tree)
            results.append(fault._asdict() | {"survived": survived, "seconds": seconds})
            write(results, arguments.json)
            word = "SURVIVED" if survived else "killed  "
            print(f"{number:3} {word} {seconds:5.1f} s {fault.path}: {fault.after.strip()}", flush=True)
    return report(results)


def killed_before(path: Path, faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """The results of an earlier run for those of the faults that it killed; none where there is no file."""
    wanted = {fault[:3] for fault in faults}
    results = json.loads(path.read_text())["results"] if path.exists() else []
    return [r for r in results if not r["survived"] and (r["path"], r["before"], r["after"]) in wanted]


def write(results: Sequence[dict[str, Any]], path: Path | None) -> dict[str, dict[str, int]]:
    """Write the results to a file, if one is named; numbers of faults and of survivors by file."""
    num_faults = Counter(result["path"] for result in results)
    survivors = Counter(result["path"] for result in results if result["survived"])
    by_file = {file: {"faults": count, "survived": survivors[file]} for file, count in sorted(num_faults.items())}
    if path is not None:
        summary = {"faults": len(results), "survived": survivors.total(), "by_file": by_file}
        path.write_text(json.dumps(summary | {"results": list(results)}, indent=1) + "\n")
    return by_file


def report(results: Sequence[dict[str, Any]], path: Path | None = None) -> int:
    """Print how many faults survived by file, and write all results; 1 if more than 3% did."""
    by_file = write(results, path)
    for file, counts in by_file.items():
        print(f"{counts['faults']:4} faults {counts['survived']:3} survived  {file}")
    total = sum(counts["survived"] for counts in by_file.values())
    minutes = sum(result["seconds"] for result in results) / 60
    print(f"{total} of {len(results)} faults survived ({total / len(results):.1%}) in {minutes:.0f} minutes")
    return int(total > 0.03 * len(results))


if __name__ == "__main__":
    sys.exit(main())
