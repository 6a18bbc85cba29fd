"""Rewards of family files: every term as computed from MuJoCo step by step, targets as task parameters, errors."""

import shutil
from itertools import pairwise
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest

from metarl.envs.dynamics.family import DynamicsFamily
from metarl.envs.dynamics.files import family_files, load_family
from metarl.envs.dynamics.terms import Health, Term
from metarl.envs.mujoco.locomotion import Motion
from metarl.tasks import Task, Transition

REACHER = """
name: reacher
model: reacher.xml
frame_skip: 2
horizon: 50
reset_noise: 0.05
ranges:
  - {field: target, name: goal, targets: [x, y], low: -0.15, high: 0.15}
reward:
  - {term: distance, of: fingertip, to: goal, axes: xy, weight: -1}
  - {term: control, weight: -0.05}
"""
PUSHER = """
name: pusher
model: pusher_v5.xml
frame_skip: 5
horizon: 100
ranges:
  - {field: target, name: goal_x, low: 0.3, high: 0.5}
  - {field: target, name: goal_y, low: -0.2, high: 0.2}
reward:
  - {term: distance, of: tips_arm, to: object, weight: -0.5}
  - {term: distance, of: object, to: [goal_x, goal_y], axes: xy, weight: -1}
  - {term: control, weight: -0.1}
"""
HOPPER = """
name: hop
robot: hopper
horizon: 120
ranges:
  - {field: damping, low: 0.5, high: 2, scale: log}
  - {field: target, name: speed, low: 0.5, high: 2}
reward:
  - {term: velocity, of: torso, to: [speed], weight: -1}
  - {term: velocity, of: foot, axes: z, weight: 0.3}
  - {term: position, of: torso, weight: 0.1}
  - {term: height, of: torso, weight: 0.5}
  - {term: upright, of: torso, weight: 0.7}
  - {term: control, weight: -0.01}
  - {term: alive, weight: 1}
healthy:
  - {term: height, of: torso, low: 1.2}
  - {term: upright, of: torso, low: 0.5}
"""


Played = tuple[np.ndarray, np.ndarray, np.ndarray, list[Transition]]


def family(folder: Path, text: str) -> DynamicsFamily:
    path = folder / "family.yaml"
    path.write_text(text)
    return load_family(path)


def replayed(made: DynamicsFamily, task: Task, start: np.ndarray, actions: np.ndarray) -> list[mujoco.MjData]:
    """The data of a direct loop of `mj_step` after every control step, and at the start."""
    model = made.model_for(task, made.build_model())
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = start[1 : 1 + model.nq], start[1 + model.nq : 1 + model.nq + model.nv]
    passed = []
    for action in [None, *actions]:
        if action is not None:
            data.ctrl[:] = action
            mujoco.mj_step(model, data, made.frame_skip)
        copied = mujoco.MjData(model)
        copied.qpos[:] = data.qpos
        mujoco.mj_kinematics(model, copied)
        passed.append(copied)
    return passed


def episode(made: DynamicsFamily, tasks: list[Task], steps: int) -> Played:
    """Start states, actions, rewards [step, row] and transitions of random actions."""
    env = made.make_env(len(tasks))
    env.set_tasks(tasks)
    env.reset(seed=3)
    starts = env.physics.states.copy()
    space = env.single_action_space
    rng = np.random.default_rng(0)
    actions = rng.uniform(space.low, space.high, (steps, len(tasks), *space.shape)).astype(np.float32)
    transitions = [env.advance(action) for action in actions]
    env.close()
    return starts, actions.astype(np.float64), np.array([t.rewards for t in transitions]), transitions


def test_a_reacher_is_rewarded_as_a_direct_loop_says(tmp_path: Path) -> None:
    made = family(tmp_path, REACHER)
    tasks = [Task.of("reacher", goal=(0.1, -0.05)), Task.of("reacher", goal=(-0.15, 0.12))]
    starts, actions, rewards, _ = episode(made, tasks, 20)
    for row, task in enumerate(tasks):
        for t, data in enumerate(replayed(made, task, starts[row], actions[:, row])[1:]):
            distance = np.linalg.norm(data.body("fingertip").xpos[:2] - task["goal"])
            assert rewards[t, row] == pytest.approx(-distance - 0.05 * np.sum(actions[t, row] ** 2), abs=1e-9)


