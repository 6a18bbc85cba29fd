"""Pendulum under many gravities: metarl train rl2 --benchmark gravities.py:PENDULUMS, or python gravities.py."""

import sys
from typing import Any

import gymnasium

import metarl
from metarl.envs import CustomFamily
from metarl.tasks import Parameter, Task


def make() -> Any:
    """A pendulum without Gymnasium's time limit: the family has its own."""
    return gymnasium.make("Pendulum-v1").unwrapped


def set_gravity(env: Any, task: Task) -> None:
    """Set a pendulum's gravity, in m/s^2."""
    env.g = task["gravity"]


GRAVITY = Parameter("gravity", low=5.0, high=15.0)
PENDULUMS = CustomFamily("pendulums", [GRAVITY], make=make, set_task=set_gravity, horizon=100)

if __name__ == "__main__":
    run = metarl.train(metarl.experiment("rl2", "--benchmark", f"{__file__}:PENDULUMS", *sys.argv[1:]))
    print(run, run.evaluate(num_tasks=20)["adaptation"])
