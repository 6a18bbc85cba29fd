"""An adapted policy: it acts in one environment, an observation at a time, and can be saved and loaded."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

from metarl.agent import Actor, ActsDeterministically, Deployable, Interface, SavableActor, SavedActor
from metarl.deploy.histories import AdaptedTo
from metarl.deploy.policy_files import PolicyFile, read_policy, write_policy
from metarl.deploy.single_env import Episode, Seat, run_episode
from metarl.runs.reading import shorten
from metarl.runs.seeding import task_seeds

ActorMaker = Callable[[Interface, SavedActor], Any]
"""The `from_saved` of a kind of actor."""


class AdaptedPolicy:
    """Acts in one environment, an observation at a time; made by `adapt`, `adapt_to_recording` and `load_policy`.

    Args:
        actor: Adapted actor; it is this policy's alone from now on.
        action_space: Action space of the environment.
        seed: Seed of the actions' noise.
        deterministic: True to take the mode of its distribution instead of samples.
        card: Origin of the agent: its run, its benchmark and what it was trained for, as JSON types.
        history: Adaptations that made the policy, in their order.
    """

    def __init__(
        self,
        actor: Actor,
        action_space: spaces.Space[Any],
        seed: int,
        *,
        deterministic: bool = False,
        card: Mapping[str, Any] | None = None,
        history: Sequence[AdaptedTo] = (),
    ) -> None:
        self.actor, self.action_space, self.seed = actor, action_space, seed
        self.deterministic, self.card, self.history = deterministic, dict(card or {}), tuple(history)
        acting = actor
        if deterministic:
            if not isinstance(actor, ActsDeterministically):
                raise ValueError(f"{type(actor).__name__} cannot act deterministically; sample instead")
            acting = actor.deterministic()
        self._seat = Seat(acting, action_space, task_seeds(seed, 1), row=0, num_rows=1)
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

    def save(self, path: Path | str) -> None:
        """Write the policy, as it was when its adaptation ended, to a new file that `metarl.load_policy` reads.

        Raises:
            TypeError: if the actor is of a kind that cannot be saved; see `metarl.agent.SavableActor`.
            ValueError: if the file exists already.
            WriteError: if it cannot be written.
        """
        if not isinstance(self.actor, SavableActor) or not isinstance(self.actor, Deployable):
            raise TypeError(
                f"{type(self.actor).__name__} cannot be saved; expected an actor with saved_as, saved and "
                "from_saved, as metarl.agent.SavableActor has them"
            )
        policy = PolicyFile(
            kind=self.actor.saved_as,
            interface=self.actor.interface,
            contents=self.actor.saved(),
            action_space=self.action_space,
            seed=self.seed,
            deterministic=self.deterministic,
            card=self.card,
            history=self.history,
        )
        write_policy(Path(path), policy)


def load_saved(path: Path | str, makers: Mapping[str, ActorMaker]) -> AdaptedPolicy:
    """The policy that `AdaptedPolicy.save` wrote. Nothing in the file is executed.

    Args:
        path: File to read.
        makers: Functions that make an actor of a file's contents, by its name in files.

    Raises:
        ValueError: if it is no such file, has been tampered with, or is another kind's; one line.
    """
    path = Path(path)
    policy = read_policy(path)
    if policy.kind not in makers:
        raise ValueError(
            f"the policy {path} is of the kind {shorten(policy.kind)}, expected {', '.join(makers)}; "
            "load_policy(FILE, actor=CLASS) takes the class of an actor of your own"
        )
    try:
        actor: Any = makers[policy.kind](policy.interface, policy.contents)
        return AdaptedPolicy(
            actor,
            policy.action_space,
            policy.seed,
            deterministic=policy.deterministic,
            card=policy.card,
            history=policy.history,
        )
    except ValueError as error:
        raise ValueError(f"the policy {path}: {error}") from error
    except (MemoryError, RuntimeError, TypeError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"the policy {path} does not describe a {policy.kind} actor: {reason}") from error