def test_an_arm_is_rewarded_for_pushing(tmp_path: Path) -> None:
    made = family(tmp_path, PUSHER)
    task = Task.of("pusher", goal_x=0.4, goal_y=0.1)
    starts, actions, rewards, _ = episode(made, [task], 10)
    for t, data in enumerate(replayed(made, task, starts[0], actions[:, 0])[1:]):
        near = np.linalg.norm(data.body("tips_arm").xpos - data.body("object").xpos)
        far = np.linalg.norm(data.body("object").xpos[:2] - (0.4, 0.1))
        assert rewards[t, 0] == pytest.approx(-0.5 * near - far - 0.1 * np.sum(actions[t, 0] ** 2), abs=1e-9)


def test_every_term_and_the_end_of_an_unhealthy_episode(tmp_path: Path) -> None:
    made = family(tmp_path, HOPPER)
    task = Task.of("hop", damping=1.5, speed=1.2)
    starts, actions, rewards, transitions = episode(made, [task], 120)
    passed = replayed(made, task, starts[0], actions[:, 0])
    duration = made.frame_skip * made.build_model().opt.timestep
    ends = []
    for t, (before, after) in enumerate(pairwise(passed)):
        torso, foot = after.body("torso"), after.body("foot")
        speed = (torso.xpos - before.body("torso").xpos) / duration
        foot_speed = (foot.xpos - before.body("foot").xpos) / duration
        upright = torso.xmat[8]
        expected = -abs(speed[0] - 1.2) + 0.3 * foot_speed[2] + 0.1 * torso.xpos[0] + 0.5 * torso.xpos[2]
        expected += 0.7 * upright - 0.01 * np.sum(actions[t, 0] ** 2) + 1
        assert rewards[t, 0] == pytest.approx(expected, abs=1e-9)
        ends.append(torso.xpos[2] < 1.2 or upright < 0.5)
        if ends[-1]:
            assert transitions[t].terminated[0]
    assert any(ends)
    assert not all(ends)
    assert set(transitions[0].infos) >= {"reward_velocity_foot", "reward_upright_torso", "reward_alive"}


def test_a_function_of_ones_own_reads_the_places_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(REACHER.split("reward:", maxsplit=1)[0] + "places: [fingertip]\n")

    def reward(motion: Motion, actions: np.ndarray) -> dict[str, np.ndarray]:
        return {"near": -np.abs(motion.positions["fingertip"][:, :2] - motion.params["goal"]).sum(1)}

    task = Task.of("reacher", goal=(0.1, 0.1))
    starts, actions, rewards, _ = episode(load_family(path, reward), [task], 3)
    data = replayed(load_family(path, reward), task, starts[0], actions[:, 0])[-1]
    assert rewards[-1, 0] == pytest.approx(-np.abs(data.body("fingertip").xpos[:2] - 0.1).sum(), abs=1e-9)


MOVING = (
    REACHER
    + """
change:
  first_step: 5
  last_step: 5
  ranges:
    - {field: target, name: goal, targets: [x, y], low: -0.15, high: 0.15}
    - {field: damping, low: 0.5, high: 2}
"""
)


def test_a_target_and_the_dynamics_may_change_within_an_episode(tmp_path: Path) -> None:
    made = family(tmp_path, MOVING)
    moved = {"goal": (0.1, -0.05), "change_step": 5, "after.goal": (-0.1, 0.12), "after.damping": 1.5}
    still = {**moved, "after.goal": (0.1, -0.05)}
    tasks = [Task.of("reacher", **moved), Task.of("reacher", **still)]
    env = made.make_env(2)
    env.set_tasks(tasks)
    for _ in range(2):  # a reset puts the target back
        env.reset(seed=[3, 3])
        assert [env._goals(row)[0].tolist() for row in (0, 1)] == [[0.1, -0.05, 0.0]] * 2
        rewards = np.array([env.advance(np.full((2, 2), 0.5, np.float32)).rewards for _ in range(10)])
        fingertips = env._measure(slice(None))["fingertip"][:, :2]
        assert np.array_equal(fingertips[0], fingertips[1])
        assert np.array_equal(rewards[:5, 0], rewards[:5, 1])
        assert (rewards[5:, 0] != rewards[5:, 1]).all()
        expected = -np.linalg.norm(fingertips - [(-0.1, 0.12), (0.1, -0.05)], axis=1) - 0.05 * 0.5
        assert rewards[-1] == pytest.approx(expected, abs=1e-9)
        assert [env._goals(row)[0].tolist() for row in (0, 1)] == [[-0.1, 0.12, 0.0], [0.1, -0.05, 0.0]]
    env.close()


