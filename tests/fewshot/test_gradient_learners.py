"""The gradient-based learners against plain loops over tasks, closed forms and each other."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from metarl.fewshot import functional
from metarl.fewshot.backbones import ContextAsInput, FilmConv4, conv4, regression_mlp
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.functional import TaskModule
from metarl.fewshot.inner_loop import Adapted
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.normalisation import NormStatistics
from metarl.fewshot.objectives import task_losses
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.rules import make_rule
from metarl.learning.bilevel import flatten


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _episodes(num_tasks: int = 5, rows: int = 6) -> Episodes:
    def draw() -> Examples:
        return Examples(
            torch.randn(num_tasks, rows, 4, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (num_tasks, rows), generator=generator),
        )

    generator = _generator(1)
    return Episodes(draw(), draw())


def _images() -> Episodes:
    images = torch.rand(4, 6, 1, 28, 28, generator=_generator(1), dtype=torch.float64)
    targets = (torch.arange(6) % 3).expand(4, -1)
    return Episodes(Examples(images, targets), Examples(images.flip(1), targets.flip(1)))


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    return nn.Sequential(nn.Linear(4, 8), norm, nn.Tanh(), nn.Linear(8, 3)).double()


def _meta_gradient(learner: Maml | Cavia | ImplicitMaml, episodes: Episodes) -> Tensor:
    if isinstance(learner, ImplicitMaml):
        grads = learner.meta_gradients(episodes)[0]
        params = learner.network.params
        return flatten({n: g.mean(0) if g.dim() > params[n].dim() else g / 5 for n, g in grads.items()})
    return flatten(torch.autograd.grad(learner.outer_losses(episodes).losses.mean(), learner.outer._params))


def _looped(
    network: nn.Module, episodes: Episodes, steps: int, *, first_order: bool, adapted: list[str]
) -> Tensor:
    """MAML one task at a time, on PyTorch's own layers with autograd."""
    theta = dict(network.named_parameters())
    total = torch.zeros((), dtype=torch.float64)
    for task in range(episodes.num_tasks):
        params = dict(theta)
        for _ in range(steps):
            outputs = functional_call(network, params, (episodes.support.inputs[task],))
            loss = nn.functional.cross_entropy(outputs, episodes.support.targets[task])
            leaves = [params[name] for name in adapted]
            grads = torch.autograd.grad(loss, leaves, create_graph=not first_order)
            params |= {name: params[name] - 0.4 * g for name, g in zip(adapted, grads, strict=True)}
        outputs = functional_call(network, params, (episodes.query.inputs[task],))
        total = total + nn.functional.cross_entropy(outputs, episodes.query.targets[task])
    return flatten(torch.autograd.grad(total / episodes.num_tasks, list(theta.values())))


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("adapted", ["all", "head"])
def test_maml_equals_a_plain_loop_over_tasks(first_order: bool, adapted: str) -> None:
    network, episodes = _network(), _episodes()
    config = MamlConfig(inner_steps=2, first_order=first_order, adapted=adapted)  # type: ignore[arg-type]
    names = ["0.weight", "0.bias", "3.weight", "3.bias"][0 if adapted == "all" else 2 :]
    expected = _looped(network, episodes, 2, first_order=first_order, adapted=names)
    assert torch.allclose(_meta_gradient(Maml(network, config), episodes), expected, atol=1e-12)


@pytest.mark.parametrize("in_turn", [False, True])
def test_maml_on_images_equals_a_plain_loop_over_tasks(in_turn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "_MANY_PLACES", 1 if in_turn else 10**9)
    network = conv4(3, num_filters=4, downsampling="stride", generator=_generator()).double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = None
    episodes = _images()
    learner = Maml(network, MamlConfig())
    names = learner.inner.adapted
    expected = _looped(network, episodes, 1, first_order=False, adapted=names)
    assert torch.allclose(_meta_gradient(learner, episodes), expected, atol=1e-10)


