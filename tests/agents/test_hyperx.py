"""HyperX's bonuses: against loops, in the units of rewards, annealed to nothing, resumed to the bit."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from metarl.agents.trials.context import CONTEXT
from metarl.agents.varibad import Varibad
from metarl.agents.varibad.elbo import Decoder, Target, decoding_errors
from metarl.learning.trials import as_steps, as_trials
from metarl.runs.seeding import torch_generator
from tests.agents.test_varibad import _agent, _collect


def _explorer(**changes: Any) -> Varibad:
    return _agent(**{"novelty_coef": 0.5, "decoding_coef": 0.25} | changes)


def test_every_step_is_decoded_from_its_own_latent() -> None:
    generator = torch_generator(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    latents, decoders = draw(5, 3, 2), [Decoder(2, 4, (6,), outputs, generator).double() for outputs in (1, 2)]
    sizes = zip(decoders, (1, 2), (1.0, 0.3), strict=True)
    targets = [Target(decoder, draw(5, 3, 4), draw(5, 3, size), weight) for decoder, size, weight in sizes]
    errors = decoding_errors(latents, targets).detach()
    for t in range(5):
        for trial in range(3):
            by_hand = 0.0
            for decoder, inputs, numbers, weight in targets:
                hidden = decoder.of_latent(latents[t, trial]) + decoder.of_step(inputs[t, trial])
                by_hand += weight * float(
                    (decoder.rest(hidden.relu()) - numbers[t, trial]).detach().square().sum()
                )
            assert float(errors[t, trial]) == pytest.approx(by_hand, rel=1e-12)


def test_gains_are_rewards_and_bonuses_in_their_units() -> None:
    agent = _explorer()
    experience = _collect(agent)
    agent.update(experience)  # after which rewards have units
    experience = _collect(agent, seed=4)
    before = copy.deepcopy(agent.state_dict())
    gains = agent.gains(experience)
    agent.load_state_dict(before)
    steps, mask = as_steps(experience)
    raw = agent.bonuses(steps)
    share, unit, expected = 1 - 1 / 4, 1 / float(agent.policy.reward_scale), torch.zeros(mask.shape)
    for name, coef in (("novelty", 0.5), ("decoding", 0.25)):
        usual = agent._usual[name]
        count, total = usual.count, usual.count * usual.mean
        mean = (total + float(raw[name][mask].double().sum())) / (count + int(mask.sum()))
        assert (raw[name][mask] > 0).all()
        expected += share * coef * unit * raw[name] / mean
    added = gains - experience.rewards
    for task in range(len(experience.tasks)):
        joined = added[task][experience.mask[task]]
        assert torch.allclose(joined, expected[: len(joined), task], rtol=1e-4)
    assert not added[~experience.mask].any()


def test_bonuses_are_gone_at_the_end_of_the_run_and_never_observed() -> None:
    agent = _explorer()
    agent.updates = agent.iterations
    experience = _collect(agent)
    assert torch.equal(agent.gains(experience), experience.rewards)
    agent.updates = 0
    assert not torch.equal(agent.gains(experience), experience.rewards)
    assert torch.equal(agent.batch(experience).trials.rewards, agent.batch(_collect(agent)).trials.rewards)


def test_novelty_is_that_of_the_observation_and_the_belief_after_the_step() -> None:
    agent = _explorer()
    agent.update(_collect(agent))
    experience = _collect(agent, seed=4)
    steps, mask = as_steps(experience)
    acted_on = as_trials(experience).records[CONTEXT]  # beliefs at every step: those after the step before
    novelty = agent.bonuses(steps)["novelty"]
    assert agent._novelty is not None
    for t in range(len(mask) - 1):
        real = mask[t + 1]
        state = torch.cat((agent.policy.fixed_features(steps.next_observations[t]), acted_on[t + 1]), -1)
        torch.testing.assert_close(novelty[t][real], agent._novelty(state)[real].detach())


@pytest.mark.parametrize("first", [True, False])
def test_bonuses_are_for_what_was_new_before_the_update(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = _explorer(beliefs_first=first)
    agent.update(_collect(agent))
    experience, before = _collect(agent, seed=4), copy.deepcopy(agent.state_dict())
    expected = agent.gains(experience)
    assert not torch.equal(expected, experience.rewards)
    agent.load_state_dict(before)
    read: list[Tensor] = []
    gains = agent.gains
    monkeypatch.setattr(agent, "gains", lambda of: read.append(gains(of)) or read[-1])
    agent.update(experience)
    assert len(read) == 1 + first  # PPO reads what was made first
    assert torch.equal(read[-1], expected)


def test_an_update_makes_its_own_steps_less_new() -> None:
    agent = _explorer(belief_lr=1e-9)  # beliefs stay as they are
    agent.update(_collect(agent))
    steps, mask = as_steps(experience := _collect(agent, seed=4))
    before = agent.bonuses(steps)["novelty"][mask].mean()
    agent._learn_beliefs(experience)
    assert agent.bonuses(steps)["novelty"][mask].mean() < 0.9 * before


def test_what_was_visited_is_less_new() -> None:
    agent = _explorer()
    experience = _collect(agent)
    steps, mask = as_steps(experience)
    first = agent.bonuses(steps)["novelty"][mask].mean()
    assert agent._novelty is not None
    states = agent._hyperstates(steps, agent._beliefs_after(steps))
    for _ in range(20):
        agent._novelty.learn(states[mask])
    assert float(agent._novelty(states)[mask].mean().detach()) < 0.5 * float(first)
    assert float(agent._novelty(states + 3.0)[mask].mean().detach()) > float(first)


def test_an_explorer_resumes_to_the_bit_and_an_older_checkpoint_without_bonuses_is_read() -> None:
    agent, resumed = _explorer(), _explorer()
    agent.update(_collect(agent))
    resumed.load_state_dict(copy.deepcopy(agent.state_dict()))
    experience = _collect(agent, seed=5)
    assert agent.update(experience) == resumed.update(experience)
    states = [dict(each.policy.named_parameters()) for each in (agent, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    plain = _agent()
    old = {name: part for name, part in _agent().state_dict().items() if name not in ("novelty", "usual_bonuses")}
    plain.load_state_dict(old)
