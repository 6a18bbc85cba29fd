"""PEARL: closed forms, whose gradients reach what, what is stored, and a task that it solves in seconds."""

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from metarl.agent import Outcome
from metarl.agents.pearl.actor import LatentActor
from metarl.agents.pearl.collection import Collection
from metarl.agents.pearl.context import (
    ContextConfig,
    Latent,
    RecurrentEncoder,
    SetEncoder,
    make_inference_network,
    product_of_gaussians,
)
from metarl.agents.pearl.draws import UpdateDraw
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.envs import make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.experiments.bench.reward_scale import ScaledMaker
from metarl.experiments.configuration import Experiment, experiment_benchmark, make_agent
from metarl.learning.losses import bellman_targets, critic_loss, soft_values, temperature_loss
from metarl.nets.dense import dense, has_dense
from metarl.nets.distributions import TanhGaussian
from metarl.nets.memories import Carry
from metarl.nets.networks import Mlp
from metarl.runs.seeding import TaskNoise, torch_generator
from metarl.tasks import FiniteTasks, Task
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers

CPU = torch.device("cpu")
KINDS = ("set", "recurrent")
CONFIG = PearlConfig(
    context=ContextConfig(latent_size=2, hidden_sizes=(16,)),
    hidden_sizes=(16,),
    num_initial_episodes=1,
    num_prior_episodes=2,
    num_posterior_episodes=1,
    num_extra_episodes=1,
    num_updates=3,
    update_tasks=2,
    batch_size=8,
    context_size=6,
    replay_capacity=800,
    exploration_episodes=1,
)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch_generator(seed))


def _agent(
    config: PearlConfig = CONFIG, benchmark: str = "sparse-point", num_tasks: int = 3, horizon: int = 6
) -> tuple[Pearl, list[Task], Workers]:
    made = make_benchmark(benchmark)
    tasks = made.train.sample(num_tasks, np.random.default_rng(0))
    maker = EnvMaker(made.family, horizon)
    agent = Pearl(maker(1, 1), config, tasks, iterations=1, seed=0, device=CPU)
    with torch.no_grad():  # a fresh encoder says so nearly nothing that any mistake would be near right
        network = agent.acting.encoder.network
        network.get_parameter(f"weight_{network.num_layers - 1}").mul_(100.0)
    return agent, tasks, Workers(maker, num_threads=1)


def _filled(config: PearlConfig = CONFIG, benchmark: str = "sparse-point") -> Pearl:
    """An agent with a first collection in its replay."""
    agent, tasks, workers = _agent(config, benchmark)
    with workers:
        for collection in agent.collect(workers, tasks, np.random.default_rng(0)):
            agent.store(collection)
    return agent


def test_product_of_gaussians_is_the_normalised_product_of_densities() -> None:
    mean, variance = _normal(1, 3, 1).double(), _normal(1, 3, 1, seed=1).double().exp()
    precision = variance.reciprocal()
    product = product_of_gaussians(precision.sum(1), (mean * precision).sum(1))
    grid = torch.linspace(-20, 20, 100_001, dtype=torch.float64)
    log_density = sum(Normal(m, v.sqrt()).log_prob(grid) for m, v in zip(mean[0], variance[0], strict=True))
    assert isinstance(log_density, Tensor)
    weights = torch.softmax(log_density.squeeze(), 0)
    expected = (weights * grid).sum()
    assert product.mean.item() == pytest.approx(expected.item(), abs=1e-6)
    assert product.variance.item() == pytest.approx((weights * (grid - expected).square()).sum().item(), rel=1e-6)


def test_kl_is_that_of_torch() -> None:
    latent = Latent(_normal(4, 3), _normal(4, 3, seed=1).exp())
    normal = Independent(Normal(latent.mean, latent.variance.sqrt()), 1)
    prior = Independent(Normal(torch.zeros(4, 3), torch.ones(4, 3)), 1)
    torch.testing.assert_close(latent.kl(), torch.distributions.kl_divergence(normal, prior))


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_context_gives_the_prior(kind: Any) -> None:
    config = ContextConfig(kind, latent_size=3, hidden_sizes=(8, 8))
    encoder = make_inference_network(config, 2, 1, torch_generator(0))
    prior = encoder.posterior(encoder.start(5))
    torch.testing.assert_close(prior.mean, torch.zeros(5, 3))
    torch.testing.assert_close(prior.variance, torch.ones(5, 3))
    assert prior.kl().abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_reading_step_by_step_gives_the_posterior_of_the_batch(kind: Any) -> None:
    config = ContextConfig(kind, latent_size=3, hidden_sizes=(8, 8))
    encoder = make_inference_network(config, 2, 1, torch_generator(0)).double()
    context = _normal(5, 7, 4).double()
    at_once = encoder.posterior(encoder.read(context, encoder.start(5)))
    carry = encoder.start(5)
    for step in range(7):
        carry = encoder.read(context[:, step : step + 1], carry)
    torch.testing.assert_close(encoder.posterior(carry), at_once)
    backwards = encoder.posterior(encoder.read(context.flip(1), encoder.start(5)))
    same = torch.allclose(backwards.mean, at_once.mean)
    assert same == (kind == "set")  # the order matters to a recurrent encoder alone


