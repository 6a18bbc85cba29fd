"""PEARL: one update at published sizes beside a plain implementation of it, sampling, and the captured CUDA graph.

The plain update is written as its public codes write it: a network of PyTorch's layers for each critic, value,
policy and encoder, an optimiser for each, one network after the other, each loss differentiated through every
network that it uses. Both draw from the same replay, and agreement is checked before anything is timed.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agents.pearl.context import SetEncoder
from metarl.agents.pearl.draws import UpdateDraw
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.envs import make_benchmark
from metarl.experiments.bench.timing import (
    interleave,
    machine,
    ratio,
    ratio_cells,
    relative_difference,
    seconds_per_call,
)
from metarl.experiments.console import Waiting, say, show_table
from metarl.learning.cuda_graph import CudaGraph
from metarl.learning.replay import MultiTaskReplay, Transitions
from metarl.nets.networks import Mlp
from metarl.runs.seeding import torch_generator


@dataclass(frozen=True)
class PearlSizes:
    """HalfCheetah at target velocities, as published: 16 of 100 tasks x 256 transitions, 300-300-300 networks.

    Attributes:
        benchmark: Name of the benchmark whose sizes of observations and actions are used.
        config: Configuration of the agent; its replay is filled to `replay_capacity`.
        num_tasks: Number of training tasks.
        at_least_s: Least duration of each measurement in seconds.
    """

    benchmark: str = "half-cheetah-vel"
    config: PearlConfig = field(default_factory=lambda: PearlConfig(replay_capacity=10_000))
    num_tasks: int = 100
    at_least_s: float = 1.0


def bench(repeats: int, sizes: PearlSizes | None = None) -> dict[str, Any]:
    """Measure updates and sampling, show them and return the same as JSON types."""
    sizes = sizes or PearlSizes()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {"bench": "pearl", "repeats": repeats, "machine": machine(), "device": device.type}
    agent = synthetic_agent(sizes, device)
    with Waiting("PEARL update: measurement") as waiting:
        result["update"] = measure_update(agent, sizes, repeats, waiting.progress)
    config = sizes.config
    shape = f"{config.update_tasks} tasks x {config.batch_size} transitions, networks {config.hidden_sizes}"
    lines = []
    for name, milliseconds in result["update"]["milliseconds"].items():
        faster = ratio_cells(result["update"]["times_as_fast_as_plain"].get(name))
        lines.append([name, f"{milliseconds:.1f}", f"{1e3 / milliseconds:.1f}", *faster])
    columns = ["contender", "ms", "updates per second", "times as fast as plain", "lowest, highest"]
    show_table(f"PEARL update on {device.type}, {shape}", columns, lines)
    result["sampling"] = measure_sampling(agent.replay, sizes, repeats)
    size = f"{config.update_tasks} x {config.batch_size} of {agent.replay.num_transitions:,} transitions"
    say(f"sampling {size}: {result['sampling']['milliseconds']:.2f} ms")
    return result


def synthetic_agent(sizes: PearlSizes, device: torch.device) -> Pearl:
    """An agent whose replay is full of random transitions."""
    benchmark, generator = make_benchmark(sizes.benchmark), torch_generator(0)
    env = benchmark.family.make_env(1)
    tasks = benchmark.train.sample(sizes.num_tasks, np.random.default_rng(0))
    agent = Pearl(env, sizes.config, tasks, iterations=1, seed=0, device=device)
    env.close()
    rows, policy = sizes.config.replay_capacity, agent.learner.policy
    for task in range(sizes.num_tasks):
        transitions = Transitions(
            observations=torch.randn(rows, policy.obs_size, generator=generator),
            actions=2 * torch.rand(rows, policy.act_size, generator=generator) - 1,
            rewards=torch.randn(rows, generator=generator),
            context_rewards=torch.randn(rows, generator=generator),
            terminated=(torch.rand(rows, generator=generator) < 0.1).float(),
            next_observations=torch.randn(rows, policy.obs_size, generator=generator),
        )
        agent.replay.add(task, transitions, num_context=min(rows, 400))
    return agent


def measure_update(
    agent: Pearl,
    sizes: PearlSizes,
    repeats: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Milliseconds per update of all contenders, and how often ours is as fast as the plain one.

    Raises:
        RuntimeError: If the two do not compute the same.
    """
    plain = PlainUpdate(agent)
    difference = update_difference(agent, plain)
    if not difference < 1e-2:
        raise RuntimeError(f"an update by the plain implementation differs from ours by {difference:.2g}")
    steps: dict[str, Callable[[UpdateDraw], Tensor]] = {"metarl": agent.step, "plain": plain.step}
    if agent.device.type == "cuda":
        graph = CudaGraph(lambda tensors: agent.step(UpdateDraw(*tensors)))
        steps["metarl, captured"] = graph
        for _ in range(5):  # past its warm-up
            graph(agent.draw())

    def timed(step: Callable[[UpdateDraw], Tensor]) -> Callable[[], float]:
        return lambda: _seconds(lambda: step(agent.draw()), agent.device, sizes.at_least_s)

    times = interleave({name: timed(step) for name, step in steps.items()}, repeats, progress)
    return {
        "milliseconds": {name: 1e3 * median(values) for name, values in times.items()},
        "relative_difference": difference,
        "times_as_fast_as_plain": {
            name: ratio(times["plain"], values) for name, values in times.items() if name != "plain"
        },
    }


