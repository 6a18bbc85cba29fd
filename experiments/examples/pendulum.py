"""Pendulum under many gravities, learned by RL2 and ProMP: an environment of one's own as a task family.

python experiments/examples/pendulum.py
"""

from typing import Any

import gymnasium
import numpy as np
import torch

import metarl
from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2 import Rl2Config, TrialPolicyConfig
from metarl.envs import CustomFamily
from metarl.tasks import Parameter, Task
from metarl.workers import EnvMaker


def make() -> Any:
    """A pendulum without Gymnasium's time limit: the family has its own."""
    return gymnasium.make("Pendulum-v1").unwrapped


def set_gravity(env: Any, task: Task) -> None:
    """Set a pendulum's gravity, in m/s^2."""
    env.g = task["gravity"]


PENDULUMS = CustomFamily(
    "pendulums", [Parameter("gravity", low=5.0, high=15.0)], make=make, set_task=set_gravity, horizon=100
)

if __name__ == "__main__":
    benchmark, rng = PENDULUMS.benchmark(), np.random.default_rng(0)
    memory = TrialPolicyConfig(memory_size=64, head_sizes=(64,), normalise_observations=True)
    rl2 = Rl2Config(memory, gae_lambda=0.9, outer_lr=1e-3)
    adaptation = AdaptationConfig(num_episodes=10, gae_lambda=0.95)
    promp = PrompConfig(PolicyConfig(output_scale=1.0), adaptation, outer_lr=3e-3)
    experiments: list[tuple[AgentConfig, int]] = [(rl2, 120), (promp, 60)]
    for config, iterations in experiments:
        setup = AgentSetup(PENDULUMS.make_env(1), benchmark, iterations, seed=0, device=torch.device("cpu"))
        agent = config.make(setup)
        with metarl.Workers(EnvMaker(PENDULUMS)) as workers:
            for iteration in range(iterations):
                metrics = agent.update(agent.collect(workers, benchmark.train.sample(20, rng), rng))
                print(type(agent).__name__, iteration, round(metrics["train/return_post"], 1))
        heavy = make()
        set_gravity(heavy, Task.of("pendulums", gravity=14.0))
        print("episodes at 14 m/s^2:", metarl.adapt(agent, heavy, episodes=4, max_episode_steps=100).returns)
