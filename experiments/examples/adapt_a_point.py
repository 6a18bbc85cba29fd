"""Adapt a policy to a new task: a point learns to adapt to hidden goals, then goes to one of your own.

You learn to train an agent by the name of a preset, to let it adapt to a plain Gymnasium environment, and to act
with the adapted policy. The agent is MAML-TRPO: one gradient step on twenty episodes. Expect a return of about -50
before the step and of about -14 after it. The figure needs the extra `report`.

python experiments/examples/adapt_a_point.py [FOLDER]          # about a minute on one core
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import metarl
from metarl.envs import single_env

GOAL = (0.4, -0.3)


def path_to_goal(policy: Any, env: Any, seed: int) -> tuple[list[np.ndarray], float]:
    """The positions and the return of one episode, step by step as on a robot."""
    observation, _ = env.reset(seed=seed)
    policy.begin_episode()
    positions, total, ended = [observation], 0.0, False
    while not ended:
        observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
        policy.observe(observation, reward, terminated, truncated)
        positions.append(observation)
        total, ended = total + reward, terminated or truncated
    return positions, total


def main(folder: Path) -> None:
    """Train, adapt, act and draw.

    Args:
        folder: Folder for the run and the figure.
    """
    run = metarl.train(metarl.experiment("point-maml-trpo", "--training.iterations", "20"), out=folder / "run")

    env = single_env("point", goal=GOAL)
    adapted = metarl.adapt(run.agent(), env, episodes=20)
    after = [path_to_goal(adapted.policy, env, seed) for seed in range(10)]
    returns = np.mean(adapted.returns), np.mean([total for _, total in after])
    print(f"return before adaptation {returns[0]:.1f}, after one gradient step {returns[1]:.1f}")

    log = adapted.recording
    positions: Any = log.next_observations
    before = np.split(positions, np.flatnonzero(log.terminated | log.truncated) + 1)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    titles: dict[str, Any] = {
        "before adaptation": before[:4],
        "after one gradient step": [path for path, _ in after[:4]],
    }
    panels: Any = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, (title, paths) in zip(panels, titles.items(), strict=True):
        for path in paths:
            axes.plot(*np.transpose(path), alpha=0.7, linewidth=1)
        axes.plot(*GOAL, "k*", markersize=12)
        axes.set(title=title, aspect="equal")
    figure.savefig(folder / "adaptation.png")
    print(f"paths drawn in {folder / 'adaptation.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
