"""Meta-World's environments, many of one class at little memory, and stepped faster.

A class of Meta-World loads a model of tens of megabytes for every object. Here the objects of a class share one
model. Tasks differ in it by the positions of bodies and sites alone, which are put in place when another object
takes its turn.

Most of a step's time in the package is Python: looking up names, looping over contacts one by one, stacking
observations repeatedly, checking that a rotation matrix is one. `FastStep` computes the same numbers, bit for bit,
without that. Its physics is the package's own: the same calls of MuJoCo, except for one whose results nobody
reads, and for one of two settlings of the hand at a reset, the first of which is overwritten by the second.
"""

import functools
import math
from types import FunctionType
from typing import Any

import mujoco
import numpy as np

try:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.sawyer_xyz_env import SawyerXYZEnv
    from metaworld.types import Task as PackageTask
    from metaworld.utils import reward_utils
except ImportError as error:
    raise ValueError(
        f'Meta-World\'s benchmarks need metaworld ({error}); pip install "metarl-toolkit[metaworld]"'
    ) from error

Reset = tuple[np.ndarray, dict[str, Any]]
Step = tuple[np.ndarray, Any, bool, bool, dict[str, Any]]

CLASSES: dict[str, Any] = dict(ALL_V3_ENVIRONMENTS)
"""The package's classes by the names of their environments."""
ENVIRONMENTS: tuple[str, ...] = tuple(CLASSES)
"""The names of Meta-World's 50 environments, e.g. "reach-v3"."""


def new_environment(name: str, *, reward_version: str = "v2", fast_step: bool = True) -> SawyerXYZEnv:
    """Create one of the package's environments by its name.

    Environments of one class in a process share a model and must not be stepped at the same time.

    Args:
        name: Name of the environment, one of ENVIRONMENTS.
        reward_version: Version of the rewards: "v2", between 0 and 10 as in Meta-World's paper, or the older "v1".
        fast_step: Whether to compute the package's numbers with faster code.
    """
    made: SawyerXYZEnv = _sharing_class(name, fast_step)(reward_function_version=reward_version)
    return made


