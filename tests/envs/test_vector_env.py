"""TaskVectorEnv keeps the contract of gymnasium.vector, as SyncVectorEnv over single environments has it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import ClipAction, NormalizeReward, RecordEpisodeStatistics

from metarl.envs import TaskVectorEnv
from metarl.envs.mujoco.families import AntDir, HalfCheetahDir
from metarl.envs.toy.point import Point, PointFamily, PointUniformStart
from metarl.tasks import Task, TaskFamily

MODES = list(AutoresetMode)
Result = tuple[Any, ...]

all_modes = pytest.mark.parametrize("mode", MODES, ids=[mode.name for mode in MODES])


class SmallStart(PointFamily):
    """Random starts, so that seeds matter, and goals that end episodes."""

    name = "small-start"
    horizon = 7
    start_range = 0.005
    ends_at_goal = True


class PointReference(gymnasium.Env[np.ndarray, np.ndarray]):
    """One point, written with scalars."""

    def __init__(self, goal: tuple[float, float]) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-0.1, 0.1, (2,), np.float32)
        self.goal = goal
        self.position = np.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.005, 0.005, 2)
        return self.position.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        x, y = (p + min(max(float(a), -0.1), 0.1) for p, a in zip(self.position, action, strict=True))
        self.position = np.array([x, y])
        dx, dy = x - self.goal[0], y - self.goal[1]
        distance = math.hypot(dx, dy)
        infos = {"dense_reward": -distance, "success": float(distance <= 0.2)}
        return self.position.copy(), -distance, bool(max(abs(dx), abs(dy)) < 0.01), False, infos


class CheetahReference(HalfCheetahEnv):
    """Gymnasium's half-cheetah, forward or backward."""

    def __init__(self, direction: float) -> None:
        super().__init__(ctrl_cost_weight=0.05, forward_reward_weight=direction)
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        observation, reward, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        return observation, reward, terminated, truncated, info | {"y_velocity": 0.0}


class AntReference(AntEnv):
    """Gymnasium's ant with the reward of AntDir: velocity from the state, no contact cost, +1 per step."""

    def __init__(self, direction: float) -> None:
        super().__init__(include_cfrc_ext_in_observation=False)
        self.direction = direction
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_WARMSTART.value

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        before = self.data.qpos[:2].copy()
        observation, _, terminated, truncated, _ = super().step(action)  # type: ignore[no-untyped-call]
        x_velocity, y_velocity = (self.data.qpos[:2] - before) / self.dt
        terms = {
            "reward_forward": self.direction * x_velocity,
            "reward_survive": 1.0,
            "reward_ctrl": -0.5 * float(np.sum(np.square(action))),
        }
        infos = {"x_position": self.data.qpos[0], "x_velocity": x_velocity, "y_velocity": y_velocity}
        return observation, sum(terms.values()), bool(terminated), truncated, infos | terms

    def _get_reset_info(self) -> dict[str, float]:
        return {"x_position": self.data.qpos[0]}


