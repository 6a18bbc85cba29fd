"""Fine-tuning on new tasks: what it gains, what early stopping saves it from, and what it leaves as it was."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.experiments.cli import main
from metarl.fewshot import ClassData, ClassEpisodes, Prototypical, PrototypicalConfig
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learners.fine_tuning import FineTuning, FineTuningConfig, choose_inner_lr, mean_entropy
from metarl.fewshot.metric import is_transductive


def _tasks(num_shots: int = 6) -> ClassEpisodes:
    """Classes that differ in two numbers of twelve, the others of which are noise."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.zeros(8, 12)
    centres[:, :2] = 2 * torch.randn(8, 2, generator=generator)
    spread = torch.cat([torch.full((2,), 0.3), torch.full((10,), 2.0)])
    examples = centres.repeat_interleave(30, 0) + spread * torch.randn(240, 12, generator=generator)
    data = ClassData.of(examples, torch.arange(240) // 30)
    return ClassEpisodes(data, num_ways=3, num_shots=num_shots, num_queries=10)


class _Weighted(nn.Module):
    """Features are inputs, each times a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((12,), 0.5))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.weight


def _scores(config: FineTuningConfig, *, num_shots: int = 6) -> np.ndarray:
    learner = FineTuning(_Weighted(), config)
    rng = np.random.default_rng(0)
    return adaptation_scores(learner, _tasks(num_shots), rng, num_tasks=6, num_steps=config.num_rounds)[1]


@pytest.mark.thorough
def test_fine_tuning_learns_what_a_task_is_about() -> None:
    config = FineTuningConfig(num_rounds=2, steps_per_round=10, inner_lr=0.1)
    scores = _scores(config)
    assert scores.shape == (3, 6)
    assert scores[-1].mean() > scores[0].mean() + 0.1


@pytest.mark.thorough
def test_early_stopping_saves_the_weights_from_steps_that_are_too_large() -> None:
    wild = {"num_rounds": 1, "steps_per_round": 15, "inner_lr": 1.0, "inner_optimizer": "sgd"}
    stopped = _scores(FineTuningConfig(**wild))  # type: ignore[arg-type]
    driven = _scores(FineTuningConfig(**wild, early_stopping=False))  # type: ignore[arg-type]
    assert np.array_equal(stopped[0], driven[0])
    assert stopped[1].mean() > driven[1].mean() + 0.05


def test_weights_that_are_no_longer_finite_are_left_for_the_last_that_were() -> None:
    wild = FineTuningConfig(
        num_rounds=2, steps_per_round=8, inner_lr=1e25, inner_optimizer="sgd", early_stopping=False
    )
    learner = FineTuning(_Weighted(), wild)
    support, query = _tasks().sample(1, np.random.default_rng(0))
    steps = learner._steps({"weight": torch.full((12,), 0.5, requires_grad=True)}, support, 16)
    assert not all(bool(loss.isfinite()) for loss in steps)
    assert all(bool(predict(query.inputs).isfinite().all()) for predict in learner.adapt(support, 2))


def test_the_weights_are_those_of_least_loss_on_held_out_support() -> None:
    config = FineTuningConfig(num_rounds=3, steps_per_round=4, inner_lr=0.3)
    learner = FineTuning(_Weighted(), config)
    support, _ = _tasks(3).sample(1, np.random.default_rng(1))
    known, held_out = learner._divided(support)
    assert held_out is not None
    assert held_out.targets.tolist() == [[0, 1, 2]]
    assert known.targets.tolist() == [[0, 0, 1, 1, 2, 2]]
    assert torch.equal(held_out.inputs[0], support.inputs[0, [2, 5, 8]])
    losses = [float(learner._loss(params, known, held_out)) for params in learner.fine_tuned(support, 3)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_one_example_of_a_class_holds_nothing_out() -> None:
    learner = FineTuning(_Weighted(), FineTuningConfig(num_rounds=1, steps_per_round=2, inner_lr=0.01))
    support, _ = _tasks(1).sample(1, np.random.default_rng(1))
    assert learner._divided(support)[1] is None
    start, after = learner.fine_tuned(support, 1)
    assert not torch.equal(start["weight"], after["weight"])


def test_training_is_that_of_prototypical_networks_and_a_task_leaves_no_trace() -> None:
    torch.manual_seed(0)  # of some initial weights early stopping takes no step
    module = nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5))
    plain = Prototypical(copy.deepcopy(module), PrototypicalConfig())
    learner = FineTuning(module, FineTuningConfig(num_rounds=1, steps_per_round=3, inner_lr=0.1))
    rng = np.random.default_rng(0)
    for _ in range(2):
        episodes = _tasks().sample(2, rng)
        assert learner.update(episodes, rng) == plain.update(episodes, rng)
    before = copy.deepcopy(module.state_dict())
    support, query = _tasks().sample(2, rng)
    unadapted, adapted = (predict(query.inputs) for predict in learner.adapt(support, 1))
    assert torch.allclose(unadapted, plain.adapt(support, 0)[0](query.inputs), atol=1e-5)
    assert not torch.allclose(unadapted, adapted, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    again = FineTuning(nn.Sequential(nn.Linear(12, 5), nn.BatchNorm1d(5)), learner.config)
    again.load_state_dict(learner.state_dict())
    assert torch.equal(again.adapt(support, 1)[1](query.inputs), adapted)


def test_images_are_distorted() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 4))
    images = torch.rand(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    support = Examples(images, torch.tensor([[0, 1, 2, 3]]))  # of one example a class none is left out
    changes = []
    for distorted in (True, False):
        config = FineTuningConfig(num_rounds=1, steps_per_round=2, distorted=distorted, early_stopping=False)
        changes.append(FineTuning(network, config).fine_tuned(support, 1)[1])
    assert not torch.equal(changes[0]["0.weight"], changes[1]["0.weight"])


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    with pytest.raises(ValueError, match="running or frozen"):
        FineTuning(
            nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)),
            FineTuningConfig(PrototypicalConfig(normalisation="transductive")),
        )
    learner = FineTuning(_Weighted(), FineTuningConfig())
    episodes: Episodes = _tasks().sample(1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="0 to N - 1"):
        learner.adapt(Examples(episodes.support.inputs, episodes.support.targets + 1), 1)


def test_entropy_by_hand() -> None:
    thirds = torch.log(torch.tensor([[1.0, 2.0], [1.0, 1.0]]))
    first = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert float(mean_entropy(thirds)) == pytest.approx((first + math.log(2)) / 2)
    assert float(mean_entropy(torch.tensor([[0.0, -400.0]]))) == 0.0


def test_a_transductive_step_falls_along_the_gradient_of_cross_entropy_and_entropy() -> None:
    """One step of plain gradients from the weights, against numbers that are differentiated by differences."""
    config = FineTuningConfig(
        num_rounds=1,
        steps_per_round=1,
        inner_lr=0.01,
        inner_optimizer="sgd",
        early_stopping=False,
        entropy_coef=0.7,
    )
    module = _Weighted().double()
    learner = FineTuning(module, config)
    drawn = _tasks(2).sample(1, np.random.default_rng(0))
    support, query = (part._replace(inputs=part.inputs.double()) for part in drawn)

    def objective(weight: Tensor) -> float:
        shown = (support.inputs * weight)[0]
        left_out = torch.tensor([0, 2, 4])  # the first example of each class is classified by the other one
        prototypes = shown[left_out + 1]
        logits = -(shown[left_out][:, None] - prototypes[None]).square().sum(-1)
        loss = nn.functional.cross_entropy(logits, torch.arange(3))
        means = torch.stack([shown[2 * place : 2 * place + 2].mean(0) for place in range(3)])
        outputs = -((query.inputs * weight)[0][:, None] - means[None]).square().sum(-1)
        p = outputs.softmax(-1)
        return float(loss - 0.7 * (p * p.log()).sum(-1).mean())

    start = module.weight.detach().clone()
    slopes = []
    for entry in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[entry] = 1e-6
        slopes.append((objective(start + step) - objective(start - step)) / 2e-6)
    moved = learner.fine_tuned(support, 1, query.inputs)[1]["weight"]
    assert torch.allclose(moved, start - 0.01 * torch.tensor(slopes, dtype=torch.float64), atol=1e-8)
    plain = learner.fine_tuned(support, 1)[1]["weight"]
    assert not torch.allclose(moved, plain, atol=1e-4)


def test_transductive_predictions_depend_on_the_other_queries_and_say_so() -> None:
    support, query = _tasks(3).sample(2, np.random.default_rng(0))
    for entropy_coef, together in ((0.0, False), (1.0, True)):
        config = FineTuningConfig(
            num_rounds=2, steps_per_round=3, inner_lr=0.1, early_stopping=False, entropy_coef=entropy_coef
        )
        learner = FineTuning(_Weighted(), config)
        assert is_transductive(learner) == together
        predictors = learner.adapt(support, 2)
        whole, half = (predictors[2](query.inputs[:, :rows]) for rows in (30, 15))
        assert torch.allclose(whole[:, :15], half) != together
        assert torch.equal(predictors[2](query.inputs), whole)  # whatever was asked for before
        unadapted = [predictors[0](query.inputs[:, :rows])[:, :15] for rows in (30, 15)]
        assert torch.allclose(*unadapted)


def test_entropy_of_the_queries_falls_over_transductive_rounds() -> None:
    config = FineTuningConfig(
        num_rounds=3, steps_per_round=5, inner_lr=0.05, entropy_coef=5.0, early_stopping=False
    )
    learner = FineTuning(_Weighted(), config)
    support, query = _tasks(3).sample(1, np.random.default_rng(4))
    entropies = [float(mean_entropy(predict(query.inputs))) for predict in learner.adapt(support, 3)]
    assert entropies == sorted(entropies, reverse=True)
    assert entropies[0] > 2 * entropies[-1] > 0


def test_the_step_size_is_the_best_on_validation_tasks() -> None:
    choices = (10.0, 0.1, 0.0)
    config = FineTuningConfig(
        num_rounds=1,
        steps_per_round=10,
        inner_lr=7.0,
        inner_optimizer="sgd",
        early_stopping=False,
        inner_lr_choices=choices,
        choice_tasks=6,
    )
    learner, source = FineTuning(_Weighted(), config), _tasks(3)
    scores = choose_inner_lr(learner, source, np.random.default_rng(5), num_steps=1)
    assert learner.config == replace(config, inner_lr=0.1)
    for inner_lr, score in scores.items():
        alone = FineTuning(_Weighted(), replace(config, inner_lr=inner_lr))
        support, query = source.sample(6, np.random.default_rng(5))
        right = alone.adapt(support, 1)[1](query.inputs).argmax(-1) == query.targets
        assert score == pytest.approx(float(right.float().mean()))
    assert scores[0.1] > scores[0.0] + 0.02
    assert scores[0.1] > scores[10.0]
    assert set(scores) == set(choices)
    far = ClassEpisodes(
        ClassData.of(torch.arange(4.0).repeat_interleave(5)[:, None].expand(-1, 12), torch.arange(20) // 5),
        num_ways=3,
        num_shots=2,
        num_queries=2,
    )
    assert set(choose_inner_lr(learner, far, np.random.default_rng(0), num_steps=1).values()) == {1.0}
    assert learner.config.inner_lr == 0.0  # of equals the least
    learner.config = replace(learner.config, inner_lr_choices=())
    with pytest.raises(ValueError, match="set inner_lr_choices"):
        choose_inner_lr(learner, far, np.random.default_rng(0), num_steps=1)


@pytest.mark.thorough
def test_an_evaluation_chooses_the_step_size_and_says_it(
    omniglot_archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        *("--training.iterations", "1", "--training.updates-per-iteration", "1", "--training.evaluate-every", "0"),
        *("--evaluation.num-tasks", "2", "--evaluation.num-steps", "1", "--backbone.num-filters", "4"),
        *("--data.episodes.num-ways", "3", "--data.episodes.num-queries", "2", "--data.episodes.train-ways", "3"),
        *("--data.episodes.train-queries", "2", "--data.folder", str(omniglot_archive)),
        *("--learner.inner-lr-choices", "0", "0.01", "--learner.choice-tasks", "2", "--learner.entropy-coef", "1"),
        *("--learner.steps-per-round", "1"),
    ]
    assert main(["train", "omniglot-fine-tuning", *words, "--out", str(tmp_path / "run")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "transductive" in shown
    result = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert set(result["inner_lr_scores"]) == {"0.0", "0.01"}
    assert f"step size {result['inner_lr']:g}, chosen on validation tasks" in shown
    assert result["transductive"] is True
    figures = tmp_path / "figures"
    assert main(["diagnose", str(tmp_path / "run"), "--num-tasks", "2", "--figures", str(figures)]) == 0
    assert (figures / "embedding.png").exists()  # of the features before they are fine-tuned
    without = [*words, "--data.train-on-validation", "True"]
    assert main(["train", "omniglot-fine-tuning", *without, "--out", str(tmp_path / "other")]) == 2
    assert "chosen on validation tasks, of which the data have none" in capsys.readouterr().err


def test_choices_that_are_no_step_sizes_are_refused() -> None:
    for wrong in ((-0.1,), (float("nan"), 0.1)):
        with pytest.raises(ValueError, match="zero or more each"):
            FineTuningConfig(inner_lr_choices=wrong)
    with pytest.raises(ValueError, match="entropy_coef"):
        FineTuningConfig(entropy_coef=-1.0)