def test_tanh_gaussian_has_the_density_of_torch() -> None:
    mean, log_std, noise = (_normal(6, 2, seed=seed).double() for seed in range(3))
    actions, log_probs = TanhGaussian(mean, log_std).sample_with_log_prob(noise)
    squashed = TransformedDistribution(Normal(mean, log_std.exp()), [TanhTransform()])
    torch.testing.assert_close(log_probs, squashed.log_prob(actions).sum(-1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(TanhGaussian(mean, log_std).log_prob(actions), log_probs, rtol=1e-6, atol=1e-6)
    assert torch.equal(TanhGaussian(mean, log_std).sample(noise), actions)
    other = TanhGaussian(log_std, noise)
    other_squashed = TransformedDistribution(Normal(log_std, noise.exp()), [TanhTransform()])
    expected = torch.distributions.kl_divergence(squashed, other_squashed).sum(-1)
    torch.testing.assert_close(TanhGaussian(mean, log_std).kl(other), expected)
    at_bound = TanhGaussian(mean, log_std).log_prob(torch.ones(6, 2).double())
    assert torch.isfinite(at_bound).all()
    far = TanhGaussian(torch.full((1, 1), 30.0), torch.zeros(1, 1)).sample_with_log_prob(torch.zeros(1, 1))
    assert torch.isfinite(far[1]).all()  # where 1 - tanh^2 rounds to zero


def test_losses_by_hand() -> None:
    rewards, terminated, following = torch.tensor([[1.0, 2.0], [0.0, 1.0], [10.0, 10.0]])
    targets = bellman_targets(rewards, terminated, following, gamma=0.9)
    assert targets.tolist() == [10.0, 2.0]
    following[1] = torch.nan  # nothing follows an end
    assert bellman_targets(rewards, terminated, following, gamma=0.9).tolist() == [10.0, 2.0]
    values = torch.tensor([[9.0, 2.0], [10.0, 5.0]])
    assert critic_loss(values, targets).item() == (1 + 0) / 2 + (0 + 9) / 2
    assert soft_values(values, torch.tensor([-1.0, 1.0]), 0.5).tolist() == [9.5, 1.5]
    log_alpha = torch.zeros(1, requires_grad=True)
    temperature_loss(log_alpha, torch.tensor([3.0]), target_entropy=-1.0).backward()  # type: ignore[no-untyped-call]
    assert log_alpha.grad is not None
    assert log_alpha.grad.item() == -2.0  # entropy -3 is below its target -1: descending raises alpha


@pytest.mark.parametrize("rectified", [False, True])
def test_fast_dense_layers_are_dense_layers(rectified: bool) -> None:
    inputs, weight, bias = _normal(200, 5), _normal(5, 7, seed=1), _normal(7, seed=2)
    if not has_dense(inputs):
        pytest.skip("this PyTorch has no oneDNN layer")
    leaves = [x.clone().requires_grad_() for x in (inputs, weight, bias)]
    plain = [x.clone().requires_grad_() for x in (inputs, weight, bias)]
    found = dense(*leaves, rectified=rectified)
    expected = plain[0] @ plain[1] + plain[2]
    expected = expected.relu() if rectified else expected
    torch.testing.assert_close(found, expected)
    found.sin().sum().backward()  # type: ignore[no-untyped-call]
    expected.sin().sum().backward()
    for mine, other in zip(leaves, plain, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("num_members", [None, 2])
def test_rows_are_calls(num_members: int | None) -> None:
    made = torch_generator(0)
    network = Mlp(3, (16, 16), 2, activation="relu", generator=made, num_members=num_members)
    for num_rows in (5, 300):  # below and above where the fast layers take over
        inputs = _normal(num_rows, 3)
        told = inputs if num_members is None else inputs.expand(num_members, -1, -1)
        torch.testing.assert_close(network.rows(inputs), network.call(dict(network.named_parameters()), told))
    assert not network.rows(_normal(300, 3), frozen=True).requires_grad


def test_twin_critics_differ_and_stay_so() -> None:
    agent = _filled()
    critics = agent.learner.critics
    for _ in range(3):
        for p in (critics.get_parameter("weight_0"), critics.get_parameter("weight_1")):
            assert (p[0] - p[1]).abs().max() > 1e-3
        agent.step(agent.draw())


def test_the_encoder_learns_from_the_critics_and_the_kl_only() -> None:
    agent = _filled()
    draw = agent.draw()
    encoder, learner = agent.acting.encoder, agent.learner
    batch, context = agent.replay.gather(draw.places), agent.replay.gather(draw.context_places)
    rows = agent.acting.context_rows(
        context.observations, context.actions, context.context_rewards, context.next_observations
    )
    posterior = encoder.posterior(encoder.read(rows, encoder.start(len(rows))))
    told = posterior.sample(draw.latent_noise).repeat_interleave(CONFIG.batch_size, 0)
    flat = type(batch)(*(part.flatten(0, 1) for part in batch))
    weights = list(encoder.parameters())

    noise = draw.action_noise.flatten(0, 1)
    losses = learner.actor_losses(flat.observations, told, noise, regularisation=1e-3, target_entropy=-2.0)
    total = losses.actor + losses.value + losses.temperature
    trained = [*learner.policy.parameters(), *learner.value.parameters(), learner.log_temperature]
    untouched = [*weights, *learner.critics.parameters()]
    grads = torch.autograd.grad(total, [*trained, *untouched], allow_unused=True)
    assert all(grad is not None and grad.abs().max() > 0 for grad in grads[: len(trained)])
    assert all(grad is None for grad in grads[len(trained) :])

    for loss in (learner.critic_loss(flat, told, gamma=0.9, reward_scale=1.0), posterior.kl().mean()):
        grads = torch.autograd.grad(loss, weights, retain_graph=True)
        assert all(grad.abs().max() > 0 for grad in grads)


def test_an_update_moves_every_network_and_the_target_a_little() -> None:
    # Steps so long that no tolerance hides which of value and target follows the other.
    config = replace(CONFIG, learn_temperature=True, target_rate=0.4, outer_lr=1e-2)
    agent = _filled(config)
    before = {name: p.detach().clone() for name, p in agent.learner.named_parameters()}
    encoder = [p.detach().clone() for p in agent.acting.encoder.parameters()]
    agent.step(agent.draw())
    after = dict(agent.learner.named_parameters())
    assert all(not torch.equal(after[name], p) for name, p in before.items() if "target" not in name)
    assert all(not torch.equal(p, old) for p, old in zip(agent.acting.encoder.parameters(), encoder, strict=True))
    name = "weight_1"
    expected = before[f"target_value.{name}"].lerp(after[f"value.{name}"], config.target_rate)
    torch.testing.assert_close(after[f"target_value.{name}"], expected)


@torch.no_grad()
def test_the_critic_loss_of_an_update_is_its_formula_row_by_row() -> None:
    agent = _filled(replace(CONFIG, reward_scale=5.0), "point")
    learner, encoder, draw = agent.learner, agent.acting.encoder, agent.draw()
    for network in (learner.critics, learner.target_value):  # which begin with outputs of nearly zero
        network.get_parameter(f"weight_{network.num_layers - 1}").mul_(100.0)
    batch, context = agent.replay.gather(draw.places), agent.replay.gather(draw.context_places)
    rows = agent.acting.context_rows(
        context.observations, context.actions, context.context_rewards, context.next_observations
    )
    latents = encoder.posterior(encoder.read(rows, encoder.start(len(rows)))).sample(draw.latent_noise)
    assert (latents[0] - latents[1]).abs().max() > 0.1
    assert batch.rewards.abs().max() > 0.1
    encode, errors = agent.acting.observations, []
    for task, latent in enumerate(latents):
        for row in range(CONFIG.batch_size):
            state, following = (
                encode(part[task, row : row + 1])[0] for part in (batch.observations, batch.next_observations)
            )
            target = 5.0 * batch.rewards[task, row]
            if not batch.terminated[task, row]:
                target = target + CONFIG.gamma * learner.target_value.rows(torch.cat((following, latent))[None])
            values = learner.critics.rows(torch.cat((state, batch.actions[task, row], latent))[None])
            errors.append((values.flatten() - target.flatten()).square())
    expected = torch.stack(errors).mean(0).sum()
    with torch.enable_grad():
        loss = agent.step(draw)[0]
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_heavy_kl_pulls_the_posterior_to_the_prior() -> None:
    agent = _filled(replace(CONFIG, kl_coef=1e4, outer_lr=1e-2))
    draw, encoder = agent.draw(), agent.acting.encoder
    context = agent.replay.gather(draw.context_places)
    rows = agent.acting.context_rows(
        context.observations, context.actions, context.context_rewards, context.next_observations
    )

    @torch.no_grad()
    def kl() -> float:
        return float(encoder.posterior(encoder.read(rows, encoder.start(len(rows)))).kl().mean())

    before = kl()
    for _ in range(5):
        agent.step(draw)
    assert kl() < 0.95 * before


def test_the_kl_weighs_the_same_in_a_larger_meta_batch() -> None:
    """The same tasks and rows twice over leave every gradient, and so Adam's first moments, as they were."""
    moments = []
    for copies in (1, 2):
        agent = _filled()
        draw = UpdateDraw(*(torch.cat([part] * copies) for part in agent.draw()))
        agent.step(draw)
        state = agent.step.critic_optimizer.state_dict()["state"]
        moments.append([entry["exp_avg"] for entry in state.values()])
    for once, twice in zip(*moments, strict=True):
        torch.testing.assert_close(once, twice, rtol=1e-3, atol=1e-7)


def test_a_trial_is_stored_as_transitions_and_its_first_episodes_are_the_context() -> None:
    agent, tasks, workers = _agent(replace(CONFIG, learned_reward="dense_reward"))
    with workers:
        initial, later = agent.collect(workers, tasks[:2], np.random.default_rng(0))
    agent.store(initial)
    agent.store(later)
    (trial,) = later.rounds
    episodes, horizon = trial.mask.shape[1:]
    assert (episodes, later.num_context) == (4, 3)
    index = agent.tasks[trial.tasks[1]]
    places = index * CONFIG.replay_capacity + torch.arange(horizon, horizon + episodes * horizon)
    stored = agent.replay.gather(places.unsqueeze(0))
    torch.testing.assert_close(stored.observations[0], trial.observations[1].flatten(0, 1))
    torch.testing.assert_close(stored.context_rewards[0], trial.rewards[1].flatten())
    torch.testing.assert_close(stored.rewards[0], trial.infos["dense_reward"][1].flatten())
    assert not torch.equal(stored.rewards, stored.context_rewards)
    following = stored.next_observations[0].view(episodes, horizon, -1)
    torch.testing.assert_close(following[:, :-1], trial.observations[1, :, 1:])
    torch.testing.assert_close(following[:, -1], trial.last_observations[1])
    assert not stored.terminated.any()  # a time limit is not an end
    drawn = agent.replay.draw_context(torch.tensor([index]), 500, torch_generator(0))
    assert drawn.unique().tolist() == places[: 3 * horizon].tolist()


def _ended_early(whole: Trajectories) -> Trajectories:
    """The same, had the first episodes terminated after two steps and all others after three."""
    mask = torch.zeros_like(whole.mask)
    mask[:, 0, :2] = mask[:, 1:, :3] = True
    return replace(whole, mask=mask, terminated=mask & ~mask.roll(-1, 2))


def test_the_next_observation_of_an_early_end_is_the_last_one() -> None:
    agent, tasks, workers = _agent()
    with workers:
        (_, later) = agent.collect(workers, tasks[:1], np.random.default_rng(0))
    ended = _ended_early(later.rounds[0])
    agent.store(Collection([ended], 1))
    index = agent.tasks[tasks[0]]
    stored = agent.replay.gather((index * CONFIG.replay_capacity + torch.arange(11)).unsqueeze(0))
    torch.testing.assert_close(stored.next_observations[0, 0], ended.observations[0, 0, 1])
    torch.testing.assert_close(stored.next_observations[0, 1], ended.last_observations[0, 0])
    assert stored.terminated[0].tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1]
    assert agent.replay.num_transitions == 11


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_acting_uses_the_posterior_of_the_trials_own_transitions(kind: Any) -> None:
    """Two tasks, four episodes of four steps, by hand; task 1's second episode ends after two."""
    config = replace(CONFIG, context=ContextConfig(kind, latent_size=2, hidden_sizes=(16, 16)))
    agent, _, _ = _agent(config)
    actor = LatentActor(agent.acting, num_prior=1, num_context=2, deterministic=True)
    actor.begin(np.array([3, 4], np.uint64), 1)
    noise = TaskNoise(np.array([3, 4], np.uint64) ^ np.uint64(1 << 63), (2,))
    encoder, policy = agent.acting.encoder, agent.learner.policy
    read: list[list[Tensor]] = [[], []]
    for episode in range(4):
        actor.begin_episode()
        drawn = noise.next()
        posteriors = [encoder.posterior(_read(encoder, rows)) for rows in read]
        expected = [p.mean + p.variance.sqrt() * n for p, n in zip(posteriors, drawn.unbind(), strict=True)]
        latents = drawn if episode == 0 else torch.cat(expected)
        for step in range(4):
            observations, following = _normal(2, 1, 2, seed=step), _normal(2, 1, 2, seed=step + 9)
            acted = actor.act(observations).actions.squeeze(1)
            torch.testing.assert_close(acted, policy.distribution(observations.squeeze(1), latents).mode())
            rewards = torch.tensor([[float(episode)], [float(step)]])
            nothing = torch.zeros(2, 1, dtype=torch.bool)
            alive = torch.tensor([[True], [episode != 1 or step < 2]])
            actor.observe(Outcome(following, rewards, nothing, nothing, alive, {}))
            rows = agent.acting.context_rows(observations[:, 0], acted, rewards[:, 0], following[:, 0])
            for task in range(2):
                if alive[task, 0] and episode < 2:  # the third episode is not read, as the fourth shows
                    read[task].append(rows[task])


def test_varied_contexts_are_of_an_episode_or_more() -> None:
    for varied in (False, True):
        agent = _filled(replace(CONFIG, vary_context=varied, update_tasks=3, context_size=300))
        counts = [len(row.unique()) for _ in range(10) for row in agent.draw().context_places]
        if varied:  # three episodes of six steps make the context
            assert min(counts) >= 6
            assert min(counts) < 10
            assert max(counts) > 14
        else:
            assert set(counts) == {18}


def test_returns_are_those_of_prior_episodes_and_of_the_last() -> None:
    agent, tasks, workers = _agent(benchmark="point")
    with workers:
        collections = agent.collect(workers, tasks, np.random.default_rng(0))
    returns = collections[-1].rounds[0].returns()
    assert len(returns.unique()) == returns.numel() == 12
    metrics = agent.update(collections)
    assert metrics["train/return_pre"] == pytest.approx(float(returns[:, :2].mean()))  # num_prior_episodes is 2
    assert metrics["train/return_post"] == pytest.approx(float(returns[:, 3].mean()))


@torch.no_grad()
@pytest.mark.parametrize("num_context", [1, 2, None])
def test_a_context_ends_with_its_last_episode(num_context: int | None) -> None:
    """A recurrent carry counts the rows that were read."""
    context = ContextConfig("recurrent", latent_size=2, hidden_sizes=(16, 16))
    agent, tasks, workers = _agent(replace(CONFIG, context=context))
    actor = LatentActor(agent.acting, num_prior=1, num_context=num_context, deterministic=False)
    with workers:
        trials = workers.collect(actor, tasks, 4, seed=0)
    lengths = trials.mask.sum(-1)
    assert lengths.tolist() == [[6] * 4] * 3
    assert actor._carry[-1].squeeze(1).tolist() == lengths[:, :num_context].sum(1).tolist()


def test_the_policys_outputs_are_kept_small() -> None:
    learner = _agent()[0].learner
    with torch.no_grad():
        for p in learner.policy.parameters():
            p.add_(0.5)
    observations, latents, noise = _normal(5, 2), _normal(5, 2, seed=1), _normal(5, 2, seed=2)

    def loss(weight: float) -> Tensor:
        return learner.actor_losses(
            observations, latents, noise, regularisation=weight, target_entropy=None
        ).actor.detach()

    distribution = learner.policy.distribution(observations, latents)
    squares = (distribution.mean.square().mean(), distribution.log_std.square().mean())
    assert min(squares) > 0.1
    torch.testing.assert_close(loss(3.0) - loss(0.0), 3 * (squares[0] + squares[1]).detach())


def _read(encoder: SetEncoder | RecurrentEncoder, rows: list[Tensor]) -> Carry:
    """One task's carry after some context rows [in]."""
    start = encoder.start(1)
    return encoder.read(torch.stack(rows).unsqueeze(0), start) if rows else start


def test_a_posterior_is_the_product_of_its_transitions_factors() -> None:
    """Against a loop in float64: precisions add up, and means are weighted by them."""
    generator = torch_generator(3)
    encoder = SetEncoder(4, (8,), 2, generator=generator)
    with torch.no_grad():  # the last layer starts near zero: factors that differ need weights that do
        for weight in encoder.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator))
    rows = [_normal(4, seed=number) for number in range(3)]
    means, raw = encoder.network(torch.stack(rows)).double().chunk(2, -1)
    precisions = torch.nn.functional.softplus(raw).reciprocal()
    assert precisions.std(0).min() > 0.01
    joint = encoder.posterior(_read(encoder, rows))
    torch.testing.assert_close(joint.variance[0].double(), 1 / precisions.sum(0), atol=1e-5, rtol=1e-4)
    weighted = (precisions * means).sum(0) / precisions.sum(0)
    torch.testing.assert_close(joint.mean[0].double(), weighted, atol=1e-5, rtol=1e-4)


