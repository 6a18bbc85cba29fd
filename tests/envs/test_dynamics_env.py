"""Dynamics on the batched engine, beside a plain mujoco model that is edited and stepped by hand."""

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from metarl.envs.dynamics import (
    Change,
    DynamicsEnv,
    DynamicsFamily,
    DynamicsTasks,
    ForwardReward,
    Randomization,
    Range,
    SimulatorGap,
    dynamics_family,
    dynamics_names,
)
from metarl.envs.mujoco.engine import disable_warm_start
from metarl.envs.mujoco.robots import ANT, HALF_CHEETAH, HOPPER, Robot
from metarl.tasks import Task, Transition

REWARD = ForwardReward(alive_bonus=1.0, ctrl_weight=0.1)
NUM_STEPS = 30


def make_family(*ranges: Range, change: Change | None = None, robot: Robot = HALF_CHEETAH) -> DynamicsFamily:
    return DynamicsFamily("test", robot, Randomization(ranges, change), REWARD)


def make_task(family: DynamicsFamily, **params: float) -> Task:
    """A task by the names of its parameters, with "_" for "."."""
    names = {p.name.replace(".", "_"): p.name for p in family.parameters}
    return Task(family.name, tuple((names[name], value) for name, value in params.items()))


def start(
    family: DynamicsFamily, tasks: list[Task], seed: int = 0, threads: int = 0
) -> tuple[DynamicsEnv, np.ndarray]:
    """An environment of these tasks, all rows with the same seed, and its first observations."""
    env = family.make_env(len(tasks), num_threads=threads)
    env.set_tasks(tasks)
    return env, env.reset(seed=[seed] * len(tasks))[0]


def draw_actions(robot: Robot, num_steps: int = NUM_STEPS, seed: int = 1) -> np.ndarray:
    """Actions uniform within the control range, [time, action], float32 as policies give them."""
    low, high = robot.build_model().actuator_ctrlrange.T
    return np.random.default_rng(seed).uniform(low, high, (num_steps, len(low))).astype(np.float32)


class Plain:
    """One row of plain mujoco: states, observations and rewards, by hand.

    Args:
        robot: whose model file is compiled.
        state: position and velocity to start from.
    """

    def __init__(self, robot: Robot, env: DynamicsEnv, row: int = 0) -> None:
        self.robot = robot
        self.model = robot.build_model()
        disable_warm_start(self.model)
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:], self.data.qvel[:] = env.physics.qpos[row], env.physics.qvel[row]

    def step(self, control: np.ndarray, frame_skip: int) -> float:
        """Velocity forward over the step."""
        before = self.data.qpos[0]
        self.data.ctrl[:] = control
        mujoco.mj_step(self.model, self.data, frame_skip)
        return float((self.data.qpos[0] - before) / (frame_skip * self.model.opt.timestep))

    def observe(self) -> np.ndarray:
        return self.robot.observe(self.data.qpos[None], self.data.qvel[None])[0]


def run(env: DynamicsEnv, actions: np.ndarray) -> list[Transition]:
    """The same actions [time, action] in all rows."""
    return [env.advance(np.tile(action, (env.num_envs, 1))) for action in actions]


