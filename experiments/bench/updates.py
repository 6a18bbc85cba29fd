"""Real updates that time themselves, in a process of their own: python -m metarl.experiments.bench.updates.

The process makes one update of every kind and says that it is ready. Then it answers each line on its input with
the seconds per update of every kind, and ends with its input. `metarl bench threads` starts it once for every
setting of torch's threads, which torch reads when it is imported.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.envs import make_benchmark
from metarl.experiments.bench.rl2 import Sizes, random_trials
from metarl.experiments.bench.timing import seconds_per_call
from metarl.experiments.bench.trust_region import SyntheticEpisodes, TrustRegionSizes
from metarl.experiments.fewshot.configuration import make_learner
from metarl.experiments.presets.table import FEWSHOT_PRESETS, preset
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.runs.allocator import keep_freed_memory
from metarl.runs.seeding import torch_generator
from metarl.tasks import Task

Update = Callable[[], object]
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class UpdateSizes:
    """Numbers of what is learned from in one update.

    Attributes:
        num_trials: Trials of 400 steps in RL2's minibatch.
        num_tasks: Tasks in ProMP's meta-batch.
        num_images: Tasks of images in the few-shot meta-batch.
        at_least_s: Seconds that the updates of one measurement take at least.
    """

    num_trials: int = 40
    num_tasks: int = 20
    num_images: int = 8
    at_least_s: float = 0.6


def make_updates(sizes: UpdateSizes) -> dict[str, Update]:
    """One outer gradient step by name, with the products of the presets' own batches, on random numbers."""
    return {
        "rl2": _rl2(sizes.num_trials),
        "promp": _promp("point-promp", 2, sizes.num_tasks),
        "conv": _conv(sizes.num_images),
        "quickstart": _promp("quickstart", 17, sizes.num_tasks),
    }


def _rl2(num_trials: int) -> Update:
    """One minibatch of half-cheetah-vel-rl2, which has 40 trials in each of two."""
    env = make_benchmark("half-cheetah-vel").family.make_env(1, horizon=200, num_threads=0)
    config = preset("half-cheetah-vel-rl2").agent
    assert isinstance(config, Rl2Config)
    agent = Rl2(env, replace(config, epochs=1, minibatches=1), iterations=1, seed=0, device=_CPU)
    trials = random_trials(Sizes(num_trials=num_trials))
    return lambda: agent.update(trials)


def _promp(name: str, obs_size: int, num_tasks: int) -> Update:
    """One of the five outer steps of a ProMP preset."""
    experiment = preset(name)
    config = experiment.agent
    assert isinstance(config, PrompConfig)
    assert isinstance(experiment.benchmark, str)
    env = make_benchmark(experiment.benchmark).family.make_env(1, num_threads=0)
    agent = Promp(env, replace(config, outer_steps=1), iterations=1, seed=0, device=_CPU)
    act_size = (env.single_action_space.shape or ())[0]
    episodes = SyntheticEpisodes(
        TrustRegionSizes(num_tasks, config.adaptation.num_episodes, 100, obs_size, act_size), seed=1
    )
    tasks = [Task.of("synthetic", number=float(i)) for i in range(num_tasks)]
    experience = agent.collect(episodes, tasks, np.random.default_rng(2))
    return lambda: agent.update(experience)


def _conv(num_tasks: int) -> Update:
    """An update of omniglot-maml, with random images."""
    experiment = FEWSHOT_PRESETS["omniglot-maml"].configuration
    learner, rng = make_learner(experiment, _CPU), np.random.default_rng(0)
    images = torch.randint(0, 256, (400, 1, 28, 28), dtype=torch.uint8, generator=torch_generator(0))
    source = ClassEpisodes(ClassData.of(images, torch.arange(400) // 20), num_ways=5, num_shots=1, num_queries=5)
    episodes = source.sample(num_tasks, rng)
    return lambda: learner.update(episodes, rng)


def answer(sizes: UpdateSizes) -> None:
    """Measure all updates for every line of the input."""
    updates = make_updates(sizes)
    for update in updates.values():
        update()  # the first call allocates
    print(json.dumps({"torch_threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        seconds = {name: seconds_per_call(update, at_least_s=sizes.at_least_s) for name, update in updates.items()}
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    keep_freed_memory()  # as the command line does
    answer(UpdateSizes(**json.loads(sys.argv[1])) if len(sys.argv) > 1 else UpdateSizes())