ANT = """
name: crawler
model: ant.xml
frame_skip: 5
reset_noise: 0.1
ranges: [{field: target, name: speed, low: 0, high: 1}]
reward: [{term: contact, weight: -5.0e-4}, {term: contact, of: front_left_leg, weight: -1}]
"""


def test_the_cost_of_contacts_is_that_of_gymnasiums_ant(tmp_path: Path) -> None:
    made = family(tmp_path, ANT)
    env = made.make_env(2)
    env.set_tasks([Task.of("crawler", speed=0.5)] * 2)
    env.reset(seed=3)
    ants = [gymnasium.make("Ant-v5", disable_env_checker=True).unwrapped for _ in range(2)]
    for ant, start in zip(ants, env.physics.states, strict=True):
        ant.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
        ant.reset(seed=0)
        ant.set_state(start[1 : 1 + ant.model.nq], start[1 + ant.model.nq : 1 + ant.model.nq + ant.model.nv])
    rng = np.random.default_rng(0)
    costs = []
    for _ in range(60):
        actions = rng.uniform(-1, 1, (2, 8)).astype(np.float32)
        infos = env.advance(actions).infos
        for row, (ant, action) in enumerate(zip(ants, actions, strict=True)):
            ant.step(action)
            assert env.physics.qpos[row] == pytest.approx(ant.data.qpos, abs=1e-12)
            costs.append(ant.contact_cost)
            assert infos["reward_contact"][row] == pytest.approx(-ant.contact_cost, abs=1e-10)
            leg = np.square(np.clip(ant.data.body("front_left_leg").cfrc_ext, -1, 1)).sum()
            assert infos["reward_contact_front_left_leg"][row] == pytest.approx(-leg, abs=1e-10)
    assert min(costs) == 0.0
    assert max(costs) > 1e-3
    env.reset(seed=4)
    assert not env.physics.contact_forces.any()
    env.close()


def test_contacts_leave_the_motion_as_it_is(tmp_path: Path) -> None:
    without = ANT.replace(
        "{term: contact, weight: -5.0e-4}, {term: contact, of: front_left_leg, weight: -1}", "{term: alive}"
    )
    ended = []
    for text in (ANT, without):
        env = family(tmp_path, text).make_env(2)
        env.set_tasks([Task.of("crawler", speed=0.5)] * 2)
        env.reset(seed=3)
        env.physics.set_frame_skips(np.array([1, 5]))
        for _ in range(20):
            env.advance(np.full((2, 8), 0.5, np.float32))
        ended.append(env.physics.states.copy())
        env.close()
    assert np.array_equal(*ended)


def test_a_function_of_ones_own_reads_contacts_where_the_family_says_so(tmp_path: Path) -> None:
    path = tmp_path / "family.yaml"
    path.write_text(ANT.split("reward:", maxsplit=1)[0] + "contacts: true\n")

    def reward(motion: Motion, actions: np.ndarray) -> dict[str, np.ndarray]:
        return {"weight": motion.contacts["torso"][:, 5] + sum(f[:, 5] for f in motion.contacts.values())}

    env = load_family(path, reward).make_env(1)
    env.set_tasks([Task.of("crawler", speed=0.5)])
    env.reset(seed=0)
    heaviest = max(env.advance(np.zeros((1, 8), np.float32)).rewards[0] for _ in range(40))
    env.close()
    weight = 9.81 * env.physics.model.body_mass.sum()
    assert heaviest > 0.5 * weight  # newtons, upwards


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ("of: front_left_log", "the model has no body 'front_left_log'; did you mean 'front_left_leg'"),
        ("clip: 0", r"reward\[0\]: term 'contact': clip must be above 0, got 0"),
        ("to: 1", "term 'contact' takes no to"),
    ],
)
def test_mistakes_in_a_term_of_contacts_are_told(term: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        family(tmp_path, ANT.replace("weight: -5.0e-4", term))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fingertip", "fingertop", "no body or site 'fingertop'; did you mean 'fingertip'"),
        ("distance", "distence", r"reward\[0\]: unknown term 'distence'; did you mean 'distance'"),
        ("axes: xy", "axes: xyz", "'goal' has 2 numbers, its axes are 'xyz'"),
        ("axes: xy", "axes: xw", r"axes must be some of x, y and z, got 'xw'"),
        ("to: goal", "to: gaol", "no body or site 'gaol'; did you mean 'goal'"),
        ("to: goal", "to: [0.1]", r"to must have a number for each of xy"),
        ("to: goal", "to: [0.1, gool]", "no task parameter 'gool' of one number"),
        ("to: goal, ", "", "term 'distance' needs to"),
        ("weight: -1", "weight: much", r"reward\[0\]: weight must be a number, got 'much'"),
        ("weight: -1", "wight: -1", r"reward\[0\]: unknown entry 'wight'"),
        ("targets: [x, y]", "targets: [u]", "the targets of field 'target' are axes"),
        ("term: control", "term: distance, of: fingertip, to: target", "two terms are named 'distance_fingertip'"),
    ],
)
def test_mistakes_in_a_reward_are_told(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        family(tmp_path, REACHER.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: goal", "name: gaol", "must be in ranges too, with the same name and axes; 'gaol' is not there"),
        ("targets: [x, y]", "targets: [x]", r"with the same name and axes; 'goal' has the axes \['x', 'y'\]"),
    ],
)
def test_a_target_that_moves_is_one_that_there_is(old: str, new: str, said: str, tmp_path: Path) -> None:
    before, after = MOVING.split("change:")
    with pytest.raises(ValueError, match=said):
        family(tmp_path, before + "change:" + after.replace(old, new))


