"""A single-line fault: what stands in a file, what is put there instead, and the tests that should notice."""

from typing import NamedTuple


class Fault(NamedTuple):
    """One line gone wrong.

    Attributes:
        path: File, relative to the root of the repository.
        before: Part of the file that is right; it must occur exactly once.
        after: What stands there instead.
        tests: Arguments of pytest for the tests that should fail, the quickest first.
    """

    path: str
    before: str
    after: str
    tests: tuple[str, ...]

    def put_into(self, source: str) -> str:
        """The source with the fault in it.

        Raises:
            ValueError: if the part that is right does not occur exactly once, or the fault changes nothing.
        """
        count = source.count(self.before)
        if count != 1 or self.before == self.after:
            raise ValueError(
                f"{self.path}: expected {self.before!r} once, it occurs {count} times; mend the fault"
            )
        return source.replace(self.before, self.after)


def faults(path: str, tests: tuple[str, ...], *pairs: tuple[str, str]) -> list[Fault]:
    """Faults of one file that the same tests should notice, from pairs of what is right and what is put there."""
    return [Fault(path, before, after, tests) for before, after in pairs]
