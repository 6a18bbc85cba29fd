"""Memory SAC: losses against loops in float64, whose gradients reach what, closed forms, and smallest tasks."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.agent import Interface
from metarl.agents.memory_sac import MemorySac, MemorySacConfig, SoftPolicyConfig
from metarl.agents.memory_sac.critics import Critics
from metarl.agents.memory_sac.learner import CriticConfig, Learner, Losses
from metarl.agents.memory_sac.losses import choice_values, imitation_loss, learned_steps, trial_targets
from metarl.envs import make_benchmark
from metarl.learning.trial_replay import Sequences
from metarl.learning.trials import as_trials
from metarl.nets.actions import action_map
from metarl.runs.seeding import torch_generator
from metarl.tasks import Task
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers
from tests.environments import anything

CPU = torch.device("cpu")
OBSERVATIONS = spaces.Box(-1.0, 1.0, (3,))
ACTIONS: dict[str, spaces.Space[Any]] = {"numbers": spaces.Box(-0.1, 0.1, (2,)), "choice": spaces.Discrete(3)}
"""Spaces of environments whose episodes have one to four steps, and random lengths."""
TASKS = [Task.of("anything", number=float(i % 2)) for i in range(4)]
POLICY = SoftPolicyConfig(memory_size=4, head_sizes=(5,), normalise_observations=True)
CRITICS = CriticConfig(hidden_sizes=(6,), num_members=3)
ALPHA = 0.3


def _agent(actions: str = "numbers", **changes: Any) -> MemorySac:
    settings = {"policy": POLICY, "critics": CRITICS, "num_episodes": 3, "num_updates": 2, "batch_size": 6}
    config = MemorySacConfig(**settings | changes)
    env = anything(OBSERVATIONS, ACTIONS[actions]).make_env(1, num_threads=1)
    return MemorySac(env, config, iterations=3, seed=0, device=CPU)


def _collect(agent: MemorySac, actions: str = "numbers", seed: int = 3) -> Trajectories:
    with Workers(EnvMaker(anything(OBSERVATIONS, ACTIONS[actions])), num_threads=1) as workers:
        experience = workers.collect(agent.actor(), TASKS, agent.config.num_episodes, seed)
    lengths = experience.mask.sum(-1)
    assert len(set(lengths[:, 0].tolist())) > 1  # the premise: episodes end at different times, and so do trials
    assert len(set(lengths.sum(1).tolist())) > 1
    return experience


def _learner(actions: str, *, shared: bool, normalises: bool) -> tuple[Learner, Sequences]:
    """A learner in float64 whose slow copies differ from its critics, and sequences that it can learn from."""
    agent = _agent(
        actions,
        critics=replace(CRITICS, normalise_values=normalises, value_rate=0.5),
        shared_memory=shared,
        other_gammas=(0.5,),
        temperature=ALPHA,
        num_episodes=2,
    )
    experience = _collect(agent, actions, seed=4)
    agent.update([experience])
    length = int(experience.mask.sum((1, 2)).max()) - 3
    learner, sequences = agent.learner.double(), agent.replay.draw(12, length, torch_generator(1), burn_in=2)
    generator = torch_generator(5)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        learner.log_temperature.fill_(math.log(ALPHA))
    trials, ends, learned = sequences
    cut = ends & (torch.arange(12) % 2 == 0)  # a time limit ends every other trial
    trials = trials._replace(terminated=trials.terminated & ~cut, truncated=trials.truncated | cut)
    numbers = {name: getattr(trials, name).double() for name in ("observations", "rewards")}
    if actions == "numbers":
        numbers["actions"] = trials.actions.double()
    # The premise: some sequences are padded, some stop before their trial's end, some warm a memory up first.
    assert trials.mask.sum(0).min() < length
    assert (trials.mask[-1] & ~ends[-1]).any()
    assert (trials.mask & ~learned).any()
    assert (ends & learned & trials.terminated).any()
    assert (ends & learned & cut).any()
    return learner, Sequences(trials._replace(**numbers), ends, learned)


def _gru(cell: torch.nn.GRU, inputs: Tensor, state: Tensor) -> Tensor:
    """A step of a GRU by its equations."""
    read = cell.get_parameter("weight_ih_l0") @ inputs + cell.get_parameter("bias_ih_l0")
    held = cell.get_parameter("weight_hh_l0") @ state + cell.get_parameter("bias_hh_l0")
    (reset, update, new), (reset_h, update_h, new_h) = read.chunk(3), held.chunk(3)
    keep = (update + update_h).sigmoid()
    return keep * state + (1 - keep) * (new + (reset + reset_h).sigmoid() * new_h).tanh()


def _mlp(network: Any, inputs: Tensor, activation: Any, member: int | None = None) -> Tensor:
    for layer in range(network.num_layers):
        weight, bias = (network.get_parameter(f"{kind}_{layer}") for kind in ("weight", "bias"))
        if member is not None:
            weight, bias = weight[member], bias[member]
        inputs = inputs @ weight + bias
        if layer < network.num_layers - 1:
            inputs = activation(inputs)
    return inputs


class _ByHand:
    """Losses of one sequence after the other and one step after the other, without padding."""

    def __init__(self, learner: Learner, sequences: Sequences, noise: Tensor, compared: list[int]) -> None:
        self.learner, self.noise, self.compared = learner, noise, compared
        self.trials, self.ends, self.learned = sequences
        self.choices = learner.critics.num_choices
        self.alpha = float(learner.log_temperature.exp())

    def features(self, network: Any, trial: int) -> list[Tensor]:
        policy, trials = self.learner.policy, self.trials
        state, last, features = torch.zeros(4, dtype=torch.float64), None, []
        for t in range(int(trials.mask[:, trial].sum())):
            observation = (trials.observations[t, trial] - policy.observation_mean) * policy.observation_scale
            observation = observation.clamp(-10, 10)
            last = torch.zeros((self.choices or 2) + 3) if last is None else last
            inputs = torch.cat((observation, last.double()))
            state = _gru(network.memory.cell, inputs, state)
            features.append(torch.cat((state, inputs)))
            action = trials.actions[t, trial]
            acted = torch.eye(self.choices)[int(action)] if self.choices else action
            reward = ((trials.rewards[t, trial] - policy.reward_mean) * policy.observed_scale).clamp(-10, 10)
            flags = [trials.terminated[t, trial].double(), trials.truncated[t, trial].double()]
            last = torch.cat((acted.double(), torch.stack((reward, *flags))))
        return features

    def acting(self, features: Tensor, t: int, trial: int) -> tuple[Tensor, Tensor]:
        """Log probabilities of choices, or an action and its log density."""
        outputs = _mlp(self.learner.policy.policy, features, torch.tanh)
        if self.choices:
            return torch.eye(self.choices), outputs - outputs.exp().sum().log()
        mean, log_std = outputs[:2], outputs[2:].clamp(math.log(1e-3), math.log(4.0))  # the first std is 1
        unbounded = mean + log_std.exp() * self.noise[t, trial]
        action = unbounded.tanh()
        normal = torch.distributions.Normal(mean, log_std.exp())
        return action, (normal.log_prob(unbounded) - (1 - action.square()).log()).sum()

    def values(self, critics: Critics, features: Tensor, action: Tensor, member: int) -> Tensor:
        """Values of a continuous action [discount], or of all choices [discount, choice]."""
        inputs = features if self.choices else torch.cat((features, action))
        outputs = _mlp(critics.members, inputs, torch.relu, member)
        if self.choices:
            outputs = outputs.view(2, self.choices)
            return critics.mean[:, None] + critics.scale[:, None] * outputs
        return critics.mean + critics.scale * outputs

    def soft_value(self, critics: Critics, features: Tensor, acted: tuple[Tensor, Tensor], alpha: float) -> Tensor:
        """Soft value by the least of the compared members, [discount]."""
        action, log_probs = acted
        least = torch.stack([self.values(critics, features, action, m) for m in self.compared]).amin(0)
        if not self.choices:
            return least - alpha * log_probs
        total = torch.zeros(2, dtype=torch.float64)
        for choice in range(self.choices):
            total = total + log_probs[choice].exp() * (least[:, choice] - alpha * log_probs[choice])
        return total

    def losses(self, *, endless: bool, normalises: bool) -> dict[str, float]:
        learner, trials = self.learner, self.trials
        steps = []
        for trial in range(trials.mask.shape[1]):
            policy = self.features(learner.policy, trial)
            critic = policy if learner.trunk is None else self.features(learner.trunk, trial)
            slow = policy if learner.target_trunk is None else self.features(learner.target_trunk, trial)
            acts = [self.acting(features, t, trial) for t, features in enumerate(policy)]
            for t, features in enumerate(critic):
                if not self.learned[t, trial]:
                    continue
                target = (trials.rewards[t, trial] * learner.policy.reward_scale).expand(2)
                if t + 1 < len(critic):
                    following = self.soft_value(learner.target_critics, slow[t + 1], acts[t + 1], self.alpha)
                    target = target + learner.gammas * following
                elif not self.ends[t, trial] or (endless and not trials.terminated[t, trial]):
                    continue
                steps.append((t, trial, features, acts[t], target))
        targets = torch.stack([step[-1] for step in steps])
        if normalises:
            mean, square = targets.mean(0), targets.square().mean(0)
            learner.critics._set_moments(
                0.5 * (learner.critics.mean + mean), 0.5 * (learner.critics.square + square)
            )
        sums = dict.fromkeys(("critic", "actor", "imitation", "entropy"), 0.0)
        for t, trial, features, acted, target in steps:
            action, scale = trials.actions[t, trial], learner.critics.scale
            taken = [
                values[:, int(action)] if self.choices else values
                for values in (
                    self.values(learner.critics, features, action, m) for m in range(CRITICS.num_members)
                )
            ]
            sums["critic"] += sum(float(((q - target) / scale).square().mean()) for q in taken)
            sums["actor"] -= float(self.soft_value(learner.critics, features, acted, self.alpha)[0] / scale[0])
            better = torch.stack([taken[m] for m in self.compared]).amin(0)
            better = better - self.soft_value(learner.critics, features, acted, 0.0)
            if better[0] > 0:
                sums["imitation"] -= float(self.log_prob(t, trial))
            entropy = -(acted[1].exp() * acted[1]).sum() if self.choices else -acted[1]
            sums["entropy"] += float(entropy)
        return {name: value / len(steps) for name, value in sums.items()} | {"value": float(targets[:, 0].mean())}

    def log_prob(self, t: int, trial: int) -> Tensor:
        """Log probability of the action that was taken."""
        features, action = self.features(self.learner.policy, trial)[t], self.trials.actions[t, trial]
        outputs = _mlp(self.learner.policy.policy, features, torch.tanh)
        if self.choices:
            return outputs.log_softmax(0)[int(action)]
        mean, log_std = outputs[:2], outputs[2:].clamp(math.log(1e-3), math.log(4.0))
        normal = torch.distributions.Normal(mean, log_std.exp())
        return (normal.log_prob(action.atanh()) - (1 - action.square()).log()).sum()


def _losses(learner: Learner, sequences: Sequences, *, endless: bool = False) -> tuple[Losses, Tensor]:
    noise = torch.randn(*sequences.ends.shape, 2, generator=torch_generator(2), dtype=torch.float64)
    compared = torch.tensor([2, 0])
    losses = learner.losses(sequences, noise, compared, endless=endless, target_entropy=-0.7, imitates=True)
    return losses, noise


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize(("shared", "normalises", "endless"), [(False, False, True), (True, True, False)])
def test_losses_are_those_of_loops_over_trials_and_steps(
    actions: str, shared: bool, normalises: bool, endless: bool
) -> None:
    learner, sequences = _learner(actions, shared=shared, normalises=normalises)
    other, _ = _learner(actions, shared=shared, normalises=normalises)
    losses, noise = _losses(learner, sequences, endless=endless)
    with torch.no_grad():
        expected = _ByHand(other, sequences, noise, [2, 0]).losses(endless=endless, normalises=normalises)
    assert expected["imitation"] != 0
    for name, value in expected.items():
        assert float(getattr(losses, name).detach()) == pytest.approx(value, rel=1e-8), name
    assert float(losses.temperature.detach()) == pytest.approx(
        math.log(ALPHA) * (expected["entropy"] + 0.7), rel=1e-8
    )


def _reached(loss: Tensor, module: torch.nn.Module | None) -> bool:
    assert module is not None
    gradients = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return any(gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients)


@pytest.mark.parametrize("actions", ACTIONS)
def test_each_loss_trains_its_own_parts(actions: str) -> None:
    learner, sequences = _learner(actions, shared=False, normalises=False)
    losses, _ = _losses(learner, sequences)
    for loss in (losses.actor, losses.imitation):
        assert _reached(loss, learner.policy)
        assert not _reached(loss, learner.trunk)
        assert not _reached(loss, learner.critics)
    assert _reached(losses.critic, learner.trunk)
    assert _reached(losses.critic, learner.critics)
    assert not _reached(losses.critic, learner.policy)
    assert torch.autograd.grad(losses.temperature, [learner.log_temperature], retain_graph=True)[0] != 0
    assert not _reached(losses.temperature, learner.policy)


def test_sequences_without_a_target_teach_nothing() -> None:
    learner, sequences = _learner("numbers", shared=False, normalises=True)
    before = [learner.critics.mean.clone(), learner.critics.scale.clone()]
    losses, _ = _losses(learner, sequences._replace(learned=torch.zeros_like(sequences.learned)))
    for loss in (losses.critic, losses.actor, losses.temperature):
        assert float(loss.detach()) == 0
    torch.testing.assert_close([learner.critics.mean, learner.critics.scale], before)


def test_a_shared_memory_is_trained_by_both() -> None:
    learner, sequences = _learner("numbers", shared=True, normalises=True)
    losses, _ = _losses(learner, sequences)
    for loss in (losses.actor, losses.critic):
        assert _reached(loss, learner.policy.memory)
    assert not _reached(losses.actor, learner.critics)


def test_targets_and_learned_steps_by_hand() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 1]]).bool()
    ends = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 0]]).bool()  # the third sequence is a part of its trial
    learned, follows = learned_steps(mask, ends)
    assert follows.int().tolist() == [[1, 1, 1], [1, 0, 1], [0, 0, 0]]
    assert learned.int().tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    values = torch.stack((10 * rewards, torch.full((3, 3), math.nan)), -1)
    values[..., 1] = rewards
    targets = trial_targets(rewards, values, follows, torch.tensor([0.5, 0.0]))
    assert targets[..., 0].tolist() == [[1 + 20, 2 + 25, 3 + 30], [4 + 35, 5, 6 + 45], [7, 8, 9]]
    assert torch.equal(targets[..., 1], rewards)


def test_choice_values_and_imitation_by_hand() -> None:
    log_probs = torch.tensor([0.25, 0.75]).log()
    values = torch.tensor([[4.0, 8.0], [0.0, 0.0]])  # [discount, choice]
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert choice_values(values, log_probs, 2.0).tolist() == pytest.approx([7 + 2 * entropy, 2 * entropy])
    taken, advantages = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]]), torch.tensor([[1.0, 0.0], [2.0, 5.0]])
    mask = torch.tensor([[True, True], [True, False]])
    assert float(imitation_loss(taken, advantages, mask)) == pytest.approx((1 + 3) / 3)


@pytest.mark.parametrize("actions", ACTIONS)
def test_new_units_leave_all_values_as_they_are(actions: str) -> None:
    made = action_map(ACTIONS[actions], "test")
    pair = [
        Critics(3, made, (4,), num_members=2, num_discounts=2, generator=torch_generator(seed)).double()
        for seed in (0, 1)
    ]
    features = torch.randn(5, 7, 3, generator=torch_generator(2), dtype=torch.float64)
    taken = features[..., :2] if made.shape else torch.ones(5, 7, dtype=torch.int64)
    acted = made.encode(taken)
    before = [critics(features, acted) for critics in pair]
    targets = 50 + 20 * torch.randn(5, 7, 2, generator=torch_generator(3), dtype=torch.float64)
    mask = torch.arange(5).unsqueeze(1) < torch.tensor([5, 2, 5, 1, 5, 5, 5])
    pair[0].rescale(targets, mask, 0.25, pair[1])
    real = targets[mask]
    for critics, values in zip(pair, before, strict=True):
        torch.testing.assert_close(critics(features, acted), values)
        torch.testing.assert_close(critics.mean, 0.25 * real.mean(0))
        square = 0.75 + 0.25 * real.square().mean(0)
        torch.testing.assert_close(critics.scale, (square - critics.mean.square()).sqrt())


@pytest.mark.parametrize("memory", ["gru", "transformer", "none"])
def test_acting_takes_the_actions_that_the_losses_read(memory: Any) -> None:
    agent = _agent(policy=replace(POLICY, memory=memory, num_heads=1))
    agent.update([_collect(agent)])
    with Workers(EnvMaker(anything(OBSERVATIONS, ACTIONS["numbers"])), num_threads=1) as workers:
        trials = as_trials(workers.collect(agent.actor().deterministic(), TASKS, 3, seed=4))
    policy = agent.policy
    with torch.no_grad():
        modes = policy.distribution(*policy.read_trials(policy.trial_inputs(trials), trials)).mode()
    torch.testing.assert_close(trials.actions[trials.mask], modes[trials.mask], rtol=1e-4, atol=1e-5)


def test_slow_copies_follow() -> None:
    learner = _agent().learner
    pairs = learner._targets()
    assert len(pairs) == 2
    with torch.no_grad():
        for target, network in pairs:
            for slow, parameter in zip(target.parameters(), network.parameters(), strict=True):
                slow.fill_(1.0)
                parameter.fill_(3.0)
    learner.follow(0.25)
    assert all(bool((slow == 1.5).all()) for target, _ in pairs for slow in target.parameters())


def test_settings_are_annealed_and_the_first_collection_has_its_trials() -> None:
    agent = _agent(num_initial_trials=3, target_entropy=1.0, final_target_entropy=0.0, final_outer_lr=1e-4)
    rng, rates, entropies = np.random.default_rng(0), [], []
    with Workers(EnvMaker(anything(OBSERVATIONS, ACTIONS["numbers"])), num_threads=1) as workers:
        for added in (12, 16, 20, 24):
            entropies.append(agent.target_entropy())
            metrics = agent.update(agent.collect(workers, TASKS, rng))
            rates.append(agent.optimizer.param_groups[0]["lr"])
            assert agent.replay.num_trials == added
    assert rates == pytest.approx([1e-3, 5.5e-4, 1e-4, 1e-4])
    assert entropies == pytest.approx([2.0, 1.0, 0.0, 0.0])  # of two numbers
    assert all(math.isfinite(value) for value in metrics.values())


def test_what_is_not_finite_is_said_and_leaves_the_agent_as_it_was() -> None:
    agent = _agent()
    agent.update([_collect(agent)])
    experience = _collect(agent, seed=4)
    experience.rewards[1, 0, 0] = math.inf
    with pytest.raises(FloatingPointError, match=r"experience of task 1, Task.*number.*1.0.* is not finite"):
        agent.update([experience])
    assert agent.replay.num_trials == 4
    before = {name: value.clone() for name, value in agent.learner.state_dict().items()}
    moments = agent.optimizer.state_dict()["state"][0]["exp_avg"].clone()
    infinite = _collect(agent, seed=5)
    agent.learner.gammas.fill_(math.inf)
    with pytest.raises(FloatingPointError, match=r"not finite after 1 updates: critic .*; lower outer_lr"):
        agent.update([infinite])
    before["gammas"] = agent.learner.gammas
    for name, value in agent.learner.state_dict().items():
        if not any(word in name for word in ("_count", "_scale", "observation_", "reward_")):  # running statistics
            assert torch.equal(value, before[name]), name
    assert torch.equal(agent.optimizer.state_dict()["state"][0]["exp_avg"], moments)
    assert agent.updates == 1


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="num_compared must be at most num_members, got 3 of 2"):
        CriticConfig(num_compared=3)
    with pytest.raises(ValueError, match=r"each of other_gammas must be in \[0, 1\], got 1.5"):
        MemorySacConfig(other_gammas=(0.9, 1.5))
    with pytest.raises(ValueError, match="a final_target_entropy needs a target_entropy"):
        MemorySacConfig(target_entropy=None, final_target_entropy=0.0)
    for length in (None, 3, 4):
        with pytest.raises(ValueError, match=f"burn_in must be at most sequence_length - 2, got 3 and {length}"):
            MemorySacConfig(burn_in=3, sequence_length=length)
    with pytest.raises(ValueError, match="sequence_length must be at least 2"):
        MemorySacConfig(sequence_length=1)
    with pytest.raises(ValueError, match="replay_capacity must hold a trial of up to 15 transitions, got 14"):
        _agent(replay_capacity=14)
    agent = _agent(replay_capacity=45)
    with pytest.raises(ValueError, match="brought 4 trials and the replay holds 3"):
        agent.update([_collect(agent)])
    interface = Interface(OBSERVATIONS, spaces.MultiBinary(2))
    with pytest.raises(ValueError, match="memory SAC takes Discrete or bounded Box actions, got MultiBinary"):
        Learner(
            interface,
            POLICY,
            CRITICS,
            (0.9,),
            shared_memory=False,
            temperature=0.1,
            generator=torch_generator(0),
        )


def _train(agent: MemorySac, family: Any, tasks: list[Task], iterations: int, num_episodes: int) -> Trajectories:
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(family), num_threads=1) as workers:
        for _ in range(iterations):
            agent.update(agent.collect(workers, tasks, rng))
        return workers.collect(agent.actor(), tasks * 20, num_episodes, seed=7)


@pytest.mark.thorough
def test_critics_learn_the_sums_of_every_discount() -> None:
    family = make_benchmark("bernoulli-bandit-k2").family
    config = MemorySacConfig(
        SoftPolicyConfig(memory_size=8),
        CriticConfig(hidden_sizes=(16,), normalise_values=True, value_rate=0.05),
        num_episodes=3,
        gamma=0.5,
        other_gammas=(0.9, 0.2),
        temperature=1e-6,
        target_entropy=None,
        num_updates=40,
        batch_size=16,
        outer_lr=1e-2,
        target_rate=0.2,
    )
    agent = MemorySac(family.make_env(1), config, iterations=5, seed=0, device=CPU)
    always = [Task.of(family.name, probabilities=(1.0, 1.0))] * 4
    trials = as_trials(_train(agent, family, always, 5, 3))
    learner = agent.learner
    assert learner.trunk is not None
    with torch.no_grad():
        read = learner.trunk.read_trials(learner.policy.trial_inputs(trials), trials)
        values = learner.critics(torch.cat(read, -1), learner.policy.actions.encode(trials.actions)).mean((0, 2))
    expected = [[1 + g + g * g, 1 + g, 1] for g in (0.5, 0.9, 0.2)]
    torch.testing.assert_close(values.T, torch.tensor(expected), atol=0.05, rtol=0)


@pytest.mark.thorough
@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_learns_which_arm_pays_within_seconds(shared: bool) -> None:
    family = make_benchmark("bernoulli-bandit-k2").family
    tasks = [Task.of(family.name, probabilities=p) for p in ((0.0, 1.0), (1.0, 0.0))]
    config = MemorySacConfig(
        SoftPolicyConfig(memory_size=16),
        CriticConfig(hidden_sizes=(16,), normalise_values=shared),
        shared_memory=shared,
        num_episodes=4,
        gamma=0.9,
        num_updates=5,
        batch_size=32,
        target_entropy=0.3,
        final_target_entropy=0.05,
        outer_lr=1e-2,
        target_rate=0.05,
    )
    agent = MemorySac(family.make_env(1), config, iterations=30, seed=0, device=CPU)
    trained = _train(agent, family, tasks * 4, 30, 4)
    assert trained.returns().sum(1).mean() > 3.3  # 3.5 at best, 2 blind


@pytest.mark.slow
def test_it_learns_on_which_side_the_goal_is() -> None:
    family = make_benchmark("point").family
    tasks = [Task.of("point", goal=(side, 0.0)) for side in (-0.4, 0.4)]
    config = MemorySacConfig(
        SoftPolicyConfig(memory_size=32, head_sizes=(32,)),
        CriticConfig(hidden_sizes=(32,)),
        num_episodes=2,
        gamma=0.9,
        num_updates=20,
        temperature=0.02,
        target_entropy=-0.7,
        outer_lr=3e-3,
        target_rate=0.05,
    )
    agent = MemorySac(family.make_env(1, horizon=4), config, iterations=80, seed=0, device=CPU)
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(family, 4), num_threads=1) as workers:
        for _ in range(80):
            agent.update(agent.collect(workers, tasks * 8, rng))
        first, second = workers.collect(agent.actor().deterministic(), tasks * 4, 2, seed=7).returns().mean(0)
    # Steps of 0.1: standing still returns -1.6; the best is -1.0 at first, where half of the first steps go the
    # wrong way, and -0.6 then.
    assert first > -1.45
    assert second > -0.9
