"""What changes in the course of a run."""


def linear(start: float, final: float | None, updates: int, iterations: int) -> float:
    """The value after so many updates, in a straight line from the first iteration to the last.

    Args:
        start: at the first iteration.
        final: at the last, and after it; None for no change.
        updates: done.
        iterations: of the run.
    """
    done = min(1.0, updates / max(1, iterations - 1))
    return start if final is None else start + (final - start) * done


def geometric(start: float, final: float, updates: int, iterations: int) -> float:
    """The value after so many updates, by equal factors from the first iteration to the last; both positive."""
    done = min(1.0, updates / max(1, iterations - 1))
    return float(start * (final / start) ** done)
