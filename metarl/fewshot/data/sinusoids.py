"""Regression tasks on a line: sinusoids (Finn et al. 2017, section 5.1) and harmonics (Lacoste et al. 2018)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.sources import DataConfig, OtherSizes, Sources, TaskSpec
from metarl.runs.configs import MOST_TASKS, check_counts, check_not_negative
from metarl.runs.seeding import draw_seed, torch_generator

Curve = Callable[[Tensor], Tensor]


def _check_range(name: str, bounds: tuple[float, float]) -> None:
    if len(bounds) != 2 or not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise ValueError(f"{name} must be two finite numbers, the lower first, got {bounds}")


def _uniform(bounds: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(shape, generator=generator)


@dataclass(frozen=True)
class Sinusoids:
    """y = A sin(x - phi), with A, phi and x uniform.

    Attributes:
        num_shots: Number of support points per task.
        num_queries: Number of query points per task.
        amplitudes: Bounds of the amplitude A.
        phases: Bounds of the phase phi, in radians.
        domain: Bounds of the inputs x.
        even_queries: Whether query points lie at equal distances over the whole domain, for evaluation (Zintgraf
            et al. 2019).
        device: Device of the points.
    """

    num_shots: int = 10
    num_queries: int = 10
    amplitudes: tuple[float, float] = (0.1, 5.0)
    phases: tuple[float, float] = (0.0, math.pi)
    domain: tuple[float, float] = (-5.0, 5.0)
    even_queries: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_counts(self, "num_shots", "num_queries", most=MOST_TASKS)
        for name in ("amplitudes", "phases", "domain"):
            _check_range(name, getattr(self, name))

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Tasks with inputs and targets [task, row, 1]."""
        generator = torch_generator(draw_seed(rng))
        amplitude = _uniform(self.amplitudes, (num_tasks, 1, 1), generator)
        phase = _uniform(self.phases, (num_tasks, 1, 1), generator)
        support = _uniform(self.domain, (num_tasks, self.num_shots, 1), generator)
        if self.even_queries:
            query = torch.linspace(*self.domain, self.num_queries).view(1, -1, 1).repeat(num_tasks, 1, 1)
        else:
            query = _uniform(self.domain, (num_tasks, self.num_queries, 1), generator)
        return _episodes(support, query, lambda x: amplitude * torch.sin(x - phase), self.device)


@dataclass(frozen=True)
class Harmonics:
    """y = a_1 sin(w x + b_1) + a_2 sin(2 w x + b_2) around a centre of its own for every task.

    The amplitudes are standard normal, the phases uniform on a circle, the inputs normal about the centre.

    Attributes:
        num_shots: Number of support points per task.
        num_queries: Number of query points per task.
        frequencies: Bounds of the frequency w.
        centres: Bounds of the inputs' mean.
        noise: Standard deviation of the noise that is added to the targets.
        device: Device of the points.
    """

    num_shots: int = 10
    num_queries: int = 10
    frequencies: tuple[float, float] = (5.0, 7.0)
    centres: tuple[float, float] = (-4.0, 4.0)
    noise: float = 0.1
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_counts(self, "num_shots", "num_queries", most=MOST_TASKS)
        check_not_negative(self, "noise")
        _check_range("frequencies", self.frequencies)
        _check_range("centres", self.centres)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Tasks with inputs and targets [task, row, 1]."""
        generator = torch_generator(draw_seed(rng))
        shape = (num_tasks, 1, 1)
        frequency = _uniform(self.frequencies, shape, generator)
        centre = _uniform(self.centres, shape, generator)
        amplitudes = torch.randn((2, *shape), generator=generator)
        phases = _uniform((0.0, 2 * math.pi), (2, *shape), generator)

        def curve(x: Tensor) -> Tensor:
            waves = (torch.sin((n + 1) * frequency * x + phases[n]) for n in range(2))
            clean = sum((a * w for a, w in zip(amplitudes, waves, strict=True)), start=torch.zeros_like(x))
            return clean + self.noise * torch.randn(x.shape, generator=generator)

        support = centre + torch.randn((num_tasks, self.num_shots, 1), generator=generator)
        query = centre + torch.randn((num_tasks, self.num_queries, 1), generator=generator)
        return _episodes(support, query, curve, self.device)


@dataclass(frozen=True)
class CurveData(DataConfig):
    """Points on curves, to be predicted from a few.

    Attributes:
        num_shots: Number of support points per task.
        train_queries: Number of query points per training task.
    """

    num_shots: int = 10
    train_queries: int = 10

    def __post_init__(self) -> None:
        check_counts(self, "num_shots", "train_queries", most=MOST_TASKS)

    @property
    def tasks(self) -> TaskSpec:
        """Regression from one number to one number."""
        return TaskSpec("regression", (1,), 1)

    def describe(self) -> str:
        """The size of a held-out task in words."""
        return f"{self.num_shots} points"

    def resized(self, sizes: OtherSizes) -> Self:
        """The same curves with another number of support points.

        Raises:
            ValueError: if ways, queries or a folder are asked for.
        """
        if sizes != OtherSizes(num_shots=sizes.num_shots):
            raise ValueError(
                "a regression task has no ways, queries or folder to choose; give the number of shots alone"
            )
        return replace(self, num_shots=sizes.num_shots or self.num_shots)


@dataclass(frozen=True)
class SinusoidData(CurveData):
    """Sinusoids of Finn et al. 2017; test tasks have 100 even query points."""

    def make(self, device: torch.device) -> Sources:
        """Training sinusoids, and test sinusoids with query points at equal distances."""
        test = Sinusoids(self.num_shots, 100, even_queries=True, device=str(device))
        return Sources(Sinusoids(self.num_shots, self.train_queries, device=str(device)), {"test": test})


@dataclass(frozen=True)
class HarmonicData(CurveData):
    """Harmonics of Lacoste et al. 2018; test tasks have 100 query points and no noise."""

    def make(self, device: torch.device) -> Sources:
        """Training harmonics with noise, and test harmonics without."""
        test = Harmonics(self.num_shots, 100, noise=0.0, device=str(device))
        return Sources(Harmonics(self.num_shots, self.train_queries, device=str(device)), {"test": test})


def _episodes(support: Tensor, query: Tensor, curve: Curve, device: str) -> Episodes:
    return Episodes(
        Examples(support.to(device), curve(support).to(device)),
        Examples(query.to(device), curve(query).to(device)),
    )
