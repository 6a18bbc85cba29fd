"""What changes in the course of a run."""


def linear(start: float, final: float | None, updates: int, iterations: int) -> float:
    """The value after so many updates, in a straight line from the first iteration to the last.

    Args:
        start: at the first iteration.
        final: at the last, and after it; None for no change.
        updates: done.
        iterations: of the run.
    """
    return start if final is None else start + (final - start) * _done(updates, iterations)


def geometric(start: float, final: float, updates: int, iterations: int) -> float:
    """The value after so many updates, by equal factors from the first iteration to the last; both positive."""
    return float(start * (final / start) ** _done(updates, iterations))


def _done(updates: int, iterations: int) -> float:
    """The part of the way, 0 at the first iteration and 1 at the last and after it."""
    return min(1.0, updates / max(1, iterations - 1))
