"""What tests of commands share."""

import pytest

from metarl.experiments import seeds


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of a group are forks of the test's process, which has imported the libraries already."""
    monkeypatch.setattr(seeds, "_START", "fork")
