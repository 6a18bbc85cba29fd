"""Confusions, accuracy by class and by shots, and calibration against counts by hand."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.experiments.cli import main
from metarl.experiments.fewshot.figures import confusion, under_attack
from metarl.fewshot.data.classes import ClassData, ClassEpisodes, DrawnTask
from metarl.fewshot.data.drawn import FixedEpisodes
from metarl.fewshot.data.sinusoids import Sinusoids
from metarl.fewshot.diagnosis import (
    Diagnosis,
    accuracy_by_shots,
    calibration_error,
    diagnose,
    embed_task,
    projected,
)
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.objectives import task_scores


class _Same(nn.Module):
    """Features are the inputs themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def _episodes() -> ClassEpisodes:
    """Classes at 0, 1, 10 and 20: the examples of the first two lie on either side, the others apart."""
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([0.0, 1.0, 10.0, 20.0]).repeat_interleave(30).unsqueeze(1)
    labels = torch.arange(4).repeat_interleave(30)
    data = ClassData.of(places + 0.6 * torch.randn(120, 1, generator=generator), labels)
    return ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=4)


def test_what_is_confused_is_what_lies_close() -> None:
    learner, episodes = Prototypical(_Same(), PrototypicalConfig()), _episodes()
    result = diagnose(learner, episodes, np.random.default_rng(0), num_tasks=50, num_steps=0, tasks_at_once=20)
    assert int(result.confusion.sum()) == 50 * 3 * 4
    assert {pair[:2] for pair in result.confused[:2]} == {("0", "1"), ("1", "0")}
    assert [count for *_, count in result.confused] == sorted((c for *_, c in result.confused), reverse=True)
    by_class = result.by_class
    assert list(by_class.values()) == sorted(by_class.values())
    assert by_class["3"] == 1 > by_class["0"]
    scores = adaptation_scores(
        learner, episodes, np.random.default_rng(0), num_tasks=50, num_steps=0, tasks_at_once=20
    )
    assert result.accuracy == pytest.approx(float(scores[1].mean()), abs=1e-6)


def _judged(
    learner: Learner, source: Any, num_tasks: int, num_steps: int, **options: Any
) -> tuple[Diagnosis, float]:
    """A diagnosis, and the last accuracy of an evaluation by the same random stream."""
    sizes: dict[str, Any] = {"num_tasks": num_tasks, "num_steps": num_steps, **options}
    scores = adaptation_scores(learner, source, np.random.default_rng(0), **sizes)[1]
    return diagnose(learner, source, np.random.default_rng(0), **sizes), float(scores[-1].mean())


def test_the_accuracy_is_that_of_an_evaluation_on_the_same_tasks() -> None:
    """Of any number of tasks, also more than are drawn together; accuracies are means over tasks, not queries."""
    compared, adapted = Prototypical(_Same(), PrototypicalConfig()), Maml(nn.Linear(1, 3), MamlConfig())
    for learner, num_steps in ((compared, 0), (adapted, 1)):
        result, accuracy = _judged(learner, _episodes(), 70, num_steps)
        assert len(result.accuracies) == 70
        assert result.accuracy == pytest.approx(accuracy, abs=1e-6)
    for size in (3, 20, 200):
        assert _judged(compared, _episodes(), 70, 0, tasks_at_once=size)[1] == _accuracy_of_all(compared)
    tasks = [
        DrawnTask((0, 1), ((0,), (0,)), ((20, 21, 22, 23), (20, 21, 22, 23))),
        DrawnTask((2, 3), ((0,), (0,)), ((20,), (20,))),
    ]
    result, accuracy = _judged(compared, FixedEpisodes(_episodes().data, tasks), 2, 0)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.accuracy != pytest.approx(float(result.right.double().mean()))


def _accuracy_of_all(learner: Learner) -> float:
    """The accuracy on seventy tasks, all held in memory together."""
    return _judged(learner, _episodes(), 70, 0, tasks_at_once=70)[1]


