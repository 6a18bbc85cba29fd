"""Runs a policy that `metarl export` wrote; needs Python 3.10, numpy and onnxruntime, and nothing else.

    from metarl_runner import Runner

    policy = Runner("robot.onnx")
    while True:
        observation = ...                           # the robot has been put back
        policy.begin_episode()
        while not ended:
            action = policy.act(observation)
            observation, reward, terminated, truncated = ...
            policy.observe(observation, reward, terminated, truncated)

`metarl export` copies this file beside the model. What a policy learns of its task stays from episode to episode,
until `begin_trial`. Observations and actions are those of the environment: all scaling is inside the model.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

METADATA = "metarl_policy"
VERSION = 1


class Runner:
    """Acts in one environment, an observation at a time.

    Args:
        path: Model that `metarl export` wrote.
        sampling: True to sample actions, false to take the most probable ones; None for what the export chose.
        seed: Seed of the actions' noise; None for the exported policy's own.
        num_threads: Number of threads of one step; a small network is fastest on one.
        record: Whether transitions are kept for `save_recording`.

    Attributes:
        card: Description of the policy and its training, as the JSON file beside the model has it.
        num_steps: Number of actions since the trial began.

    Raises:
        ValueError: If the file is no such model.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        sampling: bool | None = None,
        seed: int | None = None,
        num_threads: int = 1,
        record: bool = False,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        try:
            content = Path(path).read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise ValueError(f"cannot read the model {path}: {error.strerror}") from error
        except Exception as error:  # the library raises errors of its own
            raise ValueError(f"{path} is no ONNX model that can be run: {_first_line(error)}") from error
        self.card: dict[str, Any] = _card(self._session, path)
        if self.card["version"] != VERSION:
            raise ValueError(
                f"{path} has version {self.card['version']}, this runner reads {VERSION}; copy the one beside it"
            )
        self._sampling = self.card["sampling"] if sampling is None else sampling
        self._seed, self._record = seed, record
        self._inputs = {name: _zeros(entry) for name, entry in self.card["inputs"].items()}
        self._outputs = list(self.card["outputs"])
        self._carried = [name for name in self._outputs if name.startswith("next_")]
        chosen = "sampled_action" if self._sampling else "action"
        self._fetched = [chosen, *self._carried]
        self._names = [*self._inputs, *self.card["state"]]
        self._episodes: list[dict[str, Any]] = []
        self.begin_trial()

    def begin_trial(self) -> None:
        """Forget what was learned since the export, for another task; noise starts anew."""
        self._feed = dict(self._inputs)
        self._feed.update({name: _decode(entry) for name, entry in self.card["state"].items()})
        self._noise = {
            name: np.random.default_rng(noise["seed"] if self._seed is None else [self._seed, place])
            for place, (name, noise) in enumerate(self.card["noise"].items())
        }
        self.num_steps = 0
        self._begun = self._waiting = self._ended = False

    def begin_episode(self) -> None:
        """The environment has been reset; what was learned is kept."""
        self._begun, self._waiting, self._ended = True, False, False
        if self._episodes and not self._episodes[-1]["terminated"]:
            self._episodes[-1]["truncated"] = True  # also where its end was not reported
        self._put("begins_episode", True)
        self._draw("episode")

    def act(self, observation: Any) -> Any:
        """The action at one observation, in the environment's action space.

        Raises:
            RuntimeError: If the episode has ended, or the policy reads every outcome and did not get the last.
            ValueError: If the observation does not have the policy's shapes.
            FloatingPointError: If the observation or the action is not finite.
        """
        if not self._begun:
            self.begin_episode()
        if self._ended:
            raise RuntimeError("the episode has ended: reset the environment and call begin_episode")
        if self._waiting and self.card["reads"] == "every outcome":
            raise RuntimeError(
                "this policy reads rewards while it acts: after every step call "
                "observe(observation, reward, terminated, truncated), after a reset begin_episode"
            )
        self._observation = self._read("observation", observation)
        self._feed.update(self._observation)
        self._draw("step")
        action, *state = self._session.run(self._fetched, {name: self._feed[name] for name in self._names})
        if not np.isfinite(action).all():
            raise FloatingPointError(f"the action is not finite at step {self.num_steps}; call begin_trial")
        for name, part in zip(self._carried, state, strict=True):
            self._feed[name[len("next_") :]] = part
        self._put("begins_episode", False)
        self._put("has_previous", False)
        self._action, self._waiting = action, True
        self.num_steps += 1
        form = self.card["action"]
        return action.astype(form["dtype"]) if form["shape"] else action.astype(form["dtype"]).item()

    def observe(
        self,
        observation: Any,
        reward: float,
        terminated: bool = False,
        truncated: bool = False,
        *,
        action: Any = None,
    ) -> None:
        """Read the outcome of the last action.

        Args:
            observation: Observation after the action, before any reset.
            reward: Reward of the action.
            terminated: Whether the task itself has ended.
            truncated: Whether the episode was cut, as by a time limit.
            action: Action that was applied, where it was another than the policy's.

        Raises:
            RuntimeError: If there was no action since the last outcome.
            ValueError: If the observation or the action does not have the policy's shapes.
            FloatingPointError: If something is not finite.
        """
        if not self._waiting:
            raise RuntimeError("observe tells what followed an action: call act before it")
        following = self._read("next_observation", observation)
        if not np.isfinite(reward):
            raise FloatingPointError(f"the reward is not finite after step {self.num_steps}")
        applied = self._action if action is None else np.asarray(action, self._action.dtype)
        if applied.shape != self._action.shape or not np.isfinite(applied).all():
            raise ValueError(f"the action must be finite of shape {self._action.shape}, got {applied}")
        for name, part in self._observation.items():
            self._put(f"previous_{name}", part)
        for name, part in following.items():
            self._put(name, part)
        outcome = {"action": applied, "reward": reward, "terminated": terminated, "truncated": truncated}
        for name, value in outcome.items():
            self._put(f"previous_{name}", value)
        self._put("has_previous", True)
        self._waiting, self._ended = False, bool(terminated or truncated)
        if self._record:
            self._episodes.append({**self._observation, **following, **outcome})

    def save_recording(self, path: str | Path) -> None:
        """Write all transitions since the runner was made, as `metarl export --recording FILE.npz` reads them.

        Raises:
            ValueError: If there are none, or the file exists.
        """
        if not self._episodes:
            raise ValueError("there are no transitions: make the Runner with record=True, act and observe")
        names = {"action": "actions", "reward": "rewards"}
        arrays = {}
        for name in self._episodes[0]:
            first, dot, rest = name.partition(".")
            plural = names.get(name, f"{first}s{dot}{rest}" if first.endswith("observation") else name)
            arrays[plural] = np.stack([np.asarray(step[name]) for step in self._episodes])
        try:
            with Path(path).open("xb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub
        except FileExistsError as error:
            raise ValueError(f"{path} exists and is left as it is; give the recording another name") from error

    def _put(self, name: str, value: Any) -> None:
        """Set an input, if the model has it."""
        if name in self._inputs:
            self._feed[name] = np.asarray(value, self._inputs[name].dtype)

    def _draw(self, per: str) -> None:
        for name, noise in self.card["noise"].items():
            if noise["per"] == per and name in self._inputs:
                generator = self._noise[name]
                draw = generator.random if noise["kind"] == "uniform" else generator.standard_normal
                self._feed[name] = np.asarray(draw(noise["shape"], np.float32))

    def _read(self, name: str, observation: Any) -> dict[str, np.ndarray]:
        """The parts of an observation by the names of inputs, checked."""
        parts = {_joined(name, part): values for part, values in _parts(observation).items()}
        expected = {_joined(name, part): entry for part, entry in self.card["observation"].items()}
        came = {part: values.shape for part, values in parts.items()}
        shapes = {part: tuple(entry["shape"]) for part, entry in expected.items()}
        if came != shapes:
            raise ValueError(f"the policy reads observations of {_listed(shapes)}, got {_listed(came)}")
        for part, values in parts.items():
            if values.dtype.kind not in "fiub":
                raise ValueError(f"{part} must be numbers, got {values.dtype}")
            if not np.isfinite(values).all():
                raise FloatingPointError(f"the observation is not finite after step {self.num_steps}")
        return {part: values.astype(expected[part]["dtype"]) for part, values in parts.items()}


def _card(session: Any, path: str | Path) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    if text is None:
        raise ValueError(f"{path} is an ONNX model, but none that metarl export wrote")
    card: dict[str, Any] = json.loads(text)
    return card


def _parts(observation: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of an observation in Gymnasium's form, by their places in it."""
    if isinstance(observation, tuple):
        observation = {str(place): part for place, part in enumerate(observation)}
    if not isinstance(observation, dict):
        return {prefix: np.asarray(observation)}
    arrays: dict[str, np.ndarray] = {}
    for name, part in observation.items():
        arrays.update(_parts(part, _joined(prefix, str(name)) if prefix else str(name)))
    return arrays


def _joined(name: str, part: str) -> str:
    return f"{name}.{part}" if part else name


def _listed(shapes: dict[str, Any]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _zeros(entry: dict[str, Any]) -> np.ndarray:
    return np.zeros(entry["shape"], entry["dtype"])


def _decode(entry: dict[str, Any]) -> np.ndarray:
    if entry["base64"] is None:
        return _zeros(entry)
    values = np.frombuffer(base64.b64decode(entry["base64"]), np.dtype(entry["dtype"]).newbyteorder("<"))
    return values.reshape(entry["shape"]).astype(entry["dtype"])


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
