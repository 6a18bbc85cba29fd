"""One seed, independent streams."""

import numpy as np
import pytest

from metarl.runs.seeding import STREAMS, TaskNoise, dump_states, episode_seeds, load_states, streams, task_seeds


def test_streams_are_reproducible_and_differ_by_name_and_seed() -> None:
    drawn = {(seed, name): int(streams(seed)[name].integers(2**62)) for seed in (0, 1) for name in STREAMS}
    assert len(set(drawn.values())) == len(drawn)
    assert drawn[0, "tasks"] == int(streams(0)["tasks"].integers(2**62))


def test_drawing_from_one_stream_leaves_the_others() -> None:
    touched, fresh = streams(0), streams(0)
    touched["evaluation"].random(1000)
    assert touched["tasks"].random() == fresh["tasks"].random()


def test_states_round_trip() -> None:
    generators = streams(0)
    generators["tasks"].random(7)
    dumped = dump_states(generators)
    expected = generators["tasks"].random(3)
    other = streams(0)
    load_states(other, dumped)
    np.testing.assert_array_equal(other["tasks"].random(3), expected)


def test_states_of_another_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="stream tasks is one of another seed"):
        load_states(streams(9), dump_states(streams(0)))


def test_every_episode_and_task_has_its_own_seed() -> None:
    episodes, tasks = episode_seeds(3, 5, 4), task_seeds(3, 5)
    assert episodes.shape == (5, 4)
    assert len({*episodes.ravel().tolist(), *tasks.tolist()}) == 25


def test_negative_seed_is_an_error() -> None:
    with pytest.raises(ValueError, match="non-negative integer, got -1"):
        streams(-1)


def test_noise_is_of_its_kind() -> None:
    normal, uniform = (TaskNoise([1, 2], (500,), kind=kind).next() for kind in ("normal", "uniform"))
    assert float(normal.mean()) == pytest.approx(0.0, abs=0.15)
    assert float(normal.std()) == pytest.approx(1.0, abs=0.1)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.05)
