"""How freed memory is kept."""

import subprocess
import sys

import pytest

from metarl.runs.allocator import keep_freed_memory

_FAULTS = """
import resource, statistics, sys, torch
from metarl.runs.allocator import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
counts = []
for _ in range(21):
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    torch.zeros(1 << 24).sum()
    counts.append(resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before)
print(round(statistics.median(counts)))
"""


def _faults(*arguments: str) -> int:
    """The median number of page faults of the thread that makes 21 tensors of 64 MiB, one after another.

    A sum would also count what is not the policy's: a small block that outlives its tensor and lies behind it
    makes the next one begin elsewhere, which is faulted in once; and other threads fault as they like.
    """
    command = [sys.executable, "-c", _FAULTS, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_faulted_in_again() -> None:
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    mapped_anew = _faults()
    assert mapped_anew >= 32, "64 MiB are 16,384 pages of 4 KiB, or 32 of 2 MiB"
    assert _faults("keep") < mapped_anew / 4
