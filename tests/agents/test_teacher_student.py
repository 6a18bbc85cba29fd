"""Teacher and student: who observes which task, the imitation's loss by hand, and what each phase trains."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import AgentSetup
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.teacher_student import InformedPolicyConfig, TeacherStudent, TeacherStudentConfig
from metarl.agents.trials.context import CONTEXT
from metarl.envs import CustomFamily, make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.learning.trials import as_steps, as_trials
from metarl.task_numbers import TaskNumbers
from metarl.tasks import Benchmark, FiniteTasks, Task, TaskFamily
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers
from tests.environments import COUNTDOWNS, WALKS, Countdown, anything, set_nothing, walk

CPU = torch.device("cpu")
ENDS_EARLY = anything(spaces.Box(-1.0, 1.0, (3,)), spaces.Box(-0.1, 0.1, (2,)))
"""Episodes of one to four steps, whose lengths are random; all tasks are alike but in their number."""
TASKS = [Task.of("anything", number=float(i % 2)) for i in range(4)]
POLICY = InformedPolicyConfig(memory_size=8, latent_size=3, task_encoder_sizes=(4,), read_transitions=True)


def _agent(policy: InformedPolicyConfig = POLICY, iterations: int = 4, **changes: Any) -> TeacherStudent:
    """An agent at the start of its run, with a student that has learned something."""
    policy = replace(policy, normalise_observations=True)
    config = TeacherStudentConfig(policy=policy, **{"num_episodes": 3, "teacher_fraction": 0.5} | changes)
    agent = TeacherStudent(
        ENDS_EARLY.make_env(1, num_threads=1),
        config,
        TaskNumbers(ENDS_EARLY),
        iterations=iterations,
        seed=0,
        device=CPU,
    )
    for parameter in agent.student.inferring():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return agent


def _collect(agent: TeacherStudent, num_workers: int = 1, seed: int = 3) -> Trajectories:
    """What the agent's next update learns from; episodes and trials are of different lengths."""
    maker = EnvMaker(ENDS_EARLY)
    with Workers(maker, kind="local", num_workers=num_workers, num_threads=1) as workers:
        experience: Trajectories = agent.collect(workers, TASKS, np.random.default_rng(seed))
    lengths = experience.mask.sum(-1)
    assert len(set(lengths[:, 0].tolist())) > 1  # the premise
    assert len(set(lengths.sum(1).tolist())) > 1
    return experience


@lru_cache
def _taught(infers: str = "latent") -> tuple[TeacherStudent, Trajectories]:
    """An agent after its teacher's updates, and the student's first experience."""
    agent = _agent(replace(POLICY, infers=infers))  # type: ignore[arg-type]
    while agent.teaching:
        agent.update(_collect(agent, seed=agent.updates))
    return agent, _collect(agent)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_the_teacher_observes_the_parameters_of_each_rows_own_task(num_workers: int) -> None:
    agent = _agent()
    experience = _collect(agent, num_workers)
    assert [task["number"] for task in experience.tasks] == [0.0] * 3 + [1.0] * 3 + [0.0] * 3 + [1.0] * 3
    assert experience.mask.shape[1] == 1  # single episodes
    for row, task in enumerate(experience.tasks):
        expected = 2 * task["number"] - 1  # type: ignore[operator]  # [0, 1] is scaled to [-1, 1]
        real = experience.records[CONTEXT][row][experience.mask[row]]
        assert len(real)
        assert (real == expected).all()


def test_the_teacher_acts_by_its_task_and_the_student_cannot_see_it() -> None:
    agent, _ = _taught()
    number = [task["number"] for task in TASKS]
    others = [Task.of("anything", number=1.0 - task["number"]) for task in TASKS]  # type: ignore[operator]
    assert number == [0.0, 1.0, 0.0, 1.0]
    with Workers(EnvMaker(ENDS_EARLY), num_threads=1) as workers:
        acted = [workers.collect(agent.actor(), tasks, 3, 5).actions for tasks in (TASKS, others)]
        taught = [workers.collect(agent.informed_actor(tasks), tasks, 3, 5).actions for tasks in (TASKS, others)]
    assert torch.equal(*acted)
    assert not torch.equal(*taught)
    saved = agent.actor().saved()
    assert not [name for name in saved.tensors if name.startswith("carry")]
    told = agent.informed_actor(TASKS).saved().tensors["carry.0"]
    assert told.tolist() == [[-1.0], [1.0], [-1.0], [1.0]]


