"""Adversarial queries: where an attack may go, what it raises, and every learner under it."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import ClassData, ClassEpisodes, Examples, Maml, MamlConfig, Prototypical, PrototypicalConfig
from metarl.fewshot.attacks import Attack
from metarl.fewshot.data.sinusoids import Sinusoids
from metarl.fewshot.episodes import Episodes
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.baseline import Baseline, BaselineConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.label_propagation import LabelPropagation, LabelPropagationConfig
from metarl.fewshot.learners.logistic import Logistic, LogisticConfig
from metarl.fewshot.learners.mahalanobis import Mahalanobis, MahalanobisConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.learners.support_vectors import SupportVector, SupportVectorConfig
from metarl.fewshot.robustness import attacked_scores
from tests.fewshot.kinds import KINDS, LEARNERS, WithContext, episodes_of

UNIT = (0.0, 1.0)


def _sum(inputs: Tensor) -> Tensor:
    """A loss that rises with the even entries and falls with the odd ones."""
    signs = torch.tensor([1.0, -1.0]).repeat(inputs.shape[-1] // 2)
    return (inputs * signs).sum(-1)


def test_one_step_goes_the_whole_size_uphill_and_stays_in_the_range() -> None:
    inputs = torch.tensor([[[0.5, 0.5, 0.95, 0.03]]])
    moved = Attack(0.1, input_range=UNIT)(inputs, _sum)
    assert torch.allclose(moved, torch.tensor([[[0.6, 0.4, 1.0, 0.0]]]))
    assert torch.allclose(Attack(0.1)(inputs, _sum), torch.tensor([[[0.6, 0.4, 1.05, -0.07]]]))
    assert torch.equal(Attack(0.0, input_range=UNIT)(inputs, _sum), inputs)


def test_several_steps_stay_in_the_box_and_find_what_one_does_not() -> None:
    """The loss -|x - 0.56| has its top inside of the box, past which one whole step goes."""
    inputs = torch.full((1, 50, 2), 0.5)

    def losses(x: Tensor) -> Tensor:
        return -(x - 0.56).abs().sum(-1)

    many = Attack(0.1, num_steps=40, input_range=UNIT)(inputs, losses, torch.Generator().manual_seed(0))
    one = Attack(0.1)(inputs, losses)
    assert torch.allclose(one, torch.tensor(0.6))
    assert (many - 0.56).abs().max() <= Attack(0.1, num_steps=40).step_size + 1e-6 < 0.01
    flat = Attack(0.1)(inputs, lambda x: (x - 0.5).square())  # a single step has no slope at the input itself
    assert torch.equal(flat, inputs)
    away = Attack(0.1, num_steps=8)(inputs, lambda x: (x - 0.5).square(), torch.Generator().manual_seed(0))
    assert ((away - 0.5).abs() > 0.0999).all()
    generator = torch.Generator().manual_seed(1)
    anywhere = torch.rand(1, 200, 4, generator=generator)
    edges = Attack(0.3, num_steps=10, input_range=UNIT)(anywhere, _sum, generator)
    assert (edges - anywhere).abs().max() <= 0.3 + 1e-6
    assert 0 <= edges.min() <= edges.max() <= 1
    assert torch.allclose(edges, Attack(0.3, input_range=UNIT)(anywhere, _sum), atol=1e-6)  # reached from anywhere


def _two_classes() -> Prototypical:
    """Prototypical networks on one number, with features that are 100 times it."""
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(100.0)
    return Prototypical(module, PrototypicalConfig())


class _OneTask:
    """Classes at 0.2 and 0.8, and queries at several distances from the middle."""

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        support = Examples.of_one_task(torch.tensor([[0.2], [0.8]]), torch.tensor([0, 1]))
        places = torch.tensor([[0.1], [0.3], [0.45], [0.49], [0.52], [0.9]])
        return Episodes(support, Examples.of_one_task(places, torch.tensor([0, 0, 0, 0, 1, 1])))


def test_accuracy_under_attack_is_the_share_of_queries_further_than_its_size_from_the_border() -> None:
    """Outputs differ by thousands, where cross-entropy has no gradient that float32 can hold."""
    learner, task = _two_classes(), _OneTask().sample(1, np.random.default_rng(0))
    outputs = learner.adapt(task.support, 0)[0](task.query.inputs)
    assert (outputs.diff(dim=-1).abs() > 100).any()
    sizes = {"none": 0.0, "tiny": 0.015, "small": 0.03, "middle": 0.1, "large": 0.25, "all": 0.45}
    expected = {"none": 6, "tiny": 5, "small": 4, "middle": 3, "large": 2, "all": 0}
    for num_steps in (1, 8):
        attacks = {name: Attack(size, num_steps, UNIT) for name, size in sizes.items()}
        rng = np.random.default_rng(0)
        scores = attacked_scores(learner, _OneTask(), rng, attacks=attacks, num_tasks=1, num_steps=0)
        assert {name: round(6 * float(each[0])) for name, each in scores.items()} == expected


MAKERS = {
    **LEARNERS,
    "cavia": lambda kind: Cavia(WithContext(kind), CaviaConfig(inner_lr=20.0, inner_steps=3)),  # untrained
    "ridge": lambda kind: Ridge(kind.make(6), RidgeConfig()),
    "logistic": lambda kind: Logistic(kind.make(6), LogisticConfig()),
    "svm": lambda kind: SupportVector(kind.make(6), SupportVectorConfig()),
    "mahalanobis": lambda kind: Mahalanobis(kind.make(6), MahalanobisConfig()),
    "label-propagation": lambda kind: LabelPropagation(kind.make(6), LabelPropagationConfig()),
    "fine-tuning": lambda kind: FineTuning(kind.make(6), FineTuningConfig(num_rounds=1, steps_per_round=2)),
    "baseline": lambda kind: Baseline(
        kind.make(6), BaselineConfig(judge="probe"), num_features=6, generator=torch.Generator().manual_seed(0)
    ),
}


class _Once:
    """A batch of tasks that is always the same."""

    def __init__(self, episodes: Episodes) -> None:
        self._episodes = episodes

    def sample(self, num_tasks: int, rng: np.random.Generator) -> Episodes:
        return self._episodes.select(slice(num_tasks))


@pytest.fixture
def settled() -> Iterator[None]:
    """The same initial weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("name", MAKERS)
