"""The batched MuJoCo engine beside Gymnasium's v5 environments: the same MDP to the last bit of the state."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv
from gymnasium.envs.mujoco.humanoid_v5 import HumanoidEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.envs.mujoco.walker2d_v5 import Walker2dEnv

from metarl.envs.mujoco.engine import BatchedPhysics
from metarl.envs.mujoco.families import HalfCheetahDir, RunForward
from metarl.envs.mujoco.locomotion import LocomotionEnv, LocomotionFamily, Motion
from metarl.envs.mujoco.robots import ANT, HALF_CHEETAH, HOPPER, HUMANOID, WALKER2D
from metarl.tasks import Parameter, Task, Transition

NUM_STEPS = 250  # a quarter of an episode of the v5 environments
SEEDS = (0, 3)
ROBOTS = {robot.name: robot for robot in (HALF_CHEETAH, ANT, HUMANOID, WALKER2D, HOPPER)}
PLANAR = ("half-cheetah", "walker2d", "hopper")
TERMINATING = ("ant", "humanoid", "walker2d", "hopper")

all_robots = pytest.mark.parametrize("name", sorted(ROBOTS))


def make_reference(name: str, **settings: float) -> MujocoEnv:
    """Gymnasium's environment with the warm start off and without the observations that we leave out."""
    makers: dict[str, Callable[..., MujocoEnv]] = {
        "half-cheetah": HalfCheetahEnv,
        "walker2d": Walker2dEnv,
        "hopper": HopperEnv,
        "ant": lambda **kwargs: AntEnv(include_cfrc_ext_in_observation=False, **kwargs),
        "humanoid": lambda **kwargs: HumanoidEnv(
            include_cinert_in_observation=False,
            include_cvel_in_observation=False,
            include_qfrc_actuator_in_observation=False,
            include_cfrc_ext_in_observation=False,
            **kwargs,
        ),
    }
    env = makers[name](**settings)
    env.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
    return env


def draw_actions(name: str, seed: int, num_steps: int = NUM_STEPS) -> np.ndarray:
    """Actions uniform within the control range, [time, action]."""
    low, high = ROBOTS[name].build_model().actuator_ctrlrange.T
    return np.random.default_rng(1000 + seed).uniform(low, high, (num_steps, len(low)))


@dataclass(frozen=True)
class Rollout:
    """Episodes that are not stopped when they terminate, time first."""

    qpos: np.ndarray  # [time + 1, row, nq]
    qvel: np.ndarray  # [time + 1, row, nv]
    observations: np.ndarray  # [time + 1, row, feature]
    rewards: np.ndarray  # [time, row]
    terminated: np.ndarray  # [time, row]
    infos: Mapping[str, np.ndarray]  # [time, row]


@cache
def reference_rollout(name: str) -> Rollout:
    """Gymnasium's environment from each seed, one after the other."""
    env = make_reference(name)
    episodes = [reference_episode(env, seed, draw_actions(name, seed)) for seed in SEEDS]
    return Rollout(
        qpos=np.concatenate([episode.qpos for episode in episodes], axis=1),
        qvel=np.concatenate([episode.qvel for episode in episodes], axis=1),
        observations=np.concatenate([episode.observations for episode in episodes], axis=1),
        rewards=np.concatenate([episode.rewards for episode in episodes], axis=1),
        terminated=np.concatenate([episode.terminated for episode in episodes], axis=1),
        infos={
            name: np.concatenate([episode.infos[name] for episode in episodes], axis=1)
            for name in episodes[0].infos
        },
    )


def reference_episode(env: MujocoEnv, seed: int, actions: np.ndarray) -> Rollout:
    """One row, with actions [time, action]; the scalar infos only."""
    observations = [env.reset(seed=seed)[0]]
    qpos, qvel = [env.data.qpos.copy()], [env.data.qvel.copy()]
    rewards, terminated, infos = [], [], []
    for action in actions:
        observation, reward, end, _, info = env.step(action)
        observations.append(observation)
        qpos.append(env.data.qpos.copy())
        qvel.append(env.data.qvel.copy())
        rewards.append(reward)
        terminated.append(end)
        infos.append(info)
    return Rollout(
        np.array(qpos)[:, None],
        np.array(qvel)[:, None],
        np.array(observations)[:, None],
        np.array(rewards)[:, None],
        np.array(terminated)[:, None],
        {
            name: np.array([info[name] for info in infos])[:, None]
            for name, value in infos[0].items()
            if np.ndim(value) == 0
        },
    )


