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

from metarl.agent import Actor, Agent, Deployable, Interface
from metarl.deploy.recordings import Recording
from metarl.deploy.single_env import (
    Episode,
    EpisodeLog,
    Seat,
    as_recording,
    as_trajectories,
    check_count,
    run_batch,
    run_episode,
    run_trial,
)
from metarl.runs.seeding import draw_seed, task_seeds


class AdaptedPolicy:
    """Acts in one environment, an observation at a time; made by `adapt` and `adapt_to_recording`.

    Args:
        actor: adapted; it is this policy's alone from now on.
        action_space: of the environment, for the shape and kind of actions.
        seed: of the actions' noise.
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

    def act(self, observation: np.ndarray) -> Any:
        """The action at one observation, in the environment's action space.

        Raises:
            RuntimeError: if the episode has ended, or the policy reads the outcome of its actions, as RL2 does,
                and was not told the last.
            ValueError: if the observation is not of the agent's size.
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

    def observe(
        self, observation: np.ndarray, reward: float, terminated: bool = False, truncated: bool = False
    ) -> None:
        """What followed the last action. RL2 needs it; PEARL learns on from it; gradient agents do not read it.

        Raises:
            RuntimeError: if there was no action since the last outcome.
            ValueError: if the observation is not of the agent's size.
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
            env: of the spaces that the agent was trained with.
            seed: of the reset; None goes on with the environment's random stream.
            max_episode_steps: cut the episode there; None leaves the end to the environment.
        """
        self._begun, self._waiting, self._ended = True, False, True
        return run_episode(self._seat, env, seed, max_episode_steps).summary()


@dataclass(frozen=True)
class Adaptation:
    """What adapting gave.

    Attributes:
        policy: the adapted policy.
        episodes: in their order; empty if no environment was acted in.
        recording: all their transitions, as `metarl.deploy.recordings.save_recording` writes them.
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
) -> Adaptation:
    """Let a trained agent adapt to an environment.

    An agent that learns within trials (RL2, PEARL) runs one trial of these episodes. An agent that takes gradient
    steps (MAML-TRPO, ProMP) collects the episodes and takes one step; with `num_steps` above one it takes a step
    after each equal part of them.

    Args:
        agent: trained; left as it is.
        env: left open.
        episodes: to run in all.
        num_steps: gradient steps.
        seed: of the environment's resets and the actions' noise.
        max_episode_steps: cut episodes there; None leaves the end to the environment.

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
    rng = np.random.default_rng(seed)
    logs: list[EpisodeLog] = []
    for _ in range(num_steps):
        run = run_trial if actor.sequential else run_batch
        found = run(actor, env, episodes // num_steps, draw_seed(rng), max_episode_steps)
        actor = actor.adapt(as_trajectories(found))
        logs += found
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
        agent: trained; left as it is.
        recording: of one environment.
        action_space: of the environment to act in, for the shape and kind of actions.
        num_steps: gradient steps, all on the same transitions.
        seed: of the adapted policy's noise.

    Raises:
        ValueError: if observations or actions do not fit the agent.
    """
    actor = _deployable(agent)
    check_count("num_steps", num_steps)
    if actor.sequential and num_steps > 1:
        raise ValueError(f"num_steps must be 1 for an agent that learns as it acts, got {num_steps}")
    interface = _interface(actor)
    obs_size, acted = recording.observations.shape[1], recording.actions.shape[1:]
    if obs_size != interface.obs_size:
        raise ValueError(f"the agent sees {interface.obs_size} features, the recording has {obs_size}")
    expected = () if interface.num_choices else interface.low.shape
    if acted != expected:
        raise ValueError(f"the agent's actions have shape {expected}, the recording's {acted}")
    if interface.num_choices:
        low, high = recording.actions.min(), recording.actions.max()
        if low < 0 or high >= interface.num_choices:
            raise ValueError(f"actions must be 0 to {interface.num_choices - 1}, got {low} to {high}")
        if len(fractions := np.flatnonzero(recording.actions.astype(np.float64) % 1)):
            raise ValueError(f"actions must be whole numbers, got {recording.actions[fractions[0]]}")
    _check_actions(interface, action_space)
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


def _interface(actor: Deployable) -> Interface:
    return actor.interface


def _check_fit(actor: Deployable, env: gymnasium.Env[Any, Any]) -> None:
    interface = actor.interface
    seen = env.observation_space
    if not isinstance(seen, spaces.Box):
        raise ValueError(f"the agent sees a Box of {interface.obs_size} features, the environment gives {seen}")
    if int(np.prod(seen.shape)) != interface.obs_size:
        raise ValueError(
            f"the agent sees {interface.obs_size} features, the environment gives {int(np.prod(seen.shape))}; "
            "adapt in an environment of the agent's own observations"
        )
    _check_actions(interface, env.action_space)


def _check_actions(interface: Interface, space: spaces.Space[Any]) -> None:
    if interface.num_choices:
        if not isinstance(space, spaces.Discrete) or int(space.n) != interface.num_choices or int(space.start):
            raise ValueError(f"the agent has {interface.num_choices} choices of action, the environment {space}")
        return
    if not isinstance(space, spaces.Box) or space.shape != interface.low.shape:
        raise ValueError(f"the agent's actions have shape {interface.low.shape}, the environment has {space}")
    if not (np.allclose(space.low, interface.low) and np.allclose(space.high, interface.high)):
        raise ValueError(
            f"the agent's actions are in {_listed(interface.low, interface.high)}, the environment's in "
            f"{_listed(space.low, space.high)}; gymnasium.wrappers.RescaleAction maps one to the other"
        )


def _listed(low: np.ndarray, high: np.ndarray) -> str:
    """Bounds in one line: one pair where all components have the same."""
    pairs = [f"[{a:g}, {b:g}]" for a, b in zip(low.ravel().tolist(), high.ravel().tolist(), strict=True)]
    return pairs[0] if len(set(pairs)) == 1 else " x ".join(pairs)
