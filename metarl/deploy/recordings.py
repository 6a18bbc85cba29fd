"""Recordings: a file of one environment's transitions, which an agent can adapt to without acting itself.

The transitions may come from any policy. The file is npz, its arrays ordered by time, one episode after the other.
Nothing in it is executed.

    observations       observations o_t before action t, [step, *shape]
    actions            actions that the environment received, [step, *shape], so [step] for one discrete choice
    rewards            rewards r_t, [step]
    terminated         true where the MDP ended at t, bool [step]
    truncated          true where the episode was cut at t, bool [step]
    next_observations  observations after step t, before any reset, [step, *shape]

An episode ends where either flag is true. If the file ends within an episode, the episode counts as cut there.
Instead of `next_observations` the file may hold `last_observations` [episode, *shape], those after the last step
of each episode. Where observations have several parts, as those of a Dict space, each part is an array of its own:
observations.image, observations.speed, ...
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metarl.observations import Arrays, map_parts
from metarl.runs.files import atomic_file
from metarl.runs.reading import open_regular, shorten
from metarl.tasks import Task
from metarl.trajectories import Trajectories, as_tensors, map_observations

UNKNOWN_TASK = Task("unknown", ())
"""Task of trajectories whose task is not known."""


@dataclass(frozen=True)
class Recording:
    """Transitions of one environment in the order of time, one episode after the other.

    Attributes:
        observations: Observations o_t before action t, each part [step, *shape].
        actions: Actions that the environment received, [step, *shape].
        rewards: Rewards r_t, float [step].
        terminated: True where the MDP ended at t, bool [step].
        truncated: True where the episode was cut at t, bool [step].
        next_observations: Observations after step t, before any reset, each part [step, *shape].
    """

    observations: Arrays
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    next_observations: Arrays

    def __post_init__(self) -> None:
        steps = len(self.rewards) if self.rewards.ndim == 1 else 0
        if not steps:
            raise ValueError(f"rewards must be a list of at least one number, got shape {self.rewards.shape}")
        arrays = self.arrays()
        for name, values in arrays.items():
            if values.dtype.kind not in "fiub":
                raise ValueError(f"{name} must be numbers, got {values.dtype}")
            if len(values.shape) < 1 or len(values) != steps:
                raise ValueError(f"{name} must have {steps} steps, as rewards has, got shape {values.shape}")
            if not np.isfinite(values).all():
                step = int(np.argwhere(~np.isfinite(values))[0, 0])
                raise ValueError(f"{name} must be finite, got {values[step]} at step {step}")
        for name in ("terminated", "truncated"):
            if arrays[name].shape != (steps,):
                raise ValueError(f"{name} must have shape ({steps},), got {arrays[name].shape}")
        for name, values in arrays.items():
            if name.split(".")[0] == "observations" and f"next_{name}" not in arrays:
                raise ValueError(f"next_observations must have the parts of observations, next_{name} is missing")
            if name.split(".")[0] == "observations" and values.shape != arrays[f"next_{name}"].shape:
                raise ValueError(
                    f"next_{name} must have the shape of {name}, {values.shape}, "
                    f"got {arrays[f'next_{name}'].shape}"
                )

    @property
    def observation_parts(self) -> dict[str, np.ndarray]:
        """The parts of the observations by name; the only part of those that are one array has no name."""
        parts: dict[str, np.ndarray] = (
            self.observations if isinstance(self.observations, dict) else {"": self.observations}
        )
        return parts

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays under the names that a file has for them."""
        named: dict[str, np.ndarray] = {}
        for field in fields(self):
            values = getattr(self, field.name)
            if isinstance(values, dict):
                named |= {f"{field.name}.{part}": array for part, array in values.items()}
            else:
                named[field.name] = values
        return named

    @property
    def episode_ends(self) -> np.ndarray:
        """The step after each episode's last, int [episode]."""
        ends = self.terminated.astype(bool) | self.truncated.astype(bool)
        ends[-1] = True
        following: np.ndarray = np.flatnonzero(ends) + 1
        return following

    def trajectories(self, to_outputs: Callable[[np.ndarray], Tensor]) -> Trajectories:
        """The episodes as trajectories of one unknown task, padded to the longest.

        Args:
            to_outputs: Function that maps environment actions to the policy's outputs for them.
        """
        ends = self.episode_ends
        lengths = np.diff(ends, prepend=0)
        places = np.zeros((len(ends), lengths.max()), dtype=np.int64)
        mask = np.arange(lengths.max()) < lengths[:, None]
        places[mask] = np.arange(len(self.rewards))

        def padded(values: np.ndarray | Tensor) -> Tensor:
            steps = values if isinstance(values, Tensor) else torch.from_numpy(values)
            shape = (*mask.shape, *([1] * (steps.dim() - 1)))
            zero = torch.zeros((), dtype=steps.dtype)
            return torch.where(torch.from_numpy(mask).view(shape), steps[torch.from_numpy(places)], zero)[None]

        truncated = self.truncated.astype(bool)
        truncated[-1] |= not self.terminated[-1]
        return Trajectories(
            tasks=(UNKNOWN_TASK,),
            observations=map_observations(padded, as_tensors(self.observations)),
            actions=padded(to_outputs(self.actions)),
            rewards=padded(self.rewards.astype(np.float32)),
            terminated=padded(self.terminated.astype(bool)),
            truncated=padded(truncated),
            mask=torch.from_numpy(mask)[None],
            last_observations=map_observations(
                lambda part: part[ends - 1][None], as_tensors(self.next_observations)
            ),
            records={},
            infos={},
        )


