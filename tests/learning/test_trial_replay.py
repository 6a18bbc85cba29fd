"""Replay of whole trials: sequences are consecutive steps of one stored trial, of any of them."""

from pathlib import Path

import pytest
import torch
from gymnasium import spaces

from metarl.agent import Interface
from metarl.learning.trial_replay import TrialReplay
from metarl.learning.trials import Trials
from metarl.nets.actions import action_map
from metarl.runs.seeding import torch_generator

SPACES = Interface(spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3))
LONGEST = 6


def _replay(capacity: int = 4 * LONGEST) -> TrialReplay:
    actions = action_map(SPACES.action_space, "test")
    return TrialReplay(SPACES, actions, capacity=capacity, longest=LONGEST, device=torch.device("cpu"))


def _trials(first: int, *lengths: int) -> Trials:
    """Trials whose rewards are 100 trial + step, and whose other numbers follow from that."""
    time = torch.arange(max(lengths)).unsqueeze(1)
    number = (100.0 * torch.arange(first, first + len(lengths)) + time).expand(-1, len(lengths))
    return Trials(
        observations=torch.stack((number + 0.25, -number), -1),
        actions=(number % 3).long(),
        rewards=number,
        terminated=number % 2 == 1,
        truncated=number % 3 == 2,
        mask=time < torch.tensor(lengths),
        records={},
    )


def _drawn(replay: TrialReplay, num: int, length: int, seed: int = 0) -> list[tuple[list[int], list[bool]]]:
    """The real rewards of every sequence, and where a trial ends; other fields must follow from the rewards."""
    trials, ends, _ = replay.draw(num, length, torch_generator(seed))
    number, mask = trials.rewards, trials.mask
    assert number.shape == (length, num)
    assert not (ends & ~mask).any()
    assert torch.equal(trials.observations, torch.stack((number + 0.25, -number), -1))
    assert trials.actions.dtype == torch.int64
    assert torch.equal(trials.actions, (number % 3).long())
    assert torch.equal(trials.terminated, number % 2 == 1)
    assert torch.equal(trials.truncated, number % 3 == 2)
    assert trials.terminated.dtype == torch.bool
    return [(number[mask[:, i], i].int().tolist(), ends[mask[:, i], i].tolist()) for i in range(num)]


def test_whole_trials_come_back_with_their_ends() -> None:
    replay = _replay()
    replay.add(_trials(1, 6, 3))
    assert replay.num_trials == 2
    assert replay.num_transitions == 9
    drawn = {tuple(numbers): ends for numbers, ends in _drawn(replay, 40, LONGEST)}
    assert drawn == {tuple(range(100, 106)): [False] * 5 + [True], (200, 201, 202): [False, False, True]}


def test_parts_of_trials_start_at_every_step_that_leaves_them_whole() -> None:
    replay = _replay()
    replay.add(_trials(1, 6, 2))
    drawn = {tuple(numbers): ends for numbers, ends in _drawn(replay, 200, 4)}
    expected = {(100 + s, 101 + s, 102 + s, 103 + s): [False] * 3 + [s == 2] for s in range(3)}
    assert drawn == expected | {(200, 201): [False, True]}


def test_parts_of_trials_are_learned_from_once_a_memory_is_warm() -> None:
    replay = _replay()
    replay.add(_trials(1, 6, 2))
    trials, _, learned = replay.draw(2000, 4, torch_generator(0), burn_in=2)
    starts = {100: [True] * 4, 101: [False, False, True, True], 102: [False, False, True, True], 200: [True, True]}
    for place, first in enumerate(trials.rewards[0].int().tolist()):
        assert learned[: len(starts[first]), place].tolist() == starts[first]
    assert not (learned & ~trials.mask).any()
    # Of five first steps, -2 to 2, three are the trial's own.
    begun = (trials.rewards[0] == 100).sum() / (trials.rewards[0] < 200).sum()
    assert float(begun) == pytest.approx(3 / 5, abs=0.05)


def test_trials_shorter_than_the_burn_in_are_learned_from_whole() -> None:
    replay = _replay()
    replay.add(_trials(1, 3, 2))
    _, _, learned = replay.draw(40, 4, torch_generator(0), burn_in=3)
    assert set(map(tuple, learned.T.tolist())) == {(True, True, True, False), (True, True, False, False)}
    assert replay.draw(40, 4, torch_generator(0), burn_in=9).learned.equal(learned)


def test_every_trial_is_drawn_equally_often() -> None:
    replay = _replay()
    replay.add(_trials(0, 6, 1, 3))
    counts = torch.zeros(3)
    for numbers, _ in _drawn(replay, 3000, LONGEST):
        counts[numbers[0] // 100] += 1
    assert counts.min() > 900  # of 1000 in expectation, standard deviation 26


def test_the_oldest_trials_are_overwritten_also_by_shorter_ones() -> None:
    replay = _replay()
    replay.add(_trials(0, 6, 5, 6, 4))
    replay.add(_trials(4, 2, 3))
    drawn = {tuple(numbers) for numbers, _ in _drawn(replay, 200, LONGEST)}
    assert drawn == {(400, 401), (500, 501, 502), tuple(range(200, 206)), tuple(range(300, 304))}


def test_a_saved_replay_draws_the_same(tmp_path: Path) -> None:
    replay, other = _replay(), _replay()
    for first in (0, 3):  # fuller than full
        replay.add(_trials(first, 6, 2, 4))
        replay.save(tmp_path / "replay.bin")
    other.load_state_dict(replay.state_dict())
    other.load(tmp_path / "replay.bin")
    assert _drawn(replay, 50, 4, seed=1) == _drawn(other, 50, 4, seed=1)
    for each in (replay, other):
        each.add(_trials(6, 5))
    assert _drawn(replay, 50, 4, seed=2) == _drawn(other, 50, 4, seed=2)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="replay_capacity must hold a trial of up to 6 transitions, got 5; raise"):
        _replay(capacity=5)
    replay = _replay(capacity=2 * LONGEST + 1)
    assert replay.summary().startswith("a replay of 2 trials x 6 transitions of 7 numbers")
    with pytest.raises(ValueError, match="brought 3 trials and the replay holds 2; raise replay_cap"):
        replay.add(_trials(0, 1, 1, 1))