def measure_sampling(replay: MultiTaskReplay[Transitions], sizes: PearlSizes, repeats: int) -> dict[str, Any]:
    """Milliseconds to draw and gather one batch for the critics, from a replay that is full."""
    generator = torch_generator(0, replay.device)
    config = sizes.config

    def sample() -> None:
        tasks = torch.randperm(replay.num_tasks, generator=generator, device=replay.device)
        replay.gather(replay.draw(tasks[: config.update_tasks], config.batch_size, generator))

    rounds = [1e3 * _seconds(sample, replay.device, sizes.at_least_s / 4) for _ in range(repeats)]
    return {"milliseconds": median(rounds), "transitions": replay.num_transitions, "bytes": replay.num_bytes}


def _seconds(work: Callable[[], object], device: torch.device, at_least_s: float) -> float:
    """Mean duration of a call in seconds; on CUDA of ten at a time, as training does not wait for single ones."""
    if device.type != "cuda":
        return seconds_per_call(work, at_least_s=at_least_s)

    def ten() -> None:
        for _ in range(10):
            work()
        torch.cuda.synchronize()

    return seconds_per_call(ten, at_least_s=at_least_s) / 10


def update_difference(agent: Pearl, plain: "PlainUpdate") -> float:
    """Distance of the parameters after two updates by both, relative to the length of the plain one's change."""
    start = plain.parameters()
    for _ in range(2):
        draw = agent.draw()
        agent.step(draw)
        plain.step(draw)
    ours = PlainUpdate(agent).parameters()
    return relative_difference(ours - start, plain.parameters() - start)


