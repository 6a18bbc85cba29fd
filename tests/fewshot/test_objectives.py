"""Losses and scores are objects: their numbers by hand, and learners that are trained by them."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import metarl
from metarl.experiments.cli import main
from metarl.experiments.fewshot.configuration import (
    OBJECTIVES,
    FewshotExperiment,
    decode,
    encode,
    make_learner,
    with_objective,
)
from metarl.experiments.prepared import experiment
from metarl.experiments.presets.table import FEWSHOT_PRESETS
from metarl.fewshot.data.sinusoids import SinusoidData
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.cavia import CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegressionConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.reptile import ReptileConfig
from metarl.fewshot.learners.siamese import SiameseConfig
from metarl.fewshot.objectives import (
    IGNORED,
    BinaryCrossEntropy,
    ByTargets,
    CrossEntropy,
    GaussianLikelihood,
    Objective,
    SquaredError,
)
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig

OUTPUTS = torch.tensor([[[2.0, 0.0], [0.0, 1.0], [3.0, -1.0]]])
CPU = torch.device("cpu")


def test_cross_entropy_of_classes_and_of_soft_labels() -> None:
    first, second, third = (math.log(1 + math.exp(-gap)) for gap in (2.0, 1.0, 4.0))
    classes = torch.tensor([[0, 1, 1]])
    assert CrossEntropy().losses(OUTPUTS, classes).item() == pytest.approx((first + second + third + 4) / 3)
    assert CrossEntropy().scores(OUTPUTS, classes).item() == pytest.approx(2 / 3)
    soft = torch.tensor([[[1.0, 0.0], [0.25, 0.75], [0.5, 0.5]]])
    expected = (first + 0.75 * second + 0.25 * (second + 1) + third + 2) / 3
    assert CrossEntropy().losses(OUTPUTS, soft).item() == pytest.approx(expected)
    assert CrossEntropy().scores(OUTPUTS, soft).item() == pytest.approx(1.0)  # of equals the first counts
    smooth = CrossEntropy(label_smoothing=0.2).losses(OUTPUTS, classes).item()
    assert smooth == pytest.approx((first + 0.2 + second + 0.1 + third + 4 - 0.4) / 3)


def test_a_single_output_is_no_choice_of_classes() -> None:
    with pytest.raises(ValueError, match="number per class"):
        CrossEntropy().losses(torch.zeros(1, 3, 1), torch.zeros(1, 3, dtype=torch.int64))


def test_padding_counts_neither_in_losses_nor_in_scores() -> None:
    padded = torch.tensor([[0, 1, IGNORED]])
    for objective in (CrossEntropy(), ByTargets()):
        assert torch.equal(
            objective.losses(OUTPUTS, padded), objective.losses(OUTPUTS[:, :2], torch.tensor([[0, 1]]))
        )
        assert objective.scores(OUTPUTS, padded).item() == 1.0


def test_tags_of_sequences_are_means_over_rows_and_places() -> None:
    outputs = torch.stack([OUTPUTS[0], OUTPUTS[0].flip(0)]).unsqueeze(0)  # [task, row, place, class]
    tags = torch.tensor([[[0, 1, IGNORED], [0, 0, 0]]])
    rows = [(OUTPUTS[:, :2], [[0, 1]]), (OUTPUTS.flip(1), [[0, 0, 0]])]
    losses = [CrossEntropy().losses(x, torch.tensor(y)).item() * len(y[0]) for x, y in rows]
    assert CrossEntropy().losses(outputs, tags).item() == pytest.approx(sum(losses) / 5)
    assert CrossEntropy().scores(outputs, tags).item() == pytest.approx(4 / 5)


def test_several_yes_or_no_targets() -> None:
    targets = torch.tensor([[[1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    gaps = torch.tensor([2.0, 0.0, 0.0, 1.0, 3.0, 1.0])
    loss = torch.log1p(torch.exp(-gaps)).mean().item()
    assert BinaryCrossEntropy().losses(OUTPUTS, targets).item() == pytest.approx(loss)
    assert BinaryCrossEntropy().scores(OUTPUTS, targets).item() == pytest.approx(5 / 6)
    assert BinaryCrossEntropy().scores(OUTPUTS / 10, targets).item() == pytest.approx(
        5 / 6
    )  # log-odds of 0.1, too


def test_classes_as_answers_of_yes_and_no() -> None:
    """Rows of classes 0, 1, 1 and one of padding; the third row's greatest output is that of class 0."""
    classes = torch.tensor([[0, 1, 1, IGNORED]])
    outputs = torch.cat([OUTPUTS, torch.full((1, 1, 2), 9.0)], 1)
    answers = torch.nn.functional.one_hot(classes[:, :3], 2).float()
    for objective in (BinaryCrossEntropy(), SquaredError()):
        assert torch.allclose(objective.losses(outputs, classes), objective.losses(OUTPUTS, answers))
        assert objective.scores(outputs, classes).item() == pytest.approx(2 / 3)
        assert objective.score_name(classes) == "accuracy"
        assert not objective.is_error("accuracy")
        with pytest.raises(ValueError, match="number per class"):
            objective.losses(outputs, classes.where(classes == IGNORED, classes + 2))
    assert SquaredError().losses(OUTPUTS, classes[:, :3]).item() == pytest.approx((1 + 0 + 9 + 4) / 6)


