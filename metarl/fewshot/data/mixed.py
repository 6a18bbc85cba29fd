"""Tasks from several sources, each task from one of them, drawn by weight."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from metarl.fewshot.episodes import Episodes, EpisodeSource, together
from metarl.fewshot.sources import DataConfig, OtherSizes, Sources, TaskSpec


class MixedEpisodes:
    """A distribution over tasks that is a mixture of others.

    A batch holds tasks of several sources, padded where their ways or shots differ; see `together`.

    Args:
        sources: Distributions of tasks, of inputs of the same shape.
        weights: Weight of each source, the share of its tasks up to a factor; empty for all alike.

    Raises:
        ValueError: If there is no source, or weights are not one positive number for each.
    """

    def __init__(self, sources: Sequence[EpisodeSource], weights: Sequence[float] = ()) -> None:
        _check_weights(len(sources), weights)
        self.sources, self.weights = tuple(sources), tuple(weights) or (1.0,) * len(sources)

    def with_sources(self, sources: Sequence[EpisodeSource]) -> "MixedEpisodes":
        """The same mixture of other sources, one for each."""
        return MixedEpisodes(sources, self.weights)

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        """Tasks in random order, each of the source that was drawn for it."""
        shares = np.array(self.weights) / sum(self.weights)
        drawn = rng.choice(len(shares), num_tasks, p=shares)
        tasks: dict[int, Episodes] = {}
        for number, source in enumerate(self.sources):
            places = np.flatnonzero(drawn == number)
            if len(places):
                own = source.sample(len(places), rng)
                tasks |= dict(zip(places.tolist(), own.alone() if own.is_ragged else own.split(1), strict=True))
        return together([tasks[place] for place in range(num_tasks)])


@dataclass(frozen=True)
class MixedData(DataConfig):
    """Several data, mixed: every task is of one of them.

    Attributes:
        sources: Data that are mixed; inputs have the same shape in all.
        weights: Weight of each of the data, the share of its tasks up to a factor; empty for all alike.
    """

    sources: tuple[DataConfig, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_weights(len(self.sources), self.weights)
        for name in ("kind", "input_shape"):
            values = [getattr(source.tasks, name) for source in self.sources]
            if len(set(values)) > 1:
                raise ValueError(f"mixed data must have tasks of one {name}, got {_listed(values)}")
        if any(source.tasks.train_labels != "task" for source in self.sources):
            raise ValueError(
                "mixed data must have labels by task, got labels by class, whose numbers are of one of the data; "
                "set train_labels to task in each"
            )

    @property
    def tasks(self) -> TaskSpec:
        """The kind and the sizes of the tasks; ways differ unless they are the same in all data."""
        specs = [source.tasks for source in self.sources]
        most = max(spec.num_outputs for spec in specs)
        ways = {(spec.num_outputs, spec.train_ways or spec.num_outputs) for spec in specs}
        if specs[0].kind == "regression" and len(ways) > 1:
            raise ValueError(
                f"mixed data must predict as many numbers in all, got {_listed([s.num_outputs for s in specs])}"
            )
        if len({spec.pixel_scale for spec in specs}) > 1:
            raise ValueError("mixed data must have one pixel_scale, got unit and imagenet; set it for all or none")
        equal = len(ways) == 1 and all(spec.equal_ways for spec in specs)
        return specs[0]._replace(num_outputs=most, train_ways=max(train for _, train in ways), equal_ways=equal)

    def make(self, device: torch.device) -> Sources:
        """Mixtures of the training tasks and of every split's, and the test tasks of each of the data alone."""
        made = [source.make(device) for source in self.sources]
        weights = self.weights or (1.0,) * len(made)
        held_out: dict[str, EpisodeSource] = {}
        for split in dict.fromkeys(split for sources in made for split in sources.held_out):
            pairs = zip(made, weights, strict=True)
            parts = [(part.held_out[split], weight) for part, weight in pairs if split in part.held_out]
            held_out[split] = MixedEpisodes([part for part, _ in parts], [weight for _, weight in parts])
        for number, sources in enumerate(made):
            if "test" in sources.held_out:
                held_out[f"test, source {number}"] = sources.held_out["test"]
        return Sources(MixedEpisodes([sources.train for sources in made], weights), held_out)

    def source(self, number: int) -> DataConfig:
        """One of the data, by its place.

        Raises:
            ValueError: If there are not so many.
        """
        if not 0 <= number < len(self.sources):
            raise ValueError(f"expected one of the data 0 to {len(self.sources) - 1} that are mixed, got {number}")
        return self.sources[number]

    def with_source(self, number: int, source: DataConfig) -> Self:
        """The same mixture with other data in a place."""
        return replace(self, sources=(*self.sources[:number], source, *self.sources[number + 1 :]))

    def describe(self) -> str:
        """The sizes of held-out tasks in words."""
        return " or ".join(dict.fromkeys(source.describe() for source in self.sources))

    def resized(self, sizes: OtherSizes) -> Self:
        """The same mixture with held-out tasks of other sizes in all of the data.

        Raises:
            ValueError: If the data have no such size, or another folder is asked for.
        """
        if sizes.folder is not None:
            raise ValueError(f"mixed data are read from {len(self.sources)} places, got one folder {sizes.folder}")
        return replace(self, sources=tuple(source.resized(sizes) for source in self.sources))


def _check_weights(num_sources: int, weights: Sequence[float]) -> None:
    if not num_sources:
        raise ValueError("expected at least one source to mix")
    if weights and (len(weights) != num_sources or not all(0 < weight < float("inf") for weight in weights)):
        raise ValueError(f"expected {num_sources} positive weights, one for each source, got {list(weights)}")


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, dict.fromkeys(values)))
