"""Adapting a trained agent to one environment that somebody holds: a robot's driver, another simulator, a wrapper.

    agent   = load_agent("runs/half-cheetah-vel-rl2")           metarl.experiments.loading
    adapted = adapt(agent, env, episodes=2)
    action  = adapted.policy.act(observation)

    adapted.save("robot.safetensors")                           metarl.load_policy reads it
    again   = adapt(metarl.load_policy("robot.safetensors"), env, episodes=2)       goes on

The environment is any plain `gymnasium.Env`. The agent acts through the same `Actor` as in training, with the same
noise for the same seed, so that the result equals what `metarl.workers.Workers` would have collected. Episodes
that an agent runs in parallel when it has many environments follow one another here, each as its row of the batch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.agent import ActsDeterministically, Agent, Deployable, Interface
from metarl.deploy.histories import AdaptedTo, adapted_to
from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.recordings import Recording
from metarl.deploy.single_env import (
    Episode,
    EpisodeLog,
    as_recording,
    as_trajectories,
    check_count,
    described,
    run_batch,
    run_trial,
)
from metarl.observations import PartSpace, describe, space_parts
from metarl.runs.seeding import draw_seed


@dataclass(frozen=True)
class Adaptation:
    """The result of adapting to an environment.

    Attributes:
        policy: Adapted policy.
        episodes: Episodes in their order; empty if no environment was acted in.
        recording: All their transitions, as `metarl.deploy.recordings.save_recording` writes them.
    """

    policy: AdaptedPolicy
    episodes: tuple[Episode, ...]
    recording: Recording

    @property
    def returns(self) -> list[float]:
        """Return of every episode."""
        return [episode.env_return for episode in self.episodes]

    def save(self, path: Path | str) -> None:
        """Write the adapted policy and a summary of what it was adapted to; see `AdaptedPolicy.save`."""
        self.policy.save(path)


def adapt(
    agent: Agent[Any] | AdaptedPolicy,
    env: gymnasium.Env[Any, Any],
    *,
    episodes: int,
    num_steps: int = 1,
    seed: int = 0,
    max_episode_steps: int | None = None,
    deterministic: bool = False,
) -> Adaptation:
    """Let a trained agent adapt to an environment, or let an adapted policy go on adapting.

    An agent that learns within trials (RL2, PEARL) runs one trial of these episodes. An agent that takes gradient
    steps (MAML-TRPO, ProMP) collects the episodes and takes one step; with `num_steps` above one it takes a step
    after each equal part of them.

    Args:
        agent: Trained agent, or a policy that was adapted or loaded; left as it is.
        env: Environment to adapt to; left open.
        episodes: Number of episodes in all.
        num_steps: Number of gradient steps.
        seed: Seed of the environment's resets and of the actions' noise.
        max_episode_steps: Number of steps after which episodes are cut; None leaves the end to the environment.
        deterministic: True for a policy that takes the mode of its distribution. RL2 and PEARL then never sample;
            MAML-TRPO and ProMP still adapt to episodes of sampled actions.

    Raises:
        ValueError: if the spaces do not fit the agent, or a number is not what it should be.
        TypeError: if it is no agent whose actor can act outside of the toolkit's environments.
        FloatingPointError: if the environment gives an observation or a reward that is not finite.
    """
    actor, card, history = _start(agent)
    check_count("episodes", episodes)
    check_count("num_steps", num_steps)
    if episodes % num_steps:
        raise ValueError(f"episodes must be a multiple of num_steps, got {episodes} and {num_steps}")
    if actor.sequential and num_steps > 1:
        raise ValueError(f"num_steps must be 1 for an agent that learns as it acts, got {num_steps}")
    _check_fit(actor, env)
    if deterministic and not isinstance(actor, ActsDeterministically):
        raise ValueError(f"{type(actor).__name__} cannot act deterministically; sample instead")
    rng = np.random.default_rng(seed)
    logs: list[EpisodeLog] = []
    for _ in range(num_steps):
        run = run_trial if actor.sequential else run_batch
        acting = actor.deterministic() if deterministic and actor.sequential else actor
        runs = run(acting, env, episodes // num_steps, draw_seed(rng), max_episode_steps)
        actor = actor.adapt(as_trajectories(runs))
        logs += runs
    recording, summaries = as_recording(logs), tuple(log.summary() for log in logs)
    steps = 0 if actor.sequential else num_steps
    history = (*history, adapted_to(recording, summaries, gradient_steps=steps, seed=seed))
    policy = AdaptedPolicy(
        actor, env.action_space, draw_seed(rng), deterministic=deterministic, card=card, history=history
    )
    return Adaptation(policy, summaries, recording)


def adapt_to_recording(
    agent: Agent[Any] | AdaptedPolicy,
    recording: Recording,
    action_space: spaces.Space[Any],
    *,
    num_steps: int = 1,
    seed: int = 0,
    deterministic: bool = False,
) -> Adaptation:
    """Let a trained agent adapt to transitions that were recorded, without acting.

    RL2 reads them as the beginning of its trial, PEARL as its context. MAML-TRPO and ProMP take gradient steps on
    them: plain policy gradients at the present policy, which take the recorded actions as its own. Of actions that
    another policy chose that is biased: it makes those more likely which came out better than the others.

    Args:
        agent: Trained agent, or a policy that was adapted or loaded; left as it is.
        recording: Transitions of one environment.
        action_space: Action space of the environment to act in.
        num_steps: Number of gradient steps, all on the same transitions.
        seed: Seed of the adapted policy's noise.
        deterministic: True for a policy that takes the mode of its distribution.

    Raises:
        ValueError: if observations or actions do not fit the agent.
    """
    actor, card, history = _start(agent)
    check_count("num_steps", num_steps)
    if actor.sequential and num_steps > 1:
        raise ValueError(f"num_steps must be 1 for an agent that learns as it acts, got {num_steps}")
    _check_recording(actor.interface, recording)
    _check_actions(actor.interface.action_space, action_space)
    trajectories = recording.trajectories(actor.to_outputs)
    for _ in range(num_steps):
        actor = actor.adapt(trajectories)
    steps = 0 if actor.sequential else num_steps
    history = (*history, adapted_to(recording, (), gradient_steps=steps, seed=seed))
    policy = AdaptedPolicy(actor, action_space, seed, deterministic=deterministic, card=card, history=history)
    return Adaptation(policy, (), recording)


def _start(agent: Agent[Any] | AdaptedPolicy) -> tuple[Any, Mapping[str, Any], tuple[AdaptedTo, ...]]:
    """The actor that adaptation starts from, the agent's card, and earlier adaptations."""
    if isinstance(agent, AdaptedPolicy):
        return agent.actor, agent.card, agent.history
    return _deployable(agent), getattr(agent, "card", {}), ()


