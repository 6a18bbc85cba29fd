"""Examples and labels by class as users have them: tensors, arrays, lists and text, or one line."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metarl.fewshot import ClassData, ClassEpisodes
from metarl.fewshot.data.classes import DrawnTask
from metarl.fewshot.data.drawn import FixedEpisodes
from metarl.fewshot.data.groups import Groups
from metarl.fewshot.data.unequal import UnequalEpisodes, UnequalSizes

EXAMPLES = np.random.default_rng(0).random((6, 4), dtype=np.float32)
LABELS = np.array([2, 0, 1, 1, 0, 2])
EXPECTED = ClassData(("0", "1", "2"), torch.from_numpy(EXAMPLES[[1, 4, 2, 3, 0, 5]]), torch.tensor([2, 2, 2]))

FORMS: dict[str, tuple[Any, Any]] = {
    "arrays": (EXAMPLES, LABELS),
    "doubles": (EXAMPLES.astype(np.float64), LABELS.astype(np.int16)),
    "tensors": (torch.from_numpy(EXAMPLES), torch.from_numpy(LABELS)),
    "a tensor and a list": (torch.from_numpy(EXAMPLES), LABELS.tolist()),
    "lists": (EXAMPLES.tolist(), LABELS.tolist()),
    "a list of arrays": (list(EXAMPLES), LABELS.astype(np.uint16)),
    "a list of tensors": (list(torch.from_numpy(EXAMPLES)), tuple(LABELS)),
    "a view": (EXAMPLES[::-1], LABELS[::-1]),
    "text": (EXAMPLES, LABELS.astype(str)),
    "a list of text": (EXAMPLES, [str(label) for label in LABELS]),
    "text as objects": (EXAMPLES, LABELS.astype(str).astype(object)),
}


@pytest.mark.parametrize("form", FORMS)
def test_classes_are_made_of_any_form(form: str) -> None:
    data = ClassData.of(*FORMS[form])
    assert (data.names, data.counts.tolist()) == (EXPECTED.names, EXPECTED.counts.tolist())
    expected = EXPECTED.examples
    if form == "a view":  # a class's examples are in the order that they come in
        expected = expected.view(3, 2, 4).flip(1).view(6, 4)
    assert data.examples.dtype == torch.float32
    assert torch.allclose(data.examples, expected)
    ClassEpisodes(data, num_ways=2, num_shots=1, num_queries=1).sample(2, np.random.default_rng(0))


def test_names_are_the_labels_in_order() -> None:
    assert ClassData.of(np.zeros((3, 1)), [10, 9, -1]).names == ("-1", "9", "10")
    assert ClassData.of(np.zeros((3, 1)), ["wren", "crow", "wren"]).names == ("crow", "wren")
    assert ClassData.of(np.zeros((2, 1)), torch.tensor([True, False])).names == ("False", "True")
    images = ClassData.of(np.zeros((2, 3, 3), dtype=np.uint8), [0, 1])
    assert images.examples.dtype == torch.uint8


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "too few labels": (
        lambda: ClassData.of(EXAMPLES, LABELS[:4]),
        "expected one label per example, shape (6,), got (4,)",
    ),
    "a column": (lambda: ClassData.of(EXAMPLES, LABELS[:, None]), "expected one label per example, "),
    "nothing": (lambda: ClassData.of(EXAMPLES[:0], LABELS[:0]), "expected one example or more, got none"),
    "fractions": (
        lambda: ClassData.of(EXAMPLES, LABELS / 2),
        "labels must be whole numbers or text, got 1.0 of float64",
    ),
    "not a number": (lambda: ClassData.of(EXAMPLES, [np.nan] * 6), "whole numbers or text, got nan of float64"),
    "objects": (lambda: ClassData.of(EXAMPLES, np.array([None] * 6)), "whole numbers or text, got None of object"),
    "one number": (
        lambda: ClassData.of(torch.tensor(1.0), torch.tensor(1)),
        "shape [example, *input], got a single",
    ),
    "no examples": (lambda: ClassData.of(None, LABELS), "a tensor or an array of numbers, got NoneType"),  # type: ignore[arg-type]
    "a dictionary": (lambda: ClassData.of({"a": EXAMPLES}, LABELS), "got dict; InputParts"),  # type: ignore[arg-type]
    "two shapes": (lambda: ClassData.of([EXAMPLES[0], EXAMPLES[1, :2]], [0, 1]), "one shape, got (4,) and (2,)"),
    "no classes": (lambda: ClassData.join({}), "the examples of one class or more, got none"),
    "two shapes of classes": (
        lambda: ClassData.join({"a": EXAMPLES, "b": EXAMPLES[:, :2]}),
        "one shape and number format, got (4,) float32 of 'a' and (2,) float32 of 'b'",
    ),
    "bytes beside floats": (
        lambda: ClassData.join({"a": EXAMPLES, "b": EXAMPLES.astype(np.uint8)}),
        "got (4,) float32 of 'a' and (4,) uint8 of 'b'",
    ),
    "bytes beside other floats": (
        lambda: EXPECTED.with_classes_of(ClassData.of(EXAMPLES.astype(np.uint8), [5] * 6)),
        "got (4,) float32 of '0' and (4,) uint8 of '5'",
    ),
    "arrays": (
        lambda: ClassData(("a",), EXAMPLES, torch.tensor([6])),
        "a tensor of examples, got tuple and ndarray",
    ),  # type: ignore[arg-type]
    "negative counts": (
        lambda: ClassData(("a", "b"), EXPECTED.examples, torch.tensor([7, -1])),
        "zero or more each",
    ),
    "counts in a list": (lambda: ClassData(("a",), EXPECTED.examples, [6]), "counts must be a tensor of int64"),  # type: ignore[arg-type]
    "one name twice": (
        lambda: ClassData.join({1: EXAMPLES, "1": EXAMPLES}),
        "class names must differ, got '1' twice",
    ),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_data_by_class_is_refused_in_one_line(case: str) -> None:
    make, said = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=re.escape(said)) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_classes_are_joined_from_any_form() -> None:
    data = ClassData.join({"a": EXAMPLES[:2], "b": EXAMPLES[2:].tolist()})
    assert torch.allclose(data.examples, torch.from_numpy(EXAMPLES))
    empty = data.select([])
    assert data.with_classes_of(empty).names == empty.with_classes_of(data).names == ("a", "b")
    assert empty.with_classes_of(empty).names == ()
    hollow = ClassData.join({"a": EXAMPLES[:0], "b": EXAMPLES})
    with pytest.raises(ValueError, match="class 'a' has 0 examples, expected at least 2"):
        ClassEpisodes(hollow, num_ways=2, num_shots=1, num_queries=1)


SOURCES: dict[str, Callable[..., object]] = {
    "equal": lambda data, **more: ClassEpisodes(data, num_ways=2, num_shots=1, num_queries=1, **more),
    "unequal": lambda data, **more: UnequalEpisodes(data, UnequalSizes(2, 2, 1, 2), **more),
    "listed": lambda data: FixedEpisodes(data, [DrawnTask((0, 1), ((0,), (0,)), ((1,), (1,)))]),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_needs_classes(source: str) -> None:
    SOURCES[source](EXPECTED)
    for wrong, kind in ((None, "NoneType"), ((EXAMPLES, LABELS), "tuple")):
        with pytest.raises(TypeError, match=rf"^data must be ClassData, got {kind}; ClassData\.of"):
            SOURCES[source](wrong)


@pytest.mark.parametrize("source", ["equal", "unequal"])
def test_groups_are_of_the_classes_of_the_data(source: str) -> None:
    for groups in (
        ["a", "a", "b"],
        [0, 0, 1],
        np.array([0, 0, 1]),
        torch.tensor([0, 0, 1]),
        [("a", "b"), "a", ()],
    ):
        SOURCES[source](EXPECTED, groups=Groups.of(groups))  # type: ignore[arg-type]
    for few_or_many in (["a", "a"], list("aaaa")):
        with pytest.raises(ValueError, match=f"groups must be of 3 classes, .* got those of {len(few_or_many)}"):
            SOURCES[source](EXPECTED, groups=Groups.of(few_or_many))
    with pytest.raises(TypeError, match=r"groups must be Groups, got list; Groups\.of"):
        SOURCES[source](EXPECTED, groups=["a", "a", "b"])


def test_groups_that_are_none_are_refused() -> None:
    wrong: Any
    for wrong, said in (
        ("aab", "in a sequence, got the text 'aab'"),
        ([None, "a"], "a name, a number, or several"),
    ):
        with pytest.raises(TypeError, match=said):
            Groups.of(wrong)
    with pytest.raises(ValueError, match=r"members must be bool \[group, class\] of 1 groups, got torch.int64"):
        Groups(("a",), torch.tensor([[1, 1, 0]]))
