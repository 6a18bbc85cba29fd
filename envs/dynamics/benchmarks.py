"""The named dynamics benchmarks: random parameters of the literature, mass and friction, and one for studies."""

from collections.abc import Callable

from metarl.envs.dynamics.family import DynamicsFamily
from metarl.envs.dynamics.physics import LITERATURE
from metarl.envs.dynamics.ranges import Change, Randomization, Range
from metarl.envs.dynamics.rewards import ForwardReward
from metarl.envs.dynamics.splits import DynamicsSplit, DynamicsTasks, split
from metarl.envs.mujoco.robots import ANT, HALF_CHEETAH, HOPPER, WALKER2D, Robot
from metarl.tasks import Benchmark

# 1.5^U(-3, 3) is extrapolated to 1.5^U(-4.5, 4.5).
_RING = 0.25
_CHEETAH_REWARD = ForwardReward(ctrl_weight=0.05)  # as in half-cheetah-dir
_ANT_REWARD = ForwardReward(alive_bonus=1.0, ctrl_weight=0.5)  # as in ant-dir


def _power(field: str, base: float, exponent: float, targets: tuple[str, ...] = (), *, each: bool = True) -> Range:
    """A factor of base^U(-exponent, exponent)."""
    limit = base**exponent
    return Range(field, targets, 1.0 / limit, limit, scale="log", each=each, ring=_RING)


def _rand_params(robot: Robot) -> DynamicsFamily:
    """Zintgraf et al. 2020's and Rakelly et al. 2019's rand_param_envs: every element has a factor of its own.

    What no factor changes is left out: the world's mass and inertia, and joints without damping.
    """
    model = robot.build_model()
    geoms = tuple(model.geom(i).name for i in range(model.ngeom))  # the floor too
    bodies = ("mass", "inertia_x", "inertia_y", "inertia_z")
    frictions = ("friction", "torsional_friction", "rolling_friction")
    ranges = (
        *(_power(field, 1.5, 3.0) for field in bodies),
        *(_power(field, 1.5, 3.0, geoms) for field in frictions),
        _power("damping", 1.3, 3.0),
    )
    reward = ForwardReward(alive_bonus=1.0, ctrl_weight=0.001)
    name = f"{robot.name.removesuffix('2d')}-rand-params"
    return DynamicsFamily(name, robot, Randomization(tuple(_named(r) for r in ranges)), reward, physics=LITERATURE)


def _named(r: Range) -> Range:
    """The range under its field's name alone, however many geoms it has."""
    return Range(r.field, r.targets, r.low, r.high, r.scale, r.mode, r.each, r.ring, name=r.field)


def _mass_friction(robot: Robot, reward: ForwardReward, exponent: float, suffix: str = "") -> DynamicsFamily:
    """A density per body and a friction for the robot, each 1.5^U(-exponent, exponent) of the nominal one."""
    ranges = (_power("density", 1.5, exponent), _power("friction", 1.5, exponent, each=False))
    return DynamicsFamily(f"{robot.name}-mass-friction{suffix}", robot, Randomization(ranges), reward)


def _dynamics(robot: Robot, reward: ForwardReward) -> DynamicsFamily:
    """Five numbers: mass, friction, damping, motor strength and the slope of the ground."""
    ranges = (
        Range("density", (), 0.6, 1.6, scale="log", ring=_RING),
        Range("friction", (), 0.5, 2.0, scale="log", ring=_RING),
        Range("damping", (), 0.6, 1.6, scale="log", ring=_RING),
        Range("strength", (), 0.6, 1.4, ring=_RING),
        Range("tilt", (), -5.0, 5.0, ring=_RING),
    )
    return DynamicsFamily(f"{robot.name}-dynamics", robot, Randomization(ranges), reward)


def _failing_motor() -> DynamicsFamily:
    """The back thigh's motor weakens between steps 50 and 100 of 200."""
    before = (Range("strength", (), 0.8, 1.2, ring=_RING),)
    after = (Range("strength", ("bthigh",), 0.1, 0.5, ring=0.2),)
    randomization = Randomization(before, Change(after, 50, 100))
    return DynamicsFamily("half-cheetah-failing-motor", HALF_CHEETAH, randomization, _CHEETAH_REWARD)


_WIDE = "-wide"
_FAMILIES: dict[str, tuple[Callable[[], DynamicsFamily], str]] = {
    "hopper-rand-params": (
        lambda: _rand_params(HOPPER),
        "masses, inertias, frictions 1.5^U(-3, 3), damping 1.3^U(-3, 3), each element (Rakelly et al. 2019)",
    ),
    "walker-rand-params": (
        lambda: _rand_params(WALKER2D),
        "masses, inertias, frictions 1.5^U(-3, 3), damping 1.3^U(-3, 3), each element (Rakelly et al. 2019)",
    ),
    "half-cheetah-mass-friction": (
        lambda: _mass_friction(HALF_CHEETAH, _CHEETAH_REWARD, 1.0),
        "density of each body and friction 1.5^U(-1, 1); see half-cheetah-mass-friction-wide",
    ),
    "half-cheetah-mass-friction-wide": (
        lambda: _mass_friction(HALF_CHEETAH, _CHEETAH_REWARD, 3.0, _WIDE),
        "density of each body and friction 1.5^U(-3, 3)",
    ),
    "ant-mass-friction": (
        lambda: _mass_friction(ANT, _ANT_REWARD, 1.0),
        "density of each body and friction 1.5^U(-1, 1); see ant-mass-friction-wide",
    ),
    "ant-mass-friction-wide": (
        lambda: _mass_friction(ANT, _ANT_REWARD, 3.0, _WIDE),
        "density of each body and friction 1.5^U(-3, 3)",
    ),
    "hopper-dynamics": (
        lambda: _dynamics(HOPPER, ForwardReward(alive_bonus=1.0, ctrl_weight=0.001)),
        "density, friction, damping, strength and slope: five numbers, tested on new combinations",
    ),
    "half-cheetah-dynamics": (
        lambda: _dynamics(HALF_CHEETAH, _CHEETAH_REWARD),
        "density, friction, damping, strength and slope: five numbers, tested on new combinations",
    ),
    "half-cheetah-failing-motor": (
        _failing_motor,
        "the back thigh's motor weakens to 0.1 to 0.5 within the episode, tested on new combinations",
    ),
}
_SPLIT = ("hopper-dynamics", "half-cheetah-dynamics", "half-cheetah-failing-motor")


def dynamics_family(name: str) -> DynamicsFamily:
    """The family of a named benchmark.

    Raises:
        ValueError: if there is none; the message names those that exist.
    """
    if name not in _FAMILIES:
        raise ValueError(f"unknown dynamics benchmark {name!r}; known: {', '.join(sorted(_FAMILIES))}")
    return _FAMILIES[name][0]()


def dynamics_split(name: str) -> DynamicsSplit:
    """The training, interpolation and extrapolation tasks of a named benchmark.

    Raises:
        ValueError: if there is none; the message names those that exist.
    """
    return split(dynamics_family(name))


def dynamics_benchmark(name: str) -> Benchmark:
    """The named benchmark: of the literature's, test tasks are fresh draws of the same ranges."""
    family = dynamics_family(name)
    if name in _SPLIT:
        tasks = split(family)
        train, test = tasks.train, tasks.interpolation
    else:
        train = test = DynamicsTasks(family)
    return Benchmark(name, train, test, shared=False, description=_FAMILIES[name][1])


def dynamics_names() -> list[str]:
    """The names of the dynamics benchmarks."""
    return list(_FAMILIES)
