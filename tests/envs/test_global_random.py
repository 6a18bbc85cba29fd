"""The fingerprint of the global generators changes with every draw, and agrees with numpy's own state."""

import random
from collections.abc import Iterator

import numpy as np
import pytest

from metarl.envs.gymnasium.global_random import GlobalRandom, _fingerprint, _set_state, _state


@pytest.fixture(autouse=True)
def _own_state() -> Iterator[None]:
    outside = _state()
    yield
    _set_state(outside)


def test_a_fingerprint_is_read_from_the_state_and_follows_every_draw() -> None:
    for count in (0, 1, 2, 623, 624, 1248, 5000):
        np.random.seed(3)  # noqa: NPY002
        before = _fingerprint()
        np.random.random_sample(count)  # noqa: NPY002
        _, keys, position, *_ = np.random.get_state()  # noqa: NPY002
        assert _fingerprint()[:3] == (keys[0], keys[1], position)
        assert (_fingerprint() != before) == (count > 0)
    random.seed(3)
    before = _fingerprint()
    random.random()
    assert _fingerprint() != before


def test_an_environment_that_seeds_and_one_that_draws_are_noticed() -> None:
    def seeds() -> None:
        np.random.seed(0)  # noqa: NPY002

    def draws() -> None:
        random.random()

    for use in (seeds, draws):
        watched = GlobalRandom()
        with watched.of_rows([0]), watched.of_row(0, seed=5):
            pass
        assert not watched.used
        with watched.of_rows([0]), watched.of_row(0):
            use()
        assert watched.used


def test_a_row_draws_from_its_own_stream_whoever_draws_beside_it() -> None:
    def drawn(rows: list[int]) -> dict[int, list[float]]:
        watched, numbers = GlobalRandom(), dict[int, list[float]]()
        for step in range(3):
            with watched.of_rows(rows):
                for row in rows:
                    with watched.of_row(row, seed=10 + row if step == 0 else None):
                        if step or row:  # the first row begins to draw later than the others
                            numbers.setdefault(row, []).append(np.random.random_sample() + random.random())  # noqa: NPY002
        return numbers

    outside = random.getstate()
    both, alone = drawn([0, 1]), drawn([0])
    assert random.getstate() == outside
    assert both[0] == alone[0]
    assert len({*both[0], *both[1]}) == 5


def test_a_new_seed_begins_a_new_stream() -> None:
    watched = GlobalRandom()

    def drawn(seed: int) -> float:
        with watched.of_rows([0]), watched.of_row(0, seed):
            return float(np.random.random_sample()) + random.random()  # noqa: NPY002

    first, other, again = drawn(5), drawn(6), drawn(5)
    assert watched.used
    assert first == again != other
