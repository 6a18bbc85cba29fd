"""Exporting a policy: an ONNX model of one step, a card in JSON, and a runner that needs no torch.

FILE.onnx           the step; its metadata hold the card, so that the runner needs this file alone
FILE.json           the card
metarl_runner.py    a copy of metarl/deploy/runner.py
metarl_guard.py     a copy of metarl/deploy/guard.py
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.deploy.models import (
    Exported,
    add_metadata,
    check_target,
    convert,
    copied,
    session,
    versions,
    write_all,
)
from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.spaces import space_to_json
from metarl.deploy.steps import ExportableActor, PolicyStep
from metarl.observations import space_parts
from metarl.runs import codec
from metarl.runs.seeding import task_seeds

RUNNER = "metarl_runner.py"
_COPIES = {RUNNER: "runner.py", "metarl_guard.py": "guard.py"}
_METADATA, _VERSION = "metarl_policy", 1
_TOLERANCE = 1e-4  # between torch's outputs and the model's, of numbers of unit size
_TRIES = 5


def check_export(path: Path | str) -> None:
    """Raise a ValueError in one line if a policy cannot be exported to this file, which ends in .onnx."""
    check_target(Path(path), _COPIES)


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
    content = add_metadata(model, {_METADATA: text})
    difference = _largest_difference(step, content, inputs)
    write_all({path.with_suffix(".json"): text.encode() + b"\n", **copied(path, _COPIES), path: content})
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
    return convert(step, examples, step.output_names(), (shapes,) if grows else None)


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
        "made_with": versions(),
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
    rng, feed, largest = np.random.default_rng(0), step.examples(), 0.0
    running = session(content)
    names = step.output_names()
    for _ in range(_TRIES):
        for name, value in feed.items():
            if not name.startswith("state."):
                feed[name] = _random(value, rng)
        with torch.no_grad():
            expected = step(*feed.values())
        came = running.run(names, {name: value.numpy() for name, value in feed.items() if name in inputs})
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
