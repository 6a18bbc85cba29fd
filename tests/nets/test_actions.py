"""Action maps: what the policy puts out becomes an action of the space, and comes back."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from metarl.nets.actions import action_map

SPACES = [
    spaces.Discrete(3),
    spaces.Discrete(3, start=-5),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [2, 3]]),
    spaces.MultiBinary(4),
    spaces.MultiBinary((2, 2)),
    spaces.Box(-1.0, 3.0, (2,)),
    spaces.Box(np.array([[0.0, -1, -2], [0, 5, 6]]), np.array([[1.0, 1, 2], [0, 7, 9]]), dtype=np.float64),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_actions_are_in_the_space_and_come_back(space: spaces.Space) -> None:
    actions = action_map(space, "RL2")
    outputs = torch.randn(5, 2, actions.num_outputs, generator=torch.Generator().manual_seed(0))
    log_std = torch.zeros(actions.num_outputs) if actions.noise == "normal" else None
    distribution = actions.distribution(outputs, log_std)
    assert isinstance(distribution, actions.kind)
    noise = torch.rand(5, 2, *actions.shape) if actions.noise == "uniform" else torch.randn(5, 2, *actions.shape)
    drawn = distribution.sample(noise)
    assert drawn.shape == (5, 2, *actions.shape)
    assert actions.encode(drawn).shape == (5, 2, actions.encoded_size)
    env_actions = actions.to_env(drawn)
    assert env_actions.shape == (5, 2, *(space.shape or ()))
    assert all(
        space.contains(action.astype(space.dtype)) for action in env_actions.reshape(10, *(space.shape or ()))
    )
    again = actions.from_env(env_actions)
    wide = np.ravel(space.high > space.low) if isinstance(space, spaces.Box) else slice(None)
    inside = drawn.clamp(-1, 1) if actions.noise == "normal" else drawn
    np.testing.assert_allclose(again.numpy()[..., wide], inside.numpy()[..., wide], atol=1e-6)


def test_the_first_choice_is_the_spaces() -> None:
    assert action_map(spaces.Discrete(3, start=1), "RL2").to_env(torch.tensor([0, 2])).tolist() == [1, 3]


def test_the_scale_is_applied_before_the_bounds() -> None:
    actions = action_map(spaces.Box(-2.0, 4.0, (1,)), "ProMP", scale=0.1)
    outputs: Tensor = torch.tensor([[1.0], [100.0], [-10.0]])
    np.testing.assert_allclose(actions.to_env(outputs), [[1.3], [4.0], [-2.0]], rtol=1e-6)
    np.testing.assert_allclose(actions.encode(outputs), [[0.1], [1.0], [-1.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), r"finite bounds, got Box\(-inf, inf, \(2,\), float32\)"),
        (spaces.Box(0, 5, (2,), np.int64), r"must be floats, got Box\(0, 5, .*; use MultiDiscrete"),
        (spaces.Dict(a=spaces.Discrete(2)), r"RL2 takes Discrete, .* got Dict\(a: Discrete\(2\)\)"),
        (spaces.Text(3), "RL2 takes Discrete, .* got Text"),
    ],
)
def test_what_no_policy_can_do_is_one_line(space: spaces.Space, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        action_map(space, "RL2")
    assert "\n" not in str(raised.value)
