"""RL2's update against a second implementation: loops in float64, from rewards to Adam, over two updates."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.envs import make_benchmark
from metarl.runs.seeding import torch_generator
from metarl.tasks import Task
from metarl.trajectories import Trajectories

LENGTHS = ((2, 3), (4, 2), (1, 4), (4, 4))
"""Steps of both episodes of every task, of at most four: the last trial is alone at its last two steps."""
CONFIG = Rl2Config(
    policy=TrialPolicyConfig(memory="gru", memory_size=3, min_std=0.4, init_std=0.5, max_std=4.0),
    num_episodes=2,
    gamma=0.9,
    final_gamma=0.5,
    gae_lambda=0.8,
    final_gae_lambda=0.4,
    outer_lr=3e-3,
    final_outer_lr=1e-3,
    entropy_coef=0.1,
    final_entropy_coef=0.02,
    epochs=2,
    minibatches=2,
    clip_ratio=0.2,
    value_coef=0.7,
    max_grad_norm=0.3,
)
_LOG_ROOT = 0.5 * math.log(2 * math.pi)


def _experience(seed: int, largest: float) -> Trajectories:
    """Random numbers in float64 with the lengths above; one reward is zero and one the largest."""
    rng, shape = np.random.default_rng(seed), (4, 2, 4)

    def draw(*tail: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal((*shape, *tail)))

    length = torch.tensor(LENGTHS).unsqueeze(2)
    time = torch.arange(4)
    mask, last = time < length, time == length - 1
    rewards = draw()
    rewards[3, 0, 1], rewards[1, 0, 2] = 0.0, largest
    return Trajectories(
        tasks=tuple(Task.of("point", goal=(0.1 * i, 0.0)) for i in range(4)),
        observations=draw(2),
        actions=0.8 * draw(2),
        rewards=rewards * mask,
        terminated=last & (length < 4),
        truncated=last & (length == 4),
        mask=mask,
        last_observations=torch.zeros(4, 2, 2, dtype=torch.float64),
        records={"value": draw(), "log_prob": -2.0 + 0.4 * draw()},
        infos={},
    )


@dataclass
class _ByHand:
    """The second implementation; its state is what an agent's update changes."""

    params: dict[str, Tensor]
    known: list[float] = field(default_factory=lambda: [0.0] * 8)
    value_scale: float = 0.0
    rewards_so_far: list[float] = field(default_factory=list)
    updates: int = 0
    order: torch.Generator = field(default_factory=lambda: torch_generator(0))
    steps: int = 0
    norms: list[float] = field(default_factory=list)
    ratios: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.first = {name: torch.zeros_like(p) for name, p in self.params.items()}
        self.second = {name: torch.zeros_like(p) for name, p in self.params.items()}

    def annealed(self, start: float, final: float | None) -> float:
        """A setting of a run of three iterations."""
        assert final is not None
        return start + (final - start) * self.updates / 2

    def update(self, experience: Trajectories) -> None:
        """All Adam steps, then the rewards that are known."""
        places = [[(i, e, t) for e in range(2) for t in range(LENGTHS[i][e])] for i in range(4)]
        advantages, targets = self.targets(experience, places)
        inputs = [self.inputs(experience, trial) for trial in places]
        for _ in range(CONFIG.epochs):
            order = torch.randperm(4, generator=self.order).tolist()
            for chosen in (order[:2], order[2:]):
                leaves = {name: p.clone().requires_grad_() for name, p in self.params.items()}
                terms = [
                    term
                    for i in chosen
                    for term in self.terms(
                        leaves, experience, list(zip(places[i], inputs[i], advantages[i], targets[i], strict=True))
                    )
                ]
                (sum(terms) / len(terms)).backward()  # type: ignore[union-attr]
                self.adam({name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})
        self.rewards_so_far += [float(experience.rewards[at]) for trial in places for at in trial]
        self.updates += 1

    def targets(
        self, experience: Trajectories, places: list[list[tuple[int, int, int]]]
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Advantages and targets of the value of every step of every trial."""
        gamma = self.annealed(CONFIG.gamma, CONFIG.final_gamma)
        decay = gamma * self.annealed(CONFIG.gae_lambda, CONFIG.final_gae_lambda)
        advantages: list[list[float]] = []
        returns: list[list[float]] = []
        for trial in places:
            rewards = [float(experience.rewards[at]) for at in trial]
            outputs = [float(experience.records["value"][at]) for at in trial]
            values = [self.known[t] + self.value_scale * output for t, output in enumerate(outputs)] + [0.0]
            advantage, backwards = 0.0, []
            for t in reversed(range(len(trial))):
                advantage = rewards[t] + gamma * values[t + 1] - values[t] + decay * advantage
                backwards.append(advantage)
            advantages.append(backwards[::-1])
            returns.append([a + v for a, v in zip(backwards[::-1], values, strict=False)])
        centres: list[float] = []
        for t in range(8):
            here = [trial[t] for trial in returns if len(trial) > t]
            centre = sum(here) / len(here)
            if len(here) == 1 and self.known[t] != 0:
                centre = self.known[t] + 0.1 * (centre - self.known[t])
            centres.append(centre)
        residuals = [[r - centres[t] for t, r in enumerate(trial)] for trial in returns]
        earned = [[float(experience.rewards[at]) for at in trial] for trial in places]
        scale = _root_mean_square(residuals) + 1e-3 * _root_mean_square(earned)
        self.known, self.value_scale = centres, scale
        centred = []
        for i, trial in enumerate(advantages):
            others = [[a[t] for j, a in enumerate(advantages) if j != i and len(a) > t] for t in range(len(trial))]
            centred.append([a - (sum(o) / len(o) if o else 0.0) for a, o in zip(trial, others, strict=True)])
        unit = _root_mean_square(centred)
        return (
            [[_single(a / unit) for a in trial] for trial in centred],
            [[_single(r / scale) for r in trial] for trial in residuals],
        )

    def inputs(self, experience: Trajectories, trial: list[tuple[int, int, int]]) -> list[Tensor]:
        """Observation, last action, last reward less the mean so far in units of the spread, and last flags."""
        paid, mean = self.rewards_so_far, sum(self.rewards_so_far) / max(len(self.rewards_so_far), 1)
        spreads = [[r - mean for r in paid], [r - mean for r in paid if r != 0], [r / 100 for r in paid if r != 0]]
        scale = 1 / max(_root_mean_square([spread]) for spread in spreads) if any(paid) else 0.0
        last = torch.zeros(5, dtype=torch.float64)
        inputs = []
        for at in trial:
            inputs.append(torch.cat((experience.observations[at], last)))
            reward = min(max((float(experience.rewards[at]) - mean) * scale, -10.0), 10.0)
            flags = (float(experience.terminated[at]), float(experience.truncated[at]))
            action = experience.actions[at].clamp(-1, 1)
            last = torch.cat((action, torch.tensor([reward, *flags], dtype=torch.float64)))
        return inputs

    def terms(
        self,
        leaves: dict[str, Tensor],
        experience: Trajectories,
        trial: list[tuple[tuple[int, int, int], Tensor, float, float]],
    ) -> list[Tensor]:
        """The loss of every step of a trial: its place, inputs, advantage and target."""
        hidden, terms = torch.zeros(3, dtype=torch.float64), []
        bonus = self.annealed(CONFIG.entropy_coef, CONFIG.final_entropy_coef)
        for at, x, advantage, target in trial:
            from_input = leaves["memory.cell.weight_ih_l0"] @ x + leaves["memory.cell.bias_ih_l0"]
            from_hidden = leaves["memory.cell.weight_hh_l0"] @ hidden + leaves["memory.cell.bias_hh_l0"]
            reset = torch.sigmoid(from_input[:3] + from_hidden[:3])
            keep = torch.sigmoid(from_input[3:6] + from_hidden[3:6])
            new = torch.tanh(from_input[6:] + reset * from_hidden[6:])
            hidden = (1 - keep) * new + keep * hidden
            features = torch.cat((hidden, x))
            mean = features @ leaves["policy.weight_0"] + leaves["policy.bias_0"]
            value = (features @ leaves["value.weight_0"] + leaves["value.bias_0"]).squeeze(0)
            log_std = leaves["log_std"]
            distance = (experience.actions[at] - mean) / log_std.exp()
            log_prob = -(distance.square() / 2 + log_std + _LOG_ROOT).sum()
            ratio = (log_prob - experience.records["log_prob"][at]).exp()
            self.ratios.append((float(ratio.detach()), advantage))
            surrogate = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            entropy = (log_std + 0.5 + _LOG_ROOT).sum()
            terms.append(-surrogate + CONFIG.value_coef * (value - target) ** 2 - bonus * entropy)
        return terms

    def adam(self, gradients: dict[str, Tensor]) -> None:
        """One step of Adam on the gradient, shortened to its longest norm."""
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
        self.norms.append(norm)
        self.steps += 1
        rate = self.annealed(CONFIG.outer_lr, CONFIG.final_outer_lr)
        for name, gradient in gradients.items():
            g = gradient * min(1.0, CONFIG.max_grad_norm / (norm + 1e-6))
            self.first[name] = 0.9 * self.first[name] + 0.1 * g
            self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
            mean = self.first[name] / (1 - 0.9**self.steps)
            size = (self.second[name] / (1 - 0.999**self.steps)).sqrt()
            self.params[name] = self.params[name] - rate * mean / (size + 1e-5)


def _root_mean_square(rows: list[list[float]]) -> float:
    numbers = [number for row in rows for number in row]
    return math.sqrt(sum(number**2 for number in numbers) / len(numbers))


def _single(number: float) -> float:
    """The number in float32, as batches hold advantages and targets."""
    return float(np.float32(number))


def test_two_updates_are_those_of_a_second_implementation() -> None:
    env = make_benchmark("point").family.make_env(1, horizon=4)
    agent = Rl2(env, CONFIG, iterations=3, seed=0, device=torch.device("cpu"))
    agent.policy.double()
    agent.value_mean, agent.value_scale = agent.value_mean.double(), agent.value_scale.double()
    by_hand = _ByHand({name: p.detach().clone() for name, p in agent.policy.named_parameters()})
    for seed, largest in ((0, 3.0), (1, 40.0)):
        experience = _experience(seed, largest)
        agent.update(experience)
        by_hand.update(experience)
        for name, p in agent.policy.named_parameters():
            assert torch.allclose(p, by_hand.params[name], rtol=0, atol=1e-10), name
        assert agent.value_mean.tolist() == pytest.approx(by_hand.known, abs=1e-12)
        assert float(agent.value_scale) == pytest.approx(by_hand.value_scale, abs=1e-12)
    # The premises: gradients were shortened, to different parts of their lengths, and ratios were clipped on both
    # sides, where it pays and where it does not; the largest reward was beyond ten units.
    assert by_hand.steps == 8
    assert min(by_hand.norms) > 1.2 * CONFIG.max_grad_norm
    assert max(by_hand.norms) > 1.2 * min(by_hand.norms)
    for sign in (-1, 1):
        clipped = [sign * advantage > 0 for ratio, advantage in by_hand.ratios if sign * (ratio - 1) > 0.2]
        assert len(set(clipped)) == 2
    assert any(abs(ratio - 1) < 0.2 for ratio, _ in by_hand.ratios)
    of_first = by_hand.rewards_so_far[: len(by_hand.rewards_so_far) // 2]
    mean = sum(of_first) / len(of_first)
    assert 10 * _root_mean_square([[reward - mean for reward in of_first if reward != 0]]) < 40.0 - mean