def test_the_target_value_starts_as_a_copy_of_the_value() -> None:
    learner = _agent()[0].learner
    for target, value in zip(learner.target_value.parameters(), learner.value.parameters(), strict=True):
        assert torch.equal(target, value)
        assert not target.requires_grad


def test_what_acts_is_a_function_of_seed_and_task() -> None:
    agent, tasks, workers = _agent()
    with workers:
        first = workers.collect(agent.actor(), tasks, 2, 5)
        again = workers.collect(agent.actor(), tasks, 2, 5)
        other = workers.collect(agent.actor(), tasks, 2, 6)
    assert torch.equal(first.actions, again.actions)
    assert not torch.equal(first.actions, other.actions)


def test_rewards_that_are_missing_or_not_finite_are_one_error() -> None:
    agent, tasks, workers = _agent(replace(CONFIG, learned_reward="pleasure"))
    with workers, pytest.raises(ValueError, match="no info 'pleasure'; it has: dense_reward"):
        agent.update(agent.collect(workers, tasks, np.random.default_rng(0)))
    agent, tasks, workers = _agent()
    with workers:
        collections = agent.collect(workers, tasks, np.random.default_rng(0))
    collections[0].rounds[0].rewards[1, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="a reward of task 1, "):
        agent.update(collections)