@dataclass(frozen=True)
class Case:
    """The same sub-environments twice: ours, and single environments for SyncVectorEnv."""

    family: TaskFamily
    tasks: tuple[Task, ...]
    horizon: int
    references: tuple[Callable[[], gymnasium.Env[np.ndarray, np.ndarray]], ...]
    seed: int | list[int | None]
    actions: np.ndarray  # [time, row, action]

    def make(self, mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> TaskVectorEnv:
        env = self.family.make_env(  # type: ignore[call-arg]
            len(self.tasks), horizon=self.horizon, num_threads=0, autoreset_mode=mode
        )
        assert isinstance(env, TaskVectorEnv)
        env.set_tasks(self.tasks)
        return env

    def make_reference(self, mode: AutoresetMode) -> SyncVectorEnv[np.ndarray, np.ndarray]:
        def limited(
            make: Callable[[], gymnasium.Env[np.ndarray, np.ndarray]],
        ) -> Callable[[], gymnasium.Env[np.ndarray, np.ndarray]]:
            return lambda: TimeLimit(make(), self.horizon)

        return SyncVectorEnv([limited(make) for make in self.references], autoreset_mode=mode)


def _point_case() -> Case:
    goals = ((0.3, 0.0), (0.0, 0.5), (0.0, 0.9), (0.7, 0.0))  # reached after 3, 5, never and exactly 7 steps
    directions = np.array([(0.4, 0.0), (0.0, 0.1), (-0.1, 0.0), (0.1, 0.0)])  # the first one is clipped
    return Case(
        SmallStart(),
        tuple(Task.of("small-start", goal=goal) for goal in goals),
        7,
        tuple(lambda goal=goal: PointReference(goal) for goal in goals),  # type: ignore[misc]
        5,
        np.tile(directions, (30, 1, 1)),
    )


def _cheetah_case() -> Case:
    directions = (1.0, -1.0, 1.0)
    return Case(
        HalfCheetahDir(),
        tuple(Task.of("half-cheetah-dir", direction=d) for d in directions),
        4,
        tuple(lambda d=d: CheetahReference(d) for d in directions),  # type: ignore[misc]
        [3, 1, 4],
        np.random.default_rng(0).uniform(-1.5, 1.5, (12, 3, 6)),
    )


def _ant_case() -> Case:
    directions = (1.0, -1.0, -1.0)
    # With these actions the first ant falls at step 24, the second at step 32, and the third stays up.
    seeds = (10, 21, 1)
    actions = [np.random.default_rng(seed).uniform(-1, 1, (50, 8)) for seed in seeds]
    return Case(
        AntDir(),
        tuple(Task.of("ant-dir", direction=d) for d in directions),
        40,
        tuple(lambda d=d: AntReference(d) for d in directions),  # type: ignore[misc]
        list(seeds),
        np.stack(actions, axis=1),
    )


CASES = {"point": _point_case(), "half-cheetah": _cheetah_case(), "ant": _ant_case()}

all_cases = pytest.mark.parametrize("name", list(CASES))
cheap_cases = pytest.mark.parametrize("name", ["point", "half-cheetah"])


def drive(
    env: VectorEnv[Any, Any, Any], case: Case, after: Callable[[Result], None] | None = None
) -> list[Result]:
    """All that an environment returns, as copies; ended rows are reset by hand where nobody else does it."""
    results: list[Result] = []

    def keep(result: Result) -> None:
        results.append(_copied(result))
        if after is not None:
            after(result)

    keep(env.reset(seed=case.seed))  # type: ignore[arg-type]
    for action in case.actions:
        keep(env.step(action.copy()))
        ended = results[-1][2] | results[-1][3]
        if env.metadata["autoreset_mode"] == AutoresetMode.DISABLED and ended.any():
            keep(env.reset(options={"reset_mask": ended}))
    return results


def _copied(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _copied(value) for name, value in data.items()}
    if isinstance(data, tuple):
        return tuple(_copied(value) for value in data)
    if isinstance(data, np.ndarray) and data.dtype == object:
        copied = np.empty_like(data)
        copied[:] = [_copied(value) for value in data]
        return copied
    return data.copy() if isinstance(data, np.ndarray) else data


def assert_equal(found: Any, expected: Any, tolerance: float, where: str = "") -> None:
    """The same structure, names, dtypes and shapes, and numbers equal within an absolute tolerance."""
    assert type(found) is type(expected), where
    if isinstance(found, dict):
        assert set(found) == set(expected), where
        for name in found:
            assert_equal(found[name], expected[name], tolerance, f"{where}/{name}")
    elif isinstance(found, tuple):
        assert len(found) == len(expected), where
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_equal(*pair, tolerance, f"{where}/{number}")
    elif isinstance(found, np.ndarray):
        assert found.dtype == expected.dtype, where
        assert found.shape == expected.shape, where
        if found.dtype == object:
            assert_equal(tuple(found), tuple(expected), tolerance, where)
        else:
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=where)
    else:
        assert found == expected, where


def point_tasks(*goals: tuple[float, float], family: str = "point") -> list[Task]:
    return [Task.of(family, goal=goal) for goal in goals]


def make_points(
    *goals: tuple[float, float], horizon: int = 3, mode: AutoresetMode = AutoresetMode.NEXT_STEP
) -> TaskVectorEnv:
    """Points that start at the origin."""
    env = Point().make_env(len(goals), horizon=horizon, autoreset_mode=mode)
    env.set_tasks(point_tasks(*goals))
    return env


def make_random_starts(num_envs: int, mode: AutoresetMode = AutoresetMode.NEXT_STEP) -> TaskVectorEnv:
    """Points that start anywhere in [-1, 1]^2."""
    env = PointUniformStart().make_env(num_envs, horizon=2, autoreset_mode=mode)
    env.set_tasks(point_tasks(*[(0.0, 0.0)] * num_envs, family="point-uniform-start"))
    return env


