"""Settings of teacher and student beside RL2's: the same trials, discounts and batches."""

from dataclasses import fields, replace

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.teacher_student import InformedPolicyConfig, TeacherStudentConfig
from metarl.agents.trials.ppo import TrialPpoConfig

SOURCE = "RMA (Kumar et al. 2021) with a latent of 8; discounts and batches are those of RL2 here"
IDENTIFYING_SOURCE = "UP-OSI (Yu et al. 2017) with the networks of teacher and student here"


def teacher_student(rl2: Rl2Config) -> TeacherStudentConfig:
    """A teacher by RL2's PPO, in minibatches of single steps, four times as many; and a student with RL2's memory.

    The student reads whole transitions, through 64 rectified units; a GRU or an LSTM remembers for up to 100 steps
    before training.

    Args:
        rl2: Settings of RL2 on the same tasks.
    """
    network = {field.name: getattr(rl2.policy, field.name) for field in fields(TrialPolicyConfig)}
    policy = InformedPolicyConfig(**network | {"embedding_size": 64, "memory_span": 100, "read_transitions": True})
    shared = {field.name: getattr(rl2, field.name) for field in fields(TrialPpoConfig)} | {"policy": policy}
    return replace(
        TeacherStudentConfig(**shared), minibatches=4 * rl2.minibatches, backprop_steps=None, final_student_lr=1e-4
    )


def identifying(config: TeacherStudentConfig) -> TeacherStudentConfig:
    """The same with a student that infers the task's parameters."""
    return replace(config, policy=replace(config.policy, infers="parameters"))
