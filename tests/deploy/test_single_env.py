"""One plain environment: its row of an actor's batch, and what is written down of its episodes."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl
from metarl.agent import Actions, Outcome
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.deploy.adapting import _check_observations
from metarl.deploy.recordings import Recording
from metarl.deploy.single_env import EpisodeLog, Seat, as_recording, as_trajectories
from metarl.envs.toy.point import Point
from metarl.trajectories import Observations, Trajectories


class Noting:
    """An actor of three rows that keeps all that it reads; its action says which row it is for."""

    sequential = False

    def __init__(self) -> None:
        self.observations: list[Observations] = []
        self.outcomes: list[Outcome] = []

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        assert num_parallel == 3

    def begin_episode(self) -> None:
        pass

    def act(self, observations: Observations) -> Actions:
        self.observations.append(observations)
        rows = torch.arange(3.0).view(1, 3, 1)
        return Actions(rows.numpy(), rows, {"value": rows[..., 0]})

    def observe(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def adapt(self, trajectories: Trajectories) -> "Noting":
        return self


def test_an_environment_has_one_row_of_the_batch_and_the_others_are_empty() -> None:
    actor = Noting()
    seat = Seat(actor, spaces.Box(-5, 5, (1,)), np.zeros(1, dtype=np.uint64), row=1, num_rows=3)
    seat.begin_episode()
    assert seat.act(np.array([3.0, 4.0])).tolist() == [1.0]
    assert seat.records["value"] == 1
    seat.observe(np.array([5.0, 6.0]), 2.5, True, False, {})
    read = actor.observations[0]
    assert isinstance(read, torch.Tensor)
    assert read.tolist() == [[[0, 0], [3, 4], [0, 0]]]
    following, rewards, terminated, truncated, alive, _ = actor.outcomes[0]
    assert isinstance(following, torch.Tensor)
    assert following.tolist() == [[[0, 0], [5, 6], [0, 0]]]
    assert rewards.tolist() == [[0, 2.5, 0]]
    assert alive.tolist() == terminated.tolist() == [[False, True, False]]
    assert not truncated.any()


def test_ends_of_episodes_keep_their_kind() -> None:
    """The first episode terminates, the second is cut."""
    logs = []
    for flags in ([(False, False), (True, False)], [(False, True)]):
        steps = [torch.zeros(2)] * len(flags)
        actions = [np.zeros(1)] * len(flags)
        log = EpisodeLog(steps, [torch.zeros(1)] * len(flags), [{}] * len(flags), actions, [1.0] * len(flags))
        log.flags, log.following = flags, steps
        logs.append(log)
    recording = as_recording(logs)
    assert recording.terminated.tolist() == [False, True, False]
    assert recording.truncated.tolist() == [False, False, True]
    trajectories = as_trajectories(logs)
    assert trajectories.terminated.tolist() == [[[False, True], [False, False]]]
    assert trajectories.truncated.tolist() == [[[False, False], [True, False]]]


def test_gradient_steps_on_a_recording_follow_one_another() -> None:
    config = PrompConfig(PolicyConfig(hidden_sizes=(8,)), AdaptationConfig(inner_lr=0.5))
    agent: Any = Promp(Point().make_env(1), config, iterations=1, seed=0, device=torch.device("cpu"))
    rng, flags = np.random.default_rng(0), np.zeros(8, dtype=bool)
    steps = rng.normal(size=(9, 2))
    recording = Recording(steps[:-1], rng.uniform(-0.1, 0.1, (8, 2)), rng.normal(size=8), flags, flags, steps[1:])
    space = agent.actor().interface.action_space
    actors: list[Any] = [
        metarl.adapt_to_recording(agent, recording, space, num_steps=number).policy.actor for number in (1, 2)
    ]
    expected = actors[0].adapt(recording.trajectories(actors[0].to_outputs))
    for name, params in actors[1]._params.items():
        torch.testing.assert_close(params, expected._params[name])
        assert not torch.equal(params, actors[0]._params[name])


def test_bytes_are_pixels_and_no_other_numbers() -> None:
    pixels, numbers = spaces.Box(0, 255, (4, 4, 1), np.uint8), spaces.Box(0, 255, (4, 4, 1), np.float32)
    _check_observations(pixels, pixels)
    _check_observations(numbers, spaces.Box(-1, 1, (4, 4, 1), np.float64))  # bounds and precision may differ
    for agents, environments in ((pixels, numbers), (numbers, pixels)):
        with pytest.raises(ValueError, match=r"uint8.*adapt in an environment of the agent's own observations"):
            _check_observations(agents, environments)
