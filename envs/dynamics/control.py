"""The control loop of many rows: commands that arrive late, sensors with noise and bias, control frequency."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from metarl.envs.dynamics.fields import FIELDS
from metarl.envs.dynamics.ranges import Range
from metarl.envs.mujoco.robots import Robot
from metarl.tasks import Value

_GROUPS = ("qpos", "qvel")


class LoopRange(NamedTuple):
    """The effect of one task parameter on the control loop.

    Attributes:
        field: Quantity that the parameter sets, one of the control and sensor fields.
        num_targets: Number of targets of a sensor field; 0 for other fields.
        components: Index of the parameter's number for each observed quantity, int64 [feature]; -1 for none.
    """

    field: str
    num_targets: int
    components: np.ndarray


class Loop(NamedTuple):
    """A task's control loop; stacked for several rows, each [row] or [row, feature].

    Attributes:
        frame_skip: Number of physics steps per control step.
        delay: Number of control steps from a command to its effect.
        jitter: Largest additional delay in control steps, drawn uniformly from 0 to this for every command.
        noise: Standard deviation of the noise on every observed quantity, in its units.
        bias: Constant added to every observed quantity, in its units.
    """

    frame_skip: np.ndarray
    delay: np.ndarray
    jitter: np.ndarray
    noise: np.ndarray
    bias: np.ndarray


def observed_names(model: mujoco.MjModel, robot: Robot) -> list[str]:
    """Names of the observed quantities in order: "qpos.JOINT", "qvel.JOINT"; a joint with several is numbered."""
    positions, velocities = [], []
    for j in range(model.njnt):
        name = model.joint(j).name or f"joint {j}"
        nq = {mujoco.mjtJoint.mjJNT_FREE: 7, mujoco.mjtJoint.mjJNT_BALL: 4}.get(int(model.jnt_type[j]), 1)
        nv = {7: 6, 4: 3, 1: 1}[nq]
        positions += [f"qpos.{name}"] if nq == 1 else [f"qpos.{name}.{i}" for i in range(nq)]
        velocities += [f"qvel.{name}"] if nv == 1 else [f"qvel.{name}.{i}" for i in range(nv)]
    return positions[robot.hidden_qpos :] + velocities


def loop_range(r: Range, observed: Sequence[str]) -> LoopRange:
    """The effect on the control loop of a range of a control or sensor field.

    Raises:
        ValueError: If a target is not observed.
    """
    components = np.full(len(observed), -1)
    if FIELDS[r.field].kind != "sensor":
        if r.targets or r.each:
            raise ValueError(f"range {r.name!r}: field {r.field!r} takes no targets, got {list(r.targets)}")
        return LoopRange(r.field, 0, components)
    targets = list(r.targets) or list(observed)
    for place, target in enumerate(targets):
        matched = [i for i, name in enumerate(observed) if target in (name, name.split(".")[0])]
        if not matched:
            known = ", ".join((*_GROUPS, *observed))
            raise ValueError(f"range {r.name!r}: no observed quantity {target!r}; there are {known}")
        components[matched] = place if r.each else 0
    return LoopRange(r.field, len(targets), components)


def task_loop(
    ranges: Mapping[str, LoopRange], params: Mapping[str, Value], frame_skip: int, num_observed: int
) -> Loop:
    """The control loop of one task: the family's, with the task's parameters in the order of the ranges."""
    numbers = {"frame_skip": float(frame_skip), "delay": 0.0, "delay_jitter": 0.0}
    sensors = {"sensor_noise": np.zeros(num_observed), "sensor_bias": np.zeros(num_observed)}
    for name, r in ranges.items():
        value = np.atleast_1d(np.asarray(params[name], dtype=np.float64))
        if r.field in sensors:
            taken = r.components >= 0
            sensors[r.field][taken] = value[r.components[taken]]
        else:
            numbers[r.field] = value[0]
    skip, delay, jitter = (np.array(int(numbers[name])) for name in ("frame_skip", "delay", "delay_jitter"))
    return Loop(skip, delay, jitter, sensors["sensor_noise"], sensors["sensor_bias"])


class ControlLoop:
    """Delays and sensors of all rows, drawn for a whole episode when it begins.

    Every row draws from its own generator, and as much whatever its task is, so that what it draws does not depend
    on the other rows.

    Args:
        num_rows: Number of rows.
        horizon: Number of control steps in an episode.
        num_actions: Number of actuators.
        num_observed: Number of observed quantities.
        ranges: Ranges of the task parameters; they decide which random numbers are drawn.
    """

    def __init__(
        self, num_rows: int, horizon: int, num_actions: int, num_observed: int, ranges: Sequence[Range]
    ) -> None:
        self._horizon = horizon
        self._num_actions, self._num_observed = num_actions, num_observed
        self._rows = np.arange(num_rows)
        self._phase = np.zeros(num_rows, dtype=np.int64)
        varied = {r.field for r in ranges if r.outer_high > 0.0}
        self._delayed, self._noisy = bool(varied & {"delay", "delay_jitter"}), "sensor_noise" in varied
        self._biased = False

    def set(self, loops: Sequence[Loop], change_steps: np.ndarray) -> None:
        """Take the loops before and, if anything changes, after the change, and the step of the change [row]."""
        self._loops = [*loops] * (3 - len(loops))  # always two phases
        self._change_steps = change_steps
        longest = max(int((loop.delay + loop.jitter).max()) for loop in loops)
        self._biased = any(loop.bias.any() for loop in loops)
        count = len(self._rows)
        self._depth = longest + 1
        if self._delayed:
            self._history = np.zeros((count, self._depth, self._num_actions))
            self._newest = np.zeros((count, self._horizon), dtype=np.int64)
        self._draws = np.zeros((count, self._horizon + 1, self._num_observed) if self._noisy else 0)

    def begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> None:
        """Draw the delays and the noise of an episode of the rows."""
        self._phase[rows] = 0
        if self._delayed:
            self._newest[rows] = self._newest_commands(rows, np.array([rng.random(self._horizon) for rng in rngs]))
        if self._noisy:
            shape = (self._horizon + 1, self._num_observed)
            for row, rng in zip(rows.tolist(), rngs, strict=True):
                rng.standard_normal(shape, out=self._draws[row])

    def change(self, rows: np.ndarray) -> None:
        """Use the loops after the change for the rows from now on."""
        self._phase[rows] = 1

    def arrived(self, commands: np.ndarray, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The commands at the actuators at steps [row]: the newest that has arrived, zero before the first.

        Args:
            commands: Commands that are sent at these steps, [row, action].
            rows: Indices of the rows that take the step.
            steps: Steps of the rows' episodes, counted from 0, [row].
        """
        if not self._delayed:
            return commands
        self._history[rows, steps % self._depth] = commands
        newest = self._newest[rows, np.minimum(steps, self._horizon - 1)]
        arrived: np.ndarray = self._history[rows, newest % self._depth]
        arrived[newest < 0] = 0.0
        return arrived

    def sensed(self, observations: np.ndarray, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """Observations [row, feature] of the rows after so many steps [row], with bias and noise."""
        if not (self._noisy or self._biased):
            return observations
        phase = self._phase[rows]
        after = phase[:, None] == 1
        before_loop, after_loop = self._loops[0], self._loops[1]
        sensed: np.ndarray = observations + np.where(after, after_loop.bias[rows], before_loop.bias[rows])
        if self._noisy:
            deviation = np.where(after, after_loop.noise[rows], before_loop.noise[rows])
            sensed += deviation * self._draws[rows, np.minimum(steps, self._horizon)]
        return sensed

    def _newest_commands(self, rows: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """The newest command that has arrived at every step, -1 for none; int64 [row, time].

        Args:
            rows: Indices of the rows whose episodes begin.
            uniform: Uniform random number for every command, in [0, 1), [row, time].
        """
        steps = np.arange(self._horizon)
        after = steps >= self._change_steps[rows, None]
        delay, jitter = (
            np.where(after, getattr(self._loops[1], name)[rows, None], getattr(self._loops[0], name)[rows, None])
            for name in ("delay", "jitter")
        )
        arrival = steps + delay + np.floor(uniform * (jitter + 1)).astype(np.int64)
        newest = np.full((len(rows), self._horizon), -1)
        row, step = np.nonzero(arrival < self._horizon)
        np.maximum.at(newest, (row, arrival[row, step]), step)
        accumulated: np.ndarray = np.maximum.accumulate(newest, axis=1)
        return accumulated
