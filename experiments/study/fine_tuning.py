"""Stable-Baselines3's PPO in a study: trained on randomised tasks, then fine-tuned on each held-out task."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metarl.envs import make_benchmark
from metarl.experiments.console import Waiting, say
from metarl.experiments.study.configuration import FINE_TUNED, FROM_SCRATCH, TEST_EPISODES, StablePpo, Study
from metarl.experiments.study.held_out import HeldOut
from metarl.experiments.study.measuring import means
from metarl.experiments.study.stable_baselines import Snapshot, StableLearner
from metarl.runs import seeding
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.files import write_json
from metarl.runs.reading import read_json
from metarl.runs.seeding import draw_seed
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers


def run_stable(study: Study, config: StablePpo, folder: Path, sets: Mapping[str, HeldOut]) -> None:
    """Train PPO on randomised tasks, then on each held-out task from that and from nothing; both are measured.

    Args:
        study: Study that compares it.
        config: Settings of PPO.
        folder: Folder of the study.
        sets: Held-out tasks by the name of their set.
    """
    torch.set_num_threads(1)  # SB3's networks are small
    start, wall_s = _randomised(study, config, folder / "stable")
    for name, beginning in ((FROM_SCRATCH, None), (FINE_TUNED, start)):
        path = folder / "evaluations" / f"{name}.json"
        if path.exists():
            continue
        say(f"{name}: PPO on every held-out task, {study.num_episodes} episodes each")
        result = {
            "learner": name,
            "train_env_steps": beginning.steps if beginning else 0,
            "train_wall_s": wall_s if beginning else 0.0,
            "episodes_per_step": 1,
            "sets": {
                key: _stable_curve(study, config, held_out, beginning, f"{name} on {key}, task")
                for key, held_out in sets.items()
            },
        }
        write_json(path, result)


def _randomised(study: Study, config: StablePpo, folder: Path) -> tuple[Snapshot, float]:
    """PPO trained on randomised tasks, now or before, and how long that took."""
    path, took = folder / CHECKPOINT, folder / "took.json"
    if not (path.exists() and took.exists()):
        folder.mkdir(exist_ok=True)
        benchmark, rng = make_benchmark(study.benchmark), seeding.streams(study.seed)["tasks"]
        threads = study.num_threads
        env = benchmark.family.make_env(config.num_envs, horizon=study.horizon, num_threads=threads)
        rollouts = max(1, round(config.total_steps / (config.num_envs * env.max_episode_steps)))
        began = time.monotonic()
        learner = StableLearner(
            env,
            lambda: benchmark.train.sample(config.num_envs, rng),
            config,
            learning_rate=config.outer_lr,
            seed=study.seed,
        )
        try:
            with Waiting("sb3 on randomised tasks, rollout") as waiting:
                for rollout in range(rollouts):
                    learner.learn(1)
                    waiting.progress(rollout + 1, rollouts)
            learner.snapshot().save(folder)
        finally:
            learner.close()
        write_json(took, {"wall_s": round(time.monotonic() - began, 1)})
    entries = read_json(took, "duration of the training")
    wall_s = entries.get("wall_s") if isinstance(entries, dict) else None
    if not isinstance(wall_s, int | float):
        raise ValueError(f"{took} must hold the wall_s of the training, a number; delete it to train again")
    return Snapshot.load(path), float(wall_s)


def _stable_curve(
    study: Study, config: StablePpo, held_out: HeldOut, start: Snapshot | None, what: str
) -> dict[str, Any]:
    """Returns after so many episodes of PPO on the task alone, [point][task]; one learner per task."""
    total = study.num_episodes
    points = sorted({0, 1, total // 4, total // 2, total})
    count = TEST_EPISODES * study.num_trials
    samples = np.zeros((len(points), len(held_out.tasks), count))
    maker, rng = EnvMaker(held_out.family, study.horizon), seeding.streams(study.seed)["evaluation"]
    with Workers(maker, num_threads=study.num_threads) as workers, Waiting(what) as waiting:
        for number, task in enumerate(held_out.tasks):
            env = maker(1, 1)
            learner = StableLearner(
                env,
                _Always(task),
                config,
                learning_rate=config.inner_lr,
                seed=draw_seed(rng),
                start=start,
            )
            try:
                for place, point in enumerate(points):
                    if place:
                        learner.learn(point - points[place - 1])
                    episodes = workers.collect(learner.actor(), [task], count, draw_seed(rng))
                    samples[place, number] = episodes.returns()[0].double().numpy()
            finally:
                learner.close()
            waiting.progress(number + 1, len(held_out.tasks))
    return {"episodes": points} | means(samples)


@dataclass(frozen=True)
class _Always:
    """Draws one task."""

    task: Task

    def __call__(self) -> list[Task]:
        return [self.task]