def test_training_tasks_are_fixed_by_the_seed_and_needed() -> None:
    experiment = Experiment("point", CONFIG, num_train_tasks=4)
    first, again = experiment_benchmark(experiment), experiment_benchmark(experiment)
    assert first.train.sample(4, np.random.default_rng(0)) == again.train.sample(4, np.random.default_rng(0))
    assert first.train != experiment_benchmark(replace(experiment, seed=1)).train
    assert isinstance(make_agent(experiment, first), Pearl)
    endless = replace(experiment, num_train_tasks=None)
    with pytest.raises(ValueError, match="point has infinitely many; give --num-train-tasks"):
        make_agent(endless, experiment_benchmark(endless))


def test_a_benchmark_of_finitely_many_tasks_can_be_trained_on_in_part() -> None:
    experiment = Experiment("sparse-point", CONFIG, num_train_tasks=10)
    train = experiment_benchmark(experiment).train
    assert isinstance(train, FiniteTasks)
    assert len(set(train.tasks)) == 10
    with pytest.raises(ValueError, match="sparse-point has 80 training tasks, got num_train_tasks 81"):
        experiment_benchmark(replace(experiment, num_train_tasks=81))


def test_what_pearl_cannot_do_is_one_error() -> None:
    made = make_benchmark("gridnavi")
    with pytest.raises(ValueError, match="PEARL takes bounded Box actions, got Discrete"):
        Pearl(
            made.family.make_env(1),
            CONFIG,
            made.train.sample(2, np.random.default_rng(0)),
            iterations=1,
            seed=0,
            device=CPU,
        )


