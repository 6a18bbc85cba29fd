"""The checks that configurations share: bounds, and numbers that no computer's types hold."""

import dataclasses
import importlib
import inspect
import math
import re
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from metarl.deploy.histories import AdaptedTo
from metarl.envs.dynamics.fields import Field
from metarl.envs.dynamics.ranges import Range
from metarl.experiments.evidence.notes import SectionNote
from metarl.experiments.report.settings import Described
from metarl.runs.configs import Configuration, check_counts, check_fraction, check_not_negative, check_positive
from tests.test_layout import MODULES

HUGE = 10**400


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e300, HUGE, -HUGE])
def test_numbers_that_are_not_positive_and_finite_in_float32_are_refused(value: float) -> None:
    config = SimpleNamespace(rate=value)
    with pytest.raises(ValueError, match="rate must be positive and finite, got"):
        check_positive(config, "rate")
    if value != 0:
        with pytest.raises(ValueError, match="rate must be zero or more and finite, got"):
            check_not_negative(config, "rate")
        with pytest.raises(ValueError, match=r"rate must be in \[0, 1\], got"):
            check_fraction(config, "rate")


@pytest.mark.parametrize("value", [1, 1e-300, 3e38, 10**30])
def test_numbers_that_float32_holds_are_taken(value: float) -> None:
    check_positive(SimpleNamespace(rate=value), "rate")
    check_not_negative(SimpleNamespace(rate=value), "rate")


def test_counts_are_from_one_to_a_billion() -> None:
    check_counts(SimpleNamespace(a=1, b=10**9, c=None), "a", "b", "c")
    with pytest.raises(ValueError, match="a must be at least 1, got 0"):
        check_counts(SimpleNamespace(a=0), "a")
    with pytest.raises(ValueError, match=r"a must be at most 1,000,000,000, got an integer of 16610 bits"):
        check_counts(SimpleNamespace(a=10**5000), "a")


@pytest.mark.parametrize("check", [check_counts, check_fraction, check_not_negative, check_positive])
@pytest.mark.parametrize("value", [True, False, "1", "", [1], {}, 1j, "x" * 10_000], ids=lambda v: ascii(v)[:8])
def test_what_is_no_number_is_named_in_one_line(check: Callable[..., None], value: object) -> None:
    with pytest.raises(TypeError, match=r"rate must be a (whole )?number, got ") as caught:
        check(SimpleNamespace(rate=value), "rate")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [2.0, math.nan, math.inf])
def test_a_count_is_whole(value: float) -> None:
    with pytest.raises(TypeError, match="rate must be a whole number, got"):
        check_counts(SimpleNamespace(rate=value), "rate")


@dataclass(frozen=True)
class _Choosing(Configuration):
    size: int = 1
    colour: Literal["red", "green", "blue"] = "red"
    mode: Literal["slow", "fast"] | None = None
    places: tuple[Literal["here", "there"], ...] = ("here",)
    free: Literal["auto"] | str = "auto"

    def __post_init__(self) -> None:
        check_counts(self, "size")


def test_what_a_literal_does_not_name_is_refused_and_other_checks_go_on() -> None:
    _Choosing(colour="blue", mode="fast", places=("there", "here"), free="anything")
    wrong: Any
    for wrong, said in (
        ({"colour": "pink"}, "colour must be one of red, green or blue, got 'pink'"),
        ({"colour": None}, "colour must be one of red, green or blue, got None"),
        ({"mode": "FAST"}, "mode must be one of slow, fast or None, got 'FAST'"),
        ({"places": ("here", "away")}, "places must be of here or there, got 'away'"),
        ({"size": 0}, "size must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            _Choosing(**wrong)
    with pytest.raises(ValueError, match="colour must be one of"):
        dataclasses.replace(_Choosing(), colour="pink")  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Composed(Configuration):
    inside: _Choosing = field(default_factory=_Choosing)
    other: _Choosing | None = None


def test_what_is_no_configuration_is_refused_where_a_field_is_one() -> None:
    _Composed(other=_Choosing())
    wrong: Any
    for wrong, came in ((None, "None"), ({"size": 2}, "dict"), (_Choosing, "the class _Choosing")):
        said = f"inside must be an instance of _Choosing, got {came}; _Choosing() is the default"
        with pytest.raises(TypeError, match=f"^{re.escape(said)}$"):
            _Composed(inside=wrong)
    with pytest.raises(TypeError, match=r"^other must be an instance of _Choosing, got _Composed"):
        _Composed(other=_Composed())  # type: ignore[arg-type]


_NOT_CONFIGURED = (".bench", ".commands", ".examples", ".presets", ".sweep")
"""Packages of what the command line alone makes, which checks choices itself."""


def _choosing() -> list[tuple[type[Any], str, bool]]:
    """All configurations with fields of fixed choices, the fields, and whether each is a tuple of them."""
    names = [name for name in MODULES if not any(part in name for part in _NOT_CONFIGURED)]
    modules = [importlib.import_module(name) for name in names if name != "metarl.__main__"]
    classes = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    found = []
    # Records, which nobody configures, and ranges, whose own checks say which range it is.
    for kind in classes - {AdaptedTo, Described, SectionNote, Field, Range}:
        if not dataclasses.is_dataclass(kind) or inspect.isabstract(kind) or kind.__module__ not in MODULES:
            continue
        hints = typing.get_type_hints(kind) if kind.__dataclass_params__.frozen else {}  # type: ignore[attr-defined]
        of_fields = {f.name: hints[f.name] for f in fields(kind) if f.name in hints}
        of_literals = {name: hint for name, hint in of_fields.items() if "Literal" in str(hint)}
        found += [(kind, name, typing.get_origin(hint) is tuple) for name, hint in of_literals.items()]
    return found


@pytest.mark.thorough
def test_every_configuration_of_the_project_refuses_a_misspelt_choice() -> None:
    """Other fields are None where they have no default: the choices are checked first."""
    choosing = _choosing()
    names = {(kind.__name__, name) for kind, name, _ in choosing}
    assert {("OuterConfig", "optimizer"), ("Rl2Config", "objective"), ("EncoderConfig", "images")} <= names
    assert {("OmniglotData", "split"), ("Experiment", "loggers"), ("FineTuningConfig", "inner_optimizer")} <= names
    accepted = []
    for kind, name, is_tuple in choosing:
        needed = [
            each.name for each in fields(kind) if each.default is each.default_factory is dataclasses.MISSING
        ]
        values = dict.fromkeys(needed) | {name: ("csv", "misspelt") if is_tuple else "misspelt"}
        try:
            kind(**values)
            accepted.append(f"{kind.__name__}.{name}")
        except ValueError as error:
            if "misspelt" not in str(error):
                accepted.append(f"{kind.__name__}.{name}: {error}")
    assert accepted == []
