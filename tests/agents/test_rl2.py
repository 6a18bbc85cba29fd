"""RL2's update: independence of the scale of rewards, baselines, failures, and what an old checkpoint lacks."""

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.trials.batch import baseline, centre_over_others
from metarl.envs import make_benchmark
from metarl.experiments.configuration import EnvMaker
from metarl.learning.reward_scale import RunningUnit
from metarl.tasks import Task
from metarl.trajectories import Trajectories
from metarl.workers import Workers

CPU = torch.device("cpu")
POINT = make_benchmark("point")
NEAR_AND_FAR = [Task.of("point", goal=goal) for goal in ((0.0, 0.05), (0.3, 0.3), (-0.5, 0.5))]
"""Goals, of which the first is so near that an episode may end early; a test that needs this looks for it."""


def _agent(**changes: Any) -> Rl2:
    policy = changes.pop("policy", TrialPolicyConfig(memory_size=8))
    config = Rl2Config(policy=policy, **{"epochs": 2, "minibatches": 2} | changes)
    return Rl2(POINT.family.make_env(1, horizon=8), config, iterations=5, seed=0, device=CPU)


def _scaled(experience: Trajectories, factor: float) -> Trajectories:
    return replace(experience, rewards=experience.rewards * factor)


class _ScaledWorkers:
    """A collector whose environments pay so many times the reward; actors observe the multiple."""

    def __init__(self, factor: float) -> None:
        maker = EnvMaker(POINT.family, 8)

        def make(num_envs: int, num_threads: int) -> Any:
            env = maker(num_envs, num_threads)
            advance = env.advance
            env.advance = lambda *step: (taken := advance(*step))._replace(rewards=taken.rewards * factor)
            return env

        self.make = make


def _train(factor: float, updates: int, **changes: Any) -> Rl2:
    agent, rng = _agent(**changes), np.random.default_rng(0)
    with Workers(_ScaledWorkers(factor).make, num_threads=1) as workers:
        for _ in range(updates):
            agent.update(agent.collect(workers, NEAR_AND_FAR, rng))
    return agent


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**14, 2.0**60])
def test_learning_does_not_depend_on_the_scale_of_rewards(factor: float) -> None:
    # With powers of two nothing is rounded differently, so that the policies are equal to the bit.
    plain, scaled = _train(1.0, 3), _train(factor, 3)
    assert float(plain.policy.reward_scale) == pytest.approx(factor * float(scaled.policy.reward_scale), rel=1e-6)
    for (name, own), other in zip(plain.policy.named_parameters(), scaled.policy.parameters(), strict=True):
        assert torch.equal(own, other), name


def test_the_policy_observes_rewards_less_their_mean_in_units_of_their_spread() -> None:
    agent = _agent()
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        rng, rewards = np.random.default_rng(0), []
        for _ in range(2):
            experience = agent.collect(workers, NEAR_AND_FAR, rng)
            agent.update(experience)
            rewards.append(experience.rewards[experience.mask])
    joined = torch.cat(rewards).double()
    assert bool((joined != 0).all())
    assert float(agent.policy.reward_scale) == pytest.approx(1 / float(joined.square().mean().sqrt()), rel=1e-5)
    mean, spread = float(joined.mean()), float(joined.std(correction=0))
    flag, rewards = torch.zeros(3, dtype=torch.bool), torch.tensor([mean, mean + 2 * spread, 1e6])
    last_step = agent.policy.last_step(torch.zeros(3, 2), torch.zeros(3, 2), rewards, flag, flag)
    assert last_step[:, 2].tolist() == pytest.approx([0.0, 2.0, 10.0], abs=1e-5)


def _experience(agent: Rl2, seed: int, factor: float = 1.0) -> Trajectories:
    """Trials of the three goals as two families, of which the second pays so many times the reward."""
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        experience = agent.collect(workers, NEAR_AND_FAR, np.random.default_rng(seed))
    tasks = tuple(replace(task, family=name) for task, name in zip(experience.tasks, "aab", strict=True))
    factors = torch.tensor([1.0, 1.0, factor]).view(3, 1, 1)
    return replace(experience, tasks=tasks, rewards=experience.rewards * factors)


@pytest.mark.parametrize("gain_units", ["common", "family"])
def test_in_units_of_the_family_one_that_pays_more_weighs_no_more(gain_units: str) -> None:
    plain, paying = _agent(gain_units=gain_units), _agent(gain_units=gain_units)
    for seed in range(2):
        one, other = plain.batch(_experience(plain, seed)), paying.batch(_experience(plain, seed, factor=2.0**7))
        equal = torch.equal(one.advantages, other.advantages) and torch.equal(one.targets, other.targets)
        assert equal == (gain_units == "family")
    # What the policy observes is in common units: those of a family would tell it the family.
    assert torch.equal(one.trials.rewards[:, :2], other.trials.rewards[:, :2])
    assert torch.equal(one.trials.rewards[:, 2] * 2.0**7, other.trials.rewards[:, 2])


