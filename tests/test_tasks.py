"""Tasks as data: equality, JSON, and one clear message for everything a task file can have wrong."""

import json
import math
import re
from collections import Counter
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metarl.envs import make_benchmark
from metarl.tasks import (
    Parameter,
    Task,
    TaskDistribution,
    TaskEnv,
    TaskFamily,
    load_tasks,
    sample_distinct,
    save_tasks,
)


class Walk(TaskFamily):
    """A family with every kind of parameter and no environment."""

    name = "walk"
    parameters = (
        Parameter("speed", low=0.0, high=3.0),
        Parameter("direction", choices=(-1.0, 1.0)),
        Parameter("goal", size=2, low=-1.0, high=1.0),
    )
    horizon = 10

    def make_env(self, num_envs: int, *, horizon: int | None = None, num_threads: int | None = None) -> TaskEnv:
        raise NotImplementedError


PARAMS: dict[str, Any] = {"speed": 1.5, "direction": -1.0, "goal": [0.25, -0.5]}


def task(**changes: Any) -> Task:
    return Task.of("walk", **(PARAMS | changes))


def entry(**changes: Any) -> dict[str, Any]:
    """A task as it stands in a file."""
    return {"family": "walk", "params": PARAMS | changes}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "tasks.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def message(path: Path) -> str:
    """The error that loading a file ends in; one line."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the callers check the message
        load_tasks(path, Walk())
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_tasks_with_the_same_parameters_are_equal_and_hash_alike() -> None:
    reordered = Task("walk", tuple(reversed(PARAMS.items())))
    assert task() == reordered
    assert hash(task()) == hash(reordered)
    assert len({task(), reordered, task(speed=2.0)}) == 2


def test_tasks_differ_by_any_value_and_by_family() -> None:
    assert task() != task(goal=[0.25, -0.25])
    assert task() != task(speed=1.25)
    assert task() != Task("run", task().params)


def test_a_task_cannot_be_changed() -> None:
    for name in ("family", "params"):
        with pytest.raises(FrozenInstanceError):
            setattr(task(), name, "other")
    goal = [0.25, -0.5]
    found = task(goal=goal)
    goal[0] = 9.0
    assert found["goal"] == (0.25, -0.5)


def test_parameters_are_plain_floats_sorted_by_name_whatever_they_were_given_as() -> None:
    found = Task("walk", (("speed", np.float32(1.5)), ("goal", np.array([1, 2])), ("direction", 1)))  # type: ignore[arg-type]
    assert found.params == (("direction", 1.0), ("goal", (1.0, 2.0)), ("speed", 1.5))
    assert all(type(x) is float for x in (found["speed"], found["direction"], *found["goal"]))  # type: ignore[misc]


def test_a_task_from_keywords_is_the_task_of_those_pairs() -> None:
    pairs = (("speed", 1.5), ("direction", -1.0), ("goal", (0.25, -0.5)))
    assert Task.of("walk", speed=1.5, direction=-1, goal=[0.25, -0.5]) == Task("walk", pairs)


def test_parameters_are_read_by_name() -> None:
    assert task()["speed"] == 1.5
    assert task()["goal"] == (0.25, -0.5)
    with pytest.raises(KeyError):
        task()["heading"]


@pytest.mark.parametrize(
    "params",
    [{}, {"speed": 0.1 + 0.2}, {"goal": (math.pi, -1e-300)}, PARAMS],
    ids=["none", "number", "list", "all"],
)
def test_a_task_survives_json_exactly(params: dict[str, Any]) -> None:
    original = Task.of("walk", **params)
    assert Task.from_json(json.loads(json.dumps(original.to_json()))) == original


def test_json_of_a_task_is_its_family_and_its_parameters_by_name() -> None:
    assert task().to_json() == entry()


@pytest.mark.parametrize(
    "data",
    [None, 3, "walk", [], {}, {"family": "walk"}, {"params": {}}, {**entry(), "seed": 0}],
    ids=["null", "number", "string", "list", "empty", "no-params", "no-family", "extra-key"],
)
def test_json_that_is_not_a_task_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=re.escape('a task must be {"family": ..., "params": {...}}')):
        Task.from_json(data)


@pytest.mark.parametrize(
    "data", [{"family": 1, "params": {}}, {"family": "walk", "params": [1]}, {"family": "walk", "params": None}]
)
def test_json_with_a_wrong_kind_of_family_or_parameters_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match='"family" must be a string and its "params" an object'):
        Task.from_json(data)


@pytest.mark.parametrize("value", ["1.5", True, False, None, {"x": 1.0}])
def test_a_parameter_that_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="a task parameter must be a number or a list of numbers"):
        Task("walk", (("speed", value),))  # type: ignore[arg-type]


def test_stack_gives_one_array_per_parameter_with_a_row_per_task() -> None:
    stacked = Walk().stack([task(), task(speed=3.0, goal=[1.0, 0.0])])
    assert set(stacked) == {"speed", "direction", "goal"}
    np.testing.assert_array_equal(stacked["speed"], [1.5, 3.0])
    np.testing.assert_array_equal(stacked["direction"], [-1.0, -1.0])
    np.testing.assert_array_equal(stacked["goal"], [[0.25, -0.5], [1.0, 0.0]])
    assert all(values.dtype == np.float64 for values in stacked.values())


def test_stack_checks_every_task() -> None:
    with pytest.raises(ValueError, match="parameter 'speed' must be in"):
        Walk().stack([task(), task(speed=4.0)])


def test_saved_tasks_load_as_they_were(tmp_path: Path) -> None:
    tasks = [task(), task(speed=0.1 + 0.2), task(goal=[-1.0, 1.0]), task()]
    path = tmp_path / "tasks.json"
    save_tasks(path, tasks)
    assert load_tasks(path, Walk()) == tasks


def test_a_file_written_by_hand_loads(tmp_path: Path) -> None:
    path = write(tmp_path, '[{"params": {"goal": [0, 1], "speed": 2, "direction": 1}, "family": "walk"}]\n')
    assert load_tasks(path, Walk()) == [task(goal=[0.0, 1.0], speed=2.0, direction=1.0)]


@pytest.mark.parametrize("speed", [0.0, 3.0])
def test_the_ends_of_a_range_belong_to_it(tmp_path: Path, speed: float) -> None:
    assert load_tasks(write(tmp_path, [entry(speed=speed)]), Walk()) == [task(speed=speed)]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "cannot read the task file" in message(tmp_path / "absent.json")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert "cannot read the task file" in message(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert "is not JSON" in message(path)


@pytest.mark.parametrize("content", ["", "{", "[1,]", "family: walk", "[{'family': 'walk'}]"])
def test_a_file_that_is_not_json_is_refused(tmp_path: Path, content: str) -> None:
    assert "is not JSON" in message(write(tmp_path, content))


@pytest.mark.parametrize("content", [{}, entry(), "null", "3", '"walk"', []], ids=str)
def test_a_file_that_is_no_list_of_tasks_is_refused(tmp_path: Path, content: object) -> None:
    assert "must hold a non-empty list of tasks" in message(write(tmp_path, content))


WRONG: dict[str, tuple[Any, str]] = {
    "not a task": ([1.5], 'a task must be {"family": ..., "params": {...}}'),
    "wrong family": ({"family": "run", "params": PARAMS}, "expected tasks of family 'walk', got 'run'"),
    "missing parameter": (
        {"family": "walk", "params": {"speed": 1.0, "goal": [0, 0]}},
        "exactly the parameters ['direction', 'goal', 'speed'], got ['goal', 'speed']",
    ),
    "extra parameter": (
        entry(heading=1.0),
        "exactly the parameters ['direction', 'goal', 'speed'], got ['direction', 'goal', 'heading', 'speed']",
    ),
    "not a number": (entry(speed=math.nan), "[2].params.speed: numbers must be finite, got nan"),
    "infinite": (entry(speed=math.inf), "[2].params.speed: numbers must be finite, got inf"),
    "negative infinite": (entry(speed=-math.inf), "[2].params.speed: numbers must be finite, got -inf"),
    "not a number in a list": (entry(goal=[0, math.nan]), "[2].params.goal[1]: numbers must be finite, got nan"),
    "not a number where choices are given": (
        entry(direction=math.nan),
        "[2].params.direction: numbers must be finite, got nan",
    ),
    "too many numbers": (entry(goal=[0, 0, 0]), "parameter 'goal' must be a list of 2 numbers"),
    "too few numbers": (entry(goal=[0]), "parameter 'goal' must be a list of 2 numbers"),
    "no numbers": (entry(goal=[]), "parameter 'goal' must be a list of 2 numbers"),
    "a number for a list": (entry(goal=0.5), "parameter 'goal' must be a list of 2 numbers, got 0.5"),
    "a list for a number": (entry(speed=[1.5]), "parameter 'speed' must be one number, got (1.5,)"),
    "string": (entry(speed="1.5"), "a task parameter must be a number or a list of numbers, got '1.5'"),
    "true": (entry(direction=True), "a task parameter must be a number or a list of numbers, got True"),
    "null": (entry(speed=None), "a task parameter must be a number or a list of numbers, got None"),
    "object": (entry(speed={"x": 1}), "a task parameter must be a number or a list of numbers"),
    "above the range": (entry(speed=3.5), "parameter 'speed' must be in [0, 3], got 3.5"),
    "below the range": (entry(speed=-0.5), "parameter 'speed' must be in [0, 3], got -0.5"),
    "out of range in a list": (entry(goal=[0, 1.5]), "parameter 'goal' must be in [-1, 1], got 1.5"),
    "not a choice": (entry(direction=0.5), "parameter 'direction' must be one of [-1.0, 1.0], got 0.5"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_a_wrong_task_is_refused_with_its_number_in_the_file(tmp_path: Path, case: str) -> None:
    wrong, expected = WRONG[case]
    text = message(write(tmp_path, [entry(), entry(), wrong]))
    assert text.startswith("task 2 of " if expected[0] != "[" else "the task file")
    assert expected in text


LISTS = {
    "strings": ["0.5", "0.5"],
    "words": ["left", "right"],
    "booleans": [True, False],
    "nulls": [None, None],
    "nested": [[0.5, 0.5]],
    "ragged": [[0.5], [0.5, 0.5]],
    "object": [{"x": 0.5}, 0.5],
}


@pytest.mark.parametrize("case", list(LISTS))
def test_a_list_of_anything_but_numbers_is_refused(tmp_path: Path, case: str) -> None:
    text = message(write(tmp_path, [entry(goal=LISTS[case])]))
    assert text.startswith("task 0 of ")
    assert "a task parameter must be a number or a list of numbers" in text


def test_an_integer_beyond_floating_point_is_refused(tmp_path: Path) -> None:
    assert "numbers must be finite, got an integer of 401 digits" in message(
        write(tmp_path, [entry(speed=10**400)])
    )


class _Dice(TaskDistribution):
    """Tasks of a family with few of them, drawn independently."""

    def __init__(self, family: TaskFamily, sides: int) -> None:
        self.family, self.sides = family, sides

    def sample(self, num_tasks: int, rng: np.random.Generator) -> list[Task]:
        return [Task.of("dice", side=float(side)) for side in rng.integers(0, self.sides, num_tasks)]


@pytest.mark.parametrize(("sides", "count", "times"), [(50, 40, {1}), (3, 8, {2, 3}), (2, 40, {20})])
def test_tasks_to_measure_on_are_distinct_or_equally_often(sides: int, count: int, times: set[int]) -> None:
    dice = _Dice(Walk(), sides)
    drawn = dice.sample(count, np.random.default_rng(0))
    assert len(set(drawn)) < count
    tasks = sample_distinct(dice, count, np.random.default_rng(0))
    assert len(tasks) == count
    assert set(Counter(tasks).values()) == times
    assert len(set(tasks)) == min(sides, count)


def test_tasks_that_are_distinct_stay_as_they_are_drawn() -> None:
    test = make_benchmark("point").test
    drawn = test.sample(20, np.random.default_rng(3))
    assert sample_distinct(test, 20, np.random.default_rng(3)) == drawn