def test_a_term_without_a_body_is_told() -> None:
    with pytest.raises(ValueError, match="term 'height' needs the name of a body or site as of"):
        Term("height")
    with pytest.raises(ValueError, match="term 'control' takes no of"):
        Term("control", of="torso")


ARM = """<mujoco><compiler meshdir="parts"/><include file="look/more.xml"/>
<asset><mesh name="m" file="m.stl"/></asset>
<worldbody><body name="hand">
<joint name="j" type="slide" damping="1"/><geom type="mesh" mesh="m"/></body></worldbody>
<actuator><motor joint="j" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>"""


def test_the_files_of_a_family_are_enough_elsewhere(tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "parts").mkdir(parents=True)
    (here / "look").mkdir()
    (here / "arm.xml").write_text(ARM)
    (here / "look" / "more.xml").write_text('<mujoco><option timestep="0.004"/></mujoco>')
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype="<f4") / 10
    faces = [(0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3)]
    body = b"".join(bytes(12) + corners[list(face)].tobytes() + bytes(2) for face in faces)
    (here / "parts" / "m.stl").write_bytes(bytes(80) + np.uint32(4).tobytes() + body)
    ranges = "ranges: [{field: damping, low: 0.5, high: 2}]"
    text = f"{{name: arm, model: arm.xml, {ranges}, reward: [{{term: position, of: hand}}]}}"
    (here / "family.yaml").write_text(text)
    files = family_files(here / "family.yaml")
    assert [f.relative_to(here).as_posix() for f in files] == [
        "family.yaml", "arm.xml", "look/more.xml", "parts/m.stl",
    ]  # fmt: skip
    there = tmp_path / "there"
    for file in files:
        target = there / file.relative_to(here)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    shutil.rmtree(here)
    assert load_family(there / "family.yaml").build_model().opt.timestep == 0.004
    assert [f.name for f in family_files(there / "family.yaml")] == [f.name for f in files]


def _motion(**positions: list[list[float]]) -> Motion:
    rows = len(next(iter(positions.values())))
    nothing = np.zeros((rows, 2))
    places = {name: np.array(values) for name, values in positions.items()}
    return Motion(nothing, nothing, np.ones(rows, np.bool_), nothing, nothing, places)


def test_a_range_of_health_has_two_ends() -> None:
    motion = _motion(torso=[[9.0, 0.0, z] for z in (0.5, 0.8, 1.0, 1.2, 1.5)])
    within = Health("height", "torso", low=0.8, high=1.2).kept(motion)
    assert within.tolist() == [False, True, True, True, False]


@pytest.mark.parametrize(("axes", "expected"), [("x", 3.0), ("z", 12.0), ("xy", 5.0), ("xyz", 13.0)])
def test_a_distance_between_two_bodies_is_along_its_axes(axes: str, expected: float) -> None:
    motion = _motion(hand=[[1.0, 2.0, 3.0]], cup=[[4.0, 6.0, 15.0]])
    term = Term("distance", of="hand", to="cup", axes=axes)
    assert term.values(motion, np.zeros((1, 1))).tolist() == [expected]
