"""The benchmarks' contenders compute and count the same as we do."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import numpy as np
import pytest
import torch
from torch import Tensor

from metarl.agent import Actions, Actor, Outcome
from metarl.agents.maml import (
    AdaptationConfig,
    AdaptivePolicy,
    GradientActor,
    MetaBatch,
    PolicyBatch,
    PolicyConfig,
)
from metarl.agents.maml_trpo import MamlTrpo
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import Promp
from metarl.envs.benchmarks import make_benchmark
from metarl.envs.dynamics import dynamics_family
from metarl.envs.mujoco.backends import has_batch
from metarl.experiments.bench import (
    dynamics,
    easyfsl_peer,
    fewshot,
    meta_gradient,
    metaworld,
    pearl,
    reward_scale,
    rl2,
    rollout,
)
from metarl.experiments.bench.fewshot import ConvSizes, PrototypicalSizes
from metarl.experiments.bench.meta_gradient import SinusoidSizes
from metarl.experiments.bench.pearl import PearlSizes
from metarl.experiments.bench.reward_scale import GOALS, RewardScaleSizes, ScaledMaker
from metarl.experiments.bench.rollout import ROBOTS, Replay, Robot, Sizes, make_peer, step_peer
from metarl.experiments.bench.timing import interleave, ratio, relative_difference, seconds_per_call
from metarl.experiments.bench.trust_region import LoopOverTasks, TrustRegionSizes, synthetic_experience
from metarl.experiments.commands.bench import BenchArguments
from metarl.learning.bilevel import flatten
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.networks import Mlp
from metarl.runs.seeding import torch_generator
from metarl.trajectories import Trajectories
from metarl.workers import EnvMaker, Workers

SINUSOID = SinusoidSizes(num_tasks=3, num_points=4, hidden_sizes=(8, 8), inner_lr=0.1, at_least_s=0.0)
TRUST_REGION = TrustRegionSizes(
    num_tasks=3, num_episodes=4, horizon=10, obs_size=4, act_size=2, hidden_sizes=(8, 8), fractions=(0.5,)
)
ROLLOUT = Sizes(num_tasks=2, num_episodes=3, sync_episodes=2, async_episodes=1, horizon=4)


def test_contenders_take_turns_and_another_one_is_first_in_each_round() -> None:
    order: list[str] = []

    def contender(name: str) -> Callable[[], float]:
        return lambda: float(order.append(name) or len(order))  # type: ignore[func-returns-value]

    told: list[tuple[int, int]] = []
    measured = interleave({n: contender(n) for n in "abc"}, 2, lambda done, total: told.append((done, total)))
    assert order == ["a", "b", "c", "b", "c", "a"]
    assert measured == {"a": [1.0, 6.0], "b": [2.0, 4.0], "c": [3.0, 5.0]}
    assert told == [(i, 6) for i in range(1, 7)]


def test_a_ratio_is_taken_within_rounds() -> None:
    # The machine is ten times slower in the last round; the medians' ratio would be 2 / 3.
    assert ratio([1.0, 2.0, 20.0], [2.0, 3.0, 10.0]) == {"median": 2 / 3, "low": 0.5, "high": 2.0}
    assert ratio([1.0, 2.0, 30.0], [4.0, 4.0, 40.0])["median"] == 0.5


def test_work_is_repeated_until_the_time_is_filled() -> None:
    calls: list[None] = []
    seconds_per_call(lambda: calls.append(None))
    assert len(calls) == 1
    mean = seconds_per_call(lambda: calls.append(None), at_least_s=0.01)
    assert mean < 0.01
    assert len(calls) > 2


@pytest.mark.parametrize("inner_steps", [1, 3])
@pytest.mark.parametrize("name", ["loop", "higher", "torchopt"])
def test_every_meta_gradient_is_ours(name: str, inner_steps: int) -> None:
    if name != "loop":
        pytest.importorskip(name)
    network = Mlp(1, (8, 8), 1, activation="relu", generator=torch_generator(0)).double()
    gradients = meta_gradient.sinusoid_gradients(network, SINUSOID, inner_steps)
    ours = gradients["metarl"]()
    assert ours.norm() > 0.1
    assert relative_difference(gradients[name](), ours) < 1e-12
    assert torch.equal(gradients[name](), gradients[name]())  # a second call starts from the same parameters


@pytest.mark.thorough
@pytest.mark.parametrize("inner_steps", [1, 3])
def test_the_loop_over_tasks_takes_our_trust_region_step(inner_steps: int) -> None:
    agent, experience = synthetic_experience(TRUST_REGION, inner_steps=inner_steps)
    experience = _in_float64_with_missing_steps(agent, experience)
    start = flatten(agent.learner.params()).detach()
    ours = agent.trust_region_step(experience)
    loops = LoopOverTasks(agent, experience).trust_region_step()
    assert ours.search.accepted
    assert relative_difference(ours.params - start, loops - start) < 1e-6
    assert torch.equal(flatten(agent.learner.params()), start)


def _in_float64_with_missing_steps(agent: MamlTrpo, experience: MetaBatch) -> MetaBatch:
    """The experience without some steps of the first task; the policies that "collected" it adapt on the rest."""
    agent.learner.policy.double()
    theta = agent.learner.params()
    batches: list[PolicyBatch] = []
    for batch in experience.batches:
        params = agent.learner.adapt_through(theta, batches)[-1] if batches else theta
        policy = agent.learner.policy.distribution(params, batch.observations.double())
        old = DiagonalGaussian(policy.mean.detach(), policy.log_std.detach().expand_as(policy.mean))
        actions, mask = batch.actions.double(), batch.mask.clone()
        mask[0, ::3] = False
        advantages = batch.advantages.double()
        old_log_probs = old.log_prob(actions)
        observations, credit = batch.observations.double(), batch.credit.double()
        batches.append(
            PolicyBatch(observations, actions, advantages, mask, old, old_log_probs, batch.steps, credit)
        )
    return experience._replace(batches=batches)


def test_synthetic_experience_is_as_the_adapted_policies_would_collect_it() -> None:
    agent, experience = synthetic_experience(TRUST_REGION)
    *inner, outer = experience.batches
    adapted = agent.learner.adapt_through(agent.learner.params(), inner)[-1]
    policy = agent.learner.policy.distribution(adapted, outer.observations)
    assert torch.allclose(policy.mean, outer.old.mean, atol=1e-6)
    assert outer.mask.shape == (3, 4 * 10)


def _unstable_ants() -> tuple[AdaptivePolicy, Trajectories]:
    """Ants with actions large enough for some of them to fall within the horizon."""
    benchmark = make_benchmark("ant-dir")
    env = benchmark.family.make_env(1)
    policy = PolicyConfig(init_std=2.0, output_scale=1.0)
    learner = AdaptivePolicy(env, policy, AdaptationConfig(), seed=0, device=torch.device("cpu"))
    env.close()
    tasks = benchmark.train.sample(2, np.random.default_rng(0))
    with Workers(EnvMaker(benchmark.family, 80), num_threads=1) as workers:
        return learner, workers.collect(GradientActor(learner, None), tasks, 6, seed=0)


@pytest.mark.thorough
def test_the_ceiling_simulates_the_steps_of_the_collection_and_no_others() -> None:
    learner, recorded = _unstable_ants()
    assert recorded.terminated.any()
    assert not recorded.mask.all()
    replay = Replay(make_benchmark("ant-dir"), recorded, learner, "rollout", seed=0, num_threads=2)
    for _ in range(2):
        steps, seconds = replay.run()
        assert steps == recorded.num_steps
        assert seconds > 0
        replay.check()
    replay.close()


@pytest.mark.thorough
def test_a_replay_of_other_episodes_is_noticed() -> None:
    learner, recorded = _unstable_ants()
    replay = Replay(make_benchmark("ant-dir"), recorded, learner, "rollout", seed=1, num_threads=1)
    replay.run()
    with pytest.raises(RuntimeError, match="does not end where"):
        replay.check()
    replay.close()


@pytest.mark.parametrize("robot", ROBOTS, ids=lambda robot: robot.benchmark)
def test_the_peers_observe_and_act_as_our_robots_do(robot: Robot) -> None:
    env = make_benchmark(robot.benchmark).family.make_env(1)
    peer = make_peer(robot, "sync", 1, horizon=3)
    assert peer.single_observation_space.shape == env.single_observation_space.shape
    assert peer.single_action_space == env.single_action_space
    peer.reset(seed=0)
    truncated = [bool(peer.step(peer.action_space.sample())[3][0]) for _ in range(3)]
    assert truncated == [False, False, True]
    env.close()
    peer.close()


class _CountingEnvs:
    """Two environments with episodes of three steps, reset by the step after the last (Gymnasium's default)."""

    num_envs = 2

    def __init__(self) -> None:
        self._time = 0

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        self._time = 0
        return np.zeros((2, 1)), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert actions.shape == (2, 1)
        self._time = 0 if self._time == 3 else self._time + 1
        ended = np.full(2, self._time == 3)
        return np.zeros((2, 1)), np.zeros(2), ended, np.zeros(2, dtype=np.bool_), {}


class _StillActor:
    sequential = False

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        assert (len(task_seeds), num_parallel) == (2, 1)

    def begin_episode(self) -> None:
        pass

    def observe(self, outcome: Outcome) -> None:
        pass

    def act(self, observations: Tensor) -> Actions:
        assert observations.shape == (2, 1, 1)
        return Actions(np.zeros((2, 1, 1)), torch.zeros(2, 1, 1), {})


def test_the_call_that_resets_a_peer_is_not_a_step() -> None:
    # step step end, reset, step step end: six real steps of each of two environments in seven calls.
    steps, _ = step_peer(cast(Any, _CountingEnvs()), cast(Actor, _StillActor()), num_tasks=2, num_steps=7)
    assert steps == 12


def _check_ratios(ratios: dict[str, dict[str, float]], names: set[str]) -> None:
    assert set(ratios) == names
    for found in ratios.values():
        assert 0 < found["low"] <= found["median"] <= found["high"] < math.inf


@pytest.mark.slow
def test_the_rollout_bench_runs() -> None:
    result = rollout.bench(1, ROLLOUT)
    assert set(result) == {"bench", "repeats", "machine", "robots"}
    assert set(result["robots"]) == {"half-cheetah-dir", "ant-dir"}
    for measured in result["robots"].values():
        physics = {"rollout", "batch"} if has_batch() else {"rollout"}
        assert measured["steps"] == {"metarl": 24, **dict.fromkeys(physics, 24), "sync": 16, "async": 8}
        _check_ratios(measured["metarl_over"], {*physics, "sync", "async"})
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_the_meta_gradient_bench_runs() -> None:
    pytest.importorskip("higher")
    pytest.importorskip("torchopt")
    result = meta_gradient.bench(1, SINUSOID, TRUST_REGION)
    assert set(result) == {"bench", "repeats", "machine", "sinusoid", "trust_region"}
    assert set(result["sinusoid"]) == {"1", "5"}
    for measured in result["sinusoid"].values():
        _check_ratios(measured["metarl_times_as_fast"], {"metarl", "loop", "higher", "torchopt"})
    _check_ratios(result["trust_region"]["times_as_fast_as_loop"], {"metarl", "metarl_0.5"})
    assert result["trust_region"]["steps"]["metarl"]["kl"] <= 0.01
    json.dumps(result, allow_nan=False)


@pytest.mark.slow
def test_the_rl2_bench_runs() -> None:
    pytest.importorskip("sb3_contrib")
    sizes = rl2.Sizes(num_trials=8, num_steps=10, memory_size=8, head_sizes=(4,), num_bandits=20, num_pulls=5)
    result = rl2.bench(1, sizes)
    assert set(result) == {"bench", "repeats", "machine", "update", "bandits"}
    peers = {"sb3-contrib", "sb3-contrib-shared"}
    assert set(result["update"]["transitions_per_s"]) == peers | {"metarl-gru", "metarl-lstm"}
    _check_ratios(result["update"]["metarl_gru_times_as_fast"], peers)
    _check_ratios(result["update"]["metarl_lstm_times_as_fast"], peers)
    assert result["bandits"]["steps_per_s"] > 0
    json.dumps(result, allow_nan=False)


PEARL = PearlSizes(
    benchmark="point",
    config=PearlConfig(
        context=ContextConfig(hidden_sizes=(8,)),
        hidden_sizes=(8, 8),
        update_tasks=2,
        batch_size=16,
        replay_capacity=2000,
    ),
    num_tasks=3,
    at_least_s=0.01,
)


def test_the_plain_pearl_update_is_ours() -> None:
    agent = pearl.synthetic_agent(PEARL, torch.device("cpu"))
    assert pearl.update_difference(agent, pearl.PlainUpdate(agent)) < 1e-3
    assert (
        pearl.update_difference(agent, pearl.PlainUpdate(pearl.synthetic_agent(PEARL, torch.device("cpu")))) > 0.01
    )


@pytest.mark.slow
def test_the_pearl_bench_runs() -> None:
    result = pearl.bench(1, PEARL)
    assert set(result) == {"bench", "repeats", "machine", "device", "update", "sampling"}
    assert set(result["update"]["milliseconds"]) >= {"metarl", "plain"}
    _check_ratios(result["update"]["times_as_fast_as_plain"], set(result["update"]["milliseconds"]) - {"plain"})
    assert result["sampling"]["transitions"] == 6000
    json.dumps(result, allow_nan=False)


CONVS = (
    ConvSizes(num_tasks=3, num_filters=4),
    ConvSizes(num_tasks=2, num_filters=4, num_queries=2, downsampling="pool"),
)
PROTOTYPICAL = PrototypicalSizes(
    num_classes=6,
    num_examples=4,
    num_queries=2,
    num_filters=4,
    train_episodes=1,
    evaluation_episodes=4,
    peer_episodes=2,
)


@pytest.mark.parametrize("sizes", CONVS)
def test_the_loop_over_tasks_computes_our_gradient_of_a_convolutional_network(sizes: ConvSizes) -> None:
    gradients = fewshot.conv_gradients(sizes, torch.float64)
    assert relative_difference(gradients["loop"](), gradients["metarl"]()) < 1e-9


def test_the_prototypical_bench_measures_us_and_easyfsl() -> None:
    pytest.importorskip("easyfsl")
    result = fewshot.measure_prototypical(PROTOTYPICAL, 1, lambda done, total: None)
    expected = {
        f"{kind}: easyfsl, images from {p}"
        for kind in ("train", "evaluate", "sample")
        for p in ("memory", "files")
    }
    _check_ratios(result["metarl_over"], expected)
    _check_ratios(result["metarl_in_bfloat16_over"], {name for name in expected if name.startswith("train")})


def test_easyfsls_tasks_are_as_asked() -> None:
    pytest.importorskip("easyfsl")
    data, files = fewshot.drawn_classes(PROTOTYPICAL)
    for contents in (None, files):
        images = easyfsl_peer.Images(data, contents)
        support, labels, query, query_labels = next(
            easyfsl_peer.tasks(images, num_ways=5, num_shots=1, num_queries=2)
        )
        assert support.shape == (5, 1, 28, 28)
        assert query.shape == (10, 1, 28, 28)
        assert labels.bincount().tolist() == [1] * 5
        assert query_labels.bincount().tolist() == [2] * 5
    assert torch.equal(easyfsl_peer.Images(data)[7][0], easyfsl_peer.Images(data, files)[7][0])


@pytest.mark.slow
def test_the_fewshot_bench_runs() -> None:
    pytest.importorskip("higher")
    pytest.importorskip("torchopt")
    result = fewshot.bench(1, SINUSOID, CONVS, PROTOTYPICAL)
    assert set(result) == {"bench", "repeats", "machine", "sinusoid", "conv4", "conv4_pooled", "prototypical"}
    for measured in result["sinusoid"].values():
        _check_ratios(measured["metarl_times_as_fast"], {"metarl", "loop", "higher", "torchopt"})
    json.dumps(result, allow_nan=False)


@pytest.mark.thorough
def test_the_physics_of_metaworld_ends_where_the_episodes_did() -> None:
    tasks = make_benchmark("ml1-push").train.sample(2, np.random.default_rng(0))
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2, 4)).astype(np.float32)
    physics = metaworld.Physics(tasks, actions)
    for _ in range(2):
        assert physics.run() > 0
        physics.check()
    physics._episodes[1].last_qpos = physics._episodes[1].last_qpos + 1e-9
    with pytest.raises(RuntimeError, match="does not end where the episode did"):
        physics.check()
    physics.close()


