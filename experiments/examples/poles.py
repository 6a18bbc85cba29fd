"""CartPole with poles of many lengths: metarl train rl2 --benchmark poles.py:POLES, or python poles.py."""

import sys
from typing import Any

import gymnasium

import metarl
from metarl.envs import CustomFamily
from metarl.tasks import Parameter, Task


def make() -> Any:
    """A CartPole without Gymnasium's time limit: the family has its own."""
    return gymnasium.make("CartPole-v1").unwrapped


def set_length(env: Any, task: Task) -> None:
    """Give a CartPole a pole, by half its length in metres."""
    env.length, env.polemass_length = task["length"], env.masspole * task["length"]


LENGTH = Parameter("length", low=0.25, high=2.0)
POLES = CustomFamily("poles", [LENGTH], make=make, set_task=set_length, horizon=100)

if __name__ == "__main__":
    run = metarl.train(metarl.experiment("rl2", "--benchmark", f"{__file__}:POLES", *sys.argv[1:]))
    print(run, run.evaluate(num_tasks=20)["adaptation"])
