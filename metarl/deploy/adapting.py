"""Adapting a trained agent to one environment that somebody holds: a robot's driver, another simulator, a wrapper.

    agent   = load_agent("runs/half-cheetah-vel-rl2")           metarl.experiments.loading
    adapted = adapt(agent, env, episodes=2)
    action  = adapted.policy.act(observation)

The environment is any plain `gymnasium.Env`. The agent acts through the same `Actor` as in training, with the same
noise for the same seed, so that the result equals what `metarl.workers.Workers` would have collected. Episodes
that an agent runs in parallel when it has many environments follow one another here, each as its row of the batch.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.agent import Actor, ActsDeterministically, Agent, Deployable, Interface
from metarl.deploy.recordings import Recording
from metarl.deploy.single_env import (
    Episode,
    EpisodeLog,
    Seat,
    as_recording,
    as_trajectories,
    check_count,
    described,
    run_batch,
    run_episode,
    run_trial,
)
from metarl.observations import PartSpace, describe, space_parts
from metarl.runs.seeding import draw_seed, task_seeds


class AdaptedPolicy:
    """Acts in one environment, an observation at a time; made by `adapt` and `adapt_to_recording`.

    Args:
        actor: Adapted actor; it is this policy's alone from now on.
        action_space: Action space of the environment.
        seed: Seed of the actions' noise.
    """

    def __init__(self, actor: Actor, action_space: spaces.Space[Any], seed: int) -> None:
        self.actor = actor
        self._seat = Seat(actor, action_space, task_seeds(seed, 1), row=0, num_rows=1)
        self._needs_outcome = isinstance(actor, Deployable) and actor.reads_outcomes
        self._begun = self._waiting = self._ended = False

    def begin_episode(self) -> None:
        """The environment has been reset; what was learned is kept."""
        self._seat.begin_episode()
        self._begun, self._waiting, self._ended = True, False, False

    def act(self, observation: Any) -> Any:
        """The action at one observation, in the environment's action space.

        Raises:
            RuntimeError: if the episode has ended, or the policy reads the outcome of its actions, as RL2 does,
                and did not observe the last.
            ValueError: if the observation does not have the agent's shapes.
            FloatingPointError: if it is not finite.
        """
        if not self._begun:
            self.begin_episode()
        if self._ended:
            raise RuntimeError("the episode has ended: reset the environment and call begin_episode")
        if self._waiting and self._needs_outcome:
            raise RuntimeError(
                "this policy reads rewards while it acts: after every step call "
                "observe(observation, reward, terminated, truncated), after a reset begin_episode"
            )
        action = self._seat.act(observation)
        self._waiting = True
        return action

    def observe(self, observation: Any, reward: float, terminated: bool = False, truncated: bool = False) -> None:
        """Read the outcome of the last action. RL2 needs it, PEARL learns from it, gradient agents do not.

        Raises:
            RuntimeError: if there was no action since the last outcome.
            ValueError: if the observation does not have the agent's shapes.
            FloatingPointError: if it or the reward is not finite.
        """
        if not self._waiting:
            raise RuntimeError("observe tells what followed an action: call act before it")
        self._seat.observe(observation, reward, terminated, truncated, {})
        self._waiting, self._ended = False, bool(terminated or truncated)

    def run_episode(
        self, env: gymnasium.Env[Any, Any], *, seed: int | None = None, max_episode_steps: int | None = None
    ) -> Episode:
        """One whole episode, read as it goes.

        Args:
            env: Environment with the spaces that the agent was trained with.
            seed: Seed of the reset; None goes on with the environment's random stream.
            max_episode_steps: Number of steps after which the episode is cut; None leaves the end to the
                environment.
        """
        self._begun, self._waiting, self._ended = True, False, True
        return run_episode(self._seat, env, seed, max_episode_steps).summary()


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


def adapt(
    agent: Agent[Any],
    env: gymnasium.Env[Any, Any],
    *,
    episodes: int,
    num_steps: int = 1,
    seed: int = 0,
    max_episode_steps: int | None = None,
    deterministic: bool = False,
) -> Adaptation:
    """Let a trained agent adapt to an environment.

    An agent that learns within trials (RL2, PEARL) runs one trial of these episodes. An agent that takes gradient
    steps (MAML-TRPO, ProMP) collects the episodes and takes one step; with `num_steps` above one it takes a step
    after each equal part of them.

    Args:
        agent: Trained agent; left as it is.
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
    actor = _deployable(agent)
    check_count("episodes", episodes)
    check_count("num_steps", num_steps)
    if episodes % num_steps:
        raise ValueError(f"episodes must be a multiple of num_steps, got {episodes} and {num_steps}")
    if actor.sequential and num_steps > 1:
        raise ValueError(f"num_steps must be 1 for an agent that learns as it acts, got {num_steps}")
    _check_fit(actor, env)
    if deterministic and not isinstance(actor, ActsDeterministically):
        raise ValueError(f"{type(actor).__name__} cannot act deterministically; sample instead")
    if deterministic and actor.sequential:
        actor = actor.deterministic()
    rng = np.random.default_rng(seed)
    logs: list[EpisodeLog] = []
    for _ in range(num_steps):
        run = run_trial if actor.sequential else run_batch
        runs = run(actor, env, episodes // num_steps, draw_seed(rng), max_episode_steps)
        actor = actor.adapt(as_trajectories(runs))
        logs += runs
    if deterministic:
        actor = actor.deterministic()
    policy = AdaptedPolicy(actor, env.action_space, draw_seed(rng))
    return Adaptation(policy, tuple(log.summary() for log in logs), as_recording(logs))


def adapt_to_recording(
    agent: Agent[Any], recording: Recording, action_space: spaces.Space[Any], *, num_steps: int = 1, seed: int = 0
) -> Adaptation:
    """Let a trained agent adapt to transitions that were recorded, without acting.

    RL2 reads them as the beginning of its trial, PEARL as its context. MAML-TRPO and ProMP take gradient steps on
    them: plain policy gradients at the present policy, which take the recorded actions as its own. Of actions that
    another policy chose that is biased: it makes those more likely which came out better than the others.

    Args:
        agent: Trained agent; left as it is.
        recording: Transitions of one environment.
        action_space: Action space of the environment to act in.
        num_steps: Number of gradient steps, all on the same transitions.
        seed: Seed of the adapted policy's noise.

    Raises:
        ValueError: if observations or actions do not fit the agent.
    """
    actor = _deployable(agent)
    check_count("num_steps", num_steps)
    if actor.sequential and num_steps > 1:
        raise ValueError(f"num_steps must be 1 for an agent that learns as it acts, got {num_steps}")
    _check_recording(actor.interface, recording)
    _check_actions(actor.interface.action_space, action_space)
    trajectories = recording.trajectories(actor.to_outputs)
    for _ in range(num_steps):
        actor = actor.adapt(trajectories)
    return Adaptation(AdaptedPolicy(actor, action_space, seed), (), recording)


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