def starts(seed: int, count: int) -> np.ndarray:
    """The first starts that Gymnasium's generator of a seed draws in [-1, 1]^2, [start, 2]."""
    rng, _ = seeding.np_random(seed)
    return np.array([rng.uniform(-1.0, 1.0, 2) for _ in range(count)])


@all_modes
@all_cases
def test_every_return_equals_that_of_gymnasiums_sync_vector_env(name: str, mode: AutoresetMode) -> None:
    case = CASES[name]
    ours, reference = case.make(mode), case.make_reference(mode)
    expected = drive(reference, case)
    terminations = np.array([result[2] for result in expected if len(result) == 5])
    truncations = np.array([result[3] for result in expected if len(result) == 5])
    assert truncations.any()
    assert terminations.any() == (name != "half-cheetah")
    assert_equal(tuple(drive(ours, case)), tuple(expected), tolerance=1e-12)
    reference.close()


@all_cases
def test_spaces_are_gymnasiums(name: str) -> None:
    ours, reference = CASES[name].make(), CASES[name].make_reference(AutoresetMode.NEXT_STEP)
    for space in ("single_observation_space", "single_action_space", "observation_space", "action_space"):
        assert getattr(ours, space) == getattr(reference, space)
    assert ours.observation_space == batch_space(ours.single_observation_space, ours.num_envs)
    assert ours.action_space == batch_space(ours.single_action_space, ours.num_envs)
    assert ours.num_envs == reference.num_envs


@all_modes
@all_cases
def test_returns_lie_in_the_spaces_and_have_gymnasiums_types(name: str, mode: AutoresetMode) -> None:
    env = CASES[name].make(mode)
    for result in drive(env, CASES[name]):
        assert result[0] in env.observation_space
        if len(result) == 5:
            _, rewards, terminated, truncated, _ = result
            assert (rewards.dtype, rewards.shape) == (np.float64, (env.num_envs,))
            assert (terminated.dtype, terminated.shape) == (np.bool_, (env.num_envs,))
            assert (truncated.dtype, truncated.shape) == (np.bool_, (env.num_envs,))


@pytest.mark.parametrize("mode", [*MODES, *(mode.value for mode in MODES)])
def test_metadata_names_the_autoreset_mode_as_the_enumeration(mode: AutoresetMode | str) -> None:
    env = Point().make_env(1, autoreset_mode=mode)
    assert env.metadata["autoreset_mode"] is AutoresetMode(mode)
    assert "render_modes" in env.metadata


def test_sampled_actions_are_accepted() -> None:
    env = CASES["half-cheetah"].make()
    env.reset(seed=0)
    env.action_space.seed(0)
    observations = env.step(env.action_space.sample())[0]
    assert observations in env.observation_space


def test_an_integer_seeds_row_i_with_seed_plus_i() -> None:
    env = make_random_starts(3)
    observations, _ = env.reset(seed=10)
    np.testing.assert_array_equal(observations, [starts(10 + row, 1)[0] for row in range(3)])
    assert env.np_random_seed == (10, 11, 12)


def test_a_list_seeds_each_row_and_none_keeps_a_rows_stream() -> None:
    env = make_random_starts(3)
    env.reset(seed=[7, 7, 9])
    observations, _ = env.reset(seed=[7, None, 8])
    np.testing.assert_array_equal(observations, [starts(7, 1)[0], starts(7, 2)[1], starts(8, 1)[0]])
    assert env.np_random_seed == (7, 7, 8)


def test_no_seed_keeps_every_rows_stream() -> None:
    env = make_random_starts(2)
    env.reset(seed=1)
    observations, _ = env.reset()
    np.testing.assert_array_equal(observations, [starts(1, 2)[1], starts(2, 2)[1]])


def test_a_first_reset_without_a_seed_gives_rows_different_streams() -> None:
    env = make_random_starts(2)
    observations, _ = env.reset()
    assert not np.array_equal(observations[0], observations[1])
    observations, _ = make_random_starts(3).reset(seed=[None, 4, None])
    assert not np.array_equal(observations[0], observations[2])
    np.testing.assert_array_equal(observations[1], starts(4, 1)[0])