def save_recording(path: Path | str, recording: Recording) -> None:
    """Write a recording to a new npz file that `load_recording` reads.

    Raises:
        ValueError: If the file exists already.
        WriteError: If it cannot be written.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists and is left as it is; give the recording another name")
    with atomic_file(path) as file:
        np.savez_compressed(file, **recording.arrays())  # type: ignore[arg-type]  # numpy's stub


def load_recording(path: Path | str) -> Recording:
    """Read a recording from an npz file and check its arrays.

    Raises:
        ValueError: If the file is no recording; one line names the file, the array, and what was expected.
    """
    path = Path(path)
    try:
        with open_regular(path) as opened:
            archive = np.load(opened, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("expected an npz file of named arrays, got a single array")
            with archive:
                arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy's and zipfile's parsing of a damaged file raises whatever it runs into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot read the recording {path}: {reason}") from error
    try:
        for name, values in arrays.items():
            if not isinstance(values, np.ndarray):  # numpy gives the bytes of what does not begin as an array does
                raise ValueError(f"{shorten(name)} is not an array")
        return _from_arrays(arrays)
    except ValueError as error:
        raise ValueError(f"the recording {path}: {error}") from error


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> Recording:
    names = [field.name for field in fields(Recording)]
    present = {name.split(".")[0] if "observations." in name else name for name in arrays}
    missing = [name for name in names if name not in present and name != "next_observations"]
    unknown = sorted(present - {*names, "last_observations"})
    if missing or unknown:
        raise ValueError(f"expected the arrays {', '.join(names)}; missing {missing}, unknown {unknown}")
    values = {name: _gathered(arrays, name) for name in names if name in present}
    if "next_observations" in present:
        return Recording(**values)
    if "last_observations" not in present:
        raise ValueError("expected next_observations [step, ...] or last_observations [episode, ...], got neither")
    following = map_parts(partial(np.roll, shift=-1, axis=0), values["observations"])
    ends = Recording(**values, next_observations=following).episode_ends
    last = _gathered(arrays, "last_observations")
    if isinstance(last, dict) != isinstance(following, dict) or (
        isinstance(last, dict) and last.keys() != following.keys()
    ):
        raise ValueError("last_observations must have the parts of observations")

    def complete(rolled: np.ndarray, last_of_episodes: np.ndarray) -> np.ndarray:
        expected = (len(ends), *rolled.shape[1:])
        if last_of_episodes.shape != expected:
            raise ValueError(
                f"last_observations must have shape {expected}, one per episode, got {last_of_episodes.shape}"
            )
        rolled[ends - 1] = last_of_episodes
        return rolled

    return Recording(**values, next_observations=map_parts(complete, following, last))


def _gathered(arrays: Mapping[str, np.ndarray], name: str) -> Arrays:
    """The array of a name, or the parts that have it before a dot."""
    if name in arrays:
        return arrays[name]
    return {key.partition(".")[2]: part for key, part in arrays.items() if key.partition(".")[0] == name}
