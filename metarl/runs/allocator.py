"""The C library's policy of returning freed memory to the operating system."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc, malloc.h
_TWO_GIB = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the C library keep up to 2 GiB of freed memory for the next allocation; returns whether it can.

    By default, glibc maps every large tensor anew and unmaps it again, so that each of its pages is faulted in and
    cleared on first touch: half of the time of a Conv4 update on a virtual machine, whose activations are tens
    of megabytes. The setting holds for the whole process; libraries other than glibc are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc; no symbols of the process itself on Windows
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _TWO_GIB))
