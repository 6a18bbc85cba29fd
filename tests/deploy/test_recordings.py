"""Recordings: what goes into a file comes out, and what is wrong with one is said in one line."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metarl.deploy.recordings import Recording, load_recording, save_recording
from metarl.runs.files import WriteError

NAMES = ("observations", "actions", "rewards", "terminated", "truncated", "next_observations")


def _arrays() -> dict[str, Any]:
    """Episodes of 2, 3 and 1 steps; every number says its step, so that mixed-up steps cannot pass."""
    observations = np.array([[0.0], [1], [10], [11], [12], [20]])
    return {
        "observations": observations,
        "actions": observations / 100,
        "rewards": np.arange(6.0),
        "terminated": np.array([False, True, False, False, False, False]),
        "truncated": np.array([False, False, False, False, True, False]),
        "next_observations": observations + 1,
    }


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    save_recording(path, Recording(**_arrays()))
    read = load_recording(path)
    for name, values in _arrays().items():
        assert np.array_equal(getattr(read, name), values)
    with pytest.raises(ValueError, match="exists and is left as it is"):
        save_recording(path, read)
    with pytest.raises(WriteError, match=r"cannot write .*nowhere.*: No such file or directory"):
        save_recording(tmp_path / "nowhere" / "log.npz", read)


def test_episodes_are_padded_and_the_last_is_read_as_cut() -> None:
    found = Recording(**_arrays()).trajectories(torch.from_numpy)
    assert found.mask[0].tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert found.observations[0, :, :, 0].tolist() == [[0, 1, 0], [10, 11, 12], [20, 0, 0]]
    assert found.rewards[0].tolist() == [[0, 1, 0], [2, 3, 4], [5, 0, 0]]
    assert found.last_observations[0, :, 0].tolist() == [2, 13, 21]
    assert found.terminated[0].nonzero().tolist() == [[0, 1]]
    assert found.truncated[0].nonzero().tolist() == [[1, 2], [2, 0]]
    assert found.next_observations()[0, 1, :, 0].tolist() == [11, 12, 13]


def test_last_observations_stand_for_the_next_ones(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["last_observations"] = arrays.pop("next_observations")[[1, 4, 5]]
    np.savez(tmp_path / "log.npz", **arrays)
    assert load_recording(tmp_path / "log.npz").next_observations[:, 0].tolist() == [1, 2, 11, 12, 13, 21]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": None}, r"missing \['rewards'\], unknown \[\]"),
        ({"reward": np.zeros(6)}, r"missing \[\], unknown \['reward'\]"),
        ({"next_observations": None}, "expected next_observations .* or last_observations .*, got neither"),
        ({"next_observations": None, "last_observations": np.zeros((2, 1))}, r"must have shape \(3, 1\)"),
        ({"rewards": np.zeros(5)}, r"must have 5 steps, as rewards has, got shape \(6, 1\)"),
        ({"rewards": np.zeros((6, 1))}, r"rewards must be a list of at least one number, got shape \(6, 1\)"),
        ({"rewards": np.zeros(0)}, "at least one number"),
        ({"observations": np.zeros(6)}, r"next_observations must have the shape of observations, \(6,\)"),
        ({"next_observations": np.zeros((6, 2))}, r"shape of observations, \(6, 1\), got \(6, 2\)"),
        ({"rewards": np.array([0, 1, np.nan, 3, 4, 5])}, "rewards must be finite, got nan at step 2"),
        ({"terminated": np.zeros((6, 2), bool)}, r"terminated must have shape \(6,\), got \(6, 2\)"),
        ({"actions": np.array(["a"] * 6)}, "actions must be numbers, got <U1"),
        ({"actions": np.array([None] * 6)}, "allow_pickle=False"),
    ],
)
def test_a_bad_file_is_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "log.npz"
    np.savez(path, **{name: values for name, values in (_arrays() | changes).items() if values is not None})
    with pytest.raises(ValueError, match=message) as raised:
        load_recording(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_of_another_kind_is_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("not an archive")
    save_recording(tmp_path / "whole.npz", Recording(**_arrays()))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:300])
    whole = (tmp_path / "whole.npz").read_bytes()
    start = whole.index(b"observations.npy") + len("observations.npy")
    (tmp_path / "bits.npz").write_bytes(whole[: start + 30] + b"\xff" * 8 + whole[start + 38 :])
    place = whole.index(b"PK\x01\x02") + 10  # the first file's compression, in the archive's directory
    (tmp_path / "method.npz").write_bytes(whole[:place] + b"\x63" + whole[place + 1 :])
    for name in ("bits.npz", "method.npz", "one.npy", "text.npz", "cut.npz", "missing.npz"):
        with pytest.raises(ValueError, match="cannot read the recording") as raised:
            load_recording(tmp_path / name)
        assert "\n" not in str(raised.value)


def test_a_member_that_is_no_array_and_a_pipe_are_one_line(tmp_path: Path) -> None:
    save_recording(tmp_path / "whole.npz", Recording(**_arrays()))
    with zipfile.ZipFile(tmp_path / "whole.npz") as whole, zipfile.ZipFile(tmp_path / "text.npz", "w") as text:
        for name in whole.namelist():
            text.writestr(name, b"text" if name == "rewards.npy" else whole.read(name))
    with pytest.raises(ValueError, match=r"the recording .*text\.npz: 'rewards' is not an array"):
        load_recording(tmp_path / "text.npz")
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(ValueError, match=r"cannot read the recording .*: it is not a regular file"):
        load_recording(tmp_path / "pipe.npz")
