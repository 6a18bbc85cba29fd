"""The experiments on random dynamics parameters by name, each with its source, at a CPU's sizes."""

from metarl.agents.maml import AdaptationConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.experiments.configuration import Experiment
from metarl.experiments.presets.pearl import Described
from metarl.training import EvaluationConfig, TrainingConfig

# Rakelly et al. 2019: 40 training and 10 test tasks, meta-batches of 10, a KL weight of 0.1 times those, contexts
# of 100 transitions with the next observation. Their networks are 300-300-300 and 200-200-200, with 4000 updates.
# They collect 400 and 600 steps, which are more episodes the earlier the robot falls.
_PEARL = PearlConfig(
    context=ContextConfig(hidden_sizes=(128, 128), next_observations=True),
    hidden_sizes=(256, 256),
    num_prior_episodes=4,
    num_extra_episodes=6,
    num_updates=1000,
    update_tasks=10,
    batch_size=64,
    context_size=100,
    kl_coef=1.0,
    outer_lr=1e-3,
)


def dynamics_presets(adaptation: AdaptationConfig, trials: Rl2Config) -> dict[str, Described]:
    """Hopper and Walker2d with random parameters, by ProMP, RL2 and PEARL.

    Args:
        adaptation: Settings of the inner loop for gradient-based learners on locomotion.
        trials: RL2's settings on locomotion.
    """
    presets: dict[str, Described] = {}
    for name in ("hopper-rand-params", "walker-rand-params"):
        presets[f"{name}-promp"] = _promp(name, adaptation)
        presets[f"{name}-rl2"] = _rl2(name, trials)
        presets[f"{name}-pearl"] = _pearl(name)
    return presets


def _promp(benchmark: str, adaptation: AdaptationConfig) -> Described:
    training = TrainingConfig(iterations=400, meta_batch_size=20)
    evaluation = EvaluationConfig(num_tasks=40, num_steps=3, num_episodes=10)
    source = "Rothfuss et al. 2019, appendix, with gae_lambda 0.95 and half the tasks per iteration"
    return Experiment(benchmark, PrompConfig(adaptation=adaptation), training, evaluation), source


def _rl2(benchmark: str, trials: Rl2Config) -> Described:
    training = TrainingConfig(iterations=400, meta_batch_size=80, evaluate_every=50)
    evaluation = EvaluationConfig(num_tasks=40, num_steps=trials.num_episodes - 1, num_episodes=5)
    source = "RL2 as in Zintgraf et al. 2020: two episodes of 200 steps, gamma 0.97, lambda 0.9"
    return Experiment(benchmark, trials, training, evaluation), source


def _pearl(benchmark: str) -> Described:
    training = TrainingConfig(iterations=100, meta_batch_size=5, checkpoint_every=10, evaluate_every=10)
    evaluation = EvaluationConfig(num_tasks=10, num_steps=2, num_episodes=2)
    source = "Rakelly et al. 2019: 40 tasks, 200 steps; smaller networks and batches, and a quarter of the updates"
    return Experiment(benchmark, _PEARL, training, evaluation, num_train_tasks=40), source
