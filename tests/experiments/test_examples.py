"""The examples' environments are trained on, adapted in, and told apart by their tasks."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import metarl
from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.maml import AdaptationConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2 import Rl2Config
from metarl.envs import CustomFamily
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers

EXAMPLES = Path(__file__).resolve().parents[2] / "experiments" / "examples"
CASES = {
    "cartpole": ("POLES", "set_length", [Task.of("poles", length=0.25), Task.of("poles", length=2.0)]),
    "pendulum": (
        "PENDULUMS",
        "set_gravity",
        [Task.of("pendulums", gravity=5.0), Task.of("pendulums", gravity=15.0)],
    ),
}


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("config", [Rl2Config(), PrompConfig(adaptation=AdaptationConfig(num_episodes=2))])
def test_an_example_trains_and_adapts(name: str, config: AgentConfig) -> None:
    module, (family_name, set_task, tasks) = _module(name), CASES[name]
    family: CustomFamily = getattr(module, family_name)
    setup = AgentSetup(family.make_env(1), family.benchmark(), 1, 0, torch.device("cpu"))
    agent, rng = config.make(setup), np.random.default_rng(0)
    with Workers(EnvMaker(family, horizon=10), num_threads=1) as workers:
        metrics = agent.update(agent.collect(workers, setup.benchmark.train.sample(2, rng), rng))
    assert np.isfinite(metrics["train/return_post"])
    env = module.make()
    getattr(module, set_task)(env, tasks[0])
    assert len(metarl.adapt(agent, env, episodes=2, max_episode_steps=5).returns) == 2


@pytest.mark.parametrize("name", CASES)
def test_an_examples_tasks_differ(name: str) -> None:
    module, (family_name, _, tasks) = _module(name), CASES[name]
    family: CustomFamily = getattr(module, family_name)
    env = family.make_env(2, num_threads=1)
    env.set_tasks(tasks)
    observations, _ = env.reset(seed=[0, 0])
    assert np.array_equal(observations[0], observations[1])
    action = np.ones((2, *(env.single_action_space.shape or ())), env.single_action_space.dtype)
    for _ in range(3):
        after = env.advance(action).observations
    assert not np.allclose(after[0], after[1])
