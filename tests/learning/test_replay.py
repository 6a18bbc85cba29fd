"""Replay: what was stored for a task and nothing else, recent contexts, exact files, one clear error."""

import zlib
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.learning import replay
from metarl.learning.replay import MultiTaskReplay, Transitions, example_transition
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.seeding import torch_generator

CPU = torch.device("cpu")


def _replay(num_tasks: int = 3, capacity: int = 10) -> MultiTaskReplay[Transitions]:
    return MultiTaskReplay(num_tasks, capacity, example=example_transition(spaces.Box(-1, 1, (2,)), 1), device=CPU)


def _numbered(task: int, start: int, num_rows: int) -> Transitions:
    """Rows of which every number says the task and the row: 1000 task + row, and the field in the fraction."""
    number = 1000.0 * task + torch.arange(start, start + num_rows)
    return Transitions(
        observations=torch.stack((number + 0.25, -number), 1),
        actions=number.unsqueeze(1) + 0.5,
        rewards=number,
        context_rewards=number + 0.125,
        terminated=torch.arange(start, start + num_rows) % 2,
        next_observations=torch.stack((number + 0.75, number), 1),
    )


def _filled(num_rows: int = 7, capacity: int = 10) -> MultiTaskReplay[Transitions]:
    made = _replay(capacity=capacity)
    for task in range(3):
        made.add(task, _numbered(task, 0, num_rows), num_context=2)
    return made


def _held(made: MultiTaskReplay[Transitions], task: int, *, context: bool = False) -> set[int]:
    """Numbers of the rows that come up in many draws of one task, without its thousands."""
    draw = made.draw_context if context else made.draw
    drawn = made.gather(draw(torch.tensor([task]), 2000, torch_generator(0))).rewards
    assert ((drawn >= 1000 * task) & (drawn < 1000 * (task + 1))).all()
    return {int(number) - 1000 * task for number in drawn.unique()}


