"""CartPole with poles of many lengths, learned by RL2 and ProMP: an environment of one's own as a task family.

python experiments/examples/cartpole.py
"""

from typing import Any

import gymnasium
import numpy as np
import torch

import metarl
from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2 import Rl2Config
from metarl.envs import CustomFamily
from metarl.tasks import Parameter, Task
from metarl.workers import EnvMaker


def make() -> Any:
    """A CartPole without Gymnasium's time limit: the family has its own."""
    return gymnasium.make("CartPole-v1").unwrapped


def set_length(env: Any, task: Task) -> None:
    """Give a CartPole a pole, by half its length in metres."""
    env.length, env.polemass_length = task["length"], env.masspole * task["length"]


POLES = CustomFamily(
    "poles", [Parameter("length", low=0.25, high=2.0)], make=make, set_task=set_length, horizon=100
)

if __name__ == "__main__":
    benchmark, rng = POLES.benchmark(), np.random.default_rng(0)
    experiments: list[tuple[AgentConfig, int]] = [(Rl2Config(), 30), (PrompConfig(), 15)]
    for config, iterations in experiments:
        setup = AgentSetup(POLES.make_env(1), benchmark, iterations, seed=0, device=torch.device("cpu"))
        agent = config.make(setup)
        with metarl.Workers(EnvMaker(POLES)) as workers:
            for iteration in range(iterations):
                metrics = agent.update(agent.collect(workers, benchmark.train.sample(20, rng), rng))
                print(type(agent).__name__, iteration, round(metrics["train/return_post"], 1))
        long = make()
        set_length(long, Task.of("poles", length=1.9))
        print("episodes with a long pole:", metarl.adapt(agent, long, episodes=4, max_episode_steps=100).returns)