def test_units_of_families_are_running_standard_deviations_that_a_checkpoint_keeps() -> None:
    agent = _agent(gain_units="family")
    experiences = [_experience(agent, seed, factor=3.0) for seed in range(2)]
    for experience in experiences:
        agent.batch(experience)
    lengths = torch.cat([e.mask.sum((1, 2)) for e in experiences])
    assert len(lengths.unique()) > 1  # some trial has padding, which is not read
    for rows, name in ((slice(2), "a"), (slice(2, 3), "b")):
        paid = torch.cat([e.rewards[rows][e.mask[rows]] for e in experiences]).double()
        assert agent._gain_units[name].unit == pytest.approx(float(paid.std(correction=0)))
        assert agent._gain_units[name].count == len(paid)
    resumed = _agent(gain_units="family")
    resumed.load_state_dict(copy.deepcopy(agent.state_dict()))
    following = _experience(agent, 2)
    assert torch.equal(resumed.batch(following).targets, agent.batch(following).targets)
    state = agent.state_dict()
    del state["gain_units"]
    resumed.load_state_dict(state)  # of a checkpoint from before there were units of families
    assert resumed._gain_units == {}


def test_a_unit_is_never_zero() -> None:
    unit = RunningUnit()
    unit.read(torch.zeros(3))
    assert unit.unit == 1.0
    unit = RunningUnit()
    unit.read(torch.full((3,), 5.0))
    assert unit.unit == pytest.approx(0.05)


def test_rare_rewards_are_observed_in_their_own_size() -> None:
    policy = _agent().policy
    policy._see_rewards(torch.tensor([0.0] * 99 + [4.0]).double())
    policy._see_rewards(torch.zeros(100).double())
    assert float(policy.reward_scale) == 0.25
    seen = policy.observed_rewards(torch.tensor([0.0, 4.0])).tolist()
    assert seen == pytest.approx([-0.005, 1.0], abs=0.001)


def test_rewards_that_vary_little_about_a_large_mean_are_told_apart() -> None:
    policy = _agent().policy
    policy._see_rewards(torch.tensor([8.0, 9.0, 10.0]).repeat(50))
    observed = policy.observed_rewards(torch.tensor([8.0, 9.0, 10.0])).tolist()
    assert observed == pytest.approx([-(1.5**0.5), 0.0, 1.5**0.5], abs=1e-4)
    policy = _agent().policy
    policy._see_rewards(torch.full((9,), 5.0))  # none varies: at least a hundredth of their size is a unit
    assert policy.observed_rewards(torch.tensor([5.0, 5.1])).tolist() == pytest.approx([0.0, 2.0], abs=1e-4)


def test_a_checkpoint_that_knows_no_mean_of_rewards_observes_them_as_it_did() -> None:
    state = _train(1.0, 1).state_dict()
    scale = float(state["policy"]["reward_scale"])
    for name in ("reward_mean", "reward_steps", "observed_scale"):
        del state["policy"][name]
    agent = _agent()
    agent.load_state_dict(state)
    assert agent.policy.observed_rewards(torch.tensor([0.5])).tolist() == pytest.approx([0.5 * scale])
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        agent.update(agent.collect(workers, NEAR_AND_FAR, np.random.default_rng(0)))
    assert agent.policy.observed_rewards(torch.tensor([0.5])).tolist() == pytest.approx([0.5 * scale])


def test_a_checkpoint_from_before_there_was_a_scale_observes_rewards_as_they_are_for_ever() -> None:
    state = _train(1.0, 1).state_dict()
    for name in ("reward_scale", "reward_count", "reward_limit", "reward_mean", "reward_steps", "observed_scale"):
        del state["policy"][name]
    agent = _agent()
    agent.load_state_dict(state)
    flag = torch.zeros(1, dtype=torch.bool)

    def told(reward: float) -> float:
        return float(
            agent.policy.last_step(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([reward]), flag, flag)[0, 2]
        )

    assert (told(0.5), told(50.0)) == (0.5, 50.0)
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        agent.update(agent.collect(workers, NEAR_AND_FAR, np.random.default_rng(0)))
    assert (told(0.5), told(50.0)) == (0.5, 50.0)


def test_advantages_are_centred_over_the_other_trials() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    advantages = torch.tensor([[1.0, 2.0, 6.0], [3.0, 5.0, 0.0], [0.0, 7.0, 0.0]])
    expected = [[-3.0, -1.5, 4.5], [-2.0, 2.0, 0.0], [0.0, 7.0, 0.0]]  # 1 - (2 + 6) / 2, ...; alone: as it is
    assert centre_over_others(advantages, mask).tolist() == expected