@pytest.mark.parametrize("robot", [HALF_CHEETAH, HOPPER, ANT], ids=lambda r: r.name)
def test_the_engine_equals_a_plain_loop_over_the_edited_model(robot: Robot) -> None:
    """Every row its own model and control period, to the last bit; two threads."""
    family = make_family(
        Range("density", (), 0.5, 2.0, each=True),
        Range("damping", (), 0.5, 2.0),
        Range("strength", (), 0.5, 1.5),
        Range("tilt", (), -5.0, 5.0),
        Range("frame_skip", (), 2, 8),
        robot=robot,
    )
    tasks = DynamicsTasks(family).sample(6, np.random.default_rng(0))
    actions = draw_actions(robot)
    env, first = start(family, tasks, threads=2)
    plains = [Plain(robot, env, row) for row in range(6)]
    for plain, task, observed in zip(plains, tasks, first, strict=True):
        np.testing.assert_array_equal(observed, plain.observe())
        model, density = plain.model, np.append(0.0, task["density"])
        model.body_mass[:] *= density
        model.body_inertia[:] *= density[:, None]
        model.dof_damping[:] *= task["damping"]
        model.actuator_gainprm[:, 0] *= task["strength"]
        angle = np.deg2rad(task["tilt"])
        model.opt.gravity[:] = -9.81 * np.sin(angle), 0.0, -9.81 * np.cos(angle)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    for action, transition in zip(actions, run(env, actions), strict=True):
        for row, (plain, task) in enumerate(zip(plains, tasks, strict=True)):
            velocity = plain.step(action, int(task["frame_skip"]))  # type: ignore[arg-type]
            np.testing.assert_array_equal(transition.observations[row], plain.observe())
            expected = velocity + 1.0 - 0.1 * np.square(action.astype(np.float64)).sum()
            assert transition.rewards[row] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_a_delay_holds_commands_back_and_nothing_arrives_before_the_first() -> None:
    """Nor do the last commands of the episode before, in the second one."""
    family = make_family(Range("delay", (), 0, 3))
    actions = draw_actions(HALF_CHEETAH)
    env, _ = start(family, [make_task(family, delay=float(d)) for d in range(4)])
    for _ in range(2):
        plains = [Plain(HALF_CHEETAH, env, row) for row in range(4)]
        for t, transition in enumerate(run(env, actions)):
            for delay, plain in enumerate(plains):
                velocity = plain.step(actions[t - delay] if t >= delay else np.zeros(6), 5)
                np.testing.assert_array_equal(transition.observations[delay], plain.observe())
                # What a step costs is what was commanded in it.
                expected = velocity + 1.0 - 0.1 * np.square(actions[t].astype(np.float64)).sum()
                assert transition.rewards[delay] == pytest.approx(expected, rel=1e-9, abs=1e-9)
        env.reset()


def test_with_jitter_the_newest_command_that_has_arrived_is_used() -> None:
    family = make_family(Range("delay", (), 0, 2), Range("delay_jitter", (), 0, 3))
    actions = draw_actions(HALF_CHEETAH)
    env, _ = start(family, [make_task(family, delay=1.0, delay_jitter=3.0)], seed=7)
    plain = Plain(HALF_CHEETAH, env)
    # The same generator as the row's: the state's noise, then one draw for every command of the episode.
    rng = np.random.default_rng(np.random.PCG64(np.random.SeedSequence(7)))
    HALF_CHEETAH.reset_states(plain.model, [rng])
    late = 1 + np.floor(rng.random(family.horizon) * 4).astype(int)
    assert set(late) == {1, 2, 3, 4}
    for t, transition in enumerate(run(env, actions)):
        arrived = [s for s in range(t + 1) if s + late[s] <= t]
        plain.step(actions[max(arrived)] if arrived else np.zeros(6), 5)
        np.testing.assert_array_equal(transition.observations[0], plain.observe())


def test_sensors_have_a_bias_and_noise_and_the_state_has_not() -> None:
    family = make_family(
        Range("sensor_noise", ("qvel",), 0.0, 1.0),
        Range("sensor_bias", ("qpos.bthigh",), -1.0, 1.0),
    )
    tasks = [
        make_task(family, sensor_noise_qvel=s, sensor_bias_qpos_bthigh=b) for s, b in ((0.5, 0.25), (0.0, 0.0))
    ]
    env, first = start(family, tasks * 100)
    actions = draw_actions(HALF_CHEETAH, 5)
    plain = Plain(HALF_CHEETAH, env)
    observed = [first]
    expected = [plain.observe()]
    for action, transition in zip(actions, run(env, actions), strict=True):
        plain.step(action, 5)
        observed.append(transition.observations)
        expected.append(plain.observe())
    errors = np.array(observed) - np.array(expected)[:, None]  # [time, row, feature]
    assert not errors[:, 1::2].any()
    noisy = errors[:, ::2]
    bias = np.zeros(8)
    bias[2] = 0.25  # rootz, rooty, bthigh, ...
    np.testing.assert_allclose(noisy[..., :8], np.broadcast_to(bias, (6, 100, 8)), rtol=0, atol=1e-12)
    # All rows have the same seed here, so one row: 54 normals of deviation 0.5, within 4 standard errors.
    assert noisy[:, 0, 8:].std() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(108))
    np.testing.assert_array_equal(noisy[:, 0], noisy[:, 1])