def test_views_are_those_of_an_evaluation() -> None:
    examples = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    source = ClassEpisodes(ClassData.of(examples, torch.arange(60) // 10), num_ways=3, num_shots=1, num_queries=4)
    torch.manual_seed(0)
    learner = Prototypical(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), PrototypicalConfig())
    one, several = (_judged(learner, source, 60, 0, views=views) for views in (1, 4))
    assert several[0].accuracy == pytest.approx(several[1], abs=1e-6)
    assert several[0].accuracy != pytest.approx(one[0].accuracy)


def test_outputs_beyond_the_tasks_classes_are_wrong_and_counted() -> None:
    torch.manual_seed(0)
    learner = Maml(nn.Linear(1, 5), MamlConfig(inner_lr=0.01))
    with torch.no_grad():
        learner.network.weights["bias"].copy_(torch.tensor([1.0, 1.0, 1.0, 1.5, 1.0]))
    result, accuracy = _judged(learner, _episodes(), 60, 1)
    assert 0 < int(result.of_none.sum()) < 60 * 3 * 4
    assert int(result.confusion.sum() + result.of_none.sum()) == len(result.right) == 60 * 3 * 4
    assert int(result.num_queries.sum()) == 60 * 3 * 4
    assert result.accuracy == pytest.approx(accuracy, abs=1e-6)
    totals = [result.by_class[name] * int(result.num_queries[place]) for place, name in enumerate(result.names)]
    assert sum(totals) == pytest.approx(int(result.right.sum()))
    few = Maml(nn.Linear(1, 2), MamlConfig())
    with pytest.raises(ValueError, match="must put out 3 numbers for every row"):
        diagnose(few, _episodes(), np.random.default_rng(0), num_tasks=2, num_steps=1)


def test_sizes_and_sources_that_mean_nothing_are_refused_in_one_line() -> None:
    learner, episodes, rng = Prototypical(_Same(), PrototypicalConfig()), _episodes(), np.random.default_rng(0)
    wrong: Any
    for wrong in ((0,), (0, 2), (), (1.5,), ("1",), (-1,)):
        with pytest.raises(ValueError, match=r"^shots must be whole numbers of 1 or more, .* got .*$"):
            accuracy_by_shots(learner, episodes, rng, shots=wrong, num_tasks=3, num_steps=0)
    for name, number in (("num_tasks", 0), ("num_steps", -1), ("tasks_at_once", 0)):
        sizes: Any = {"num_tasks": 3, "num_steps": 0, name: number}
        for judge in (adaptation_scores, diagnose):
            with pytest.raises(ValueError, match=f"^{name} must be . or more, got {number}$"):
                judge(learner, episodes, rng, **sizes)  # type: ignore[operator]
    with pytest.raises(TypeError, match="expected a source of classes, such as ClassEpisodes, got Sinusoids"):
        diagnose(learner, Sinusoids(), rng, num_tasks=3, num_steps=0)  # type: ignore[arg-type]
    of_none = DrawnTask((0, 1), ((0,), ()), ((1,), (2,)))
    with pytest.raises(ValueError, match=r"task 0 must have a support example of every class .* got \[1, 0\]"):
        FixedEpisodes(episodes.data, [of_none])
    with pytest.raises(ValueError, match="task 0 must name examples of '1' by numbers below 30, got 30"):
        FixedEpisodes(episodes.data, [DrawnTask((0, 1), ((0,), (30,)), ((1,), (2,)))])


def test_outputs_that_are_no_numbers_are_refused_as_in_evaluations() -> None:
    learner, rng = Prototypical(nn.Linear(1, 2), PrototypicalConfig()), np.random.default_rng(0)
    with torch.no_grad():
        learner.network.weights["weight"].fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"on task 0 is not finite; the weight 'module\.weight'"):
        diagnose(learner, _episodes(), rng, num_tasks=3, num_steps=0)
    with pytest.raises(FloatingPointError, match=r"on task 0 is not finite; the weight 'module\.weight'"):
        accuracy_by_shots(learner, _episodes(), rng, shots=(1,), num_tasks=3, num_steps=0)


def test_rows_of_the_confusion_are_true_classes() -> None:
    learner, episodes = Prototypical(_Same(), PrototypicalConfig()), _episodes()
    result = diagnose(learner, episodes, np.random.default_rng(0), num_tasks=7, num_steps=0, tasks_at_once=7)
    drawn = episodes.with_labels("class").sample(7, np.random.default_rng(0)).query.targets
    assert result.confusion.sum(1).tolist() == torch.bincount(drawn.flatten(), minlength=4).tolist()
    assert result.confusion.sum(0).tolist() != result.confusion.sum(1).tolist()


def test_calibration_by_hand() -> None:
    # Two bins: probabilities 0.2 and 0.4 with none right, too sure, 0.9 and 1.0 with both right, not sure enough.
    probabilities = torch.tensor([0.2, 0.4, 0.9, 1.0])
    right = torch.tensor([False, False, True, True])
    assert calibration_error(probabilities, right, 2) == pytest.approx((2 * 0.3 + 2 * 0.05) / 4)
    assert calibration_error(torch.ones(3), torch.ones(3, dtype=torch.bool)) == 0
    assert calibration_error(torch.ones(3), torch.zeros(3, dtype=torch.bool)) == 1


