"""Configurations as JSON and back: names of classes, fields that were renamed, and what a template lends."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from metarl.agent import AgentSetup
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.experiments import configuration
from metarl.experiments.configuration import Experiment, decode, encode
from metarl.experiments.fewshot import configuration as fewshot
from metarl.experiments.study.configuration import StablePpo
from metarl.runs import codec
from metarl.tasks import Benchmark


class Shape(ABC):
    """What the built-in and a user's classes derive from."""

    @abstractmethod
    def area(self) -> float:
        """In square metres."""


@dataclass(frozen=True)
class Square(Shape):
    """Built in; its field was once called `side`."""

    renamed: ClassVar[Mapping[str, str]] = {"side": "edge"}
    edge: float = 1.0

    def area(self) -> float:
        return self.edge**2


@dataclass(frozen=True)
class Ring(Shape):
    """A user's own."""

    inner: Square = field(default_factory=Square)
    weights: tuple[float, ...] = (1.0,)
    limits: dict[str, float] | None = None
    kind: Literal["round", "flat"] = "round"
    closed: bool = True

    def area(self) -> float:
        return self.inner.area()


@dataclass(frozen=True)
class Holder:
    shape: Shape
    benchmark: str | Benchmark = "point"


RING = f"{__name__}:Ring"
TAGS: codec.Tags = {"form": {"square": Square}}


def _json(value: Any) -> Any:
    return json.loads(json.dumps(codec.encode(value, TAGS)))


def test_a_renamed_field_is_read_under_its_old_name() -> None:
    assert codec.decode(Holder, {"shape": {"form": "square", "side": 3}}, "x", TAGS) == Holder(Square(3))
    with pytest.raises(ValueError, match=r"unknown fields \['sides'\]"):
        codec.decode(Holder, {"shape": {"form": "square", "sides": 3}}, "x", TAGS)


@pytest.mark.parametrize(
    "shape", ["LONG", {"form": "LONG"}, {"form": "square", "LONG": 1}, {"form": "a:LONG"}, {"object": "LONG"}]
)
def test_an_error_quotes_the_beginning_of_a_long_text_alone(shape: Any) -> None:
    data = json.loads(json.dumps({"shape": shape}).replace("LONG", "x" * 1000))
    with pytest.raises(ValueError, match=r"^x\.shape.*xxx") as error:
        codec.decode(Holder, data, "x", TAGS)
    assert len(str(error.value)) < 250


def test_a_users_class_is_named_and_needs_a_template() -> None:
    holder = Holder(Ring(Square(2.0), (0.5, 0.25), {"low": 1.0}))
    data = _json(holder)
    assert data["shape"]["form"] == f"{__name__}:Ring"
    assert data["shape"]["inner"] == {"form": "square", "edge": 2.0}
    with pytest.raises(codec.NotBuiltIn, match=r"x.shape is of the class .*:Ring, which is not built in"):
        codec.decode(Holder, data, "x", TAGS)
    with pytest.raises(codec.NotBuiltIn, match="not built in"):
        codec.decode(Holder, data, "x", TAGS, Holder(Square()))
    assert codec.decode(Holder, data, "x", TAGS, Holder(Ring())) == holder


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"form": "square", "edge": True}, "x.shape.edge must be float, got True"),
        ({"form": "square", "edge": "1"}, "x.shape.edge must be float, got '1'"),
        ({"form": RING, "weights": [1, "a"]}, "x.shape.weights must be float, got 'a'"),
        ({"form": RING, "weights": [True]}, "x.shape.weights must be float, got True"),
        ({"form": RING, "weights": 1}, "x.shape.weights must be a list, got 1"),
        ({"form": RING, "kind": "oval"}, r"x.shape.kind must be .*, got 'oval'"),
        ({"form": RING, "closed": 1}, "x.shape.closed must be bool, got 1"),
    ],
)
def test_a_value_of_another_kind_is_named(data: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        codec.decode(Holder, {"shape": data}, "x", TAGS, Holder(Ring()))


def test_values_of_the_right_kind_are_read() -> None:
    data = {"form": RING, "weights": [1, 0.5], "kind": "flat", "closed": False}
    expected = Ring(weights=(1.0, 0.5), kind="flat", closed=False)
    assert codec.decode(Holder, {"shape": data}, "x", TAGS, Holder(Ring())).shape == expected


def test_an_object_is_named_and_is_the_templates() -> None:
    benchmark = Benchmark("mine", None, None, shared=False, description="")  # type: ignore[arg-type]
    data = _json(Holder(Square(), benchmark))
    assert data["benchmark"] == {"object": "metarl.tasks:Benchmark", "name": "mine"}
    with pytest.raises(codec.NotBuiltIn, match=r"x.benchmark is an object of metarl.tasks:Benchmark"):
        codec.decode(Holder, data, "x", TAGS)
    assert codec.decode(Holder, data, "x", TAGS, Holder(Square(), benchmark)).benchmark is benchmark


@pytest.mark.parametrize("name", [None, "circle", 3, ["square"]])
def test_an_unknown_short_name_names_those_that_are_known(name: object) -> None:
    with pytest.raises(ValueError, match=r"unknown form .*known: square"):
        codec.decode(Holder, {"shape": {"form": name}}, "x", TAGS)


@dataclass(frozen=True)
class UsersPromp(PrompConfig):
    """A user's variant of a built-in agent."""

    bonus: float = 0.5

    def make(self, setup: AgentSetup) -> Any:
        raise NotImplementedError


def test_a_users_agent_keeps_its_name_and_fields_in_an_experiment() -> None:
    experiment = Experiment("point", UsersPromp(bonus=0.25))
    data = json.loads(json.dumps(encode(experiment)))
    assert data["agent"]["algorithm"] == f"{__name__}:UsersPromp"
    assert decode(data, Experiment("point", UsersPromp())) == experiment


RESULTS = sorted((Path(__file__).resolve().parents[2] / "experiments" / "results").glob("*/config.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.parent.name)
def test_the_configuration_of_every_result_is_read_and_survives_json(path: Path) -> None:
    data = json.loads(path.read_text())["experiment"]
    reader: Any = fewshot if "learner" in data else configuration
    experiment = reader.decode(data)
    assert reader.decode(json.loads(json.dumps(reader.encode(experiment)))) == experiment


def test_old_names_of_step_sizes_are_read() -> None:
    agent = {"algorithm": "pearl", "learning_rate": 0.5, "final_learning_rate": 0.25}
    assert decode({"benchmark": "point", "agent": agent}).agent == PearlConfig(outer_lr=0.5, final_outer_lr=0.25)
    stable = codec.decode(StablePpo, {"learning_rate": 0.5, "adaptation_learning_rate": 0.25}, "x", {})
    assert stable == StablePpo(outer_lr=0.5, inner_lr=0.25)


def test_there_are_results_to_read() -> None:
    assert len(RESULTS) >= 60


def test_a_whole_number_in_a_field_of_real_numbers_becomes_one() -> None:
    data = encode(Experiment("point", PrompConfig()))
    data["agent"]["outer_lr"] = 1
    outer_lr = decode(data).agent.outer_lr  # type: ignore[attr-defined]  # of ProMP
    assert type(outer_lr) is float
    data["agent"]["outer_lr"] = 10**400
    with pytest.raises(ValueError, match=r"outer_lr must be a number of at most 1\.8e308, got 1000"):
        decode(data)
