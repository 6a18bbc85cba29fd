"""How much memory there is, so that what cannot fit is refused in one line before it is allocated."""

import os
from pathlib import Path

import torch

_GIGABYTE = 1e9
_MEMINFO = Path("/proc/meminfo")


def gigabytes(num_bytes: int) -> str:
    """A size as a person reads it."""
    return f"{num_bytes / _GIGABYTE:.3g} GB"


def total_memory(device: torch.device) -> int:
    """Bytes that a device has in all."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory(device: torch.device) -> int:
    """Bytes of a device that can be had now, caches that the system would give up included."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if _MEMINFO.exists():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return total_memory(device)


def check_memory(what: str, num_bytes: int, room: int, device: torch.device) -> None:
    """Raise a MemoryError that states both sizes if something cannot fit.

    Args:
        what: is to be allocated, and how to have less of it.
        num_bytes: that it takes.
        room: bytes that there are.
        device: where.
    """
    if num_bytes > room:
        raise MemoryError(f"{what} would take {gigabytes(num_bytes)}, and {device} has {gigabytes(room)}")
