"""Your own Gymnasium environment: CartPole with poles of many lengths, learned by RL2.

You learn to make a family of tasks of an environment, to train on it, to evaluate on other tasks than those of
training, to resume a run and to adapt to one environment. The poles of the test are longer than all of training.
Expect some 40 steps of 100 before training, more after it, and nearly all 100 once the run was resumed.

python experiments/examples/cartpole.py [FOLDER]               # about a minute on one core
metarl train experiments/examples/cartpole.py:RL2              # the same from the shell, or :PROMP
"""

import subprocess
import sys
import tempfile
from pathlib import Path
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
FAMILY = CustomFamily("poles", [LENGTH], make=make, set_task=set_length, horizon=100)
POLES = FAMILY.benchmark(train={"length": (0.25, 1.5)}, test={"length": (1.5, 2.0)})
EVALUATION = EvaluationConfig(num_tasks=20, num_steps=1, num_episodes=5)
RL2 = Experiment(POLES, Rl2Config(), TrainingConfig(20, 20, evaluate_every=0), EVALUATION)
ADAPTATION = AdaptationConfig(inner_lr=0.1, num_episodes=10, gae_lambda=0.95)
PROMP = Experiment(
    POLES, PrompConfig(adaptation=ADAPTATION, outer_lr=3e-3), TrainingConfig(10, 20, evaluate_every=0), EVALUATION
)


def main(folder: Path) -> None:
    """Train, evaluate, resume and adapt.

    Args:
        folder: Folder for the run.
    """
    run = metarl.train(RL2, out=folder / "run")
    result = run.evaluate(num_tasks=20)
    untrained, trained = result["baselines"]["untrained"][0], result["adaptation"][0]
    print(f"first episodes: untrained {untrained['return_mean']:.1f}, trained {trained['return_mean']:.1f}")

    # What lies in a run folder is never executed: a run on an environment of one's own is given the file again.
    again = ["resume", str(run.folder), "--experiment", f"{__file__}:RL2", "--iterations", "25"]
    subprocess.run([sys.executable, "-m", "metarl", *again], check=True)

    env = make()
    set_length(env, Task.of("poles", length=2.0))
    agent = metarl.open_run(run.folder, experiment=RL2).agent()
    adapted = metarl.adapt(agent, env, episodes=3, max_episode_steps=100)
    print(f"with the longest pole, episode by episode: {adapted.returns}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