class PlainUpdate:
    """The same update by separate networks of PyTorch's layers, each with an optimiser of its own.

    Args:
        agent: Agent whose initial weights, hyperparameters and replay are used; it is not changed.
    """

    def __init__(self, agent: Pearl) -> None:
        if not isinstance(agent.acting.encoder, SetEncoder):
            raise ValueError("the plain update has a set encoder only")
        self._config, self._replay = agent.config, agent.replay
        learner = agent.learner
        self.encoder = _sequential(agent.acting.encoder.network)
        self.policy = _sequential(learner.policy.network)
        self.critics = [_sequential(learner.critics, member) for member in range(2)]
        self.value, self.target_value = _sequential(learner.value), _sequential(learner.target_value)
        lr = agent.config.outer_lr
        self._optimizers = {
            network: torch.optim.Adam(network.parameters(), lr=lr)
            for network in (self.encoder, *self.critics, self.value, self.policy)
        }

    def parameters(self) -> Tensor:
        """All networks' parameters in one vector."""
        networks = (self.encoder, self.policy, *self.critics, self.value, self.target_value)
        return torch.cat([p.detach().flatten() for network in networks for p in network.parameters()])

    def step(self, draw: UpdateDraw) -> Tensor:
        """Make one update and return the critics' loss."""
        config = self._config
        batch = self._replay.gather(draw.places)
        num_tasks, num_rows = batch.rewards.shape
        latents, kl = self._infer(self._replay.gather(draw.context_places), draw.latent_noise)
        repeated = latents.unsqueeze(1).expand(-1, num_rows, -1).reshape(num_tasks * num_rows, -1)
        observations, actions, rewards, _, terminated, following = (part.flatten(0, 1) for part in batch)
        with torch.no_grad():
            next_values = self.target_value(torch.cat((following, repeated), 1)).squeeze(1)
        targets = config.reward_scale * rewards + (1 - terminated) * config.gamma * next_values
        predictions = [
            critic(torch.cat((observations, actions, repeated), 1)).squeeze(1) for critic in self.critics
        ]
        critic_loss = sum(((q - targets).square().mean() for q in predictions), start=torch.zeros(()).to(targets))
        self._descend(critic_loss + config.kl_coef * kl, self.encoder, *self.critics)

        repeated = repeated.detach()
        states = torch.cat((observations, repeated), 1)
        mean, log_std = self.policy(states).chunk(2, 1)
        log_std = log_std.clamp(-20, 2)
        normal = torch.distributions.Normal(mean, log_std.exp())
        raw = mean + log_std.exp() * draw.action_noise.flatten(0, 1)
        new_actions = raw.tanh()
        shrinkage = 2 * (math.log(2) - raw - nn.functional.softplus(-2 * raw))
        log_probs = (normal.log_prob(raw) - shrinkage).sum(1)  # type: ignore[no-untyped-call]
        inputs = torch.cat((observations, new_actions, repeated), 1)
        best = torch.min(*(critic(inputs).squeeze(1) for critic in self.critics))
        value_loss = (self.value(states).squeeze(1) - (best - log_probs).detach()).square().mean()
        self._descend(value_loss, self.value)
        with torch.no_grad():
            for slow, fast in zip(self.target_value.parameters(), self.value.parameters(), strict=True):
                slow.copy_(slow * (1 - config.target_rate) + fast * config.target_rate)
        size = config.regularisation * (mean.square().mean() + log_std.square().mean())
        self._descend((log_probs - best).mean() + size, self.policy)
        return critic_loss.detach()

    def _infer(self, context: Transitions, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [task, latent] and the mean KL."""
        rewards = context.context_rewards.unsqueeze(-1)
        outputs = self.encoder(torch.cat((context.observations, context.actions, rewards), -1))
        means, raw = outputs.chunk(2, -1)
        variances = nn.functional.softplus(raw).clamp(min=1e-7)
        variance = 1 / (1 / variances).sum(1)
        mean = variance * (means / variances).sum(1)
        kl = 0.5 * (mean.square() + variance - 1 - variance.log()).sum(1).mean()
        return mean + variance.sqrt() * noise, kl

    def _descend(self, loss: Tensor, *networks: nn.Sequential) -> None:
        for network in networks:
            self._optimizers[network].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for network in networks:
            self._optimizers[network].step()


def _sequential(network: Mlp, member: int | None = None) -> nn.Sequential:
    """The network, or one member of several side by side, of PyTorch's own layers, whose weights are [out, in]."""
    params = {name: p.detach() if member is None else p.detach()[member] for name, p in network.named_parameters()}
    layers: list[nn.Module] = []
    for index in range(network.num_layers):
        weight, bias = params[f"weight_{index}"], params[f"bias_{index}"]
        layer = nn.Linear(weight.shape[0], weight.shape[1], device=weight.device)
        layer.load_state_dict({"weight": weight.T, "bias": bias})
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