def test_a_task_that_is_there_twice_has_one_replay() -> None:
    made = make_benchmark("point")
    tasks = made.train.sample(2, np.random.default_rng(0))
    agent = Pearl(made.family.make_env(1, horizon=6), CONFIG, [tasks[0], *tasks], iterations=1, seed=0, device=CPU)
    assert agent.tasks == {tasks[0]: 0, tasks[1]: 1}


def test_a_state_of_another_device_is_taken_over() -> None:
    """On CUDA Adam is capturable; its flag comes with the state."""
    agent = _filled()
    state = agent.state_dict()
    for group in state["critic_optimizer"]["param_groups"]:
        group["capturable"] = True
    agent.load_state_dict(state)
    assert not any(group["capturable"] for group in agent.step.critic_optimizer.param_groups)


def test_episodes_that_end_early_are_made_up_for() -> None:
    """A point that starts at its goal is done after a step; tasks are collected until each has its steps."""
    made = make_benchmark("point")
    tasks = [Task.of("point", goal=(0.0, 0.05)), Task.of("point", goal=(0.5, 0.5))]
    agent = Pearl(made.family.make_env(1, horizon=6), CONFIG, tasks, iterations=1, seed=0, device=CPU)
    with torch.no_grad():  # always straight up, half a step
        network = agent.learner.policy.network
        network.get_parameter("weight_1").zero_()
        network.get_parameter("bias_1").copy_(torch.tensor([0.0, 0.5493, -20.0, -20.0]))
    with Workers(EnvMaker(made.family, 6), num_threads=1) as workers:
        (_, later) = agent.collect(workers, tasks, np.random.default_rng(0))
    assert len(later.rounds) == 6
    assert [trial.tasks for trial in later.rounds[1:]] == [(tasks[0],)] * 5
    agent.store(later)
    assert agent.replay.num_transitions == 24 + 24


