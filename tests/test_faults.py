"""The script of faults: a fault that does not fit its file is an error, and survivors are counted."""

import json
from pathlib import Path

import pytest

import tests.faults.__main__ as script
from tests.faults.__main__ import killed_before, report, stale
from tests.faults.fault import Fault


@pytest.mark.parametrize(
    ("source", "after"),
    [("a = 1", "2"), ("b = 1, b = 1", "b = 2"), ("b = 1", "b = 1")],
    ids=["gone", "twice", "same"],
)
def test_a_fault_must_fit_once_and_change_something(source: str, after: str) -> None:
    with pytest.raises(ValueError, match=r"file.py: expected 'b = 1' once, it occurs \d times; mend the fault"):
        Fault("file.py", "b = 1", after, ()).put_into(source)


def test_every_fault_fits_the_sources() -> None:
    assert stale(script.FAULTS) == []


def test_a_fault_changes_its_line_alone() -> None:
    assert Fault("file.py", "b = 1", "b = 2", ()).put_into("a = 1\nb = 1\n") == "a = 1\nb = 2\n"


def test_what_does_not_fit_is_listed() -> None:
    gone = Fault("metarl/nowhere.py", "a", "b", ("tests/test_faults.py",))
    changed = Fault("metarl/workers.py", "no such line", "", ("tests/test_nothing.py",))
    problems = stale([gone, changed, changed])
    assert len([problem for problem in problems if "metarl/nowhere.py" in problem]) == 1
    assert "metarl/workers.py: expected 'no such line' once, it occurs 0 times; mend the fault" in problems
    assert "tests/test_nothing.py is not there" in problems
    assert "metarl/workers.py: '' is there twice" in problems


@pytest.mark.parametrize(("num_survivors", "status"), [(0, 0), (3, 0), (4, 1)])
def test_more_than_three_in_a_hundred_survivors_are_a_failure(
    num_survivors: int, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [
        {"path": "ab"[i % 2], "before": str(i), "after": "", "survived": i < num_survivors, "seconds": 1}
        for i in range(100)
    ]
    assert report(results, tmp_path / "faults.json") == status
    assert f"{num_survivors} of 100 faults survived" in capsys.readouterr().out
    written = json.loads((tmp_path / "faults.json").read_text())
    assert written["by_file"]["a"] == {"faults": 50, "survived": (num_survivors + 1) // 2}
    assert len(written["results"]) == 100
    tried = [Fault("ab"[i % 2], str(i), "", ()) for i in range(3, 6)]
    killed = killed_before(tmp_path / "faults.json", tried)
    assert [result["before"] for result in killed] == [str(i) for i in range(max(3, num_survivors), 6)]


def test_with_every_fault_killed_before_no_test_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, fault = tmp_path / "faults.json", script.FAULTS[0]
    script.write([fault._asdict() | {"survived": False, "seconds": 1}], file)
    monkeypatch.setattr(script, "FAULTS", [fault])
    monkeypatch.setattr(script, "Trees", lambda folder, count: pytest.fail("the sources were copied"))
    monkeypatch.setattr("sys.argv", ["faults", "--json", str(file), "--again"])
    assert script.main() == 0
    assert "0 of 1 faults survived" in capsys.readouterr().out
