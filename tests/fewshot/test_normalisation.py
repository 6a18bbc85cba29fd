"""Batch norm in episodes: what is refused, what stays as its owner left it, and PyTorch's own running averages."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.outer import OuterConfig
from tests.fewshot.kinds import KINDS, NormAndActivation, episodes_of


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))


def _episodes() -> Episodes:
    return episodes_of(KINDS["batch norm"], "maml")


def _update(learner: Any) -> None:
    learner.update(_episodes(), np.random.default_rng(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda network: Maml(network, MamlConfig(normalisation="running")),
        lambda network: Reptile(network, ReptileConfig(normalisation="running")),
        lambda network: ImplicitMaml(network, ImplicitMamlConfig(normalisation="running")),
        lambda network: ProtoMaml(network, ProtoMamlConfig(normalisation="running")),
    ],
)
def test_running_averages_are_refused_where_the_weights_before_them_adapt(make: Any) -> None:
    with pytest.raises(ValueError, match=r"must not be running .* 0\.weight does, and the averages of layer '1'"):
        make(_network())
    make(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))  # nothing is normalised


def test_running_averages_serve_a_head_that_adapts_alone() -> None:
    learner = Maml(_network(), MamlConfig(normalisation="running", adapted="head"))
    _update(learner)
    predict = learner.adapt(_episodes().support, 1)[-1]
    queries = _episodes().query.inputs
    assert torch.allclose(predict(queries[:, :1]), predict(queries)[:, :1], atol=1e-6)


class _Backwards(nn.Module):
    """Registers its layers in the order opposite to that of their calls."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.norm, self.first = nn.Linear(6, 3), nn.BatchNorm1d(6), nn.Linear(4, 6)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.norm(self.first(inputs)).tanh())
        return outputs


@pytest.mark.parametrize(
    "make",
    [
        lambda network: Maml(network, MamlConfig(normalisation="running"), adapted=["first.weight"]),
        lambda network: Reptile(network, ReptileConfig(normalisation="running")),
        lambda network: ImplicitMaml(network, ImplicitMamlConfig(normalisation="running")),
    ],
)
def test_a_first_batch_shows_what_lies_before_a_norm_whatever_is_registered_first(make: Any) -> None:
    for call in (_update, lambda learner: learner.adapt(_episodes().support, 1)):
        averages = _Backwards()
        with pytest.raises(
            ValueError, match=r"first\.\w+ does, and the averages of layer 'norm' are those of no task"
        ):
            call(make(averages))
        assert not averages.norm.running_mean.any()
    head = Maml(_Backwards(), MamlConfig(normalisation="running", adapted="head", head="head"))
    _update(head)
    assert head.network.module.get_buffer("norm.running_mean").any()


@pytest.mark.parametrize(
    "make", [lambda n: Maml(n, MamlConfig()), lambda n: Prototypical(n, PrototypicalConfig())]
)
def test_what_its_owner_put_in_evaluation_stays_so(make: Any) -> None:
    network = _network()
    network[1].running_mean.fill_(0.3)
    network[1].eval()
    network[3].eval()
    before = [buffer.clone() for buffer in network.buffers()]
    learner = make(network)
    for _ in range(2):
        _update(learner)
        learner.adapt(_episodes().support, 1)[-1](_episodes().query.inputs)
    assert all(torch.equal(*pair) for pair in zip(before, network.buffers(), strict=True))
    assert not learner.network.module[1].training
    assert not learner.network.module[3].training
    assert learner.network.module[4].training
    features = learner.network(learner.network.params, _episodes().query.inputs)
    alone = learner.network(learner.network.params, _episodes().query.inputs[:, :1])
    assert torch.allclose(alone, features[:, :1], atol=1e-6)  # by its averages, and without dropping units


def test_frozen_keeps_the_averages_and_trains_gain_and_shift() -> None:
    network = _network()
    averages, gain = network[1].running_mean.clone(), network[1].weight.clone()
    _update(Maml(network, MamlConfig(normalisation="frozen")))
    assert torch.equal(network[1].running_mean, averages)
    assert not torch.equal(network[1].weight, gain)
    without = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=r"the layer '1' \(BatchNorm1d\) has no running averages"):
        Maml(without, MamlConfig(normalisation="frozen"))