@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_sizes": ()},
        {"num_updates": 0},
        {"gamma": 1.5},
        {"kl_coef": -1.0},
        {"outer_lr": 0.0},
        {"vary_context": True, "context": ContextConfig("recurrent")},
    ],
)
def test_configurations_reject_nonsense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_captured_update_is_the_eager_one() -> None:
    agents = []
    for captured in (False, True):
        config = replace(CONFIG, capture_graph=captured, num_updates=10)
        made = make_benchmark("sparse-point")
        tasks = made.train.sample(3, np.random.default_rng(0))
        agent = Pearl(
            made.family.make_env(1, horizon=6), config, tasks, iterations=1, seed=0, device=torch.device("cuda")
        )
        with Workers(EnvMaker(made.family, 6)) as workers:
            agent.update(agent.collect(workers, tasks, np.random.default_rng(0)))
        agents.append(agent)
    for eager, graphed in zip(*(a.learner.parameters() for a in agents), strict=True):
        torch.testing.assert_close(eager, graphed, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "context_size", "iterations"),
    [("set", 32, 5), ("recurrent", 10, 12)],
)
@pytest.mark.slow
def test_solves_a_point_robot_with_two_goals(kind: Any, context_size: int, iterations: int) -> None:
    """Goals to the left and to the right; what is known of the goal shows in the second trajectory."""
    made = make_benchmark("point")
    goals = [Task.of("point", goal=(x, 0.0)) for x in (-0.5, 0.5)]
    config = PearlConfig(
        context=ContextConfig(kind, latent_size=2, hidden_sizes=(32, 32)),
        hidden_sizes=(64, 64),
        num_initial_episodes=10,
        num_prior_episodes=5,
        num_extra_episodes=5,
        num_updates=200,
        update_tasks=2,
        batch_size=64,
        context_size=context_size,
        gamma=0.9,
        reward_scale=5.0,
        kl_coef=0.1,
        outer_lr=3e-3,
        target_rate=0.05,
        exploration_episodes=1,
    )
    maker, rng = EnvMaker(made.family, 10), np.random.default_rng(0)
    agent = Pearl(maker(1, 1), config, goals, iterations=1, seed=0, device=CPU)
    with Workers(maker, num_threads=1) as workers:
        for _ in range(iterations):
            agent.update(agent.collect(workers, goals, rng))
        returns = adaptation_curve(agent.actor(), workers, goals, rng, num_steps=1, num_episodes=10).returns
    blind = -0.5 * 10  # staying half-way, the best that knows of no goal
    assert returns[1].mean() > blind + 0.6
    assert returns[1].mean() > returns[0].mean() + 0.5


