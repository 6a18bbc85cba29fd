"""HyperX's bonuses for exploring (Zintgraf et al. 2021, arXiv:2010.01062): what the policy earns beside rewards.

    novelty_t  = |predictor(s_{t+1}) - target(s_{t+1})|^2  of hyper-states s = (observation, belief), target fixed
    decoding_t = squared error of step t, decoded from a latent of the belief after it
    gain_t = reward_t + unit * (novelty_coef * novelty_t / its mean + decoding_coef * decoding_t / its mean)
    the predictor learns the target on the hyper-states of every batch, which are new no longer then

A hyper-state is new where either part is: a place, or what is believed there. Where the decoder errs the belief is
still untrained, as it is before any reward was met. How we differ: both coefficients fall linearly to zero over
the run; bonuses are in units of the running mean of each and of the rewards' root mean square, so that the
coefficients mean the same in every task; what is new is judged after the transition, by observations beside
images.
"""

from typing import Any

import torch
from torch import Tensor, nn

from metarl.nets.networks import Mlp

_SIZES, _OUTPUTS = (128, 128), 32
_ROWS, _UPDATES = 1024, 8  # of a batch's hyper-states, that the predictor learns at a time, and how many times
_LEARNING_RATE = 1e-3


class HyperstateNovelty:
    """Novelty of hyper-states: the error of a network that learns what a random one makes of them.

    Args:
        size: Number of features of a hyper-state.
        generator: Source of the weights and of the rows that are learned from.
        device: Device of both networks.
    """

    def __init__(self, size: int, generator: torch.Generator, device: torch.device) -> None:
        self._generator, self._device = generator, device
        self.target, self.predictor = (
            Mlp(size, _SIZES, _OUTPUTS, activation="relu", generator=generator).to(device) for _ in range(2)
        )
        self._optimizer = torch.optim.Adam(self.predictor.parameters(), lr=_LEARNING_RATE)

    def __call__(self, states: Tensor) -> Tensor:
        """Squared errors [...] of hyper-states [..., size]; differentiable in the predictor."""
        with torch.no_grad():
            aimed = self.target(states)
        errors: Tensor = (self.predictor(states) - aimed).square().sum(-1)
        return errors

    def learn(self, states: Tensor) -> None:
        """Adam steps on hyper-states [row, size]."""
        for _ in range(_UPDATES):
            rows = torch.randperm(len(states), generator=self._generator)[:_ROWS].to(self._device)
            loss = self(states[rows]).mean()
            if not bool(torch.isfinite(loss)):
                raise FloatingPointError(f"the error of HyperX's predictor is {float(loss)}; lower novelty_coef")
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Both networks, Adam's moments and the random stream."""
        return {
            "networks": nn.ModuleList((self.target, self.predictor)).state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        nn.ModuleList((self.target, self.predictor)).load_state_dict(state["networks"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
