"""The few-shot experiments on sinusoids and on sums of them, each with its source."""

from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.presets.preset import ANNEALED, FewshotPresets, Preset
from metarl.fewshot.data.sinusoids import HarmonicData, SinusoidData
from metarl.fewshot.learner import LearnerConfig
from metarl.fewshot.learners.adml import AdmlConfig
from metarl.fewshot.learners.cavia import CaviaConfig
from metarl.fewshot.learners.implicit_maml import ImplicitMamlConfig
from metarl.fewshot.learners.kernel_regression import KernelRegressionConfig
from metarl.fewshot.learners.maml import MamlConfig
from metarl.fewshot.learners.reptile import ReptileConfig
from metarl.fewshot.learners.ridge import RidgeConfig
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig

# MAML, one inner step on 10 points: 0.31 with this and a step of 0.01; 0.68 with 1e-3 throughout and 0.1.
_FAST = OuterConfig(outer_lr=5e-3, final_outer_lr=1e-5)

_DATA = SinusoidData()


def _sinusoid(
    learner: LearnerConfig,
    source: str,
    *,
    updates: int = 50_000,
    num_steps: int = 10,
    data: SinusoidData | HarmonicData = _DATA,
) -> Preset[FewshotExperiment]:
    """An experiment of 25 tasks per update, of 10 points each unless the data say otherwise."""
    training = FewshotTrainingConfig(
        iterations=updates // 500,
        updates_per_iteration=500,
        meta_batch_size=25,
        checkpoint_every=10,
        evaluate_every=10,
    )
    evaluation = FewshotEvaluationConfig(num_steps=num_steps, training_tasks=200)
    return Preset(FewshotExperiment(data, learner, training=training, evaluation=evaluation), source)


SINUSOIDS: FewshotPresets = {
    "sinusoid-maml": _sinusoid(
        MamlConfig(inner_lr=0.01, outer=_FAST), "Finn et al. 2017, section 5.1, with a larger, annealed outer step"
    ),
    "sinusoid-cavia": _sinusoid(CaviaConfig(), "Zintgraf et al. 2019, section 5.1", num_steps=3),
    "sinusoid-first-order-maml": _sinusoid(
        MamlConfig(inner_lr=0.01, first_order=True, outer=_FAST), "sinusoid-maml without second derivatives"
    ),
    "sinusoid-anil": _sinusoid(
        MamlConfig(inner_lr=0.02, inner_steps=5, adapted="head", outer=_FAST),
        "Raghu et al. 2020: the last layer adapts",
    ),
    "sinusoid-meta-sgd": _sinusoid(
        MamlConfig(inner_lr=0.01, rates="per_entry", outer=ANNEALED),
        "Li et al. 2017, section 4.1: one step, a rate per weight",
        num_steps=1,  # rates learned for one step diverge over ten
    ),
    "sinusoid-maml-plus-plus": _sinusoid(
        MamlConfig(
            inner_lr=0.01,
            inner_steps=5,
            rates="per_tensor_and_step",
            rule_lr_factor=0.05,  # 0.025 in training with this, 1.6 with 1, which turns rates negative
            multi_step_updates=5000,
            outer=ANNEALED,
        ),
        "Antoniou et al. 2019: rates per tensor and step, multi-step loss, cosine annealing",
        num_steps=5,  # rates learned for five steps diverge over ten
    ),
    "sinusoid-meta-curvature": _sinusoid(
        MamlConfig(inner_lr=0.01, curvature=True, outer=ANNEALED),
        "Park & Oliva 2019: learned matrices along every axis",
        num_steps=1,  # rates learned for one step diverge over ten
    ),
    "sinusoid-reptile": _sinusoid(
        ReptileConfig(inner_lr=0.005, inner_steps=16, inner_optimizer="sgd", test_steps=32),
        # Their step size 0.02 is for tanh units; with ReLU the inner loop then diverges after some 1,000 updates.
        "Nichol et al. 2018, section 4: plain gradient descent, 32 steps at test time",
        updates=15_000,
        num_steps=32,
    ),
    "sinusoid-implicit-maml": _sinusoid(
        ImplicitMamlConfig(inner_lr=0.005, regularisation=5.0, outer=ANNEALED),
        # The inner problem must be nearly convex: with a pull of 2 nothing is learned, and steps of 0.01 diverge.
        "Rajeswaran et al. 2019, with a stronger pull: the loss is not convex",
        updates=8_000,
        num_steps=16,
    ),
    "sinusoid-adml": _sinusoid(
        AdmlConfig(MamlConfig(inner_lr=0.01, outer=_FAST), attack_size=0.1),
        "Yin et al. 2018, on points that an adversary moves",
    ),
    "sinusoid-kernel-regression": _sinusoid(
        KernelRegressionConfig(), "matching networks' form with numbers for targets", num_steps=0
    ),
    "sinusoid-ridge": _sinusoid(
        RidgeConfig(regularisation=0.1, outer=ANNEALED),
        "R2-D2, Bertinetto et al. 2019, with numbers for targets",
        updates=10_000,
        num_steps=0,
    ),
    "harmonic-maml": _sinusoid(
        MamlConfig(inner_lr=0.01, inner_steps=5), "Lacoste et al. 2018's tasks", data=HarmonicData(num_shots=16)
    ),
}
