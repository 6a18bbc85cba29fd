"""A learner that was adapted to one task is a module of its own, which predicts as the learner did."""

import io
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import Episodes, Examples, adapted_network
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.label_propagation import LabelPropagation, LabelPropagationConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.prediction import class_outputs
from tests.fewshot.kinds import KINDS, LEARNERS, NUM_TASKS, episodes_of
from tests.fewshot.test_exporting import ADAPTING, COMPARING, _conv, _dense, _inputs

ALL = COMPARING | ADAPTING
NUMBERS = ("kernel-regression", "ridge-of-numbers")


def _support(learner: Learner, name: str) -> Examples:
    targets = torch.tensor([0, 1, 2, 0, 1, 2])
    numbers = torch.linspace(-1, 1, 12).view(6, 2)
    return Examples.of_one_task(_inputs(learner, 6, 0), numbers if name in NUMBERS else targets)


def _update(learner: Learner, support: Examples) -> None:
    """An update that moves the weights, with other examples."""
    query = Examples(support.inputs + 0.1, support.targets)
    learner.update(Episodes(support, query), np.random.default_rng(0))


@pytest.mark.parametrize("name", ALL)
def test_a_module_of_one_task_predicts_as_the_learner_and_shares_nothing(name: str) -> None:
    learner = ALL[name]()
    support, queries = _support(learner, name), _inputs(learner, 5, 1)
    expected = learner.adapt(support, 3)[-1](queries.unsqueeze(0))[0]
    module = adapted_network(learner, support, 3)
    torch.testing.assert_close(module(queries), expected)
    assert not any(p.requires_grad for p in module.parameters())
    storages = {p.data_ptr() for p in learner.network.module.parameters()}  # type: ignore[attr-defined]
    assert storages.isdisjoint({p.data_ptr() for p in module.parameters()})
    before = module(queries)
    copies: list[nn.Module] = [pickle.loads(pickle.dumps(module))]
    memory = io.BytesIO()
    torch.save(module, memory)
    memory.seek(0)
    copies.append(torch.load(memory, weights_only=False))
    other = adapted_network(learner, Examples(support.inputs.flip(1) * 0.5, support.targets), 3)
    assert not torch.equal(other(queries), before)
    other.load_state_dict(module.state_dict())
    copies.append(other.train())
    if name not in ("probe", "maml-recurrent"):  # the one is trained on all classes; the other alike, but slowly
        _update(learner, support)
        assert not torch.equal(learner.adapt(support, 3)[-1](queries.unsqueeze(0))[0], expected)
    for copied in (module, *copies):
        torch.testing.assert_close(copied(queries), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["lstm", "spectral norm", "weight norm", "residual", "embedding", "batch norm"])
@pytest.mark.parametrize("learner", ["maml", "meta-sgd", "maml++", "implicit-maml", "adml", "reptile"])
def test_networks_of_any_kind_are_modules_of_one_task(kind: str, learner: str) -> None:
    if learner == "adml" and KINDS[kind].integers:
        pytest.skip("attacks need inputs that can be moved a little")
    made, episodes = LEARNERS[learner](KINDS[kind]), episodes_of(KINDS[kind], learner)
    assert NUM_TASKS > 1
    support = Examples(*(part[:1] for part in episodes.support))
    expected = made.adapt(support, 2)[-1](episodes.query.inputs[:1])[0]
    module = adapted_network(made, support, 2)
    if kind not in ("spectral norm", "weight norm"):  # parametrizations, which PyTorch does not pickle
        module = pickle.loads(pickle.dumps(module))
    torch.testing.assert_close(module(episodes.query.inputs[0]), expected)


def test_weights_have_the_names_of_the_network() -> None:
    learner = Maml(_dense(4, 3), MamlConfig())
    module = adapted_network(learner, _support(learner, "maml"), 3)
    plain = _dense(4, 3)
    plain.load_state_dict(module.network.state_dict())  # type: ignore[operator, union-attr]
    queries = _inputs(learner, 5, 1)
    torch.testing.assert_close(plain(queries), module(queries))


def test_an_adapted_module_is_made_in_inference_mode_too() -> None:
    learner = Maml(_conv(3), MamlConfig())
    with torch.inference_mode():
        support, queries = _support(learner, "maml"), _inputs(learner, 5, 1)
        outputs: Tensor = adapted_network(learner, support, 2)(queries)
    expected = learner.adapt(support, 2)[-1](queries.clone().unsqueeze(0))[0]
    torch.testing.assert_close(outputs.clone(), expected)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (LabelPropagation(_dense(), LabelPropagationConfig()), "all queries together"),
        (FineTuning(_dense(), FineTuningConfig(entropy_coef=1.0)), "all queries together"),
        (Prototypical(_conv(), PrototypicalConfig(normalisation="transductive")), "running or frozen"),
    ],
)
def test_learners_that_need_other_queries_are_no_modules(learner: Learner, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted_network(learner, _support(learner, ""), 1)


def test_several_tasks_and_missing_classes_are_refused_in_one_line() -> None:
    learner = Prototypical(_dense(), PrototypicalConfig())
    with pytest.raises(ValueError, match=r"one task, \[1, row, ...\], got 2 tasks"):
        adapted_network(learner, Examples(torch.rand(2, 3, 4), torch.tensor([[0, 1, 2]] * 2)), 1)
    with pytest.raises(ValueError, match="targets must be classes 0 to N - 1"):
        adapted_network(learner, Examples.of_one_task(torch.rand(2, 4), torch.tensor([0, 2])), 1)


def test_views_are_averaged_as_predictions_average_them() -> None:
    learner = Prototypical(_conv(), PrototypicalConfig())
    support, queries = _support(learner, ""), _inputs(learner, 5, 1)
    expected = class_outputs(learner, support, queries, views=3, num_steps=0)
    outputs = adapted_network(learner, support, 0, views=3)(queries)
    torch.testing.assert_close(outputs, expected)
    assert not torch.allclose(outputs, adapted_network(learner, support, 0)(queries))
    with pytest.raises(ValueError, match="views must be 1 for Maml, got 3"):
        adapted_network(Maml(_conv(3), MamlConfig()), support, 1, views=3)


def test_a_module_of_one_task_can_be_trained_further() -> None:
    learner = Maml(_dense(4, 3), MamlConfig())
    support, queries = _support(learner, ""), _inputs(learner, 5, 1)
    module = adapted_network(learner, support, 2).requires_grad_()
    module(queries).sum().backward()
    assert all(p.grad is not None for p in module.parameters())
    assert all(p.grad is None for p in learner.network.module.parameters())
