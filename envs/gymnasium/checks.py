"""Checks of what Gymnasium environments return: each mistake is one line with the environment and the value."""

import numbers
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from metarl.observations import as_arrays

Env = gymnasium.Env[Any, Any]


Stored = np.ndarray | tuple[np.ndarray, ...]
"""An observation to be put into a row of an array that stores observations; several parts are a tuple."""


class Step(NamedTuple):
    """The checked values of one step of an environment."""

    observation: Stored
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]


def checked_env(where: str, env: object) -> Env:
    """The environment that a factory returned.

    Raises:
        TypeError: if it is no Gymnasium environment.
    """
    if not isinstance(env, gymnasium.Env):
        raise TypeError(
            f"{where}: its factory must return a gymnasium.Env, got {shortened(env)}; "
            "an environment of the old package gym is wrapped by the package shimmy"
        )
    return env


def checked_reset(where: str, result: object, like: np.ndarray) -> Stored:
    """The observation that a reset returned, as the array `like` has it.

    Raises:
        ValueError: if the reset returned something else than an observation of the space and a dictionary.
    """
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise ValueError(f"{where}: reset must return (observation, info), got {shortened(result)}")
    return checked_observation(where, result[0], like)


def checked_step(where: str, result: object, like: np.ndarray) -> Step:
    """The values of a step, with an observation as the array `like` has it.

    Raises:
        ValueError: if the step returned something else than Gymnasium's five values.
    """
    if not isinstance(result, tuple) or len(result) != 5:
        values = f"{len(result)} values" if isinstance(result, tuple) else shortened(result)
        old = "; the old Gym API's done is terminated or truncated" if values == "4 values" else ""
        expected = "(observation, reward, terminated, truncated, info)"
        raise ValueError(f"{where}: step must return {expected}, got {values}{old}")
    observation, reward, terminated, truncated, info = result
    if not isinstance(info, dict):
        raise ValueError(f"{where}: the info must be a dictionary, got {shortened(info)}")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise ValueError(f"{where}: {name} must be true or false, got {shortened(flag)}")
    return Step(
        checked_observation(where, observation, like),
        checked_reward(where, reward),
        bool(terminated),
        bool(truncated),
        info,
    )


def checked_reward(where: str, reward: object) -> float:
    """A reward as a number.

    Raises:
        ValueError: if it is no finite number.
    """
    if type(reward) is not float:  # asking the number tower takes longer
        if isinstance(reward, np.ndarray) and reward.shape == ():
            reward = reward.item()
        if not isinstance(reward, numbers.Real):
            raise ValueError(f"{where}: the reward must be a number, got {shortened(reward)}")
        reward = float(reward)
    if not np.isfinite(reward):
        raise ValueError(f"{where}: the reward must be finite, got {reward}")
    return reward


def checked_observation(where: str, observation: object, like: np.ndarray) -> Stored:
    """An observation with the shape and dtype of its space, which are those of the stored row `like`.

    Raises:
        ValueError: if it has another shape, or a dtype that does not fit.
    """
    if like.dtype.names is not None:
        parts = as_arrays(observation)
        if not isinstance(parts, dict) or parts.keys() != set(like.dtype.names):
            raise ValueError(
                f"{where}: observations must have the parts {', '.join(like.dtype.names)}, got "
                f"{', '.join(parts) if isinstance(parts, dict) else shortened(observation)}"
            )
        return tuple(
            _checked_array(f"{where}, part {name!r}", parts[name], like[name]) for name in like.dtype.names
        )
    return _checked_array(where, observation, like)


def _checked_array(where: str, observation: object, like: np.ndarray) -> np.ndarray:
    if type(observation) is np.ndarray and observation.dtype == like.dtype and observation.shape == like.shape:
        return observation
    expected = f"{where}: observations must be as the observation space says, {like.dtype} of shape {like.shape}"
    try:
        array = np.asarray(observation)
    except ValueError as error:
        raise ValueError(f"{expected}, got {shortened(observation)}") from error
    if array.shape != like.shape:
        raise ValueError(f"{expected}, got shape {array.shape}")
    if np.can_cast(array.dtype, like.dtype, "same_kind"):
        return array
    if array.dtype.kind not in "biuf" or not np.array_equal(array.astype(like.dtype), array):
        raise ValueError(f"{expected}, got {array.dtype}: {shortened(observation)}")
    return array


def checked_info(where: str, name: str, value: object) -> float:
    """A number that an environment reported.

    Raises:
        ValueError: if it is no number.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, bool | np.bool_ | numbers.Real):
        raise ValueError(f"{where}: the info {name!r} must be a number, got {shortened(value)}")
    return float(value)


def shortened(value: object) -> str:
    """A value in one short line, with its kind."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    text = " ".join(repr(value).split())
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if value is None else f"{text} ({type(value).__name__})"