def test_generators_are_gymnasiums_one_per_row() -> None:
    env = make_random_starts(2)
    env.reset(seed=5)
    expected = [seeding.np_random(seed)[0] for seed in (5, 6)]
    for found, rng in zip(env.np_random, expected, strict=True):
        rng.uniform(-1.0, 1.0, 2)
        assert found.random() == rng.random()


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3], []])
def test_another_number_of_seeds_is_refused(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="expected 2 seeds"):
        make_random_starts(2).reset(seed=seeds)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_autoreset_continues_the_stream_and_never_reseeds(mode: AutoresetMode) -> None:
    env = make_random_starts(2, mode)
    env.reset(seed=20)
    actions = np.zeros((2, 2))
    begun = []
    for step in range(1, 7):
        observations, _, _, truncated, _ = env.step(actions)
        # Episodes take two steps; NEXT_STEP spends a third one on the reset.
        if mode == AutoresetMode.SAME_STEP and truncated.any():
            begun.append(observations)
        if mode == AutoresetMode.NEXT_STEP and step % 3 == 0:
            begun.append(observations)
    assert len(begun) == (3 if mode == AutoresetMode.SAME_STEP else 2)
    for number, observations in enumerate(begun, start=1):
        np.testing.assert_array_equal(observations, [starts(20, 4)[number], starts(21, 4)[number]])
    assert env.np_random_seed == (20, 21)


@all_modes
def test_reset_mask_resets_its_rows_and_leaves_the_others_as_they_were(mode: AutoresetMode) -> None:
    env = make_points((9.0, 0.0), (9.0, 0.0), (9.0, 0.0), horizon=3, mode=mode)
    env.reset(seed=0)
    actions = np.full((3, 2), 0.1)
    env.step(actions)
    observations, infos = env.reset(options={"reset_mask": np.array([True, False, True])})
    np.testing.assert_allclose(observations, [[0.0, 0.0], [0.1, 0.1], [0.0, 0.0]], rtol=0, atol=1e-15)
    assert infos == {}
    assert not env.step(actions)[3].any()
    _, _, terminated, truncated, _ = env.step(actions)
    np.testing.assert_array_equal(truncated, [False, True, False])  # the third step of row 1 alone
    assert not terminated.any()


def test_a_partial_reset_leaves_other_rows_ended() -> None:
    env = make_points((9.0, 0.0), (9.0, 0.0), horizon=1, mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    assert env.step(np.zeros((2, 2)))[3].all()
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ValueError, match=r"sub-environments \[1\] have ended"):
        env.step(np.zeros((2, 2)))


def test_rows_end_in_the_step_that_resets_another() -> None:
    """Row 0 reaches its goal in one step, row 1 in two, row 2 never: it is cut after three."""
    env = SmallStart().make_env(3, horizon=3)
    env.set_tasks(point_tasks((0.1, 0.0), (0.2, 0.0), (0.9, 0.0), family="small-start"))
    env.reset(seed=0)
    flags = [env.step(np.tile([0.1, 0.0], (3, 1)))[2:4] for _ in range(3)]
    assert [terminated.tolist() for terminated, _ in flags] == [
        [True, False, False],
        [False, True, False],  # row 0 is reset
        [True, False, False],  # row 1 is reset
    ]
    assert [truncated.tolist() for _, truncated in flags] == [[False] * 3, [False] * 3, [False, False, True]]


def test_infos_of_a_partial_reset_are_masked() -> None:
    env = CASES["half-cheetah"].make()
    env.reset(seed=0)
    before = env.np_random[1].bit_generator.state
    _, infos = env.reset(options={"reset_mask": np.array([True, False, True])})
    np.testing.assert_array_equal(infos["_x_position"], [True, False, True])
    assert infos["x_position"][1] == 0.0
    assert infos["x_position"][0] != 0.0
    assert env.np_random[1].bit_generator.state == before


def test_a_partial_reset_seeds_only_the_rows_it_resets() -> None:
    env = make_random_starts(2)
    env.reset(seed=[1, 2])
    mask = np.array([True, False])
    observations, _ = env.reset(seed=[8, 9], options={"reset_mask": mask})
    np.testing.assert_array_equal(observations, [starts(8, 1)[0], starts(2, 1)[0]])
    assert env.np_random_seed == (8, 2)
    np.testing.assert_array_equal(env.reset()[0], [starts(8, 2)[1], starts(2, 2)[1]])


