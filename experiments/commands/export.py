"""metarl export DIR --onnx FILE: an agent, a policy or a few-shot learner as a model that runs without torch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from metarl.agents.loading import load_policy
from metarl.deploy.adapting import adapt_to_recording
from metarl.deploy.exporting import agent_policy, check_export, check_exportable, export_policy
from metarl.deploy.models import Exported
from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.recordings import Recording, load_recording
from metarl.experiments.agent_run import AgentRun
from metarl.experiments.arguments import UsageError, parse
from metarl.experiments.console import Waiting, say
from metarl.experiments.export_cards import last_evaluation, met_in_training
from metarl.experiments.fewshot.exporting import export_run
from metarl.experiments.fewshot.run import FewshotRun
from metarl.experiments.loading import open_again
from metarl.experiments.outside import OwnWords
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, check_counts, check_seed


@dataclass(frozen=True)
class ExportArguments:
    """Write one step of a policy, or a few-shot learner, as an ONNX model with a runner that needs no torch.

    Attributes:
        source: Run folder, or file of an adapted policy that `adapted.save` wrote.
        onnx: New file of the model, ending in .onnx; FILE.json, its card, and metarl_runner.py or
            metarl_classifier.py are written beside it.
        recording: File of transitions to adapt to first, ending in .npz; without it RL2, VariBAD and PEARL
            adapt while they act, ProMP and MAML-TRPO act with the meta-parameters.
        support: Examples of the one task that a few-shot learner is exported for, a folder of images by class or
            an npz file of inputs and targets; without it learners that compare learn tasks on the device.
        num_steps: Number of gradient steps on the recording, 1 by default, or on the support set, the run's own.
        deterministic: Runner takes the policy's mode unless it is asked to sample.
        data_source: Place in data.sources, from 0, of the data that are meant, of runs on several data.
        seed: Seed of the actions' noise.
        num_tasks: Number of training tasks that the agent acts in for the card's ranges of observations and
            rewards; 0 for none.
        checkpoint: File name of the checkpoint, checkpoint.pt or checkpoint.previous.pt.
        own: Words for what the run was made with and its folder does not hold.
    """

    source: tyro.conf.Positional[Path]
    onnx: Path
    recording: Path | None = None
    support: Path | None = None
    num_steps: int | None = None
    data_source: int | None = None
    deterministic: bool = False
    seed: int = 0
    num_tasks: int = 20
    checkpoint: str = CHECKPOINT
    own: Annotated[OwnWords, tyro.conf.arg(name="")] = field(default_factory=OwnWords)

    def __post_init__(self) -> None:
        check_counts(self, "num_steps", least=0, most=MOST_REPEATS)
        check_counts(self, "num_tasks", "data_source", least=0, most=MOST_TASKS)
        check_seed(self)


def command(words: list[str]) -> int:
    """Run `metarl export`; returns the exit status."""
    arguments = parse(ExportArguments, words, "metarl export")
    recording = None if arguments.recording is None else load_recording(arguments.recording)
    card: dict[str, Any] = {}
    if arguments.source.is_file():
        _check_few_shot_options(arguments)
        check_export(arguments.onnx)
        saved = load_policy(arguments.source)
        _check_kind(saved.actor)
        if arguments.deterministic:
            saved = _without_samples(saved)
        policy = _adapted(saved, saved, recording, arguments)
    else:
        run = open_again(arguments.source, arguments.own)
        if isinstance(run, FewshotRun):
            return _export_learner(run, arguments)
        assert isinstance(run, AgentRun)
        _check_few_shot_options(arguments)
        check_export(arguments.onnx)
        agent = run.agent(checkpoint=arguments.checkpoint)
        _check_kind(agent.actor())
        start = agent_policy(agent, seed=arguments.seed, deterministic=arguments.deterministic)
        policy = _adapted(agent, start, recording, arguments)
        card = {"last_evaluation": last_evaluation(run)}
        if arguments.num_tasks:
            with Waiting("acting in training tasks"):
                card["met_in_training"] = met_in_training(run, agent, arguments.num_tasks)
    with Waiting("exporting"):
        exported = export_policy(policy, arguments.onnx, card=card)
    return _say_written(exported)


def _export_learner(run: FewshotRun, arguments: ExportArguments) -> int:
    """Export the learner of a few-shot run; returns the exit status."""
    if arguments.recording is not None or arguments.deterministic:
        raise UsageError(f"{run.folder} is a few-shot run; leave --recording and --deterministic out")
    with Waiting("exporting"):
        exported = export_run(
            run.on_source(arguments.data_source),
            arguments.onnx,
            support=arguments.support,
            num_steps=arguments.num_steps,
            checkpoint=arguments.checkpoint,
        )
    return _say_written(exported)


def _say_written(exported: Exported) -> int:
    """Print what was written; returns the exit status."""
    say(f"written to {exported.model}, {exported.card.name} and {exported.runner.name}")
    say(f"largest difference from torch in checked steps: {exported.largest_difference:.1e}")
    return 0


def _check_few_shot_options(arguments: ExportArguments) -> None:
    for name, value in {"--support": arguments.support, "--data-source": arguments.data_source}.items():
        if value is not None:
            raise UsageError(f"{name} is of few-shot runs, {arguments.source} holds a policy; leave it out")


def _check_kind(actor: object) -> None:
    try:
        check_exportable(actor)
    except TypeError as error:
        raise UsageError(str(error)) from error


def _adapted(
    start: Any, policy: AdaptedPolicy, recording: Recording | None, arguments: ExportArguments
) -> AdaptedPolicy:
    """The policy itself, or what an agent or a policy becomes by a recording."""
    if recording is None:
        return policy
    return adapt_to_recording(
        start,
        recording,
        policy.action_space,
        num_steps=1 if arguments.num_steps is None else arguments.num_steps,
        seed=arguments.seed,
        deterministic=arguments.deterministic,
    ).policy


def _without_samples(policy: AdaptedPolicy) -> AdaptedPolicy:
    """The same policy, which takes the mode of its distribution."""
    return AdaptedPolicy(
        policy.actor,
        policy.action_space,
        policy.seed,
        deterministic=True,
        card=policy.card,
        history=policy.history,
    )
