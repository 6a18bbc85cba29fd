"""Inputs and labels as users have them: of any number format, NumPy's, and what is refused in one line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from metarl.fewshot import Episodes, Examples, Maml, MamlConfig, Prototypical, PrototypicalConfig, learn_task
from metarl.fewshot.learner import ModuleLearner
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig

LEARNERS: dict[str, Callable[[], ModuleLearner]] = {
    "maml": lambda: Maml(nn.Linear(4, 3), MamlConfig()),
    "prototypical": lambda: Prototypical(nn.Linear(4, 3), PrototypicalConfig()),
    "ridge": lambda: Ridge(nn.Linear(4, 3), RidgeConfig()),
}
ADAPTING: dict[str, Callable[[], ModuleLearner]] = LEARNERS | {
    "reptile": lambda: Reptile(nn.Linear(4, 3), ReptileConfig()),
    "fine-tuning": lambda: FineTuning(nn.Linear(4, 3), FineTuningConfig()),
    "transductive": lambda: FineTuning(nn.Linear(4, 3), FineTuningConfig(entropy_coef=0.1)),
}
every_learner = pytest.mark.parametrize("make", LEARNERS.values(), ids=LEARNERS)
LABELS = np.arange(6).reshape(1, 6) % 3
INPUTS = np.random.default_rng(0).integers(0, 256, (1, 6, 4), dtype=np.uint8)


def _loss(make: Callable[[], ModuleLearner], examples: Examples) -> float:
    torch.manual_seed(0)
    return make().update(Episodes(examples, examples), np.random.default_rng(0))["loss/outer"]


@every_learner
def test_labels_and_inputs_of_any_format_are_the_same_task(make: Callable[[], ModuleLearner]) -> None:
    expected = _loss(make, Examples(torch.from_numpy(INPUTS) / 255, torch.from_numpy(LABELS)))
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32"):
        assert _loss(make, Examples(INPUTS, LABELS.astype(dtype))) == expected, dtype
    for inputs in (torch.from_numpy(INPUTS), INPUTS / np.float32(255)):
        assert _loss(make, Examples(inputs, LABELS)) == expected
    for double in (INPUTS / 255, torch.from_numpy(INPUTS).double() / 255):
        assert _loss(make, Examples(double, LABELS)) == pytest.approx(expected, rel=1e-5)


def test_integers_stay_integers_and_doubles_stay_doubles_for_modules_that_read_them() -> None:
    tokens = Examples(np.arange(24).reshape(1, 6, 4) % 7, LABELS)
    assert tokens.inputs.dtype == torch.int64
    network = nn.Sequential(nn.Embedding(7, 2), nn.Flatten(), nn.Linear(8, 3))
    assert _loss(lambda: Maml(network, MamlConfig()), tokens) > 0
    doubles = Examples(torch.rand(1, 6, 4, dtype=torch.float64), LABELS)
    outputs = Maml(nn.Linear(4, 3).double(), MamlConfig()).adapt(doubles, 1)[-1](doubles.inputs)
    assert outputs.dtype == torch.float64


@every_learner
def test_a_single_task_is_learned_from_numpy_or_refused_in_one_line(make: Callable[[], ModuleLearner]) -> None:
    learner, inputs, labels = make(), INPUTS[0], LABELS[0]
    assert learn_task(learner, inputs, labels.astype(np.int16))(inputs).shape == (6, 3)
    for wrong_inputs, wrong_labels, error, message in (
        (inputs, np.array(list("abcabc")), TypeError, "numbers, got strings; numpy.unique"),
        (inputs[:0], labels[:0], ValueError, "one example or more, got inputs of shape"),
        (inputs, labels[:5], ValueError, "a target for every example"),
        ({"image": inputs}, labels, TypeError, "got dict; InputParts"),
        (inputs, labels[:, None], ValueError, r"class index per row, \[task, row\], got shape \(1, 6, 1\)"),
    ):
        with pytest.raises(error, match=message):
            learn_task(learner, wrong_inputs, wrong_labels)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_steps must be 0 or more, got -1"):
        learn_task(learner, inputs, labels, num_steps=-1)


def test_class_indices_outside_a_gradient_learners_outputs_are_refused_in_one_line() -> None:
    learner = LEARNERS["maml"]()
    with pytest.raises(ValueError, match="class indices must be 0 or more, or -100 for padding, got -1"):
        learn_task(learner, INPUTS[0], LABELS[0] - 1)
    with pytest.raises(ValueError, match=r"for classes 0 to 12, got .*number classes from 0"):
        learn_task(learner, INPUTS[0], LABELS[0] + 10)


@pytest.mark.parametrize("make", ADAPTING.values(), ids=ADAPTING)
def test_inference_mode_changes_no_prediction(make: Callable[[], ModuleLearner]) -> None:
    learner, examples = make(), Examples(INPUTS, LABELS)
    expected = learner.adapt(examples, 2)[-1](examples.inputs)
    with torch.inference_mode():
        made_within = Examples(examples.inputs.clone(), examples.targets.clone())
        assert made_within.inputs.is_inference()
        outputs = learner.adapt(made_within, 2)[-1](made_within.inputs)
    assert torch.equal(outputs, expected)
