"""ES-MAML: its estimates against formulas, what its perturbed policies do, and that it learns."""

import pickle
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from metarl.agents.es_maml import EsAdaptationConfig, EsMaml, EsMamlConfig, PerturbedActor
from metarl.deploy.adapting import adapt_to_recording
from metarl.deploy.recordings import Recording
from metarl.envs import make_benchmark
from metarl.evaluation import adaptation_curve
from metarl.learning.bilevel import flatten
from metarl.learning.directions import draw_directions
from metarl.nets.running import RunningMoments
from metarl.runs.seeding import streams
from metarl.tasks import Task
from metarl.workers import EnvMaker, Workers

POINT, GRID = make_benchmark("point"), make_benchmark("gridnavi")
CONFIG = EsMamlConfig(adaptation=EsAdaptationConfig(perturbation_std=0.3, num_episodes=5))
TASKS = [Task.of("point", goal=(0.3, 0.4)), Task.of("point", goal=(-0.5, 0.0)), Task.of("point", goal=(0.0, -0.4))]


def _agent(config: EsMamlConfig = CONFIG, benchmark: Any = POINT) -> EsMaml:
    return EsMaml(benchmark.family.make_env(1), config, seed=0)


def _vectors(actor: PerturbedActor, num_tasks: int) -> torch.Tensor:
    return torch.cat([p.reshape(num_tasks, -1) for p in actor._task_params(num_tasks).values()], 1)


