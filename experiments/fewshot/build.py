"""From a few-shot experiment's configuration to tasks and a learner."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from metarl.experiments.fewshot.configuration import (
    Augmented,
    BackboneConfig,
    ClassFolderData,
    CurveData,
    EpisodesConfig,
    FewshotExperiment,
    HarmonicData,
    LearnerConfig,
    OmniglotData,
    SinusoidData,
)
from metarl.fewshot.backbones import Autocast, FilmConv4, conv4, regression_mlp
from metarl.fewshot.data.classes import Augmentation, ClassData, ClassEpisodes, Distortion
from metarl.fewshot.data.images import Splits, read_class_folders
from metarl.fewshot.data.omniglot import read_omniglot
from metarl.fewshot.data.sinusoids import Harmonics, Sinusoids
from metarl.fewshot.learner import Learner
from metarl.fewshot.learners.adml import Adml, AdmlConfig
from metarl.fewshot.learners.cavia import Cavia, CaviaConfig, ContextAsInput
from metarl.fewshot.learners.implicit_maml import ImplicitMaml, ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegression, KernelRegressionConfig
from metarl.fewshot.learners.maml import Maml, MamlConfig
from metarl.fewshot.learners.matching import Matching, MatchingConfig
from metarl.fewshot.learners.proto_maml import ProtoMaml, ProtoMamlConfig
from metarl.fewshot.learners.prototypical import Prototypical, PrototypicalConfig
from metarl.fewshot.learners.relation import Relation, RelationConfig, relation_module
from metarl.fewshot.learners.reptile import Reptile, ReptileConfig
from metarl.fewshot.learners.siamese import Siamese, SiameseConfig
from metarl.fewshot.training import FewshotTrainingConfig, Sources
from metarl.runs.seeding import torch_generator

_AUGMENTATIONS: dict[Augmented, Augmentation | None] = {
    "none": None,
    "images": Augmentation(),
    "classes": Augmentation(
        images=Distortion(),
        classes=Distortion(max_rotation=30.0, max_shift=0.0, max_scaling=0.2, max_shear=0.4, mirrored=True),
    ),
}
_COMPARING_IMAGES = (PrototypicalConfig, MatchingConfig, RelationConfig, SiameseConfig)


def make_sources(experiment: FewshotExperiment, device: torch.device) -> Sources:
    """The tasks of an experiment.

    Raises:
        ValueError: if images are missing or damaged, or too few for the ways and shots.
    """
    data = experiment.data
    if isinstance(data, SinusoidData):
        held_out = Sinusoids(data.num_shots, 100, even_queries=True, device=str(device))
        return Sources(Sinusoids(data.num_shots, data.train_queries, device=str(device)), {"test": held_out})
    if isinstance(data, HarmonicData):
        test = Harmonics(data.num_shots, 100, noise=0.0, device=str(device))
        return Sources(Harmonics(data.num_shots, data.train_queries, device=str(device)), {"test": test})
    if isinstance(data, ClassFolderData):
        folder, split_file = Path(data.folder), Path(data.split_file)
        splits = read_class_folders(folder, split_file, size=data.size, colour=data.colour, device=device)
        return _class_sources(splits, splits.train, data.episodes, augmented=data.augmentation)
    splits = read_omniglot(Path(data.folder), data.split, size=data.size, resize=data.resize, device=device)
    if data.train_on_validation:
        both = _both(splits.train, splits.validation)
        splits = splits._replace(train=both, validation=splits.validation.select([]))  # none is held out any more
    if data.rotations == "all":
        splits = Splits(*(part.with_rotations() if part.names else part for part in splits))
    train = splits.train.with_rotations() if data.rotations == "train" else splits.train
    return _class_sources(splits, train, data.episodes, augmented=data.augmentation)


def _both(first: ClassData, second: ClassData) -> ClassData:
    examples = torch.cat([first.examples, second.examples])
    return ClassData(first.names + second.names, examples, torch.cat([first.counts, second.counts]))


def _class_sources(splits: Splits, train: ClassData, episodes: EpisodesConfig, *, augmented: Augmented) -> Sources:
    """Training episodes from some classes, and plain ones from every split that has any."""

    def source(name: str, part: ClassData, sizes: tuple[int, int, int], kind: Augmented) -> ClassEpisodes:
        ways, shots, queries = sizes
        try:
            return ClassEpisodes(
                part, num_ways=ways, num_shots=shots, num_queries=queries, augmentation=_AUGMENTATIONS[kind]
            )
        except ValueError as error:
            raise ValueError(f"{name} classes: {error}") from error

    tested = (episodes.num_ways, episodes.num_shots, episodes.num_queries)
    asked = (episodes.train_ways, episodes.train_shots, episodes.train_queries)
    ways, shots, queries = (mine or other for mine, other in zip(asked, tested, strict=True))
    held_out = {name: source(name, part, tested, "none") for name, part in splits._asdict().items() if part.names}
    return Sources(source("train", train, (ways, shots, queries), augmented), dict(held_out))


def make_learner(experiment: FewshotExperiment, device: torch.device) -> Learner:
    """The untrained learner of an experiment; its initial weights follow from the seed.

    Raises:
        ValueError: if the learner does not fit the data.
    """
    config, precision, views = experiment.learner, experiment.backbone.precision, experiment.evaluation.views
    if precision != "float32" and not isinstance(config, _COMPARING_IMAGES):
        raise ValueError(f"precision must be float32 for learners that do not compare images, got {precision}")
    if views > 1 and not (isinstance(config, _COMPARING_IMAGES) and config.normalisation == "running"):
        raise ValueError(f"views must be 1 unless images are compared and norms are running averages, got {views}")
    generator = torch_generator(experiment.seed)
    experiment = replace(experiment, learner=_annealed(experiment.learner, experiment.training))
    if isinstance(experiment.data, CurveData):
        return _regression_learner(experiment, generator, device)
    return _image_learner(experiment, experiment.data, generator, device)


def _annealed(config: LearnerConfig, training: FewshotTrainingConfig) -> LearnerConfig:
    """The configuration; the outer step size is annealed over the whole run unless it says over what."""
    updates = training.iterations * training.updates_per_iteration
    if isinstance(config, ReptileConfig):
        return config if config.annealing_updates is not None else replace(config, annealing_updates=updates)
    if isinstance(config, AdmlConfig):
        maml = _annealed(config.maml, training)
        assert isinstance(maml, MamlConfig)
        return replace(config, maml=maml)
    if config.outer.final_lr is None or config.outer.annealing_steps is not None:
        return config
    return replace(config, outer=replace(config.outer, annealing_steps=updates))


def _regression_learner(
    experiment: FewshotExperiment, generator: torch.Generator, device: torch.device
) -> Learner:
    config, sizes = experiment.learner, experiment.backbone.hidden_sizes

    def network(num_inputs: int = 1, num_outputs: int = 1) -> nn.Module:
        return regression_mlp(num_inputs, num_outputs, hidden_sizes=sizes, generator=generator).to(device)

    if isinstance(config, CaviaConfig):
        return Cavia(ContextAsInput(network(1 + config.num_context)), config)
    if isinstance(config, KernelRegressionConfig):
        return KernelRegression(network(1, experiment.backbone.num_features), config)
    learner = _with_last_layer(config, network())
    if learner is None:
        raise ValueError(f"{type(config).__name__} classifies; sinusoids and harmonics are numbers to predict")
    return learner


def _with_last_layer(config: object, network: nn.Module) -> Learner | None:
    """A learner whose network puts out predictions, if the configuration is of one."""
    if isinstance(config, MamlConfig):
        return Maml(network, config)
    if isinstance(config, ReptileConfig):
        return Reptile(network, config)
    if isinstance(config, ImplicitMamlConfig):
        return ImplicitMaml(network, config)
    if isinstance(config, AdmlConfig):
        return Adml(network, config)
    return None


def _image_learner(
    experiment: FewshotExperiment,
    data: OmniglotData | ClassFolderData,
    generator: torch.Generator,
    device: torch.device,
) -> Learner:
    config, backbone = experiment.learner, experiment.backbone
    channels = 3 if isinstance(data, ClassFolderData) and data.colour else 1
    fixed_ways = isinstance(config, MamlConfig | ReptileConfig | ImplicitMamlConfig | AdmlConfig | CaviaConfig)
    episodes = data.episodes
    if fixed_ways and episodes.train_ways not in (None, episodes.num_ways):
        raise ValueError(
            f"the network's last layer has one output per way: train_ways must be num_ways, {episodes.num_ways}, "
            f"got {episodes.train_ways}; or take a learner that compares features"
        )
    if isinstance(config, CaviaConfig):
        film = FilmConv4(
            episodes.num_ways,
            config.num_context,
            num_channels=channels,
            num_filters=backbone.num_filters,
            image_size=data.size,
            downsampling=backbone.downsampling,
            rectified=backbone.rectified,
            generator=generator,
        )
        return Cavia(film.to(device), config)
    network = conv4(
        episodes.num_ways if fixed_ways else None,
        num_channels=channels,
        num_filters=backbone.num_filters,
        image_size=data.size,
        downsampling=backbone.downsampling,
        num_halvings=3 if isinstance(config, RelationConfig) else 4,
        rectified=backbone.rectified,
        generator=generator,
    ).to(device)
    if isinstance(config, RelationConfig):
        size = data.size // 8 if backbone.downsampling == "pool" else 1
        relation = relation_module(backbone.num_filters, size, num_hidden=config.num_hidden, generator=generator)
        return Relation(_precise(network[:-1], backbone), config, relation=relation.to(device))
    learner = _with_last_layer(config, network) or _comparing(config, _precise(network, backbone), generator)
    if learner is None:
        raise ValueError(f"{type(config).__name__} predicts numbers; images have classes")
    return learner


def _precise(network: nn.Module, backbone: BackboneConfig) -> nn.Module:
    """The network in the precision that was asked for."""
    return network if backbone.precision == "float32" else Autocast(network)


def _comparing(config: object, network: nn.Module, generator: torch.Generator) -> Learner | None:
    """A learner whose network puts out features, if the configuration is of one."""
    if isinstance(config, PrototypicalConfig):
        return Prototypical(network, config)
    if isinstance(config, MatchingConfig):
        return Matching(network, config, generator=generator)
    if isinstance(config, SiameseConfig):
        return Siamese(network, config)
    if isinstance(config, ProtoMamlConfig):
        return ProtoMaml(network, config)
    return None
