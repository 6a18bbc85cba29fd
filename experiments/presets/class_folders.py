"""The few-shot experiments on folders of images, one folder per class, each with its source."""

from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.presets.preset import ANNEALED, FewshotPresets, Preset
from metarl.fewshot.backbones import StandardBackbone
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.images import ClassFolderData
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.learners.prototypical import PrototypicalConfig
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig

CLASS_FOLDERS: FewshotPresets = {
    "class-folders-maml": Preset(
        FewshotExperiment(
            ClassFolderData(),
            MamlConfig(inner_lr=0.05, inner_steps=5, outer=OuterConfig(max_grad=10.0)),
            backbone=StandardBackbone(num_filters=32),
            training=FewshotTrainingConfig(iterations=1200, updates_per_iteration=50, meta_batch_size=4),
        ),
        "Finn et al. 2017 on miniImageNet; their step size 0.01 is 0.05 of a mean loss",
    ),
    "class-folders-protonet": Preset(
        FewshotExperiment(
            ClassFolderData(episodes=EpisodesConfig(train_ways=20)),
            PrototypicalConfig(outer=ANNEALED),
            training=FewshotTrainingConfig(iterations=400, updates_per_iteration=50, meta_batch_size=1),
            evaluation=FewshotEvaluationConfig(num_steps=0),
        ),
        "Snell et al. 2017 on miniImageNet, 20-way training",
    ),
}
