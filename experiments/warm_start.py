"""Warm starts: another run's weights as the beginning of a run, after a check that they mean the same there."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarl.experiments.runs import AnyRun, Run, read_config
from metarl.runs.checkpoint import CheckpointError, latest_checkpoint, load_checkpoint
from metarl.runs.warm_start import check_fit, check_parts, weights_of, without_parts
from metarl.states import progress_of

_SHAPELESS = (
    "activation",
    "num_heads",
    "normalise_observations",
    "rectified",
    "downsampling",
    "read_transitions",
    "read_actions",
    "read_changes",
)
"""Settings of networks that change what weights compute, and not their shapes."""
_SHAPELESS_OF = {"memory-sac": ("init_std",)}
"""The same, of the networks of one agent: memory SAC's weights are read beside its initial deviation."""


def initialised(run: AnyRun, source: Run | None) -> AnyRun:
    """The run of an experiment before there is a folder, with the weights that its experiment names.

    Args:
        run: Prepared run whose experiment has init_from.
        source: The run that the weights are of; None if it holds what cannot be opened here, so that only its
            configuration and its weights can be compared.

    Raises:
        ValueError: if the weights do not fit, or mean something else; says what differs.
    """
    folder = Path(run.experiment.init_from)
    _compare(run, read_config(folder), folder)
    if source is not None:
        for name, own in run.spaces().items():
            if (other := source.spaces().get(name)) != own:
                raise ValueError(
                    f"the weights of {folder} are for {name} {other}, expected {own}; init_from needs both alike"
                )
    path = latest_checkpoint(folder)
    if path is None:
        raise CheckpointError(f"{folder} has no checkpoint to start from; train it first")
    state = load_checkpoint(path)
    if not isinstance(state.get("agent"), dict):
        raise CheckpointError(f"{path} holds no agent or learner to start from; give another run folder")
    trained = run.untrained()
    not_weights, without = getattr(trained, "not_weights", ()), run.experiment.init_without
    own, weights = (weights_of(of, not_weights) for of in (trained.state_dict(), state["agent"]))
    check_parts({**weights, **own}, without)
    own, weights = (without_parts(of, without) for of in (own, weights))
    check_fit(weights, own, str(folder))
    origin = {
        "run": folder.resolve().name,
        "checkpoint": path.name,
        "iteration": progress_of(state, path).iteration,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    return replace(run, initial=weights, sources={**run.sources, "weights": origin})


def _compare(run: Run, config: Mapping[str, Any], folder: Path) -> None:
    """Raise a ValueError unless a run's configuration is of the same algorithm, with networks of the same kind."""
    if config["kind"] != run.kind:
        raise ValueError(
            f"{folder} is a run of kind {config['kind']}, expected {run.kind}; init_from needs the same kind"
        )
    part = "agent" if run.kind == "rl" else "learner"
    own, other = run.encode(), config["experiment"]
    names = [_algorithm(of.get(part)) for of in (own, other)]
    if names[0] != names[1]:
        raise ValueError(
            f"{folder} is a run of the {part} {names[1]}, expected {names[0]}; init_from needs the same {part}"
        )
    names_of = (*_SHAPELESS, *_SHAPELESS_OF.get(names[0], ()))
    settings = [
        {name: value for key in (part, "backbone") for name, value in _settings(of.get(key), key, names_of)}
        for of in (own, other)
    ]
    for name in settings[0]:
        if settings[0][name] != settings[1].get(name, settings[0][name]):
            raise ValueError(
                f"{folder} was trained with {name} {settings[1][name]}, got {settings[0][name]}; "
                "init_from needs networks of the same kind"
            )
    _compare_inference(own, other, folder)


def _compare_inference(own: Mapping[str, Any], other: Mapping[str, Any], folder: Path) -> None:
    """Raise a ValueError if a student that infers a latent would start from one of parameters, or back."""
    infers = [((of.get("agent") or {}).get("policy") or {}).get("infers") for of in (own, other)]
    if None in infers or "student" in own.get("init_without", ()):
        return
    if (infers[0] == "parameters") != (infers[1] == "parameters"):
        raise ValueError(
            f"the student of {folder} infers {infers[1]}, expected {infers[0]}; "
            "leave it out with --init-without student"
        )


def _algorithm(encoded: object) -> str:
    """The name of an encoded agent's or learner's class; of a user's own without its module."""
    data = encoded if isinstance(encoded, Mapping) else {}
    name = str(data.get("algorithm", data.get("class")))
    return name.rpartition(":")[2]


def _settings(encoded: object, where: str, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    for key, value in encoded.items() if isinstance(encoded, Mapping) else ():
        if key in names:
            yield f"{where}.{key}", value
        yield from _settings(value, f"{where}.{key}", names)
