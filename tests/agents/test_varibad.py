"""VariBAD: the bound against loops and closed forms, what each loss trains, and what beliefs are made of."""

import copy
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from metarl.agents.trials.actor import TrialActor
from metarl.agents.trials.context import CONTEXT
from metarl.agents.varibad import BeliefPolicyConfig, Decoder, Varibad, VaribadConfig, elbo
from metarl.agents.varibad.elbo import Axes, Target, kl_to_previous
from metarl.agents.varibad.store import TrialStore
from metarl.envs import make_benchmark
from metarl.learning import failures
from metarl.learning.trials import TrialSteps, as_steps, as_trials
from metarl.nets.distributions import DiagonalGaussian
from metarl.runs.seeding import torch_generator
from metarl.tasks import Task
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers
from tests.environments import anything

CPU = torch.device("cpu")
ENDS_EARLY = anything(spaces.Box(-1.0, 1.0, (3,)), spaces.Box(-0.1, 0.1, (2,)))
"""Episodes of one to four steps, whose lengths are random."""
TASKS = [Task.of("anything", number=float(i % 2)) for i in range(4)]
LENGTHS = (5, 3)
"""Steps of two trials, of which one has padding."""


def _agent(policy: BeliefPolicyConfig | None = None, **changes: Any) -> Varibad:
    policy = policy or BeliefPolicyConfig(
        latent_size=2, memory_size=8, decoder_sizes=(8,), decodes_observations=True, normalise_observations=True
    )
    config = VaribadConfig(policy=policy, **{"num_episodes": 3, "belief_updates": 2, "belief_trials": 3} | changes)
    return Varibad(ENDS_EARLY.make_env(1, num_threads=1), config, iterations=5, seed=0, device=CPU)


def _collect(agent: Varibad, seed: int = 3) -> Trajectories:
    with Workers(EnvMaker(ENDS_EARLY), num_threads=1) as workers:
        experience = workers.collect(agent.actor(), TASKS, agent.config.num_episodes, seed)
    lengths = experience.mask.sum(-1)
    assert len(set(lengths[:, 0].tolist())) > 1  # the premise: some rows wait, some trials are shorter
    assert len(set(lengths.sum(1).tolist())) > 1
    return experience


