"""metarl train EXPERIMENT: train in a new run folder, and evaluate."""

import textwrap
from pathlib import Path

from metarl.experiments.arguments import UsageError
from metarl.experiments.configuration import ALGORITHMS
from metarl.experiments.console import say
from metarl.experiments.fewshot_settings import LEARNERS
from metarl.experiments.places import Place
from metarl.experiments.prepared import Prepared, prepared_by, with_seed
from metarl.experiments.ray_runs import placed, take_placement
from metarl.experiments.runs import make_folder, make_run
from metarl.experiments.seeds import Member, finish_group, parse_seeds
from metarl.experiments.working import work
from metarl.runs import parallel
from metarl.runs.cores import check_alone

_LEARNERS = textwrap.fill(", ".join(LEARNERS), 48, break_on_hyphens=False).replace("\n", "\n" + 30 * " ")
_ALGORITHMS = textwrap.fill(", ".join(ALGORITHMS), 48, break_on_hyphens=False).replace("\n", "\n" + 30 * " ")
HELP = f"""usage: metarl train EXPERIMENT [--out DIR] [any field of the configuration]
       metarl train EXPERIMENT ... --seeds 3 [--out DIR] [any field]
       metarl train EXPERIMENT ... --seeds 10 --workers ray [--ray-address HOST:PORT|auto]
                    [--run-cores N] [--run-gpus F]    each run on a node of a Ray cluster

EXPERIMENT is one of
  NAME                        an experiment of `metarl list`
  ALGORITHM --benchmark NAME  {_ALGORITHMS},
                              with settings for the benchmark's kind; of `metarl list
                              benchmarks`, a YAML family, or FILE.py:FAMILY of your own
  LEARNER --benchmark DATA    few-shot learners on sinusoids, harmonics, omniglot,
                              class-folders, table, or FILE.py:NAME of data of your
                              own: {_LEARNERS}
  FILE.py:NAME, module:NAME   an Experiment of your own, or a function that returns one

`metarl train EXPERIMENT --help` describes an experiment's fields."""


def command(words: list[str]) -> int:
    """Run `metarl train`; returns the exit status."""
    if words[:1] in (["-h"], ["--help"]):
        say(HELP)
        return 0
    if not words or words[0].startswith("-"):
        raise UsageError("train needs an experiment: a name of `metarl list`, or FILE.py:NAME")
    placement = None
    if any(word.partition("=")[0] == "--seeds" for word in words):  # else --workers is the experiment's
        placement, words = take_placement(words)
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    prepared = [prepared_by(word, words[count:]) for word in words[:count]]
    out, seeds = prepared[0].out, prepared[0].seeds
    if seeds is None:
        if count > 1:
            raise UsageError(f"expected one experiment, got {', '.join(words[:count])}; several need --seeds")
        return _train_one(prepared[0], out)
    check_alone("several runs are trained")
    with placed(placement) as place:
        return _train_group(prepared, out, parse_seeds(seeds), place)


def _train_one(prepared: Prepared, out: Path | None) -> int:
    run = prepared.run()
    with parallel.together():
        introduction = run.introduction()  # what cannot be made leaves no folder behind
        run = make_run(run, out)
        for line in introduction:
            say(line)
        say(f"run folder {run.folder}")
        return work(run, prepared.own)


def _train_group(prepared: list[Prepared], out: Path | None, seeds: tuple[int, ...], place: Place | None) -> int:
    """Train every experiment with every seed, in one folder, on the same test tasks."""
    by_name = {each.name: each for each in prepared}
    if len(by_name) < len(prepared):
        raise UsageError(f"expected distinct experiments, got {', '.join(each.name for each in prepared)}")
    pairs = [(name, seed) for name in by_name for seed in seeds]
    runs = {(name, seed): with_seed(by_name[name], seed).run() for name, seed in pairs}
    for name in by_name:
        runs[name, seeds[0]].introduction()  # what cannot be made leaves no folder behind
    folder = make_folder(out, prepared[0].name if len(prepared) == 1 else "seeds")
    members = []
    for (name, seed), run in runs.items():
        inside = folder if len(prepared) == 1 else folder / name
        inside.mkdir(exist_ok=True)
        made = make_run(run, inside / f"seed{seed}")
        label = f"seed {seed}" if len(prepared) == 1 else f"{name} {seed}"
        members.append(Member(made.folder, label, by_name[name].own))
    say(f"{len(members)} runs in {folder}")
    return finish_group(folder, members, place)
