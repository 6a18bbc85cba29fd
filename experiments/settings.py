"""Settings by name of algorithm and benchmark: `metarl train rl2 --benchmark point`.

Where a preset trains the algorithm on the benchmark, its settings are taken: the first one of `metarl list`. For
all other benchmarks they follow from the kind of the benchmark, which shows in its spaces and its episodes:

    kind         actions     episodes                    examples
    bandit       choices     one step                    gaussian-bandit-k5
    grid         choices     30 steps at most            mazes and MDPs of a few states
    choices      choices     longer                      CartPole
    point        numbers     100 steps at most,          point, sparse-point-100
                             10 observations at most
    robot        numbers     longer, or of more          ant-goal, a robot of a YAML file
                             observations
    meta-world   Meta-World's own                        ml1-door-open, ml25; a robot to algorithms
                                                         that no preset trains on Meta-World
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from gymnasium import spaces

from metarl.agents.maml import AdaptationConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.multi_task import MultiTaskConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.reptile import ReptileConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.envs import make_benchmark
from metarl.envs.dynamics.rewards import Reward
from metarl.experiments.configuration import ALGORITHMS, Experiment
from metarl.experiments.presets import bandits, gridnavi, locomotion, point
from metarl.experiments.presets.table import RL_FAMILIES, preset
from metarl.experiments.presets.teacher_student import teacher_student
from metarl.experiments.presets.varibad import varibad
from metarl.observations import space_parts
from metarl.tasks import Benchmark, FiniteTasks
from metarl.training import EvaluationConfig, TrainingConfig

Kind = Literal["bandit", "grid", "choices", "point", "robot", "meta-world"]
_Gradients = PrompConfig | MamlTrpoConfig | ReptileConfig | MultiTaskConfig

_GRID_STEPS, _POINT_STEPS, _POINT_OBSERVATIONS = 30, 100, 10
_NUM_TRAIN_TASKS = 100  # of PEARL, which keeps the transitions of every task, where the benchmark has no number


def settings_for(algorithm: str, benchmark: str | Benchmark, reward: Reward | None = None) -> Experiment:
    """The experiment that trains an algorithm on a benchmark, with settings for benchmarks of its kind.

        run = metarl.train(settings_for("rl2", "point"))

    Args:
        algorithm: Name of the algorithm, such as promp or rl2; `metarl train --help` lists them.
        benchmark: Name of a benchmark, a YAML family file, or a benchmark of your own.
        reward: Reward of your own for the robot of a YAML family; None for the family's.

    Raises:
        ValueError: if there is no such algorithm or benchmark. What an algorithm cannot do on a benchmark is said
            when the agent is made.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm!r}; known: {', '.join(ALGORITHMS)}")
    for presets in (presets for family, presets in RL_FAMILIES.items() if family != "quick start"):
        for known in presets.values():
            experiment = known.configuration
            if experiment.benchmark == benchmark and type(experiment.agent) is ALGORITHMS[algorithm]:
                return experiment
    made = make_benchmark(benchmark, reward) if isinstance(benchmark, str) else benchmark
    kind = kind_of(made)
    if kind == "meta-world":
        like = f"{'ml1-reach' if made.name.startswith('ml1-') else 'ml10'}-"
        if algorithm == "varibad":
            return replace(_on_beliefs(preset(f"{like}rl2"), kind), benchmark=benchmark)
        if like + algorithm in RL_FAMILIES["Meta-World"]:
            return replace(preset(like + algorithm), benchmark=benchmark)
        kind = "robot"  # no preset trains this algorithm on Meta-World
    experiment = replace(_MAKERS[algorithm](kind), benchmark=benchmark, reward=reward)
    if algorithm != "pearl" or not isinstance(made.train, FiniteTasks):
        return experiment
    return replace(experiment, num_train_tasks=None)  # all that there are


