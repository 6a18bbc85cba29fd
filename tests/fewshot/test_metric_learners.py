"""The metric learners against closed forms and plain loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metarl.fewshot import learn_task
from metarl.fewshot.backbones import Autocast, conv4
from metarl.fewshot.data.augmentation import Augmentation
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.episodes import Episodes, Examples
from metarl.fewshot.evaluation import adaptation_scores
from metarl.fewshot.learners.kernel_regression import KernelRegression, KernelRegressionConfig
from metarl.fewshot.learners.matching import FullContext, Matching, MatchingConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig, relation_module
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig, contrastive_loss, triplet_loss
from metarl.fewshot.objectives import task_scores


class _Frozen(nn.Module):
    """Features are the inputs themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def _features(seed: int, rows: int, size: int = 4) -> Tensor:
    return torch.randn(2, rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TARGETS = torch.tensor([[0, 0, 1, 1, 2, 2], [2, 0, 1, 1, 0, 2]])


def test_a_prototypical_network_is_a_linear_classifier() -> None:
    # -|z - p|^2 = 2 p'z - |p|^2 - |z|^2, and |z|^2 is the same for all classes
    support, query = _features(0, 6), _features(1, 5)
    logits = Prototypical(_Frozen(), PrototypicalConfig()).outputs(support, TARGETS, query)
    for task in range(2):
        p = torch.stack([support[task][TARGETS[task] == c].mean(0) for c in range(3)])
        linear = query[task] @ (2 * p).T - p.square().sum(1)
        assert torch.allclose(logits[task].softmax(1), linear.softmax(1), atol=1e-12)
        assert torch.allclose(logits[task], -torch.cdist(query[task], p).square(), atol=1e-9)


def test_cosine_prototypes_by_hand() -> None:
    support, query = _features(0, 6).float(), _features(1, 5).float()
    learner = Prototypical(_Frozen(), PrototypicalConfig(distance="cosine", scale=7.0))
    logits = learner.outputs(support, TARGETS, query)
    p = support[0][TARGETS[0] == 2].mean(0)
    expected = 7.0 * nn.functional.cosine_similarity(query[0, 3], p, dim=0)
    assert logits[0, 3, 2].item() == pytest.approx(expected.item(), rel=1e-5)


def test_gaussian_prototypes_by_hand() -> None:
    support, query = _features(0, 6, 6), _features(1, 5, 6)
    logits = Prototypical(_Frozen(), PrototypicalConfig(distance="gaussian")).outputs(support, TARGETS, query)
    members = support[1][TARGETS[1] == 0]
    z, s = members[:, :3], 1 + nn.functional.softplus(members[:, 3:])
    p = (s * z).sum(0) / s.sum(0)
    distance = ((query[1, 4, :3] - p).square() * s.sum(0)).sum()
    assert logits[1, 4, 0].item() == pytest.approx(-distance.item(), rel=1e-9)


@pytest.mark.parametrize("name", ["squared_euclidean", "gaussian", "kernel regression"])
def test_features_far_from_zero_are_told_apart_in_float32(name: str) -> None:
    support, query = (100 + 0.01 * _features(seed, rows, 64).float() for seed, rows in ((0, 6), (1, 5)))
    if name == "kernel regression":
        learner = KernelRegression(_Frozen(), KernelRegressionConfig(temperature=0.001))
        targets = torch.arange(12.0).view(2, 6, 1)
    else:
        learner = Prototypical(_Frozen(), PrototypicalConfig(distance=name))  # type: ignore[arg-type]
        targets = TARGETS
    outputs = learner.outputs(support, targets, query).detach()
    exact = targets if name != "kernel regression" else targets.double()
    learner.head.double()
    expected = learner.outputs(support.double(), exact, query.double()).detach()
    assert float(expected.std()) > 1e-4
    assert torch.allclose(outputs.double(), expected, rtol=0.01)


def test_kernel_regression_is_a_weighted_mean() -> None:
    support, query = _features(0, 6).float(), _features(1, 5).float()
    values = torch.arange(12.0).view(2, 6, 1)
    learner = KernelRegression(_Frozen(), KernelRegressionConfig(temperature=2.0))
    outputs = learner.outputs(support, values, query)
    weights = torch.exp(-(support[1] - query[1, 2]).square().sum(1) / 2)
    assert outputs[1, 2, 0].item() == pytest.approx(
        float((weights * values[1, :, 0]).sum() / weights.sum()), rel=1e-4
    )


def test_matching_networks_sum_the_attention_of_each_class() -> None:
    support, query = _features(0, 6).float(), _features(1, 5).float()
    learner = Matching(_Frozen(), MatchingConfig(scale=3.0), generator=torch.Generator())
    outputs = learner.outputs(support, TARGETS, query)
    assert torch.allclose(outputs.exp().sum(-1), torch.ones(2, 5), atol=1e-5)
    attention = (3 * nn.functional.cosine_similarity(support[1], query[1, 2].unsqueeze(0))).softmax(0)
    assert outputs[1, 2, 0].exp().item() == pytest.approx(float(attention[TARGETS[1] == 0].sum()), rel=1e-5)


def test_full_context_embeddings_see_the_whole_support_set() -> None:
    support, query = _features(0, 6).float(), _features(1, 5).float()
    config = MatchingConfig(full_context=True, num_features=4)
    learner = Matching(_Frozen(), config, generator=torch.Generator().manual_seed(0))
    assert learner.head.context is not None
    keys, _ = learner.head.context(support, query)
    changed = support.clone()
    changed[:, -1] += 1
    other_keys, _ = learner.head.context(changed, query)
    assert not torch.allclose(keys[:, 0], other_keys[:, 0])
    with pytest.raises(ValueError, match="made for 4 features, the backbone puts out 6; set num_features"):
        learner.outputs(_features(0, 6, 6).float(), TARGETS, _features(1, 5, 6).float())


def _one_by_one(context: FullContext, support: Tensor, query: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Full context embeddings of one task and one query, read off the paper's appendix A."""
    states, _ = context.support_lstm(support)
    keys = states[:, :4] + states[:, 4:] + support
    hidden, cell = query, torch.zeros(4)
    for _ in range(num_steps):
        attention = torch.stack([hidden @ key for key in keys]).softmax(0)
        read = sum((a * key for a, key in zip(attention, keys, strict=True)), torch.zeros(4))
        plain, cell = context.query_lstm(torch.cat([query, read]), (hidden, cell))
        hidden = plain + query
    return keys, hidden


def test_full_context_embeddings_equal_those_of_one_query_at_a_time() -> None:
    support, query = _features(0, 6).float(), _features(1, 5).float()
    context = FullContext(4, 3, torch.Generator().manual_seed(0))
    keys, hidden = context(support, query)
    for task, row in ((0, 0), (1, 4)):
        expected = _one_by_one(context, support[task], query[task, row], 3)
        assert torch.allclose(keys[task], expected[0], atol=1e-6)
        assert torch.allclose(hidden[task, row], expected[1], atol=1e-6)


def test_full_context_embeddings_are_the_features_themselves_where_the_lstms_say_nothing() -> None:
    """An LSTM whose weights are zero puts out zeros: what is left are the skip connections."""
    support, query = _features(0, 6).float(), _features(1, 5).float()
    context = FullContext(4, 3, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in context.parameters():
            p.zero_()
    keys, hidden = context(support, query)
    assert torch.equal(keys, support)
    assert torch.equal(hidden, query)


def test_a_relation_networks_class_is_the_mean_of_its_maps() -> None:
    class Total(nn.Module):
        def forward(self, pairs: Tensor) -> Tensor:
            first, second = pairs.flatten(1).chunk(2, 1)
            return (first.sum(1) + 1000 * second.sum(1)).unsqueeze(1)

    support, query = (_features(seed, rows).view(2, rows, 1, 2, 2) for seed, rows in ((0, 6), (1, 5)))
    outputs = Relation(_Frozen(), RelationConfig(), relation=Total()).outputs(support, TARGETS, query)
    members = support[1][TARGETS[1] == 2]
    expected = members.sum() / len(members) + 1000 * query[1, 3].sum()
    assert outputs[1, 3, 2].item() == pytest.approx(expected.item())


def test_siamese_losses_by_hand() -> None:
    # Three examples, the first two of one class, at 0, 1 and 3 on a line.
    places = torch.tensor([0.0, 1.0, 3.0])
    apart = (places.unsqueeze(0) - places.unsqueeze(1)).abs().unsqueeze(0)
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]]).unsqueeze(0)
    positive = same & ~torch.eye(3, dtype=torch.bool)
    # Pairs within: 1^2. Pairs between: distances 3 and 2, margin 2.5: one is far enough, the other has 0.5^2.
    assert contrastive_loss(apart, positive, ~same, 2.5).item() == pytest.approx(1 + 0.25)
    assert contrastive_loss(apart, positive, ~same, 1.5).item() == pytest.approx(1.0)
    # Triplets (0, 1, 2) and (1, 0, 2): 1 - 3 + 2.5 and 1 - 2 + 2.5.
    assert triplet_loss(apart, positive, ~same, 2.5).item() == pytest.approx(1.0)
    # With margin 1.5 the first is satisfied, and only the second counts.
    assert triplet_loss(apart, positive, ~same, 1.5).item() == pytest.approx(0.5)


