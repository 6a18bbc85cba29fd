"""ES-MAML: meta-learning by evolution strategies, without a gradient of anything (Song et al. 2020).

arXiv:1910.01215, algorithm 3. Policies are deterministic; f(theta, T) is the return of theta's episode on task T.

    for each iteration, with tasks T_i and orthogonal directions g_i:
        v_i+- = f(U(theta +- sigma g_i, T_i), T_i)                     all i, both signs: one batch of episodes
        theta = Adam(theta, mean_i d_i / s * g_i)       d_i = (v_i+ - v_i-) / 2, s the root mean square of the d_i
    U(theta, T), the adaptation, from episodes of theta and of theta + sigma' h_k, k = 1 ... K - 1:
        "es":             theta + alpha / (K - 1) * sum_k (f_k - mean f) / std f * h_k        h_k in pairs +-h
        "hill_climbing":  theta or theta + sigma' h_k, whichever returned most

An actor explores in the space of parameters: of a task's K episodes the first acts with theta itself, the others
with perturbed parameters. So it collects, adapts and is evaluated as any other actor is.

How we differ: returns are scaled, so that step sizes do not depend on the units of rewards; the outer step is
Adam's. Both signs of a direction share the task, its episodes' seeds and the inner directions, so that their
difference is the perturbation's alone. Inner episodes are not repeated to average their noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from metarl.agent import Actions, AgentConfig, AgentSetup, Collector, Interface, Outcome, SavedActor
from metarl.agents.maml import check_finite
from metarl.learning.adaptation_metrics import adaptation_metrics
from metarl.learning.bilevel import Params, expand, flatten, unflatten
from metarl.learning.directions import draw_directions
from metarl.nets.actions import action_map
from metarl.nets.encoders import FLAT
from metarl.nets.filling import check_settings, check_tensors, fill, tensor_groups
from metarl.nets.networks import Activation, Mlp
from metarl.nets.running import RunningMoments
from metarl.runs import codec
from metarl.runs.configs import MOST_REPEATS, MOST_TASKS, Configuration, check_counts, check_positive, check_sizes
from metarl.runs.seeding import draw_seed, torch_generator
from metarl.tasks import HasSpaces, Task, TaskEnv
from metarl.trajectories import Observations, Trajectories, map_observations


@dataclass(frozen=True)
class EsAdaptationConfig(Configuration):
    """Settings of the adaptation.

    Attributes:
        operator: Adaptation operator U: "es" takes a step along the estimated gradient, "hill_climbing" goes to
            the perturbed policy that returned most, or stays.
        inner_lr: Step size alpha of the "es" operator, on returns scaled to a standard deviation of one.
        perturbation_std: Standard deviation sigma' of the perturbations of each parameter.
        inner_steps: Number of adaptation steps in training; evaluation may take more.
        num_episodes: Number of episodes K per task and adaptation step: one of the policy itself, and one of each
            perturbed policy.
    """

    operator: Literal["es", "hill_climbing"] = "hill_climbing"
    inner_lr: float = 0.5
    perturbation_std: float = 0.1
    inner_steps: int = 1
    num_episodes: int = 9

    def __post_init__(self) -> None:
        check_positive(self, "inner_lr", "perturbation_std")
        check_counts(self, "inner_steps", most=MOST_REPEATS)
        check_counts(self, "num_episodes", least=2, most=MOST_TASKS)


@dataclass(frozen=True)
class EsMamlConfig(AgentConfig):
    """ES-MAML's hyperparameters, for policies of any size.

    Attributes:
        hidden_sizes: Widths of the policy network's hidden layers; none for a linear policy.
        activation: Activation of the policy network's hidden layers.
        output_scale: Factor of the policy's continuous output, after which +-1 is mapped to the action bounds.
        normalise_observations: Observations are normalised by their running mean and standard deviation.
        adaptation: Settings of the adaptation.
        outer_lr: Adam step size of the outer loop.
        outer_std: Standard deviation sigma of the outer loop's perturbations of each parameter.
        num_pairs: Number of pairs of opposite outer perturbations per task and iteration.
        measured_episodes: Number of episodes of each adapted policy, whose mean return is what it is worth.
        orthogonal: Directions of one iteration, and of one adaptation, are orthogonal, as many as can be.
    """

    hidden_sizes: tuple[int, ...] = ()
    activation: Activation = "tanh"
    output_scale: float = 1.0
    normalise_observations: bool = True
    adaptation: EsAdaptationConfig = field(default_factory=EsAdaptationConfig)
    outer_lr: float = 0.02
    outer_std: float = 0.05
    num_pairs: int = 1
    measured_episodes: int = 1
    orthogonal: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_sizes", least_layers=0)
        check_positive(self, "output_scale", "outer_lr", "outer_std")
        check_counts(self, "num_pairs", "measured_episodes", most=MOST_TASKS)

    def make(self, setup: AgentSetup) -> "EsMaml":
        """Make an untrained agent with this configuration; everything is computed on the CPU."""
        return EsMaml(setup.env, self, seed=setup.seed)


class DeterministicPolicy(nn.Module):
    """A network that puts out actions: the means of numbers, or the most probable choices.

    Args:
        env: Environment of the family, read for its spaces alone.
        config: Configuration of the agent.
        seed: Seed of the initial weights; the last layer's are zero.
    """

    def __init__(self, env: HasSpaces, config: EsMamlConfig, seed: int) -> None:
        super().__init__()
        generator = torch_generator(seed)
        self.interface = Interface(env.single_observation_space, env.single_action_space)
        self.actions = action_map(env.single_action_space, "ES-MAML", scale=config.output_scale)
        self._encoder = FLAT.make(env.single_observation_space, generator)
        size, outputs = self._encoder.output_size, self.actions.num_outputs
        self.network = Mlp(
            size, config.hidden_sizes, outputs, activation=config.activation, generator=generator
        ).requires_grad_(False)
        self.network.get_parameter(f"weight_{self.network.num_layers - 1}").zero_()
        self.moments = RunningMoments(size) if config.normalise_observations else None
        self._log_std = torch.zeros(outputs)

    def params(self) -> Params:
        """The network's parameters by name."""
        return dict(self.network.named_parameters())

    def act(self, params: Params, observations: Observations) -> Tensor:
        """Actions [row, 1, ...] at observations of parameters that each row has of its own, [row, ...]."""
        features = self._encoder(observations)
        features = features if self.moments is None else self.moments(features)
        outputs = self.network.call(params, features)
        return self.actions.distribution(outputs, self._log_std).mode()

    def observe(self, trajectories: Trajectories) -> None:
        """Take the trajectories' observations into the running statistics."""
        if self.moments is not None:
            self.moments.update(self._encoder(trajectories.observations)[trajectories.mask])