def make_env(
    family: LocomotionFamily, num_envs: int, params: Mapping[str, float] | None = None, num_threads: int = 0
) -> LocomotionEnv:
    """An environment in which every row has the same task; it still has to be reset."""
    env = family.make_env(num_envs, num_threads=num_threads)
    env.set_tasks([Task.of(family.name, **(params or {}))] * num_envs)
    return env


def our_rollout(env: LocomotionEnv, seeds: list[int], actions: np.ndarray) -> Rollout:
    """The batched environment with the same seeds and actions [time, row, action]."""
    observations = [env.reset(seed=list(seeds))[0]]
    states = [(env.physics.qpos.copy(), env.physics.qvel.copy())]
    transitions: list[Transition] = []
    for action in actions:
        transitions.append(env.advance(action))
        observations.append(transitions[-1].observations)
        states.append((env.physics.qpos.copy(), env.physics.qvel.copy()))
    qpos, qvel = (np.array(values) for values in zip(*states, strict=True))
    return Rollout(
        qpos,
        qvel,
        np.array(observations),
        np.array([t.rewards for t in transitions]),
        np.array([t.terminated for t in transitions]),
        {name: np.array([t.infos[name] for t in transitions]) for name in transitions[0].infos},
    )


@cache
def forward_rollout(name: str) -> Rollout:
    """The batched environment with the reward of Gymnasium's v5, from each seed at once."""
    env = make_env(RunForward(ROBOTS[name]), len(SEEDS))
    actions = np.stack([draw_actions(name, seed) for seed in SEEDS], axis=1)
    result = our_rollout(env, list(SEEDS), actions)
    env.close()
    return result


@all_robots
def test_spaces_and_step_duration_are_gymnasiums(name: str) -> None:
    env, reference = RunForward(ROBOTS[name]).make_env(1, num_threads=0), make_reference(name)
    assert env.single_observation_space == reference.observation_space
    assert env.single_action_space == reference.action_space
    assert env.dt == reference.dt


@pytest.mark.thorough
@all_robots
def test_the_same_seed_gives_gymnasiums_initial_state(name: str) -> None:
    ours, reference = forward_rollout(name), reference_rollout(name)
    np.testing.assert_array_equal(ours.qpos[0], reference.qpos[0])
    np.testing.assert_array_equal(ours.qvel[0], reference.qvel[0])
    assert not np.array_equal(ours.qpos[0, 0], ours.qpos[0, 1])


@all_robots
def test_random_actions_give_gymnasiums_states_exactly(name: str) -> None:
    ours, reference = forward_rollout(name), reference_rollout(name)
    assert len(reference.qpos) == NUM_STEPS + 1
    assert np.abs(ours.qpos - reference.qpos).max() == 0.0
    assert np.abs(ours.qvel - reference.qvel).max() == 0.0


@all_robots
def test_observations_are_gymnasiums(name: str) -> None:
    np.testing.assert_array_equal(forward_rollout(name).observations, reference_rollout(name).observations)


@pytest.mark.parametrize("name", ["hopper", "walker2d"])
def test_observed_velocities_are_clipped_while_the_state_is_not(name: str) -> None:
    reference = reference_rollout(name)
    fast = np.abs(reference.qvel) > 10.0
    assert fast.any(), "the comparison of observations must meet a velocity above the limit"
    np.testing.assert_array_equal(
        forward_rollout(name).observations[..., -reference.qvel.shape[-1] :], np.clip(reference.qvel, -10, 10)
    )


