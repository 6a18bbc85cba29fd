"""Puts single-line faults into a copy of the sources, one at a time, and counts those that the tests let through.

    python -m tests.faults                     all faults, two at a time; some twenty minutes on two cores
    python -m tests.faults --only trust_region those whose file or line contains a word
    python -m tests.faults --whole             faults that survive their own tests meet the whole fast suite too

A fault is killed if the tests named beside it fail with it. They must pass without it, which is tried first.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.faults import fewshot_lines, single_lines
from tests.faults.single_lines import Fault

ROOT = Path(__file__).resolve().parents[2]
_IGNORED = shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "*.egg-info")


def _passes(tree: Path, words: list[str]) -> bool:
    """Whether pytest passes in a tree."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    # pytest.ini of the tree; one process, and no more than the first failure.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *words]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 2):  # 2: an import that fails, which a fault may well cause
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return done.returncode == 0


def _survives(tree: Path, fault: Fault, *, whole: bool) -> bool:
    """Whether the tests pass with a fault put into the tree, which is mended afterwards."""
    path = tree / fault.path
    sound = path.read_text()
    path.write_text(fault.put_into(sound))
    try:
        return _passes(tree, list(fault.tests)) and not (whole and not _passes(tree, ["tests"]))
    finally:
        path.write_text(sound)


def main() -> int:
    """Run the faults that are asked for; the exit status is 1 if more than 3% survive."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="Word that a fault's file or line must contain.")
    parser.add_argument("--whole", action="store_true", help="Try the whole fast suite on survivors.")
    parser.add_argument("--jobs", type=int, default=2, help="Number of faults tried at the same time.")
    arguments = parser.parse_args()
    faults = [
        fault
        for fault in single_lines.FAULTS + fewshot_lines.FAULTS
        if arguments.only in f"{fault.path} {fault.before}"
    ]
    trees: SimpleQueue[Path] = SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.jobs):
            tree = Path(folder) / str(number)
            # The folder of runs that lies beside the sources stays; the package metarl/runs goes with them.
            shutil.copytree(
                ROOT,
                tree,
                symlinks=True,
                ignore=lambda at, names: _IGNORED(at, names) | ({"runs"} if at == str(ROOT) else set()),
            )
            trees.put(tree)
        tests = sorted({test for fault in faults for test in fault.tests})
        tree = trees.get()
        if not _passes(tree, tests):
            print("the tests fail without any fault; mend them first")
            return 2
        trees.put(tree)

        def attempt(fault: Fault) -> bool:
            own = trees.get()
            try:
                survived = _survives(own, fault, whole=arguments.whole)
            finally:
                trees.put(own)
            print(f"{'SURVIVED' if survived else 'killed  '} {fault.path}: {fault.after.strip()}", flush=True)
            return survived

        with ThreadPoolExecutor(arguments.jobs) as pool:
            survivors = sum(pool.map(attempt, faults))
    print(f"{survivors} of {len(faults)} faults survived ({survivors / max(1, len(faults)):.1%})")
    return int(survivors > 0.03 * len(faults))


if __name__ == "__main__":
    sys.exit(main())
