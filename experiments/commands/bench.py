"""metarl bench NAME: measure this project beside its peers."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from metarl.experiments.arguments import UsageError, check_new, parse
from metarl.experiments.console import say
from metarl.runs.configs import MOST_REPEATS, check_counts
from metarl.runs.files import write_json


@dataclass(frozen=True)
class BenchArguments:
    """Measure this project beside its peers, in one run, and report ratios.

    Attributes:
        name: Measurement to make: rollout, dynamics, metaworld, meta-gradient, rl2, pearl, reward-scale, fewshot,
            threads, executors or export.
        json: New file to write the result to, besides showing it.
        repeats: Number of measurements of each contender, whose medians are reported; of reward-scale, number of
            seeds.
    """

    name: tyro.conf.Positional[
        Annotated[
            Literal[
                "rollout",
                "dynamics",
                "metaworld",
                "meta-gradient",
                "rl2",
                "pearl",
                "reward-scale",
                "fewshot",
                "threads",
                "executors",
                "export",
            ],
            tyro.conf.arg(metavar="NAME"),
        ]
    ]
    json: Path | None = None
    repeats: int = 3

    def __post_init__(self) -> None:
        check_counts(self, "repeats", most=MOST_REPEATS)


def command(words: list[str]) -> int:
    """Run `metarl bench`; returns the exit status."""
    arguments = parse(BenchArguments, words, "metarl bench")
    check_new(arguments.json)
    # Imported when asked for: a bench imports its peers.
    try:
        bench = importlib.import_module(f"metarl.experiments.bench.{arguments.name.replace('-', '_')}")
    except ModuleNotFoundError as error:
        raise UsageError(
            f'metarl bench {arguments.name} needs {error.name}; pip install "metarl-toolkit[bench,metaworld,onnx]"'
        ) from error
    result: dict[str, Any] = bench.bench(arguments.repeats)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0
