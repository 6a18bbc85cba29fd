"""Pendulum under many gravities, learned by RL2 and ProMP.

metarl train experiments/examples/pendulum.py:RL2          # or :PROMP
python experiments/examples/pendulum.py                    # the same from Python
"""

from typing import Any

import gymnasium

import metarl
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2 import Rl2Config, TrialPolicyConfig
from metarl.envs import CustomFamily
from metarl.experiments.configuration import Experiment
from metarl.tasks import Parameter, Task
from metarl.training import EvaluationConfig, TrainingConfig


def make() -> Any:
    """A pendulum without Gymnasium's time limit: the family has its own."""
    return gymnasium.make("Pendulum-v1").unwrapped


def set_gravity(env: Any, task: Task) -> None:
    """Set a pendulum's gravity, in m/s^2."""
    env.g = task["gravity"]


GRAVITY = Parameter("gravity", low=5.0, high=15.0)
PENDULUMS = CustomFamily("pendulums", [GRAVITY], make=make, set_task=set_gravity, horizon=100).benchmark()
EVALUATION = EvaluationConfig(num_tasks=20, num_steps=1, num_episodes=5)
MEMORY = TrialPolicyConfig(memory_size=64, head_sizes=(64,), normalise_observations=True)
RL2 = Experiment(
    PENDULUMS,
    Rl2Config(MEMORY, gae_lambda=0.9, outer_lr=1e-3),
    TrainingConfig(120, 20, evaluate_every=0),
    EVALUATION,
)
ADAPTATION = AdaptationConfig(num_episodes=10, gae_lambda=0.95)
PROMP = Experiment(
    PENDULUMS,
    PrompConfig(PolicyConfig(output_scale=1.0), ADAPTATION, outer_lr=3e-3),
    TrainingConfig(60, 20, evaluate_every=0),
    EVALUATION,
)

if __name__ == "__main__":
    for experiment in (RL2, PROMP):
        run = metarl.train(experiment)
        print(run.folder, [step["return_mean"] for step in run.evaluate(num_steps=3)["adaptation"]])
        agent = metarl.open_run(run.folder, experiment=experiment).agent()
        heavy = make()
        set_gravity(heavy, Task.of("pendulums", gravity=14.0))
        print("at 14 m/s^2", metarl.adapt(agent, heavy, episodes=4, max_episode_steps=100).returns)