def test_the_step_size_reaches_its_end_in_a_straight_line_and_survives_a_resume(tmp_path: Path) -> None:
    made = make_benchmark("point-uniform-start")
    tasks = made.train.sample(2, np.random.default_rng(0))
    config = replace(CONFIG, outer_lr=1e-3, final_outer_lr=1e-4)

    def make() -> Pearl:
        return Pearl(made.family.make_env(1, horizon=6), config, tasks, iterations=4, seed=0, device=CPU)

    agent, resumed, rates = make(), make(), []
    with Workers(lambda n, threads: made.family.make_env(n, horizon=6)) as workers:
        for _ in range(2):
            agent.update(agent.collect(workers, tasks, np.random.default_rng(0)))
            rates.append(agent.step.actor_optimizer.param_groups[0]["lr"])
        agent.save_data(tmp_path)
        resumed.load_state_dict(agent.state_dict())
        resumed.load_data(tmp_path)
        for _ in range(3):
            resumed.update(agent.collect(workers, tasks, np.random.default_rng(0)))
            rates.append(resumed.step.critic_optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-3, 7e-4, 4e-4, 1e-4, 1e-4])


def test_a_loss_that_is_not_finite_names_the_task_and_leaves_the_networks_as_they_were() -> None:
    agent = _filled(replace(CONFIG, update_tasks=3, batch_size=64))  # all tasks, and most of their steps
    collections = _collected_again(agent)
    agent.update(collections[-1:])
    before = copy.deepcopy(agent.learned_state())
    collections[-1].rounds[0].rewards[1] = 1e30  # finite, and its square is not
    name = re.escape(str(collections[-1].rounds[0].tasks[1]))
    with pytest.raises(FloatingPointError, match=rf"critic loss is (inf|nan) on training task \d, {name}"):
        agent.update(collections[-1:])
    after = agent.learned_state()
    for part in ("encoder", "learner"):
        assert all(torch.equal(value, after[part][key]) for key, value in before[part].items())
    assert torch.equal(before["seeds"], after["seeds"])
    assert before["updates"] == after["updates"]
    moments = zip(
        before["critic_optimizer"]["state"].values(), after["critic_optimizer"]["state"].values(), strict=True
    )
    assert all(torch.equal(old["exp_avg"], new["exp_avg"]) for old, new in moments)