def test_directions_are_orthogonal_normals_in_blocks() -> None:
    rng = np.random.default_rng(0)
    directions = draw_directions(rng, 7, 5, orthogonal=True).double()
    gram = directions @ directions.T
    assert (gram[:5, :5] - gram[:5, :5].diag().diag()).abs().max() < 1e-5
    assert gram[5, 6].abs() < 1e-5
    plain = draw_directions(np.random.default_rng(0), 7, 5, orthogonal=False).double()
    assert (plain @ plain.T)[0, 1].abs() > 1e-3
    torch.testing.assert_close(directions.norm(dim=1), plain.norm(dim=1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(directions[0], plain[0], atol=1e-5, rtol=1e-5)
    many = torch.cat([draw_directions(rng, 3, 4, orthogonal=True) for _ in range(4000)])
    assert (many.mean(0).abs() < 0.04).all()  # four standard errors
    assert (many.T @ many / len(many) - torch.eye(4)).abs().max() < 0.06


@pytest.mark.thorough
@pytest.mark.parametrize("orthogonal", [False, True])
def test_the_outer_estimate_is_the_gradient_of_a_linear_worth(orthogonal: bool) -> None:
    """Of v(theta) = c theta the estimate, in the differences' units, is unbiased: sigma c after many draws."""
    agent, rng, slope = _agent(), np.random.default_rng(0), torch.tensor([1.0, -2.0, 0.5])
    estimates = []
    for _ in range(2000):
        directions = draw_directions(rng, 3, 3, orthogonal=orthogonal)
        values = torch.stack((directions @ slope, -directions @ slope), 1).flatten() * 0.1 + 7.0
        gradient, size = agent.estimate(values, directions)
        estimates.append(gradient * size)
    drawn = torch.stack(estimates)
    error = drawn.std(0) / len(drawn) ** 0.5
    assert ((drawn.mean(0) - 0.1 * slope).abs() < 4 * error).all()
    # Orthogonal directions estimate it with less variance.
    assert (drawn.var(0).sum() < 0.035) == orthogonal


def test_equal_worth_gives_no_step_and_units_do_not_matter() -> None:
    agent, directions = _agent(), draw_directions(np.random.default_rng(0), 3, 4, orthogonal=True)
    nothing, size = agent.estimate(torch.full((6,), 5.0), directions)
    assert size == 0
    assert not nothing.any()
    values = torch.tensor([1.0, 3.0, -1.0, 0.0, 2.0, 2.5])
    found = [agent.estimate(values * factor, directions) for factor in (1.0, 1024.0)]
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1] == 1024 * found[0][1]


def test_a_step_along_the_inner_estimate_is_its_formula() -> None:
    config = replace(CONFIG, adaptation=replace(CONFIG.adaptation, operator="es", inner_lr=0.7, num_episodes=6))
    actor = _agent(config).actor()
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        trajectories = workers.collect(actor, TASKS, 6, seed=1)
    moved = _vectors(actor.adapt(trajectories), 3) - _vectors(actor, 3)
    seeds = trajectories.records["perturbation_seed"][:, 0, 0].tolist()
    for task, returns in enumerate(trajectories.returns().double().numpy()):
        drawn = draw_directions(np.random.default_rng(seeds[task]), 3, moved.shape[1], orthogonal=True).numpy()
        offsets = [drawn[0], -drawn[0], drawn[1], -drawn[1], drawn[2]]  # the first episode's policy is itself
        mean, std = returns[1:].mean(), returns[1:].std()
        assert std > 0
        step = sum((f - mean) / std * h for f, h in zip(returns[1:], offsets, strict=True))
        np.testing.assert_allclose(moved[task], 0.7 / 5 * step, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", ["es", "hill_climbing"])
def test_one_episode_alone_changes_nothing(operator: Literal["es", "hill_climbing"]) -> None:
    actor = _agent(replace(CONFIG, adaptation=replace(CONFIG.adaptation, operator=operator))).actor()
    with Workers(EnvMaker(POINT.family, 4), num_threads=1) as workers:
        adapted = actor.adapt(workers.collect(actor, TASKS, 1, seed=1))
    assert torch.equal(_vectors(adapted, 3), _vectors(actor, 3))


def test_hill_climbing_goes_to_the_policy_that_returned_most() -> None:
    """The adapted policy repeats, from the same seeds, the best episode of those that it was chosen from."""
    actor = _agent().actor()
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        for _ in range(2):  # from the meta-parameters, and from adapted ones
            trajectories = workers.collect(actor, TASKS, 5, seed=1)
            adapted = actor.adapt(trajectories)
            again = workers.collect(adapted.deterministic(), TASKS, 5, seed=1)
            best = trajectories.returns().argmax(1)
            assert (best > 0).any()
            for task, episode in enumerate(best.tolist()):
                torch.testing.assert_close(again.returns()[task, episode], trajectories.returns()[task, episode])
            actor = adapted
        # Where nothing beats the policy itself it stays.
        worse = replace(trajectories, rewards=trajectories.rewards.clone())
        worse.rewards[:, 1:] -= 100.0
        assert torch.equal(_vectors(actor.adapt(worse), 3), _vectors(actor, 3))


def test_the_first_episode_is_the_policys_own_and_the_others_are_opposites() -> None:
    actor, plain = _agent().actor(), _agent().actor().deterministic()
    for acting in (actor, plain):
        acting.begin(np.array([10, 20], dtype=np.uint64), 4)
    own, perturbed = (flatten(plain._acting).view(-1), actor._acting["weight_0"].view(2, 4, -1))
    assert not own.any()  # the last layer starts at zero
    assert not perturbed[:, 0].any()
    assert torch.equal(perturbed[:, 1], -perturbed[:, 2])
    assert not torch.equal(perturbed[:, 1], perturbed[:, 3])
    assert not torch.equal(perturbed[0], perturbed[1])


def test_opposite_policies_share_everything_but_their_sign() -> None:
    agent = _agent(replace(CONFIG, outer_std=1e-30, num_pairs=2))
    with Workers(EnvMaker(POINT.family, 8), num_threads=1) as workers:
        experience = agent.collect(workers, TASKS, np.random.default_rng(0))
    assert experience.directions.shape == (6, 6)
    for trajectories, episodes in zip(experience.trajectories, (5, 1), strict=True):
        returns = trajectories.returns().view(6, 2, episodes)
        assert torch.equal(returns[:, 0], returns[:, 1])
        assert not torch.equal(returns[0, 0], returns[1, 0])  # the two pairs of a task have seeds of their own


def test_a_part_of_the_tasks_gets_the_same_episodes_as_in_the_whole() -> None:
    """As a worker process collects it, which gets a pickle of the actor of its tasks."""
    actor = _agent(replace(CONFIG, hidden_sizes=(8,))).actor()
    with Workers(EnvMaker(POINT.family, 6), num_threads=1) as workers:
        for _ in range(2):
            whole = workers.collect(actor, TASKS, 5, seed=1)
            part = pickle.loads(pickle.dumps(actor.select(slice(1, 3))))
            again = workers.collect(part, TASKS[1:], 5, seed=1, places=[1, 2])
            assert torch.equal(again.rewards, whole.rewards[1:])
            assert torch.equal(_vectors(part.adapt(again), 2), _vectors(actor.adapt(whole), 3)[1:])
            actor = actor.adapt(whole)


def test_observations_are_normalised_by_all_that_was_observed() -> None:
    moments, rng = RunningMoments(2), np.random.default_rng(0)
    parts = [torch.from_numpy(rng.normal(3.0, 2.0, (count, 2))) for count in (3, 50, 7)]
    rows = torch.cat(parts)
    torch.testing.assert_close(moments(rows[:5].float()), rows[:5].float())  # nothing is known yet
    for part in parts:
        moments.update(part)
    expected = (rows - rows.mean(0)) / rows.std(0, correction=0)
    torch.testing.assert_close(moments(rows.float()), expected.float(), rtol=1e-4, atol=1e-5)


def test_a_recording_is_refused_in_one_line() -> None:
    flags = np.array([False, True])
    recording = Recording(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros(2), flags, ~flags, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="adapts to episodes of its own perturbed policies") as raised:
        adapt_to_recording(_agent(), recording, POINT.family.make_env(1).single_action_space)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (EsAdaptationConfig, {"num_episodes": 1}),
        (EsAdaptationConfig, {"perturbation_std": 0.0}),
        (EsMamlConfig, {"hidden_sizes": (0,)}),
        (EsMamlConfig, {"outer_std": -1.0}),
        (EsMamlConfig, {"num_pairs": 0}),
    ],
)
def test_configurations_reject_nonsense(kind: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kind(**wrong)


@pytest.mark.thorough
@pytest.mark.parametrize("operator", ["es", "hill_climbing"])
@pytest.mark.parametrize("benchmark", [POINT, GRID], ids=["numbers", "choices"])
def test_learns_to_adapt(benchmark: Any, operator: Literal["es", "hill_climbing"]) -> None:
    adaptation = EsAdaptationConfig(operator, inner_lr=1.0, perturbation_std=1.0)
    agent = _agent(EsMamlConfig(adaptation=adaptation, outer_lr=0.1, outer_std=0.3), benchmark)
    generators = streams(0)
    tasks = benchmark.test.sample(20, generators["test_tasks"])
    with Workers(EnvMaker(benchmark.family, 20), num_threads=1) as workers:

        def returns() -> np.ndarray:
            rng = np.random.default_rng(5)
            curve = adaptation_curve(
                agent.actor(), workers, tasks, rng, num_steps=1, num_episodes=9, deterministic=True
            )
            return curve.returns.mean((1, 2))

        untrained = returns()
        for _ in range(20):
            tasks_of_batch = benchmark.train.sample(20, generators["tasks"])
            agent.update(agent.collect(workers, tasks_of_batch, generators["workers"]))
        trained = returns()
    assert trained[1] > untrained[1] + 0.4
    assert trained[1] > trained[0] + 0.4


def test_a_saved_actor_is_perturbed_the_same_in_whatever_order_a_file_holds_its_tensors() -> None:
    actor = _agent(replace(CONFIG, hidden_sizes=(4,))).actor()
    saved = actor.saved()
    turned = saved._replace(tensors=dict(reversed(saved.tensors.items())))
    again = PerturbedActor.from_saved(actor.interface, turned)
    assert list(again._task_params(1)) != [name.removeprefix("params.") for name in turned.tensors]
    for each in (actor, again):
        each.begin(np.array([7], dtype=np.uint64), 5)
    observations = torch.ones(1, 5, 2)
    assert torch.equal(actor.act(observations).actions, again.act(observations).actions)