def _parts() -> tuple[DiagonalGaussian, Tensor, list[Target], Tensor]:
    """Random posteriors, noise, two targets and the mask of two trials, in float64."""
    generator = torch_generator(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    decoders = [Decoder(2, 3, (4, 5), outputs, generator).double() for outputs in (1, 2)]
    targets = [
        Target(decoder, draw(5, 2, 3), draw(5, 2, outputs), weight)
        for decoder, outputs, weight in zip(decoders, (1, 2), (1.0, 0.3), strict=True)
    ]
    mask = torch.arange(5).unsqueeze(1) < torch.tensor(LENGTHS)
    return DiagonalGaussian(draw(6, 2, 2), 0.3 * draw(6, 2, 2)), draw(6, 2, 2), targets, mask


def _all(time: int) -> Axes:
    return Axes(torch.arange(time + 1), torch.arange(time))


def _decoded(decoder: Decoder, latent: Tensor, inputs: Tensor) -> Tensor:
    """One prediction by plain layers on one latent and one step."""
    first = decoder.of_latent(latent) + decoder.of_step(inputs)
    return decoder.rest(first.clamp(min=0))  # type: ignore[no-any-return]


@torch.no_grad()
def test_the_bound_is_that_of_a_loop_over_posteriors_and_steps() -> None:
    posteriors, noise, targets, mask = _parts()
    terms = elbo(posteriors, noise, targets, mask, _all(5))
    for trial, length in enumerate(LENGTHS):
        errors, kl = 0.0, 0.0
        for t in range(length + 1):
            mean, std = posteriors.mean[t, trial], posteriors.log_std[t, trial].exp()
            latent = mean + std * noise[t, trial]
            for s in range(length):
                for target in targets:
                    difference = (
                        _decoded(target.decoder, latent, target.inputs[s, trial]) - target.numbers[s, trial]
                    )
                    errors += target.weight * float(difference.square().sum())
            if t > 0:
                before = posteriors.mean[t - 1, trial], posteriors.log_std[t - 1, trial].exp()
                kl += float(kl_divergence(Independent(Normal(mean, std), 1), Independent(Normal(*before), 1)))
        assert float(terms.errors[trial]) == pytest.approx(errors, rel=1e-12)
        assert float(terms.kl[trial]) == pytest.approx(kl, rel=1e-12)


@torch.no_grad()
def test_subsets_of_posteriors_and_steps_give_the_bound_on_average() -> None:
    posteriors, noise, targets, mask = _parts()
    whole = elbo(posteriors, noise, targets, mask, _all(5))
    parts = []
    for posterior in torch.arange(6).split(2):
        for step in range(5):
            axes = Axes(posterior, torch.tensor([step]))
            parts.append(elbo(posteriors, noise[posterior], targets, mask, axes))
            assert torch.equal(parts[-1].kl, whole.kl)
    torch.testing.assert_close(torch.stack([part.errors for part in parts]).mean(0), whole.errors)


def test_subsets_are_drawn_evenly_and_without_replacement() -> None:
    generator, counts = torch_generator(0), torch.zeros(6)
    for _ in range(600):
        axes = Axes.draw(5, 2, None, generator)
        counts[axes.posteriors] += 1
        assert len(set(axes.posteriors.tolist())) == 2
        assert axes.steps.tolist() == [0, 1, 2, 3, 4]
    assert counts.min() > 150  # of 200 in expectation, standard deviation 11.5
    assert Axes.draw(5, 9, 9, generator).posteriors.tolist() == [0, 1, 2, 3, 4, 5]


def test_the_divergence_to_the_previous_posterior_is_torchs() -> None:
    posteriors = _parts()[0]
    made = [Independent(Normal(m, s.exp()), 1) for m, s in zip(*posteriors, strict=True)]
    expected = torch.stack([kl_divergence(after, before) for before, after in pairwise(made)])
    torch.testing.assert_close(kl_to_previous(posteriors), expected)


def test_each_loss_trains_its_own_parameters() -> None:
    agent = _agent()
    policy = agent.policy
    experience = _collect(agent)
    reinforced, believing = policy.reinforced(), policy.believing()
    assert {id(p) for p in reinforced}.isdisjoint(id(p) for p in believing)
    assert len(reinforced) + len(believing) == len(list(policy.parameters()))
    before = [p.clone() for p in believing]
    agent.step(agent.batch(experience), experience.tasks)
    assert all(p.grad is None for p in believing)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in reinforced)
    assert all(torch.equal(a, b) for a, b in zip(before, believing, strict=True))
    policy.see(as_trials(experience))
    before = [p.clone() for p in reinforced]
    for p in reinforced:
        p.grad = None
    steps, mask = as_steps(experience)
    agent.belief_step(steps, mask, list(experience.tasks))
    assert all(p.grad is None for p in reinforced)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in believing)
    assert all(torch.equal(a, b) for a, b in zip(before, reinforced, strict=True))


def test_beliefs_while_acting_are_the_posteriors_of_the_bound() -> None:
    agent = _agent()
    agent.policy.see(as_trials(_collect(agent)))  # a fresh policy observes no reward
    assert float(agent.policy.reward_scale) > 0
    experience = _collect(agent, seed=4)
    trials, (steps, mask) = as_trials(experience), as_steps(experience)
    with torch.no_grad():
        posteriors = agent.policy.posteriors(steps)
    beliefs = torch.cat((posteriors.mean, 2 * posteriors.log_std), -1)
    acted = trials.records[CONTEXT]
    assert acted[0].abs().sum() == 0  # the prior, exactly
    assert acted[1:][mask[1:]].abs().min() > 0
    torch.testing.assert_close(acted[mask], beliefs[:-1][mask], rtol=1e-4, atol=1e-5)
    # An actor that has read the same trials goes on from the last posterior of each.
    read = TrialActor(agent.policy).adapt(experience)
    assert read._read is not None
    last = beliefs[mask.sum(0), torch.arange(len(TASKS))]
    torch.testing.assert_close(read._read[-1], last, rtol=1e-4, atol=1e-5)


def test_ppo_reads_the_beliefs_that_actions_were_chosen_on() -> None:
    agent = _agent()
    trials = as_trials(_collect(agent))
    distribution, values = agent.policy.decisions(agent.policy.trial_inputs(trials), trials.observations, ())[0]
    mask = trials.mask
    torch.testing.assert_close(distribution.log_prob(trials.actions)[mask], trials.records["log_prob"][mask])
    torch.testing.assert_close(values[mask], trials.records["value"][mask])


