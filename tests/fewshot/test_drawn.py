"""Lists of tasks: drawn, written, read, and the same for every learner; tasks of unequal ways and shots."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metarl.experiments.cli import main
from metarl.fewshot import ClassData, ClassEpisodes, Maml, MamlConfig, Prototypical, PrototypicalConfig
from metarl.fewshot.data.classes import DrawnTask
from metarl.fewshot.data.drawn import FixedEpisodes, as_json, episodes_of, read_tasks
from metarl.fewshot.episodes import Episodes, by_task
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.objectives import IGNORED
from metarl.runs.files import write_json

DATA = ClassData(
    ("a", "b", "c", "d"),
    torch.arange(20.0).unsqueeze(1) + torch.tensor([0.0, 0.25]),
    torch.tensor([5, 4, 6, 5]),
)
SOURCE = ClassEpisodes(DATA, num_ways=3, num_shots=1, num_queries=2)
UNEQUAL = [
    DrawnTask((0, 2), ((0, 1), (3,)), ((2,), (0, 5))),
    DrawnTask((3, 1, 0), ((4,), (0,), (1,)), ((0, 1), (2, 3), (4, 2))),
]


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_drawn_tasks_are_those_of_the_source() -> None:
    drawn = SOURCE.draw(4, _rng())
    expected, came = SOURCE.sample(4, _rng()), FixedEpisodes(DATA, drawn).sample(4, _rng())
    assert not came.is_ragged
    for whole, listed in zip(expected, came, strict=True):
        assert torch.equal(whole.inputs, listed.inputs)
        assert torch.equal(whole.targets, listed.targets)
    by_class = FixedEpisodes(DATA, drawn).with_labels("class").sample(4, _rng())
    assert torch.equal(by_class.query.targets, SOURCE.with_labels("class").sample(4, _rng()).query.targets)


def test_a_list_is_given_in_order_and_again_from_its_beginning() -> None:
    listed = FixedEpisodes(DATA, SOURCE.draw(3, _rng()))
    first, second = listed.sample(2, _rng()), listed.sample(2, _rng())
    again = listed.from_start().sample(4, _rng()).support.inputs
    assert torch.equal(torch.cat([first.support.inputs, second.support.inputs]), again)
    assert torch.equal(again[0], again[3])


def test_a_written_list_is_read_again(tmp_path: Path) -> None:
    tasks = [*SOURCE.draw(3, _rng()), *UNEQUAL]
    write_json(tmp_path / "list.json", as_json(DATA, tasks))
    assert read_tasks(tmp_path / "list.json", DATA) == tasks
    fewer = DATA.select(["d", "c", "a", "b"])  # the same classes in another order
    again = read_tasks(tmp_path / "list.json", fewer)
    assert torch.equal(episodes_of(fewer, again).support.inputs, episodes_of(DATA, tasks).support.inputs)


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([[["a", [0], [1]]]], "two classes or more"),
        ([[["a", [0], [1]], ["x", [0], [1]]]], "'x', which is not among"),
        ([[["a", [0], [1]], ["b", [0], [4]]]], "numbers below 4"),
        ([[["a", [0], [1]], ["b", [], [1]]]], "numbers below 4"),
        ([[["a", [0], [True]], ["b", [0], [1]]]], "numbers below 5"),
        ([[["a", [0], [0]], ["b", [0], [1]]]], "'a' twice"),
        ([[["a", [0], [1]], ["a", [2], [3]]]], "a class twice"),
        ([[["a", [0]], ["b", [0], [1]]]], "support and query"),
        ([], "metarl episodes"),
    ],
)
def test_damaged_lists_are_refused_in_one_line(episodes: Any, message: str, tmp_path: Path) -> None:
    write_json(tmp_path / "list.json", {"version": 1, "episodes": episodes})
    with pytest.raises(ValueError, match=message) as caught:
        read_tasks(tmp_path / "list.json", DATA)
    assert "\n" not in str(caught.value)


def test_unequal_tasks_are_padded_and_come_apart_again() -> None:
    episodes = episodes_of(DATA, UNEQUAL)
    assert episodes.is_ragged
    assert episodes.support.targets.tolist() == [[0, 0, 1, IGNORED], [0, 1, 2, IGNORED]]
    assert episodes.query.targets[0].tolist() == [0, 1, 1] + 4 * [IGNORED]
    alone = episodes.alone()
    for place, task in enumerate(UNEQUAL):
        assert not alone[place].is_ragged
        whole = episodes_of(DATA, [task])
        for part, expected in zip(alone[place], whole, strict=True):
            assert torch.equal(part.inputs, expected.inputs)
            assert torch.equal(part.targets, expected.targets)
    labelled = by_task(episodes_of(DATA, UNEQUAL, "class"))
    # Classes are numbered by their places in the data there, and by their order in the task here.
    assert labelled.support.targets.tolist() == [[0, 0, 1, IGNORED], [2, 1, 0, IGNORED]]


LEARNERS: dict[str, Callable[[], Learner]] = {
    "prototypical": lambda: Prototypical(nn.Linear(2, 3), PrototypicalConfig()),
    "maml": lambda: Maml(nn.Linear(2, 3), MamlConfig(inner_lr=0.01)),
    "proto-maml": lambda: ProtoMaml(nn.Linear(2, 3), ProtoMamlConfig(inner_lr=1e-4)),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_an_update_on_unequal_tasks_is_that_of_the_mean_over_tasks(name: str) -> None:
    torch.manual_seed(0)
    learner = LEARNERS[name]()
    scaled = ClassData(DATA.names, DATA.examples / 10, DATA.counts)
    whole = [episodes_of(scaled, [task]) for task in UNEQUAL]
    losses = [learner.outer_losses(task).losses for task in whole]  # type: ignore[attr-defined]
    params = list(learner.network.module.parameters())  # type: ignore[attr-defined]
    expected = torch.autograd.grad(torch.cat(losses).mean(), params)
    metrics = learner.update(episodes_of(scaled, UNEQUAL), _rng())
    assert metrics["loss/outer"] == pytest.approx(torch.cat(losses).mean().item(), abs=1e-5)
    for p, grad in zip(params, expected, strict=True):
        assert p.grad is not None
        assert torch.allclose(p.grad, grad, atol=1e-5)


@pytest.mark.parametrize("name", LEARNERS)
def test_scores_of_unequal_tasks_are_those_of_each_alone(name: str) -> None:
    torch.manual_seed(0)
    learner = LEARNERS[name]()
    tasks = [*UNEQUAL, *SOURCE.draw(2, _rng())]
    mixed = ClassData(DATA.names, torch.randn(20, 2), DATA.counts)
    _, together = adaptation_scores(learner, FixedEpisodes(mixed, tasks), _rng(), num_tasks=4, num_steps=1)
    alone = [
        adaptation_scores(learner, FixedEpisodes(mixed, [task]), _rng(), num_tasks=1, num_steps=1)[1]
        for task in tasks
    ]
    assert np.allclose(together, np.concatenate(alone, 1))
    assert len(set(together[-1].tolist())) > 1


class _Reversed(ClassEpisodes):
    """Episodes whose query sets are support sets and the other way round."""

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        support, query = super().sample(num_tasks, rng)
        return Episodes(query, support)


def test_a_sample_of_ones_own_is_not_passed_by() -> None:
    torch.manual_seed(0)
    learner = Prototypical(nn.Linear(2, 3), PrototypicalConfig())
    source = _Reversed(DATA, num_ways=3, num_shots=1, num_queries=2)
    embedded = learner.embed_classes(source).sample(2, _rng())
    assert embedded.support.targets.shape == (2, 6)  # the two queries of each class
    assert torch.allclose(embedded.support.inputs, learner.network.pooled(source.sample(2, _rng()).support.inputs))


@pytest.mark.thorough
def test_two_runs_are_evaluated_on_the_same_list(tmp_path: Path, omniglot_archive: Path) -> None:
    small = [
        *("--data.folder", str(omniglot_archive), "--backbone.num-filters", "4", "--loggers", "csv"),
        *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
        *("--training.meta-batch-size", "1", "--evaluation.num-tasks", "2", "--data.episodes.num-ways", "3"),
        *("--data.episodes.num-queries", "2", "--data.episodes.train-queries", "2"),
        *("--data.episodes.train-ways", "3"),
    ]
    listed, scores = tmp_path / "list.json", {}
    for name in ("protonet", "siamese-triplet"):
        folder, result = tmp_path / name, tmp_path / f"{name}.json"
        assert main(["train", f"omniglot-{name}", *small, "--out", str(folder)]) == 0
        if name == "protonet":
            words = ["episodes", str(folder), "--out", str(listed), "--num-tasks", "5", "--num-shots", "2"]
            assert main([*words, "--num-queries", "1"]) == 0
            assert main(words) == 2  # the file exists
        assert main(["evaluate", str(folder), "--tasks", str(listed), "--json", str(result)]) == 0
        data = json.loads(result.read_text())
        assert (data["judged"], data["num_tasks"], data["episodes"]) == ("test", 5, "the list list.json")
        scores[name] = data["scores_by_task"]
        assert len(scores[name]) == 5
        assert data["adaptation"][0]["accuracy_mean"] == pytest.approx(np.mean(scores[name]))
    assert len(json.loads(listed.read_text())["episodes"][0][0][1]) == 2
    assert main(["evaluate", str(folder), "--tasks", str(listed), "--num-ways", "2"]) == 2


def test_what_is_not_drawn_is_not_embedded() -> None:
    torch.manual_seed(0)
    learner = Prototypical(nn.Linear(2, 3), PrototypicalConfig())
    data = ClassData.of(torch.randn(400, 2), torch.arange(400) // 100)
    source = ClassEpisodes(data, num_ways=3, num_shots=1, num_queries=2)
    embedded = learner.embed_classes(source)
    when_drawn: Any = embedded.data.examples
    drawn = [source.draw(2, np.random.default_rng(seed)) for seed in (0, 1, 0)]
    rows = set()
    for seed, tasks in zip((0, 1, 0), drawn, strict=True):
        inputs = embedded.sample(2, np.random.default_rng(seed)).query.inputs
        plain = source.sample(2, np.random.default_rng(seed)).query.inputs
        assert torch.allclose(inputs, learner.network.module(plain), atol=1e-6)
        rows |= {
            (place, number)
            for task in tasks
            for place, *numbers in zip(*task, strict=True)
            for few in numbers
            for number in few
        }
        assert when_drawn.num_embedded == len(rows)
    assert len(rows) < 400 == len(when_drawn)
