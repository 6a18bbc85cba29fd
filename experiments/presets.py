"""The experiments by name, each with its source."""

from dataclasses import dataclass

from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.promp import PrompConfig
from metarl.experiments.configuration import AgentConfig, Experiment
from metarl.training import EvaluationConfig, TrainingConfig


@dataclass(frozen=True)
class Preset:
    """An experiment and where its settings come from."""

    experiment: Experiment
    source: str


# Point navigation needs no scaling of the output: the actions are at most a tenth of a unit already.
_POINT_POLICY = PolicyConfig(hidden_sizes=(64, 64), output_scale=1.0)
_POINT_ADAPTATION = AdaptationConfig(inner_lr=0.5, num_episodes=20)
# The literature's advantages are Monte-Carlo ones; with 0.95 the same number of steps teaches more than twice as
# much (see AdaptationConfig.gae_lambda), and `--agent.adaptation.gae-lambda 1` is as published.
_LOCOMOTION = AdaptationConfig(gae_lambda=0.95)


def _locomotion(
    benchmark: str, agent: AgentConfig, source: str, evaluation: EvaluationConfig | None = None
) -> Preset:
    """A published experiment's 1,000 iterations of 40 tasks."""
    training = TrainingConfig(iterations=1000)
    return Preset(Experiment(benchmark, agent, training, evaluation or EvaluationConfig()), source)


PRESETS: dict[str, Preset] = {
    "quickstart": Preset(
        Experiment(
            benchmark="half-cheetah-dir",
            agent=PrompConfig(adaptation=_LOCOMOTION),
            training=TrainingConfig(iterations=25, meta_batch_size=20, evaluate_every=0),
            evaluation=EvaluationConfig(num_tasks=20, num_steps=1, num_episodes=20),
        ),
        "half-cheetah-dir-promp, shortened to minutes on two cores",
    ),
    "point-promp": Preset(
        Experiment(
            benchmark="point",
            agent=PrompConfig(policy=_POINT_POLICY, adaptation=_POINT_ADAPTATION),
            training=TrainingConfig(iterations=50, meta_batch_size=20),
        ),
        "task and inner step size of Finn et al. 2017; ProMP of Rothfuss et al. 2019",
    ),
    "point-maml-trpo": Preset(
        Experiment(
            benchmark="point",
            agent=MamlTrpoConfig(policy=_POINT_POLICY, adaptation=_POINT_ADAPTATION, fisher_fraction=0.2),
            training=TrainingConfig(iterations=50, meta_batch_size=20),
        ),
        "Finn et al. 2017, section 5.3, 64-64 tanh policy, Fisher matrix on a fifth of the steps",
    ),
    "half-cheetah-dir-promp": _locomotion(
        "half-cheetah-dir",
        PrompConfig(adaptation=_LOCOMOTION),
        "Rothfuss et al. 2019, appendix, with gae_lambda 0.95; 160 million environment steps",
    ),
    "half-cheetah-dir-maml-ppo": _locomotion(
        "half-cheetah-dir",
        PrompConfig(adaptation=_LOCOMOTION, inner_kl_coef=0.0),
        "ProMP without its inner KL penalty",
    ),
    "half-cheetah-dir-maml-trpo": _locomotion(
        "half-cheetah-dir",
        MamlTrpoConfig(adaptation=_LOCOMOTION, fisher_fraction=0.2),
        "MAML-TRPO, settings of Rothfuss et al. 2019 with gae_lambda 0.95, Fisher matrix on a fifth of the steps",
    ),
    "half-cheetah-vel-promp": _locomotion(
        "half-cheetah-vel",
        PrompConfig(adaptation=_LOCOMOTION),
        "Rothfuss et al. 2019, appendix, with gae_lambda 0.95",
    ),
    "ant-dir-promp": _locomotion(
        "ant-dir",
        PrompConfig(adaptation=_LOCOMOTION),
        "Rothfuss et al. 2019, appendix, with gae_lambda 0.95 and horizon 200",
        evaluation=EvaluationConfig(num_tasks=40, num_steps=3, num_episodes=10),
    ),
}


def preset(name: str) -> Experiment:
    """The experiment of a name.

    Raises:
        ValueError: if there is none; the message names those that exist.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown experiment {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name].experiment