def test_noise_is_of_the_row_and_goes_on_from_episode_to_episode() -> None:
    family = make_family(Range("sensor_noise", (), 0.0, 1.0))
    task = make_task(family, sensor_noise=1.0)
    env = family.make_env(3, num_threads=0)
    env.set_tasks([task] * 3)
    first = env.reset(seed=[5, 6, 5])[0]
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.isclose(first[0], first[1]).any()
    again = env.reset()[0]
    assert not np.isclose(first, again).any()
    alone = family.make_env(1, num_threads=0)
    alone.set_tasks([task])
    np.testing.assert_array_equal(alone.reset(seed=[6])[0][0], first[1])


@pytest.mark.parametrize("after", [False, True], ids=["at-once", "after-a-change"])
@pytest.mark.parametrize("field", ["delay", "delay_jitter", "sensor_noise"])
def test_a_row_is_the_same_alone_and_beside_others(field: str, after: bool) -> None:
    """Two episodes of a row of zero: what the first draws, the second goes on from."""
    r = Range(field, (), 0, 3)
    family = make_family(Range("tilt", (), 0, 1), change=Change((r,), 5, 5)) if after else make_family(r)
    name, common = (f"after_{field}", {"tilt": 0.0, "change_step": 5.0}) if after else (field, {})
    tasks = [make_task(family, **common, **{name: value}) for value in (0.0, 3.0, 0.0)]
    actions = draw_actions(HALF_CHEETAH, 10)

    def episodes(tasks: list[Task]) -> np.ndarray:
        env = family.make_env(len(tasks), horizon=10, num_threads=0)
        env.set_tasks(tasks)
        seen = [env.reset(seed=[4] * len(tasks))[0], *(after.observations for after in run(env, actions))]
        seen += [env.reset()[0], *(after.observations for after in run(env, actions))]
        return np.array(seen)

    together = episodes(tasks)
    for row, task in enumerate(tasks):
        np.testing.assert_array_equal(episodes([task])[:, 0], together[:, row])


def test_a_change_takes_effect_at_its_step_and_ends_with_the_episode() -> None:
    change = Change((Range("strength", ("bthigh",), 0.0, 1.0), Range("payload", ("torso",), 0.0, 1.0)), 0, 20)
    family = make_family(Range("strength", (), 0.5, 1.5), Range("payload", ("torso",), 0.0, 2.0), change=change)
    weak = {"strength": 1.2, "payload_torso": 1.5, "after_strength_bthigh": 0.3, "after_payload_torso": 0.0}
    steps = (0, 7, 8, 20)
    env, _ = start(family, [make_task(family, **weak, change_step=float(step)) for step in steps])
    actions = draw_actions(HALF_CHEETAH)
    for _ in range(2):  # the second episode is again before the change
        plains = [Plain(HALF_CHEETAH, env, row) for row in range(4)]
        states = [_payload_model(1.2, 1.2, 1.5), _payload_model(0.3, 1.2, 0.0)]
        datas = [mujoco.MjData(states[0]) for _ in steps]
        for data, plain in zip(datas, plains, strict=True):
            data.qpos[:], data.qvel[:] = plain.data.qpos, plain.data.qvel
        for t, transition in enumerate(run(env, actions)):
            for row, step in enumerate(steps):
                data = datas[row]
                data.ctrl[:] = actions[t]
                mujoco.mj_step(states[t >= step], data, 5)
                expected = HALF_CHEETAH.observe(data.qpos[None], data.qvel[None])[0]
                np.testing.assert_allclose(transition.observations[row], expected, rtol=1e-9, atol=1e-9)
        env.reset()


