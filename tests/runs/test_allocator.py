"""How freed memory is kept."""

import resource
import statistics
import sys
from multiprocessing.connection import Connection

import pytest
import torch

from metarl.runs.allocator import keep_freed_memory
from metarl.runs.starting import process_context, start_process


def _count(connection: Connection, keep: bool) -> None:
    if keep:
        assert keep_freed_memory()
    counts = []
    for _ in range(9):
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        torch.zeros(1 << 24).sum()
        counts.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
    connection.send(round(statistics.median(counts)))


def _faults(*, keep: bool) -> int:
    """The median number of page faults of a process that makes 9 tensors of 64 MiB, one after another.

    A sum would also count what is not the policy's: a small block that outlives its tensor and lies behind it
    makes the next one begin elsewhere, which is faulted in once; and other threads fault as they like.
    """
    here, there = process_context().Pipe()
    process = start_process(_count, (there, keep), daemon=True)
    there.close()
    faults: int = here.recv()
    process.join()
    return faults


@pytest.mark.thorough
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_faulted_in_again() -> None:
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    mapped_anew = _faults(keep=False)
    assert mapped_anew >= 32, "64 MiB are 16,384 pages of 4 KiB, or 32 of 2 MiB"
    assert _faults(keep=True) < mapped_anew / 4