def test_a_relation_networks_loss_is_the_squared_error_of_scores_between_0_and_1() -> None:
    support, query = (_features(seed, 3).view(2, 3, 1, 2, 2) for seed in (0, 1))
    targets = torch.tensor([[0, 1, 2], [2, 0, 1]])
    learner = Relation(_Frozen(), RelationConfig(), relation=nn.Identity())
    outputs = _features(2, 3, 3)
    measured = learner.losses(
        support, query, outputs, Episodes(Examples(support, targets), Examples(query, targets))
    )
    errors = [
        (1 / (1 + math.exp(-float(outputs[1, row, way]))) - float(targets[1, row] == way)) ** 2
        for row in range(3)
        for way in range(3)
    ]
    assert measured[1].item() == pytest.approx(sum(errors) / 9)


@pytest.mark.parametrize("normalisation", ["transductive", "support", "running"])
def test_comparing_a_query_depends_on_other_queries_only_where_it_says_so(normalisation: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh()).double()
    learner = Prototypical(network, PrototypicalConfig(normalisation=normalisation))  # type: ignore[arg-type]
    support, query = _features(0, 6), _features(1, 5)
    predict = learner.adapt(Examples(support, TARGETS), 0)[0]
    alone = torch.allclose(predict(query[:, :2]), predict(query)[:, :2], atol=1e-9)
    assert alone == (normalisation != "transductive")


