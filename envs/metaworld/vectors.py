"""Task vectors of Meta-World's environments, uniform between bounds; tasks of one environment differ by them.

A vector holds the object's initial position and, in most environments, the goal. If the two must not be close in
the plane, the package draws again until they are far enough apart; with a frozen vector that is too close, it
would draw for ever. The bounds are those of metaworld 3.1.1, which a test compares them with, so that tasks can be
drawn without building environments.
"""

import difflib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Vectors:
    """The task vectors of one environment.

    Attributes:
        low: Least values, metres.
        high: Greatest values, metres.
        apart: Least distance in the plane between the two positions in the vector, metres; 0 allows any.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    apart: float = 0.0

    def draw(self, rng: np.random.Generator) -> tuple[float, ...]:
        """Draw a vector from the same distribution as the package."""
        while True:
            vector = rng.uniform(self.low, self.high)
            if self._distance(vector) >= self.apart:
                return tuple(float(x) for x in vector)

    def check(self, vector: object) -> None:
        """Raise a ValueError with the reason unless the vector is a task of the environment."""
        if not isinstance(vector, tuple) or len(vector) != len(self.low):
            kind = "the object's position and the goal's" if len(self.low) == 6 else "one position"
            raise ValueError(f"rand_vec must be a list of {len(self.low)} numbers, {kind}, got {vector!r}")
        for number, (x, low, high) in enumerate(zip(vector, self.low, self.high, strict=True)):
            if not low <= x <= high:
                place = ("object", "goal")[number // 3] if len(vector) == 6 else "position"
                raise ValueError(
                    f"rand_vec[{number}] ({place} {'xyz'[number % 3]}) must be in [{low:g}, {high:g}], got {x!r}"
                )
        distance = self._distance(np.array(vector))
        if distance < self.apart:
            raise ValueError(
                f"rand_vec must hold positions at least {self.apart:g} m apart in the plane, got {distance:.3f} m"
            )

    def _distance(self, vector: np.ndarray) -> float:
        return float(np.linalg.norm(vector[:2] - vector[-3:-1])) if self.apart else 0.0


VECTORS: dict[str, Vectors] = {
    "assembly-v3": Vectors((0.0, 0.6, 0.02, -0.1, 0.75, 0.1), (0.0, 0.6, 0.02, 0.1, 0.85, 0.1), apart=0.1),
    "basketball-v3": Vectors(
        (-0.1, 0.6, 0.0299, -0.1, 0.85, 0.0), (0.1, 0.7, 0.0301, 0.1, 0.9000001, 0.0), apart=0.15
    ),
    "bin-picking-v3": Vectors(
        (-0.21, 0.65, 0.02, 0.1199, 0.699, -0.001), (-0.03, 0.75, 0.02, 0.1201, 0.701, 0.001)
    ),
    "box-close-v3": Vectors((-0.05, 0.5, 0.02, -0.1, 0.7, 0.133), (0.05, 0.55, 0.02, 0.1, 0.8, 0.133), apart=0.25),
    "button-press-topdown-v3": Vectors((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-topdown-wall-v3": Vectors((-0.1, 0.8, 0.115), (0.1, 0.9, 0.115)),
    "button-press-v3": Vectors((-0.1, 0.85, 0.115), (0.1, 0.9, 0.115)),
    "button-press-wall-v3": Vectors((-0.05, 0.85, 0.1149), (0.05, 0.9, 0.1151)),
    "coffee-button-v3": Vectors((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "coffee-pull-v3": Vectors(
        (-0.05, 0.7, -0.001, -0.1, 0.55, -0.001), (0.05, 0.75, 0.001, 0.1, 0.65, 0.001), apart=0.15
    ),
    "coffee-push-v3": Vectors(
        (-0.1, 0.55, -0.001, -0.05, 0.7, -0.001), (0.1, 0.65, 0.001, 0.05, 0.75, 0.001), apart=0.15
    ),
    "dial-turn-v3": Vectors((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "disassemble-v3": Vectors(
        (0.0, 0.6, 0.025, -0.1, 0.6, 0.1699), (0.1, 0.75, 0.02501, 0.1, 0.75, 0.1701), apart=0.1
    ),
    "door-close-v3": Vectors((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-lock-v3": Vectors((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "door-open-v3": Vectors((0.0, 0.85, 0.15), (0.1, 0.95, 0.15)),
    "door-unlock-v3": Vectors((-0.1, 0.8, 0.15), (0.1, 0.85, 0.15)),
    "drawer-close-v3": Vectors((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "drawer-open-v3": Vectors((-0.1, 0.9, 0.0), (0.1, 0.9, 0.0)),
    "faucet-close-v3": Vectors((-0.1, 0.8, 0.0), (0.1, 0.85, 0.0)),
    "faucet-open-v3": Vectors((-0.05, 0.8, 0.0), (0.05, 0.85, 0.0)),
    "hammer-v3": Vectors((-0.1, 0.4, 0.0), (0.1, 0.5, 0.0)),
    "hand-insert-v3": Vectors(
        (-0.1, 0.6, 0.05, -0.04, 0.8, -0.0201), (0.1, 0.7, 0.05, 0.04, 0.88, -0.0199), apart=0.15
    ),
    "handle-press-side-v3": Vectors((-0.35, 0.65, -0.001), (-0.25, 0.75, 0.001)),
    "handle-press-v3": Vectors((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "handle-pull-side-v3": Vectors((-0.35, 0.65, 0.0), (-0.25, 0.75, 0.0)),
    "handle-pull-v3": Vectors((-0.1, 0.8, -0.001), (0.1, 0.9, 0.001)),
    "lever-pull-v3": Vectors((-0.1, 0.7, 0.0), (0.1, 0.8, 0.0)),
    "peg-insert-side-v3": Vectors(
        (0.0, 0.5, 0.02, -0.35, 0.4, -0.001), (0.2, 0.7, 0.02, -0.25, 0.7, 0.001), apart=0.1
    ),
    "peg-unplug-side-v3": Vectors((-0.25, 0.6, -0.001), (-0.15, 0.8, 0.001)),
    "pick-out-of-hole-v3": Vectors(
        (0.0, 0.75, 0.02, -0.1, 0.5, 0.15), (0.0, 0.75, 0.02, 0.1, 0.6, 0.3), apart=0.15
    ),
    "pick-place-v3": Vectors((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), apart=0.15),
    "pick-place-wall-v3": Vectors(
        (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), apart=0.15
    ),
    "plate-slide-back-side-v3": Vectors((-0.25, 0.6, 0.0, -0.05, 0.6, 0.015), (-0.25, 0.6, 0.0, 0.15, 0.6, 0.015)),
    "plate-slide-back-v3": Vectors((0.0, 0.85, 0.0, -0.1, 0.6, 0.015), (0.0, 0.85, 0.0, 0.1, 0.6, 0.015)),
    "plate-slide-side-v3": Vectors((0.0, 0.6, 0.0, -0.3, 0.54, 0.0), (0.0, 0.6, 0.0, -0.25, 0.66, 0.0)),
    "plate-slide-v3": Vectors((0.0, 0.6, 0.0, -0.1, 0.85, 0.0), (0.0, 0.6, 0.0, 0.1, 0.9, 0.0)),
    "push-back-v3": Vectors((-0.1, 0.8, 0.02, -0.1, 0.6, 0.0199), (0.1, 0.85, 0.02, 0.1, 0.7, 0.0201), apart=0.15),
    "push-v3": Vectors((-0.1, 0.6, 0.02, -0.1, 0.8, 0.01), (0.1, 0.7, 0.02, 0.1, 0.9, 0.02), apart=0.15),
    "push-wall-v3": Vectors(
        (-0.05, 0.6, 0.015, -0.05, 0.85, 0.01), (0.05, 0.65, 0.015, 0.05, 0.9, 0.02), apart=0.15
    ),
    "reach-v3": Vectors((-0.1, 0.6, 0.02, -0.1, 0.8, 0.05), (0.1, 0.7, 0.02, 0.1, 0.9, 0.3), apart=0.15),
    "reach-wall-v3": Vectors(
        (-0.05, 0.6, 0.015, -0.05, 0.85, 0.05), (0.05, 0.65, 0.015, 0.05, 0.9, 0.3), apart=0.15
    ),
    "shelf-place-v3": Vectors((-0.1, 0.5, 0.019, -0.1, 0.8, 0.299), (0.1, 0.6, 0.021, 0.1, 0.9, 0.301), apart=0.1),
    "soccer-v3": Vectors((-0.1, 0.6, 0.03, -0.1, 0.8, 0.0), (0.1, 0.7, 0.03, 0.1, 0.9, 0.0), apart=0.15),
    "stick-pull-v3": Vectors(
        (-0.1, 0.55, 0.0, 0.35, 0.45, 0.0199), (0.0, 0.65, 0.001, 0.45, 0.55, 0.0201), apart=0.1
    ),
    "stick-push-v3": Vectors(
        (-0.08, 0.58, 0.0, 0.399, 0.55, 0.1319), (-0.03, 0.62, 0.001, 0.401, 0.6, 0.1321), apart=0.1
    ),
    "sweep-into-v3": Vectors(
        (-0.1, 0.6, 0.02, -0.001, 0.8399, 0.0199), (0.1, 0.7, 0.02, 0.001, 0.8401, 0.0201), apart=0.15
    ),
    "sweep-v3": Vectors((-0.1, 0.6, 0.02), (0.1, 0.7, 0.02)),
    "window-close-v3": Vectors((0.0, 0.75, 0.2), (0.0, 0.9, 0.2)),
    "window-open-v3": Vectors((-0.1, 0.7, 0.16), (0.1, 0.9, 0.16)),
}


def unknown_environment(name: str) -> str:
    """The message about a name that no environment has, with or without "-v3": the nearest names, or all."""
    known = [full.removesuffix("-v3") for full in VECTORS]
    close = difflib.get_close_matches(name.removesuffix("-v3").lower(), known, n=3)
    meant = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return f"unknown Meta-World environment {name!r}; {meant}"
