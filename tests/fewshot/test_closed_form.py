"""Closed-form heads against plain loops and SciPy in float64, and their gradients against finite differences."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from metarl.experiments.cli import main
from metarl.fewshot import learn_task
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learners.label_propagation import LabelPropagation, LabelPropagationConfig, neighbour_graph
from metarl.fewshot.learners.logistic import Logistic, LogisticConfig, logistic_duals
from metarl.fewshot.learners.mahalanobis import Mahalanobis, MahalanobisConfig
from metarl.fewshot.learners.optimal_transport import OptimalTransport, OptimalTransportConfig, sinkhorn
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig, ridge_weights
from metarl.fewshot.learners.support_vectors import SupportVector, SupportVectorConfig, svm_duals
from metarl.fewshot.metric import MetricLearner, is_transductive, one_hot
from metarl.fewshot.objectives import task_losses

TARGETS = torch.tensor([[0, 0, 1, 1, 2, 2], [2, 0, 1, 1, 0, 2]])


class _Same(nn.Module):
    """Features are the inputs themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def _features(seed: int, rows: int, size: int = 4) -> Tensor:
    return torch.randn(2, rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


HEADS: dict[str, MetricLearner] = {
    "ridge": Ridge(_Same(), RidgeConfig()),
    "logistic": Logistic(_Same(), LogisticConfig()),
    "svm": SupportVector(_Same(), SupportVectorConfig(margin_weight=0.3)),
    "mahalanobis": Mahalanobis(_Same(), MahalanobisConfig()),
    "lda": Mahalanobis(_Same(), MahalanobisConfig(covariance="shared")),
    "label-propagation": LabelPropagation(_Same(), LabelPropagationConfig(num_neighbours=6, length=1.0)),
    "optimal-transport": OptimalTransport(_Same(), OptimalTransportConfig(2, sinkhorn_iters=5)),
}


def _positive(name: str, features: Tensor) -> Tensor:
    return features.abs() if name == "optimal-transport" else features


@pytest.mark.thorough
@pytest.mark.parametrize("name", HEADS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    head = HEADS[name].head.double()
    params = list(head.parameters())
    for param in params:
        param.grad = None
    support, query = (_positive(name, _features(seed, rows)).requires_grad_() for seed, rows in ((0, 6), (1, 6)))
    answers = torch.tensor([[0, 1, 2, 0, 1, 2]] * 2)

    def loss(support: Tensor, query: Tensor, *_: Tensor) -> Tensor:
        return task_losses(HEADS[name].outputs(support, TARGETS, query), answers).sum()

    assert torch.autograd.gradcheck(loss, (support, query, *params), eps=1e-6, atol=2e-5, rtol=1e-4)
    loss(support, query).backward()  # type: ignore[no-untyped-call]
    assert all(x.grad is not None and float(x.grad.abs().max()) > 1e-6 for x in (support, query))


@pytest.mark.parametrize("name", HEADS)
def test_each_task_is_solved_by_itself_and_the_order_of_examples_is_nothing(name: str) -> None:
    support, query = (_positive(name, _features(seed, rows)) for seed, rows in ((0, 6), (1, 3)))
    both = HEADS[name].outputs(support, TARGETS, query)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    for task in range(2):
        alone = HEADS[name].outputs(
            support[task : task + 1, order], TARGETS[task : task + 1, order], query[task : task + 1]
        )
        assert torch.allclose(both[task], alone[0], atol=1e-7)


def test_ridge_is_the_solution_of_the_normal_equations_on_either_side() -> None:
    for rows, size in ((6, 9), (9, 6)):  # fewer and more examples than features
        features, values = _features(0, rows, size), _features(1, rows, 2)
        weights = ridge_weights(features, values, torch.tensor(0.3, dtype=torch.float64))
        for task in range(2):
            x, y = features[task].numpy(), values[task].numpy()
            # least squares of the rows and of sqrt(lambda) I, which NumPy solves by a decomposition of its own
            tall = np.concatenate([x, math.sqrt(0.3) * np.eye(size)])
            expected = np.linalg.lstsq(tall, np.concatenate([y, np.zeros((size, 2))]), rcond=None)[0]
            assert np.allclose(weights[task].numpy(), expected, atol=1e-10)


def test_ridge_scales_and_shifts_classes_and_leaves_numbers() -> None:
    support, query = _features(0, 6), _features(1, 5)
    learner = Ridge(_Same(), RidgeConfig(regularisation=0.5, scale=3.0))
    nn.init.constant_(learner.head.shift, 0.7)
    x = torch.nn.functional.pad(support, (0, 1), value=1.0)
    w = ridge_weights(x, one_hot(TARGETS, x), torch.tensor(0.5, dtype=torch.float64))
    plain = torch.nn.functional.pad(query, (0, 1), value=1.0) @ w
    assert torch.allclose(learner.outputs(support, TARGETS, query), 3 * plain + 0.7, atol=1e-5)
    assert torch.allclose(learner.outputs(support, one_hot(TARGETS, x), query), plain, atol=1e-6)


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_newton_finds_the_optimum_of_each_class(size: float) -> None:
    features = size * _features(0, 6)
    members = one_hot(TARGETS, features)
    duals = logistic_duals(features @ features.transpose(1, 2), members, torch.tensor(0.4).double(), 25)
    weights = features.transpose(1, 2) @ duals
    for task in range(2):
        for way in range(3):
            x, signs = features[task].numpy(), 2 * members[task, :, way].numpy() - 1

            def objective(w: np.ndarray, x: np.ndarray = x, signs: np.ndarray = signs) -> float:
                return float(np.logaddexp(0, -signs * (x @ w)).sum() + 0.2 * w @ w)

            best = minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
            assert objective(weights[task, :, way].numpy()) <= best.fun + 1e-9
            assert np.allclose(weights[task, :, way].numpy(), best.x, atol=1e-4)


@pytest.mark.parametrize("regularisation", [1.0, 4e-4])
def test_newton_steps_reach_the_optimum_of_scattered_examples_too(regularisation: float) -> None:
    rng = torch.Generator().manual_seed(0)
    features = 30 * torch.randn(20, 30, 11, generator=rng, dtype=torch.float64)
    features[:, 0] *= 5  # far out, where whole steps go to and fro
    members = one_hot((torch.arange(30) % 5).expand(20, -1), features)
    gram, ridge = features @ features.mT, torch.tensor(regularisation, dtype=torch.float64)
    weights = features.mT @ logistic_duals(gram, members, ridge, 20)
    slope = features.mT @ ((features @ weights).sigmoid() - members) + regularisation * weights
    assert float(slope.abs().max()) < 1e-6 * float((features.mT @ (0.5 - members)).abs().max())


@pytest.mark.parametrize("margin_weight", [0.05, 10.0])
def test_the_machine_is_the_optimum_that_scipy_finds(margin_weight: float) -> None:
    features = _features(0, 6)
    members = one_hot(TARGETS, features)
    duals = svm_duals(features @ features.transpose(1, 2), members, margin_weight)
    assert float(duals.sum(2).abs().max()) < 1e-10
    assert float((duals - margin_weight * members).max()) < 1e-9
    at_bound = (duals - margin_weight * members).abs() < 1e-7
    assert at_bound.any()
    assert not at_bound.all()
    for task in range(2):
        x, y = features[task].numpy(), members[task].numpy()

        def objective(a: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> float:
            w = x.T @ a.reshape(y.shape)
            return float(0.5 * (w**2).sum() - (a.reshape(y.shape) * y).sum())

        best = minimize(
            objective,
            np.zeros(y.size),
            method="SLSQP",
            bounds=[(None, margin_weight * v) for v in y.ravel()],
            constraints={"type": "eq", "fun": lambda a, y=y: a.reshape(y.shape).sum(1)},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert best.success
        assert objective(duals[task].numpy().ravel()) == pytest.approx(best.fun, abs=1e-6)
        assert np.allclose(x.T @ duals[task].numpy(), x.T @ best.x.reshape(y.shape), atol=2e-3)


def _overlapping(size: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4, 25, 6, generator=generator).double() + 0.3 * torch.arange(5).repeat(5).unsqueeze(1)
    return size * features.relu(), one_hot(torch.arange(5).repeat(4, 5), features)


@pytest.mark.parametrize("size", [1e-6, 1.0, 100.0])
def test_a_machine_reaches_the_bound_of_its_dual_at_any_scale(size: float) -> None:
    # By weak duality no weights are better than the dual's value: where both agree, they are optimal.
    features, members = _overlapping(size)
    duals = svm_duals(features @ features.transpose(1, 2), members, 0.1)
    weights = features.transpose(1, 2) @ duals
    outputs = features @ weights
    violations = (outputs + 1 - members).amax(2) - (outputs * members).sum(2)
    assert (violations > 0.1).any()  # the classes overlap
    squares = weights.square().sum((1, 2)) / 2
    dual = (duals * members).sum((1, 2)) - squares
    assert torch.allclose(squares + 0.1 * violations.sum(1), dual, rtol=2e-5, atol=0)


def test_a_machine_of_large_features_is_that_of_small_ones_with_as_hard_a_margin() -> None:
    features, members = _overlapping(1.0)
    duals = svm_duals(features @ features.transpose(1, 2), members, 1e5)
    expected = features @ (features.transpose(1, 2) @ duals)
    for size in (1e3, 3e3, 1e4, 1e8):  # at 3000 all was NaN
        large = (size * features).requires_grad_()
        hard = svm_duals(large @ large.transpose(1, 2), members, 0.1 if size == 1e3 else 1e6)
        outputs = large @ (large.transpose(1, 2) @ hard)
        (gradient,) = torch.autograd.grad(outputs.square().sum(), large)
        assert bool(gradient.isfinite().all())
        assert float(gradient.abs().max()) > 0
        if size == 1e3:
            assert torch.allclose(outputs, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1.0, 300.0])
def test_gradients_through_a_machine_are_right_at_any_scale(size: float) -> None:
    members = one_hot(TARGETS, torch.empty(0).double())

    def outputs(features: Tensor) -> Tensor:
        large = size * features
        return large @ (large.transpose(1, 2) @ svm_duals(large @ large.transpose(1, 2), members, 0.1))

    assert torch.autograd.gradcheck(outputs, _features(0, 6, 2).requires_grad_(), eps=1e-4, atol=5e-3)


def test_a_machine_separates_with_the_widest_margin() -> None:
    # Two classes on a line at -1 and 3: w_1 - w_0 is the shortest with (w_1 - w_0)(3 - (-1)) >= 2 without a bias,
    # each example by itself: (w_0 - w_1) x >= 1 at -1, (w_1 - w_0) x >= 1 at 3. The first binds: w_1 - w_0 = 1.
    x = torch.tensor([[[-1.0], [3.0]]], dtype=torch.float64)
    duals = svm_duals(x @ x.transpose(1, 2), one_hot(torch.tensor([[0, 1]]), x), 10.0)
    w = (x.transpose(1, 2) @ duals)[0, 0]
    assert float(w[1] - w[0]) == pytest.approx(1, abs=1e-6)


def test_repeated_examples_leave_a_machine_finite() -> None:
    x = _features(0, 6).clone()
    x[:, 1] = x[:, 0]  # of one class in the first task, of two in the second
    x.requires_grad_()
    logits = x @ (x.transpose(1, 2) @ svm_duals(x @ x.transpose(1, 2), one_hot(TARGETS, x), 0.1))
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("covariance", ["class", "shared"])
def test_mahalanobis_distances_by_a_loop(covariance: str) -> None:
    support, query = _features(0, 6), _features(1, 5)
    targets = torch.tensor([[0, 0, 0, 1, 1, 2]] * 2)  # three, two and one example
    config = MahalanobisConfig(covariance=covariance, regularisation=0.5)  # type: ignore[arg-type]
    logits = Mahalanobis(_Same(), config).outputs(support, targets, query)
    for task in range(2):
        x = support[task].numpy()
        of_task = np.cov(x.T, bias=True)
        groups = [x[targets[task].numpy() == c] for c in range(3)]
        covariances = [np.cov(g.T, bias=True) for g in groups]
        within = sum(len(g) * c for g, c in zip(groups, covariances, strict=True)) / 6
        for c, group in enumerate(groups):
            n = len(group) if covariance == "class" else 6 - 3
            own = covariances[c] if covariance == "class" else within
            q = n / (n + 1) * own + 1 / (n + 1) * of_task + 0.5 * np.eye(4)
            apart = query[task].numpy() - group.mean(0)
            expected = -0.5 * np.einsum("rf,fg,rg->r", apart, np.linalg.inv(q), apart)
            assert np.allclose(logits[task, :, c].detach().numpy(), expected, rtol=1e-5)


def test_label_propagation_by_a_loop() -> None:
    support, query = _features(0, 6), _features(1, 5)
    learner = LabelPropagation(_Same(), LabelPropagationConfig(num_neighbours=3, spread=0.8, length=0.6))
    outputs = learner.outputs(support, TARGETS, query)
    for task in range(2):
        z = torch.cat([support[task], query[task]]).numpy()
        n = len(z)
        apart = np.array([[((a - b) ** 2).sum() for b in z] for a in z])
        size = apart.sum() / (n * (n - 1))
        near = np.exp(-apart / (2 * 0.36 * size))
        linked = np.zeros((n, n))
        for i in range(n):
            for j in sorted((j for j in range(n) if j != i), key=lambda j, i=i: -near[i, j])[:3]:
                linked[i, j] = linked[j, i] = near[i, j]
        assert (linked == 0).sum() > n  # some pairs are no neighbours
        s = linked / np.sqrt(np.outer(linked.sum(1), linked.sum(1)))
        labels = np.concatenate([np.eye(3)[TARGETS[task].numpy()], np.zeros((5, 3))])
        spread = labels.copy()
        for _ in range(200):  # what the closed form is the limit of
            spread = 0.8 * s @ spread + labels
        expected = spread[6:] / spread[6:].sum(1, keepdims=True)
        assert np.allclose(outputs[task].exp().detach().numpy(), expected, atol=1e-5)
    assert float(neighbour_graph(torch.rand(1, 4, 4), 20).diagonal(dim1=1, dim2=2).abs().max()) == 0


def test_a_plan_is_balanced_and_scales_rows_and_columns_alone() -> None:
    logits = 3 * _features(0, 9, 3)
    plan = sinkhorn(logits, 200).exp()
    assert torch.allclose(plan.sum(2), torch.ones(2, 9).double())
    assert torch.allclose(plan.sum(1), torch.full((2, 3), 3.0).double(), atol=1e-9)
    ratios = plan.log() - logits  # a row's term and a column's term
    crossed = ratios - ratios[:, :1] - ratios[:, :, :1] + ratios[:, :1, :1]
    assert float(crossed.abs().max()) < 1e-9


def test_prototypes_move_by_a_loop() -> None:
    support, query = _features(0, 6).abs(), _features(1, 6).abs()
    config = OptimalTransportConfig(transport_steps=2, rate=0.3, sinkhorn_iters=40, scale=4.0)
    outputs = OptimalTransport(_Same(), config).outputs(support, TARGETS, query)
    for task in range(2):
        z = np.sqrt(torch.cat([support[task], query[task]]).numpy() + 1e-6)
        z /= np.linalg.norm(z, axis=1, keepdims=True)
        z -= z.mean(0)
        known, new, labels = z[:6], z[6:], TARGETS[task].numpy()
        p = np.stack([known[labels == c].mean(0) for c in range(3)])

        def plan(p: np.ndarray, new: np.ndarray = new) -> np.ndarray:
            scaled = np.exp(-4 * ((new[:, None] - p[None]) ** 2).sum(2))
            for _ in range(40):
                scaled = scaled / scaled.sum(0) * 2
                scaled = scaled / scaled.sum(1, keepdims=True)
            return scaled

        for _ in range(2):
            w = plan(p)
            for c, mean in enumerate(
                [(known[labels == c].sum(0) + w[:, c] @ new) / (2 + w[:, c].sum()) for c in range(3)]
            ):
                p[c] += 0.3 * (mean - p[c])
        assert np.allclose(outputs[task].exp().detach().numpy(), plan(p), atol=1e-5)


def test_negative_features_are_refused_by_optimal_transport() -> None:
    with pytest.raises(ValueError, match="needs features that are not negative; end the network with a ReLU"):
        HEADS["optimal-transport"].outputs(_features(0, 6), TARGETS, _features(1, 3))


def test_only_transductive_heads_look_at_the_other_queries() -> None:
    support, query = _features(0, 6).abs(), _features(1, 6).abs()
    for name, learner in HEADS.items():
        alone = learner.outputs(support, TARGETS, query[:, :1])
        same = torch.allclose(alone, learner.outputs(support, TARGETS, query)[:, :1], atol=1e-6)
        assert same != (name in {"label-propagation", "optimal-transport"})
        assert is_transductive(learner) != same


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU())


LEARNERS = {
    "ridge": lambda: Ridge(_network(), RidgeConfig()),
    "logistic": lambda: Logistic(_network(), LogisticConfig()),
    "svm": lambda: SupportVector(_network(), SupportVectorConfig()),
    "mahalanobis": lambda: Mahalanobis(_network(), MahalanobisConfig()),
    "label-propagation": lambda: LabelPropagation(_network(), LabelPropagationConfig()),
    "optimal-transport": lambda: OptimalTransport(
        _network(), OptimalTransportConfig(transport_steps=3, sinkhorn_iters=8)
    ),
    "prototypical": lambda: Prototypical(_network(), PrototypicalConfig()),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", LEARNERS)
def test_training_through_the_solution_makes_new_classes_clearer(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    # Two numbers tell classes apart, four are noise that is three times as large.
    centres = torch.cat([2 * torch.randn(24, 1, 2, generator=generator), torch.zeros(24, 1, 4)], 2)
    noise = torch.randn(24, 12, 6, generator=generator) * torch.tensor([0.3, 0.3, 3, 3, 3, 3])
    examples = (centres + noise).flatten(0, 1)
    data = ClassData.of(examples, torch.arange(24).repeat_interleave(12))
    train, test = (
        ClassEpisodes(data.select(data.names[part]), num_ways=4, num_shots=2, num_queries=4)
        for part in (slice(0, 16), slice(16, 24))
    )
    learner, rng = LEARNERS[name](), np.random.default_rng(0)

    def accuracy() -> float:
        scores = adaptation_scores(learner, test, np.random.default_rng(1), num_tasks=40, num_steps=0)[1]
        return float(scores.mean())

    before = accuracy()
    for _ in range(80):
        metrics = learner.update(train.sample(8, rng), rng)
    assert math.isfinite(metrics["loss/outer"])
    assert accuracy() > before + 0.1


def test_a_saved_head_is_loaded_to_the_bit() -> None:
    first, second = LEARNERS["ridge"](), LEARNERS["ridge"]()
    episodes = Episodes(*(Examples(torch.rand(2, 6, 6), TARGETS) for _ in range(2)))
    for _ in range(3):
        first.update(episodes, np.random.default_rng(0))
    shift = first.head.shift.detach().clone()
    assert float(shift) != 0
    second.load_state_dict(first.state_dict())
    outputs = [x.adapt(episodes.support, 0)[0](episodes.query.inputs) for x in (first, second)]
    assert torch.equal(*outputs)


def test_ridge_learns_numbers() -> None:
    learner = Ridge(nn.Sequential(nn.Linear(1, 5)), RidgeConfig(regularisation=1e-3))
    x = torch.linspace(-1, 1, 8).unsqueeze(1)
    predict = learn_task(learner, x, 3 * x + 1)
    assert torch.allclose(predict(torch.tensor([[0.3], [2.0]])), torch.tensor([[1.9], [7.0]]), atol=0.02)
    with pytest.raises(ValueError, match="targets must be classes 0 to N - 1"):
        learn_task(learner, x, torch.tensor([0, 2] * 4))


@pytest.mark.parametrize("words", ["omniglot-svm", "omniglot-label-propagation", "sinusoid-ridge"])
def test_heads_train_from_the_command_line(
    words: str, omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
        *("--training.meta-batch-size", "1", "--evaluation.num-tasks", "2"),
    ]
    if words.startswith("omniglot"):
        small += ["--data.folder", str(omniglot_archive), "--backbone.num-filters", "4"]
        small += ["--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2"]
        small += ["--data.episodes.train-ways", "3", "--data.episodes.train-queries", "2"]
    assert main(["train", words, *small, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    assert ("transductive" in shown) == (words == "omniglot-label-propagation")


def test_bad_hyperparameters_are_refused() -> None:
    for config, field, value in (
        (RidgeConfig, "regularisation", 0.0),
        (LogisticConfig, "newton_steps", 0),
        (SupportVectorConfig, "margin_weight", -1.0),
        (LabelPropagationConfig, "spread", 1.0),
        (OptimalTransportConfig, "rate", 1.5),
    ):
        with pytest.raises(ValueError, match=field):
            dataclasses.replace(config(), **{field: value})