class PerturbedActor:
    """Acts with the meta-parameters or with each task's adapted ones, perturbed in all episodes but the first.

    Args:
        policy: The policy.
        config: Configuration of the agent.
        params: Parameters of every task [task, ...]; None for the meta-parameters.
        perturbing: False to act without perturbations in all episodes.
    """

    sequential = False
    reads_outcomes = False
    saved_as: ClassVar[str] = "perturbed"

    def __init__(
        self, policy: DeterministicPolicy, config: EsMamlConfig, params: Params | None, *, perturbing: bool = True
    ) -> None:
        self._policy, self._config, self._perturbing = policy, config, perturbing
        self._params = params
        self._acting: Params = {}
        self._seeds = torch.empty(0)

    @property
    def interface(self) -> Interface:
        """The spaces that the policy was made for."""
        return self._policy.interface

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        """The policy's actions for environment actions [..., *shape]."""
        return self._policy.actions.from_env(env_actions)

    def select(self, tasks: slice) -> "PerturbedActor":
        """The actor of some of the tasks."""
        params = self._params
        if params is not None:
            params = {name: p[tasks] for name, p in params.items()}
        return PerturbedActor(self._policy, self._config, params, perturbing=self._perturbing)

    def deterministic(self) -> "PerturbedActor":
        """The same actor without perturbations; its episodes are no data to adapt from."""
        return PerturbedActor(self._policy, self._config, self._params, perturbing=False)

    def saved(self) -> SavedActor:
        """The parameters of the task that it has adapted to, or else the meta-parameters, and the statistics."""
        groups = {"params": self._task_params(1), "policy": self._policy.state_dict()}
        tensors = {f"{group}.{name}": p for group, part in groups.items() for name, p in part.items()}
        return SavedActor({"config": codec.encode(self._config, {}), "perturbing": self._perturbing}, tensors)

    @classmethod
    def from_saved(cls, interface: Interface, contents: SavedActor) -> Self:
        """The actor of a file."""
        settings = check_settings(contents.settings, {"config": dict, "perturbing": bool})
        config = codec.decode(EsMamlConfig, settings["config"], "config", {})
        policy = DeterministicPolicy(interface, config, seed=0)
        groups = tensor_groups(contents.tensors, ("params", "policy"))
        fill(policy, groups["policy"], "policy")
        check_tensors(expand(policy.params(), 1), groups["params"], "params")
        params = {name: groups["params"][name] for name in policy.params()}  # in the order of perturbations
        return cls(policy, config, params, perturbing=settings["perturbing"])

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        """Start parallel episodes of all tasks, each with parameters of its own."""
        seeds = (task_seeds >> np.uint64(1)).astype(np.int64)  # torch has no unsigned integers of 64 bits
        self._seeds = torch.from_numpy(seeds).unsqueeze(1).expand(-1, num_parallel)
        params = self._task_params(len(seeds))
        if self._perturbing:
            params = self._perturbed(params, self._offsets(seeds, num_parallel))
        else:
            params = {name: p.unsqueeze(1).expand(-1, num_parallel, *p.shape[1:]) for name, p in params.items()}
        self._acting = {name: p.flatten(0, 1) for name, p in params.items()}

    def begin_episode(self) -> None:
        """Nothing is kept from step to step."""

    def observe(self, outcome: Outcome) -> None:
        """Nothing is learned while acting."""

    def act(self, observations: Observations) -> Actions:
        """Actions [task, parallel, ...] of every episode's own policy."""
        rows = map_observations(lambda part: part.flatten(0, 1).unsqueeze(1), observations)
        actions = self._policy.act(self._acting, rows).squeeze(1)
        actions = actions.view(*self._seeds.shape, *actions.shape[1:])
        records = {"perturbation_seed": self._seeds} if self._perturbing else {}
        return Actions(self._policy.actions.to_env(actions), actions, records)

    def adapt(self, trajectories: Trajectories) -> "PerturbedActor":
        """The adaptation operator U, from episodes that this actor ran.

        Raises:
            ValueError: if other episodes are given, of which nobody knows the perturbations.
        """
        if "perturbation_seed" not in trajectories.records:
            raise ValueError(
                "ES-MAML adapts to episodes of its own perturbed policies, got episodes without perturbations; "
                "let its actor, sampling, collect them"
            )
        returns = trajectories.returns()
        check_finite(returns.sum(1), trajectories.tasks, "the return of a perturbed policy")
        seeds = trajectories.records["perturbation_seed"][:, 0, 0].numpy()
        offsets = self._offsets(seeds, returns.shape[1])
        params = self._task_params(len(seeds))
        operator = _best if self._config.adaptation.operator == "hill_climbing" else _es_step
        moves = operator(offsets, returns, self._config.adaptation).float()
        adapted = {name: p + move for (name, p), move in zip(params.items(), self._pieces(moves), strict=True)}
        return PerturbedActor(self._policy, self._config, adapted, perturbing=self._perturbing)

    def _task_params(self, num_tasks: int) -> Params:
        """The parameters before any perturbation, [task, ...]."""
        return expand(self._policy.params(), num_tasks) if self._params is None else self._params

    def _offsets(self, seeds: np.ndarray, num_episodes: int) -> Tensor:
        """Offset of each episode's policy in units of sigma', [task, episode, parameter]; zero in the first."""
        size = len(flatten(self._policy.params()))
        num_directions = num_episodes // 2  # in pairs of opposites, the last one perhaps without its opposite
        offsets = torch.zeros(len(seeds), num_episodes, size)
        for task, seed in enumerate(seeds):
            directions = draw_directions(
                np.random.default_rng(int(seed)), num_directions, size, orthogonal=self._config.orthogonal
            )
            offsets[task, 1::2] = directions
            offsets[task, 2::2] = -directions[: (num_episodes - 1) // 2]
        return offsets

    def _perturbed(self, params: Params, offsets: Tensor) -> Params:
        std = self._config.adaptation.perturbation_std
        pieces = zip(params.items(), self._pieces(std * offsets), strict=True)
        return {name: p.unsqueeze(1) + piece for (name, p), piece in pieces}

    def _pieces(self, vectors: Tensor) -> list[Tensor]:
        """Vectors [..., parameter] as the shapes of the parameters, each [..., *shape]."""
        shapes = [p.shape for p in self._policy.params().values()]
        pieces = torch.split(vectors, [shape.numel() for shape in shapes], -1)
        return [piece.reshape(*piece.shape[:-1], *shape) for piece, shape in zip(pieces, shapes, strict=True)]


def _es_step(offsets: Tensor, returns: Tensor, config: EsAdaptationConfig) -> Tensor:
    """The step along the estimated gradient of the smoothed return, [task, parameter]; see the file's head."""
    perturbed = returns[:, 1:].double()
    centred = perturbed - perturbed.mean(1, keepdim=True)
    std = centred.square().mean(1, keepdim=True).sqrt()
    scores = torch.where(std > 0, centred / std, 0.0)
    steps = torch.einsum("te,tep->tp", scores, offsets[:, 1:].double())
    return config.inner_lr * steps / max(1, perturbed.shape[1])  # of a single episode nothing is learned


def _best(offsets: Tensor, returns: Tensor, config: EsAdaptationConfig) -> Tensor:
    """The step to the episode's policy that returned most, [task, parameter]; none if nothing beat the first."""
    return config.perturbation_std * offsets[torch.arange(len(returns)), returns.argmax(1)]


class EsExperience(NamedTuple):
    """The experience of one meta-iteration.

    Attributes:
        trajectories: Trajectories of each adaptation step and of the adapted policies; the two signs of each
            direction follow one another on the task axis.
        directions: Outer directions g, [direction, parameter].
    """

    trajectories: list[Trajectories]
    directions: Tensor


class EsMaml:
    """An ES-MAML agent; see `metarl.agent.Agent`.

    Args:
        env: Environment of the family, for its spaces.
        config: Hyperparameters of the agent.
        seed: Seed of the initial weights.
    """

    def __init__(self, env: TaskEnv, config: EsMamlConfig, *, seed: int) -> None:
        self.config = config
        self.policy = DeterministicPolicy(env, config, seed)
        self._theta = flatten(self.policy.params()).clone().requires_grad_()
        self.optimizer = torch.optim.Adam([self._theta], lr=config.outer_lr)

    def actor(self) -> PerturbedActor:
        """An actor with the meta-parameters."""
        return PerturbedActor(self.policy, self.config, None)

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> EsExperience:
        """Episodes of all perturbed policies on all tasks, before and after each adapts."""
        config, theta = self.config, self.policy.params()
        num_directions = len(tasks) * config.num_pairs
        vector = flatten(theta)
        directions = draw_directions(rng, num_directions, len(vector), orthogonal=config.orthogonal)
        signed = torch.stack((directions, -directions), 1).flatten(0, 1)  # [direction * sign, parameter]
        perturbed = [unflatten(vector + config.outer_std * row, theta) for row in signed]
        actor = PerturbedActor(self.policy, config, {n: torch.stack([p[n] for p in perturbed]) for n in theta})
        rows = [task for task in tasks for _ in range(2 * config.num_pairs)]
        places = [direction for direction in range(num_directions) for _ in range(2)]
        trajectories = []
        for _ in range(config.adaptation.inner_steps):
            seed = draw_seed(rng)
            trajectories.append(
                collector.collect(actor, rows, config.adaptation.num_episodes, seed, places=places)
            )
            actor = actor.adapt(trajectories[-1])
        seed = draw_seed(rng)
        adapted = actor.deterministic()
        trajectories.append(collector.collect(adapted, rows, config.measured_episodes, seed, places=places))
        return EsExperience(trajectories, directions)

    def update(self, experience: EsExperience) -> dict[str, float]:
        """One Adam step along the estimated gradient of the adapted policies' return."""
        first, last = experience.trajectories[0], experience.trajectories[-1]
        values = last.returns().mean(1)
        check_finite(values, last.tasks, "the return of an adapted policy")
        gradient, size = self.estimate(values, experience.directions)
        self._theta.grad = -gradient
        self.optimizer.step()
        with torch.no_grad():
            for name, value in unflatten(self._theta, self.policy.params()).items():
                self.policy.params()[name].copy_(value)
        for trajectories in experience.trajectories:
            self.policy.observe(trajectories)
        return adaptation_metrics(first, last, before=slice(1)) | {
            "es/difference": size,
            "loss/grad_norm": float(gradient.norm()),
        }

    def estimate(self, values: Tensor, directions: Tensor) -> tuple[Tensor, float]:
        """The gradient's estimate in units of the differences' size, [parameter], and that size.

        Args:
            values: Worth of the perturbed policies, [direction * sign].
            directions: Directions g, [direction, parameter].
        """
        halved = values.double().view(-1, 2) @ torch.tensor([0.5, -0.5], dtype=torch.float64)
        size = halved.square().mean().sqrt()
        weights = halved / size if size > 0 else halved
        return (weights @ directions.double() / len(directions)).float(), float(size)

    def state_dict(self) -> dict[str, Any]:
        """Parameters, observation statistics and Adam's moments."""
        return {"policy": self.policy.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.policy.load_state_dict(state["policy"])
        with torch.no_grad():
            self._theta.copy_(flatten(self.policy.params()))
        self.optimizer.load_state_dict(state["optimizer"])