def _by_hand(agent: TeacherStudent, experience: Trajectories, infers: str) -> float:
    """The student's loss on whole trials, one step of one trial after the other."""
    student, teacher, errors = agent.student, agent.policy, []
    steps, mask = as_steps(experience)
    for trial, task in enumerate(experience.tasks):
        parameters = torch.tensor([[2.0 * task["number"] - 1.0]])  # type: ignore[operator]
        carry = student.start(1)
        for t in range(int(mask[:, trial].sum())):
            step = steps.map(lambda part, t=t, trial=trial: part[t, trial : trial + 1])  # type: ignore[misc]
            alive = torch.ones(1, dtype=torch.bool)
            inputs = student.inputs(step.observations, carry[-1])
            remembered, _ = student.step(inputs, carry[:-1], alive)
            estimate = student.estimator(remembered)
            decision, carry = student.act(step.observations, carry, alive)
            if infers == "actions":
                taught = teacher.act(step.observations, (parameters,), alive)[0].distribution
                std = taught.log_std.exp()  # type: ignore[union-attr]
                difference = (taught.mean - decision.distribution.mean) / std  # type: ignore[union-attr]
                errors.append(0.5 * float(difference.square().sum()))
            else:
                target = parameters if infers == "parameters" else teacher.task_encoder(parameters)
                errors.append(sum(float(e) ** 2 for e in (estimate - target)[0]) / estimate.shape[1])
            carry = student.read(step, carry, alive)
    assert len(errors) == int(mask.sum())
    return sum(errors) / len(errors)


@pytest.mark.parametrize("backprop_steps", [None, 2])
@pytest.mark.parametrize("infers", ["latent", "actions", "parameters"])
def test_the_students_loss_is_that_of_a_loop_over_real_steps(infers: str, backprop_steps: int | None) -> None:
    agent, experience = _taught(infers)
    own = _agent(replace(POLICY, infers=infers), backprop_steps=backprop_steps)  # type: ignore[arg-type]
    own.load_state_dict(agent.state_dict())
    with torch.no_grad():
        expected = _by_hand(own, experience, infers)
    assert expected > 1e-4
    parameters = own._parameters(experience.tasks)
    loss = own.student_step(as_trials(experience), parameters, experience.tasks)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_padding_has_no_part_in_the_students_step() -> None:
    agent, experience = _taught()
    trials, stepped = as_trials(experience), []
    assert not trials.mask.all()

    def spoilt(part: Tensor) -> Tensor:
        hidden = ~trials.mask.view(*trials.mask.shape, *[1] * (part.dim() - 2))
        return torch.where(hidden, torch.full((), 7.0).to(part.dtype), part)

    for batch in (trials, trials.map(spoilt)._replace(mask=trials.mask)):
        own = _agent()
        own.load_state_dict(agent.state_dict())
        own.student_step(batch, own._parameters(experience.tasks), experience.tasks)
        stepped.append([parameter.clone() for parameter in own.student.inferring()])
    before = agent.student.inferring()
    assert all(torch.equal(a, b) for a, b in zip(*stepped, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, stepped[0], strict=True))


@pytest.mark.parametrize("infers", ["latent", "actions", "parameters"])
def test_each_phase_trains_its_own_networks(infers: str) -> None:
    agent = _agent(replace(POLICY, infers=infers))  # type: ignore[arg-type]
    phases = []
    while agent.updates < 4:
        phases.append(agent.teaching)
        teacher = {name: value.clone() for name, value in agent.policy.state_dict().items()}
        student = [parameter.clone() for parameter in agent.student.inferring()]
        metrics = agent.update(_collect(agent, seed=agent.updates))
        same = {name: torch.equal(value, teacher[name]) for name, value in agent.policy.state_dict().items()}
        inferred = [torch.equal(a, b) for a, b in zip(student, agent.student.inferring(), strict=True)]
        if phases[-1]:
            assert not same["task_encoder.weight_0"]  # PPO reaches through the encoder of tasks
            assert not same["policy.weight_0"]
            assert not same["observation_mean"]
            assert all(inferred)
            assert "loss/policy" in metrics
        else:
            assert all(same.values())
            assert not any(inferred)
            assert "loss/student" in metrics
        copied = agent.student.state_dict()
        assert all(torch.equal(value, copied[name]) for name, value in agent.policy.state_dict().items())
    assert phases == [True, True, False, False]


def test_a_student_gets_the_teacher_of_the_state_that_it_is_loaded_with() -> None:
    agent, _ = _taught()
    fresh = _agent(teacher_fraction=0.0)
    assert not fresh.teaching
    state = fresh.state_dict() | {"policy": agent.policy.state_dict()}
    fresh.load_state_dict(state)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(fresh.student.state_dict()[name], value)


def test_a_failed_step_of_the_student_leaves_the_agent_as_it_was() -> None:
    agent, experience = _taught()
    own = _agent()
    own.load_state_dict(agent.state_dict())
    wrong = experience.rewards.clone()
    wrong[2, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match=r"^experience of task 2, .* is not finite"):
        own.update(replace(experience, rewards=wrong))
    own.student.get_parameter("estimator.bias_0").data.fill_(1e30)
    before = [parameter.clone() for parameter in own.student.inferring()]
    with pytest.raises(FloatingPointError, match="the student's error is not finite on Task"):
        own.update(experience)
    assert own.updates == 2
    assert all(torch.equal(a, b) for a, b in zip(before, own.student.inferring(), strict=True))


