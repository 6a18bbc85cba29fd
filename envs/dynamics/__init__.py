"""Tasks that are simulator parameters: ranges over any MuJoCo model, splits, and gaps between simulators."""

from metarl.envs.dynamics.benchmarks import dynamics_benchmark, dynamics_family, dynamics_names, dynamics_split
from metarl.envs.dynamics.family import DynamicsEnv, DynamicsFamily
from metarl.envs.dynamics.fields import FIELDS
from metarl.envs.dynamics.files import load_family
from metarl.envs.dynamics.physics import LITERATURE, PHYSICAL, Physics, SimulatorGap
from metarl.envs.dynamics.ranges import Change, Randomization, Range
from metarl.envs.dynamics.recovery import steps_to_recover
from metarl.envs.dynamics.rewards import ForwardReward
from metarl.envs.dynamics.splits import DynamicsSplit, DynamicsTasks, region_of, split

__all__ = [
    "FIELDS",
    "LITERATURE",
    "PHYSICAL",
    "Change",
    "DynamicsEnv",
    "DynamicsFamily",
    "DynamicsSplit",
    "DynamicsTasks",
    "ForwardReward",
    "Physics",
    "Randomization",
    "Range",
    "SimulatorGap",
    "dynamics_benchmark",
    "dynamics_family",
    "dynamics_names",
    "dynamics_split",
    "load_family",
    "region_of",
    "split",
    "steps_to_recover",
]
