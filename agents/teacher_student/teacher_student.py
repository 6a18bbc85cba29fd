"""Teacher and student (RMA: Kumar et al. 2021, arXiv:2107.04034), and system identification (Yu et al. 2017).

    for the first teacher_fraction of the iterations:
        collect episodes of each task by the teacher, whose policy observes z = mu(the task's parameters)
        PPO on the episodes, through mu too; see `metarl.agents.trials.ppo`
    for the others, with policy and mu as they are:
        collect one trial of num_episodes episodes for each task by the student, which observes no parameters
        repeat student_epochs times, for every minibatch of trials:
            loss = mean over steps of the error of what the student infers from the trial so far
            Adam step on its gradient: memory and estimator

The teacher labels what the student did: DAgger (Ross et al. 2011, arXiv:1011.0686), so that the student learns
where its own mistakes lead. `policy.infers` chooses the error:

    latent      |z' - mu(parameters)|^2       RMA: the student's estimate z' takes the place of z
    actions     KL(teacher || student)        the distillation of rsl_rl and Isaac Lab
    parameters  |e' - parameters|^2           system identification: the policy observes mu(e')

How we differ: the memory is that of RL2, which reads actions, rewards and ends through a whole trial, not a window
of 50 steps. Every iteration learns from its own trials, and no older ones are kept, as in RMA; DAgger keeps them
all. For the teacher's actions the student has the teacher's own policy on another latent; rsl_rl trains a whole
network. The universal policy with online system identification (UP-OSI, Yu et al. 2017, arXiv:1702.02453) observes
the parameters themselves, and its regression starts from trajectories of the true parameters.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.agent import AgentSetup, Collector
from metarl.agents.teacher_student.networks import InformedPolicyConfig, SizedPolicyConfig, Student, Teacher
from metarl.agents.trials.actor import TrialActor
from metarl.agents.trials.batch import check_finite
from metarl.agents.trials.ppo import TrialPpo, TrialPpoConfig, trial_metrics
from metarl.learning.failures import unchanged_on_failure
from metarl.learning.schedules import linear, set_step_size
from metarl.learning.trials import Trials, as_trials
from metarl.runs.configs import (
    MOST_REPEATS,
    MOST_TASKS,
    check_counts,
    check_fraction,
    check_not_negative,
    check_positive,
)
from metarl.runs.seeding import draw_seed, torch_generator
from metarl.task_numbers import TaskNumbers
from metarl.tasks import Task, TaskEnv
from metarl.trajectories import Trajectories

_STUDENT_STREAM = 1  # added to the seed: the teacher's weights have the seed itself


@dataclass(frozen=True)
class TeacherStudentConfig(TrialPpoConfig):
    """Hyperparameters of a teacher's PPO and of its student. Names that begin with final_ are values at the end.

    Attributes:
        policy: Heads of the teacher's policy, and memory of the student.
        num_episodes: Number of episodes in a student's trial; a teacher has as many of each task, each for itself.
        teacher_fraction: Share of the iterations, the first ones, that train the teacher, in [0, 1]; 0 where
            init_from names a run with a trained teacher.
        student_lr: Adam step size of the student.
        final_student_lr: Adam step size of the student at the end of the run, reached linearly; None for no
            change.
        student_epochs: Number of passes of the student over the trials of an iteration.
        student_minibatches: Number of Adam steps of the student per pass.
    """

    policy: InformedPolicyConfig = field(default_factory=InformedPolicyConfig)
    teacher_fraction: float = 0.75
    student_lr: float = 1e-3
    final_student_lr: float | None = None
    student_epochs: int = 4
    student_minibatches: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "teacher_fraction")
        check_positive(self, "student_lr")
        check_not_negative(self, "final_student_lr", optional=True)
        check_counts(self, "student_epochs", most=MOST_REPEATS)
        check_counts(self, "student_minibatches", most=MOST_TASKS)

    def make(self, setup: AgentSetup) -> "TeacherStudent":
        """Make an untrained agent with this configuration.

        Raises:
            ValueError: if tasks are not numbers with bounds, which a teacher could observe.
        """
        family = setup.benchmark.family
        numbers = TaskNumbers(family)
        if not numbers.size:
            raise ValueError(
                f"a teacher observes its task's parameters, and {family.name!r} has none; take another agent"
            )
        return TeacherStudent(
            setup.env, self, numbers, iterations=setup.iterations, seed=setup.seed, device=setup.device
        )


class TeacherStudent(TrialPpo[Teacher, TeacherStudentConfig]):
    """An agent that trains a teacher by PPO, then its student by DAgger; see `metarl.agent.Agent`.

    Evaluations measure the student, which before its own training acts as for the middle of the tasks.

    Args:
        env: Environment of the family, read for its spaces and its time limit.
        config: Hyperparameters.
        numbers: Form in which the teacher observes tasks.
        iterations: Number of updates of the whole run, for both phases and for annealing.
        seed: Seed of the initial weights and of the order of minibatches.
        device: Device of the networks and the losses; acting is on the CPU.
    """

    algorithm: ClassVar[str] = "the teacher"

    def __init__(
        self,
        env: TaskEnv,
        config: TeacherStudentConfig,
        numbers: TaskNumbers,
        *,
        iterations: int,
        seed: int,
        device: torch.device,
    ) -> None:
        sized = SizedPolicyConfig.of(config.policy, numbers.size)
        teacher = Teacher(env, sized, generator=torch_generator(seed))
        self.teacher_updates = round(config.teacher_fraction * iterations)
        if 0 < config.teacher_fraction < 1 and iterations > 1:  # some for each of them
            self.teacher_updates = min(max(self.teacher_updates, 1), iterations - 1)
        super().__init__(teacher, env, config, iterations=self.teacher_updates, seed=seed, device=device)
        self.student = Student(env, sized, generator=torch_generator(seed + _STUDENT_STREAM))
        self.student.to(device)
        self.student.copy_teacher(teacher)
        self.student_updates = iterations - self.teacher_updates
        self.student_optimizer = torch.optim.Adam(self.student.inferring(), lr=config.student_lr)
        self._numbers = numbers

    @property
    def teaching(self) -> bool:
        """Whether the next update is one of the teacher."""
        return self.updates < self.teacher_updates

    def actor(self) -> TrialActor:
        """The student at the start of its trials; it observes no parameters."""
        return TrialActor(self.student)

    def informed_actor(self, tasks: Sequence[Task]) -> TrialActor:
        """The teacher, for exactly these tasks, whose parameters it observes."""
        return TrialActor(self.policy, (self._parameters(tasks),))

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> Trajectories:
        """Collect single episodes by the teacher, as many per task as a trial has; or one trial by the student."""
        if not self.teaching:
            return super().collect(collector, tasks, rng)
        repeated = [task for task in tasks for _ in range(self.config.num_episodes)]
        return collector.collect(self.informed_actor(repeated), repeated, 1, draw_seed(rng))

    def update(self, experience: Trajectories) -> dict[str, float]:
        """PPO of the teacher, or the student's steps; an update that fails leaves the agent as it was.

        Raises:
            FloatingPointError: if the experience or a loss is not finite, naming the task.
        """
        if self.teaching:
            metrics: dict[str, float] = super().update(experience)
            self.student.copy_teacher(self.policy)
            return metrics
        check_finite(experience)
        with unchanged_on_failure(self):
            loss = self._learn_by_imitation(experience)
            self.updates += 1
        return {"loss/student": loss} | trial_metrics(experience)

    def _learn_by_imitation(self, experience: Trajectories) -> float:
        """All Adam steps of the student on the trials; the mean loss."""
        config, tasks = self.config, experience.tasks
        done = self.updates - self.teacher_updates
        rate = linear(config.student_lr, config.final_student_lr, done, self.student_updates)
        set_step_size(self.student_optimizer, rate)
        trials = as_trials(experience).map(lambda part: part.to(self._device))
        parameters = self._parameters(tasks).to(self._device)
        losses = []
        for _ in range(config.student_epochs):
            order = torch.randperm(len(tasks), generator=self._shuffling)
            for chosen in order.chunk(config.student_minibatches):
                rows = chosen.to(self._device)
                batch = trials.map(partial(torch.index_select, dim=1, index=rows))
                losses.append(self.student_step(batch, parameters[rows], [tasks[i] for i in chosen.tolist()]))
        return float(torch.stack(losses).mean())

    def student_step(self, trials: Trials, parameters: Tensor, tasks: Sequence[Task]) -> Tensor:
        """One Adam step of the student; its mean error over real steps, a scalar.

        Args:
            trials: Trials that the student acted in, on the device.
            parameters: Parameters of their tasks, as the teacher observes them, [trial, parameter].
            tasks: Tasks of the trials, for errors.

        Raises:
            FloatingPointError: if the error or its gradient is not finite; no step is taken then.
        """
        total, sums = trials.mask.sum(), trials.rewards.new_zeros(len(tasks))
        self.student_optimizer.zero_grad()
        for errors, mask in self._imitate(trials, parameters):
            of_trials = (errors * mask).sum(0) / total  # [trial]
            if not bool(torch.isfinite(of_trials).all()):
                index = int((~torch.isfinite(of_trials)).nonzero()[0])
                raise FloatingPointError(f"the student's error is not finite on {tasks[index]}; lower student_lr")
            of_trials.sum().backward()  # type: ignore[no-untyped-call]
            sums += of_trials.detach()
        norm = torch.nn.utils.clip_grad_norm_(self.student.inferring(), self.config.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError("the gradient of the student's error is not finite; lower student_lr")
        self.student_optimizer.step()
        return sums.sum()

    def _imitate(self, trials: Trials, parameters: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Errors and masks [time, trial] of chunks of the trials; the carry crosses from one to the next."""
        student, inputs = self.student, self.student.trial_inputs(trials)
        carry, time = student.start_unroll(len(parameters)), len(inputs)
        length = self.config.backprop_steps or time
        for start in range(0, time, length):
            part = slice(start, start + length)
            chunk = trials.map(itemgetter(part))
            read = student.with_features(inputs[part], chunk.observations)
            remembered, carry = student.unroll(read, tuple(values.detach() for values in carry))
            yield student.errors(remembered, read, parameters), chunk.mask

    def _parameters(self, tasks: Sequence[Task]) -> Tensor:
        """Parameters of tasks as the teacher observes them, float32 [task, parameter]."""
        return torch.from_numpy(self._numbers.vectors(tasks)).float()

    def state_dict(self) -> dict[str, Any]:
        """The state of the teacher's PPO, the student and its Adam's moments."""
        return super().state_dict() | {
            "student": self.student.state_dict(),
            "student_optimizer": self.student_optimizer.state_dict(),
            "teacher_updates": self.teacher_updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave; a student from elsewhere gets this state's teacher.

        In a run with another number of iterations a student that has begun goes on; its teacher learns no more.
        """
        super().load_state_dict(state)
        before = state.get("teacher_updates", self.teacher_updates)
        if self.updates > before:
            self.student_updates += self.teacher_updates - before
            self.teacher_updates = before
        self.student.load_state_dict(state["student"])
        self.student.copy_teacher(self.policy)
        self.student_optimizer.load_state_dict(state["student_optimizer"])
