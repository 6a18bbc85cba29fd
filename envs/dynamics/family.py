"""A task family whose tasks are simulator parameters, on the batched engine."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode

from metarl.envs.dynamics.control import ControlLoop, Loop, LoopRange, loop_range, observed_names, task_loop
from metarl.envs.dynamics.effects import fields_without_effect
from metarl.envs.dynamics.fields import FIELDS, element_names
from metarl.envs.dynamics.physics import (
    LITERATURE,
    NO_GAP,
    PHYSICAL,
    Edit,
    Physics,
    SimulatorGap,
    build_nominal,
    edited_model,
    make_edit,
)
from metarl.envs.dynamics.ranges import CHANGE_STEP, Randomization, Range
from metarl.envs.dynamics.rewards import ForwardReward, Reward, own_terms
from metarl.envs.dynamics.terms import SENSOR, Health, TermReward, check_contacts, check_goals, measured_names
from metarl.envs.mujoco.locomotion import LocomotionEnv, LocomotionFamily, Motion
from metarl.envs.mujoco.robots import Robot
from metarl.envs.vector import Infos
from metarl.runs.configs import MOST_STEPS, check_counts
from metarl.tasks import Parameter, Task

_LOOP = ("control", "sensor")


@dataclass(frozen=True)
class DynamicsFamily(LocomotionFamily):
    """A robot, the parameters that its tasks randomise, and its reward.

    The reward is computed from the commands as they are sent, not as they arrive after a delay.

    Attributes:
        name: Name of the family.
        robot: Robot, one of `metarl.envs.mujoco.robots`, or a `Robot` of a file of one's own.
        randomization: Ranges of the task parameters, one each.
        reward: Reward of a step; worker processes need one from the top level of a module.
        horizon: Number of control steps per episode.
        physics: Rules for the constants that depend on an edited mass, inertia or friction.
        simulator: Differences of the simulator from the settings of the model file.
        health: Ranges of heights and uprightness outside which an episode ends.
        places: Bodies and sites, besides those of reward terms, whose positions a reward reads in `Motion`.
        contacts: Whether a reward of a user's own reads the forces of contacts in `Motion`.
        parameters: Parameters of the tasks, one per range, with the bounds of its ring.
        num_observed: Number of observed quantities.

    Raises:
        ValueError: If a range's target is not in the model, a value is unphysical, or a change may never happen.
    """

    name: str
    robot: Robot
    randomization: Randomization
    reward: Reward
    horizon: int = 200
    physics: Physics = PHYSICAL
    simulator: SimulatorGap = NO_GAP
    health: tuple[Health, ...] = ()
    places: tuple[str, ...] = ()
    contacts: bool = False
    parameters: tuple[Parameter, ...] = field(init=False, repr=False, compare=False)
    num_observed: int = field(init=False, repr=False, compare=False)
    _nominal: mujoco.MjModel = field(init=False, repr=False, compare=False)
    _effects_checked: bool = field(default=False, init=False, repr=False, compare=False)
    _measured: tuple[str, ...] = field(init=False, repr=False, compare=False)
    _substeps: float = field(init=False, repr=False, compare=False)
    _edits: dict[str, Edit] = field(init=False, repr=False, compare=False)
    _loops: dict[str, LoopRange] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self, "horizon", most=MOST_STEPS)
        self._check_change(self.horizon)
        ranges = self.randomization.parameters
        targets = self.randomization.target_sizes
        terms = self.reward.terms if isinstance(self.reward, TermReward) else ()
        measured = measured_names(terms, self.health, list(targets))
        measured = tuple(dict.fromkeys((*measured, *self.places)))
        check_goals(terms, targets)
        nominal = build_nominal(self.robot, ranges, self.physics, measured)
        check_contacts(terms, element_names(nominal, "body"))
        if not nominal.nu or not nominal.actuator_ctrllimited.all():
            raise ValueError(
                f"the model of {self.robot.name!r} needs actuators that all have a ctrlrange: actions do"
            )
        if self.robot.hidden_qpos > nominal.nq:
            raise ValueError(
                f"{self.robot.name}: hidden_qpos must be at most {nominal.nq}, the model's positions, "
                f"got {self.robot.hidden_qpos}"
            )
        observed = observed_names(nominal, self.robot)
        edits = {r.name: make_edit(nominal, r) for r in ranges if FIELDS[r.field].kind not in (*_LOOP, "target")}
        loops = {r.name: loop_range(r, observed) for r in ranges if FIELDS[r.field].kind in _LOOP}
        sizes = {name: len(edit.targets) for name, edit in edits.items()}
        sizes |= {name: loop.num_targets for name, loop in loops.items()}
        sizes |= {r.name: len(r.targets) for r in ranges if r.field == "target"}
        for name, value in {
            "parameters": tuple(_parameter(r, sizes[r.name]) for r in ranges),
            "num_observed": len(observed),
            "_substeps": self.simulator.substeps(nominal.opt.timestep),
            "_edits": edits,
            "_loops": loops,
            "_nominal": nominal,
            "_measured": measured,
        }.items():
            object.__setattr__(self, name, value)
        self.simulator.apply(nominal)
        skips = {self.robot.frame_skip}
        for r in ranges:
            if r.field == "frame_skip":
                skips |= set(range(int(r.outer_low), int(r.outer_high) + 1))
        for skip in sorted(skips):
            self.substeps_of(skip)

    @property
    def measured(self) -> Mapping[str, str]:
        """Names of the model's sensors of positions that `Motion` has, by the names that it has them under."""
        return {name: SENSOR + name for name in self._measured}

    @property
    def felt(self) -> Sequence[str]:
        """Names of all bodies of the model, in its order, if the reward reads the contact forces on them."""
        terms = self.reward.terms if isinstance(self.reward, TermReward) else ()
        reads = self.contacts or any(term.term == "contact" for term in terms)
        return element_names(self._nominal, "body") if reads else ()

    def goals(self, task: Task, *, changed: bool = False) -> list[np.ndarray]:
        """Places of the task's targets, metres, each [3]; axes that a target leaves out are 0.

        Args:
            task: Task that has them.
            changed: Whether to return the places after the task's change instead of those before.
        """
        moved = self.randomization.moved_targets if changed else {}
        targets = [r for r in self.randomization.ranges if r.field == "target" and r.targets]
        places = [np.zeros(3) for _ in targets]
        for place, r in zip(places, targets, strict=True):
            place[["xyz".index(axis) for axis in r.targets]] = task[moved.get(r.name, r.name)]
        return places

    def healthy(self, motion: Motion) -> np.ndarray | None:
        """Whether rows are healthy by the family's own ranges, bool [row]; None where it has none."""
        return np.all([each.kept(motion) for each in self.health], axis=0) if self.health else None

    @property
    def frame_skip(self) -> int:
        """Physics steps per control step, in the simulator as it is set."""
        return self.substeps_of(self.robot.frame_skip)

    def substeps_of(self, frame_skip: int) -> int:
        """The number of the simulator's physics steps that last as long as `frame_skip` steps of the model file.

        Raises:
            ValueError: if the simulator's timestep does not divide the control period.
        """
        steps = round(frame_skip * self._substeps)
        if steps < 1 or abs(steps - frame_skip * self._substeps) > 1e-9 * steps:
            period = frame_skip * self._substeps * self._nominal.opt.timestep
            raise ValueError(
                f"the simulator's timestep must divide the control period of {period:g} s, "
                f"got {self._nominal.opt.timestep:g} s"
            )
        return steps

    def with_simulator(self, gap: SimulatorGap) -> "DynamicsFamily":
        """The same tasks in another simulator: same name, parameters and control period.

        Raises:
            ValueError: if the gap's timestep does not divide the control period.
        """
        return replace(self, simulator=gap)

    def check_effects(self) -> None:
        """Refuse ranges that do nothing; tried by stepping, once, when the first environment is made.

        Families with the literature's physics are not tried: they randomise what their sources do, whether or not
        it has an effect.

        Raises:
            ValueError: if a field changes no state, naming it and its target.
        """
        if self._effects_checked or self.physics == LITERATURE:
            return
        for changed in (False, True) if self.randomization.after else (False,):
            nothing, untried = fields_without_effect(
                self._nominal, self._ranges(changed), self._edits, self.physics
            )
            if nothing:
                raise ValueError(
                    f"{self.name}: {nothing[0]} does nothing: its lowest and its highest value lead to the same "
                    "states; leave it out, or mend the model"
                )
            for label in untried:
                message = f"{self.name}: {label} showed no effect: it touched nothing in what was tried"
                warnings.warn(message, RuntimeWarning, stacklevel=3)
        object.__setattr__(self, "_effects_checked", True)

    def build_model(self) -> mujoco.MjModel:
        """A copy of the nominal model."""
        return self._nominal.__copy__()

    def check(self, task: Task) -> None:
        """Raise a ValueError that says what is wrong unless the task belongs to this family."""
        super().check(task)
        for r in self.randomization.parameters:
            if r.integer and np.any(np.mod(task[r.name], 1)):
                raise ValueError(f"parameter {r.name!r} must be a whole number, got {task[r.name]!r}")

    def _check_change(self, horizon: int) -> None:
        change = self.randomization.change
        if change is not None and change.last_step >= horizon:
            raise ValueError(
                f"{self.name}: the change's last_step must be below the horizon of {horizon} steps, "
                f"or it may never happen; got {change.last_step}"
            )

    def model_for(self, task: Task, nominal: mujoco.MjModel, *, changed: bool = False) -> mujoco.MjModel:
        """The model of a task, before its change or after."""
        return self.models_for([task], nominal, changed=changed)[0]

    def models_for(
        self, tasks: Sequence[Task], nominal: mujoco.MjModel, *, changed: bool = False
    ) -> list[mujoco.MjModel]:
        """The models of tasks, before their change or after."""
        names = [r.name for r in self._ranges(changed) if r.name in self._edits]
        edits = [self._edits[name] for name in names]
        scratch = mujoco.MjData(nominal)
        return [edited_model(nominal, edits, dict(task.params), self.physics, scratch) for task in tasks]

    def loops_for(self, tasks: Sequence[Task], *, changed: bool = False) -> Loop:
        """The control loops of tasks, stacked, before their change or after."""
        ranges = {r.name: self._loops[r.name] for r in self._ranges(changed) if r.name in self._loops}
        skip = self.robot.frame_skip
        loops = [task_loop(ranges, dict(task.params), skip, self.num_observed) for task in tasks]
        stacked = Loop(*(np.stack(values) for values in zip(*loops, strict=True)))
        skips = np.array([self.substeps_of(skip) for skip in stacked.frame_skip.tolist()])
        return stacked._replace(frame_skip=skips)

    def _ranges(self, changed: bool) -> tuple[Range, ...]:
        """The ranges that hold, in the order in which they are applied."""
        return (*self.randomization.ranges, *(self.randomization.after if changed else ()))

    def reward_terms(
        self, motion: Motion, actions: np.ndarray, params: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The terms of the family's reward."""
        if isinstance(self.reward, ForwardReward | TermReward):
            return self.reward(motion, actions)
        return own_terms(self.name, self.reward, motion, actions)

    def make_env(
        self,
        num_envs: int,
        *,
        horizon: int | None = None,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> "DynamicsEnv":
        """A batched environment for tasks of this family.

        Raises:
            ValueError: if the horizon is so short that a change may never happen.
        """
        self._check_change(self.horizon if horizon is None else horizon)
        self.check_effects()
        return DynamicsEnv(self, num_envs, horizon=horizon, num_threads=num_threads, autoreset_mode=autoreset_mode)


class DynamicsEnv(LocomotionEnv):
    """Sub-environments of one dynamics family on the batched engine: a model and a control loop per task.

    MuJoCo silently resets a simulation that has become unstable to its first pose at time zero. Such a step ends
    the episode, with no reward; the infos name it "diverged".
    """

    family: DynamicsFamily

    def __init__(
        self,
        family: DynamicsFamily,
        num_envs: int,
        *,
        horizon: int | None = None,
        num_threads: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        super().__init__(family, num_envs, horizon=horizon, num_threads=num_threads, autoreset_mode=autoreset_mode)
        self._changes = family.randomization.change is not None
        self._moved_targets = family.randomization.moved_targets
        self._phase_models: list[list[mujoco.MjModel]] = []
        self._phase_skips: list[np.ndarray] = []
        self._take_loops()

    def _take_loops(self) -> None:
        """Have a control loop for every row."""
        num_envs, family = self.num_envs, self.family
        self._every = np.arange(num_envs)
        ranges = family.randomization.parameters
        self._loop = ControlLoop(num_envs, self.max_episode_steps, self._nominal.nu, family.num_observed, ranges)
        self._change_steps = np.full(num_envs, np.iinfo(np.int64).max)
        self._changed = np.zeros(num_envs, dtype=np.bool_)

    def resize(self, num_envs: int) -> bool:
        """Take another number of rows, up to the capacity, and keep the threads."""
        resized = super().resize(num_envs)
        if resized:
            self._take_loops()
        return resized

    def _set_task_params(self, params: Mapping[str, np.ndarray], tasks: Sequence[Task]) -> None:
        self._params = dict(params)
        distinct = {task: place for place, task in enumerate(dict.fromkeys(tasks))}
        places = np.array([distinct[task] for task in tasks])
        self._phase_models, loops = [], []
        for changed in (False, True) if self._changes else (False,):
            models = self.family.models_for(list(distinct), self._nominal, changed=changed)
            self._phase_models.append([models[place] for place in places.tolist()])
            stacked = self.family.loops_for(list(distinct), changed=changed)
            loops.append(Loop(*(values[places] for values in stacked)))
        if self._changes:
            self._change_steps = params[CHANGE_STEP].astype(np.int64)
        self._changed[:] = False
        self._phase_skips = [loop.frame_skip for loop in loops]
        self._loop.set(loops, self._change_steps)
        self.physics.set_models(self._phase_models[0])
        self.physics.set_frame_skips(self._phase_skips[0])

    def _begin(self, rows: np.ndarray, rngs: Sequence[np.random.Generator]) -> tuple[np.ndarray, Infos]:
        self._switch(rows[self._changed[rows]], 0)
        observations, infos = super()._begin(rows, rngs)
        self._loop.begin(rows, rngs)
        return self._loop.sensed(observations, rows, np.zeros(len(rows), dtype=np.int64)), infos

    def _simulate(
        self, actions: np.ndarray, rows: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Infos]:
        every = self._every if rows is None else rows
        steps = self._elapsed[every]
        if self._changes:
            due = every[steps == self._change_steps[every]]
            self._switch(due, 1)
            self._loop.change(due)
        began = self.physics.states[every, 0]
        observations, rewards, terminated, infos = super()._simulate(actions, rows)
        # A reset on the way leaves the clock a physics step behind at least.
        expected = began + self._duration(every)[:, 0]
        diverged = self.physics.states[every, 0] < expected - 0.5 * self._nominal.opt.timestep
        rewards[diverged] = 0.0
        infos = {name: np.where(diverged, 0.0, values) for name, values in infos.items()} | {"diverged": diverged}
        return self._loop.sensed(observations, every, steps + 1), rewards, terminated | diverged, infos

    def _switch(self, rows: np.ndarray, phase: int) -> None:
        """Put rows on the models and frame skips before (0) or after (1) their change."""
        if not len(rows):
            return
        self._changed[rows] = phase == 1
        models = self._phase_models[phase]
        self.physics.replace_models(rows, [models[row] for row in rows.tolist()])
        skips = self.physics.frame_skips.copy()
        skips[rows] = self._phase_skips[phase][rows]
        self.physics.set_frame_skips(skips)

    def _row_params(self, index: slice | np.ndarray) -> dict[str, np.ndarray]:
        params = super()._row_params(index)
        changed = self._changed[index]
        for name, after in self._moved_targets.items():
            moved = changed.reshape(-1, *(1 for _ in params[name].shape[1:]))
            params[name] = np.where(moved, params[after], params[name])
        return params

    def _goals(self, row: int) -> list[np.ndarray]:
        return self.family.goals(self._tasks[row], changed=bool(self._changed[row]))

    def _controls(self, actions: np.ndarray, index: slice | np.ndarray) -> np.ndarray:
        rows = self._every[index]
        return self._loop.arrived(actions, rows, self._elapsed[rows])

    def _duration(self, index: slice | np.ndarray) -> np.ndarray:
        seconds: np.ndarray = self._nominal.opt.timestep * self.physics.frame_skips[index, None]
        return seconds


def _parameter(r: Range, num_targets: int) -> Parameter:
    return Parameter(
        r.name, size=num_targets if r.each or r.field == "target" else 0, low=r.outer_low, high=r.outer_high
    )