@pytest.mark.thorough
def test_the_command_shows_a_runs_confusions(
    omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    small = [
        *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
        *("--training.meta-batch-size", "1", "--evaluation.num-tasks", "2", "--backbone.num-filters", "4"),
        *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2", "--data.episodes.train-ways", "3"),
        *("--data.episodes.train-queries", "2", "--data.folder", str(omniglot_archive)),
    ]
    assert main(["train", "omniglot-protonet", *small, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    words = ["diagnose", str(tmp_path / "run"), "--num-tasks", "20", "--json", str(tmp_path / "d.json")]
    words += ["--attack-sizes", "0.1", "0.3", "--attack-steps", "3", "--figures", str(tmp_path / "figures")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "calibration error" in shown
    assert max(len(line) for line in shown.splitlines() if str(tmp_path) not in line) <= 80
    figures = ("calibration", "confusion", "embedding", "robustness", "shots")
    names = {f"{name}.{ending}" for name in figures for ending in ("png", "pdf")}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == names
    assert (tmp_path / "figures" / "embedding.png").read_bytes().startswith(b"\x89PNG")
    assert main(words[:6]) == 2
    assert "d.json exists" in capsys.readouterr().err
    result = json.loads((tmp_path / "d.json").read_text())
    assert result["taken_for_none"] == [0] * 7
    evaluated = ["evaluate", str(tmp_path / "run"), "--num-tasks", "20", "--json", str(tmp_path / "e.json")]
    assert main(evaluated) == 0
    evaluation = json.loads((tmp_path / "e.json").read_text())
    assert result["accuracy"] == pytest.approx(evaluation["adaptation"][-1]["accuracy_mean"], abs=1e-6)
    assert set(result["accuracy_by_shots"]) == {"1", "2"}  # four images of a class, two of them queries
    assert sum(map(sum, result["confusion"])) == 20 * 3 * 2
    assert len(result["classes"]) == 7  # Sanskrit's and Tagalog's
    attacked = result["accuracy_under_attack"]
    assert set(attacked) == {"FGSM", "PGD, 3 steps"}
    for by_size in attacked.values():
        assert by_size["0.0"] == pytest.approx(result["accuracy"])
        assert by_size["0.3"] < by_size["0.0"]
    assert re.search(r"PGD, 3 steps[ │]+0\.3[ │]+[\d.]+[ │]+\[", shown)
    assert main(["diagnose", str(tmp_path / "run"), "--attack-sizes", "-0.1"]) == 2
    assert main(["diagnose", str(tmp_path / "run"), "--split", "nothing"]) == 2
    assert main(["train", "sinusoid-kernel-regression", *small[:8], "--out", str(tmp_path / "numbers")]) == 0
    capsys.readouterr()
    assert main(["diagnose", str(tmp_path / "numbers")]) == 2
    assert "expected a few-shot run on classes" in capsys.readouterr().err


def test_more_shots_of_the_same_tasks_are_judged_on_the_same_queries() -> None:
    learner, episodes = Prototypical(_Same(), PrototypicalConfig()), _episodes()
    rng = np.random.default_rng(0)
    accuracies = accuracy_by_shots(learner, episodes, rng, shots=(1, 2, 8), num_tasks=60, num_steps=0)
    assert {number: len(each) for number, each in accuracies.items()} == {1: 60, 2: 60, 8: 60}
    assert accuracies[8].mean() > accuracies[1].mean() + 0.02
    wide = ClassEpisodes(episodes.data, num_ways=3, num_shots=8, num_queries=4)
    support, query = wide.sample(50, np.random.default_rng(0))
    first = support.rows(torch.tensor([0, 1, 8, 9, 16, 17]).expand(50, -1))  # the first two of each class
    expected = task_scores(learner.adapt(first, 0)[0](query.inputs), query.targets)
    assert accuracies[2][:50] == pytest.approx(expected.numpy())


def test_unequal_tasks_are_diagnosed_by_the_shots_of_their_classes() -> None:
    learner, data = Prototypical(_Same(), PrototypicalConfig()), _episodes().data
    tasks = [
        DrawnTask((0, 1, 3), ((0,), (0, 1, 2, 3, 4), (0, 1)), ((20, 21), (20, 21), (20, 21))),
        DrawnTask((3, 2), ((5, 6, 7), (5,)), ((22,), (22,))),
    ]
    result = diagnose(learner, FixedEpisodes(data, tasks), np.random.default_rng(0), num_tasks=2, num_steps=0)
    assert sorted(result.shots.tolist()) == [1, 1, 1, 2, 2, 3, 5, 5]
    assert set(result.by_shots) == {1, 2, 4}
    assert result.by_shots[2] == 1.0  # classes far apart
    assert result.confusion.sum(1).tolist() == [2, 2, 1, 3]


def _diagnosis(names: tuple[str, ...], counts: Tensor, **others: Tensor) -> Diagnosis:
    """A diagnosis of some counts, with the other parts empty but for those that are named."""
    empty = torch.zeros(0)
    parts = {"of_none": torch.zeros(len(names), dtype=torch.int64), "probabilities": empty, "right": empty.bool()}
    return Diagnosis(names, counts, **(parts | {"shots": empty.long(), "accuracies": empty} | others))


def test_bins_of_probabilities_by_hand() -> None:
    nothing = torch.zeros(1, 1, dtype=torch.int64)
    probabilities, right = torch.tensor([0.2, 0.4, 0.9, 1.0]), torch.tensor([False, True, True, True])
    result = _diagnosis(("a",), nothing, probabilities=probabilities, right=right)
    assert [(round(p, 6), a, n) for p, a, n in result.reliability(2)] == [(0.3, 0.5, 2), (0.95, 1.0, 2)]


def test_the_plane_keeps_what_differs_most() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(40, 2)) * [5.0, 2.0]
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    places = projected(plane @ turn + 3.0, "pca")
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (plane, places)]
    assert np.allclose(*distances)
    assert places[:, 0].std() > places[:, 1].std()
    assert projected(np.arange(3.0).reshape(3, 1), "pca").shape == (3, 2)  # one feature alone
    if importlib.util.find_spec("sklearn") is None:
        with pytest.raises(ValueError, match="scikit-learn"):
            projected(plane, "tsne")


def test_prototypes_lie_among_their_classes() -> None:
    learner = Prototypical(_Same(), PrototypicalConfig())
    task = embed_task(learner, _episodes(), np.random.default_rng(0))
    assert (task.support.shape, task.query.shape, task.prototypes.shape) == ((6, 2), (12, 2), (3, 2))
    for place in range(3):
        mean = task.support[task.support_classes == place].mean(0)
        assert np.allclose(task.prototypes[place], mean)
    nearest = np.abs(task.query[:, None, 0] - task.prototypes[None, :, 0]).argmin(1)
    assert ((nearest == task.query_classes) == task.right).all()
    assert not task.right.all() or len(set(task.names)) == 3


def _axis() -> Any:
    figure = pytest.importorskip("matplotlib.figure").Figure()
    return figure.subplots()


def test_the_confusion_figure_shows_shares_of_the_classes_that_were_drawn() -> None:
    counts = torch.tensor([[6, 2, 0], [0, 0, 0], [1, 0, 3]])
    counts[0, 1], counts[0, 2] = 0, 2  # the second class was not drawn
    axis = _axis()
    confusion(_diagnosis(("one", "two", "three"), counts))(axis)
    assert axis.images[0].get_array().tolist() == [[0.75, 0.25], [0.25, 0.75]]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one", "three"]


def test_the_confusion_figure_names_groups_where_there_are_many_classes() -> None:
    names = tuple(f"{group}/{number:02}" for group in ("Greek", "Latin") for number in range(20))
    axis = _axis()
    confusion(_diagnosis(names, torch.eye(40, dtype=torch.int64)))(axis)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["Greek", "Latin"]
    assert list(axis.get_xticks()) == [9.5, 29.5]
    assert {line.get_xdata()[0] for line in axis.lines} >= {19.5}


def test_accuracy_under_attack_is_drawn_by_size() -> None:
    axis = _axis()
    under_attack({"FGSM": {0.1: np.array([0.2, 0.4]), 0.0: np.array([1.0, 0.9])}})(axis)
    line = axis.lines[0]
    assert (line.get_label(), line.get_xdata().tolist()) == ("FGSM", [0.0, 0.1])
    assert line.get_ydata().tolist() == pytest.approx([95, 30])


def test_t_sne_keeps_far_classes_apart_where_scikit_learn_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("sklearn") is None:
        assert main(["diagnose", str(tmp_path), "--projection", "tsne"]) == 2
        assert capsys.readouterr().err.count("pip install scikit-learn") == 1  # before anything is read
        return
    far = np.repeat(np.eye(3, 5) * 100, 10, 0) + np.random.default_rng(0).normal(size=(30, 5))
    places = projected(far, "tsne").reshape(3, 10, 2)
    spread = np.linalg.norm(places - places.mean(1, keepdims=True), axis=-1).max()
    centres = places.mean(1)
    assert min(np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (0, 2), (1, 2))) > 2 * spread
