"""Memory of a device: an allocation that cannot fit is refused in one line before it is made."""

import os
from pathlib import Path

import torch

_GIGABYTE = 1e9
_MEMINFO = Path("/proc/meminfo")


def gigabytes(num_bytes: int) -> str:
    """A size in gigabytes, to three digits and with its unit."""
    return f"{num_bytes / _GIGABYTE:.3g} GB"


def total_memory(device: torch.device) -> int:
    """Total memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def available_memory(device: torch.device) -> int:
    """Free memory of a device in bytes, including caches that the system would give up."""
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
        what: Subject of the message: the thing to allocate and how to make it smaller.
        num_bytes: Size of the allocation in bytes.
        room: Memory of the device in bytes.
        device: Device on which the memory is allocated.
    """
    if num_bytes > room:
        raise MemoryError(f"{what} would take {gigabytes(num_bytes)}, and {device} has {gigabytes(room)}")