def _deployable(agent: Agent[Any]) -> Any:  # an Actor and Deployable; there is no type for both
    make = getattr(agent, "actor", None)
    if make is None:
        raise TypeError(
            f"expected an agent, got {type(agent).__name__}; "
            "metarl.experiments.loading.load_agent opens a run folder"
        )
    actor = make()
    if not isinstance(actor, Deployable):
        raise TypeError(
            f"{type(actor).__name__} does not say which spaces it was made for; expected one that does"
        )
    return actor


def _check_fit(actor: Deployable, env: gymnasium.Env[Any, Any]) -> None:
    _check_observations(actor.interface.observation_space, env.observation_space)
    _check_actions(actor.interface.action_space, env.action_space)


def _check_observations(agents: spaces.Space[Any], environments: spaces.Space[Any]) -> None:
    """Raise a ValueError unless the parts have the same names, kinds and shapes; bounds may differ."""
    expected = space_parts(agents)
    try:
        came = space_parts(environments)
    except ValueError:
        came = {}
    fits = came.keys() == expected.keys() and all(_alike(part, came[name]) for name, part in expected.items())
    if not fits:
        raise ValueError(
            f"the agent reads observations of {describe(agents)}, the environment gives {describe(environments)}; "
            "adapt in an environment of the agent's own observations"
        )


def _alike(part: PartSpace, other: PartSpace) -> bool:
    if isinstance(part, spaces.Box):
        return isinstance(other, spaces.Box) and part.shape == other.shape and _whole(part) == _whole(other)
    return part == other


def _whole(space: spaces.Box) -> bool:
    """Whether numbers are pixels of bytes, which encoders divide by 255."""
    return space.dtype == np.uint8


def _check_recording(interface: Interface, recording: Recording) -> None:
    """Raise a ValueError unless the observations and actions have the agent's shapes, and its choices exist."""
    expected = {name: part.shape or () for name, part in space_parts(interface.observation_space).items()}
    came = {name: part.shape[1:] for name, part in recording.observation_parts.items()}
    if came != expected:
        raise ValueError(
            f"the agent reads observations of {described(expected)}, the recording has {described(came)}"
        )
    space, actions = interface.action_space, recording.actions
    if actions.shape[1:] != space.shape:
        raise ValueError(f"the agent's actions have shape {space.shape}, the recording's {actions.shape[1:]}")
    if isinstance(space, spaces.Box):
        return
    if len(fractions := np.flatnonzero((actions.astype(np.float64) % 1).reshape(len(actions), -1).any(1))):
        raise ValueError(f"actions must be whole numbers, got {actions[fractions[0]]}")
    low, high = _choices(space)
    if len(outside := np.flatnonzero(((actions < low) | (actions > high)).reshape(len(actions), -1).any(1))):
        raise ValueError(f"actions must be in {describe(space)}, got {actions[outside[0]]} at step {outside[0]}")


def _choices(space: spaces.Space[Any]) -> tuple[Any, Any]:
    """Least and greatest discrete actions."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n) - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    return 0, 1


def _check_actions(agents: spaces.Space[Any], environments: spaces.Space[Any]) -> None:
    """Raise a ValueError unless the spaces have the same kind, shape and choices or bounds."""
    if not isinstance(agents, spaces.Box):
        if agents != environments:
            raise ValueError(
                f"the agent's actions are in {describe(agents)}, the environment's in {describe(environments)}"
            )
        return
    if not isinstance(environments, spaces.Box) or environments.shape != agents.shape:
        raise ValueError(
            f"the agent's actions have shape {agents.shape}, the environment has {describe(environments)}"
        )
    if not (np.allclose(environments.low, agents.low) and np.allclose(environments.high, agents.high)):
        raise ValueError(
            f"the agent's actions are in {_listed(agents)}, the environment's in {_listed(environments)}; "
            "gymnasium.wrappers.RescaleAction maps one to the other"
        )


def _listed(space: spaces.Box) -> str:
    """Bounds in one line: one pair where all components have the same."""
    bounds = zip(space.low.ravel().tolist(), space.high.ravel().tolist(), strict=True)
    pairs = [f"[{a:g}, {b:g}]" for a, b in bounds]
    return pairs[0] if len(set(pairs)) == 1 else " x ".join(pairs)