def _collected_again(agent: Pearl) -> list[Collection]:
    made = make_benchmark("sparse-point")
    with Workers(EnvMaker(made.family, 6), num_threads=1) as workers:
        return agent.collect(workers, list(agent.tasks), np.random.default_rng(1))


def test_the_replay_holds_what_early_ends_can_bring() -> None:
    # Four episodes of six steps: a round may end one step short of the 24, and the next brings 24 more.
    _agent(replace(CONFIG, replay_capacity=47))
    with pytest.raises(ValueError, match="up to 47 where episodes end early, got 46"):
        _agent(replace(CONFIG, replay_capacity=46))


NORMALISED = replace(CONFIG, normalise_rewards=True)


def _trained(factor: float, config: PearlConfig = NORMALISED, updates: int = 2) -> Pearl:
    """An agent that was trained on points that pay a multiple of their rewards."""
    tasks = [Task.of("point", goal=goal) for goal in ((0.0, 0.05), (0.5, 0.5), (-0.5, 0.0))]
    maker, rng = ScaledMaker(6, factor), np.random.default_rng(0)
    agent = Pearl(maker(1, 1), config, tasks, iterations=updates, seed=0, device=CPU)
    with Workers(maker, num_threads=1) as workers:
        for _ in range(updates):
            agent.update(agent.collect(workers, tasks, rng))
    return agent


@pytest.mark.parametrize("factor", [2.0**-10, 2.0**14, 2.0**60])
def test_with_normalised_rewards_learning_does_not_depend_on_their_units(factor: float) -> None:
    # With powers of two nothing is rounded differently, so that the networks are equal to the bit.
    plain, scaled = _trained(1.0).learned_state(), _trained(factor).learned_state()
    for part in ("encoder", "learner"):
        for name, values in plain[part].items():
            assert torch.equal(values, scaled[part][name]), name


def test_without_normalised_rewards_learning_depends_on_their_units() -> None:
    plain, scaled = (_trained(factor, CONFIG).learned_state()["encoder"] for factor in (1.0, 2.0))
    assert any(not torch.equal(values, scaled[name]) for name, values in plain.items())


def test_critics_and_context_read_rewards_in_units_of_all_stored_ones() -> None:
    agent = _filled(replace(NORMALISED, learned_reward="dense_reward"))
    places = torch.cat([torch.arange(24) + index * CONFIG.replay_capacity for index in range(3)]).unsqueeze(0)
    stored = agent.replay.gather(places)
    assert agent.replay.num_transitions == 3 * (6 + 24)
    sizes = []
    for index in range(3):
        rows = (torch.arange(30) + index * CONFIG.replay_capacity).unsqueeze(0)
        sizes.append(agent.replay.gather(rows))
    dense = torch.cat([part.rewards for part in sizes]).double()
    sparse = torch.cat([part.context_rewards for part in sizes]).double()
    assert not torch.equal(dense, sparse)
    for scale, rewards in ((agent.rewards, dense), (agent.acting.rewards, sparse)):
        unit = rewards[rewards != 0].square().mean().sqrt() if (rewards != 0).any() else torch.inf
        assert float(scale.scale) == pytest.approx(1 / float(unit), rel=1e-5)
    rows = agent.acting.context_rows(
        stored.observations, stored.actions, stored.context_rewards, stored.next_observations
    )
    torch.testing.assert_close(rows[..., 4], stored.context_rewards * agent.acting.rewards.scale)


def test_the_scale_of_rewards_is_part_of_the_state() -> None:
    agent = _trained(4.0)
    other = Pearl(ScaledMaker(6, 1.0)(1, 1), NORMALISED, list(agent.tasks), iterations=1, seed=1, device=CPU)
    assert float(other.rewards.scale) == 0.0
    other.load_learned_state(agent.learned_state())
    assert float(other.rewards.scale) == float(agent.rewards.scale) > 0
    assert float(other.acting.rewards.scale) == float(agent.acting.rewards.scale)


def test_a_state_from_before_there_was_a_scale_is_taken_over() -> None:
    agent = _filled()
    state = agent.learned_state()
    del state["reward_scales"]
    agent.load_learned_state(state)
    assert float(agent.rewards.scale) == float(agent.acting.rewards.scale) == 1.0