def test_a_seeded_partial_reset_may_come_first() -> None:
    env = make_random_starts(4)
    env.reset(seed=6, options={"reset_mask": np.array([True, True, False, False])})
    assert env.np_random_seed[:2] == (6, 7)
    assert len({id(rng) for rng in env.np_random}) == 4
    assert env.np_random[2].random() != env.np_random[3].random()


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True, False], TypeError, "must be a numpy array"),
        (np.array([True]), ValueError, r"must have shape `\(2,\)`"),
        (np.array([[True, False]]), ValueError, r"must have shape `\(2,\)`"),
        (np.array([1, 0]), TypeError, "must have `dtype=np.bool_`"),
        (np.array([False, False]), ValueError, "at least one True value"),
    ],
    ids=["list", "too-short", "two-dimensional", "integers", "none-chosen"],
)
def test_a_wrong_reset_mask_is_refused_as_by_gymnasium_and_changes_nothing(
    mask: object, error: type[Exception], message: str
) -> None:
    env = make_random_starts(2)
    reference = SyncVectorEnv([lambda: PointReference((0.0, 0.0))] * 2)
    reference.reset(seed=0)
    with pytest.raises(error, match=message):
        reference.reset(options={"reset_mask": mask})
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.reset(seed=50, options={"reset_mask": mask})
    assert env.np_random_seed == (0, 1)
    np.testing.assert_array_equal(env.reset()[0], [starts(0, 2)[1], starts(1, 2)[1]])


@cheap_cases
def test_a_wrong_number_of_actions_is_refused(name: str) -> None:
    env = CASES[name].make()
    env.reset(seed=0)
    rows, size = CASES[name].actions.shape[1:]
    for shape in ((rows - 1, size), (rows + 1, size), (0, size), (rows, size - 1), (rows * size,), (rows,)):
        with pytest.raises(ValueError, match="expected actions of shape"):
            env.step(np.zeros(shape))
    with pytest.raises(TypeError, match="got the scalar"):
        env.step(np.float64(0.0))  # type: ignore[arg-type]


@all_modes
@cheap_cases
def test_returned_arrays_belong_to_the_caller(name: str, mode: AutoresetMode) -> None:
    """A caller may overwrite all that it got; nothing that follows changes."""
    case = CASES[name]
    overwritten = drive(case.make(mode), case, after=_overwrite)
    assert_equal(tuple(overwritten), tuple(drive(case.make(mode), case)), tolerance=0.0)


def _overwrite(data: Any) -> None:
    if isinstance(data, dict):
        data = tuple(data.values())
    if isinstance(data, tuple) or (isinstance(data, np.ndarray) and data.dtype == object):
        for value in data:
            _overwrite(value)
    elif isinstance(data, np.ndarray):
        data[...] = True if data.dtype == np.bool_ else 1e3


@cheap_cases
def test_arrays_that_advance_returns_belong_to_the_caller(name: str) -> None:
    case = CASES[name]
    kept, overwritten = case.make(), case.make()
    kept.reset(seed=case.seed)
    overwritten.reset(seed=case.seed)
    for action in case.actions[:4]:
        expected, found = kept.advance(action), overwritten.advance(action)
        assert_equal(tuple(found), tuple(expected), tolerance=0.0)
        _overwrite(tuple(found))


@cheap_cases
def test_actions_are_left_as_they_were(name: str) -> None:
    case = CASES[name]
    env = case.make()
    env.reset(seed=0)
    actions = case.actions[0].copy()
    env.step(actions)
    np.testing.assert_array_equal(actions, case.actions[0])


@pytest.mark.parametrize("num_threads", [0, 2])
def test_closing_twice_is_harmless(num_threads: int) -> None:
    env = HalfCheetahDir().make_env(2, num_threads=num_threads)
    env.set_tasks(CASES["half-cheetah"].tasks[:2])
    env.reset(seed=0)
    env.step(np.zeros((2, 6)))
    env.close()
    env.close()
    assert env.closed


@all_modes
def test_the_time_limit_truncates_and_does_not_terminate(mode: AutoresetMode) -> None:
    env = make_points((9.0, 0.0), (9.0, 9.0), horizon=2, mode=mode)
    env.reset(seed=0)
    flags = [env.step(np.zeros((2, 2)))[2:4] for _ in range(2)]
    np.testing.assert_array_equal([terminated for terminated, _ in flags], np.zeros((2, 2), np.bool_))
    np.testing.assert_array_equal([truncated for _, truncated in flags], [[False, False], [True, True]])


