"""Exported few-shot learners give torch's numbers without torch, and what cannot be exported says so in a line."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.deploy.classifier import Classifier
from metarl.experiments.cli import main
from metarl.fewshot import learn_task
from metarl.fewshot.backbones import ContextAsInput, NetworkSpec, StandardBackbone
from metarl.fewshot.episodes import Examples
from metarl.fewshot.exporting import RUNNER, check_learner, export_learner
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.baseline import Baseline, BaselineConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig
from metarl.fewshot.learners.kernel_regression import KernelRegression, KernelRegressionConfig
from metarl.fewshot.learners.label_propagation import LabelPropagation, LabelPropagationConfig
from metarl.fewshot.learners.logistic import Logistic, LogisticConfig
from metarl.fewshot.learners.mahalanobis import Mahalanobis, MahalanobisConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.matching import Matching, MatchingConfig
from metarl.fewshot.learners.optimal_transport import OptimalTransport, OptimalTransportConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig, relation_module
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.ridge import Ridge, RidgeConfig
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig
from metarl.fewshot.learners.support_vectors import SupportVector, SupportVectorConfig
from metarl.fewshot.sources import TaskSpec

TOLERANCE = 1e-5
IMAGES, NUMBERS = (1, 8, 8), (4,)


def _conv(outputs: int | None = None) -> nn.Module:
    """Two blocks with batch norm whose averages are those of no batch, and a linear layer if there are outputs."""
    generator = torch.Generator().manual_seed(0)
    kind = "features" if outputs is None else "outputs"
    network = StandardBackbone(num_filters=4).make(NetworkSpec((1, 28, 28), kind, outputs or 0), generator)
    blocks = list(network)[:2]  # type: ignore[call-overload]  # a Sequential
    for layer in (layer for block in blocks for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)):
        layer.running_mean.uniform_(-0.2, 0.2, generator=generator)
        layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return nn.Sequential(*blocks, nn.Flatten(), *([] if outputs is None else [nn.Linear(16, outputs)]))


def _dense(inputs: int = 4, outputs: int = 6) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))


GENERATOR = torch.Generator().manual_seed(2)
COMPARING: dict[str, Callable[[], Learner]] = {
    "prototypical": lambda: Prototypical(_conv(), PrototypicalConfig()),
    "gaussian": lambda: Prototypical(_conv(), PrototypicalConfig(distance="gaussian")),
    "cosine": lambda: Prototypical(_dense(), PrototypicalConfig(distance="cosine")),
    "matching": lambda: Matching(_dense(), MatchingConfig(), generator=GENERATOR),
    "siamese": lambda: Siamese(_dense(), SiameseConfig()),
    "relation": lambda: Relation(
        nn.Conv2d(1, 4, 3), RelationConfig(), relation=relation_module(4, 6, generator=GENERATOR)
    ),
    "ridge": lambda: Ridge(_dense(), RidgeConfig()),
    "logistic": lambda: Logistic(_dense(), LogisticConfig()),
    "mahalanobis": lambda: Mahalanobis(_dense(), MahalanobisConfig()),
    "lda": lambda: Mahalanobis(_dense(), MahalanobisConfig(covariance="shared")),
    "probe": lambda: Baseline(_dense(), BaselineConfig(judge="probe"), num_features=6, generator=GENERATOR),
    "kernel-regression": lambda: KernelRegression(_dense(), KernelRegressionConfig()),
    "ridge-of-numbers": lambda: Ridge(_dense(), RidgeConfig()),
}
ADAPTING: dict[str, Callable[[], Learner]] = {
    "maml": lambda: Maml(_conv(3), MamlConfig(inner_steps=2)),
    "maml-support": lambda: Maml(_conv(3), MamlConfig(inner_steps=2, normalisation="support")),
    "maml++": lambda: Maml(_conv(3), MamlConfig(inner_steps=2, normalisation="per_step")),
    "maml-dense": lambda: Maml(_dense(4, 3), MamlConfig()),
    "maml-recurrent": lambda: Maml(_Recurrent(), MamlConfig(first_order=True)),
    "cavia": lambda: Cavia(ContextAsInput(_dense(4 + 5, 3)), CaviaConfig()),
    "proto-maml": lambda: ProtoMaml(_dense(), ProtoMamlConfig()),
    "reptile": lambda: Reptile(_dense(4, 3), ReptileConfig()),
    "svm": lambda: SupportVector(_dense(), SupportVectorConfig()),
    "full-context": lambda: Matching(
        _dense(), MatchingConfig(full_context=True, num_features=6), generator=GENERATOR
    ),
    "fine-tuning": lambda: FineTuning(_dense(), FineTuningConfig()),
    "fine-tuning-with-norms": lambda: FineTuning(_conv(), FineTuningConfig()),
    "lda-of-one-task": lambda: Mahalanobis(_conv(), MahalanobisConfig(covariance="shared")),
}
FAST = ("prototypical", "ridge", "kernel-regression", "maml", "cavia", "svm")
"""Each takes some seconds of the exporter: these are tried before a change is merged, the others later."""


class _Recurrent(nn.Module):
    """A module whose tasks have to be taken in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.memory, self.head = nn.GRU(1, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.memory(inputs.unsqueeze(-1))[0][:, -1])
        return outputs


