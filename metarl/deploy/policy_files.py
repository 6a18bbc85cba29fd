"""The file of an adapted policy: safetensors, whose metadata hold everything else as one JSON text.

    tensors    weights, and what the actor has learned of its task
    metadata   "metarl_policy": {"version", "actor", "settings", "observation_space", "action_space",
               "environment_action_space", "seed", "deterministic", "card", "history"}

Nothing in it is executed, and no class is imported by a name in it. Sizes are checked before anything is made.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Interface, SavedActor
from metarl.deploy.histories import AdaptedTo
from metarl.deploy.spaces import space_from_json, space_to_json
from metarl.runs import codec
from metarl.runs.files import atomic_write
from metarl.runs.reading import open_regular, parse_json, shorten

MAX_POLICY_BYTES = 2**30
_MAX_HEADER_BYTES = 16 * 2**20
_MAX_LAYERS = 64
_FREE_SIZE = 4096
"""Size that a setting may name without a tensor of that size in the file."""

_KEY, _VERSION = "metarl_policy", 1
_FIELDS = {
    "version": int,
    "actor": str,
    "settings": dict,
    "observation_space": dict,
    "action_space": dict,
    "environment_action_space": dict,
    "seed": int,
    "deterministic": bool,
    "card": dict,
    "history": list,
}


@dataclass(frozen=True)
class PolicyFile:
    """The contents of a policy's file.

    Attributes:
        kind: Name of the kind of actor.
        interface: Spaces that the actor was made for.
        contents: Settings and tensors of the actor.
        action_space: Action space of the environment that it acts in.
        seed: Seed of the actions' noise.
        deterministic: Whether it takes the mode of its distribution.
        card: Origin of the agent, as JSON types.
        history: Adaptations that made the policy.
    """

    kind: str
    interface: Interface
    contents: SavedActor
    action_space: spaces.Space[Any]
    seed: int
    deterministic: bool
    card: Mapping[str, Any]
    history: tuple[AdaptedTo, ...]


def write_policy(path: Path, policy: PolicyFile) -> None:
    """Write a policy to a new file.

    Raises:
        ValueError: If the file exists already.
        WriteError: If it cannot be written.
    """
    if path.exists():
        raise ValueError(f"{path} exists and is left as it is; give the policy another name")
    data = {
        "version": _VERSION,
        "actor": policy.kind,
        "settings": dict(policy.contents.settings),
        "observation_space": space_to_json(policy.interface.observation_space),
        "action_space": space_to_json(policy.interface.action_space),
        "environment_action_space": space_to_json(policy.action_space),
        "seed": policy.seed,
        "deterministic": policy.deterministic,
        "card": dict(policy.card),
        "history": [codec.encode(entry, {}) for entry in policy.history],
    }
    # Copies: safetensors refuses tensors that share memory.
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in policy.contents.tensors.items()}
    atomic_write(path, safetensors.torch.save(tensors, {_KEY: json.dumps(data, allow_nan=False)}))


def read_policy(path: Path) -> PolicyFile:
    """The policy of a file.

    Raises:
        ValueError: If it cannot be read or is no such file; one line.
    """
    where = f"the policy {path}"
    try:
        with open_regular(path) as file:
            content = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot read {where}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"cannot read {where}: {error}") from error
    if len(content) > MAX_POLICY_BYTES:
        raise ValueError(f"cannot read {where}: expected at most {MAX_POLICY_BYTES // 2**20} MiB")
    data = _metadata(content, where)
    try:
        tensors = safetensors.torch.load(content)
    except Exception as error:  # the library raises its own error, and KeyError for kinds that torch lacks
        raise ValueError(f"{where} is damaged: {shorten(str(error))[1:-1]}") from error
    try:
        _check_sizes(data["settings"], tensors)
        interface = Interface(space_from_json(data["observation_space"]), space_from_json(data["action_space"]))
        action_space = space_from_json(data["environment_action_space"])
        history = tuple(
            codec.decode(AdaptedTo, entry, f"history[{place}]", {}) for place, entry in enumerate(data["history"])
        )
        if data["seed"] < 0:
            raise ValueError(f"seed must not be negative, got {data['seed']}")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return PolicyFile(
        kind=data["actor"],
        interface=interface,
        contents=SavedActor(data["settings"], tensors),
        action_space=action_space,
        seed=data["seed"],
        deterministic=data["deterministic"],
        card=data["card"],
        history=history,
    )


def _metadata(content: bytes, where: str) -> dict[str, Any]:
    """The JSON of a safetensors file's metadata, whose fields have the right kinds."""
    wrong = f"{where} is not a policy that AdaptedPolicy.save wrote"
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or size > min(len(content) - 8, _MAX_HEADER_BYTES):
        raise ValueError(f"{wrong}: it is no safetensors file, or is cut short")
    try:
        header = content[8 : 8 + size].decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{wrong}: its header is no text") from error
    outer = parse_json(header, f"the header of {where}")
    metadata = outer.get("__metadata__") if isinstance(outer, dict) else None
    text = metadata.get(_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"{wrong}: its metadata lack {_KEY}")
    data = parse_json(text, f"the description in {where}")
    if not isinstance(data, dict) or set(data) != set(_FIELDS):
        raise ValueError(f"{wrong}: its description must have the fields {', '.join(_FIELDS)}")
    for name, kind in _FIELDS.items():
        if not isinstance(data[name], kind) or (kind is int and isinstance(data[name], bool)):
            raise ValueError(f"{where}: {name} must be a {kind.__name__}, got {shorten(data[name])}")
    if data["version"] != _VERSION:
        raise ValueError(
            f"{where} has version {data['version']}, this metarl reads {_VERSION}; install a newer one"
        )
    return data


def _check_sizes(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if the settings ask for networks that the tensors cannot be of."""
    largest = max([_FREE_SIZE, *(size for tensor in tensors.values() for size in tensor.shape)])
    for value in _leaves(settings):
        if isinstance(value, int) and abs(value) > largest:
            raise ValueError(f"the settings ask for a size of {value}, and no tensor is so large")


def _leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        for value in data.values():
            yield from _leaves(value)
    elif isinstance(data, list):
        if len(data) > _MAX_LAYERS:
            raise ValueError(f"settings must have lists of at most {_MAX_LAYERS}, got {len(data)}")
        for value in data:
            yield from _leaves(value)
    else:
        yield data