def test_the_baseline_moves_slowly_where_one_trial_is_alone() -> None:
    mask = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    returns = torch.tensor([[1.0, 3.0], [0.0, 20.0], [0.0, 7.0]])
    known = torch.tensor([[50.0], [10.0], [0.0]])  # the last step was never reached
    assert baseline(returns, mask, known).squeeze(1).tolist() == pytest.approx([2.0, 11.0, 7.0])


def test_one_trial_alone_has_advantages_and_learns() -> None:
    agent, rng = _agent(), np.random.default_rng(0)
    before = [p.clone() for p in agent.policy.policy.parameters()]
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        for _ in range(2):
            experience = agent.collect(workers, NEAR_AND_FAR[1:2], rng)
            metrics = agent.update(experience)
        batch = agent.batch(experience)
    assert batch.advantages.shape[1] == 1
    assert bool((batch.advantages != 0).all())
    assert metrics["policy/kl"] != 0
    assert any(not torch.equal(a, b) for a, b in zip(before, agent.policy.policy.parameters(), strict=True))


def test_returns_are_those_of_the_first_and_the_last_episode() -> None:
    agent = _agent(num_episodes=3)
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        experience = agent.collect(workers, NEAR_AND_FAR, np.random.default_rng(0))
    returns = experience.returns()
    assert len(returns.unique()) == 9
    metrics = agent.update(experience)
    assert metrics["train/return_pre"] == pytest.approx(float(returns[:, 0].mean()))
    assert metrics["train/return_post"] == pytest.approx(float(returns[:, 2].mean()))
    assert metrics["train/trial_return"] == pytest.approx(float(returns.sum()) / 3, rel=1e-6)


@pytest.mark.slow
def test_rl2_solves_a_two_armed_bandit_from_one_trial_per_update() -> None:
    family = make_benchmark("bernoulli-bandit-k2").family
    tasks = [Task.of(family.name, probabilities=p) for p in ((0.0, 1.0), (1.0, 0.0))]
    config = Rl2Config(policy=TrialPolicyConfig(memory_size=32), num_episodes=10)
    agent, rng = Rl2(family.make_env(1), config, iterations=800, seed=0, device=CPU), np.random.default_rng(0)
    with Workers(EnvMaker(family, None)) as workers:
        for _ in range(800):
            agent.update(agent.collect(workers, [tasks[int(rng.integers(2))]], rng))
        trained = workers.collect(agent.actor(), tasks * 100, 10, seed=7)
    assert trained.returns().sum(1).mean() > 8.0  # 9.5 at best, 5 blind


@pytest.mark.thorough
def test_a_memoryless_update_has_no_minibatch_of_padding_only() -> None:
    agent = _agent(policy=TrialPolicyConfig(memory="none"), epochs=1, minibatches=128)
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        for seed in range(100):
            experience = workers.collect(agent.actor(), NEAR_AND_FAR, 2, seed)
            if len(set(experience.mask.sum((1, 2)).tolist())) > 1:
                break
    lengths = experience.mask.sum((1, 2))
    assert len(set(lengths.tolist())) > 1  # or there is no padding
    assert int(lengths.sum()) < 128
    metrics = agent.update(experience)
    assert all(math.isfinite(value) for value in metrics.values())
    assert {int(s["step"]) for s in agent.optimizer.state.values()} == {int(lengths.sum())}


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_a_loss_that_is_not_finite_names_the_task_and_leaves_the_agent_as_it_was(memory: Any) -> None:
    agent, rng = _agent(policy=TrialPolicyConfig(memory=memory, memory_size=8)), np.random.default_rng(0)
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        agent.update(agent.collect(workers, NEAR_AND_FAR, rng))
        experience = agent.collect(workers, NEAR_AND_FAR, rng)
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    moments = [s["exp_avg"].clone() for s in agent.optimizer.state.values()]
    shuffling, units = agent._shuffling.get_state(), (agent.value_mean.clone(), float(agent.value_scale))
    experience.records["log_prob"][2, 0, 3] = -math.inf  # a likelihood ratio without end
    with pytest.raises(
        FloatingPointError, match=r"policy loss is -?(inf|nan) on task 2 of the batch, Task.*\(-0.5"
    ):
        agent.update(experience)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(torch.equal(s["exp_avg"], m) for s, m in zip(agent.optimizer.state.values(), moments, strict=True))
    assert torch.equal(agent._shuffling.get_state(), shuffling)
    assert torch.equal(agent.value_mean, units[0])
    assert float(agent.value_scale) == units[1]
    assert agent.updates == 1


def test_the_standard_deviation_stays_in_its_range() -> None:
    policy = TrialPolicyConfig(memory_size=8, init_std=0.5, max_std=0.52)
    agent = _train(1.0, 3, policy=policy, entropy_coef=10.0, outer_lr=0.1)
    assert agent.policy.log_std.tolist() == pytest.approx([math.log(0.52)] * 2)
    with pytest.raises(ValueError, match=r"init_std must lie between min_std and max_std, got 0.5, 0.6 and 4.0"):
        TrialPolicyConfig(min_std=0.6)
