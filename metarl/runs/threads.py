"""The way in which torch's threads wait for each other."""

import os
import sys

SPINS = 1000
"""Number of times that a waiting thread looks again before it sleeps; chosen by `metarl bench threads`."""

_SETTINGS_OF_WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def limit_spinning() -> bool:
    """Let torch's threads sleep soon when they wait for each other; returns whether they will.

    PyTorch's builds for Linux compute on the threads of libgomp, which at the end of every parallel loop look
    300,000 times, some milliseconds long, whether the others are ready. Beside other work that is time in which
    the other thread has no core, and updates take ten times as long or more. No result depends on it.

    Libgomp reads the setting, GOMP_SPINCOUNT, when torch is imported, so that this comes before it. Processes
    that are started later inherit it. A user's own GOMP_SPINCOUNT or OMP_WAIT_POLICY is left as it is.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _SETTINGS_OF_WAITING):
        return False
    os.environ["GOMP_SPINCOUNT"] = str(SPINS)
    return True
