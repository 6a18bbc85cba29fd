"""Modules that users bring: what cannot be learned with is refused in one line that says what to do."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import Episodes, Examples, Maml, MamlConfig, Prototypical, PrototypicalConfig
from metarl.fewshot.learner import ModuleLearner
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from tests.fewshot.kinds import KINDS, episodes_of

LEARNERS: dict[str, Callable[[nn.Module], ModuleLearner]] = {
    "maml": lambda module: Maml(module, MamlConfig()),
    "adml": lambda module: Adml(module, AdmlConfig()),
    "reptile": lambda module: Reptile(module, ReptileConfig(inner_steps=1)),
    "implicit-maml": lambda module: ImplicitMaml(module, ImplicitMamlConfig(inner_steps=1)),
    "prototypical": lambda module: Prototypical(module, PrototypicalConfig()),
    "ridge": lambda module: Ridge(module, RidgeConfig()),
    "running": lambda module: Prototypical(module, PrototypicalConfig(normalisation="running")),
}
every_learner = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)


def _episodes(dtype: torch.dtype = torch.float32) -> Episodes:
    support, query = episodes_of(KINDS["items"], "maml")
    return Episodes(*(Examples(part.inputs.to(dtype), part.targets) for part in (support, query)))


def _update(learner: ModuleLearner, episodes: Episodes | None = None) -> dict[str, float]:
    return learner.update(episodes or _episodes(), np.random.default_rng(0))


class _Returning(nn.Module):
    """A layer whose outputs are given another form."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(4, 3), form

    def forward(self, inputs: Tensor) -> Any:
        return self.form(self.layer(inputs))


@every_learner
def test_a_module_of_several_outputs_is_refused(make: Callable[[nn.Module], ModuleLearner]) -> None:
    for form, kind in ((lambda x: (x, x), "tuple"), (lambda x: {"logits": x}, "dict")):
        for call in (_update, lambda learner: learner.adapt(_episodes().support, 1)[-1](_episodes().query.inputs)):
            with pytest.raises(TypeError, match=f"the module must return one tensor .* got {kind}; wrap it"):
                call(make(_Returning(form)))


@every_learner
def test_examples_in_another_number_format_than_the_weights_are_refused(
    make: Callable[[nn.Module], ModuleLearner],
) -> None:
    for module, dtype in ((nn.Linear(4, 3).bfloat16(), torch.float32), (nn.Linear(4, 3).double(), torch.float32)):
        with pytest.raises(ValueError, match=rf"number format of .* {module.weight.dtype}, got {dtype}; convert"):
            _update(make(module), _episodes(dtype))
    assert _update(make(nn.Linear(4, 3)), _episodes(torch.float64))  # NumPy's are float64 as often as not
    assert math.isfinite(next(iter(_update(make(nn.Linear(4, 3).double()), _episodes(torch.float64)).values())))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):  # not for another reason
        _update(make(nn.Linear(5, 3)))


@every_learner
def test_what_is_no_module_of_one_argument_is_refused(make: Callable[[Any], ModuleLearner]) -> None:
    for wrong, kind in ((None, "NoneType"), (nn.Linear, "the class Linear"), (torch.tanh, "builtin")):
        with pytest.raises(TypeError, match=rf"expected an instance of torch.nn.Module, got {kind}"):
            make(wrong)
    with pytest.raises(ValueError, match=r"the module itself \(DataParallel\) .* give the module inside it"):
        make(nn.DataParallel(nn.Linear(4, 3)))
    with pytest.raises(
        TypeError, match="the forward of Bilinear must take the inputs alone, got the error: missing"
    ):
        make(nn.Bilinear(4, 4, 3))


def test_cavia_refuses_a_module_that_takes_no_context() -> None:
    with pytest.raises(TypeError, match="the forward of Linear must take the inputs and a context"):
        Cavia(nn.Linear(4, 3), CaviaConfig())
    _update(Cavia(nn.Bilinear(4, 5, 3), CaviaConfig()))


def test_reptile_refuses_a_module_that_is_frozen_as_others_do() -> None:
    for make in (LEARNERS["reptile"], LEARNERS["prototypical"]):
        with pytest.raises(ValueError, match="there is nothing to train"):
            make(nn.Linear(4, 3).requires_grad_(False))


class _Once(torch.autograd.Function):
    """A square whose gradient has no derivative."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return inputs.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


def test_a_function_without_second_derivatives_is_refused_where_they_are_needed() -> None:
    module = _Returning(_Once.apply)
    with pytest.raises(ValueError, match=r"differentiated twice, .* once_differentiable; take first_order"):
        _update(Maml(module, MamlConfig()))
    _update(Maml(module, MamlConfig(first_order=True)))


class _Centred(nn.Module):
    """Features less their mean over all rows of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs)
        return outputs - outputs.mean(0)


@every_learner
def test_tasks_are_not_mixed_where_rows_depend_on_each_other(make: Callable[[nn.Module], ModuleLearner]) -> None:
    learner, (support, query) = make(_Centred()), _episodes()
    together = learner.adapt(support, 1)[-1](query.inputs)
    assert len(together) > 1
    for place, outputs in enumerate(together):
        one = torch.tensor([place])
        alone = learner.adapt(Examples(support.inputs[one], support.targets[one]), 1)[-1](query.inputs[one])[0]
        assert torch.allclose(outputs, alone, atol=1e-6)
