"""Rewards of a step: forward velocity, or a function of a user's own, whose mistakes are one line each."""

import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from metarl.envs.mujoco.locomotion import Motion

Reward = Callable[[Motion, np.ndarray], Mapping[str, np.ndarray]]
"""Named reward terms, each [row], of a step and its actions [row, action]; the reward is their sum."""


@dataclass(frozen=True)
class ForwardReward:
    """Forward velocity, a bonus for every step, and a cost of control.

    Their sum is forward_weight * v_x + alive_bonus - ctrl_weight |a|^2.
    """

    alive_bonus: float = 0.0
    ctrl_weight: float = 0.0
    forward_weight: float = 1.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if not math.isfinite(value := getattr(self, each.name)):
                raise ValueError(f"{each.name} must be finite, got {value}")

    def __call__(self, motion: Motion, actions: np.ndarray) -> dict[str, np.ndarray]:
        """The reward terms of every row, by name, each [row]."""
        return {
            "reward_forward": self.forward_weight * motion.velocity[:, 0],
            "reward_survive": np.full(len(actions), self.alive_bonus),
            "reward_ctrl": -self.ctrl_weight * np.square(actions).sum(1),
        }


def own_terms(where: str, reward: Reward, motion: Motion, actions: np.ndarray) -> dict[str, np.ndarray]:
    """The terms of a user's reward of every row, by name, each [row].

    Args:
        where: Name of the family, for errors.
        reward: Reward of a step.
        motion: Step of the rows.
        actions: Actions of the rows, [row, action].

    Raises:
        ValueError: if the reward raises, or returns something else than finite numbers of every row by name.
    """
    try:
        terms: object = reward(motion, actions)
    except Exception as error:  # a user's code may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        hint = "; a reward reads the bodies and sites that `places` of the family names"
        raise ValueError(
            f"the reward of {where}: {frame.filename}, line {frame.lineno}: {type(error).__name__}: {error}"
            f"{hint if isinstance(error, KeyError) else ''}"
        ) from error
    if not isinstance(terms, Mapping) or not terms:
        raise ValueError(
            f"the reward of {where} must return named terms, {{name: array of one number per row}}, "
            f"got {_shortened(terms)}"
        )
    return {
        str(name): _checked(f"the term {name!r} of the reward of {where}", terms[name], actions) for name in terms
    }


def _checked(what: str, values: object, actions: np.ndarray) -> np.ndarray:
    rows = (len(actions),)
    if not isinstance(values, np.ndarray) or values.shape != rows or values.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be an array of shape {rows}, a number per row, got {_shortened(values)}")
    numbers = values.astype(np.float64, copy=False)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{what} must be finite, got {numbers[~np.isfinite(numbers)][0]}")
    return numbers


def _shortened(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} of {value.dtype}"
    text = " ".join(repr(value).split())
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
