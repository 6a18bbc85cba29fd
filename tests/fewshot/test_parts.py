"""Examples of several tensors: packed into one and unpacked in the module, by place or by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import ClassData, ClassEpisodes, Maml, MamlConfig, Prototypical, PrototypicalConfig, learn_task
from metarl.fewshot.learner import Learner
from metarl.fewshot.parts import InputParts, PackedInputs

NAMES = ("image", "tokens", "mask")


def _examples(num_rows: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randint(0, 256, (num_rows, 1, 4, 4), generator=generator).to(torch.uint8),
        "tokens": torch.randint(0, 11, (num_rows, 5), generator=generator),
        "mask": torch.rand(num_rows, 5, generator=generator) < 0.7,
    }


class Both(nn.Module):
    """Reads an image and a text whose mask says which tokens are real."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.picture, self.words, self.head = nn.Linear(16, 6), nn.Embedding(11, 6), nn.Linear(6, outputs)

    def forward(self, image: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        assert image.is_floating_point()
        assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)
        text = self.words(tokens).masked_fill(~mask.unsqueeze(-1), 0).sum(1)
        outputs: Tensor = self.head((self.picture(image.flatten(1)) + text).tanh())
        return outputs


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_module_reads_what_was_packed(by_name: bool) -> None:
    examples = _examples(7)
    given: Any = examples if by_name else tuple(examples.values())
    parts, module = InputParts.of(given), Both(3)
    packed = parts.pack(given)
    assert packed.shape == (7, parts.size) == (7, 16 + 5 + 5)
    expected = module(examples["image"] / 255, examples["tokens"], examples["mask"])
    assert torch.allclose(PackedInputs(module, parts)(packed), expected, atol=1e-6)


def test_tasks_and_names_in_another_order_are_packed_alike() -> None:
    examples = _examples(6)
    parts = InputParts.of(examples)
    packed = parts.pack({name: examples[name] for name in reversed(NAMES)})
    assert torch.equal(packed, parts.pack(examples))
    by_task = {name: part.unflatten(0, (2, 3)) for name, part in examples.items()}
    assert torch.equal(parts.pack(by_task), packed.unflatten(0, (2, 3)))


@pytest.mark.parametrize(
    "learner",
    [
        lambda parts: Maml(PackedInputs(Both(3), parts), MamlConfig()),
        lambda parts: Prototypical(PackedInputs(Both(4), parts), PrototypicalConfig()),
    ],
    ids=["maml", "prototypical"],
)
def test_learners_are_trained_on_several_tensors(learner: Callable[[InputParts], Learner]) -> None:
    examples = _examples(24)
    examples["tokens"][:, 0] = torch.arange(24) // 6  # the class is in the text alone
    examples["mask"][:, 0] = True
    parts = InputParts.of(examples)
    data = ClassData.of(parts.pack(examples), torch.arange(24) // 6)
    episodes, rng = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=3), np.random.default_rng(0)
    made = learner(parts)
    metrics = [made.update(episodes.sample(4, rng), rng) for _ in range(40)]
    assert np.mean([each["loss/outer"] for each in metrics[-5:]]) < np.mean(
        [each["loss/outer"] for each in metrics[:5]]
    )
    predict = learn_task(made, parts.pack(_examples(6, 1)), torch.arange(6) % 3)
    assert predict(parts.pack(_examples(5, 2))).shape == (5, 3)


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ({"image": torch.zeros(2, 1, 4, 4), "tokens": torch.zeros(2, 5)}, "got .* of"),
        ({**_examples(2), "tokens": torch.zeros(2, 6)}, r"\(2, 6\)"),
        (tuple(_examples(2).values()), "got a tuple"),
        ({**_examples(2), "tokens": torch.full((2, 5), 2**24 + 1)}, "integers up to"),
    ],
)
def test_examples_of_another_form_are_refused(examples: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InputParts.of(_examples(2)).pack(examples)


def test_numbers_of_rows_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="as many rows each"):
        InputParts.of((torch.zeros(2, 3), torch.zeros(3, 3)))
