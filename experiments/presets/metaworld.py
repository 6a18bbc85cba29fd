"""The Meta-World experiments by name, each with its source: ML1 sized for a CPU, ML10 and ML45 as published."""

from dataclasses import replace

from metarl.agent import AgentConfig
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.experiments.presets.locomotion import MEMORY_SAC as LOCOMOTION_MEMORY_SAC
from metarl.experiments.presets.locomotion import RL2 as LOCOMOTION_RL2
from metarl.experiments.presets.preset import Presets, experiment_preset
from metarl.training import EvaluationConfig, TrainingConfig

ML1_ENVIRONMENTS = ("reach", "push", "pick-place")
_SHORT = 200  # steps of an episode instead of Meta-World's 500: the hand crosses the table in 40


# Actions of Meta-World are already at most one: hand movements of a centimetre, and the gripper.
_POLICY = PolicyConfig(hidden_sizes=(100, 100), output_scale=1.0)
_ADAPTATION = AdaptationConfig(inner_lr=0.1, num_episodes=10, gae_lambda=0.95)
_TRIAL_POLICY = TrialPolicyConfig(memory="lstm", memory_size=128, head_sizes=(128,), normalise_observations=True)
_RL2 = replace(LOCOMOTION_RL2, policy=_TRIAL_POLICY, final_outer_lr=1e-4, entropy_coef=2e-3)
_PEARL = PearlConfig(
    context=ContextConfig(latent_size=7),
    num_initial_episodes=4,
    num_prior_episodes=2,
    num_extra_episodes=2,
    num_updates=4000,
    reward_scale=10.0,
    replay_capacity=50_000,
)


# A hand that follows the rising reward needs no long horizon; gamma 0.9 keeps values and their errors small. Steps
# near a goal pay 8 to 10, so that the change of the reward tells which way is right: see the findings on reach.
_MEMORY_SAC = replace(
    LOCOMOTION_MEMORY_SAC,
    policy=replace(LOCOMOTION_MEMORY_SAC.policy, embedding_size=64, read_transitions=True, read_changes=True),
    gamma=0.9,
    num_updates=120,
    final_outer_lr=1e-4,
)


def _gradient_agents(
    benchmark: str,
    adaptation: AdaptationConfig,
    settings: str,
    training: TrainingConfig,
    horizon: int | None = None,
) -> Presets:
    """ProMP and MAML-TRPO with the same inner loop and budget."""
    evaluation = EvaluationConfig(num_tasks=50, num_steps=1, num_episodes=10)
    agents: dict[str, AgentConfig] = {
        "promp": PrompConfig(policy=_POLICY, adaptation=adaptation),
        "maml-trpo": MamlTrpoConfig(policy=_POLICY, adaptation=adaptation, fisher_fraction=0.2),
    }
    sources = {"promp": "Yu et al. 2019's MAML with ProMP's outer loss", "maml-trpo": "MAML of Yu et al. 2019"}
    return {
        f"{benchmark}-{name}": experiment_preset(
            benchmark, agent, training, evaluation, f"{sources[name]}; {settings}", horizon=horizon
        )
        for name, agent in agents.items()
    }


def _ml1(name: str) -> Presets:
    """One environment, sized for two cores: shorter episodes, smaller networks."""
    benchmark = f"ml1-{name}"
    pearl = replace(
        _PEARL,
        context=replace(_PEARL.context, hidden_sizes=(128, 128), latent_size=5),
        hidden_sizes=(256, 256),
        gamma=0.9,
        batch_size=64,
        context_size=128,
        vary_context=True,
        num_updates=1000,
        outer_lr=1e-3,
        final_outer_lr=1e-4,
        target_rate=0.02,
        num_posterior_episodes=1,
        num_extra_episodes=1,
        replay_capacity=20_000,
    )
    settings = f"Meta-World's {name} with episodes of {_SHORT} steps"
    gradient = TrainingConfig(iterations=150, meta_batch_size=20, evaluate_every=25)
    trials = TrainingConfig(iterations=300, meta_batch_size=50, evaluate_every=25)
    trial_evaluation = EvaluationConfig(num_tasks=50, num_steps=2, num_episodes=2)
    off_policy = TrainingConfig(iterations=80, meta_batch_size=20, evaluate_every=10)
    off_policy_evaluation = EvaluationConfig(num_tasks=50, num_steps=4, num_episodes=1)
    return {
        **_gradient_agents(benchmark, _ADAPTATION, settings, gradient, _SHORT),
        f"{benchmark}-rl2": experiment_preset(
            benchmark,
            _RL2,
            trials,
            trial_evaluation,
            f"RL2 with the discounts of Zintgraf et al. 2020; {settings}",
            horizon=_SHORT,
        ),
        f"{benchmark}-memory-sac": experiment_preset(
            benchmark,
            _MEMORY_SAC,
            TrainingConfig(iterations=250, meta_batch_size=10, checkpoint_every=10, evaluate_every=25),
            EvaluationConfig(num_tasks=50, num_steps=1, num_episodes=2, deterministic=True),
            f"Ni et al. 2022's memories on soft actor-critic; a million steps; {settings}",
            horizon=_SHORT,
        ),
        f"{benchmark}-pearl": experiment_preset(
            benchmark,
            pearl,
            off_policy,
            off_policy_evaluation,
            f"PEARL with smaller networks and batches; {settings}",
            horizon=_SHORT,
        ),
    }


