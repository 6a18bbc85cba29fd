"""metarl sweep EXPERIMENT --over SETTING=RANGE: try settings, and keep the best as an experiment."""

from pathlib import Path
from typing import cast, get_args

from metarl.experiments.arguments import UsageError
from metarl.experiments.comparison.figures import can_draw
from metarl.experiments.console import say, show_table
from metarl.experiments.places import Place
from metarl.experiments.prepared import planned
from metarl.experiments.ray_runs import placed, take_placement
from metarl.experiments.runs import make_folder
from metarl.experiments.seeds import train_members
from metarl.experiments.sweep.figures import draw
from metarl.experiments.sweep.scores import Measure
from metarl.experiments.sweep.sweep import Sweep, SweepPlan, command_line

HELP = """usage: metarl sweep EXPERIMENT [any field] --over SETTING=RANGE ... [options]

Try settings of an experiment, chosen by Optuna; trials that learn worse than most
are stopped early. EXPERIMENT and fields are as for `metarl train`.

  --over SETTING=RANGE ...  settings that differ, for example
                              agent.outer_lr=log:1e-4:1e-2     agent.gamma=0.9:1
                              agent.outer_steps=int:1:10       agent.policy.memory=gru,lstm
  --trials N                trials in all, with those that are done (default: 30)
  --score WORD              return, success, accuracy or error (default: return; of
                            few-shot learners accuracy, or the error)
  --jobs N                  trials at a time (default: one per core)
  --workers ray             each trial on a node of a Ray cluster, with --ray-address
                            HOST:PORT|auto, --run-cores N and --run-gpus F
  --hours H                 hours after which all are stopped (default: never)
  --sampler-seed N          seed of the proposals (default: 0)
  --out DIR                 folder of the sweep (default: the next free runs/NAME-sweep);
                            one that is there goes on

Trials are evaluated on tasks of their own, not on those that --seeds reports on."""

_MOST_ROWS = 10


def command(words: list[str]) -> int:
    """Run `metarl sweep`; returns the exit status."""
    if words[:1] in (["-h"], ["--help"]) or {"-h", "--help"} & set(words):
        say(HELP)
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError("sweep needs an experiment: a name of `metarl list`, or FILE.py:NAME")
    placement, words = take_placement(words)
    over, words = _after_over(words)
    trials = _number(_take(words, "--trials"), "--trials", 30, 100_000)
    jobs_word, hours_word = _take(words, "--jobs"), _take(words, "--hours")
    jobs = None if jobs_word is None else _number(jobs_word, "--jobs", 1, 1000)
    seed_word, out = _take(words, "--sampler-seed"), _take(words, "--out")
    seed = 0 if seed_word is None else _number(seed_word, "--sampler-seed", 0, 2**32 - 1, least=0)
    measure = _take(words, "--score")
    if measure is not None and measure not in get_args(Measure):
        raise UsageError(f"--score must be {', '.join(get_args(Measure))}, got {measure[:40]!r}")
    plan = SweepPlan(tuple(words), tuple(over), seed, cast("Measure | None", measure))
    hours = _hours(hours_word)
    plan.check()  # what cannot be tried is said before a folder is made
    with placed(placement) as place:
        return _sweep(plan, None if out is None else Path(out), trials, (jobs, hours), place)


def _sweep(
    plan: SweepPlan, out: Path | None, trials: int, limits: tuple[int | None, float | None], place: Place | None
) -> int:
    """Train the trials that are to do, under limits of trials at a time and of seconds; the exit status."""
    try:
        folder = make_folder(None, f"{planned(plan.words)[0].name}-sweep") if out is None else out
        sweep = Sweep(plan, folder)
    except ModuleNotFoundError as error:
        raise UsageError('a sweep needs Optuna: pip install "metarl-toolkit[sweep]"') from error
    members = sweep.members(trials)
    say(f"{len(members)} of {trials} trials to do in {folder}")
    if members:
        train_members(members, *limits, place)
    _show(sweep, trials)
    if sweep.members(trials):
        say(f"not all trials are done; the same command with --out {folder} goes on")
        return 130
    return 0


def _show(sweep: Sweep, trials: int) -> None:
    """Print the best trials and what mattered, and write the best experiment and the figure."""
    finished = sweep.finished()
    states = [trial.state.name.lower() for trial in sweep.study.trials]
    say(", ".join(f"{states.count(s)} {s}" for s in ("complete", "pruned", "fail", "running") if s in states))
    if not finished:
        say("no trial has a score yet")
        return
    names = [each.name for each in sweep.plan.ranges]
    rows = [
        (str(trial.number), f"{trial.value:.4g}", *(_short(trial.params[name]) for name in names))
        for trial in finished[:_MOST_ROWS]
    ]
    show_table("best trials", ("trial", "score", *(name.rpartition(".")[2] for name in names)), rows)
    importances = sweep.importances()
    if importances:
        rows = [(name, f"{share:.2f}") for name, share in importances.items()]
        show_table("importance", ("setting", "share"), rows)
        if can_draw():
            scores = [(trial.number, trial.value) for trial in finished]
            paths = draw(importances, scores, sweep.folder)
            say(f"figure in {paths[0]}")
    path = sweep.write_best()
    say(f"best settings in {path}; train them with:")
    say(f"  {command_line(sweep.best_words())} --seeds 3")


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _after_over(words: list[str]) -> tuple[list[str], list[str]]:
    """The ranges after every --over, and the other words."""
    over: list[str] = []
    rest: list[str] = []
    place = 0
    while place < len(words):
        if words[place] == "--over":
            place += 1
            while place < len(words) and not words[place].startswith("--"):
                over.append(words[place])
                place += 1
        else:
            rest.append(words[place])
            place += 1
    return over, rest


def _take(words: list[str], option: str) -> str | None:
    """Take an option and its value out of the words; None if it is not there."""
    for place, word in enumerate(words):
        name, separator, value = word.partition("=")
        if name == option and separator:
            del words[place]
            return value
        if name == option:
            if place + 1 == len(words):
                raise UsageError(f"{option} needs a value")
            value = words[place + 1]
            del words[place : place + 2]
            return value
    return None


def _number(word: str | None, option: str, default: int, most: int, *, least: int = 1) -> int:
    if word is None:
        return default
    if not (word.isascii() and word.isdigit() and len(word) <= 12 and least <= int(word) <= most):
        raise UsageError(f"{option} must be a whole number between {least} and {most:,}, got {word[:40]!r}")
    return int(word)


def _hours(word: str | None) -> float | None:
    if word is None:
        return None
    try:
        hours = float(word)
    except ValueError:
        hours = 0.0
    if not 0 < hours < 1e6:
        raise UsageError(f"--hours must be a positive number, got {word[:40]!r}")
    return hours * 3600