def _cases(learners: dict[str, Callable[[], Learner]]) -> list[object]:
    return [
        pytest.param(name, marks=pytest.mark.thorough if name in FAST else pytest.mark.slow) for name in learners
    ]


def _inputs(learner: Learner, num_rows: int, seed: int) -> Tensor:
    first = next(layer for layer in learner.network.module.modules() if not list(layer.children()))  # type: ignore[attr-defined]
    shape = IMAGES if isinstance(first, nn.Conv2d) else NUMBERS
    return torch.rand(num_rows, *shape, generator=torch.Generator().manual_seed(seed))


def _spec(learner: Learner, kind: str = "classification") -> TaskSpec:
    return TaskSpec(kind, tuple(_inputs(learner, 1, 0).shape[1:]), 2 if kind == "regression" else 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", _cases(COMPARING))
def test_an_exported_learner_learns_tasks_of_any_size_as_torch_does(name: str, tmp_path: Path) -> None:
    learner = COMPARING[name]()
    numbers = name in ("kernel-regression", "ridge-of-numbers")
    exported = export_learner(
        learner, _spec(learner, "regression" if numbers else "classification"), tmp_path / "m.onnx"
    )
    classifier = Classifier(exported.model)
    for seed, labels in enumerate((["b", "a", "b", "a", "a", "b", "b"], ["c", "a", "b", "d", "a"])):
        support, query = _inputs(learner, len(labels), seed), _inputs(learner, 4, 10 + seed)
        places = torch.tensor(["abcd".index(label) for label in labels])
        targets = torch.stack([places.float(), -1.5 * places], 1) if numbers else places
        classifier.learn(support.numpy(), targets.numpy() if numbers else labels)
        expected = learn_task(learner, support, targets)(query)
        scores = classifier.scores(query.numpy())
        assert scores.shape == expected.shape
        assert float(expected.std(0).max()) > 0.001  # the queries differ
        assert np.abs(expected.detach().numpy() - scores).max() < TOLERANCE * max(1, float(expected.abs().max()))
        if not numbers:
            assert classifier.predict(query.numpy()) == ["abcd"[place] for place in expected.argmax(1)]
            assert classifier.probabilities(query.numpy()) == pytest.approx(expected.softmax(1).numpy(), abs=1e-5)


@pytest.mark.parametrize("name", _cases(ADAPTING))
def test_an_exported_classifier_of_one_task_gives_torchs_scores(name: str, tmp_path: Path) -> None:
    learner = ADAPTING[name]()
    support, query = _inputs(learner, 7, 0), _inputs(learner, 6, 1)
    targets = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    exported = export_learner(
        learner,
        _spec(learner),
        tmp_path / "m.onnx",
        support=Examples.of_one_task(support, targets),
        classes=("x", "y", "z"),
        num_steps=2,
    )
    classifier = Classifier(exported.model)
    expected = learn_task(learner, support, targets, num_steps=2)(query)
    untrained = learn_task(learner, support, targets.flip(0), num_steps=2)(query)
    assert not torch.allclose(expected, untrained, atol=1e-3)  # the support set matters
    scores = classifier.scores(query.numpy())
    assert np.abs(expected.detach().numpy() - scores).max() < TOLERANCE * max(1, float(expected.abs().max()))
    assert classifier.predict(query.numpy()) == ["xyz"[place] for place in expected.argmax(1)]
    with pytest.raises(TypeError, match="exported for one support set"):
        classifier.learn(support.numpy(), [0, 1, 2, 2, 1, 0, 0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, omniglot_archive: Path) -> Path:
    """Folder of a run of prototypical networks on small images."""
    folder = tmp_path_factory.mktemp("export") / "run"
    small = [
        *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
        *("--training.meta-batch-size", "1", "--evaluation.num-tasks", "2", "--backbone.num-filters", "4"),
        *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2"),
        *("--data.episodes.train-ways", "3", "--data.episodes.train-queries", "2"),
    ]
    words = ["train", "omniglot-protonet", "--data.folder", str(omniglot_archive), *small, "--out", str(folder)]
    assert main(words) == 0
    return folder


def _copy(model: Path) -> ModuleType:
    """The file that was written beside a model, imported by itself."""
    spec = importlib.util.spec_from_file_location("metarl_classifier", model.with_name(RUNNER))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.thorough
def test_the_command_exports_a_run_with_a_card_and_a_runner(run: Path, tmp_path: Path) -> None:
    model = tmp_path / "cards.onnx"
    assert main(["export", str(run), "--onnx", str(model)]) == 0
    card = json.loads(model.with_suffix(".json").read_text())
    assert (card["learner"], card["data"], card["train_tasks"], card["learns"]) == (
        "Prototypical",
        "omniglot",
        1,
        True,
    )
    assert card["input"] == {"dtype": "float32", "shape": [1, 28, 28]}
    classifier = _copy(model).Classifier(model)
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28), np.uint8)
    classifier.learn(images, ["one", "two", "two", "one"])
    expected = classifier.scores(images)
    classifier.learn((images / 255).astype(np.float32), [5, 7, 7, 5])
    assert classifier.scores(images) == pytest.approx(expected, abs=1e-6)
    assert classifier.classes == [5, 7]