def _make(family: TaskFamily, task: Task) -> None:
    tasks = FiniteTasks(family, (task,))
    benchmark = Benchmark(family.name, tasks, tasks, shared=True, description="")
    env = family.make_env(1, num_threads=1)
    try:
        TeacherStudentConfig().make(AgentSetup(env, benchmark, 4, 0, CPU))
    finally:
        env.close()


def test_families_whose_tasks_are_no_bounded_numbers_are_refused_in_one_line() -> None:
    _make(COUNTDOWNS, Task.of("countdown", length=3))
    with pytest.raises(ValueError, match="parameter 'trouble' of 'walk' needs finite bounds") as refusal:
        _make(WALKS, walk(1.0))
    assert "\n" not in str(refusal.value)
    nothing = CustomFamily("countdown", (), make=Countdown, set_task=set_nothing, horizon=6)
    with pytest.raises(ValueError, match="observes its task's parameters, and 'countdown' has none") as refusal:
        _make(nothing, Task("countdown", ()))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher_fraction": 1.5}, "teacher_fraction must be in"),
        ({"student_lr": 0.0}, "student_lr must be positive"),
        ({"final_student_lr": -1.0}, "final_student_lr must be zero or more"),
        ({"student_epochs": 0}, "student_epochs must be"),
        ({"student_minibatches": 0}, "student_minibatches must be"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TeacherStudentConfig(**changes)
    with pytest.raises(ValueError, match="needs a memory to infer its task with, got memory 'none'"):
        InformedPolicyConfig(memory="none")


@pytest.mark.thorough
@pytest.mark.parametrize("infers", ["latent", "actions", "parameters"])
def test_a_student_learns_which_arm_its_teacher_knows_to_be_better(infers: str) -> None:
    """Arms of two known probabilities: the teacher earns 0.9, who knows nothing 0.5; two pulls tell nearly all."""
    family = make_benchmark("bernoulli-bandit-k2").family
    tasks = FiniteTasks(family, tuple(Task.of(family.name, probabilities=p) for p in ((0.9, 0.1), (0.1, 0.9))))
    benchmark = Benchmark("two arms", tasks, tasks, shared=True, description="")
    policy = InformedPolicyConfig(memory_size=16, head_sizes=(16,), infers=infers)  # type: ignore[arg-type]
    config = TeacherStudentConfig(
        policy=policy, num_episodes=4, outer_lr=1e-2, student_lr=1e-2, teacher_fraction=0.5, gamma=1.0
    )
    env = family.make_env(1, num_threads=1)
    agent = config.make(AgentSetup(env, benchmark, 24, 0, CPU))
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(family), num_threads=1) as workers:
        while agent.updates < 24:
            agent.update(agent.collect(workers, tasks.sample(50, rng), rng))
        tested = tasks.sample(400, rng)
        taught = workers.collect(agent.informed_actor(tested), tested, 1, 1).returns().mean()
        curve = adaptation_curve(agent.actor(), workers, tested, rng, num_steps=3, num_episodes=1)
    first, *_, last = curve.returns.reshape(4, -1).mean(1).tolist()
    print(float(taught), first, last)
    assert float(taught) > 0.85
    assert first < 0.6
    assert last > 0.75


@pytest.mark.parametrize(
    ("fraction", "iterations", "expected"),
    [(0.75, 4, 3), (0.75, 2, 1), (0.9, 2, 1), (0.01, 5, 1), (0.0, 3, 0), (1.0, 3, 3)],
)
def test_teacher_and_student_have_an_update_each(fraction: float, iterations: int, expected: int) -> None:
    agent = _agent(teacher_fraction=fraction, iterations=iterations)
    assert (agent.teacher_updates, agent.student_updates) == (expected, iterations - expected)


def test_a_longer_run_goes_on_with_the_student_that_has_begun() -> None:
    agent, experience = _agent(iterations=4), _taught()[1]
    while agent.teaching:
        agent.update(_collect(agent, seed=agent.updates))
    longer = _agent(iterations=8)
    longer.load_state_dict(agent.state_dict())
    assert longer.teaching  # no student has begun: it would learn from a teacher that is still to learn
    agent.update(experience)
    longer = _agent(iterations=8)
    longer.load_state_dict(agent.state_dict())
    assert not longer.teaching
    assert (longer.teacher_updates, longer.student_updates) == (2, 6)


def test_the_students_memory_is_that_of_rl2() -> None:
    agent = _agent()
    config = TrialPolicyConfig(memory_size=8, read_transitions=True)
    assert agent.student.memory.output_size == config.memory_size
    assert agent.student.last_step_size == agent.student.actions.encoded_size + 3 + 3