class Sharing(SawyerXYZEnv):
    """Environments of one class that share one model.

    Attributes:
        shared_model: Model of all objects of the class; None before the first object is created.
        nominal: Positions of the bodies and of the sites in the model before any task is set.
        holder: Object of the class whose positions are in the model.
    """

    shared_model: mujoco.MjModel | None = None
    nominal: tuple[np.ndarray, np.ndarray] | None = None
    holder: "Sharing | None" = None

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        cls = type(self)
        if cls.shared_model is None or cls.nominal is None:
            cls.shared_model, data = super()._initialize_simulation()
            cls.nominal = _positions(cls.shared_model)
        else:
            cls._put(cls.nominal)
            data = mujoco.MjData(cls.shared_model)
        cls.holder = self
        self._own_positions = cls.nominal
        return cls.shared_model, data

    def take_turn(self) -> None:
        """Put this object's positions into the shared model."""
        cls = type(self)
        if cls.holder is not self:
            cls._put(self._own_positions)
            cls.holder = self

    @classmethod
    def _put(cls, positions: tuple[np.ndarray, np.ndarray]) -> None:
        assert cls.shared_model is not None
        cls.shared_model.body_pos[:], cls.shared_model.site_pos[:] = positions

    def give(self, rand_vec: np.ndarray, *, goal_observed: bool) -> None:
        """Set a task, as `set_task` does, without a pickle."""
        self._set_task_called = True
        self._freeze_rand_vec = True
        self._last_rand_vec = rand_vec
        if goal_observed == self._partially_observable:
            self.__dict__.pop("sawyer_observation_space", None)  # cached, and depends on the flag
            self._partially_observable = not goal_observed
        self._set_task_inner()

    def set_task(self, task: PackageTask) -> None:
        """Refuse the package's tasks, which are pickles."""
        raise TypeError("a task of Meta-World's package is a pickle, which is not loaded; give a metarl.Task")

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Start an episode as the package does; positions change at resets only."""
        self.take_turn()
        result: Reset = super().reset()
        self._own_positions = _positions(self.model)
        return result

    def step(self, action: np.ndarray) -> Step:
        """Take a step as the package does."""
        self.take_turn()
        result: Step = super().step(action)
        return result


def _positions(model: mujoco.MjModel) -> tuple[np.ndarray, np.ndarray]:
    return model.body_pos.copy(), model.site_pos.copy()


class FastStep(Sharing):
    """The package's step and reset with the same results to the bit, in less time."""

    def __init__(self, **kwargs: Any) -> None:
        self._settles = True
        super().__init__(**kwargs)
        data = self.data
        self._named = _NamedData(data)
        self._hand = data.body("hand").xpos
        self._right_claw, self._left_claw = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._right_tip, self._left_tip = data.site("rightEndEffector").xpos, data.site("leftEndEffector").xpos
        self._pads = (data.geom("leftpad_geom").id, data.geom("rightpad_geom").id)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Reset:
        """Start an episode as the package does.

        Of the package's two rounds, the first only sets the positions that the second starts from.
        """
        self.take_turn()
        self.data = self._named.data
        self.curr_path_length = 0
        self._settles = False
        self.reset_model()
        self._settles = True
        mujoco.mj_resetData(self.model, self.data)
        obs: np.ndarray = self.reset_model()
        self._prev_obs = obs[:18].copy()
        obs[18:36] = self._prev_obs
        self.data = self._named
        self._own_positions = _positions(self.model)
        space = self.sawyer_observation_space
        self._low, self._high = space.low, space.high
        return obs.astype(np.float64), {}

    def _reset_hand(self, steps: int = 50) -> None:
        if self._settles:
            data = self.data
            mocap = self.model.body_mocapid[data.body("mocap").id]
            data.mocap_pos[mocap][:] = self.hand_init_pos
            data.mocap_quat[mocap][:] = (1, 0, 1, 0)
            data.ctrl[:] = (-1, 1)
            mujoco.mj_step(self.model, data, nstep=steps * self.frame_skip)
        self.init_tcp = self.tcp_center

    def step(self, action: np.ndarray) -> Step:
        """Take a step with the same results as the package's, to the bit."""
        if not self._set_task_called:
            raise RuntimeError("an environment needs a task before its first step")
        if self.curr_path_length >= self.max_path_length:
            raise ValueError("the episode is over: reset the environment")
        self.take_turn()
        data, model = self._named.data, self.model
        moved = data.mocap_pos + (np.minimum(np.maximum(action[:3], -1), 1) * self.action_scale)[None]
        data.mocap_pos[0] = np.minimum(np.maximum(moved[0], self.mocap_low), self.mocap_high)
        data.mocap_quat[:] = (1, 0, 1, 0)
        data.ctrl[0], data.ctrl[1] = action[-1], -action[-1]
        mujoco.mj_step(model, data, nstep=self.frame_skip)
        self.curr_path_length += 1
        mujoco.mj_forward(model, data)
        obs = np.minimum(np.maximum(self._get_obs(), self._low), self._high)
        self._last_stable_obs = obs
        reward, info = self.evaluate_state(obs, action)
        return obs.copy(), reward, False, self.curr_path_length == self.max_path_length, info

    def _get_obs(self) -> np.ndarray:
        current = self._get_curr_obs_combined_no_goal()
        obs = np.zeros(39)
        obs[:18], obs[18:36] = current, self._prev_obs
        if not self._partially_observable:
            obs[36:] = self._target_pos
        self._prev_obs = current
        return obs

    def _get_curr_obs_combined_no_goal(self) -> np.ndarray:
        if not hasattr(self, "_named"):  # called by the package's constructor
            first: np.ndarray = super()._get_curr_obs_combined_no_goal()
            return first
        current = np.zeros(18)
        current[:3] = self._hand
        opened = _norm(self._right_claw - self._left_claw) / 0.1
        current[3] = min(max(opened, 0.0), 1.0)
        positions, rotations = self._get_pos_objects(), self._get_quat_objects()
        current[4:7], current[7:11] = positions[:3], rotations[:4]
        if len(positions) == 6:
            current[11:14], current[14:18] = positions[3:], rotations[4:]
        return current

    @property
    def tcp_center(self) -> np.ndarray:
        """Centre between the two fingertips, metres [3]."""
        center: np.ndarray = (self._right_tip + self._left_tip) / 2.0
        return center

    def touching_object(self, object_geom_id: int) -> bool:
        """Whether both pads press on the geom."""
        data = self._named.data
        pairs = data.contact.geom
        ours = np.flatnonzero((pairs == object_geom_id).any(1))
        if not len(ours):
            return False
        forces, addresses = data.efc_force, data.contact.efc_address
        for pad in self._pads:
            touching = ours[(pairs[ours] == pad).any(1)]
            if not sum(forces[addresses[contact]] for contact in touching) > 0:
                return False
        return True


class _NamedData:
    """MuJoCo's data with a cache for the results of `data.body(name)` and similar calls.

    The results are views, which stay valid as long as the data exist.
    """

    def __init__(self, data: mujoco.MjData) -> None:
        self.data = data
        self.qpos, self.qvel, self.site_xpos = data.qpos, data.qvel, data.site_xpos
        self.body, self.geom = functools.cache(data.body), functools.cache(data.geom)
        self.site, self.joint = functools.cache(data.site), functools.cache(data.joint)


