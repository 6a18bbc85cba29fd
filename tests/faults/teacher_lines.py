"""Single-line faults of teachers, of their students and of what studies report on them, each with its tests."""

from tests.faults.fault import Fault, faults

_TEACHER = ("tests/agents/test_teacher_student.py",)

FAULTS: list[Fault] = [
    *faults(
        "agents/teacher_student/networks.py",
        _TEACHER,
        ("self.state_dict() | teacher.state_dict()", "teacher.state_dict() | self.state_dict()"),
        ("taught.kl(acts)", "taught.kl(taught)"),
        ('parameters if self.config.infers == "parameters" else latents', "latents"),
        ("(estimates - targets).square().mean(-1)", "(estimates - targets).square().sum(-1)"),
        ("self.task_encoder(estimates) if self.config", "estimates if self.config"),
        (
            "super().decide(self.task_encoder(context), inputs)",
            "super().decide(0 * self.task_encoder(context), inputs)",
        ),
    ),
    *faults(
        "agents/teacher_student/teacher_student.py",
        _TEACHER,
        (
            "for task in tasks for _ in range(self.config.num_episodes)]",
            "for _ in range(self.config.num_episodes) for task in tasks]",
        ),
        ("(errors * mask).sum(0) / total", "errors.sum(0) / total"),
        ("            self.student.copy_teacher(self.policy)\n            return", "            return"),
        ("return self.updates < self.teacher_updates", "return self.updates <= self.teacher_updates"),
        ("tuple(values.detach() for values in carry)", "student.start_unroll(len(parameters))"),
        ("return TrialActor(self.student)", "return TrialActor(self.policy)"),
    ),
    *faults(
        "metarl/task_numbers.py",
        (*_TEACHER, "tests/envs/test_observed.py"),
        ("(values - middle)", "values"),
        ("if not (np.isfinite(low) and np.isfinite(high)):", "if False:"),
    ),
    *faults(
        "experiments/study/report.py",
        ("tests/experiments/test_study.py::test_a_student_is_measured_beside_its_teacher",),
        ("episodes * horizon * period_s", "episodes * period_s"),
        ("return study.num_trials * (study.num_episodes + 1)", "return study.num_trials"),
    ),
]
