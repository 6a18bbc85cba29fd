"""The experiments on random dynamics parameters by name, each with its source, at a CPU's sizes."""

from dataclasses import replace

from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.teacher_student import TeacherStudentConfig
from metarl.experiments.configuration import Experiment
from metarl.experiments.presets.locomotion import ADAPTATION, RL2, RL2_SOURCE
from metarl.experiments.presets.off_policy import off_policy
from metarl.experiments.presets.preset import Preset, Presets, experiment_preset
from metarl.experiments.presets.teacher_student import IDENTIFYING_SOURCE, SOURCE, identifying, teacher_student
from metarl.experiments.presets.trials import trials
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

TEACHER_STUDENT = replace(
    teacher_student(replace(RL2, policy=replace(RL2.policy, head_sizes=(64, 64)))),
    minibatches=10,
    teacher_fraction=0.8,
)
"""Teacher and student on robots whose dynamics are a few numbers: of 12 million steps the teacher has 9.6."""


def _taught(benchmark: str, agent: TeacherStudentConfig, source: str) -> Preset[Experiment]:
    """A teacher and its student, on as many steps as the oracle of a study has."""
    training = TrainingConfig(iterations=750, meta_batch_size=40, checkpoint_every=20, evaluate_every=150)
    return trials(benchmark, agent, training, source, num_tasks=40, num_episodes=5)


def _random_parameters(benchmark: str) -> Presets:
    """A robot with random parameters, by ProMP, RL2 and PEARL."""
    return {
        f"{benchmark}-promp": experiment_preset(
            benchmark,
            PrompConfig(adaptation=ADAPTATION),
            TrainingConfig(iterations=400, meta_batch_size=20),
            EvaluationConfig(num_tasks=40, num_steps=3, num_episodes=10),
            "Rothfuss et al. 2019, appendix, with gae_lambda 0.95 and half the tasks per iteration",
        ),
        f"{benchmark}-rl2": trials(
            benchmark,
            RL2,
            TrainingConfig(iterations=400, meta_batch_size=80, evaluate_every=50),
            RL2_SOURCE,
            num_tasks=40,
            num_episodes=5,
        ),
        f"{benchmark}-pearl": off_policy(
            benchmark,
            _PEARL,
            "Rakelly et al. 2019: 40 tasks, 200 steps; smaller networks and batches, and a quarter of the updates",
            train_tasks=40,
            test_tasks=10,
            iterations=100,
            num_trials=2,
        ),
    }


DYNAMICS: Presets = {
    **_random_parameters("hopper-rand-params"),
    **_random_parameters("walker-rand-params"),
    "half-cheetah-dynamics-teacher-student": _taught("half-cheetah-dynamics", TEACHER_STUDENT, SOURCE),
    "half-cheetah-dynamics-system-identification": _taught(
        "half-cheetah-dynamics", identifying(TEACHER_STUDENT), IDENTIFYING_SOURCE
    ),
}