@pytest.mark.parametrize("name", ["cross-entropy", "binary-cross-entropy", "squared-error"])
def test_the_command_line_chooses_the_objective_of_classes(name: str) -> None:
    made = experiment("omniglot-maml", "--objective", name)
    assert isinstance(made, FewshotExperiment)
    assert made.objective == OBJECTIVES[name]()
    assert made == replace(FEWSHOT_PRESETS["omniglot-maml"].configuration, objective=made.objective)
    learner, rng = make_learner(made, CPU), np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    few, labels = torch.rand(1, 10, 1, 28, 28, generator=generator), torch.arange(10).unsqueeze(0) % 5
    metrics = learner.update(Episodes(Examples(few, labels), Examples(few, labels)), rng)
    assert 0 <= metrics["train/accuracy_post"] <= 1
    assert math.isfinite(metrics["loss/outer"])


def test_fields_of_an_objective_follow_its_name() -> None:
    words = ["--objective.label-smoothing", "0.25", "--objective", "cross-entropy"]
    for made in (experiment("omniglot-maml", *words), experiment("maml", "--benchmark", "omniglot", *words)):
        assert isinstance(made, FewshotExperiment)
        assert made.objective == CrossEntropy(0.25)
    numbers = experiment("sinusoid-maml", "--objective=gaussian-likelihood", "--objective.min-std=0.5")
    assert isinstance(numbers, FewshotExperiment)
    assert numbers.objective == GaussianLikelihood(0.5)
    smooth = replace(OWN, objective=CrossEntropy(0.5))
    assert with_objective(smooth, "cross-entropy") == smooth


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["sinusoid-maml", "--objective", "huber"],
            "unknown objective 'huber'; known: by-targets, cross-entropy,",
        ),
        (
            ["rl2", "--benchmark", "point", "--objective", "squared-error"],
            "--objective is of few-shot experiments",
        ),
        (["sinusoid-maml", "--objective", "cross-entropy"], "two probabilities or more"),
        (["omniglot-maml", "--objective", "gaussian-likelihood"], "needs tasks of numbers, got classes"),
        (["omniglot-siamese-triplet", "--objective", "squared-error"], "Siamese has a loss of its own"),
    ],
)
def test_objectives_that_cannot_be_are_one_line(
    words: list[str], said: str, omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data.folder", str(omniglot_archive)] if words[0].startswith("omniglot") else []
    data += ["--data.episodes.train-ways", "3", "--data.episodes.num-ways", "3"] if data else []
    data += ["--data.episodes.num-queries", "1", "--data.episodes.train-queries", "1"] if data else []
    assert main(["train", *words, *data, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_gaussian_likelihood_is_that_of_torch() -> None:
    outputs, targets = torch.randn(2, 3, 4), torch.randn(2, 3, 2)
    mean, raw = outputs.chunk(2, -1)
    distribution = torch.distributions.Normal(mean, nn.functional.softplus(raw) + 0.1)
    expected = -(distribution.log_prob(targets) + 0.5 * math.log(2 * math.pi)).mean((1, 2))
    assert torch.allclose(GaussianLikelihood(0.1).losses(outputs, targets), expected)
    assert torch.allclose(GaussianLikelihood(0.1).scores(outputs, targets), (mean - targets).square().mean((1, 2)))
    assert GaussianLikelihood().num_outputs(3) == 6
    with pytest.raises(ValueError, match="means and spreads"):
        GaussianLikelihood().losses(targets, targets)


def test_squared_error_of_whole_images() -> None:
    outputs, targets = torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), 2.0)
    assert SquaredError().losses(outputs, targets).tolist() == [4.0]
    assert SquaredError().scores(outputs, targets).tolist() == [4.0]
    for wrong, said in ((targets[..., :2], "what the targets are"), (targets.long(), "a number per class")):
        with pytest.raises(ValueError, match=said):
            SquaredError().losses(outputs, wrong)


@dataclass(frozen=True)
class Absolute(Objective):
    """Mean absolute error, as a loss and as a score."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).abs().mean((1, 2))

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.losses(outputs, targets)

    def score_name(self, targets: Tensor) -> str:
        return "absolute_error"

    def is_error(self, score_name: str) -> bool:
        return True


FEW = SinusoidData()
TRAINING = FewshotTrainingConfig(iterations=2, updates_per_iteration=2, meta_batch_size=2, evaluate_every=1)
EVALUATION = FewshotEvaluationConfig(num_tasks=3, num_steps=1, training_tasks=2)
OWN = FewshotExperiment(
    FEW, MamlConfig(), training=TRAINING, evaluation=EVALUATION, objective=Absolute(), loggers=("csv",)
)


@pytest.mark.thorough
def test_an_experiment_with_an_objective_of_ones_own_is_trained_evaluated_and_opened(tmp_path: Path) -> None:
    metarl.train(OWN, out=tmp_path / "run")
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert result["adaptation"][1]["absolute_error_mean"] > 0
    assert "train/absolute_error_post" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]
    assert (tmp_path / "run" / "checkpoint.best.pt").exists()
    learner = metarl.open_run(tmp_path / "run", experiment=OWN).agent()
    assert learner.objective == Absolute()


@pytest.mark.parametrize(
    "config",
    [MamlConfig(), CaviaConfig(), ImplicitMamlConfig(inner_steps=1), ReptileConfig(inner_steps=1)],
    ids=lambda config: type(config).__name__,
)
def test_gradient_learners_are_trained_by_a_likelihood(config: LearnerConfig) -> None:
    experiment = FewshotExperiment(FEW, config, objective=GaussianLikelihood())
    learner = make_learner(experiment, CPU)
    episodes = FEW.make(CPU).train.sample(2, np.random.default_rng(0))
    metrics = learner.update(episodes, np.random.default_rng(0))
    assert {"train/mse_post", "train/mse_fitted"} & set(metrics)
    outputs = learner.adapt(episodes.support, 1)[-1](episodes.query.inputs)
    assert outputs.shape == (2, 10, 2)  # a mean and a spread
    name, scores = adaptation_scores(
        learner, FEW.make(CPU).held_out["test"], np.random.default_rng(1), num_tasks=2, num_steps=1
    )
    assert (name, scores.shape) == ("mse", (2, 2))


def test_soft_labels_train_a_learner() -> None:
    rng = np.random.default_rng(0)
    module = nn.Linear(2, 3)
    learner = Maml(module, MamlConfig(outer=OuterConfig(outer_lr=0.1)), objective=CrossEntropy())
    inputs = torch.randn(1, 20, 2, generator=torch.Generator().manual_seed(0))
    soft = (2 * inputs @ torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])).softmax(-1)
    episodes = Episodes(Examples(inputs[:, :10], soft[:, :10]), Examples(inputs[:, 10:], soft[:, 10:]))
    losses = [learner.update(episodes, rng)["loss/outer"] for _ in range(30)]
    assert losses[-1] < losses[0] - 0.2
    assert learner.update(episodes, rng)["train/accuracy_post"] > 0.7


def test_learners_that_compare_take_label_smoothing() -> None:
    torch.manual_seed(0)
    episodes = Episodes(*(Examples(torch.randn(1, 4, 2), torch.tensor([[0, 1, 0, 1]])) for _ in range(2)))
    plain = Prototypical(nn.Linear(2, 2), PrototypicalConfig())
    smooth = Prototypical(plain.network.module, PrototypicalConfig()).trained_by(CrossEntropy(0.5))
    outputs = plain.outer_losses(episodes).outputs
    assert torch.equal(
        smooth.outer_losses(episodes).losses, CrossEntropy(0.5).losses(outputs, episodes.query.targets)
    )
    assert not torch.equal(smooth.outer_losses(episodes).losses, plain.outer_losses(episodes).losses)


def test_objectives_are_written_and_read_with_an_experiment() -> None:
    experiment = FewshotExperiment(FEW, MamlConfig(), objective=GaussianLikelihood(0.5))
    data = encode(experiment)
    assert data["objective"] == {"objective": "gaussian-likelihood", "min_std": 0.5}
    assert decode(data) == experiment
    del data["objective"]  # as the first runs have it
    assert decode(data).objective == ByTargets()


def test_objectives_that_a_learner_does_not_take_are_refused() -> None:
    with pytest.raises(ValueError, match="Siamese has a loss of its own"):
        make_learner(_classes(SiameseConfig()), CPU)
    with pytest.raises(ValueError, match="needs classes, or two probabilities or more, got tasks of 1 number"):
        make_learner(FewshotExperiment(FEW, KernelRegressionConfig(), objective=CrossEntropy()), CPU)
    with pytest.raises(ValueError, match="needs tasks of numbers, got classes"):
        make_learner(replace(_classes(MamlConfig()), objective=GaussianLikelihood()), CPU)


def _classes(config: LearnerConfig) -> FewshotExperiment:
    from metarl.fewshot.data.omniglot import OmniglotData

    return FewshotExperiment(OmniglotData(), config, objective=CrossEntropy(0.1))