@pytest.mark.slow
def test_the_metaworld_bench_runs() -> None:
    sizes = metaworld.Sizes(num_envs=(2, 4), num_steps=5, benchmarks=("reach", "ml10"))
    result = metaworld.bench(1, sizes)
    assert set(result) == {"bench", "repeats", "machine", "environments"}
    assert set(result["environments"]) == {"reach, 2", "reach, 4", "ml10, 2", "ml10, 4"}
    assert {"batch", "package step", "async", "physics"} <= set(result["environments"]["reach, 2"]["steps_per_s"])
    for measured in result["environments"].values():
        assert min(measured["steps_per_s"].values()) > 0


def test_dynamics_contenders_differ_in_their_models_alone() -> None:
    sizes = dynamics.DynamicsSizes(num_envs=6, num_steps=2, num_tasks=3, num_episodes=2)
    envs = dynamics.make_contenders(dynamics_family(dynamics.BENCHMARK), sizes)
    models = {name: {id(env.physics.model_of(row)) for row in range(6)} for name, env in envs.items()}
    counts = {"plain": 1, "one": 1, "batch": 3, "copies": 6, "different": 6}
    assert {name: len(of) for name, of in models.items()} == counts
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, (20, 6, 6))
    states = {}
    for name, env in envs.items():
        env.reset(seed=0)
        for action in actions:
            env.advance(action)
        states[name] = env.physics.states.copy()
    np.testing.assert_array_equal(states["one"], states["plain"])
    np.testing.assert_array_equal(states["copies"], states["plain"])
    assert not np.isclose(states["different"], states["plain"]).all(1).any()
    np.testing.assert_array_equal(states["batch"][0], states["different"][0])


