"""metarl evaluate DIR: measure a trained agent or learner on held-out tasks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from metarl.experiments.arguments import check_new, parse
from metarl.experiments.configuration import Device
from metarl.experiments.console import say
from metarl.experiments.loading import open_run
from metarl.experiments.options import EvaluationOptions
from metarl.runs.files import write_json


@dataclass(frozen=True)
class EvaluateArguments:
    """Measure a trained agent or few-shot learner on held-out tasks, beside the untrained one.

    Attributes:
        folder: Run folder.
        options: Tasks, sizes and checkpoint of the evaluation.
        json: New file to write the result to, besides showing it.
        device: Device of the networks, instead of the configured one.
        experiment: FILE.py:NAME of the experiment that the run was made with, if it is not built in.
        benchmark: FILE.py:FAMILY of the benchmark that the run was made with, if it is not built in.
    """

    folder: tyro.conf.Positional[Path]
    options: Annotated[EvaluationOptions, tyro.conf.arg(name="")] = field(default_factory=EvaluationOptions)
    json: Path | None = None
    device: Device | None = None
    experiment: str | None = None
    benchmark: str | None = None


def command(words: list[str]) -> int:
    """Run `metarl evaluate`; returns the exit status."""
    arguments = parse(EvaluateArguments, words, "metarl evaluate")
    check_new(arguments.json)
    run = open_run(arguments.folder, experiment=arguments.experiment, benchmark=arguments.benchmark)
    run = run.on_device(arguments.device)
    result = run.evaluated(arguments.options)
    run.show(result)
    if arguments.json is not None:
        write_json(arguments.json, result)
        say(f"written to {arguments.json}")
    return 0
