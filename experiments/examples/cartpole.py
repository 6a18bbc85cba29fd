"""CartPole with poles of many lengths, learned by RL2 and ProMP.

metarl train experiments/examples/cartpole.py:RL2          # or :PROMP
python experiments/examples/cartpole.py                    # the same from Python
"""

from typing import Any

import gymnasium

import metarl
from metarl.agents.maml import AdaptationConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2 import Rl2Config
from metarl.envs import CustomFamily
from metarl.experiments.configuration import Experiment
from metarl.tasks import Parameter, Task
from metarl.training import EvaluationConfig, TrainingConfig


def make() -> Any:
    """A CartPole without Gymnasium's time limit: the family has its own."""
    return gymnasium.make("CartPole-v1").unwrapped


def set_length(env: Any, task: Task) -> None:
    """Give a CartPole a pole, by half its length in metres."""
    env.length, env.polemass_length = task["length"], env.masspole * task["length"]


LENGTH = Parameter("length", low=0.25, high=2.0)
POLES = CustomFamily("poles", [LENGTH], make=make, set_task=set_length, horizon=100).benchmark()
EVALUATION = EvaluationConfig(num_tasks=20, num_steps=1, num_episodes=5)
RL2 = Experiment(POLES, Rl2Config(), TrainingConfig(25, 20, evaluate_every=0), EVALUATION)
ADAPTATION = AdaptationConfig(inner_lr=0.1, num_episodes=10, gae_lambda=0.95)
PROMP = Experiment(
    POLES, PrompConfig(adaptation=ADAPTATION, outer_lr=3e-3), TrainingConfig(10, 20, evaluate_every=0), EVALUATION
)

if __name__ == "__main__":
    for experiment in (RL2, PROMP):
        run = metarl.train(experiment)
        print(run.folder, [step["return_mean"] for step in run.evaluate(num_steps=3)["adaptation"]])
        agent = metarl.open_run(run.folder, experiment=experiment).agent()
        long = make()
        set_length(long, Task.of("poles", length=1.9))
        print("with a long pole", metarl.adapt(agent, long, episodes=4, max_episode_steps=100).returns)
