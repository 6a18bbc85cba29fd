"""How freed memory is kept."""

import subprocess
import sys

import pytest

from metarl.runs.allocator import keep_freed_memory

_FAULTS = """
import resource, sys, torch
from metarl.runs.allocator import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
torch.zeros(1 << 24).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.zeros(1 << 24).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _faults(*arguments: str) -> int:
    """Page faults of twenty tensors of 64 MiB, one after another."""
    command = [sys.executable, "-c", _FAULTS, *arguments]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_kept_memory_is_not_faulted_in_again() -> None:
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert _faults("keep") < _faults() / 4