def _payload_model(bthigh: float, others: float, payload: float) -> mujoco.MjModel:
    """A half-cheetah with a point mass in the file and the strengths of its motors."""
    spec = HALF_CHEETAH.build_spec()
    added = spec.body("torso").add_body(name="load", explicitinertial=True, mass=0.0)
    added.inertia, added.ipos = [0.0] * 3, [0.0] * 3
    model = spec.compile()
    model.body_mass[model.body("load").id] = payload
    model.actuator_gainprm[:, 0] *= others
    model.actuator_gainprm[0, 0] = bthigh
    mujoco.mj_setConst(model, mujoco.MjData(model))
    disable_warm_start(model)
    return model


def test_delay_noise_and_control_period_change_too() -> None:
    change = Change(
        (Range("delay", (), 0, 2), Range("frame_skip", (), 1, 9), Range("sensor_bias", (), 0, 1)), 10, 10
    )
    family = make_family(Range("delay", (), 0, 2), change=change)
    after = {"after_delay": 2.0, "after_frame_skip": 3.0, "after_sensor_bias": 0.5, "change_step": 10.0}
    env, _ = start(family, [make_task(family, delay=0.0, **after)])
    plain = Plain(HALF_CHEETAH, env)
    actions = draw_actions(HALF_CHEETAH)
    for t, transition in enumerate(run(env, actions)):
        # For two steps after the change the newest command that has arrived is the last one from before.
        plain.step(actions[t if t < 10 else max(9, t - 2)], 5 if t < 10 else 3)
        bias = 0.5 if t >= 10 else 0.0
        np.testing.assert_allclose(transition.observations[0], plain.observe() + bias, rtol=0, atol=1e-12)
    first = env.reset()[0][0]  # of an episode that is before its change
    np.testing.assert_allclose(first, Plain(HALF_CHEETAH, env).observe(), rtol=0, atol=1e-12)


def test_noise_can_begin_with_a_change() -> None:
    change = Change((Range("sensor_noise", (), 0.0, 1.0),), 10, 10)
    family = make_family(Range("tilt", (), -1.0, 1.0), change=change)
    env, _ = start(family, [make_task(family, tilt=0.0, after_sensor_noise=0.5, change_step=10.0)])
    plain = Plain(HALF_CHEETAH, env)
    actions = draw_actions(HALF_CHEETAH)
    for t, (action, transition) in enumerate(zip(actions, run(env, actions), strict=True)):
        plain.step(action, 5)
        errors = transition.observations[0] - plain.observe()
        assert errors.any() == (t >= 10), t


def test_rows_reset_in_their_own_time_start_before_their_change() -> None:
    """Gymnasium's autoreset resets a row while others go on."""
    change = Change((Range("strength", (), 0.0, 1.0),), 5, 5)
    family = make_family(Range("strength", (), 0.5, 1.5), change=change)
    task = make_task(family, strength=1.0, after_strength=0.1, change_step=5.0)
    env = family.make_env(2, num_threads=0, horizon=8, autoreset_mode=AutoresetMode.SAME_STEP)
    env.set_tasks([task] * 2)
    env.reset(seed=0)
    assert env.physics.model_of(0).actuator_gainprm[0, 0] == 1.0
    action = np.ones((2, 6), np.float32)
    strengths = []
    for t in range(12):
        if t == 3:
            env.reset(options={"reset_mask": np.array([True, False])})
        env.step(action)
        strengths.append([env.physics.model_of(row).actuator_gainprm[0, 0] for row in (0, 1)])
    # Row 0 restarts at step 3, so its change is at step 8 and its horizon at 11; row 1's are at 5 and 8.
    np.testing.assert_array_equal(np.array(strengths)[:, 0] < 1.0, [t in (8, 9) for t in range(12)])
    np.testing.assert_array_equal(np.array(strengths)[:, 1] < 1.0, [t in (5, 6) for t in range(12)])