@pytest.mark.parametrize("loss", ["contrastive", "triplet"])
def test_siamese_pairs_are_of_two_examples_never_of_one_with_itself(loss: str) -> None:
    """The loss of support and query features against loops over all pairs, or triplets, of different examples."""
    support, query = _features(0, 3)[:1], _features(1, 3)[:1]
    targets = torch.tensor([[0, 1, 2]])
    learner = Siamese(_Frozen(), SiameseConfig(loss=loss, margin=1.5))  # type: ignore[arg-type]
    episodes = Episodes(Examples(support, targets), Examples(query, targets))
    measured = learner.losses(support, query, learner.outputs(support, targets, query), episodes)
    points = nn.functional.normalize(torch.cat([support, query], 1)[0], dim=-1)
    apart = torch.cdist(points, points)
    classes = [0, 1, 2, 0, 1, 2]
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    if loss == "contrastive":
        near = [float(apart[i, j] ** 2) for i, j in pairs if classes[i] == classes[j]]
        far = [float(1.5 - apart[i, j]) ** 2 for i, j in pairs if classes[i] != classes[j] and apart[i, j] < 1.5]
        assert len(near) == 6
        assert 0 < len(far) < 24
        expected = sum(near) / len(near) + sum(far) / len(far)
    else:
        violations = [
            float(apart[a, p] - apart[a, n] + 1.5)
            for a, p in pairs
            if classes[a] == classes[p]
            for n in range(6)
            if classes[n] != classes[a] and apart[a, p] - apart[a, n] + 1.5 > 0
        ]
        assert violations
        expected = sum(violations) / len(violations)
    assert measured.item() == pytest.approx(expected, abs=1e-6)