def test_a_subclass_keeps_its_own_forward_and_is_normalised_by_the_batch() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), NormAndActivation(6)).double()
    lifted = TaskModule(network)
    inputs = torch.randn(2, 5, 4, dtype=torch.float64)
    with lifted.evaluating():
        outputs = lifted(lifted.params, inputs)
    hidden = network[0](inputs)
    normed = (hidden - hidden.mean(1, keepdim=True)) / (hidden.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    assert torch.allclose(outputs, normed.tanh(), atol=1e-9)
    with pytest.raises(ValueError, match=r"the layer '1' \(NormAndActivation\) is a batch norm of one's own"):
        TaskModule(network, normalisation="support")


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_running_averages_are_pytorchs_of_one_batch_per_task(momentum: float | None) -> None:
    torch.manual_seed(0)
    episodes = _episodes()
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=momentum), nn.Tanh())
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, momentum=momentum), nn.Tanh())
    _update(Prototypical(network, PrototypicalConfig()))
    for rows in torch.cat([episodes.support.inputs, episodes.query.inputs], 1):
        plain(rows)
    assert torch.allclose(network[1].running_mean, plain[1].running_mean, atol=1e-6)
    assert torch.allclose(network[1].running_var, plain[1].running_var, atol=1e-6)


def test_a_heads_running_variance_is_the_unbiased_one() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 3))
    learner = Maml(network, MamlConfig(normalisation="running", adapted="head"))
    for _ in range(2):
        _update(learner)
    support = _episodes().support.inputs
    assert torch.allclose(network[0].running_var, support.var(1).mean(0), atol=1e-6)
    assert torch.allclose(network[0].running_mean, support.mean((0, 1)), atol=1e-6)


def _trained(tasks_at_once: int) -> tuple[nn.Module, list[Tensor]]:
    network = _network()
    network[3].p = 0.0
    learner = Prototypical(network, PrototypicalConfig(outer=OuterConfig(tasks_at_once=tasks_at_once)))
    _update(learner)
    return network, [p.grad for p in network.parameters() if p.grad is not None]


def test_statistics_do_not_depend_on_the_number_of_tasks_at_once() -> None:
    (one, grads), (all_of_them, others) = _trained(1), _trained(3)
    assert _episodes().num_tasks == 3
    assert max(float(grad.norm()) for grad in grads) > 1e-3
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(grads, others, strict=True))
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(one.buffers(), all_of_them.buffers(), strict=True))


def test_one_query_and_its_own_statistics_are_one_clear_line() -> None:
    episodes = _episodes()
    predict = Maml(_network(), MamlConfig()).adapt(episodes.support, 1)[-1]
    with pytest.raises(ValueError, match=r"needs more than one value per channel .* take normalisation support"):
        predict(episodes.query.inputs[:, :1])
    for normalisation in ("support", "frozen"):
        learner = Maml(_network(), MamlConfig(normalisation=normalisation))  # type: ignore[arg-type]
        assert learner.adapt(episodes.support, 1)[-1](episodes.query.inputs[:, :1]).shape == (3, 1, 3)
    single = Examples(episodes.support.inputs[:1, :1], episodes.support.targets[:1, :1] * 0)
    with pytest.raises(ValueError, match="got a set of one example"):
        Maml(_network(), MamlConfig()).adapt(single, 1)


def test_a_gain_for_every_step_trains_the_modules_own() -> None:
    module = _with_own_gains()
    norm, inputs = module[1], torch.randn(5, 4)
    assert isinstance(norm, nn.BatchNorm1d)
    learner = Maml(
        module,
        MamlConfig(inner_steps=2, multi_step_updates=9, normalisation="per_step", outer=OuterConfig(outer_lr=0.1)),
    )
    before = norm.weight.detach().clone()
    for _ in range(3):
        _update(learner)
    rows = learner.network.weights["1.weight"]
    assert rows.shape == (3, 6)
    assert torch.equal(rows[0], norm.weight)
    assert not torch.equal(norm.weight, before)
    assert not torch.equal(rows[1], rows[0])
    at_start = learner.network(learner.network.params, inputs.unsqueeze(0), step=0)[0]
    assert torch.allclose(module.train()(inputs), at_start, atol=1e-6)
    again = Maml(_with_own_gains(), learner.config)
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.network.weights["1.weight"], rows)


def test_frozen_gains_stay_frozen_at_every_step() -> None:
    module = _with_own_gains()
    module[1].requires_grad_(False)
    learner = Maml(module, MamlConfig(inner_steps=2, normalisation="per_step"))
    _update(learner)
    assert torch.equal(learner.network.weights["1.weight"], torch.ones(3, 6))


def _with_own_gains() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))