@pytest.mark.parametrize("name", TERMINATING)
def test_terminated_flags_are_gymnasiums_throughout(name: str) -> None:
    """Also after the first termination, so that every limit of health is crossed in both directions."""
    reference = reference_rollout(name).terminated
    assert reference.any()
    assert not reference.all()
    np.testing.assert_array_equal(forward_rollout(name).terminated, reference)


def test_half_cheetah_never_terminates() -> None:
    assert not forward_rollout("half-cheetah").terminated.any()


@pytest.mark.parametrize("name", PLANAR)
def test_rewards_of_planar_robots_are_gymnasiums(name: str) -> None:
    np.testing.assert_allclose(forward_rollout(name).rewards, reference_rollout(name).rewards, rtol=0, atol=1e-9)


@all_robots
def test_control_cost_is_gymnasiums(name: str) -> None:
    ours, reference = forward_rollout(name).infos, reference_rollout(name).infos
    np.testing.assert_allclose(ours["reward_ctrl"], reference["reward_ctrl"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TERMINATING)
def test_health_reward_is_gymnasiums(name: str) -> None:
    ours, reference = forward_rollout(name).infos, reference_rollout(name).infos
    np.testing.assert_array_equal(ours["reward_survive"], reference["reward_survive"])


@all_robots
def test_reward_is_the_sum_of_its_terms(name: str) -> None:
    ours = forward_rollout(name)
    terms = [values for key, values in ours.infos.items() if key.startswith("reward_")]
    np.testing.assert_allclose(ours.rewards, np.sum(terms, axis=0), rtol=0, atol=1e-12)


def test_ant_velocity_is_measured_on_the_states_of_gymnasiums_env() -> None:
    """Ours is the torso's displacement between the states before and after the step.

    Gymnasium reads `data.xpos`, which MuJoCo computed at the last stage of the last Runge-Kutta step, before
    that step moved `qpos`; its velocity is therefore that of slightly older positions. States are identical.
    """
    reference, infos = reference_rollout("ant"), forward_rollout("ant").infos
    expected = np.diff(reference.qpos[..., :2], axis=0) / 0.05
    np.testing.assert_array_equal(infos["x_velocity"], expected[..., 0])
    np.testing.assert_array_equal(infos["y_velocity"], expected[..., 1])
    np.testing.assert_array_equal(infos["x_position"], reference.infos["x_position"])
    lag = np.abs(infos["x_velocity"] - reference.infos["x_velocity"])
    assert 0.0 < lag.max() < 0.2  # m/s, of speeds up to several m/s


def test_humanoid_velocity_is_that_of_the_centre_of_mass_at_gymnasiums_states() -> None:
    """As for the ant: Gymnasium's `data.xipos` is older than `qpos`, ours is computed at the states."""
    reference, infos = reference_rollout("humanoid"), forward_rollout("humanoid").infos
    model = make_reference("humanoid").model
    data = mujoco.MjData(model)
    com = np.empty((*reference.qpos.shape[:2], 2))
    for index in np.ndindex(com.shape[:2]):
        data.qpos[:] = reference.qpos[index]
        mujoco.mj_kinematics(model, data)
        com[index] = (model.body_mass @ data.xipos / model.body_mass.sum())[:2]
    expected = np.diff(com, axis=0) / 0.015
    np.testing.assert_allclose(infos["x_velocity"], expected[..., 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(infos["y_velocity"], expected[..., 1], rtol=0, atol=1e-9)
    lag = np.abs(infos["x_velocity"] - reference.infos["x_velocity"])
    assert 0.0 < lag.max() < 0.2  # m/s


@pytest.mark.parametrize("name", ["ant", "humanoid"])
def test_forward_reward_is_the_velocity_times_gymnasiums_weight(name: str) -> None:
    weights = {"ant": 1.0, "humanoid": 1.25}
    infos = forward_rollout(name).infos
    np.testing.assert_array_equal(infos["reward_forward"], weights[name] * infos["x_velocity"])


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_half_cheetah_dir_is_gymnasiums_reward_with_the_direction_and_cost_of_the_papers(
    direction: float,
) -> None:
    reference = make_reference("half-cheetah", ctrl_cost_weight=0.05, forward_reward_weight=direction)
    actions = draw_actions("half-cheetah", seed=5, num_steps=100)
    expected = reference_episode(reference, 5, actions)
    env = make_env(HalfCheetahDir(), 1, {"direction": direction})
    ours = our_rollout(env, [5], actions[:, None])
    np.testing.assert_allclose(ours.rewards, expected.rewards, rtol=0, atol=1e-9)


@all_robots
def test_actions_beyond_the_control_range_act_clipped_but_cost_as_given(name: str) -> None:
    actions = 2.0 * draw_actions(name, seed=7, num_steps=20)
    reference = make_reference(name)
    clipped = np.clip(actions, reference.action_space.low, reference.action_space.high)  # type: ignore[attr-defined]
    assert not np.array_equal(actions, clipped)
    expected = reference_episode(reference, 7, actions)
    env = make_env(RunForward(ROBOTS[name]), 1)
    ours = our_rollout(env, [7], actions[:, None])
    np.testing.assert_array_equal(ours.qpos, expected.qpos)
    np.testing.assert_allclose(ours.infos["reward_ctrl"], expected.infos["reward_ctrl"], rtol=0, atol=1e-12)
    by_hand = -ROBOTS[name].ctrl_weight * np.square(actions).sum(1)
    np.testing.assert_allclose(ours.infos["reward_ctrl"][:, 0], by_hand, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(our_rollout(env, [7], clipped[:, None]).qpos, ours.qpos)


def test_warm_start_is_what_separates_us_from_gymnasium_as_it_ships() -> None:
    """Says that turning it off is needed above, so that nobody takes the flag for decoration."""
    reference = make_reference("half-cheetah")
    reference.model.opt.disableflags &= ~mujoco.mjtDisableBit.mjDSBL_WARMSTART.value
    expected = reference_episode(reference, SEEDS[0], draw_actions("half-cheetah", SEEDS[0]))
    difference = np.abs(expected.qpos[:, 0] - forward_rollout("half-cheetah").qpos[:, 0]).max(1)
    assert difference[0] == 0.0
    assert difference[-1] > 0.0


def test_half_cheetahs_model_has_the_parameters_of_gymnasiums_registered_environment() -> None:
    env = gymnasium.make("HalfCheetah-v5", disable_env_checker=True)
    registered = env.unwrapped
    assert isinstance(registered, MujocoEnv)
    built = HALF_CHEETAH.build_model()
    for field in ("body_mass", "body_inertia", "geom_friction", "dof_damping", "actuator_gear", "jnt_range"):
        np.testing.assert_array_equal(getattr(built, field), getattr(registered.model, field))
    env.close()


class HeavyCheetah(RunForward):
    """Half-cheetahs whose bodies weigh `mass` times as much."""

    def __init__(self) -> None:
        super().__init__(HALF_CHEETAH)
        self.parameters = (Parameter("mass", low=0.1, high=10.0),)

    def model_for(self, task: Task, nominal: mujoco.MjModel) -> mujoco.MjModel:
        model = copy.copy(nominal)
        factor = task["mass"]
        assert isinstance(factor, float)
        model.body_mass[:] *= factor
        return model


MASSES = (0.5, 1.0, 1.7, 3.0, 0.8)


def make_heavy_env(masses: tuple[float, ...], num_threads: int = 0) -> LocomotionEnv:
    family = HeavyCheetah()
    env = family.make_env(len(masses), num_threads=num_threads)
    env.set_tasks([Task.of(family.name, mass=mass) for mass in masses])
    return env


def heavy_rollout(rows: list[int], num_threads: int = 0) -> Rollout:
    """The rows of one fixed batch of five, in a batch of their own and in the given order."""
    env = make_heavy_env(tuple(MASSES[row] for row in rows), num_threads)
    actions = np.random.default_rng(11).uniform(-1, 1, (30, len(MASSES), 6))
    result = our_rollout(env, rows, actions[:, rows])
    env.close()
    return result


def assert_same_rollout(first: Rollout, second: Rollout, rows: list[int]) -> None:
    for field in ("qpos", "qvel", "observations", "rewards", "terminated"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field)[:, rows])
    for name, values in first.infos.items():
        np.testing.assert_array_equal(values, second.infos[name][:, rows])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_result_does_not_depend_on_the_number_of_threads(num_threads: int) -> None:
    everything = list(range(len(MASSES)))
    assert_same_rollout(heavy_rollout(everything, num_threads), heavy_rollout(everything), everything)


@pytest.mark.parametrize("rows", [[0], [3], [1, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]])
def test_result_depends_neither_on_the_batch_size_nor_on_the_order_of_rows(rows: list[int]) -> None:
    assert_same_rollout(heavy_rollout(rows), heavy_rollout(list(range(len(MASSES)))), rows)


@pytest.mark.parametrize("num_threads", [0, 2])
@pytest.mark.parametrize("subsets", [([0, 2], [1, 3, 4]), ([4], [0, 1, 2, 3]), ([1], [0], [3], [2], [4])])
def test_stepping_rows_in_subsets_equals_stepping_them_together(
    num_threads: int, subsets: tuple[list[int], ...]
) -> None:
    actions = np.random.default_rng(12).uniform(-1, 1, (15, len(MASSES), 6))
    together, apart = make_heavy_env(MASSES), make_heavy_env(MASSES, num_threads)
    together.reset(seed=1)
    apart.reset(seed=1)
    for action in actions:
        expected = together.advance(action)
        for rows in subsets:
            others = [row for row in range(len(MASSES)) if row not in rows]
            untouched = apart.physics.states[others].copy()
            found = apart.advance(action[rows], np.array(rows))
            np.testing.assert_array_equal(apart.physics.states[others], untouched)
            for name in ("observations", "rewards", "terminated", "truncated"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name)[rows])
            for name, values in found.infos.items():
                np.testing.assert_array_equal(values, expected.infos[name][rows])
    apart.close()


def test_humanoid_velocities_of_stepped_rows_do_not_depend_on_which_rows_are_stepped() -> None:
    """The centre of mass is computed beside the physics, so it has rows of its own to mix up."""
    actions = np.random.default_rng(13).uniform(-0.4, 0.4, (4, 3, 17))
    together, apart = (make_env(RunForward(HUMANOID), 3) for _ in range(2))
    together.reset(seed=1)
    apart.reset(seed=1)
    for action in actions:
        expected = together.advance(action)
        for rows in ([2, 0], [1]):
            found = apart.advance(action[rows], np.array(rows))
            for name, values in found.infos.items():
                np.testing.assert_array_equal(values, expected.infos[name][rows])


def test_rows_with_their_own_models_equal_separate_simulations_exactly() -> None:
    found = heavy_rollout(list(range(len(MASSES))), num_threads=2)
    actions = np.random.default_rng(11).uniform(-1, 1, (30, len(MASSES), 6))
    for row, mass in enumerate(MASSES):
        model = make_reference("half-cheetah").model
        model.body_mass[:] *= mass
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = found.qpos[0, row], found.qvel[0, row]
        for t, action in enumerate(actions[:, row]):
            data.ctrl[:] = action
            mujoco.mj_step(model, data, nstep=5)
            np.testing.assert_array_equal(found.qpos[t + 1, row], data.qpos)
            np.testing.assert_array_equal(found.qvel[t + 1, row], data.qvel)
    assert np.abs(found.qpos[-1, 0] - found.qpos[-1, 3]).max() > 1e-3


def test_humanoid_velocity_follows_the_masses_of_the_rows_own_model() -> None:
    class HeavyHumanoid(RunForward):
        def __init__(self) -> None:
            super().__init__(HUMANOID)
            self.parameters = (Parameter("leg_mass", low=0.1, high=100.0),)

        def model_for(self, task: Task, nominal: mujoco.MjModel) -> mujoco.MjModel:
            model = copy.copy(nominal)
            model.body_mass[nominal.body("right_shin").id] *= task["leg_mass"]
            mujoco.mj_setConst(model, mujoco.MjData(model))  # the centre of mass divides by body_subtreemass
            return model

    family = HeavyHumanoid()
    env = family.make_env(2, num_threads=0)
    env.set_tasks([Task.of(family.name, leg_mass=factor) for factor in (1.0, 20.0)])
    actions = np.random.default_rng(2).uniform(-0.4, 0.4, (5, 2, 17))
    ours = our_rollout(env, [4, 4], actions)
    for row, factor in enumerate((1.0, 20.0)):
        model = make_reference("humanoid").model
        model.body_mass[model.body("right_shin").id] *= factor
        data = mujoco.MjData(model)
        com = []
        for qpos in ours.qpos[:, row]:
            data.qpos[:] = qpos
            mujoco.mj_kinematics(model, data)
            com.append(model.body_mass @ data.xipos / model.body_mass.sum())
        expected = np.diff(np.array(com)[:, 0]) / 0.015
        np.testing.assert_allclose(ours.infos["x_velocity"][:, row], expected, rtol=0, atol=1e-9)


_XML = """
<mujoco>
  <worldbody>
    <body name="ball"><joint name="slide" type="slide"/><geom size="0.1"/><!--more--></body>
  </worldbody>
  <actuator><motor joint="slide"/></actuator>
  <sensor><!--sensor--></sensor>
</mujoco>
"""


def ball(old: str = "", new: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(_XML.replace(old, new, 1) if old else _XML)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_model_per_row_is_required(count: int) -> None:
    with pytest.raises(ValueError, match=f"expected 2 models, one per row, got {count}"):
        BatchedPhysics(ball(), 2, 1, 0).set_models([ball()] * count)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type="slide"', 'type="ball"'),
        ("<motor", '<motor joint="slide"/><motor'),
        ("<!--more-->", '<geom size="0.1"/>'),
        ("<!--more-->", '<body pos="0 0 1"><geom size="0.1"/></body>'),
        ("<!--more-->", '<site name="site"/>'),
        ("<!--sensor-->", '<subtreecom body="ball"/>'),
    ],
    ids=["positions", "actuators", "geoms", "bodies", "sites", "sensors"],
)
@pytest.mark.parametrize("rows", [(0,), (1,), (0, 1)], ids=["first", "last", "all"])
def test_models_of_other_sizes_than_the_engines_are_refused(old: str, new: str, rows: tuple[int, ...]) -> None:
    """Also when all rows agree with each other: MuJoCo would write beyond the engine's buffers."""
    other = ball(old, new)
    with pytest.raises(ValueError, match="sizes"):
        BatchedPhysics(ball(), 2, 1, 0).set_models([other if row in rows else ball() for row in range(2)])


def test_a_state_that_is_set_begins_at_time_zero() -> None:
    physics = BatchedPhysics(HALF_CHEETAH.build_model(), 2, 5, 0)
    physics.step(np.zeros((2, 6)))
    elapsed = physics.states[1, 0]
    assert elapsed > 0
    physics.set_states(np.array([0]), physics.qpos[:1].copy(), physics.qvel[:1].copy())
    assert physics.states[:, 0].tolist() == [0.0, elapsed]
    physics.close()


def test_a_negative_number_of_threads_is_refused() -> None:
    with pytest.raises(ValueError, match="num_threads must be 0 or more, got -1"):
        BatchedPhysics(ball(), 2, 1, -1)


def test_reward_terms_receive_the_stepped_rows_only() -> None:
    seen: list[int] = []

    class Recorder(HalfCheetahDir):
        def reward_terms(
            self, motion: Motion, actions: np.ndarray, params: Mapping[str, np.ndarray]
        ) -> dict[str, np.ndarray]:
            seen.append(len(motion.healthy))
            assert len(motion.velocity) == len(actions) == len(params["direction"]) == len(motion.healthy)
            return super().reward_terms(motion, actions, params)

    env = make_env(Recorder(), 3, {"direction": 1.0})
    env.reset(seed=0)
    env.advance(np.zeros((1, 6)), np.array([2]))
    env.advance(np.zeros((3, 6)))
    assert seen == [1, 3]