@pytest.mark.parametrize("normalisation", ["transductive", "support", "running", "per_step"])
def test_tasks_in_turn_give_what_tasks_at_once_give(
    normalisation: NormStatistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = _images()
    predicted, grads = [], []
    for many in (1, 10**9):
        monkeypatch.setattr(functional, "_MANY_PLACES", many)
        network = conv4(3, num_filters=4, generator=_generator()).double()
        adapted: Adapted = "head" if normalisation == "running" else "all"
        learner = Maml(network, MamlConfig(inner_steps=2, normalisation=normalisation, adapted=adapted))
        assert learner.network._has_many_places(episodes.support.inputs) == (many == 1)
        learner.update(episodes, np.random.default_rng(0))
        grads.append(flatten([p.grad for p in learner.network.params.values() if p.grad is not None]))
        predicted.append(learner.adapt(episodes.support, 2)[2](episodes.query.inputs))
    assert torch.allclose(*grads, atol=1e-10)
    assert torch.allclose(*predicted, atol=1e-6)  # after a step of Adam, which divides by tiny gradients


def test_cavias_tasks_in_turn_give_what_tasks_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = _images()
    grads = []
    for many in (1, 10**9):
        monkeypatch.setattr(functional, "_MANY_PLACES", many)
        network = FilmConv4(3, 4, num_filters=4, generator=_generator()).double()
        learner = Cavia(network, CaviaConfig(num_context=4, inner_steps=2))
        grads.append(_meta_gradient(learner, episodes))
    assert torch.allclose(*grads, atol=1e-10)


def test_a_context_of_zeros_leaves_conv4_as_it_is() -> None:
    film, plain = (
        make(num_filters=4, generator=_generator())  # type: ignore[operator]
        for make in (lambda **sizes: FilmConv4(3, 2, **sizes), lambda **sizes: conv4(3, **sizes))
    )
    images = torch.rand(5, 1, 28, 28, generator=_generator(1))
    assert torch.equal(film(images, torch.zeros(5, 2)), plain(images))
    assert not torch.allclose(film(images, torch.ones(5, 2)), plain(images), atol=1e-3)


def test_cavias_context_starts_at_zero_and_takes_gradient_steps() -> None:
    """y = x w + c v with w = 1 and v = 2: the loss's slope in c is 2 v times the mean error."""
    module = ContextAsInput(nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        module.network.weight.copy_(torch.tensor([[1.0, 2.0]]))
    x, y = torch.randn(2, 3, 4, 1, generator=_generator(), dtype=torch.float64)
    before, after = Cavia(module, CaviaConfig(num_context=1, inner_lr=0.1)).adapt(Examples(x, y), 1)
    assert torch.allclose(before(x), x)
    context = -0.1 * 2 * 2 * (x - y).mean((1, 2), keepdim=True)
    assert torch.allclose(after(x), x + 2 * context)


def test_pieces_of_a_batch_give_the_gradient_of_the_whole() -> None:
    episodes = _episodes()
    networks = [_network(), _network()]
    metrics = []
    for network, at_once in zip(networks, (None, 2), strict=True):
        learner = Maml(network, MamlConfig(outer=OuterConfig(tasks_at_once=at_once)))
        metrics.append(learner.update(episodes, np.random.default_rng(0)))
    assert metrics[0] == pytest.approx(metrics[1])
    grads = [flatten([p.grad for p in network.parameters() if p.grad is not None]) for network in networks]
    assert torch.allclose(*grads, atol=1e-12)


def test_a_loss_that_is_not_finite_names_the_task_of_the_whole_batch_and_moves_nothing() -> None:
    episodes, network = _episodes(), _network()
    episodes.query.inputs[3] = torch.nan
    before = [p.detach().clone() for p in network.parameters()]
    learner = Maml(network, MamlConfig(outer=OuterConfig(tasks_at_once=2)))
    with pytest.raises(FloatingPointError, match="the outer loss is nan on task 3 of the batch"):
        learner.update(episodes, np.random.default_rng(0))
    assert all(torch.equal(p, b) for p, b in zip(network.parameters(), before, strict=True))


def test_first_and_second_order_agree_where_the_hessian_is_zero() -> None:
    # A loss that is linear in the parameters has no curvature for the second order to see.
    def linear(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs * targets).sum((1, 2))

    x, y = torch.randn(2, 3, 4, 5, generator=_generator(), dtype=torch.float64)
    episodes = Episodes(Examples(x, y), Examples(x.flip(1), y.flip(1)))
    network = nn.Linear(5, 5).double()
    orders = [Maml(network, MamlConfig(first_order=flag), objective=linear) for flag in (False, True)]
    assert torch.equal(*(_meta_gradient(learner, episodes) for learner in orders))
    curved = [Maml(network, MamlConfig(first_order=flag)) for flag in (False, True)]
    first, second = (_meta_gradient(learner, episodes) for learner in curved)
    assert not torch.allclose(first, second, atol=1e-3)


def _quadratic(num_tasks: int = 3) -> tuple[nn.Linear, Episodes]:
    """Linear regression without an offset: the loss is quadratic, strongly convex with 6 rows for 2 weights."""
    x = torch.randn(num_tasks, 12, 2, generator=_generator(), dtype=torch.float64)
    w = torch.randn(num_tasks, 2, 1, generator=_generator(1), dtype=torch.float64)
    y = x @ w
    network = nn.Linear(2, 1, bias=False).double()
    return network, Episodes(Examples(x[:, :6], y[:, :6]), Examples(x[:, 6:], y[:, 6:]))


@pytest.mark.thorough
def test_implicit_gradients_equal_unrolled_ones_on_a_strongly_convex_problem() -> None:
    network, episodes = _quadratic()
    config = ImplicitMamlConfig(inner_lr=0.1, inner_steps=300, regularisation=2.0, cg_iters=2)
    implicit = ImplicitMaml(network, config).meta_gradients(episodes)[0]["weight"].mean(0)

    theta = network.weight
    phi = theta.expand(3, 1, 2)
    for _ in range(300):
        loss = task_losses(episodes.support.inputs @ phi.transpose(1, 2), episodes.support.targets)
        pull = (phi - theta).square().flatten(1).sum(1)
        (grad,) = torch.autograd.grad((loss + pull).sum(), phi, create_graph=True)
        phi = phi - 0.1 * grad
    loss = task_losses(episodes.query.inputs @ phi.transpose(1, 2), episodes.query.targets)
    (unrolled,) = torch.autograd.grad(loss.mean(), theta)
    assert torch.allclose(implicit, unrolled, atol=1e-10)


@pytest.mark.thorough
def test_damping_is_added_to_the_pull_in_the_system_that_is_solved() -> None:
    network, episodes = _quadratic()
    config = ImplicitMamlConfig(inner_steps=300, cg_iters=2, cg_damping=3.0)
    learner = ImplicitMaml(network, config)
    found = learner.meta_gradients(episodes)[0]["weight"]
    solution = learner.inner.trace(episodes.support, 300, "none")[-1]["weight"].transpose(1, 2)
    x, (queries, targets) = episodes.support.inputs, episodes.query
    slope = 2 * queries.transpose(1, 2) @ (queries @ solution - targets) / 6
    system = torch.eye(2, dtype=torch.float64) + 2 * x.transpose(1, 2) @ x / 6 / (2.0 + 3.0)
    assert torch.allclose(found.transpose(1, 2), torch.linalg.solve(system, slope), atol=1e-10)


@pytest.mark.thorough
def test_implicit_maml_follows_the_mean_gradient_and_reports_how_well_the_system_is_solved() -> None:
    network, episodes = _quadratic()
    config = ImplicitMamlConfig(inner_steps=300, cg_iters=1, outer=OuterConfig(tasks_at_once=2))
    learner = ImplicitMaml(network, config)
    solutions = learner.meta_gradients(episodes)[0]["weight"]
    x, queries = episodes.support.inputs, episodes.query
    right = learner.inner.trace(episodes.support, 300, "none")[-1]["weight"].transpose(1, 2)
    slope = 2 * queries.inputs.transpose(1, 2) @ (queries.inputs @ right - queries.targets) / 6
    system = torch.eye(2, dtype=torch.float64) + 2 * x.transpose(1, 2) @ x / 6 / 2.0
    residual = (system @ solutions.transpose(1, 2) - slope).flatten(1).norm(dim=1) / slope.flatten(1).norm(dim=1)
    assert residual.max() > 0.01  # one iteration does not solve a system of two
    metrics = learner.update(episodes, np.random.default_rng(0))
    assert metrics["loss/cg_residual"] == pytest.approx(float(residual.mean()), rel=1e-6)
    assert network.weight.grad is not None
    assert torch.allclose(network.weight.grad, solutions.mean(0), atol=1e-10)


def test_implicit_maml_solves_its_inner_problem() -> None:
    # d/dphi [ mean (x phi - y)^2 + lambda/2 |phi - theta|^2 ] = 0, solved directly
    network, episodes = _quadratic()
    config = ImplicitMamlConfig(inner_lr=0.1, inner_steps=300, regularisation=2.0)
    found = ImplicitMaml(network, config).inner.trace(episodes.support, 300, "none")[-1]["weight"]
    x, y = episodes.support
    eye = torch.eye(2, dtype=torch.float64)
    right = 2 * x.transpose(1, 2) @ y / 6 + 2.0 * network.weight.T
    exact = torch.linalg.solve(2 * x.transpose(1, 2) @ x / 6 + 2.0 * eye, right)
    assert torch.allclose(found.transpose(1, 2), exact, atol=1e-10)


def test_reptiles_update_by_hand() -> None:
    # Loss (w x - y)^2, x = 1, w = 0: two steps of size 0.25 halve the distance to y twice, so W_i = 3/4 y_i.
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    config = ReptileConfig(
        inner_lr=0.25, inner_steps=2, inner_optimizer="sgd", outer_lr=0.5, annealing_updates=4, inner_batch_size=2
    )
    learner = Reptile(network, config)
    targets = torch.tensor([4.0, 8.0]).view(2, 1, 1)
    examples = Examples(torch.ones(2, 1, 1), targets)
    learner.update(Episodes(examples, examples), np.random.default_rng(0))
    assert network.weight.item() == pytest.approx(0.5 * 0.75 * 6.0)
    assert learner.epsilon == pytest.approx(0.5 * 0.75)


def test_reptiles_adam_goes_on_from_update_to_update_and_not_from_evaluation() -> None:
    # One step of Adam without a first moment is lr * sign(gradient), whatever the gradient's size.
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    learner = Reptile(network, ReptileConfig(inner_lr=0.25, inner_steps=1))
    examples = Examples(torch.ones(2, 1, 1), torch.tensor([4.0, 8.0]).view(2, 1, 1))
    learner.adapt(examples, 3)
    assert learner.moments == {}
    learner.update(Episodes(examples, examples), np.random.default_rng(0))
    assert network.weight.item() == pytest.approx(0.25, rel=1e-4)
    # gradients -8 and -16: the mean of 0.001 g^2 over tasks
    assert learner.moments["weight"].item() == pytest.approx(0.001 * (64 + 256) / 2)
    learner.adapt(examples, 3)
    assert learner.moment_steps == 1


def test_reptiles_second_moments_are_corrected_by_the_number_of_all_steps() -> None:
    """Two updates of two inner steps each on (w - 4)^2 from w = 0, by hand."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    learner = Reptile(network, ReptileConfig(inner_lr=0.25, inner_steps=2))
    examples = Examples(torch.ones(1, 1, 1), torch.full((1, 1, 1), 4.0))
    w, moment = 0.0, 0.0
    for steps in ((1, 2), (3, 4)):
        learner.update(Episodes(examples, examples), np.random.default_rng(0))
        for step in steps:
            grad = 2 * (w - 4)
            moment = 0.999 * moment + 0.001 * grad**2
            w -= 0.25 * grad / math.sqrt(moment / (1 - 0.999**step))
        assert network.weight.item() == pytest.approx(w, rel=1e-5)


def test_reptile_trains_on_support_and_query_examples_alike() -> None:
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    config = ReptileConfig(inner_lr=0.25, inner_steps=1, inner_optimizer="sgd", inner_batch_size=2)
    support, query = (Examples(torch.ones(1, 1, 1), torch.full((1, 1, 1), y)) for y in (4.0, 8.0))
    Reptile(network, config).update(Episodes(support, query), np.random.default_rng(0))
    assert network.weight.item() == pytest.approx(0.25 * 2 * 6.0)


def test_the_multi_step_weights_fall_to_the_last_step() -> None:
    learner = Maml(_network(), MamlConfig(inner_steps=5, multi_step_updates=10))
    assert learner.step_weights() == pytest.approx([0.2] * 5)
    learner.outer.updates = 5
    assert learner.step_weights() == pytest.approx([0.1] * 4 + [0.6])
    learner.outer.updates = 9
    assert learner.step_weights() == pytest.approx([0.02] * 4 + [0.92])
    learner.outer.updates = 10
    assert learner.step_weights() == [0, 0, 0, 0, 1]
    slow = Maml(_network(), MamlConfig(inner_steps=5, multi_step_updates=100))
    slow.outer.updates = 98
    assert slow.step_weights() == pytest.approx([0.03 / 5] * 4 + [1 - 4 * 0.03 / 5])  # and not 0.02 / 5


def test_the_multi_step_loss_weighs_the_query_loss_of_every_step_with_the_gains_of_that_step() -> None:
    config = MamlConfig(inner_steps=3, multi_step_updates=4, normalisation="per_step")
    learner, episodes = Maml(_network(), config), _episodes()
    gains = learner.network.params["1.weight"]
    with torch.no_grad():
        gains.copy_(torch.arange(1.0, 5.0).view(4, 1).expand_as(gains))  # another one for every step
    learner.outer.updates = 2
    trace = learner.inner.trace(episodes.support, 3, "none")
    losses = [
        task_losses(learner.network(trace[step], episodes.query.inputs, step=step), episodes.query.targets)
        for step in (1, 2, 3)
    ]
    # a third falls by a sixth per half of the way: 1/6, 1/6 and what is left
    expected = losses[0] / 6 + losses[1] / 6 + losses[2] * 2 / 3
    assert torch.allclose(learner.outer_losses(episodes).losses, expected, atol=1e-10)


def test_derivative_order_is_first_then_second() -> None:
    learner = Maml(_network(), MamlConfig(first_order_updates=2))
    orders = []
    for _ in range(3):
        orders.append(learner.order)
        learner.update(_episodes(), np.random.default_rng(0))
    assert orders == ["first", "first", "second"]


def test_the_outer_step_size_follows_half_a_cosine() -> None:
    config = OuterConfig(outer_lr=1.0, final_outer_lr=0.1, annealing_updates=4)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(5)]
    assert [config.outer_lr_after(k) for k in range(5)] == pytest.approx(expected)
    assert config.outer_lr_after(9) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="final_outer_lr needs annealing_updates"):
        OuterConfig(final_outer_lr=0.1).outer_lr_after(0)
    whole_run = OuterConfig(outer_lr=1.0, final_outer_lr=0.1).over(8)
    assert whole_run.outer_lr_after(4) == pytest.approx(0.55)
    assert config.over(8) == config  # it says over how many updates


def test_entries_of_the_outer_gradient_are_clipped() -> None:
    grads = []
    for max_grad in (None, 0.01):
        network = _network()
        metrics = Maml(network, MamlConfig(outer=OuterConfig(max_grad=max_grad))).update(
            _episodes(), np.random.default_rng(0)
        )
        grads.append(flatten([p.grad for p in network.parameters() if p.grad is not None]))
        assert metrics["loss/grad_norm"] == pytest.approx(float(grads[0].norm()))  # before it is clipped
    assert grads[0].abs().max() > 0.01
    assert torch.equal(grads[1], grads[0].clamp(-0.01, 0.01))


def test_meta_curvature_multiplies_every_axis_by_its_matrix() -> None:
    params = {"conv": torch.zeros(2, 3, 2, 2), "bias": torch.zeros(2)}
    rule, meta = make_rule(params, 0.5, rates="fixed", num_steps=1, curvature=True)
    assert [m.shape[0] for name, m in meta.items() if "conv" in name] == [2, 3, 4]
    grad = torch.randn(5, 2, 3, 2, 2, generator=_generator())
    assert torch.allclose(rule(0, "conv", torch.zeros_like(grad), grad), -0.5 * grad)
    with torch.no_grad():
        for matrix in meta.values():
            matrix.copy_(torch.randn(matrix.shape, generator=_generator(1)))
    m_out, m_in, m_place = (meta[f"curvature.conv.{axis}"] for axis in range(3))
    expected = torch.einsum("ao,bi,cp,toip->tabc", m_out, m_in, m_place, grad.flatten(3)).reshape(grad.shape)
    assert torch.allclose(rule(0, "conv", torch.zeros_like(grad), grad), -0.5 * expected, atol=1e-4)


@pytest.mark.parametrize("rates", ["per_entry", "per_tensor_and_step"])
def test_learned_step_sizes_survive_a_save_and_load(rates: str) -> None:
    config = MamlConfig(inner_steps=2, rates=rates, outer=OuterConfig(outer_lr=0.1))  # type: ignore[arg-type]
    learner, other = Maml(_network(), config), Maml(_network(), config)
    learner.update(_episodes(), np.random.default_rng(0))
    moved = [value for value in learner.meta.values() if not torch.equal(value, torch.full_like(value, 0.4))]
    assert len(learner.meta) == 4
    assert len(moved) == 3  # batch norm takes the first layer's bias out again
    other.load_state_dict(learner.state_dict())
    assert all(torch.equal(value, other.meta[name]) for name, value in learner.meta.items())
    assert all(value.requires_grad for value in other.meta.values())


def test_a_module_with_its_own_task_axis_equals_one_that_is_lifted() -> None:
    own = regression_mlp(4, 3, generator=_generator()).double()
    plain = nn.Sequential(nn.Linear(4, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)).double()
    values = dict(own.named_parameters())
    with torch.no_grad():
        for layer in range(3):
            plain[2 * layer].weight.copy_(values[f"weight_{layer}"].T)
            plain[2 * layer].bias.copy_(values[f"bias_{layer}"])
    losses = [
        Maml(network, MamlConfig(inner_steps=2)).outer_losses(_episodes()).losses for network in (own, plain)
    ]
    assert torch.allclose(*losses, atol=1e-12)


def _statistics_of(normalisation: str, queries: Tensor, support: Tensor) -> Tensor:
    """What a batch norm alone makes of queries, after its running averages have seen the support sets."""
    layer = nn.BatchNorm1d(4, affine=False, momentum=1.0).double()
    network = TaskModule(layer, normalisation=normalisation)  # type: ignore[arg-type]
    network.track({}, support)
    with network.evaluating():
        return network({}, queries, fixed=network.moments({}, support))


def test_each_normalisation_takes_the_statistics_it_says() -> None:
    support = 2 + 3 * torch.randn(5, 50, 4, generator=_generator(), dtype=torch.float64)
    queries = torch.randn(5, 40, 4, generator=_generator(1), dtype=torch.float64)

    def by(mean: Tensor, var: Tensor) -> Tensor:
        return (queries - mean) / (var + 1e-5).sqrt()

    mean, var = support.mean(1, keepdim=True), support.var(1, keepdim=True, correction=0)
    assert torch.allclose(_statistics_of("support", queries, support), by(mean, var))
    assert torch.allclose(_statistics_of("running", queries, support), by(mean.mean(0), var.mean(0) * 50 / 49))
    assert torch.allclose(_statistics_of("frozen", queries, support), queries / (1 + 1e-5) ** 0.5)
    own = by(queries.mean(1, keepdim=True), queries.var(1, keepdim=True, correction=0))
    assert torch.allclose(_statistics_of("transductive", queries, support), own)


@pytest.mark.parametrize("normalisation", ["support", "running", "frozen"])
def test_a_prediction_depends_on_other_queries_only_where_it_says_so(normalisation: str) -> None:
    episodes = _episodes()
    for name, alone in (("transductive", False), (normalisation, True)):
        config = MamlConfig(normalisation=name, adapted="head")  # type: ignore[arg-type]
        learner = Maml(_network_with_running(), config)
        learner.update(episodes, np.random.default_rng(0))
        predict = learner.adapt(episodes.support, 1)[-1]
        first, all_of_them = predict(episodes.query.inputs[:, :2]), predict(episodes.query.inputs)
        assert torch.allclose(first, all_of_them[:, :2], atol=1e-9) == alone


def _network_with_running() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()


def test_running_averages_move_with_the_support_sets_of_every_update() -> None:
    torch.manual_seed(0)
    network, episodes = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)).double(), _episodes()
    learner = Maml(network, MamlConfig(normalisation="running"))
    mean = torch.zeros(4, dtype=torch.float64)
    for _ in range(2):
        learner.update(episodes, np.random.default_rng(0))
        mean = 0.9 * mean + 0.1 * episodes.support.inputs.mean((0, 1))
        assert torch.allclose(network[0].running_mean, mean)


def test_steps_have_a_gain_and_shift_of_their_own() -> None:
    learner = Maml(_network(), MamlConfig(inner_steps=2, normalisation="per_step", multi_step_updates=9))
    gain = learner.network.params["1.weight"]
    assert gain.shape == (3, 8)  # before each step and after the last
    learner.outer_losses(_episodes()).losses.sum().backward()  # type: ignore[no-untyped-call]
    assert gain.grad is not None
    assert (gain.grad.norm(dim=1) > 0).all()


def test_gains_and_shifts_do_not_adapt() -> None:
    learner = Maml(_network(), MamlConfig())
    assert learner.inner.adapted == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert Maml(_network(), MamlConfig(adapted="head")).inner.adapted == ["3.weight", "3.bias"]


def test_frozen_parameters_stay_and_unknown_names_are_errors() -> None:
    network = _network()
    network[0].requires_grad_(False)
    learner = Maml(network, MamlConfig())
    assert learner.inner.adapted == ["3.weight", "3.bias"]
    before = network[0].weight.clone()
    learner.update(_episodes(), np.random.default_rng(0))
    assert torch.equal(network[0].weight, before)
    for p in network.parameters():
        p.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameters that could adapt"):
        Maml(network, MamlConfig())


def test_learned_rules_have_a_step_size_of_their_own() -> None:
    learner = Maml(_network(), MamlConfig(inner_lr=0.5, rates="per_tensor_and_step", rule_lr_factor=1e-3))
    weights = {name: p.detach().clone() for name, p in learner.network.params.items()}
    learner.update(_episodes(), np.random.default_rng(0))
    step = learner.config.outer.outer_lr  # Adam's first one, whatever the gradient
    for name in ("0.weight", "3.weight"):
        moved = (learner.network.params[name] - weights[name]).abs().max().item()
        assert moved == pytest.approx(step, rel=1e-2)
        rates = learner.meta[f"rate.{name}"].detach().double()
        assert (rates - 0.5).abs().max().item() == pytest.approx(1e-3 * step, rel=0.05)


@pytest.mark.thorough
def test_implicit_gradients_of_what_does_not_adapt_count_how_it_moves_the_solution() -> None:
    """Batch norm's gain and shift against finite differences through the converged inner problem."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double()
    episodes = _episodes(num_tasks=2)
    config = ImplicitMamlConfig(inner_lr=0.2, inner_steps=60, regularisation=1.0, cg_iters=10)
    learner = ImplicitMaml(network, config)
    found = learner.meta_gradients(episodes)[0]
    params = learner.network.params
    for name in ("0.weight", "0.bias"):
        expected = torch.zeros(4, dtype=torch.float64)
        for entry in range(4):
            losses = []
            for change in (1e-4, -1e-4):
                with torch.no_grad():
                    params[name][entry] += change
                losses.append(learner.meta_gradients(episodes)[1].sum())
                with torch.no_grad():
                    params[name][entry] -= change
            expected[entry] = (losses[0] - losses[1]) / 2e-4
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_an_attack_raises_the_loss_by_its_size_and_adml_crosses_clean_and_attacked_sets() -> None:
    """For y = w x with w = 2 the loss (2 x - t)^2 rises along sign(2 x - t)."""
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(2.0)
    learner = Adml(module, AdmlConfig(MamlConfig(inner_lr=0.05), attack_size=0.1))
    support = Examples(torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[1.0], [1.0]]]))
    query = Examples(torch.tensor([[[0.5], [3.0]]]), torch.tensor([[[4.0], [1.0]]]))
    attacked_support, attacked_query = learner.attacked(support), learner.attacked(query)
    assert torch.allclose(attacked_support.inputs, torch.tensor([[[1.1], [-1.1]]]))
    assert torch.allclose(attacked_query.inputs, torch.tensor([[[0.4], [3.1]]]))
    assert torch.equal(attacked_support.targets, support.targets)

    def loss_after_a_step(learned_from: Examples, measured_on: Examples) -> float:
        x, t = learned_from.inputs, learned_from.targets
        w = 2.0 - 0.05 * float((2 * x * (2 * x - t)).mean())
        return float((w * measured_on.inputs - measured_on.targets).square().mean())

    crossed = [loss_after_a_step(attacked_support, query), loss_after_a_step(support, attacked_query)]
    found = learner.outer_losses(Episodes(support, query)).losses
    assert found.tolist() == pytest.approx([sum(crossed) / 2])
