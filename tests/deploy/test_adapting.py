"""Adapting to a plain gymnasium.Env equals adapting on the batched engine; what does not fit is one line."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import metarl
from metarl.agent import Agent
from metarl.agents.es_maml import EsAdaptationConfig, EsMaml, EsMamlConfig
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.recordings import Recording
from metarl.envs.mujoco.families import HalfCheetahVel, RunForward
from metarl.envs.mujoco.robots import HOPPER
from metarl.envs.toy.bandits import BernoulliBandit
from metarl.envs.toy.point import Point
from metarl.envs.vector import TaskVectorEnv
from metarl.experiments.cli import main
from metarl.experiments.loading import load_agent
from metarl.experiments.presets.table import preset
from metarl.runs.checkpoint import load_checkpoint
from metarl.runs.seeding import draw_seed, episode_seeds
from metarl.tasks import Task, TaskFamily
from metarl.workers import EnvMaker, Workers

CPU = torch.device("cpu")
HORIZON = 25
CHEETAH, CHEETAH_TASK = HalfCheetahVel(), Task.of("half-cheetah-vel", velocity=1.5)
HOP, HOP_TASK = RunForward(HOPPER), Task.of("hopper-forward")
_POLICY = PolicyConfig(hidden_sizes=(16, 16), output_scale=0.5)
_ADAPTATION = AdaptationConfig(num_episodes=4, gae_lambda=0.9)


class OneRow(gymnasium.Env[np.ndarray, Any]):
    """A batched engine of one row as somebody's plain environment."""

    def __init__(self, family: TaskFamily, task: Task, horizon: int = HORIZON) -> None:
        env = family.make_env(1, horizon=horizon, num_threads=1)
        assert isinstance(env, TaskVectorEnv)
        self._env = env
        env.set_tasks([task])
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return self._env.reset(seed=None if seed is None else [seed])[0][0], {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        after = self._env.advance(np.asarray(action)[None])
        infos = {name: values[0] for name, values in after.infos.items()}
        return (
            after.observations[0],
            float(after.rewards[0]),
            bool(after.terminated[0]),
            bool(after.truncated[0]),
            infos,
        )


def _agent(kind: str, family: TaskFamily, task: Task) -> Agent[Any]:
    env = family.make_env(1, horizon=HORIZON, num_threads=1)
    if kind == "promp":
        return Promp(env, PrompConfig(_POLICY, _ADAPTATION), iterations=1, seed=3, device=CPU)
    if kind == "es-maml":
        return EsMaml(env, EsMamlConfig(adaptation=EsAdaptationConfig(num_episodes=4)), seed=3)
    if kind == "maml-trpo":
        return MamlTrpo(env, MamlTrpoConfig(_POLICY, _ADAPTATION), seed=3, device=CPU)
    if kind.startswith("pearl"):
        context = ContextConfig("recurrent" if "recurrent" in kind else "set", hidden_sizes=(8, 8))
        config = PearlConfig(context=context, hidden_sizes=(16, 16), exploration_episodes=1)
        agent = Pearl(env, config, [task], iterations=1, seed=3, device=CPU)
        generator = torch.Generator().manual_seed(1)
        for parameter in agent.acting.parameters():  # untrained, it says and does the same whatever it sees
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        return agent
    policy = TrialPolicyConfig(memory=kind, memory_size=16, normalise_observations=True)  # type: ignore[arg-type]
    return Rl2(env, Rl2Config(policy=policy), iterations=1, seed=3, device=CPU)


KINDS = ("promp", "maml-trpo", "pearl", "pearl-recurrent", "gru", "lstm", "splagger", "transformer", "none")


@pytest.mark.parametrize(
    ("kind", "family", "task"),
    [pytest.param(kind, HOP, HOP_TASK, id=f"hopper-{kind}") for kind in (*KINDS, "es-maml")]
    + [pytest.param(kind, CHEETAH, CHEETAH_TASK, id=f"cheetah-{kind}") for kind in ("promp", "pearl", "gru")],
)
def test_a_plain_environment_gives_what_the_engine_gives(kind: str, family: TaskFamily, task: Task) -> None:
    """Same seeds, same episodes, same adapted policy; hopper's episodes end early, at different times."""
    agent = _agent(kind, family, task)
    adapted = metarl.adapt(agent, OneRow(family, task), episodes=4, seed=1)
    rng = np.random.default_rng(1)
    with Workers(EnvMaker(family, HORIZON), num_threads=1) as workers:
        expected = workers.collect(agent.actor(), [task], 4, draw_seed(rng))
        actor, seed = agent.actor().adapt(expected), draw_seed(rng)
        after = workers.collect(actor, [task], 1, seed)
    lengths = expected.mask.sum(-1)[0].tolist()
    assert (len(set(lengths)) > 1 and min(lengths) < HORIZON) == (family is HOP)
    np.testing.assert_allclose(adapted.returns, expected.returns()[0], rtol=1e-4, atol=1e-4)
    assert [episode.num_steps for episode in adapted.episodes] == lengths
    mask = expected.mask.numpy()
    np.testing.assert_allclose(adapted.recording.observations, expected.observations.numpy()[mask], atol=1e-4)
    first = int(episode_seeds(seed, 1, 1)[0, 0])
    policy = AdaptedPolicy(actor, adapted.policy._seat._space, seed)
    episode = policy.run_episode(OneRow(family, task), seed=first)
    np.testing.assert_allclose(episode.env_return, float(after.returns()), rtol=1e-4, atol=1e-4)
    again = adapted.policy.run_episode(OneRow(family, task), seed=first)
    np.testing.assert_allclose(again.env_return, float(after.returns()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["pearl", "pearl-recurrent", "gru", "lstm", "splagger", "transformer"])
def test_what_was_read_from_trajectories_is_what_was_learned_while_acting(kind: str) -> None:
    agent = _agent(kind, HOP, HOP_TASK)
    live: Any = agent.actor()
    with Workers(EnvMaker(HOP, HORIZON), num_threads=1) as workers:
        trials = workers.collect(live, [HOP_TASK] * 3, 3, seed=5)
    assert not trials.mask.all()
    read: Any = agent.actor().adapt(trials)
    read.begin(np.arange(3, dtype=np.uint64), 1)
    if kind == "transformer":  # what is beyond the steps read is room, and not the same
        steps = live._carry[1]
        assert torch.equal(read._carry[1], steps)
        for row, count in enumerate(steps.tolist()):
            torch.testing.assert_close(read._carry[0][row, :count], live._carry[0][row, :count])
    else:
        for found, expected in zip(read._carry, live._carry, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    part = read.select(slice(1, 2))
    part.begin(np.zeros(1, dtype=np.uint64), 1)
    assert torch.equal(part._carry[0], read._carry[0][1:2])


def test_two_gradient_steps_each_use_their_part_of_the_episodes() -> None:
    agent = _agent("promp", CHEETAH, CHEETAH_TASK)
    adapted = metarl.adapt(agent, OneRow(CHEETAH, CHEETAH_TASK), episodes=6, num_steps=2, seed=1)
    rng, actor = np.random.default_rng(1), agent.actor()
    returns: list[float] = []
    with Workers(EnvMaker(CHEETAH, HORIZON), num_threads=1) as workers:
        for _ in range(2):
            found = workers.collect(actor, [CHEETAH_TASK], 3, draw_seed(rng))
            returns += found.returns()[0].tolist()
            actor = actor.adapt(found)
    np.testing.assert_allclose(adapted.returns, returns, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_teaches_what_acting_taught(kind: str, tmp_path: Path) -> None:
    agent, env = _agent(kind, HOP, HOP_TASK), OneRow(HOP, HOP_TASK)
    adapted = metarl.adapt(agent, env, episodes=3, seed=2)
    path = tmp_path / "log.npz"
    metarl.save_recording(path, adapted.recording)
    read = metarl.adapt_to_recording(agent, metarl.load_recording(path), env.action_space, seed=4)
    acted: Any = AdaptedPolicy(adapted.policy.actor, env.action_space, 4)
    observation, _ = env.reset(seed=9)
    first, second = acted.act(observation), read.policy.act(observation)
    # The engine's actions were clipped to the bounds, where the policy's outputs were not.
    tolerance = 0.05 if kind in ("promp", "maml-trpo") else 1e-4
    np.testing.assert_allclose(second, first, atol=tolerance)
    assert not read.episodes


def test_a_recording_without_distributions_gives_the_policy_gradient() -> None:
    """REINFORCE at the present policy, by autograd on one dimension at a time."""
    agent: Any = _agent("promp", CHEETAH, CHEETAH_TASK)
    rng = np.random.default_rng(0)
    steps, flags = 20, np.zeros(20, dtype=bool)
    ends = flags.copy()
    ends[[9, 19]] = True
    observations = rng.normal(size=(steps, 17))
    actions = rng.uniform(-0.9, 0.9, (steps, 6))
    recording = Recording(observations, actions, rng.normal(size=steps), flags, ends, observations)
    adapted: Any = metarl.adapt_to_recording(
        agent, recording, CHEETAH.make_env(1, num_threads=1).single_action_space
    )
    learner = agent.learner
    trajectories = recording.trajectories(learner.actions.from_env)
    advantages = learner.batch(trajectories).advantages
    params = {name: p.detach().clone().requires_grad_() for name, p in learner.params().items()}
    outputs = torch.from_numpy((actions / 0.5).astype(np.float32)).view(1, 20, 6)
    log_probs = learner.policy.distribution(params, trajectories.observations.flatten(1, 2)).log_prob(outputs)
    loss = -(log_probs * advantages).mean()
    gradients = torch.autograd.grad(loss, list(params.values()))
    for (name, p), gradient in zip(params.items(), gradients, strict=True):
        expected = p - learner.config.inner_lr * gradient
        torch.testing.assert_close(adapted.policy.actor._params[name][0], expected, rtol=1e-4, atol=1e-6)


def test_discrete_actions_are_choices() -> None:
    family, task = BernoulliBandit(5), Task.of("bernoulli-bandit-k5", probabilities=(0.1, 0.2, 0.3, 0.4, 0.9))
    agent = Rl2(family.make_env(1), Rl2Config(num_episodes=10), iterations=1, seed=0, device=CPU)
    adapted = metarl.adapt(agent, OneRow(family, task, family.horizon), episodes=10)
    assert set(adapted.recording.actions.tolist()) <= set(range(5))
    with Workers(EnvMaker(family, None), num_threads=1) as workers:
        expected = workers.collect(agent.actor(), [task], 10, draw_seed(np.random.default_rng(0)))
    assert adapted.returns == expected.returns()[0].tolist()
    read = metarl.adapt_to_recording(agent, adapted.recording, spaces.Discrete(5))
    assert read.policy.act(np.zeros(family.make_env(1).single_observation_space.shape or ())) in range(5)
    wrong = Recording(**{**vars(adapted.recording), "actions": adapted.recording.actions + 5})
    with pytest.raises(ValueError, match=r"actions must be in Discrete\(5\), got \d at step 0"):
        metarl.adapt_to_recording(agent, wrong, spaces.Discrete(5))
    halves = Recording(**{**vars(adapted.recording), "actions": np.full(len(adapted.recording.actions), 0.7)})
    with pytest.raises(ValueError, match=r"actions must be whole numbers, got 0.7"):
        metarl.adapt_to_recording(agent, halves, spaces.Discrete(5))


def test_success_and_times_are_reported() -> None:
    class Succeeds(OneRow):
        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            *rest, infos = super().step(action)
            return (*rest, infos | {"is_success": rest[0][0] > 0})  # type: ignore[return-value]

    agent = _agent("none", CHEETAH, CHEETAH_TASK)
    adapted = metarl.adapt(agent, Succeeds(CHEETAH, CHEETAH_TASK), episodes=2)
    assert [episode.success for episode in adapted.episodes] == [
        bool((adapted.recording.next_observations[k * HORIZON : (k + 1) * HORIZON, 0] > 0).any()) for k in range(2)
    ]
    plain = metarl.adapt(agent, OneRow(CHEETAH, CHEETAH_TASK), episodes=1).episodes[0]
    assert plain.success is None
    assert len(plain.act_s) == len(plain.env_s) == HORIZON
    assert plain.act_s.min() > 0


def test_episodes_can_be_cut() -> None:
    agent = _agent("gru", CHEETAH, CHEETAH_TASK)
    adapted = metarl.adapt(agent, OneRow(CHEETAH, CHEETAH_TASK), episodes=2, max_episode_steps=5)
    assert [episode.num_steps for episode in adapted.episodes] == [5, 5]
    assert np.flatnonzero(adapted.recording.truncated).tolist() == [4, 9]


def test_a_policy_that_reads_rewards_says_so() -> None:
    env = OneRow(CHEETAH, CHEETAH_TASK)
    policy = metarl.adapt(_agent("gru", CHEETAH, CHEETAH_TASK), env, episodes=1).policy
    observation, _ = env.reset(seed=0)
    action = policy.act(observation)
    assert action.shape == (6,)
    assert action.dtype == np.float32
    with pytest.raises(RuntimeError, match="reads rewards while it acts: after every step call"):
        policy.act(observation)
    policy.observe(observation, 1.0)
    policy.act(observation)
    memoryless = metarl.adapt(_agent("none", CHEETAH, CHEETAH_TASK), env, episodes=1).policy
    for _ in range(3):
        memoryless.act(observation)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_is_told_what_it_can_use(kind: str) -> None:
    env = OneRow(CHEETAH, CHEETAH_TASK)
    policy = metarl.adapt(_agent(kind, CHEETAH, CHEETAH_TASK), env, episodes=1).policy
    observation, _ = env.reset(seed=0)
    with pytest.raises(RuntimeError, match="call act before it"):
        policy.observe(observation, 1.0)
    with pytest.raises(
        ValueError, match=r"reads observations of shape \(17,\), the observation has shape \(16,\)"
    ):
        policy.act(observation[:16])
    with pytest.raises(FloatingPointError, match="observation is not finite after step 0"):
        policy.act(np.full(17, np.nan))
    for following, reward, message in (
        (observation[:3], 1.0, r"has shape \(3,\)"),
        (observation, np.nan, "reward is not finite"),
        (observation * np.inf, 1.0, "observation is not finite"),
    ):
        policy.begin_episode()
        policy.act(observation)
        with pytest.raises((ValueError, FloatingPointError), match=message):
            policy.observe(following, reward)


@pytest.mark.parametrize("kind", ["promp", "gru", "pearl"])
@pytest.mark.parametrize("end", ["terminated", "truncated", "run_episode"])
def test_after_an_episodes_end_the_next_one_must_begin(kind: str, end: str) -> None:
    env = OneRow(CHEETAH, CHEETAH_TASK)
    policy = metarl.adapt(_agent(kind, CHEETAH, CHEETAH_TASK), env, episodes=1).policy
    observation, _ = env.reset(seed=0)
    if end == "run_episode":
        policy.run_episode(env, seed=0)
    else:
        policy.act(observation)
        policy.observe(observation, 1.0, **{end: True})
    with pytest.raises(RuntimeError, match="episode has ended: reset the environment and call begin_episode"):
        policy.act(observation)
    policy.begin_episode()
    policy.act(observation)


@pytest.mark.parametrize(
    ("observation_space", "action_space", "message"),
    [
        (
            spaces.Box(-1, 1, (16,)),
            spaces.Box(-1, 1, (6,)),
            r"reads observations of Box\(-inf, inf, \(17,\), float64\), the environment gives Box\(-1, 1, \(16,\)",
        ),
        (
            spaces.Discrete(4),
            spaces.Box(-1, 1, (6,)),
            r"reads observations of Box\(.*, the environment gives Discrete",
        ),
        (spaces.Box(-1, 1, (17,)), spaces.Box(-1, 1, (5,)), r"actions have shape \(6,\)"),
        (spaces.Box(-1, 1, (17,)), spaces.Discrete(3), r"actions have shape \(6,\), the environment has Discrete"),
        (spaces.Box(-1, 1, (17,)), spaces.Box(-2, 2, (6,)), r"in \[-1, 1\], the environment's in \[-2, 2\]"),
    ],
)
@pytest.mark.parametrize("kind", ["promp", "pearl", "gru"])
def test_spaces_that_do_not_fit_are_one_line(
    kind: str, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], message: str
) -> None:
    env = OneRow(CHEETAH, CHEETAH_TASK)
    env.observation_space, env.action_space = observation_space, action_space  # type: ignore[assignment]
    with pytest.raises(ValueError, match=message) as raised:
        metarl.adapt(_agent(kind, CHEETAH, CHEETAH_TASK), env, episodes=1)
    assert "\n" not in str(raised.value)


def test_wrong_numbers_are_one_line() -> None:
    env = OneRow(CHEETAH, CHEETAH_TASK)
    with pytest.raises(ValueError, match="multiple of num_steps, got 3 and 2"):
        metarl.adapt(_agent("promp", CHEETAH, CHEETAH_TASK), env, episodes=3, num_steps=2)
    agent = _agent("promp", CHEETAH, CHEETAH_TASK)
    for wrong, message in (
        ({"episodes": 0}, "episodes must be a whole number of at least 1, got 0"),
        ({"episodes": 2.0}, "episodes must be a whole number of at least 1, got 2.0"),
        ({"episodes": 1, "num_steps": 0}, "num_steps must be a whole number of at least 1, got 0"),
        ({"episodes": 1, "max_episode_steps": 0}, "max_episode_steps must be a whole number of at least 1, got 0"),
        (
            {"episodes": 1, "max_episode_steps": -1},
            "max_episode_steps must be a whole number of at least 1, got -1",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            metarl.adapt(agent, env, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be 1 for an agent that learns as it acts, got 2"):
        metarl.adapt(_agent("gru", CHEETAH, CHEETAH_TASK), env, episodes=2, num_steps=2)
    with pytest.raises(TypeError, match=r"expected an agent, got str; .*load_agent"):
        metarl.adapt("runs/mine", env, episodes=2)  # type: ignore[arg-type]


def test_what_is_not_finite_is_said() -> None:
    class Breaks(OneRow):
        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
            observation, _, *rest = super().step(action)
            return (observation, float("nan"), *rest)  # type: ignore[return-value]

    with pytest.raises(FloatingPointError, match="not finite after step 1"):
        metarl.adapt(_agent("gru", CHEETAH, CHEETAH_TASK), Breaks(CHEETAH, CHEETAH_TASK), episodes=1)


def test_a_run_folder_gives_its_trained_agent(tmp_path: Path) -> None:
    tiny = ["--horizon", "6", "--training.iterations", "1", "--training.meta-batch-size", "2"]
    tiny += ["--agent.adaptation.num-episodes", "2", "--agent.policy.hidden-sizes", "8", "--num-threads", "1"]
    tiny += ["--evaluation.num-tasks", "2", "--evaluation.num-steps", "1", "--evaluation.num-episodes", "2"]
    assert main(["train", "point-promp", "--out", str(tmp_path / "run"), *tiny]) == 0
    agent: Any = load_agent(tmp_path / "run")
    untrained = preset("point-promp")
    assert agent.config.adaptation.inner_lr == untrained.agent.adaptation.inner_lr  # type: ignore[union-attr]
    env = OneRow(Point(), Task.of("point", goal=(0.1, 0.2)), 6)
    adapted = metarl.adapt(agent, env, episodes=2)
    assert len(adapted.returns) == 2
    state = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["agent"]["policy"]
    for name, values in agent.learner.policy.state_dict().items():
        assert torch.equal(values, state[name])
    with pytest.raises(ValueError, match="is not a run folder"):
        load_agent(tmp_path)