def test_the_dynamics_bench_reports_what_it_measured() -> None:
    sizes = dynamics.DynamicsSizes(num_envs=4, num_steps=2, num_tasks=2, num_episodes=2)
    result = dynamics.bench(1, sizes)
    assert json.loads(json.dumps(result)) == result
    assert result["models"]["batch"] == 2
    assert all(speed > 0.0 for speed in result["steps_per_cpu_s"].values())
    one = result["steps_per_cpu_s"]["one"]
    for name, found in result["over_one"].items():
        assert found["median"] == pytest.approx(result["steps_per_cpu_s"][name] / one)


def test_every_bench_is_offered_by_its_name() -> None:
    folder = Path(rollout.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if "\ndef bench(" in path.read_text()}
    assert {"rollout", "reward_scale"} <= modules
    offered = get_args(get_type_hints(BenchArguments)["name"])
    assert {name.replace("-", "_") for name in offered} == modules


SCALES = RewardScaleSizes(
    factors=(0.5, 1.0), horizon=4, copies=1, rl2=1, promp=1, maml_trpo=1, pearl=1, pearl_steps=2
)


def test_a_scaled_environment_pays_the_multiple_and_is_the_same_else() -> None:
    envs = [ScaledMaker(4, factor)(2, 1) for factor in (1.0, 100.0)]
    for env in envs:
        env.set_tasks(GOALS)
        env.reset(seed=[1, 2])
    actions = np.array([[0.1, 0.0], [0.1, 0.0]], np.float32)
    for rows in (None, np.array([1])):
        plain, scaled = (env.advance(actions if rows is None else actions[rows], rows) for env in envs)
        assert plain.rewards.all()
        np.testing.assert_allclose(scaled.rewards, 100 * plain.rewards)
        np.testing.assert_array_equal(scaled.observations, plain.observations)


@pytest.mark.thorough
def test_the_reward_scale_bench_measures_every_algorithm_in_unscaled_units() -> None:
    result = reward_scale.bench(1, SCALES)
    json.dumps(result)
    assert (result["blind"], result["best"]) == (-2.0, pytest.approx(-1.0))  # 0.4 + 0.3 + 0.2 + 0.1
    assert len(result["runs"]) == 5
    for name, by_factor in result["runs"].items():
        half, one = (by_factor[factor][0] for factor in ("0.5", "1"))
        assert half["return_after"] == pytest.approx(one["return_after"], rel=0.5), name
        if name != "pearl":  # learning is the same to the bit
            for key in ("return_before", "return_after"):
                assert half[key] == pytest.approx(one[key], rel=1e-6), name


def test_a_run_that_diverges_is_reported_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(agent: Promp, experience: Any) -> dict[str, float]:
        raise FloatingPointError("the outer loss is nan")

    monkeypatch.setattr(Promp, "update", diverge)
    run = reward_scale.measure(reward_scale.contenders(SCALES)["promp"], 4, 1.0, 0)
    assert (run["return_after"], run["error"]) == (None, "the outer loss is nan")