def test_siamese_outputs_are_mean_distances_to_a_class() -> None:
    support, query = _features(0, 6), _features(1, 5)
    outputs = Siamese(_Frozen(), SiameseConfig()).outputs(support, TARGETS, query)
    members = nn.functional.normalize(support[1][TARGETS[1] == 2], dim=-1)
    apart = (nn.functional.normalize(query[1, 3], dim=-1) - members).norm(dim=-1)
    assert outputs[1, 3, 2].item() == pytest.approx(-apart.mean().item(), abs=1e-6)


def test_proto_maml_starts_as_a_prototypical_network() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    support, query = _features(0, 6), _features(1, 5)
    proto = ProtoMaml(network, ProtoMamlConfig(inner_steps=1)).adapt(Examples(support, TARGETS), 1)
    plain = Prototypical(network, PrototypicalConfig(normalisation="transductive"))
    expected = plain.adapt(Examples(support, TARGETS), 0)[0](query)
    assert torch.allclose(proto[0](query).softmax(-1), expected.softmax(-1), atol=1e-12)
    assert not torch.allclose(proto[1](query).softmax(-1), expected.softmax(-1), atol=1e-3)


@pytest.mark.parametrize("normalisation", ["running", "transductive"])
def test_embedding_each_example_once_scores_the_same(normalisation: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh())
    config = PrototypicalConfig(normalisation=normalisation)  # type: ignore[arg-type]
    learner = Prototypical(network, config)
    data = ClassData.of(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) // 5)
    source = ClassEpisodes(data, num_ways=3, num_shots=1, num_queries=3)
    learner.update(source.sample(4, np.random.default_rng(0)), np.random.default_rng(0))
    assert learner.embeds_rows_alone == (normalisation == "running")
    scores = adaptation_scores(learner, source, np.random.default_rng(1), num_tasks=20, num_steps=0)[1]
    episodes = source.sample(20, np.random.default_rng(1))
    outputs = learner.adapt(episodes.support, 0)[0](episodes.query.inputs)
    assert np.allclose(scores[0], task_scores(outputs, episodes.query.targets).numpy())