def test_every_field_of_a_row_comes_back_as_it_was_stored() -> None:
    made = _filled()
    tasks = torch.tensor([2, 0, 2])
    rows = made.gather(made.draw(tasks, 50, torch_generator(0)))
    number = rows.rewards
    assert number.shape == (3, 50)
    assert torch.equal(number // 1000, tasks.unsqueeze(1).expand(3, 50).float())
    assert torch.equal(rows.observations, torch.stack((number + 0.25, -number), -1))
    assert torch.equal(rows.actions, number.unsqueeze(-1) + 0.5)
    assert torch.equal(rows.context_rewards, number + 0.125)
    assert torch.equal(rows.terminated, number % 1000 % 2)
    assert torch.equal(rows.next_observations, torch.stack((number + 0.75, number), -1))


def test_a_task_is_given_its_own_rows_all_of_them_and_no_others() -> None:
    made = _replay()
    made.add(0, _numbered(0, 0, 3), num_context=1)
    made.add(1, _numbered(1, 0, 9), num_context=1)
    assert _held(made, 0) == {0, 1, 2}
    assert _held(made, 1) == set(range(9))


def test_a_full_ring_keeps_the_last_rows() -> None:
    made = _filled(num_rows=7)
    made.add(1, _numbered(1, 7, 8), num_context=3)
    assert _held(made, 1) == set(range(5, 15))
    assert _held(made, 0) == set(range(7))
    assert made.num_transitions == 7 + 10 + 7


def test_a_context_is_the_first_rows_of_the_tasks_last_collection() -> None:
    made = _filled(num_rows=7)
    assert _held(made, 1, context=True) == {0, 1}
    made.add(1, _numbered(1, 7, 8), num_context=5)  # goes around the end of the ring
    assert _held(made, 1, context=True) == {7, 8, 9, 10, 11}
    assert _held(made, 2, context=True) == {0, 1}


def test_draws_are_uniform() -> None:
    made = _filled(num_rows=5)
    drawn = made.gather(made.draw(torch.tensor([0]), 50_000, torch_generator(1))).rewards
    counts = torch.bincount(drawn.flatten().long(), minlength=5)
    assert ((counts - 10_000).abs() < 400).all()  # four standard deviations are 360


def test_a_varied_context_is_drawn_from_windows_of_every_length_and_place() -> None:
    made = _replay(capacity=10)
    made.add(0, _numbered(0, 0, 7), num_context=3)
    made.add(0, _numbered(0, 7, 8), num_context=6)  # rows 7 to 12, across the ring's end
    tasks = torch.zeros(2000, dtype=torch.int64)
    rows = made.gather(made.draw_context(tasks, 50, torch_generator(0), shortest=2)).rewards
    extents = {(int(low), int(high)) for low, high in zip(rows.amin(1), rows.amax(1), strict=True)}
    assert extents == {(low, high) for low in range(7, 13) for high in range(low + 1, 13)}
    short = made.gather(made.draw_context(tasks, 200, torch_generator(0), shortest=20)).rewards
    assert (short.amin(1) == 7).all()  # a context that is shorter is used whole
    assert (short.amax(1) == 12).all()


def test_an_ordered_context_is_a_stretch_of_steps() -> None:
    made = _filled(num_rows=3)
    made.add(1, _numbered(1, 3, 10), num_context=8)
    drawn = made.gather(made.draw_context(torch.ones(500, dtype=torch.int64), 5, torch_generator(0), ordered=True))
    first = drawn.rewards[:, :1] - 1000
    assert torch.equal(drawn.rewards - 1000, first + torch.arange(5))
    assert set(first.flatten().tolist()) == {3.0, 4.0, 5.0, 6.0}
    short = made.gather(made.draw_context(torch.tensor([2]), 5, torch_generator(0), ordered=True))
    assert short.rewards.tolist() == [[2000, 2001, 2000, 2001, 2000]]


def test_a_collection_larger_than_the_ring_is_refused() -> None:
    with pytest.raises(ValueError, match="brought 11 transitions of a task and its replay holds 10; raise"):
        _replay().add(0, _numbered(0, 0, 11), num_context=1)
    with pytest.raises(ValueError, match="the context must be 1 to 5 of the 5 new rows, got 6"):
        _replay().add(0, _numbered(0, 0, 5), num_context=6)


def test_memory_is_stated_and_what_cannot_fit_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    made = MultiTaskReplay(100, 10_000, example=example_transition(spaces.Box(-1, 1, (20,)), 6), device=CPU)
    assert made.num_bytes == 100 * 10_000 * (20 + 6 + 1 + 1 + 1 + 20) * 4
    assert made.summary() == "a replay of 100 tasks x 10,000 transitions of 49 numbers (0.196 GB)"
    with pytest.raises(
        MemoryError, match=r"100 tasks x 10,000,000,000 transitions .* would take .* GB, and cpu has"
    ):
        MultiTaskReplay(
            100, 10**10, example=example_transition(spaces.Box(-1, 1, (20,)), 6), device=CPU
        ).check_room()
    monkeypatch.setattr(replay, "available_memory", lambda device: 10**6)
    with pytest.raises(MemoryError, match=r"and cpu has 0.001 GB"):
        made.add(0, Transitions(*(torch.zeros(1, n).squeeze(-1) for n in (20, 6, 1, 1, 1, 20))), num_context=1)


def _drawn(made: MultiTaskReplay[Transitions]) -> list[Tensor]:
    tasks = torch.arange(made.num_tasks)
    generator = torch_generator(3)
    places = [made.draw(tasks, 40, generator), made.draw_context(tasks, 40, generator)]
    return [torch.cat([part.flatten() for part in made.gather(place)]) for place in places]


def _equal(first: MultiTaskReplay[Transitions], second: MultiTaskReplay[Transitions]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(_drawn(first), _drawn(second), strict=True))


def _read(path: Path, state: dict[str, Tensor], capacity: int = 10) -> MultiTaskReplay[Transitions]:
    made = _replay(capacity=capacity)
    made.load_state_dict(state)
    made.load(path)
    return made


@pytest.mark.parametrize("block_rows", [2, 1000])
def test_what_is_saved_and_loaded_is_the_same_and_goes_on_the_same(
    block_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_BLOCK_ROWS", block_rows)
    made, path = _filled(), tmp_path / "replay.bin"
    states = []
    for round_ in range(4):  # the rings go around twice
        made.save(path)
        states.append(made.state_dict())
        assert _equal(made, _read(path, states[-1]))
        for task in (0, 2):
            made.add(task, _numbered(task, 7 + 6 * round_, 6), num_context=4)
    again = _read(path, states[-1])
    for task in (0, 2):
        again.add(task, _numbered(task, 7 + 6 * 3, 6), num_context=4)
    assert _equal(made, again)
    again.save(path)
    assert _equal(made, _read(path, again.state_dict()))


def test_a_file_serves_the_checkpoint_before_too_and_only_grows_by_what_is_new(tmp_path: Path) -> None:
    made, path = _filled(capacity=100), tmp_path / "replay.bin"
    made.save(path)
    before, size = made.state_dict(), path.stat().st_size
    assert size == 3 * (32 + 7 * made.width * 4)  # the filled part, and 32 bytes per block
    kept = _read(path, before, 100)
    made.add(1, _numbered(1, 7, 5), num_context=1)
    made.save(path)
    assert path.stat().st_size == size + 32 + 5 * made.width * 4
    made.save(path)
    assert path.stat().st_size == size + 32 + 5 * made.width * 4
    back = _read(path, before, 100)
    assert _equal(back, kept)
    back.add(2, _numbered(2, 50, 1), num_context=1)  # another future than the file's
    back.save(path)
    assert _equal(back, _read(path, back.state_dict(), 100))


def test_rows_that_the_ring_no_longer_holds_are_not_saved(tmp_path: Path) -> None:
    made, path = _replay(num_tasks=1, capacity=10), tmp_path / "replay.bin"
    for start in range(0, 40, 8):
        made.add(0, _numbered(0, start, 8), num_context=2)
    made.save(path)
    one_row = made.width * torch.float32.itemsize
    assert 10 * one_row <= path.stat().st_size < 11 * one_row + 100  # 40 rows were added


def test_a_save_that_was_killed_half_way_leaves_the_checkpoint_readable(tmp_path: Path) -> None:
    made, path = _filled(capacity=100), tmp_path / "replay.bin"
    made.save(path)
    state, whole = made.state_dict(), path.read_bytes()
    made.add(1, _numbered(1, 7, 5), num_context=1)
    made.save(path)
    path.write_bytes(path.read_bytes()[: len(whole) + 50])
    assert _equal(_filled(capacity=100), _read(path, state, 100))


def test_a_new_run_does_not_read_what_lies_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "replay.bin"
    path.write_bytes(b"old" * 1000)
    made = _filled()
    made.save(path)
    assert _equal(made, _read(path, made.state_dict()))


def test_a_damaged_or_missing_file_is_one_error(tmp_path: Path) -> None:
    made, path = _filled(), tmp_path / "replay.bin"
    with pytest.raises(CheckpointError, match="no replay at"):
        _read(path, made.state_dict())
    made.save(path)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:20], content[:50] + b"\x07" + content[51:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="cut short or damaged"):
            _read(path, made.state_dict())
    other = _replay()
    other.add(0, _numbered(0, 0, 3), num_context=1)
    other.save(path)
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        _read(path, made.state_dict())
    made.save(tmp_path / "whole.bin")
    with pytest.raises(CheckpointError, match="not the replay of this checkpoint: task 0"):
        _read(tmp_path / "whole.bin", other.state_dict())


def test_a_flipped_byte_of_a_header_is_noticed(tmp_path: Path) -> None:
    made, path = _filled(), tmp_path / "replay.bin"
    made.save(path)
    content, second = path.read_bytes(), 32 + 7 * made.width * 4
    assert content[second : second + 8] == (1).to_bytes(8, "little")  # the second block is of the second task
    for place in (*range(32), *range(second, second + 32)):
        for bit in (1, 128):
            damaged = bytearray(content)
            damaged[place] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match=r"replay\.bin is cut short or damaged"):
                _read(path, made.state_dict())


def test_a_file_whose_headers_have_no_checksum_is_read(tmp_path: Path) -> None:
    """That of an earlier version, whose checksums are of the rows alone."""
    made, path = _filled(), tmp_path / "replay.bin"
    made.save(path)
    content, place = bytearray(path.read_bytes()), 0
    while place < len(content):
        task, start, count, _ = replay._HEADER.unpack_from(content, place)
        rows = content[place + 32 : place + 32 + count * made.width * 4]
        replay._HEADER.pack_into(content, place, task, start, count, zlib.crc32(rows))
        place += 32 + len(rows)
    path.write_bytes(content)
    assert _equal(made, _read(path, made.state_dict()))


def test_rows_that_were_not_loaded_are_not_drawn() -> None:
    made = _replay()
    made.load_state_dict(_filled().state_dict())
    with pytest.raises(RuntimeError, match="not loaded; call load first"):
        made.gather(made.draw(torch.tensor([0]), 4, torch_generator(0)))
