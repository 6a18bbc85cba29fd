"""Prototypical networks as easyfsl has them: its task sampler behind PyTorch's loader, and its method.

easyfsl 1.5.0 imports torchvision, pandas and more in files that are not needed here, and its sampler passes an
argument to a constructor of PyTorch's that takes none any more. Therefore the three files that are needed are
imported on their own, and the sampler's attributes are set as its constructor would have set them.
"""

import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from metarl.fewshot.data.classes import ClassData
from metarl.fewshot.data.decoding import decode_image

Task = tuple[Tensor, Tensor, Tensor, Tensor]
"""Support images, support labels, query images, query labels."""


def is_installed() -> bool:
    """Whether easyfsl can be measured."""
    return importlib.util.find_spec("easyfsl") is not None


class Images(Dataset[tuple[Tensor, int]]):
    """Images one by one, from memory or from the bytes of their files, as easyfsl's own data sets decode them.

    Args:
        data: Classes with their images.
        files: Contents of the image files in the same order; without them images are read from memory.
    """

    def __init__(self, data: ClassData, files: list[bytes] | None = None) -> None:
        self._images = data.examples.float() / 255
        self._labels = torch.arange(len(data.names)).repeat_interleave(data.counts).tolist()
        self._files = files

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self._files is None:
            return self._images[index], self._labels[index]
        return decode(self._files[index]).float() / 255, self._labels[index]

    def get_labels(self) -> list[int]:
        """The label of every image, for the sampler."""
        return list(self._labels)


def decode(content: bytes) -> Tensor:
    """An image file's 28 x 28 bytes, ink 255."""
    return decode_image(content, "file", 28, colour=False, invert=True)


def tasks(images: Images, *, num_ways: int, num_shots: int, num_queries: int) -> Iterator[Task]:
    """Tasks without end from easyfsl's sampler and collation, in this process."""
    kind = _module("samplers.task_sampler").TaskSampler
    sampler: Any = kind.__new__(kind)
    sampler.n_way, sampler.n_shot, sampler.n_query = num_ways, num_shots, num_queries
    sampler.n_tasks = 1_000_000_000
    sampler.items_per_label = {}
    for item, label in enumerate(images.get_labels()):
        sampler.items_per_label.setdefault(label, []).append(item)
    loader = DataLoader(images, batch_sampler=sampler, collate_fn=sampler.episodic_collate_fn)
    for support, labels, query, query_labels, _ in loader:
        yield support, labels, query, query_labels


def prototypical(backbone: nn.Module) -> Any:
    """easyfsl's prototypical network on a backbone."""
    return _module("methods.prototypical_networks").PrototypicalNetworks(backbone)


def _module(name: str) -> Any:
    """One of easyfsl's files, without what its packages import on the way."""
    root = Path(str(importlib.import_module("easyfsl").__file__)).parent
    for package in ("datasets", "methods", "samplers"):
        full = f"easyfsl.{package}"
        if full not in sys.modules:
            stand_in = types.ModuleType(full)
            stand_in.__path__ = [str(root / package)]
            sys.modules[full] = stand_in
    datasets: Any = sys.modules["easyfsl.datasets"]
    if not hasattr(datasets, "FewShotDataset"):
        datasets.FewShotDataset = importlib.import_module("easyfsl.datasets.few_shot_dataset").FewShotDataset
    return importlib.import_module(f"easyfsl.{name}")