def _published(benchmark: str, *, meta_batch_size: int, steps: int, replay_capacity: int) -> Presets:
    """A benchmark of many environments at published sizes: full episodes, ten to adapt, `steps` steps in all."""
    per_task, millions = 10 * 500, f"{steps // 1_000_000} million steps"
    gradient = TrainingConfig(
        iterations=steps // (2 * per_task * meta_batch_size), meta_batch_size=meta_batch_size, evaluate_every=25
    )
    trials = replace(gradient, iterations=steps // (per_task * meta_batch_size))
    off_policy = TrainingConfig(
        iterations=steps // (4 * 500 * 15), meta_batch_size=15, evaluate_every=25, checkpoint_every=10
    )
    evaluation = EvaluationConfig(num_tasks=50, num_steps=10, num_episodes=1)
    settings = f"{meta_batch_size} tasks of 10 episodes, {millions}"
    rl2 = replace(
        _RL2,
        policy=replace(_TRIAL_POLICY, memory="gru", memory_size=256),
        num_episodes=10,
        gamma=0.99,
        gae_lambda=0.95,
        outer_lr=5e-4,
        backprop_steps=500,
    )
    # Every training task has a replay, 50 of each environment; together they fit into 5 GB.
    pearl = replace(_PEARL, num_initial_episodes=2, replay_capacity=replay_capacity)
    return {
        **_gradient_agents(benchmark, replace(_ADAPTATION, gae_lambda=1.0), settings, gradient),
        f"{benchmark}-rl2": experiment_preset(
            benchmark,
            rl2,
            trials,
            evaluation,
            f"RL2 of Yu et al. 2019 with PPO instead of TRPO; {settings}",
        ),
        f"{benchmark}-pearl": experiment_preset(
            benchmark,
            pearl,
            off_policy,
            evaluation,
            f"PEARL of Yu et al. 2019: 7 latent variables, 15 tasks per iteration; {millions}",
        ),
    }


def _sized_for_a_cpu(benchmark: str, num_classes: int) -> Presets:
    """RL2 on many environments with the trials of ML1: every environment's gains in units of its own rewards."""
    rl2 = replace(_RL2, gain_units="family", minibatches=4)
    training = TrainingConfig(
        iterations=600, meta_batch_size=10 * num_classes, checkpoint_every=10, evaluate_every=100
    )
    return {
        f"{benchmark}-rl2-cpu": experiment_preset(
            benchmark,
            rl2,
            training,
            EvaluationConfig(num_tasks=50, num_steps=2, num_episodes=2),
            f"RL2 on ten tasks of each environment, trials of two episodes of {_SHORT} steps; sizes are ours",
            horizon=_SHORT,
        )
    }


METAWORLD: Presets = {
    name: preset
    for presets in (
        *(_ml1(name) for name in ML1_ENVIRONMENTS),
        _published("ml10", meta_batch_size=20, steps=60_000_000, replay_capacity=20_000),
        _published("ml45", meta_batch_size=45, steps=90_000_000, replay_capacity=5_000),
        _sized_for_a_cpu("ml10", 10),
        _sized_for_a_cpu("ml45", 45),
    )
    for name, preset in presets.items()
}
