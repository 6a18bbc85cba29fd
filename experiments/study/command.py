"""metarl study: train what is to be compared, measure it on the same held-out tasks, and show the results."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from metarl.envs.dynamics import SimulatorGap
from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.configuration import decode, encode, experiment_benchmark, make_agent
from metarl.experiments.console import say
from metarl.experiments.places import Place
from metarl.experiments.presets.studies import STUDIES
from metarl.experiments.ray_runs import placed, take_placement
from metarl.experiments.runs import make_folder
from metarl.experiments.study.configuration import StablePpo, Study, on_benchmark
from metarl.experiments.study.figure import HOW_TO_INSTALL, can_draw, draw
from metarl.experiments.study.held_out import held_out_sets
from metarl.experiments.study.report import DISJOINT, show, summarise
from metarl.experiments.study.running import Interrupted, run_parts, taken, train_elsewhere
from metarl.runs import codec
from metarl.runs.files import write_json
from metarl.runs.lock import locked
from metarl.runs.reading import read_json, shorten

STUDY, RESULTS, FIGURE = "study.json", "results.json", "figure.png"


@dataclass(frozen=True)
class StudyArguments:
    """Compare agents and baselines on the same held-out tasks.

    With --workers ray [--ray-address HOST:PORT or auto] [--run-cores N] [--run-gpus F] the agents are trained side
    by side on the nodes of a Ray cluster.

    Attributes:
        out: Folder of the study, new or one to go on with; by default the next free runs/NAME-seedN.
        seed: Seed of all random streams of the study.
        benchmark: Another benchmark to learn and compare on: its name, or a YAML family file.
        runs: Trained learners as NAME=DIR, which takes a learner from a run folder instead of training it.
        experiment: FILE.py:NAME of the experiment that these runs were made with, if it is not built in.
        num_tasks: Number of tasks of every held-out set.
        num_episodes: Number of adaptation episodes, at most.
        num_trials: Number of repetitions of the adaptation on each task; Stable-Baselines3's PPO adapts once.
        num_threads: Number of simulation threads; one per core by default.
    """

    out: Path | None = None
    seed: int | None = None
    benchmark: str | None = None
    runs: tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]] = ()
    experiment: str | None = None
    num_tasks: int | None = None
    num_episodes: int | None = None
    num_trials: int | None = None
    num_threads: int | None = None


def command(words: list[str]) -> int:
    """Run `metarl study`; returns the exit status."""
    known = ", ".join(STUDIES)
    if words[:1] in (["-h"], ["--help"]):
        options = "[--out DIR] [--seed N] [--benchmark NAME | FILE.yaml] [--runs NAME=DIR ...]"
        say(f"usage: metarl study STUDY {options}\n\nstudies: {known}\n")
        say("`metarl study STUDY --help` describes the options.")
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError(f"study needs a study's name; known: {known}")
    name = words[0]
    if name not in STUDIES:
        raise UsageError(f"unknown study {name!r}; known: {known}")
    placement, words = take_placement(words[1:])
    arguments = parse(StudyArguments, words, f"metarl study {name}")
    others = ("out", "benchmark", "runs", "experiment")
    changes = {key: value for key, value in asdict(arguments).items() if key not in others}
    study, source = STUDIES[name].configuration, STUDIES[name].source
    if arguments.benchmark is not None:
        study = on_benchmark(study, arguments.benchmark)
        source = f"{source}; here of {study.benchmark}"
    study = replace(study, **{key: value for key, value in changes.items() if value is not None})
    say(f"{name}: {source}")
    trained = _trained_runs(study, [word for some in arguments.runs for word in some])
    with placed(placement) as place:
        return run_study(name, study, arguments.out, trained, arguments.experiment, place=place)


def run_study(
    name: str,
    study: Study,
    out: Path | None,
    trained: dict[str, Path],
    own: str | None = None,
    *,
    place: Place | None = None,
) -> int:
    """Run a study in a new folder, or go on with it in the one it has; returns the exit status.

    Args:
        name: Name of the study.
        study: Learners, held-out tasks and settings of the comparison.
        out: Folder of the study; None for the next free one.
        trained: Run folders that learners are taken from, by the name of the learner.
        own: FILE.py:NAME of the experiment that they were made with, if it is not built in.
        place: Place where the learners are trained side by side; None for one after the other, here.

    Raises:
        ValueError: if the folder holds something else, or what is asked for cannot be made.
    """
    folder = out
    try:
        trained = {
            key: path.resolve() for key, path in trained.items()
        }  # what study.json holds is so from anywhere
        sets = held_out_sets(study)
        for learner in study.learners:  # what cannot be made is to be said now, not in an hour
            if learner.name in trained:
                taken(study, learner, trained[learner.name], own)
            else:
                make_agent(learner.experiment, experiment_benchmark(learner.experiment))
        folder = _open(name, study, out, trained)
        say(f"study folder {folder}")
        say(f"held out: {', '.join(f'{len(s.tasks)} tasks of {key}' for key, s in sets.items())}; {DISJOINT}")
        with locked(folder):
            if place is not None:
                train_elsewhere(study, folder, trained, place)
            _write(summarise(name, study, sets, run_parts(study, folder, sets, trained, own)), folder)
    except (Interrupted, KeyboardInterrupt):
        where = f" and --out {folder}" if folder is not None and folder.exists() else ""
        say(f"stopped; what is done is kept, go on with the same command{where}")
        return 130
    return 0


def _write(results: dict[str, Any], folder: Path) -> None:
    """Show the results and write them and their figure."""
    show(results)
    write_json(folder / RESULTS, results)
    written = [str(folder / RESULTS)]
    if can_draw():
        draw(results, folder / FIGURE)
        written.append(str(folder / FIGURE))
    else:
        say(HOW_TO_INSTALL)
    say(f"written to {' and '.join(written)}")


def _open(name: str, study: Study, out: Path | None, trained: dict[str, Path]) -> Path:
    """The folder of the study, new or with exactly this study in it."""
    described = _described(name, study, trained)
    if out is None or not out.exists():
        return make_folder(out, f"{name}-seed{study.seed}", lambda folder: write_json(folder / STUDY, described))
    path = out / STUDY
    if not path.is_file():
        raise ValueError(f"{out} exists and is no study's folder (it has no {STUDY}); give another --out")
    stored = read_json(path, "study")
    try:
        fields = _in_todays_words(stored) if isinstance(stored, dict) else {}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if fields != described:
        other = sorted(key for key in {*described, *fields} if fields.get(key) != described.get(key))
        differing = ", ".join(shorten(key)[1:-1] for key in other)
        raise ValueError(f"{out} holds another study: it differs in {differing}; give another --out")
    return out


def _in_todays_words(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored study as `_described` writes it today: renamed fields have their new names, and new ones are there.

    Raises:
        ValueError: if the study holds a configuration that cannot be read.
    """
    learners, stable, gap = stored.get("learners"), stored.get("stable"), stored.get("gap")
    if isinstance(learners, dict):
        learners = {name: encode(decode(experiment)) for name, experiment in learners.items()}
    if isinstance(stable, dict):
        stable = asdict(codec.decode(StablePpo, stable, "stable", {}))
        stable.pop("minutes")
    if isinstance(gap, dict):
        gap = asdict(codec.decode(SimulatorGap, gap, "gap", {}))
    current: dict[str, Any] = json.loads(json.dumps({"learners": learners, "stable": stable, "gap": gap}))
    return stored | current


def _described(name: str, study: Study, trained: dict[str, Path]) -> dict[str, Any]:
    """The study as JSON types; what only says how long something may take is left out."""
    data = asdict(study)
    data["learners"] = {learner.name: encode(learner.experiment) for learner in study.learners}
    data.pop("num_threads")
    if data["stable"] is not None:
        data["stable"].pop("minutes")
    described: dict[str, Any] = json.loads(json.dumps({"name": name, **data}))
    return described | {"runs": {key: str(folder) for key, folder in trained.items()}}


def _trained_runs(study: Study, words: Sequence[str]) -> dict[str, Path]:
    """Run folders by learner."""
    names = [learner.name for learner in study.learners]
    trained: dict[str, Path] = {}
    for word in words:
        name, separator, folder = word.partition("=")
        if not separator or not folder or name not in names:
            raise UsageError(f"--runs must be NAME=DIR with a NAME of {', '.join(names)}, got {word!r}")
        if name in trained:
            raise UsageError(f"--runs names {name} twice, {trained[name]} and {folder}")
        trained[name] = Path(folder)
    return trained