def test_the_step_that_ends_an_episode_is_read_with_the_observation_that_ended_it() -> None:
    experience = _collect(_agent())
    steps, mask = as_steps(experience)
    ends = steps.terminated | steps.truncated
    lasts = steps.next_observations.transpose(0, 1)[(ends & mask).T]  # task by task, one episode after the other
    torch.testing.assert_close(lasts, experience.last_observations.flatten(0, 1))
    trial, starts = steps.observations[:, 0], ends[:-1, 0] & mask[1:, 0]
    going = ~ends[:-1, 0] & mask[1:, 0]
    assert starts.any()
    assert going.any()
    torch.testing.assert_close(steps.next_observations[:-1, 0][going], trial[1:][going])
    assert not torch.isclose(steps.next_observations[:-1, 0][starts], trial[1:][starts]).all()


@pytest.mark.parametrize("replay", [0, 3, 6, 20])
def test_a_bound_that_is_not_finite_names_the_task_and_leaves_the_agent_as_it_was(replay: int) -> None:
    agent = _agent(belief_trials=8, belief_replay=replay)
    agent.update(_collect(agent))
    experience = _collect(agent, seed=4)
    trials = copy.deepcopy(agent.state_dict()["trials"])
    before = {name: value.clone() for name, value in agent.policy.state_dict().items()}
    noise, moments = (
        agent._latent_noise.get_state(),
        agent.belief_optimizer.state_dict()["state"][0]["exp_avg"].clone(),
    )
    last = experience.last_observations.clone()
    last[1, 0, 0] = math.inf  # read by the encoder and by no part of PPO
    experience = Trajectories(**vars(experience) | {"last_observations": last})
    agent.policy._normalises = False  # normalised observations are bounded
    with pytest.raises(FloatingPointError, match=r"VariBAD's lower bound is -?(inf|nan) on Task.*number.*1.0"):
        agent.update(experience)
    for name, value in agent.policy.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(agent._latent_noise.get_state(), noise)
    assert torch.equal(agent.belief_optimizer.state_dict()["state"][0]["exp_avg"], moments)
    assert agent.updates == 1
    if replay:
        after = agent.state_dict()["trials"]
        assert (after["num_added"], after["tasks"]) == (trials["num_added"], trials["tasks"])
        assert trials["num_added"] == 4  # with room for 3 or 6 some would be overwritten
        assert torch.equal(after["mask"], trials["mask"])
        for stored, part in zip(after["steps"].values(), trials["steps"].values(), strict=True):
            assert torch.equal(stored[after["mask"]], part[trials["mask"]])


def test_an_update_copies_no_stored_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, copied = _agent(belief_replay=8, belief_trials=8), []
    experience = _collect(agent)
    monkeypatch.setattr(failures.copy, "deepcopy", lambda state: copied.append(state) or state)
    agent.update(experience)
    (state,) = (copy for copy in copied if isinstance(copy, dict) and "belief_optimizer" in copy)
    assert "trials" not in state


def test_the_store_gives_back_the_latest_trials() -> None:
    store, agent = TrialStore(6, longest=12), _agent()
    known: list[tuple[TrialSteps, int, str]] = []
    for seed in (3, 4):
        steps, mask = as_steps(_collect(agent, seed))
        store.add(steps, mask, [f"{seed} {place}" for place in range(4)])
        known += [(steps, place, f"{seed} {place}") for place in range(4)]
    assert store.num_added == 8
    latest = {name: (steps, place) for steps, place, name in known[2:]}
    drawn, mask, names = store.draw(99, torch_generator(0))
    assert sorted(names) == sorted(latest)
    assert len(mask) == mask.sum(0).max()  # no row is padding of all trials
    for column, name in enumerate(names):
        steps, place = latest[name]
        length = int(mask[:, column].sum())
        assert mask[:length, column].all()
        for part, original in zip(drawn, steps, strict=True):
            assert isinstance(part, Tensor)
            assert isinstance(original, Tensor)
            assert torch.equal(part[:length, column], original[:length, place])
    few, _, some = store.draw(2, torch_generator(1))
    assert few.rewards.shape[1] == len(set(some)) == 2
    other = TrialStore(6, longest=12)
    other.load_state_dict(store.state_dict())
    again = other.draw(99, torch_generator(0))
    assert torch.equal(again[0].rewards, drawn.rewards)
    assert again[2] == names
    with pytest.raises(ValueError, match="must have 5 trials of 12 steps, got 6 trials of 12 steps"):
        TrialStore(5, longest=12).load_state_dict(store.state_dict())
    small = TrialStore(3, longest=12)
    steps, mask = as_steps(_collect(agent))
    small.add(steps, mask, list("abcd"))  # more than there is room for
    drawn, _, names = small.draw(9, torch_generator(0))
    assert sorted(names) == list("bcd")
    sums = (steps.rewards * mask).sum(0).tolist()
    assert dict(zip(names, drawn.rewards.sum(0).tolist(), strict=True)) == pytest.approx(
        dict(zip("bcd", sums[1:], strict=True))
    )
    assert len(mask) > 2
    small.add(steps.map(lambda part: part[:2]), mask[:2], list("efgh"))  # shorter than those that they overwrite
    assert len(small.draw(9, torch_generator(0))[1]) == 2