def test_every_learner_can_be_attacked_and_is_left_as_it_was(name: str) -> None:
    kind = KINDS["layer norm"]
    learner: Learner = MAKERS[name](kind)
    episodes = episodes_of(kind, name)
    before = {key: value.clone() for key, value in learner.network.module.state_dict().items()}  # type: ignore[attr-defined]
    predict = learner.adapt(episodes.support, learner.num_steps)[-1]
    plain = predict(episodes.query.inputs)
    assert not plain.requires_grad
    moved = episodes.query.inputs.clone().requires_grad_()
    assert torch.allclose(predict(moved), plain, atol=1e-5)
    rng = np.random.default_rng(0)
    attacks = {"none": Attack(0.0), "once": Attack(0.7), "often": Attack(0.7, num_steps=4)}
    sizes = {"num_tasks": 3, "num_steps": learner.num_steps}
    scores = attacked_scores(learner, _Once(episodes), rng, attacks=attacks, **sizes)
    _, clean = adaptation_scores(learner, _Once(episodes), rng, **sizes)
    assert scores["none"] == pytest.approx(clean[-1], abs=1e-6)
    worse = -1 if name == "kernel-regression" else 1
    for attack in ("once", "often"):
        assert worse * scores[attack].mean() < worse * scores["none"].mean()
    after = learner.network.module.state_dict()  # type: ignore[attr-defined]
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_squared_errors_rise_by_what_the_slope_says() -> None:
    """For y = 3 x an attack of size s moves an output by 3 s, away from its target."""
    module = nn.Linear(1, 1)
    with torch.no_grad():
        module.weight.fill_(3.0)
        module.bias.zero_()
    learner, source = Maml(module, MamlConfig()), Sinusoids(5, 6)
    _, query = source.sample(2, np.random.default_rng(0))
    expected = ((3 * query.inputs - query.targets).abs() + 0.3).square().mean((1, 2))
    rng, attacks = np.random.default_rng(0), {"it": Attack(0.1)}
    scores = attacked_scores(learner, source, rng, attacks=attacks, num_tasks=2, num_steps=0)
    assert scores["it"] == pytest.approx(expected.double().numpy(), rel=1e-4)


def test_tasks_of_unequal_sizes_and_batches_are_attacked_alike() -> None:
    data = ClassData.of(torch.rand(60, 1, generator=torch.Generator().manual_seed(0)), torch.arange(60) // 10)
    source = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=3)
    learner, attacks = _two_classes(), {"it": Attack(0.05, input_range=UNIT)}
    together, apart = (
        attacked_scores(
            learner,
            _Once(source.sample(4, np.random.default_rng(0))),
            np.random.default_rng(0),
            attacks=attacks,
            num_tasks=4,
            num_steps=0,
            tasks_at_once=size,
        )["it"]
        for size in (4, 10)
    )
    assert together.tolist() == apart.tolist()
    assert math.isfinite(together.mean())


def test_admls_attacks_stay_in_the_range() -> None:
    torch.manual_seed(0)
    learner = Adml(nn.Linear(4, 2), AdmlConfig(attack_size=0.3, input_range=UNIT))
    examples = Examples(torch.rand(2, 6, 4), torch.tensor([0, 1]).repeat(2, 3))
    free = Adml(learner.network.module, AdmlConfig(attack_size=0.3)).attacked(examples).inputs
    assert free.min() < 0
    assert free.max() > 1
    assert torch.equal(learner.attacked(examples).inputs, free.clamp(0, 1))


def test_what_cannot_be_attacked_is_refused() -> None:
    with pytest.raises(ValueError, match="got integers"):
        Attack(0.1)(torch.zeros(1, 1, dtype=torch.int64), _sum)
    with pytest.raises(
        ValueError, match=r"must lie in \[0.0, 1.0\], where attacks stay, got values in \[-1.0, 2.0\]"
    ):
        Attack(0.1, input_range=UNIT)(torch.tensor([[[-1.0, 2.0]]]), _sum)
    for wrong in ((1.0, 0.0), (0.0, math.inf), (0.5,)):
        with pytest.raises(ValueError, match="a least and a larger value"):
            Attack(0.1, input_range=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="a least and a larger value"):
            AdmlConfig(input_range=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size"):
        Attack(-0.1)
