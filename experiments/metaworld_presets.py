"""The Meta-World experiments by name, each with its source: ML1 sized for a CPU, ML10 and ML45 as published."""

from dataclasses import replace

from metarl.agents.context import ContextConfig
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.recurrent import TrialPolicyConfig
from metarl.agents.rl2 import Rl2Config
from metarl.experiments.configuration import AgentConfig, Experiment
from metarl.training import EvaluationConfig, TrainingConfig

Described = tuple[Experiment, str]
"""An experiment and where its settings come from."""

ML1_ENVIRONMENTS = ("reach", "push", "pick-place")
_SHORT = 200  # of Meta-World's 500 steps: the hand crosses the table in 40


def _described(
    benchmark: str,
    agent: AgentConfig,
    source: str,
    *,
    training: TrainingConfig,
    evaluation: EvaluationConfig,
    horizon: int | None = None,
) -> Described:
    """An experiment; PEARL's has the benchmark's training tasks, as all have."""
    return Experiment(benchmark, agent, training, evaluation, horizon=horizon), source


# Actions of Meta-World are already at most one: hand movements of a centimetre, and the gripper.
_POLICY = PolicyConfig(hidden_sizes=(100, 100), output_scale=1.0)
_ADAPTATION = AdaptationConfig(inner_lr=0.1, num_episodes=10, gae_lambda=0.95)
_TRIAL_POLICY = TrialPolicyConfig(memory="lstm", memory_size=128, head_sizes=(128,), normalise_observations=True)
_RL2 = Rl2Config(
    policy=_TRIAL_POLICY,
    num_episodes=2,
    gamma=0.97,
    gae_lambda=0.9,
    outer_lr=1e-3,
    final_outer_lr=1e-4,
    entropy_coef=2e-3,
    epochs=6,
    minibatches=2,
    max_grad_norm=0.5,
)
_PEARL = PearlConfig(
    context=ContextConfig(latent_size=7),
    num_initial_episodes=4,
    num_prior_episodes=2,
    num_extra_episodes=2,
    num_updates=4000,
    reward_scale=10.0,
    replay_capacity=50_000,
)


def _ml1(name: str) -> dict[str, Described]:
    """One environment, sized for two cores: shorter episodes, smaller networks."""
    benchmark = f"ml1-{name}"
    gradient = EvaluationConfig(num_tasks=50, num_steps=1, num_episodes=10)
    training = TrainingConfig(iterations=150, meta_batch_size=20, evaluate_every=25)
    pearl = replace(
        _PEARL,
        context=replace(_PEARL.context, hidden_sizes=(128, 128), latent_size=5),
        hidden_sizes=(256, 256),
        batch_size=64,
        num_updates=1000,
        learning_rate=1e-3,
        final_learning_rate=1e-4,
        vary_context=True,
        num_posterior_episodes=1,
        num_extra_episodes=1,
    )
    settings = f"Meta-World's {name} with episodes of {_SHORT} steps"
    return {
        f"{benchmark}-promp": _described(
            benchmark,
            PrompConfig(policy=_POLICY, adaptation=_ADAPTATION),
            f"ProMP as on ML10 in Yu et al. 2019; {settings}",
            training=training,
            evaluation=gradient,
            horizon=_SHORT,
        ),
        f"{benchmark}-maml-trpo": _described(
            benchmark,
            MamlTrpoConfig(policy=_POLICY, adaptation=_ADAPTATION, fisher_fraction=0.2),
            f"MAML-TRPO as on ML10 in Yu et al. 2019; {settings}",
            training=training,
            evaluation=gradient,
            horizon=_SHORT,
        ),
        f"{benchmark}-rl2": _described(
            benchmark,
            _RL2,
            f"RL2 with the discounts of Zintgraf et al. 2020; {settings}",
            training=TrainingConfig(iterations=300, meta_batch_size=50, evaluate_every=25),
            evaluation=EvaluationConfig(num_tasks=50, num_steps=2, num_episodes=2),
            horizon=_SHORT,
        ),
        f"{benchmark}-pearl": _described(
            benchmark,
            pearl,
            f"PEARL with smaller networks and batches; {settings}",
            training=TrainingConfig(iterations=60, meta_batch_size=10, evaluate_every=10),
            evaluation=EvaluationConfig(num_tasks=50, num_steps=4, num_episodes=1),
            horizon=_SHORT,
        ),
    }


def _published(benchmark: str, *, meta_batch_size: int, steps: int, replay_capacity: int) -> dict[str, Described]:
    """A benchmark of many environments at published sizes: whole episodes, ten to adapt, so many steps in all."""
    adaptation = replace(_ADAPTATION, gae_lambda=1.0)
    per_task = 10 * 500
    gradient = TrainingConfig(
        iterations=steps // (2 * per_task * meta_batch_size), meta_batch_size=meta_batch_size, evaluate_every=25
    )
    trials = replace(gradient, iterations=steps // (per_task * meta_batch_size))
    evaluation = EvaluationConfig(num_tasks=50, num_steps=1, num_episodes=10)
    sizes = f"{meta_batch_size} tasks of 10 episodes, {steps // 1_000_000} million steps"
    return {
        f"{benchmark}-promp": _described(
            benchmark,
            PrompConfig(policy=_POLICY, adaptation=adaptation),
            f"Yu et al. 2019's MAML with ProMP's outer loss: {sizes}",
            training=gradient,
            evaluation=evaluation,
        ),
        f"{benchmark}-maml-trpo": _described(
            benchmark,
            MamlTrpoConfig(policy=_POLICY, adaptation=adaptation, fisher_fraction=0.2),
            f"Yu et al. 2019: {sizes}",
            training=gradient,
            evaluation=evaluation,
        ),
        f"{benchmark}-rl2": _described(
            benchmark,
            replace(
                _RL2,
                policy=replace(_TRIAL_POLICY, memory="gru", memory_size=256),
                num_episodes=10,
                gamma=0.99,
                gae_lambda=0.95,
                outer_lr=5e-4,
                backprop_steps=500,
            ),
            f"Yu et al. 2019, PPO: {sizes}",
            training=trials,
            evaluation=replace(evaluation, num_steps=10, num_episodes=1),
        ),
        f"{benchmark}-pearl": _described(
            benchmark,
            # Every training task has a replay, 50 of each environment: what they hold fits into 5 GB together.
            replace(_PEARL, num_initial_episodes=2, replay_capacity=replay_capacity),
            f"Yu et al. 2019: latent 7, 15 tasks an iteration; {steps // 1_000_000} million steps",
            training=TrainingConfig(
                iterations=steps // (4 * 500 * 15), meta_batch_size=15, evaluate_every=25, checkpoint_every=10
            ),
            evaluation=replace(evaluation, num_steps=10, num_episodes=1),
        ),
    }


METAWORLD: dict[str, Described] = {
    name: described
    for presets in (
        *(_ml1(name) for name in ML1_ENVIRONMENTS),
        _published("ml10", meta_batch_size=20, steps=60_000_000, replay_capacity=20_000),
        _published("ml45", meta_batch_size=45, steps=90_000_000, replay_capacity=5_000),
    )
    for name, described in presets.items()
}