def kind_of(benchmark: Benchmark) -> Kind:
    """The kind of a benchmark, by its spaces and the length of its episodes; see the table above."""
    if benchmark.family.name == "meta-world":
        return "meta-world"
    env = benchmark.family.make_env(1, num_threads=1)
    try:
        steps = env.max_episode_steps
        parts = space_parts(env.single_observation_space).values()
        has_choices = not isinstance(env.single_action_space, spaces.Box)
    finally:
        env.close()
    if has_choices:
        return "bandit" if steps == 1 else "grid" if steps <= _GRID_STEPS else "choices"
    num_observations = sum(int(np.prod(part.shape or ())) for part in parts)
    return "point" if steps <= _POINT_STEPS and num_observations <= _POINT_OBSERVATIONS else "robot"


def _gradient_settings(kind: Kind) -> tuple[AdaptationConfig, TrainingConfig, EvaluationConfig]:
    """The inner loop and the sizes of ProMP and its relatives; with numbers for actions those of the presets."""
    short = TrainingConfig(iterations=50, meta_batch_size=20)
    if kind == "bandit":  # as many pulls to adapt to as RL2's trials have
        adaptation = AdaptationConfig(inner_lr=1.0, num_episodes=10, gamma=1.0)
        return adaptation, TrainingConfig(100, meta_batch_size=200), EvaluationConfig(200, 1, 10)
    if kind == "grid":
        return AdaptationConfig(inner_lr=0.5, num_episodes=20, gamma=0.95), short, EvaluationConfig()
    if kind == "choices":
        return AdaptationConfig(gae_lambda=0.95, num_episodes=10), short, EvaluationConfig(num_episodes=10)
    if kind == "point":
        return point.ADAPTATION, short, EvaluationConfig()
    return locomotion.ADAPTATION, TrainingConfig(iterations=400, meta_batch_size=20), EvaluationConfig(40, 3, 10)


def _by_gradients(kind: Kind, make: Callable[[AdaptationConfig], _Gradients]) -> Experiment:
    """ProMP or a relative of it, by the configuration that is made of the inner loop."""
    adaptation, training, evaluation = _gradient_settings(kind)
    agent = make(adaptation)
    if kind == "point":
        agent = replace(agent, policy=point.POLICY)
    return Experiment("", agent, training, evaluation)


def _promp(kind: Kind) -> Experiment:
    return _by_gradients(kind, lambda own: PrompConfig(adaptation=own))


def _maml_trpo(kind: Kind) -> Experiment:
    # A Fisher matrix on a fifth of the steps, as in the presets; of ten pulls a fifth would be too few.
    fraction = 1.0 if kind == "bandit" else 0.2
    return _by_gradients(kind, lambda own: MamlTrpoConfig(adaptation=own, fisher_fraction=fraction))


def _reptile(kind: Kind) -> Experiment:
    return _by_gradients(kind, lambda own: ReptileConfig(adaptation=replace(own, inner_steps=3)))


def _multi_task(kind: Kind) -> Experiment:
    return _by_gradients(kind, lambda own: MultiTaskConfig(adaptation=own))


def _rl2(kind: Kind) -> Experiment:
    if kind == "bandit":  # Duan et al. 2016's shortest trials
        agent = replace(bandits.ON_REWARDS, num_episodes=10)
        training = TrainingConfig(iterations=200, meta_batch_size=2000, checkpoint_every=10, evaluate_every=0)
        return Experiment("", agent, training, EvaluationConfig(2000, agent.num_episodes - 1, 1))
    if kind == "grid":
        training = TrainingConfig(iterations=300, meta_batch_size=400, checkpoint_every=10, evaluate_every=50)
        return Experiment("", gridnavi.RL2, training, EvaluationConfig(40, gridnavi.RL2.num_episodes - 1, 20))
    agent, training = locomotion.RL2, TrainingConfig(iterations=400, meta_batch_size=80, evaluate_every=50)
    if kind != "robot":
        memory = TrialPolicyConfig(memory_size=64, head_sizes=(64,), normalise_observations=True)
        agent = replace(agent, policy=memory)
        training = replace(training, iterations=200)
    if kind == "choices":
        agent = replace(agent, gamma=0.99, gae_lambda=0.95, entropy_coef=0.01, final_entropy_coef=0.0)
    return Experiment("", agent, training, EvaluationConfig(40, agent.num_episodes - 1, 5))


