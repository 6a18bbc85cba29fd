"""metarl evaluate DIR: measure a trained agent or learner on held-out tasks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiments.arguments import check_new, parse
from metarl.experiments.configuration import Device
from metarl.experiments.console import say
from metarl.experiments.loading import open_again
from metarl.experiments.options import EvaluationOptions
from metarl.experiments.outside import OwnWords
from metarl.runs.files import write_json


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure a trained agent or few-shot learner on held-out tasks, beside the untrained one.

    Attributes:
        folder: Run folder.
        options: Tasks, sizes and checkpoint of the evaluation.
        json: New file to write the result to, besides showing it.
        device: Device of the networks, instead of the configured one: auto, cpu, cuda, cuda:N or mps.
        own: Words for what the run was made with and its folder does not hold.
    """

    folder: tyro.conf.Positional[Path]
    options: Annotated[EvaluationOptions, tyro.conf.arg(name="")] = field(default_factory=EvaluationOptions)
    json: Path | None = None
    device: Device | None = None
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)


def command(words: list[str]) -> int:
    """Run `metarl evaluate`; returns the exit status."""
    arguments = parse(EvaluateArguments, words, "metarl evaluate")
    check_new(arguments.json)
    run = open_again(arguments.folder, arguments.own)
    run = run.on_device(arguments.device)
    result = run.evaluated(arguments.options)
    run.show(result)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0