def test_views_are_the_mean_of_an_image_and_distorted_copies() -> None:
    torch.manual_seed(0)
    learner = Prototypical(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), PrototypicalConfig())
    images = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    source = ClassEpisodes(ClassData.of(images, torch.arange(20) // 5), num_ways=3, num_shots=1, num_queries=3)
    one = learner.features(images)
    two, three = (learner.embed_classes(source, views=views).data.examples for views in (2, 3))
    generator = torch.Generator().manual_seed(0)
    copies = [learner.network.pooled(Augmentation()(images, None, generator)) for _ in range(2)]
    assert torch.allclose(two, (one + copies[0]) / 2, atol=1e-6)
    assert torch.allclose(three, (one + copies[0] + copies[1]) / 3, atol=1e-6)
    assert not torch.allclose(one, two, atol=1e-2)


def test_views_of_what_is_no_image_or_not_embedded_alone_are_refused() -> None:
    data = ClassData.of(torch.rand(20, 4, generator=torch.Generator().manual_seed(0)), torch.arange(20) // 5)
    source = ClassEpisodes(data, num_ways=3, num_shots=1, num_queries=3)
    network = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    sizes = {"num_tasks": 2, "num_steps": 0, "views": 2}
    with pytest.raises(ValueError, match=r"views must be 1 of examples that are no images, got 2 of shape \(4,\)"):
        adaptation_scores(Prototypical(network, PrototypicalConfig()), source, np.random.default_rng(0), **sizes)
    learner = Prototypical(network, PrototypicalConfig(normalisation="transductive"))
    with pytest.raises(ValueError, match="views must be 1 for Prototypical, got 2"):
        adaptation_scores(learner, source, np.random.default_rng(0), **sizes)


def test_running_averages_are_trained_and_then_used() -> None:
    network = nn.Sequential(nn.BatchNorm1d(4, affine=True, momentum=0.5))
    learner = Prototypical(network, PrototypicalConfig())
    inputs = 5 + torch.randn(1, 400, 4, generator=torch.Generator().manual_seed(0))
    learner.network.pooled(inputs.flatten(0, 1))
    mean = network[0].running_mean
    assert mean is not None
    assert torch.allclose(mean, inputs[0].mean(0) * 0.5, atol=1e-5)
    with learner.network.evaluating():
        used = learner.network.pooled(inputs.flatten(0, 1))
    var = network[0].running_var
    assert var is not None
    assert torch.allclose(used, (inputs[0] - mean) / (var + 1e-5).sqrt(), atol=1e-5)
    assert math.isclose(float(mean.mean()), 2.5, abs_tol=0.1)


def test_features_without_their_last_relu_have_signs() -> None:
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    rectified, signed = (
        conv4(None, num_filters=3, rectified=last, generator=generator)
        for last, generator in zip((True, False), generators, strict=True)
    )
    images = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    for network in (rectified, signed):
        nn.init.constant_(network[3][1].bias, -1.0)  # the largest of four places is rarely below the mean
    assert signed(images).min() < 0
    assert torch.equal(signed(images).relu(), rectified(images))


def test_images_of_one_channel_are_taken_channels_last() -> None:
    layouts = []
    network = conv4(None, num_filters=3, generator=torch.Generator().manual_seed(0))
    learner = Prototypical(network, PrototypicalConfig())
    for layer in learner.network.module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda _, __, outputs: layouts.append(outputs.is_contiguous(memory_format=torch.channels_last))
            )
    images = torch.rand(1, 6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    learner.adapt(Examples(images, torch.arange(6)[None]), 0)[0](images)
    assert layouts == [True] * 4


def test_bfloat16_leaves_parameters_and_outputs_in_float32_and_agrees_to_its_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    network = conv4(None, num_filters=8, generator=generator)
    images = torch.rand(12, 1, 28, 28, generator=generator)
    plain, quick = network(images), Autocast(network)(images)
    assert quick.dtype == torch.float32
    difference = float((quick - plain).detach().abs().max() / plain.detach().abs().max())
    assert 1e-6 < difference < 0.05
    quick.sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


@pytest.mark.parametrize("targets", [[0, 0, 2, 2], [3, 3, 7, 7]])
def test_labels_that_are_not_the_first_numbers_are_an_error(targets: list[int]) -> None:
    inputs = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    network = nn.Linear(4, 6)
    for learner in (
        Prototypical(network, PrototypicalConfig()),
        Prototypical(network, PrototypicalConfig(distance="gaussian")),
        Siamese(network, SiameseConfig()),
        ProtoMaml(network, ProtoMamlConfig()),
    ):
        with pytest.raises(ValueError, match=r"targets must be classes 0 to N - 1, .* got \["):
            learn_task(learner, inputs, torch.tensor(targets))


def test_a_relation_of_running_averages_is_not_called_otherwise() -> None:
    relation = relation_module(2, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="normalisation must be 'running', got 'transductive'"):
        Relation(nn.Conv2d(1, 2, 3), RelationConfig(normalisation="transductive"), relation=relation)
