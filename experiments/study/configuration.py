"""The configuration of a study: the learners, their tasks, and the comparison."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from metarl.agents.es_maml import EsMamlConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.multi_task import MultiTaskConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.reptile import ReptileConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.teacher_student import TeacherStudentConfig
from metarl.envs.dynamics import SimulatorGap
from metarl.experiments.configuration import Experiment
from metarl.runs.configs import (
    MOST_PROCESSES,
    MOST_REPEATS,
    MOST_STEPS,
    MOST_TASKS,
    MOST_UPDATES,
    check_counts,
    check_positive,
    check_seed,
)

_ADAPTS_BETWEEN = PrompConfig | MamlTrpoConfig | EsMamlConfig | ReptileConfig | MultiTaskConfig
"""Configurations of agents that adapt between batches of episodes."""
FROM_SCRATCH = "sb3-scratch"
FINE_TUNED = "sb3-fine-tuned"
TEST_EPISODES = 5
"""Number of test episodes of Stable-Baselines3's PPO at every point of its curve, per trial of the study."""


@dataclass(frozen=True)
class Learner:
    """An agent that a study trains and measures.

    Attributes:
        name: Name of the learner in tables, and of its run folder.
        experiment: Experiment that trains the agent; the study sets its seed and threads.
        minutes: Minutes that training took on one core; for the estimated time left.
    """

    name: str
    experiment: Experiment
    minutes: float = 1.0

    def __post_init__(self) -> None:
        if not self.name.replace("-", "").isalnum():
            raise ValueError(f"a learner's name must be letters, digits and dashes, got {self.name!r}")
        check_positive(self, "minutes")

    @property
    def episodes_per_step(self) -> int:
        """Number of episodes between two points of its adaptation curve: those of a gradient step, or one."""
        agent = self.experiment.agent
        return agent.adaptation.num_episodes if isinstance(agent, _ADAPTS_BETWEEN) else 1

    @property
    def adapts(self) -> bool:
        """Whether its episodes change how it acts in the next; false without a memory or gradient steps."""
        agent = self.experiment.agent
        return not (isinstance(agent, Rl2Config) and agent.policy.memory == "none")

    @property
    def teacher(self) -> str | None:
        """Name in tables of the teacher that a student imitates, which is measured too; None for all others."""
        return f"{self.name}-teacher" if isinstance(self.experiment.agent, TeacherStudentConfig) else None


@dataclass(frozen=True)
class StablePpo:
    """Stable-Baselines3's PPO: trained on the randomised tasks, then on each held-out one; and on that alone.

    Attributes:
        total_steps: Number of environment steps of training on the randomised tasks.
        num_envs: Number of sub-environments in training; on a held-out task there is one.
        minibatches: Least number of minibatches per rollout of one episode per sub-environment; all have one size.
        epochs: Number of passes over each rollout.
        outer_lr: Adam step size on the randomised tasks.
        inner_lr: Adam step size on a held-out task.
        init_std: Initial standard deviation of the actions, whose bounds are +-1.
        gamma: Discount per environment step, in [0, 1].
        gae_lambda: Weight of longer advantage estimates, in [0, 1].
        minutes: Minutes that training and adapting took on one core; for the estimated time left.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "learning_rate": "outer_lr",
        "adaptation_learning_rate": "inner_lr",
    }

    total_steps: int = 1_000_000
    num_envs: int = 40
    minibatches: int = 4
    epochs: int = 10
    outer_lr: float = 1e-3
    inner_lr: float = 3e-4
    init_std: float = 0.5
    gamma: float = 0.97
    gae_lambda: float = 0.9
    minutes: float = 1.0

    def __post_init__(self) -> None:
        check_counts(self, "total_steps", most=MOST_UPDATES)
        check_counts(self, "num_envs", "minibatches", most=MOST_TASKS)
        check_counts(self, "epochs", most=MOST_REPEATS)
        check_positive(self, "outer_lr", "inner_lr", "init_std", "minutes")


@dataclass(frozen=True)
class Study:
    """A comparison of learners on the same held-out tasks.

    Attributes:
        benchmark: Benchmark whose training tasks all learn on. A dynamics benchmark is tested on new
            combinations of values (interpolation), on values outside the training ranges (extrapolation) and in
            another simulator (gap); any other on its test tasks.
        learners: Learners that are compared, trained here or taken from run folders.
        oracle: Name of the learner that observes its task; regret is measured against it.
        stable: Settings of the Stable-Baselines3 baselines; None for no such baselines.
        gap: Changes that make the other simulator, for the interpolation tasks; None for no such test.
        num_tasks: Number of tasks of every held-out set.
        num_episodes: Greatest number of adaptation episodes per task.
        num_trials: Number of repetitions of the adaptation on each task. Stable-Baselines3's PPO adapts once on
            each, and is tested for `TEST_EPISODES` times as many episodes at every point.
        horizon: Number of steps per episode; the benchmark's own by default.
        seed: Seed of all random streams of the study.
        num_threads: Number of simulation threads; one per core by default.
    """

    benchmark: str
    learners: tuple[Learner, ...]
    oracle: str
    stable: StablePpo | None = None
    gap: SimulatorGap | None = None
    num_tasks: int = 30
    num_episodes: int = 10
    num_trials: int = 2
    horizon: int | None = None
    seed: int = 0
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_counts(self, "num_tasks", "num_episodes", "num_trials", most=MOST_TASKS)
        check_counts(self, "horizon", most=MOST_STEPS)
        check_counts(self, "num_threads", most=MOST_PROCESSES)
        check_seed(self)
        names = [learner.name for learner in self.learners]
        measured = [*names, *(learner.teacher for learner in self.learners if learner.teacher is not None)]
        if len(set(measured)) < len(measured) or {FROM_SCRATCH, FINE_TUNED} & set(measured):
            raise ValueError(f"learners must have names of their own, got {', '.join(names)}")
        if self.oracle not in names:
            raise ValueError(f"the oracle must be one of the learners {', '.join(names)}, got {self.oracle!r}")
        for learner in self.learners:
            experiment = learner.experiment
            if experiment.benchmark != self.benchmark or experiment.horizon != self.horizon:
                raise ValueError(
                    f"learner {learner.name} must train on {self.benchmark} with horizon {self.horizon}, "
                    f"got {experiment.benchmark} and {experiment.horizon}"
                )
            if learner.episodes_per_step > self.num_episodes:
                raise ValueError(
                    f"num_episodes must be at least {learner.episodes_per_step}, those of a gradient step of "
                    f"{learner.name}, got {self.num_episodes}"
                )
            if experiment.observe_task != (learner.name == self.oracle):
                raise ValueError(f"the oracle alone observes its task, got {learner.name} that does not fit")


def on_benchmark(study: Study, benchmark: str) -> Study:
    """The same study on another benchmark; its learners train as long as before."""
    learners = tuple(
        replace(learner, experiment=replace(learner.experiment, benchmark=benchmark)) for learner in study.learners
    )
    benchmark = str(learners[0].experiment.benchmark)  # the path of a file is whole there
    return replace(study, benchmark=benchmark, learners=learners)