def _memory_sac(kind: Kind) -> Experiment:
    """RL2's trials; target entropies are of choices or of numbers."""
    small = gridnavi.MEMORY_SAC
    if kind == "bandit":
        agent = replace(small, num_episodes=10, num_initial_trials=1, gamma=0.9, replay_capacity=100_000)
        training = TrainingConfig(iterations=100, meta_batch_size=100, checkpoint_every=10, evaluate_every=0)
        return Experiment("", agent, training, EvaluationConfig(200, agent.num_episodes - 1, 5))
    if kind == "grid":
        training = TrainingConfig(iterations=400, meta_batch_size=60, checkpoint_every=20, evaluate_every=50)
        return Experiment("", small, training, EvaluationConfig(40, small.num_episodes - 1, 20))
    agent = locomotion.MEMORY_SAC
    if kind != "robot":
        memory = replace(agent.policy, memory_size=64, head_sizes=(64,))
        agent = replace(agent, policy=memory, critics=small.critics)
    if kind == "point":  # rewards alone tell the way, by how they change with each step
        agent = replace(agent, policy=replace(agent.policy, read_actions=True, read_changes=True))
    if kind == "choices":
        agent = replace(agent, gamma=0.99, target_entropy=0.3, final_target_entropy=0.02)
    training = TrainingConfig(iterations=200, meta_batch_size=20, checkpoint_every=10, evaluate_every=50)
    return Experiment("", agent, training, EvaluationConfig(40, agent.num_episodes - 1, 5))


def _varibad(kind: Kind) -> Experiment:
    return _on_beliefs(_rl2(kind), kind)


def _on_beliefs(experiment: Experiment, kind: Kind) -> Experiment:
    """RL2's experiment with VariBAD instead."""
    assert isinstance(experiment.agent, Rl2Config)
    known = gridnavi.VARIBAD if kind in ("bandit", "grid") else locomotion.VARIBAD
    return replace(experiment, agent=replace(varibad(experiment.agent, known.policy), belief_lr=known.belief_lr))


def _teacher_student(kind: Kind) -> Experiment:
    experiment = _rl2(kind)
    assert isinstance(experiment.agent, Rl2Config)
    return replace(experiment, agent=teacher_student(experiment.agent))


def _pearl(kind: Kind) -> Experiment:
    """Sized for a CPU. Discrete actions are refused when the agent is made."""
    small = kind in ("point", "bandit", "grid")
    agent: PearlConfig = point.SMALL_PEARL if small else locomotion.SMALL_PEARL
    training = TrainingConfig(60, meta_batch_size=20 if small else 5, checkpoint_every=10, evaluate_every=10)
    evaluation = EvaluationConfig(num_tasks=20, num_steps=4 if small else 2, num_episodes=2)
    return Experiment("", agent, training, evaluation, num_train_tasks=_NUM_TRAIN_TASKS)


def _es_maml(kind: Kind) -> Experiment:
    """The policies are deterministic, and so are those that evaluations measure."""
    agent, training = point.ES_MAML, TrainingConfig(iterations=100, meta_batch_size=20)
    if kind == "bandit":  # as many pulls to adapt to as RL2's trials have
        agent = replace(agent, adaptation=replace(agent.adaptation, num_episodes=10))
        training = replace(training, meta_batch_size=200)
    if kind in ("robot", "choices"):
        agent, training = locomotion.ES_MAML, locomotion.ES_TRAINING
    evaluation = EvaluationConfig(num_episodes=agent.adaptation.num_episodes, deterministic=True)
    return Experiment("", agent, training, evaluation)


_MAKERS: Mapping[str, Callable[[Kind], Experiment]] = {
    "promp": _promp,
    "maml-trpo": _maml_trpo,
    "rl2": _rl2,
    "pearl": _pearl,
    "varibad": _varibad,
    "memory-sac": _memory_sac,
    "es-maml": _es_maml,
    "reptile": _reptile,
    "multi-task": _multi_task,
    "teacher-student": _teacher_student,
}