def test_beliefs_learn_from_earlier_trials_too(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, first, second = _agent(belief_replay=8, belief_trials=8), *(_collect(_agent(), seed) for seed in (3, 4))
    agent.update(first)
    other = _agent(belief_replay=8, belief_trials=8)
    other.load_state_dict(copy.deepcopy(agent.state_dict()))
    assert agent.update(second) == other.update(second)  # a run that resumes has the trials too
    sums: list[float] = []
    monkeypatch.setattr(
        agent,
        "belief_step",
        lambda steps, mask, tasks: sums.append(float((steps.rewards * mask).sum())) or torch.zeros(2),
    )
    agent.update(second)  # the store holds 8: the second's trials twice, the first's no more
    expected = [2 * float(second.rewards[second.mask].sum())] * 2
    assert sums == pytest.approx(expected)
    assert float(first.rewards[first.mask].sum()) != pytest.approx(expected[0] / 2)


@pytest.mark.parametrize("first", [True, False])
def test_ppo_reads_the_beliefs_of_the_next_actions_if_they_are_learned_first(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, experiences = _agent(beliefs_first=first), []
    batch = agent.batch
    monkeypatch.setattr(agent, "batch", lambda experience: experiences.append(experience) or batch(experience))
    monkeypatch.setattr(agent.policy, "see", lambda trials: None)  # new units would change beliefs too
    experience = _collect(agent)
    acted = experience.records[CONTEXT][experience.mask]

    def beliefs(of: Trajectories) -> Tensor:
        return of.records[CONTEXT][experience.mask]

    torch.testing.assert_close(beliefs(agent._believed_anew(experience)), acted)
    agent.update(experience)
    (read,) = experiences
    now = beliefs(agent._believed_anew(experience))
    assert not torch.allclose(now, acted)  # the encoder has learned something
    assert torch.allclose(beliefs(read), now) == first


@pytest.mark.thorough
def test_the_step_size_of_the_belief_is_annealed() -> None:
    agent, rates = _agent(belief_lr=1e-2, final_belief_lr=2e-3), []
    for seed in range(6):
        agent.update(_collect(agent, seed=3 + seed % 2))
        rates.append(agent.belief_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2, 8e-3, 6e-3, 4e-3, 2e-3, 2e-3])  # of a run of five iterations


def test_sizes_are_checked() -> None:
    with pytest.raises(ValueError, match="decoder_sizes must be 1 to 1000 sizes, got 0"):
        BeliefPolicyConfig(decoder_sizes=())
    with pytest.raises(ValueError, match="kl_coef must be zero or more"):
        VaribadConfig(kl_coef=-1.0)
    image = anything(spaces.Box(0, 255, (7, 7, 3), np.uint8), spaces.Discrete(2))
    policy = BeliefPolicyConfig(decodes_observations=True)
    with pytest.raises(ValueError, match="decodes_observations needs observations beside images"):
        Varibad(
            image.make_env(1, num_threads=1),
            VaribadConfig(policy),
            iterations=1,
            seed=0,
            device=torch.device("cpu"),
        )


@pytest.mark.thorough
def test_varibad_learns_which_arm_pays_within_seconds() -> None:
    family = make_benchmark("bernoulli-bandit-k2").family
    tasks = [Task.of(family.name, probabilities=p) for p in ((0.0, 1.0), (1.0, 0.0))]
    policy = BeliefPolicyConfig(latent_size=2, memory_size=16, decoder_sizes=(16,), head_sizes=(16,))
    config = VaribadConfig(policy, num_episodes=4, outer_lr=1e-2, epochs=2, belief_lr=1e-2, belief_updates=4)
    agent = Varibad(family.make_env(1), config, iterations=30, seed=0, device=CPU)
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(family, None)) as workers:
        for _ in range(30):
            metrics = agent.update(agent.collect(workers, tasks * 20, rng))
        trained = workers.collect(agent.actor(), tasks * 100, 4, seed=7)
    assert trained.returns().sum(1).mean() > 3.3  # 3.5 at best, 2 blind
    assert metrics["belief/kl"] > 0.3  # of the ln 2 nats that tell the tasks apart
