"""The few-shot experiments on tables of features, each with its source."""

from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.presets.preset import ANNEALED, FewshotPresets, Preset
from metarl.fewshot.backbones import StandardBackbone
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.tables import TableData
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.learners.prototypical import PrototypicalConfig
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig

TABLES: FewshotPresets = {
    "table-maml": Preset(
        FewshotExperiment(
            TableData(),
            MamlConfig(inner_lr=0.1, inner_steps=5, outer=OuterConfig(max_grad=10.0)),
            backbone=StandardBackbone(hidden_sizes=(64, 64)),
            training=FewshotTrainingConfig(iterations=200, updates_per_iteration=50, meta_batch_size=4),
        ),
        "Finn et al. 2017; sizes are ours",
    ),
    "table-protonet": Preset(
        FewshotExperiment(
            TableData(episodes=EpisodesConfig(train_ways=10)),
            PrototypicalConfig(outer=ANNEALED),
            training=FewshotTrainingConfig(iterations=100, updates_per_iteration=50, meta_batch_size=1),
            evaluation=FewshotEvaluationConfig(num_steps=0),
        ),
        "Snell et al. 2017; sizes are ours",
    ),
}