class _Rotation:
    """The one conversion of scipy's class of that name that environments use, without its checks.

    Args:
        matrix: Rotation matrix, [3, 3].
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = matrix

    @staticmethod
    def from_matrix(matrix: np.ndarray) -> "_Rotation":
        """The rotation with a matrix [3, 3]."""
        return _Rotation(matrix)

    def as_quat(self) -> np.ndarray:
        """The quaternion (x, y, z, w), by Shepperd's method: its largest square is computed first."""
        m = self._matrix.tolist()
        trace = m[0][0] + m[1][1] + m[2][2]
        largest = [m[0][0], m[1][1], m[2][2], trace]
        i = largest.index(max(largest))
        if i == 3:
            quat = [m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1], 1 + trace]
        else:
            j, k = (i + 1) % 3, (i + 2) % 3
            quat = [0.0] * 4
            quat[i] = 1 - trace + 2 * m[i][i]
            quat[j], quat[k] = m[j][i] + m[i][j], m[k][i] + m[i][k]
            quat[3] = m[k][j] - m[j][k]
        x, y, z, w = quat
        norm = math.sqrt(x * x + y * y + z * z + w * w)
        return np.array((x / norm, y / norm, z / norm, w / norm))


class _RewardUtils:
    """The package's functions of that name; the kind of `tolerance` that most rewards use is faster."""

    hamacher_product = staticmethod(reward_utils.hamacher_product)
    rect_prism_tolerance = staticmethod(reward_utils.rect_prism_tolerance)
    inverse_tolerance = staticmethod(reward_utils.inverse_tolerance)

    @staticmethod
    def tolerance(
        x: float,
        bounds: tuple[float, float] = (0.0, 0.0),
        margin: float = 0.0,
        sigmoid: reward_utils.SIGMOID_TYPE = "gaussian",
        value_at_margin: float = 0.1,
    ) -> float:
        """1 within the bounds, falling to value_at_margin at the distance `margin` outside."""
        lower, upper = bounds
        plain = sigmoid == "long_tail" and isinstance(x, float) and margin > 0 and lower <= upper
        if not plain:
            value: float = reward_utils.tolerance(x, bounds, margin, sigmoid, value_at_margin)
            return value
        if lower <= x <= upper:
            return 1.0
        distance = float((lower - x if x < lower else x - upper) / margin)
        scaled = distance * math.sqrt(1 / value_at_margin - 1)
        return float(1 / (scaled**2 + 1))


class _Linalg:
    """numpy's module of that name, with a faster norm of short vectors."""

    @staticmethod
    def norm(x: np.ndarray, ord: int | None = None, axis: int | None = None) -> Any:
        """The Euclidean norm."""
        if ord is None and axis is None and isinstance(x, np.ndarray) and x.ndim == 1:
            return _norm(x)
        return np.linalg.norm(x, ord, axis)


class _Numpy:
    """numpy except for `linalg.norm`; every other name is looked up once."""

    def __init__(self) -> None:
        self.linalg = _Linalg

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name)
        setattr(self, name, value)
        return value


def _norm(x: np.ndarray) -> np.float64:
    """The Euclidean norm of a vector as np.linalg.norm computes it, without its checks."""
    length: np.float64 = np.sqrt(x.dot(x))
    return length


_FASTER = {"Rotation": _Rotation, "reward_utils": _RewardUtils, "np": _Numpy()}
_REBOUND = ("compute_reward", "_get_pos_objects", "_get_quat_objects", "_gripper_caging_reward")


@functools.cache
def _sharing_class(name: str, fast_step: bool) -> type[Sharing]:
    """The class of an environment whose objects share a model."""
    if name not in ALL_V3_ENVIRONMENTS:
        raise ValueError(f"unknown environment {name!r}; Meta-World's are: {', '.join(ENVIRONMENTS)}")
    own = ALL_V3_ENVIRONMENTS[name]
    if not fast_step:
        return type(own.__name__, (Sharing, own), {"__module__": __name__})
    functions = {
        method: rebound
        for method in _REBOUND
        if (rebound := _with_faster_helpers(getattr(own, method, None))) is not None
    }
    return type(own.__name__, (FastStep, own), {**functions, "__module__": __name__})


def _with_faster_helpers(function: object) -> FunctionType | None:
    """The package's own function with its helpers replaced by the faster ones; None if it uses none of them."""
    if not isinstance(function, FunctionType) or not set(function.__code__.co_names) & set(_FASTER):
        return None
    names = {**function.__globals__, **_FASTER}
    rebound = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    rebound.__kwdefaults__ = function.__kwdefaults__
    return rebound