def test_a_simulator_gap_keeps_tasks_and_control_period() -> None:
    family = dynamics_family("half-cheetah-dynamics")
    gap = SimulatorGap(
        timestep=0.0025, integrator="implicitfast", cone="elliptic", solref=(0.01, 0.9), impratio=2.0
    )
    other = family.with_simulator(gap)
    tasks = DynamicsTasks(family).sample(3, np.random.default_rng(0))
    env, first = start(other, tasks)
    assert other.parameters == family.parameters
    np.testing.assert_array_equal(first, start(family, tasks)[1])
    plain = Plain(HALF_CHEETAH, env)
    plain.model = model = family.model_for(tasks[0], family.build_model())
    disable_warm_start(model)
    model.opt.timestep, model.opt.impratio = 0.0025, 2.0
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    model.opt.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    model.geom_solref[:] = 0.01, 0.9
    actions = draw_actions(HALF_CHEETAH)
    gaps = []
    for action, ours, same in zip(actions, run(env, actions), run(start(family, tasks)[0], actions), strict=True):
        velocity = plain.step(action, 20)  # 20 steps of 2.5 ms for 5 of 10 ms
        np.testing.assert_array_equal(ours.observations[0], plain.observe())
        assert ours.infos["x_velocity"][0] == pytest.approx(velocity, rel=1e-9)
        gaps.append(np.abs(ours.observations - same.observations).max())
    assert gaps[-1] > 1e-3
    with pytest.raises(ValueError, match=r"timestep must divide the control period of 0.05 s, got 0.003 s"):
        family.with_simulator(SimulatorGap(timestep=0.003))
    assert other.with_simulator(SimulatorGap()).frame_skip == 5


def test_a_change_that_may_never_happen_is_refused() -> None:
    change = Change((Range("strength", (), 0.0, 1.0),), 50, 200)
    with pytest.raises(ValueError, match=r"last_step must be below the horizon of 200 steps, .* got 200"):
        make_family(Range("tilt", (), 0, 1), change=change)
    family = make_family(Range("tilt", (), 0, 1), change=Change(change.ranges, 50, 199))
    with pytest.raises(ValueError, match=r"below the horizon of 100 steps, .* got 199"):
        family.make_env(1, horizon=100)
    family.make_env(1, num_threads=0).close()
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        replace(family, horizon=0)


@pytest.mark.parametrize("name", dynamics_names())
def test_named_families_run_on_every_region(name: str) -> None:
    family = dynamics_family(name)
    for region in ("range", "train", "interpolation", "extrapolation"):
        tasks = DynamicsTasks(family, region).sample(4, np.random.default_rng(0))  # type: ignore[arg-type]
        env, _ = start(family, tasks)
        last = run(env, draw_actions(family.robot, 10))[-1]
        assert np.isfinite(last.observations).all()
        assert np.isfinite(last.rewards).all()
        assert len(np.unique(last.observations.round(9), axis=0)) == 4


def test_a_simulation_that_diverges_ends_its_episode_without_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MuJoCo resets it on its own, which would look like a leap back to the start."""
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    family = make_family(Range("density", (), 0.5, 2.0))
    env, _ = start(family, [make_task(family, density=1.0)] * 2)
    run(env, draw_actions(HALF_CHEETAH, 3))
    env.physics.states[1, 10:] = 1e9
    step = run(env, draw_actions(HALF_CHEETAH, 1))[0]
    np.testing.assert_array_equal(step.terminated, [False, True])
    np.testing.assert_array_equal(step.infos["diverged"], [False, True])
    assert step.rewards[0] != 0.0
    assert step.rewards[1] == step.infos["x_velocity"][1] == 0.0
    assert np.isfinite(step.observations).all()


def test_a_simulation_that_diverges_at_once_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At an episode's start MuJoCo's reset leaves the clock only a physics step behind."""
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    family = make_family(Range("density", (), 0.5, 2.0), robot=replace(HALF_CHEETAH, frame_skip=2))
    env, _ = start(family, [make_task(family, density=1.0)] * 2)
    env.physics.states[1, 10:] = 1e9
    step = run(env, draw_actions(HALF_CHEETAH, 1))[0]
    np.testing.assert_array_equal(step.infos["diverged"], [False, True])
