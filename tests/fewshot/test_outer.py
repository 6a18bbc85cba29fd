"""The outer optimiser by name or one's own, clipping, schedules, rates of parts, and what `learn_task` takes."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from metarl.fewshot import learn_task
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.outer import OuterConfig, OuterOptimizer, OwnOuter


def _stepped(config: OuterConfig, *, steps: int = 2) -> tuple[torch.Tensor, dict[str, float]]:
    weights = torch.tensor([1.0, -2.0], requires_grad=True)
    outer, metrics = OuterOptimizer([weights], config), {}
    for _ in range(steps):
        weights.grad = torch.tensor([3.0, 4.0])
        metrics = outer.step()
    return weights.detach(), metrics


def test_each_optimiser_takes_its_steps_by_hand() -> None:
    start, grad = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 4.0])
    plain, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="sgd"))
    assert torch.allclose(plain, start - 2 * 0.1 * grad)
    fast, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="sgd", momentum=0.5))
    assert torch.allclose(fast, start - 0.1 * grad - 0.1 * 1.5 * grad)
    decayed, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="sgd", weight_decay=0.2), steps=1)
    assert torch.allclose(decayed, start - 0.1 * (grad + 0.2 * start))
    # Adam's first step is of its step size, whatever the gradient's size; adamw shrinks the weights before it.
    adam, _ = _stepped(OuterConfig(outer_lr=0.1), steps=1)
    adamw, _ = _stepped(OuterConfig(outer_lr=0.1, optimizer="adamw", weight_decay=0.2), steps=1)
    assert torch.allclose(adam, start - 0.1, atol=1e-6)
    assert torch.allclose(adamw, start * (1 - 0.1 * 0.2) - 0.1, atol=1e-6)


def test_a_norm_is_scaled_down_and_the_one_before_is_reported() -> None:
    weights, metrics = _stepped(OuterConfig(outer_lr=1.0, optimizer="sgd", max_grad_norm=1.0), steps=1)
    assert metrics["loss/grad_norm"] == pytest.approx(5.0)
    assert torch.allclose(weights, torch.tensor([1 - 0.6, -2 - 0.8]), atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_what_is_beside_the_network_has_a_step_size_of_its_own(factor: float) -> None:
    torch.manual_seed(0)
    outer = OuterConfig(outer_lr=1e-3, head_lr_factor=factor)
    learner = Ridge(nn.Linear(4, 3), RidgeConfig(outer=outer))
    params = dict((*learner.network.weights.items(), *learner.head.named_parameters()))
    before = {name: p.detach().clone() for name, p in params.items()}
    targets = torch.tensor([[0, 1, 2, 0, 1, 2]])
    episodes = Episodes(*(Examples(torch.randn(1, 6, 4), targets) for _ in range(2)))
    learner.update(episodes, np.random.default_rng(0))
    moved = {name: float((p.detach() - before[name]).abs().max()) for name, p in params.items()}
    assert moved["weight"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["scale.log"] == pytest.approx(factor * 1e-3, rel=1e-2)
    again = Ridge(nn.Linear(4, 3), RidgeConfig(outer=outer))
    again.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(again.head.parameters(), learner.head.parameters(), strict=True))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"momentum": 0.9}, "momentum is of sgd, got 0.9 for adam"),
        ({"momentum": 1.5, "optimizer": "sgd"}, r"momentum must be in \[0, 1\]"),
        ({"weight_decay": -1.0}, "weight_decay must be zero or more"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be positive"),
        ({"head_lr_factor": 0.0}, "head_lr_factor must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        OuterConfig(**fields)


KINDS = {
    "int32": lambda x: x.astype(np.int32),
    "uint8": lambda x: x.astype(np.uint8),
    "bool": lambda x: x.astype(bool),
    "tensor of int16": lambda x: torch.from_numpy(x).to(torch.int16),
}


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_kind_and_arrays_are_learned_from(kind: str) -> None:
    torch.manual_seed(0)
    learner = Prototypical(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), PrototypicalConfig())
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 4, 4), dtype=np.uint8)
    labels, new = np.array([0, 0, 0, 1, 1, 1]), images[::-1]
    expected = learn_task(learner, torch.from_numpy(images) / 255, torch.from_numpy(labels))(
        torch.from_numpy(new.copy()) / 255
    )
    assert torch.allclose(learn_task(learner, images, KINDS[kind](labels))(new), expected, atol=1e-6)
    assert torch.allclose(learn_task(learner, images / 255, KINDS[kind](labels))(new / 255), expected, atol=1e-5)


EPISODES = Episodes(
    *(
        Examples(
            torch.from_numpy(np.random.default_rng(i).random((2, 6, 4), np.float32)),
            torch.arange(6).repeat(2, 1) % 3,
        )
        for i in range(2)
    )
)


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))


def _rates(config: OuterConfig, updates: int) -> list[float]:
    return [round(config.outer_lr_after(place), 6) for place in range(updates)]


def test_schedules_and_warm_up_by_hand() -> None:
    line = {"outer_lr": 1.0, "final_outer_lr": 0.0, "annealing_updates": 4}
    assert _rates(OuterConfig(**line, schedule="linear"), 6) == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert _rates(OuterConfig(**line), 5) == [1.0, 0.853553, 0.5, 0.146447, 0.0]
    warm = OuterConfig(outer_lr=1.0, final_outer_lr=0.0, annealing_updates=6, schedule="linear", warmup_updates=2)
    assert _rates(warm, 8) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    steps = OuterConfig(outer_lr=1.0, schedule="step", step_updates=2, step_factor=0.5, final_outer_lr=0.25)
    assert _rates(steps, 8) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def _moved(learner: Maml | Ridge, params: dict[str, torch.Tensor]) -> dict[str, float]:
    before = {name: p.detach().clone() for name, p in params.items()}
    learner.update(EPISODES, np.random.default_rng(0))
    return {name: float((p.detach() - before[name]).abs().max()) for name, p in params.items()}


@pytest.mark.parametrize("head", [None, "0"])
def test_the_backbone_has_a_step_size_of_its_own(head: str | None) -> None:
    module = _network()
    outer = OuterConfig(outer_lr=1e-3, backbone_lr_factor=0.1)
    moved = _moved(Maml(module, MamlConfig(outer=outer, head=head)), dict(module.named_parameters()))
    fast, slow = ("2.weight", "0.weight") if head is None else ("0.weight", "2.weight")
    assert moved[fast] == pytest.approx(1e-3, rel=1e-2)
    assert moved[slow] == pytest.approx(1e-4, rel=1e-2)
    ridge = Ridge(_network(), RidgeConfig(outer=outer))
    moved = _moved(ridge, dict((*ridge.network.weights.items(), *ridge.head.named_parameters())))
    assert moved["2.weight"] == pytest.approx(1e-4, rel=1e-2)
    assert moved["scale.log"] == pytest.approx(1e-3, rel=1e-2)


def _own(**changes: Any) -> OwnOuter:
    def make(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        assert [group["name"] for group in groups] == ["backbone", "head"]
        return torch.optim.SGD(groups, momentum=0.9)

    def schedule(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)

    own: dict[str, Any] = {"outer_lr": 0.1, "backbone_lr_factor": 0.5, "make_optimizer": make}
    return OwnOuter(**own | {"make_schedule": schedule} | changes)


def test_an_optimiser_and_a_schedule_of_ones_own_take_the_steps() -> None:
    mine, theirs = _network(), _network()
    learner = Maml(mine, MamlConfig(outer=_own()))
    by_hand = Maml(theirs, MamlConfig())
    groups = [{"params": list(theirs[0].parameters()), "lr": 0.05}, {"params": list(theirs[2].parameters())}]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
    for _ in range(5):
        learner.update(EPISODES, np.random.default_rng(0))
        optimizer.zero_grad()
        by_hand.outer_losses(EPISODES).losses.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
    assert all(
        torch.allclose(a, b, atol=1e-6) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True)
    )
    again = Maml(_network(), MamlConfig(outer=_own()))
    again.load_state_dict(copy.deepcopy(learner.state_dict()))
    copied = copy.deepcopy(learner)
    for each in (learner, again, copied):
        each.update(EPISODES, np.random.default_rng(0))
    for each in (again, copied):
        for (name, mine_now), other in zip(mine.named_parameters(), each.network.weights.values(), strict=True):
            assert torch.equal(mine_now, other), name


def test_without_a_schedule_of_ones_own_that_of_the_configuration_multiplies() -> None:
    config = _own(make_schedule=None, final_outer_lr=0.0, annealing_updates=2, schedule="linear")
    learner = Maml(_network(), MamlConfig(outer=config))
    rates = []
    for _ in range(3):
        learner.update(EPISODES, np.random.default_rng(0))
        rates.append([group["lr"] for group in learner.outer._optimizer.param_groups])
    assert rates == [pytest.approx([0.05, 0.1]), pytest.approx([0.025, 0.05]), [0.0, 0.0]]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: OuterConfig(schedule="step"), "step_updates is of the step schedule, which needs it"),
        (lambda: OuterConfig(step_updates=3), "step_updates is of the step schedule"),
        (lambda: OuterConfig(schedule="linear"), "the linear schedule needs final_outer_lr"),
        (
            lambda: OuterConfig(final_outer_lr=0.0, annealing_updates=2, warmup_updates=2),
            "warmup_updates must be below",
        ),
        (lambda: _own(weight_decay=0.1), "weight_decay is not for optimisers or schedules of one's own"),
        (lambda: _own(warmup_updates=3), "warmup_updates is not for"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(make: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        make()


def test_a_function_that_makes_no_optimiser_is_refused() -> None:
    with pytest.raises(TypeError, match="make_optimizer must return PyTorch's Optimizer, got NoneType"):
        Maml(_network(), MamlConfig(outer=_own(make_optimizer=lambda groups: None)))
    with pytest.raises(TypeError, match="make_schedule must return PyTorch's LRScheduler, got NoneType"):
        Maml(_network(), MamlConfig(outer=_own(make_schedule=lambda optimizer: None)))


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_moments_are_converted_with_the_weights_and_go_on(optimizer: Any) -> None:
    weights = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        weights.weight.zero_()
    momentum = 0.5 if optimizer == "sgd" else 0.0
    outer = OuterOptimizer(
        list(weights.parameters()), OuterConfig(outer_lr=0.1, optimizer=optimizer, momentum=momentum)
    )
    for dtype in (torch.float32, torch.float64):
        weights.to(dtype)
        weights.weight.grad = torch.tensor([[3.0, 4.0]], dtype=dtype)
        outer.step()
    # Adam's second step under the same gradient is of its step size again; momentum adds half of the first step's.
    steps = torch.tensor([[2.0, 2.0]]) if optimizer == "adam" else 2.5 * torch.tensor([[3.0, 4.0]])
    assert torch.allclose(weights.weight, -0.1 * steps.double(), atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda module: Prototypical(module, PrototypicalConfig()),
        lambda module: Reptile(module, ReptileConfig(inner_steps=1)),
    ],
    ids=["prototypical", "reptile"],
)
def test_a_network_that_is_frozen_later_is_refused_by_updates(make: Callable[[nn.Module], Learner]) -> None:
    module, targets = nn.Linear(4, 3), torch.tensor([[0, 1, 2, 0, 1, 2]])
    learner, rng = make(module), np.random.default_rng(0)
    episodes = Episodes(*(Examples(torch.randn(1, 6, 4), targets) for _ in range(2)))
    learner.update(episodes, rng)
    module.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train: the network has no trainable parameters; unfreeze"):
        learner.update(episodes, rng)
    module.requires_grad_(True)
    learner.update(episodes, rng)
