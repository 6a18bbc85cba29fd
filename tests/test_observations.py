"""Observations keep their shapes and kinds of numbers, from the environment to trajectories and replay."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.agent import Actions, Outcome
from metarl.learning.replay import MultiTaskReplay, Transitions, concatenate_transitions, example_transition
from metarl.learning.trials import as_trials
from metarl.observations import as_arrays, as_nested, describe, row_format, space_parts, stored_parts
from metarl.tasks import Task
from metarl.trajectories import Observations, Trajectories, as_tensors, concatenate, map_observations
from metarl.workers import EnvMaker, Workers
from tests.environments import Corners, Dictionary, anything, corners

NESTED = spaces.Dict(
    a=spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 255, (2, 2, 3), np.uint8))),
    b=spaces.Dict(c=spaces.MultiBinary(2), d=spaces.Box(-1, 1, (), np.float64)),
)


def test_parts_are_named_by_their_place() -> None:
    assert list(space_parts(NESTED)) == ["a.0", "a.1", "b.c", "b.d"]
    assert list(space_parts(spaces.Discrete(3))) == [""]
    with pytest.raises(ValueError, match=r"distinct names of observations, got 'a\.b' twice"):
        space_parts(spaces.Dict({"a.b": spaces.Discrete(2), "a": spaces.Dict(b=spaces.Discrete(2))}))
    with pytest.raises(ValueError, match=r"observations must be of a Box, .* got Text"):
        space_parts(spaces.Dict(a=spaces.Text(3)))


def test_parts_and_nested_observations_are_inverse() -> None:
    NESTED.seed(0)
    sample = NESTED.sample()
    parts = as_arrays(sample)
    assert parts["a.1"].shape == (2, 2, 3)
    again = as_nested(NESTED, parts)
    assert NESTED.contains(again)
    assert np.array_equal(again["a"][1], sample["a"][1])


def test_stored_rows_give_back_their_parts() -> None:
    shape, dtype = row_format(NESTED)
    stored = np.zeros((3, *shape), dtype)
    parts = as_arrays(NESTED.sample())
    stored[1] = tuple(parts[name] for name in dtype.names or ())
    for name, values in stored_parts(stored).items():
        assert values.dtype == parts[name].dtype
        assert np.array_equal(values[1], parts[name])
    assert row_format(spaces.Box(0, 1, (4,), np.float32)) == ((4,), np.dtype(np.float32))


def test_a_space_is_described_in_one_line() -> None:
    low = -np.arange(30.0, dtype=np.float32)
    space = spaces.Dict(x=spaces.Box(low, -low), y=spaces.Box(0, 1, (2,)), z=spaces.Tuple((spaces.Discrete(2),)))
    assert describe(space) == "Dict(x: Box((30,), float32), y: Box(0, 1, (2,), float32), z: Tuple(Discrete(2)))"


def test_tensors_keep_whole_numbers_and_shorten_floats() -> None:
    kinds = {np.float64: torch.float32, np.float32: torch.float32, np.uint8: torch.uint8, np.int64: torch.int64}
    for kind, expected in (kinds | {np.int8: torch.int8, np.uint16: torch.int32}).items():
        array = np.ones((2, 2), kind)
        tensor = as_tensors(array)
        array[:] = 0
        assert (tensor.dtype, tensor.sum()) == (expected, 4)


class Guesser:
    """Guesses corners at random, and keeps what it was shown."""

    sequential = False

    def __init__(self) -> None:
        self.shown: list[Observations] = []
        self.followed: list[Outcome] = []

    def select(self, tasks: slice) -> "Guesser":
        return self

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        self.rng = np.random.default_rng(0)

    def begin_episode(self) -> None:
        pass

    def act(self, observations: Observations) -> Actions:
        self.shown.append(observations)
        image = observations["image"] if isinstance(observations, dict) else observations
        guesses = self.rng.integers(0, 4, image.shape[:2])
        return Actions(guesses + 1, torch.from_numpy(guesses), {})

    def observe(self, outcome: Outcome) -> None:
        self.followed.append(outcome)

    def adapt(self, trajectories: Trajectories) -> "Guesser":
        return self


def _collected(make: Any) -> tuple[Guesser, Trajectories]:
    actor = Guesser()
    family = corners(make)
    with Workers(EnvMaker(family), num_threads=1) as workers:
        trajectories = workers.collect(actor, [Task.of("corners", shift=k) for k in (0, 1, 2)], 5, seed=1)
    lengths = trajectories.mask.sum(-1)
    assert len(set(lengths.flatten().tolist())) > 1, "the episodes must end at different times"
    return actor, trajectories


def _check_part(actor: Guesser, trajectories: Trajectories, name: str | None) -> None:
    def part(observations: Any) -> torch.Tensor:
        values: torch.Tensor = observations if name is None else observations[name]
        return values

    observations, mask = part(trajectories.observations), trajectories.mask
    following, last = part(trajectories.next_observations()), part(trajectories.last_observations)
    for t, shown in enumerate(actor.shown):
        assert torch.equal(observations[:, :, t], part(shown))
        after = part(actor.followed[t].observations)
        assert torch.equal(following[:, :, t][mask[:, :, t]], after[mask[:, :, t]])
        ends = mask[:, :, t] & (mask.sum(-1) == t + 1)
        assert torch.equal(last[ends], after[ends])
        assert not part(shown)[~mask[:, :, t]].any(), "ended episodes show zeros"


def test_images_are_collected_as_they_are() -> None:
    actor, trajectories = _collected(Corners)
    assert trajectories.observations.shape == (3, 5, 4, 7, 7, 3)
    assert trajectories.observations.dtype == trajectories.last_observations.dtype == torch.uint8
    assert trajectories.observations.max() == 200
    _check_part(actor, trajectories, None)


def test_dictionaries_are_collected_part_by_part() -> None:
    actor, trajectories = _collected(Dictionary)
    shapes = {name: (part.shape[3:], part.dtype) for name, part in trajectories.observations.items()}
    assert shapes == {
        "image": ((7, 7, 3), torch.uint8),
        "noise": ((2,), torch.float32),
        "steps": ((), torch.int64),
    }
    for name in shapes:
        _check_part(actor, trajectories, name)
    twice = concatenate([trajectories, trajectories])
    assert torch.equal(twice.observations["image"][3:], trajectories.observations["image"])
    trials = as_trials(trajectories)
    steps = trials.observations["steps"][:, 0][trials.mask[:, 0]].tolist()
    lengths = trajectories.mask[0].sum(-1).tolist()
    assert steps == [step for length in lengths for step in range(length)]


@pytest.mark.parametrize("num_threads", [1, 2])
def test_vector_environments_follow_gymnasium_with_nested_observations(num_threads: int) -> None:
    family = anything(NESTED, spaces.MultiDiscrete([2, 3], start=[1, 0]))
    env = family.make_env(3, num_threads=num_threads, autoreset_mode="SameStep")  # type: ignore[call-arg]
    env.set_tasks([Task.of("anything", number=0.0)] * 3)
    try:
        observations, _ = env.reset(seed=0)
        assert env.observation_space.contains(observations)
        finals = 0
        for _ in range(6):
            observations, _, _, _, infos = env.step(np.array([[1, 0]] * 3))  # type: ignore[attr-defined]
            assert env.observation_space.contains(observations)
            for row in np.flatnonzero(infos.get("_final_obs", [])):
                finals += 1
                assert NESTED.contains(infos["final_obs"][row])
        assert finals > 0
    finally:
        env.close()


def test_a_replay_gives_back_images_and_numbers_bit_by_bit() -> None:
    space = spaces.Dict(image=spaces.Box(0, 255, (3, 3, 1), np.uint8), speed=spaces.Box(-1, 1, (2,)))
    replay = MultiTaskReplay(2, 10, example=example_transition(space, 1), device=torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)

    def observations(count: int) -> Observations:
        image = torch.randint(0, 256, (count, 3, 3, 1), generator=generator).to(torch.uint8)
        return {"image": image, "speed": torch.randn(count, 2, generator=generator)}

    def transitions(count: int) -> Transitions:
        numbers = torch.randn(4, count, generator=generator)
        return Transitions(observations(count), numbers[0][:, None], *numbers[1:], observations(count))

    stored = transitions(7)
    replay.add(1, stored, num_context=2)
    assert replay.width == 2 * (3 + 2) + 1 + 3  # nine bytes lie in three words
    gathered = replay.gather(torch.tensor([[10, 16]]))
    for field, original in zip(gathered, stored, strict=True):
        pairs = (
            [(field, original)] if isinstance(field, torch.Tensor) else [(field[n], original[n]) for n in field]
        )
        for came, went in pairs:
            assert came.dtype == went.dtype
            assert torch.equal(came[0], went[[0, 6]])
    joined = concatenate_transitions([stored, stored])
    assert torch.equal(joined.observations["image"][7:], stored.observations["image"])
    assert map_observations(len, joined.observations) == {"image": 14, "speed": 14}  # type: ignore[arg-type]
