"""Making and opening runs of either kind, from an experiment or from what a user types."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from metarl.agents.promp import PrompConfig
from metarl.experiments import configuration
from metarl.experiments.agent_run import AgentRun
from metarl.experiments.catalogue import backbone_of_word, benchmark_of_word, experiment_of_word, reward_of_word
from metarl.experiments.configuration import Device, Experiment
from metarl.experiments.fewshot import configuration as fewshot
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.fewshot.run import FewshotRun
from metarl.experiments.outside import OwnWords, Source, installed
from metarl.experiments.runs import CONFIG, Run, read_config
from metarl.experiments.warm_start import initialised
from metarl.fewshot.data.sinusoids import SinusoidData
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.sources import DataConfig
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.codec import NotBuiltIn

AnyExperiment = Experiment | FewshotExperiment


def prepare_run(name: str, experiment: AnyExperiment, sources: Mapping[str, Any] | None = None) -> Run:
    """The run of an experiment, before there is a folder; see `metarl.experiments.runs.make_run`.

    Args:
        name: Name of the run.
        experiment: Configuration, of either kind.
        sources: Origin of the experiment, in the form that it has in config.json.

    Raises:
        ValueError: if it cannot be run.
        TypeError: if it is no experiment.
    """
    if not isinstance(experiment, Experiment | FewshotExperiment):
        raise TypeError(f"expected an Experiment or a FewshotExperiment, got {type(experiment).__name__}")
    if isinstance(experiment, FewshotExperiment):
        run: Run = FewshotRun.prepare(Path(), name, experiment, sources or {})
    else:
        run = AgentRun.prepare(Path(), name, experiment, sources or {})
    if experiment.init_from is None:
        return run
    try:
        source = open_run(experiment.init_from, experiment=experiment)
    except ValueError:  # of another kind, which is named there; or of objects that only its own experiment has
        source = None
    return initialised(run, source)


def open_run(
    folder: Path | str,
    *,
    experiment: AnyExperiment | str | None = None,
    benchmark: str | None = None,
    reward: str | None = None,
    backbone: str | None = None,
) -> Run:
    """Open a run folder.

    Args:
        folder: Folder that `metarl train` or `metarl.train` made.
        experiment: The experiment that the run was made with, or FILE.py:NAME or module:NAME; needed if it holds
            classes or objects that are not built in.
        benchmark: FILE.py:NAME of the run's benchmark, or few-shot data, if that is not built in.
        reward: FILE.py:NAME of the reward of the run's YAML family, if that is a function of your own.
        backbone: FILE.py:NAME of the few-shot run's network, if that is your own.

    Raises:
        ValueError: saying what is missing or malformed, or what to give.
    """
    folder = Path(folder)
    data = read_config(folder)
    sources: Mapping[str, Any] = data.get("sources", {})
    template = _template(sources, experiment)
    if benchmark is not None:
        template = _with_benchmark(template, benchmark, sources)
    if reward is not None:
        template = _with_reward(template, reward, sources)
    if backbone is not None:
        template = _with_backbone(template, backbone, sources)
    path, kind = folder / CONFIG, data["kind"]
    expected = Experiment if kind == "rl" else FewshotExperiment
    if template is not None and not isinstance(template, expected):
        raise ValueError(
            f"{folder} is a run of kind {kind}, got an experiment or a part of the other kind; give its own"
        )
    try:
        if kind == "rl":
            assert not isinstance(template, FewshotExperiment)
            rl = configuration.decode(data["experiment"], template)
            return AgentRun.open(folder, data["name"], rl, sources)
        assert not isinstance(template, Experiment)
        few = fewshot.decode(data["experiment"], template)
    except NotBuiltIn as error:
        raise ValueError(f"{path}: {error}; add {_how_to_give(sources)}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a run's configuration: {type(error).__name__} {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return FewshotRun.open(folder, data["name"], few, sources)


def open_again(folder: Path | str, own: OwnWords) -> Run:
    """The run of a folder, with what the options of a command name."""
    return open_run(folder, **asdict(own))


def load_agent(
    folder: Path | str,
    *,
    experiment: AnyExperiment | str | None = None,
    benchmark: str | None = None,
    reward: str | None = None,
    backbone: str | None = None,
    checkpoint: str = CHECKPOINT,
    device: Device | None = "cpu",
) -> Any:
    """The trained agent, or few-shot learner, of a run folder; `metarl resume` trains it on.

    Args:
        folder: Folder that `metarl train` or `metarl.train` made.
        experiment: The experiment that the run was made with, or FILE.py:NAME; see `open_run`.
        benchmark: FILE.py:NAME of the run's benchmark; see `open_run`.
        reward: FILE.py:NAME of the run's reward; see `open_run`.
        backbone: FILE.py:NAME of the run's network; see `open_run`.
        checkpoint: File name of one of the run's checkpoints.
        device: Device of its networks; None for the configured one.

    Raises:
        ValueError: saying what is missing or malformed.
    """
    run = open_run(folder, experiment=experiment, benchmark=benchmark, reward=reward, backbone=backbone)
    return run.agent(checkpoint=checkpoint, device=device)


def _template(sources: Mapping[str, Any], experiment: AnyExperiment | str | None) -> AnyExperiment | None:
    """The experiment that lends its classes: the given one, or one that is installed under the recorded name."""
    if experiment is not None and not isinstance(experiment, str):
        return experiment
    recorded = sources.get("experiment", {})
    word = experiment
    if word is None:
        word = recorded.get("source")
        if word not in installed():
            return None
    named = experiment_of_word(word)
    _compare(named.source, recorded)
    return named.experiment


def _with_benchmark(template: AnyExperiment | None, word: str, sources: Mapping[str, Any]) -> AnyExperiment:
    benchmark, source = benchmark_of_word(word)
    _compare(source, sources.get("benchmark", {}))
    if isinstance(benchmark, DataConfig):
        if isinstance(template, FewshotExperiment):
            return replace(template, data=benchmark)
        return FewshotExperiment(benchmark, MamlConfig())  # only the data are read of it
    if isinstance(template, Experiment):
        return replace(template, benchmark=benchmark)
    return Experiment(benchmark, PrompConfig())  # only the benchmark is read of it


def _with_reward(template: AnyExperiment | None, word: str, sources: Mapping[str, Any]) -> Experiment:
    reward, source = reward_of_word(word)
    _compare(source, sources.get("reward", {}))
    if isinstance(template, Experiment):
        return replace(template, reward=reward)
    return Experiment("", PrompConfig(), reward=reward)  # only the reward is read of it


def _with_backbone(template: AnyExperiment | None, word: str, sources: Mapping[str, Any]) -> FewshotExperiment:
    backbone, source = backbone_of_word(word)
    _compare(source, sources.get("backbone", {}))
    if isinstance(template, FewshotExperiment):
        return replace(template, backbone=backbone)
    return FewshotExperiment(SinusoidData(), MamlConfig(), backbone)  # only the network is read of it


def _compare(source: Source | None, recorded: Mapping[str, Any]) -> None:
    """Say it in one line if a file is not what the run was made with."""
    before = recorded.get("sha256")
    if source is not None and isinstance(before, str) and source.sha256 != before:
        print(
            f"metarl: warning: {source.word} has changed since the run was made "
            f"(sha256 {before[:12]}, now {source.sha256[:12]})",
            file=sys.stderr,
        )


def _how_to_give(sources: Mapping[str, Any]) -> str:
    """The options that give what a run folder does not hold."""
    parts = [part.name for part in fields(OwnWords) if part.name in sources]
    if parts:
        return " ".join(f"--{part} {sources[part]['source']}" for part in parts)
    return "--experiment FILE.py:NAME with the experiment that the run was made with"