def test_the_copied_file_needs_numpy_and_onnxruntime_alone() -> None:
    text = (Path(__file__).parents[2] / "metarl" / "deploy" / "classifier.py").read_text()
    imports = {
        line.split()[1].split(".")[0] for line in text.splitlines() if line.startswith(("import ", "from "))
    }
    assert imports - sys.stdlib_module_names == {"numpy", "onnxruntime"}


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (lambda: Maml(_dense(4, 3), MamlConfig()), "--support"),
        (lambda: SupportVector(_dense(), SupportVectorConfig()), "--support"),
        (lambda: FineTuning(_dense(), FineTuningConfig()), "--support"),
        (lambda: Prototypical(_conv(), PrototypicalConfig(normalisation="transductive")), "running or frozen"),
    ],
)
def test_what_cannot_be_exported_without_a_support_set_says_so(
    learner: Callable[[], Learner], message: str, tmp_path: Path
) -> None:
    made = learner()
    with pytest.raises(ValueError, match=message):
        export_learner(made, _spec(made), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "learner",
    [
        LabelPropagation(_dense(), LabelPropagationConfig()),
        OptimalTransport(_dense(), OptimalTransportConfig()),
    ],
)
def test_learners_that_judge_queries_together_are_refused(learner: Learner) -> None:
    with pytest.raises(ValueError, match="all queries together"):
        check_learner(learner, has_support=True)


@pytest.mark.thorough
def test_support_sets_that_do_not_fit_are_refused(run: Path, tmp_path: Path) -> None:
    model, arrays = tmp_path / "m.onnx", tmp_path / "support.npz"
    words = ["export", str(run), "--onnx", str(model), "--support", str(arrays)]
    assert main(words) == 2  # no such file
    arrays.write_bytes(b"nothing")
    assert main(words) == 2
    np.savez(arrays, inputs=np.zeros((2, 3)), targets=np.array([0, 1]))
    assert main(words) == 2  # another shape
    np.savez(arrays, inputs=np.zeros((2, 1, 28, 28)), targets=np.array([0, 2]))
    assert main(words) == 2  # a class without examples
    assert sorted(path.name for path in tmp_path.iterdir()) == ["support.npz"]
    maml = Maml(_dense(4, 3), MamlConfig())
    two = Examples.of_one_task(torch.rand(2, 4), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="support set of 3 classes"):
        export_learner(maml, _spec(maml), model, support=two)


def test_a_policy_takes_no_support_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "policy.safetensors").write_bytes(b"")
    words = ["export", str(tmp_path / "policy.safetensors"), "--onnx", str(tmp_path / "m.onnx")]
    assert main([*words, "--support", str(tmp_path)]) == 2
    assert "--support is of few-shot runs" in capsys.readouterr().err
