"""A guard between a policy and a robot: limits on the way out, and what happens when an observation is no good.

    guard = Guard(Runner("robot.onnx"), Limits(max_change=0.1, on_late="hold"), fallback=stand_still)
    guard.begin_episode()
    action = guard.act(observation, age_s=0.004)            # None where no observation came
    guard.observe(observation, reward)
    guard.report()                                          # what was limited, held, stopped and fallen back from

Needs Python 3.10 and numpy, and nothing else; `metarl export` copies this file beside the model. Where actions are
torques, the limits of actions are limits of torques.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

Reaction = Literal["hold", "stop", "fallback", "pass"]
"""Repeat the last action, apply the resting one for the rest of the episode, ask the fallback, or only count."""

_REACTIONS = ("hold", "stop", "fallback", "pass")


class Policy(Protocol):
    """The methods of a policy that a guard needs; `metarl_runner.Runner` has them."""

    card: dict[str, Any]

    def begin_episode(self) -> None:
        """The environment has been reset."""

    def act(self, observation: Any) -> Any:
        """The action at one observation."""

    def observe(self, observation: Any, reward: float, terminated: bool, truncated: bool, *, action: Any) -> None:
        """Read the outcome of the last action, and which action was applied."""


@dataclass(frozen=True)
class Limits:
    """Limits of actions and observations, and the reactions to observations outside of them.

    Attributes:
        low: Least action, a number or one per component; None for the action space's own bound.
        high: Greatest action, a number or one per component; None for the action space's own bound.
        max_change: Greatest change of an action from one step to the next, a number or one per component; None for
            no limit.
        rest: Action of a robot at rest, from which the first action of an episode may differ by max_change.
        max_age_s: Age in seconds above which an observation is late; infinity where only a missing one is.
        margin: Share of the range met in training by which an observation may lie outside of it.
        on_not_finite: Reaction to an observation with a number that is not finite; it cannot be passed.
        on_late: Reaction to an observation that is late; one that is missing cannot be passed.
        on_outside: Reaction to an observation outside of the range met in training.
    """

    low: Any = None
    high: Any = None
    max_change: Any = None
    rest: Any = 0.0
    max_age_s: float = math.inf
    margin: float = 0.1
    on_not_finite: Reaction = "hold"
    on_late: Reaction = "hold"
    on_outside: Reaction = "pass"

    def __post_init__(self) -> None:
        for name in ("on_not_finite", "on_late", "on_outside"):
            if getattr(self, name) not in _REACTIONS:
                raise ValueError(f"{name} must be one of {', '.join(_REACTIONS)}, got {getattr(self, name)!r}")
        if self.on_not_finite == "pass":
            raise ValueError("on_not_finite must be hold, stop or fallback: a policy reads finite numbers alone")
        if not (self.max_age_s > 0 and self.margin >= 0):
            raise ValueError(
                f"max_age_s must be positive and margin not negative, got {self.max_age_s} and {self.margin}"
            )
        if self.max_change is not None and not (np.asarray(self.max_change) > 0).all():
            raise ValueError(f"max_change must be positive, got {self.max_change}")


class Guard:
    """Acts by a policy as long as its observations are good, and within limits always.

    Args:
        policy: Policy of continuous actions, as `metarl_runner.Runner` is one.
        limits: Limits and reactions.
        fallback: Function from the last good observation to an action, for the reaction "fallback".

    Attributes:
        counts: Number of steps, and of each kind of event, by name.
        stopped: Whether the robot was stopped in this episode.

    Raises:
        ValueError: If a reaction needs a fallback and there is none, actions are not continuous, or a limit does
            not fit them.
    """

    def __init__(self, policy: Policy, limits: Limits, *, fallback: Callable[[Any], Any] | None = None) -> None:
        space = policy.card["action_space"]
        if space["kind"] != "Box":
            raise ValueError(f"a guard limits continuous actions, got {space['kind']}")
        reactions = (limits.on_not_finite, limits.on_late, limits.on_outside)
        if "fallback" in reactions and fallback is None:
            raise ValueError("the reaction fallback needs a fallback: a function from observation to action")
        self._policy, self._limits, self._fallback = policy, limits, fallback
        shape, self._dtype = tuple(space["shape"]), space["dtype"]
        self._low = _spread("low", space["low"] if limits.low is None else limits.low, shape)
        self._high = _spread("high", space["high"] if limits.high is None else limits.high, shape)
        if not (self._low <= self._high).all():
            raise ValueError(f"low must not be above high, got {self._low} and {self._high}")
        self._max_change = _spread("max_change", np.inf if limits.max_change is None else limits.max_change, shape)
        self._rest = np.clip(_spread("rest", limits.rest, shape), self._low, self._high)
        if not np.isfinite(self._rest).all():
            raise ValueError(f"rest must be finite, got {limits.rest}")
        self._ranges = _ranges(policy.card, limits.margin)
        self.counts = dict.fromkeys(
            ("steps", "not finite", "late", "outside", "held", "stopped", "fallback", "limited", "substituted"), 0
        )
        self._good: Any = None
        self._reward = 0.0
        self._begin()

    def _begin(self) -> None:
        self._applied, self._acted, self.stopped = self._rest, False, False

    def begin_episode(self) -> None:
        """The robot has been put back and rests; what the policy learned is kept."""
        self._policy.begin_episode()
        self._begin()

    def act(self, observation: Any, *, age_s: float = 0.0) -> np.ndarray:
        """The action to apply.

        Args:
            observation: Observation; None if none came in time.
            age_s: Seconds since it was measured.
        """
        self.counts["steps"] += 1
        if self._acted and self._policy.card.get("reads") == "every outcome":
            self.observe(None, math.nan)  # of the last action nothing came back
        reaction = self._reaction(observation, age_s)
        self._acted = False
        if self.stopped or reaction == "stop":
            self.stopped = True
            self.counts["stopped"] += 1
            return self._limited(self._rest)
        if reaction == "hold":
            self.counts["held"] += 1
            return self._limited(self._applied)
        if reaction == "fallback":
            assert self._fallback is not None, "a guard is not made without the fallback that it needs"
            self.counts["fallback"] += 1
            return self._limited(self._fallback(self._good))
        self._good, self._acted = observation, True
        return self._limited(self._policy.act(observation))

    def observe(self, observation: Any, reward: float, terminated: bool = False, truncated: bool = False) -> None:
        """Read the outcome of the last action, if the policy chose it.

        Instead of an observation that is missing or not finite the policy reads the last good one, and instead of
        a reward that is not finite the last reward. A policy that needs the outcome of every action reads these
        also where no outcome came before the next action.
        """
        if not self._acted:
            return
        if observation is None or not _finite(observation):
            self.counts["substituted"] += 1
            observation = self._good
        if not np.isfinite(reward):
            self.counts["substituted"] += 1
            reward = self._reward
        self._acted, self._reward = False, reward
        applied = self._applied.astype(self._dtype)
        self._policy.observe(observation, reward, terminated, truncated, action=applied)

    def report(self) -> str:
        """The events so far, on one line."""
        happened = [f"{name} {count}" for name, count in self.counts.items() if count]
        return ", ".join(happened) or "no steps"

    def _reaction(self, observation: Any, age_s: float) -> Reaction | None:
        """The reaction to an observation; None if it is good or passed."""
        limits = self._limits
        if observation is None or not age_s <= limits.max_age_s:
            self.counts["late"] += 1
            if observation is None and limits.on_late == "pass":
                return "hold"
            if limits.on_late != "pass":
                return limits.on_late
        if not _finite(observation):
            self.counts["not finite"] += 1
            return limits.on_not_finite
        if self._outside(observation):
            self.counts["outside"] += 1
            return None if limits.on_outside == "pass" else limits.on_outside
        return None

    def _outside(self, observation: Any) -> bool:
        for name, values in _parts(observation).items():
            if name in self._ranges:
                low, high = self._ranges[name]
                flat = np.ravel(values)
                if ((flat < low) | (flat > high)).any():
                    return True
        return False

    def _limited(self, action: Any) -> np.ndarray:
        """The action within all limits, which is the last one applied from now on."""
        wanted = np.asarray(action, float)
        if wanted.shape != self._low.shape or not np.isfinite(wanted).all():
            raise ValueError(f"the action must be finite of shape {self._low.shape}, got {action}")
        bounded = np.clip(wanted, self._low, self._high)
        bounded = np.clip(bounded, self._applied - self._max_change, self._applied + self._max_change)
        self.counts["limited"] += int(not np.array_equal(bounded, wanted))
        self._applied = bounded
        applied: np.ndarray = bounded.astype(self._dtype)
        return applied


def _spread(name: str, value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """One number, or one per component, in the shape of an action."""
    array = np.asarray(value, float)
    if array.size not in (1, math.prod(shape)):
        raise ValueError(f"{name} must be one number or one per component of {shape}, got {array.size}")
    return array.reshape(shape) if array.size == math.prod(shape) else np.full(shape, array.item())


def _ranges(card: dict[str, Any], margin: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Least and greatest good observations by part; none where the card has no ranges."""
    ranges = {}
    for name, part in card.get("met_in_training", {}).get("observations", {}).items():
        low, high = np.array(part["low"], float), np.array(part["high"], float)
        room = margin * (high - low)
        ranges[name] = (low - room, high + room)
    return ranges


def _parts(observation: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of an observation in Gymnasium's form, by their places in it."""
    if isinstance(observation, tuple):
        observation = {str(place): part for place, part in enumerate(observation)}
    if not isinstance(observation, dict):
        return {prefix: np.asarray(observation)}
    arrays: dict[str, np.ndarray] = {}
    for name, part in observation.items():
        arrays.update(_parts(part, f"{prefix}.{name}" if prefix else str(name)))
    return arrays


def _finite(observation: Any) -> bool:
    return all(np.isfinite(values).all() for values in _parts(observation).values())
