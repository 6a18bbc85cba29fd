"""Policies whose weights are written: against a loop over rows, their first weights, and that they learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.trials.hypernetwork import HyperInit, WrittenMlp
from metarl.agents.varibad import BeliefPolicyConfig, VaribadConfig
from metarl.envs import make_benchmark
from metarl.runs.seeding import torch_generator
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers

BANDIT = make_benchmark("bernoulli-bandit-k2")


def _written(init: HyperInit) -> WrittenMlp:
    return WrittenMlp(6, 3, (5, 4), 2, init=init, generator=torch_generator(0))


@torch.no_grad()
def test_a_batch_is_what_a_loop_over_rows_gives() -> None:
    network, generator = _written("bias-hyperinit").double(), torch_generator(1)
    network.matrix.normal_(generator=generator)
    for parameter in network.bias.parameters():
        parameter.normal_(generator=generator)
    context = torch.randn(4, 3, 6, generator=generator, dtype=torch.float64)
    inputs = torch.randn(4, 3, 3, generator=generator, dtype=torch.float64)
    flat = torch.cat([parameter.flatten() for parameter in network.bias.parameters()])
    outputs = network(context, inputs)
    assert outputs.shape == (4, 3, 2)
    for t in range(4):
        for trial in range(3):
            weights, start, values = flat + network.matrix.T @ context[t, trial], 0, inputs[t, trial]
            for layer, (size_in, size_out) in enumerate(((3, 5), (5, 4), (4, 2))):
                weight = weights[start : start + size_in * size_out].view(size_in, size_out)
                bias = weights[start + size_in * size_out :][:size_out]
                start += size_in * size_out + size_out
                values = values @ weight + bias
                values = values.tanh() if layer < 2 else values
            torch.testing.assert_close(outputs[t, trial], values)


@torch.no_grad()
@pytest.mark.parametrize("init", ["bias-hyperinit", "kaiming"])
def test_the_first_weights_depend_on_the_context_only_by_kaiming(init: HyperInit) -> None:
    network, context = _written(init), torch.randn(2, 6, generator=torch_generator(1))
    weights = network.weights(context)
    plain = dict(_written("bias-hyperinit").bias.named_parameters())
    for name, of_rows in weights.items():
        assert torch.equal(of_rows[0], of_rows[1]) == (init == "bias-hyperinit"), name
        if init == "bias-hyperinit":
            assert torch.equal(of_rows[0], plain[name])  # as a policy of its own starts


@torch.no_grad()
def test_kaimings_weights_have_the_variance_of_the_context() -> None:
    network = WrittenMlp(50, 40, (40,), 2, init="kaiming", generator=torch_generator(0))
    context = torch.randn(20, 50, generator=torch_generator(1))
    assert network.weights(context)["weight_0"].var() == pytest.approx(2.0, rel=0.1)  # 50 * 2 / 50


def _agent(config: AgentConfig, iterations: int) -> Any:
    setup = AgentSetup(BANDIT.family.make_env(1), BANDIT, iterations, 0, torch.device("cpu"))
    return config.make(setup)


def _beliefs(init: HyperInit) -> VaribadConfig:
    sizes = BeliefPolicyConfig(
        latent_size=2, memory_size=16, decoder_sizes=(16,), head_sizes=(8,), hypernetwork=init
    )
    return VaribadConfig(sizes, num_episodes=4, outer_lr=1e-2, epochs=2, belief_lr=1e-2, belief_updates=4)


def _memory(init: HyperInit) -> Rl2Config:
    return Rl2Config(TrialPolicyConfig(memory_size=16, head_sizes=(8,), hypernetwork=init), num_episodes=4)


@pytest.mark.thorough
@pytest.mark.parametrize("make", [_memory, _beliefs])
def test_policies_with_written_weights_learn_which_arm_pays(make: Callable[[HyperInit], AgentConfig]) -> None:
    tasks = [Task.of(BANDIT.family.name, probabilities=p) for p in ((0.0, 1.0), (1.0, 0.0))]
    agent, rng = _agent(make("bias-hyperinit"), 30), np.random.default_rng(0)
    with Workers(EnvMaker(BANDIT.family, None)) as workers:
        for _ in range(30):
            agent.update(agent.collect(workers, tasks * 10, rng))
        trained = workers.collect(agent.actor(), tasks * 50, 4, seed=7)
    assert trained.returns().sum(1).mean() > 3.3  # 3.5 at best, 2 blind
    assert agent.policy.policy.matrix.abs().max() > 0.01  # which started at zero


def test_weights_can_not_be_written_without_a_memory() -> None:
    config = Rl2Config(TrialPolicyConfig(memory="none", hypernetwork="kaiming"))
    with pytest.raises(ValueError, match="hypernetwork 'kaiming' needs a memory, got memory 'none'"):
        _agent(config, 1)


def test_the_ablation_starts_with_outputs_that_are_far_from_uniform() -> None:
    """Its first policy chooses one action nearly for sure, where that of Bias-HyperInit is near uniform."""
    tasks = [Task.of(BANDIT.family.name, probabilities=(0.5, 0.5))] * 50
    entropies = []
    for init in ("bias-hyperinit", "kaiming"):
        agent = _agent(_memory(init), 1)
        with Workers(EnvMaker(BANDIT.family, None)) as workers:
            experience = workers.collect(agent.actor(), tasks, 4, seed=7)
        entropies.append(-float(experience.records["log_prob"].mean()))
    assert entropies[0] == pytest.approx(np.log(2), abs=0.01)
    assert entropies[1] < 0.95 * np.log(2)
