"""Exporting a policy: an ONNX model of one step, a card in JSON, and a runner that needs no torch.

FILE.onnx           the step; its metadata hold the card, so that the runner needs this file alone
FILE.json           the card
metarl_runner.py    a copy of metarl/deploy/runner.py
metarl_guard.py     a copy of metarl/deploy/guard.py
"""

import base64
import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.spaces import space_to_json
from metarl.deploy.steps import ExportableActor, PolicyStep
from metarl.observations import space_parts
from metarl.runs import codec
from metarl.runs.files import atomic_write
from metarl.runs.seeding import task_seeds

RUNNER = "metarl_runner.py"
_COPIES = {RUNNER: "runner.py", "metarl_guard.py": "guard.py"}
_METADATA, _VERSION = "metarl_policy", 1
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-4  # between torch's outputs and the model's, of numbers of unit size
_TRIES = 5


@dataclass(frozen=True)
class Exported:
    """The files of an exported policy.

    Attributes:
        model: ONNX model.
        card: JSON card.
        runner: Copy of the runner.
        largest_difference: Largest difference between the model's outputs and torch's on random inputs.
    """

    model: Path
    card: Path
    runner: Path
    largest_difference: float


def check_export(path: Path | str) -> None:
    """Raise a ValueError in one line if a policy cannot be exported to this file.

    Args:
        path: File that the model will be written to, ending in .onnx.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"the model's file must end in .onnx, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it, or export to another")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'export needs {" and ".join(missing)}; pip install "metarl-toolkit[onnx]"')
    for file in (path, path.with_suffix(".json")):
        if file.exists():
            raise ValueError(f"{file} exists and is left as it is; give the policy another name")
    for file, content in _copies(path).items():
        if file.exists() and file.read_bytes() != content:
            raise ValueError(f"{file} exists and is another version's; export to another folder")


def check_exportable(actor: object) -> ExportableActor:
    """The actor, if its step can be exported.

    Raises:
        TypeError: If it is of another kind; one line.
    """
    if not isinstance(actor, ExportableActor):
        raise TypeError(
            f"{type(actor).__name__} cannot be exported; expected an actor with policy_step, as "
            "metarl.deploy.steps.ExportableActor has it"
        )
    return actor


def export_policy(policy: AdaptedPolicy, path: Path | str, *, card: Mapping[str, Any] | None = None) -> Exported:
    """Write a policy, as it was when its adaptation ended, as an ONNX model of one step with its card and runner.

    Nothing is written before the model has been run and gave the numbers that torch gives.

    Args:
        policy: Policy of `metarl.adapt`, `metarl.load_policy`, or an agent's own.
        path: New file that ends in .onnx.
        card: Further entries of the card, as JSON types.

    Raises:
        ValueError: If a package is missing, a file exists, or an operator cannot be exported; one line.
        TypeError: If the actor is of a kind that cannot be exported; see `metarl.deploy.steps.ExportableActor`.
        WriteError: If a file cannot be written.
    """
    path = Path(path)
    check_export(path)
    step = check_exportable(policy.actor).policy_step().eval()
    model = _converted(step)
    inputs = {entry.name for entry in model.graph.input}
    description = _description(policy, step, inputs) | dict(card or {})
    text = json.dumps(description, indent=1, allow_nan=False)
    entry = model.metadata_props.add()
    entry.key, entry.value = _METADATA, text
    content = model.SerializeToString()
    difference = _largest_difference(step, content, inputs)
    _write_all({path.with_suffix(".json"): text.encode() + b"\n", **_copies(path), path: content})
    return Exported(path, path.with_suffix(".json"), path.with_name(RUNNER), difference)


def agent_policy(agent: Any, *, seed: int = 0, deterministic: bool = False) -> AdaptedPolicy:
    """The policy of an agent before any adaptation; RL2 and PEARL adapt while they act.

    Args:
        agent: Trained agent.
        seed: Seed of the actions' noise.
        deterministic: True for the mode of its distribution.
    """
    actor = agent.actor()
    space: spaces.Space[Any] = actor.interface.action_space
    return AdaptedPolicy(actor, space, seed, deterministic=deterministic, card=getattr(agent, "card", {}))


def _converted(step: PolicyStep) -> Any:  # an onnx.ModelProto, which need not be installed
    """The model, without the inputs that the policy does not use."""
    examples = step.examples()
    grows = {f"state.{place}" for place in step.growing}
    # Export takes axes of length 0 and 1 for fixed ones.
    for name in grows:
        examples[name] = torch.zeros(3, *examples[name].shape[1:])
    shapes = tuple({0: torch.export.Dim.DYNAMIC} if name in grows else None for name in examples)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                step,
                tuple(examples.values()),
                dynamo=True,
                input_names=list(examples),
                output_names=step.output_names(),
                dynamic_shapes=(shapes,) if grows else None,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise ValueError(f"the policy cannot be exported: {_reason(error)}") from error
    assert program is not None
    model = program.model_proto
    used = {name for node in model.graph.node for name in node.input} | {out.name for out in model.graph.output}
    inputs = [entry for entry in model.graph.input if entry.name in used]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _description(policy: AdaptedPolicy, step: PolicyStep, inputs: set[str]) -> dict[str, Any]:
    """The card: what the runner needs, and what people do."""
    seed = int(task_seeds(policy.seed, 1)[0])
    examples, space = step.examples(), policy.action_space
    parts = {
        name: examples[f"observation.{name}" if name else "observation"]
        for name in space_parts(step.interface.observation_space)
    }
    return {
        "version": _VERSION,
        "agent": dict(policy.card),
        "adapted_to": [codec.encode(entry, {}) for entry in policy.history],
        "sampling": step.sampling and not policy.deterministic,
        "reads": step.reads,
        "observation_space": space_to_json(step.interface.observation_space),
        "action_space": space_to_json(space),
        "observation": {name: _form(part) for name, part in parts.items()},
        "action": {"dtype": str(space.dtype), "shape": list(space.shape or ())},
        "inputs": {
            name: _form(value) for name, value in examples.items() if name in inputs and name[:6] != "state."
        },
        "outputs": step.output_names(),
        "noise": {
            name: {"kind": noise.kind, "per": noise.per, "shape": list(noise.shape), "seed": seed ^ noise.stream}
            for name, noise in step.noise.items()
        },
        "made_with": {name: _version(name) for name in ("metarl-toolkit", "torch", "onnx", "onnxscript")},
        "state": {f"state.{place}": _encoded(part[0]) for place, part in enumerate(step.state)},
    }


def _form(value: Tensor) -> dict[str, Any]:
    return {"dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}


def _encoded(value: Tensor) -> dict[str, Any]:
    """A part of the state; numbers are little-endian, zeros are left out."""
    array = value.numpy()
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {**_form(value), "base64": base64.b64encode(content).decode() if array.any() else None}


def _largest_difference(step: PolicyStep, content: bytes, inputs: set[str]) -> float:
    """The largest difference between the model's outputs and torch's over some steps of random inputs.

    Raises:
        ValueError: If the model cannot be run, or differs.
    """
    import onnxruntime  # noqa: PLC0415  # only an export needs it

    rng, feed, largest = np.random.default_rng(0), step.examples(), 0.0
    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises errors of its own
        raise ValueError(f"the exported model cannot be run: {_reason(error)}") from error
    names = step.output_names()
    for _ in range(_TRIES):
        for name, value in feed.items():
            if not name.startswith("state."):
                feed[name] = _random(value, rng)
        with torch.no_grad():
            expected = step(*feed.values())
        came = session.run(names, {name: value.numpy() for name, value in feed.items() if name in inputs})
        for name, right, other in zip(names, expected, came, strict=True):
            scale = max(1.0, float(right.abs().max())) if right.numel() else 1.0
            difference = float(np.abs(right.numpy().astype(float) - other).max(initial=0)) / scale
            if not difference <= _TOLERANCE:
                raise ValueError(f"the exported model gives another {name} than torch, by {difference:.2g}")
            largest = max(largest, difference)
            if name.startswith("next_"):
                feed[name.removeprefix("next_")] = right
    return largest


def _random(value: Tensor, rng: np.random.Generator) -> Tensor:
    if value.is_floating_point():
        return torch.from_numpy(np.asarray(rng.random(value.shape, np.float32)))
    return torch.from_numpy(np.asarray(rng.integers(0, 2, value.shape))).to(value.dtype)


def _write_all(files: Mapping[Path, bytes]) -> None:
    """Write all files, or none."""
    written: list[Path] = []
    try:
        for file, content in files.items():
            if not file.exists():
                atomic_write(file, content)
                written.append(file)
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise


def _copies(path: Path) -> dict[Path, bytes]:
    """The files that need no torch, as they stand beside the model."""
    return {path.with_name(name): Path(__file__).with_name(own).read_bytes() for name, own in _COPIES.items()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _reason(error: BaseException) -> str:
    """One line that says most: of the exporter's long texts the last cause's first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on packages that nobody needs here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