@all_modes
def test_termination_before_the_time_limit_is_not_truncation(mode: AutoresetMode) -> None:
    env = make_points((0.2, 0.0), (9.0, 0.0), horizon=3, mode=mode)
    env.reset(seed=0)
    env.step(np.array([(0.1, 0.0)] * 2))
    _, _, terminated, truncated, _ = env.step(np.array([(0.1, 0.0)] * 2))
    np.testing.assert_array_equal(terminated, [True, False])
    np.testing.assert_array_equal(truncated, [False, False])


@all_modes
def test_an_episode_that_terminates_on_its_last_step_is_also_truncated(mode: AutoresetMode) -> None:
    """As gymnasium's TimeLimit has it, which looks at the number of steps alone."""
    env = make_points((0.3, 0.0), (9.0, 0.0), horizon=3, mode=mode)
    env.reset(seed=0)
    for _ in range(3):
        _, _, terminated, truncated, _ = env.step(np.array([(0.1, 0.0)] * 2))
    np.testing.assert_array_equal(terminated, [True, False])
    np.testing.assert_array_equal(truncated, [True, True])


def test_the_episode_after_an_early_end_has_the_whole_horizon() -> None:
    env = make_points((0.1, 0.0), (9.0, 0.0), horizon=3, mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    assert env.step(np.array([(0.1, 0.0), (0.0, 0.0)]))[2][0]
    truncated = [env.step(np.zeros((2, 2)))[3] for _ in range(3)]
    np.testing.assert_array_equal(truncated, [[False, False], [False, True], [True, False]])


@all_modes
def test_advance_never_resets(mode: AutoresetMode) -> None:
    env = make_points((0.1, 0.0), (9.0, 0.0), horizon=2, mode=mode)
    env.reset(seed=0)
    steps = [env.advance(np.array([(0.1, 0.0)] * 2)) for _ in range(3)]
    for number, step in enumerate(steps, start=1):
        np.testing.assert_allclose(step.observations, [(0.1 * number, 0.0)] * 2, rtol=0, atol=1e-12)
    np.testing.assert_array_equal([step.truncated[1] for step in steps], [False, True, True])
    assert steps[0].terminated[0]


def test_each_row_counts_its_own_steps() -> None:
    env = make_points((9.0, 0.0), (9.0, 0.0), horizon=2)
    env.reset(seed=0)
    only = np.array([1])
    assert not env.advance(np.zeros((1, 2)), only).truncated[0]
    assert env.advance(np.zeros((1, 2)), only).truncated[0]
    np.testing.assert_array_equal(env.advance(np.zeros((2, 2))).truncated, [False, True])


@all_modes
def test_record_episode_statistics_composes(mode: AutoresetMode) -> None:
    """Distances after each step: 0.2, 0.1, 0.0 to the near goal and 4.9, 4.8, 4.7 to the far one."""
    env = RecordEpisodeStatistics(make_points((0.3, 0.0), (0.0, 5.0), mode=mode))
    env.reset(seed=0)
    for _ in range(2):
        infos = env.step(np.array([(0.1, 0.0), (0.0, 0.1)]))[4]
        assert "episode" not in infos
    infos = env.step(np.array([(0.1, 0.0), (0.0, 0.1)]))[4]
    np.testing.assert_allclose(infos["episode"]["r"], [-0.3, -14.4], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(infos["episode"]["l"], [3, 3])


def test_record_episode_statistics_keeps_the_rows_that_a_partial_reset_leaves() -> None:
    """The wrapper looks for the mask after the environment has seen it, so it must still be there."""
    env = RecordEpisodeStatistics(make_points((9.0, 0.0), (9.0, 0.0), mode=AutoresetMode.DISABLED))
    env.reset(seed=0)
    env.step(np.zeros((2, 2)))
    env.reset(options={"reset_mask": np.array([True, False])})
    env.step(np.zeros((2, 2)))
    infos = env.step(np.zeros((2, 2)))[4]
    np.testing.assert_array_equal(infos["_episode"], [False, True])
    np.testing.assert_array_equal(infos["episode"]["l"], [0, 3])


@all_modes
def test_normalize_reward_composes_as_around_sync_vector_env(mode: AutoresetMode) -> None:
    case = CASES["point"]
    found = drive(NormalizeReward(case.make(mode), gamma=0.9), case)
    expected = drive(NormalizeReward(case.make_reference(mode), gamma=0.9), case)
    # The wrapper accumulates in float32, so differences of 1e-16 in a reward may grow to its precision.
    assert_equal(tuple(found), tuple(expected), tolerance=1e-6)


def test_clip_action_composes() -> None:
    case = CASES["half-cheetah"]
    clipped, plain = ClipAction(case.make()), case.make()
    clipped.reset(seed=0)
    plain.reset(seed=0)
    actions = 2.0 * case.actions[0]
    expected = plain.step(np.clip(actions, -1.0, 1.0).astype(np.float32))  # the type of the action space
    found = clipped.step(actions)
    assert_equal(found, expected, tolerance=0.0)
    assert np.abs(actions).max() > 1.0


@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_task_per_sub_environment_is_required(count: int) -> None:
    env = Point().make_env(2)
    with pytest.raises(ValueError, match=f"expected 2 tasks, one per sub-environment, got {count}"):
        env.set_tasks(point_tasks(*[(0.0, 0.0)] * count))


@cheap_cases
def test_tasks_of_another_family_are_refused_and_the_old_ones_stay(name: str) -> None:
    env = CASES[name].make()
    before = env.tasks
    wrong = [*before[:-1], Task.of("ant-dir", direction=1.0)]
    with pytest.raises(ValueError, match=f"expected tasks of family '{env.family.name}', got 'ant-dir'"):
        env.set_tasks(wrong)
    assert env.tasks == before == CASES[name].tasks


def test_every_row_is_rewarded_for_its_own_task() -> None:
    env = make_points((1.0, 0.0), (0.0, 2.0), (-3.0, 0.0))
    env.reset(seed=0)
    np.testing.assert_allclose(env.step(np.zeros((3, 2)))[1], [-1.0, -2.0, -3.0], rtol=0, atol=1e-15)


def test_nothing_runs_before_tasks_are_set() -> None:
    env = Point().make_env(2)
    assert env.tasks == ()
    with pytest.raises(RuntimeError, match="set_tasks"):
        env.reset(seed=0)
    with pytest.raises(RuntimeError, match="set_tasks"):
        env.step(np.zeros((2, 2)))


def test_new_tasks_count_from_the_next_reset() -> None:
    env = make_points((1.0, 0.0))
    env.reset(seed=0)
    env.set_tasks(point_tasks((4.0, 0.0)))
    env.reset()
    assert env.tasks == tuple(point_tasks((4.0, 0.0)))
    assert env.step(np.zeros((1, 2)))[1][0] == -4.0


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_new_tasks_do_not_continue_an_old_episode(mode: AutoresetMode) -> None:
    env = make_points((1.0, 0.0), (1.0, 0.0), mode=mode)
    with pytest.raises(ValueError, match="reset them"):
        env.step(np.zeros((2, 2)))
    env.reset(seed=0)
    env.set_tasks(point_tasks((4.0, 0.0), (4.0, 0.0)))
    with pytest.raises(ValueError, match="reset them"):
        env.step(np.zeros((2, 2)))


def test_stepping_an_ended_row_is_refused_when_autoreset_is_disabled() -> None:
    env = make_points((0.1, 0.0), (9.0, 0.0), mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    assert env.step(np.array([(0.1, 0.0)] * 2))[2][0]
    with pytest.raises(ValueError, match=r"sub-environments \[0\] have ended"):
        env.step(np.zeros((2, 2)))
    env.reset(options={"reset_mask": np.array([True, False])})
    assert not env.step(np.zeros((2, 2)))[2].any()


@pytest.mark.parametrize("num_envs", [0, -1])
def test_a_batch_has_at_least_one_row(num_envs: int) -> None:
    with pytest.raises(ValueError, match=f"num_envs must be at least 1, got {num_envs}"):
        Point().make_env(num_envs)


@pytest.mark.parametrize("horizon", [0, -5])
def test_an_episode_has_at_least_one_step(horizon: int) -> None:
    with pytest.raises(ValueError, match=f"horizon must be at least 1 step, got {horizon}"):
        Point().make_env(1, horizon=horizon)
