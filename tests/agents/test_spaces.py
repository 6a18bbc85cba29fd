"""Which agent takes which spaces: it trains and adapts there, or refuses in one line."""

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from metarl.agent import AgentConfig, AgentSetup
from metarl.agents.es_maml import EsAdaptationConfig, EsMamlConfig
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.memory_sac import MemorySacConfig, SoftPolicyConfig
from metarl.agents.memory_sac.learner import CriticConfig
from metarl.agents.pearl import PearlConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.teacher_student import InformedPolicyConfig, TeacherStudentConfig
from metarl.agents.varibad import BeliefPolicyConfig, VaribadConfig
from metarl.deploy.adapting import adapt, adapt_to_recording
from metarl.deploy.recordings import load_recording, save_recording
from metarl.nets.encoders import EncoderConfig
from metarl.tasks import FiniteTasks, Task
from metarl.workers import EnvMaker, Workers
from tests.environments import Anything, anything

CPU = torch.device("cpu")
VECTOR = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0, 255, (7, 7, 3), np.uint8)
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": VECTOR,
    "doubles": spaces.Box(-1.0, 1.0, (3,), np.float64),
    "matrix": spaces.Box(-1.0, 1.0, (2, 3)),
    "image": IMAGE,
    "float image": spaces.Box(0.0, 1.0, (3, 8, 8)),
    "large image": spaces.Box(0, 255, (24, 24, 3), np.uint8),
    "discrete": spaces.Discrete(4, start=1),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
    "dictionary": spaces.Dict(image=IMAGE, vector=VECTOR, inner=spaces.Dict(choice=spaces.Discrete(2))),
    "tuple": spaces.Tuple((VECTOR, spaces.Discrete(3))),
    "text": spaces.Text(4),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "discrete from 1": spaces.Discrete(3, start=1),
    "multi-discrete": spaces.MultiDiscrete([2, 4], start=[0, 1]),
    "multi-binary": spaces.MultiBinary(3),
    "box": spaces.Box(-2.0, 1.0, (2,)),
    "matrix box": spaces.Box(-1.0, 1.0, (2, 3)),
    "double box": spaces.Box(-1.0, 1.0, (2,), np.float64),
    "unbounded box": spaces.Box(-np.inf, np.inf, (2,)),
    "dictionary": spaces.Dict(a=spaces.Discrete(2)),
}
_POLICY, _ADAPTATION = PolicyConfig(hidden_sizes=(8,)), AdaptationConfig(num_episodes=3)
AGENTS: dict[str, AgentConfig] = {
    "rl2": Rl2Config(
        TrialPolicyConfig(memory_size=8, encoder=EncoderConfig(channels=(4,), image_features=8)), epochs=1
    ),
    "rl2 without memory": Rl2Config(
        TrialPolicyConfig(memory="none", encoder=EncoderConfig(images="mlp")), epochs=1
    ),
    "rl2 in chunks": Rl2Config(TrialPolicyConfig(memory_size=8, memory="lstm"), epochs=1, backprop_steps=3),
    "varibad": VaribadConfig(
        BeliefPolicyConfig(memory_size=8, encoder=EncoderConfig(channels=(4,), image_features=8)), belief_updates=2
    ),
    "teacher": TeacherStudentConfig(
        InformedPolicyConfig(memory_size=8, encoder=EncoderConfig(channels=(4,), image_features=8)),
        teacher_fraction=1.0,
    ),
    "student": TeacherStudentConfig(
        InformedPolicyConfig(
            memory_size=8, infers="actions", encoder=EncoderConfig(channels=(4,), image_features=8)
        ),
        teacher_fraction=0.0,
    ),
    "memory-sac": MemorySacConfig(
        SoftPolicyConfig(memory_size=8, encoder=EncoderConfig(channels=(4,), image_features=8)),
        CriticConfig(hidden_sizes=(8,)),
        num_updates=2,
        batch_size=4,
    ),
    "maml-trpo": MamlTrpoConfig(_POLICY, _ADAPTATION, fisher_fraction=0.5),
    "promp": PrompConfig(_POLICY, _ADAPTATION),
    "es-maml": EsMamlConfig(adaptation=EsAdaptationConfig(num_episodes=3)),
    "pearl": PearlConfig(
        ContextConfig(hidden_sizes=(8,), next_observations=True),
        hidden_sizes=(8,),
        num_initial_episodes=2,
        num_updates=2,
        update_tasks=2,
        batch_size=4,
        replay_capacity=100,
    ),
}
GRADIENT, ALL = ("maml-trpo", "promp"), tuple(AGENTS)


def _observed(agent: str, observations: str) -> str | None:
    """The line of a refusal, or None."""
    if observations == "text":
        return (
            r"^anything: observations must be of a Box, Discrete, MultiDiscrete or MultiBinary space, .* got Text"
        )
    if observations == "large image" and agent in GRADIENT:
        return r"takes observations of up to 1,000 numbers, .* got 1,728 in Box\(0, 255, .*; RL2 takes more"
    return None


def _acted(agent: str, actions: str) -> str | None:
    """The line of a refusal, or None."""
    if actions == "unbounded box":
        return r"continuous actions must have finite bounds, got Box\(-inf, inf, .*RescaleAction"
    if actions == "dictionary":
        return r"actions must be arrays or numbers, got the space Dict"
    if agent == "memory-sac" and actions.startswith("multi"):
        return r"^memory SAC takes Discrete or bounded Box actions, got Multi.*; RL2 and VariBAD take others"
    if agent == "pearl" and "box" not in actions:
        return r"^PEARL takes bounded Box actions, got .*; RL2, MAML-TRPO and ProMP take discrete ones"
    return None


def _try(agent: str, observation_space: spaces.Space[Any], action_space: spaces.Space[Any], tmp_path: Any) -> None:
    """An iteration of training, two episodes of adapting, and adapting to their recording."""
    family = anything(observation_space, action_space)
    tasks = FiniteTasks(family, (Task.of("anything", number=0.0), Task.of("anything", number=1.0)))
    setup = AgentSetup(family.make_env(1, num_threads=1), family.benchmark(train=tasks), 1, 0, CPU)
    made = AGENTS[agent].make(setup)
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(family), num_threads=1) as workers:
        metrics = made.update(made.collect(workers, tasks.sample(4, rng), rng))
    assert all(np.isfinite(value) for value in metrics.values())
    adapted = adapt(made, Anything(observation_space, action_space), episodes=2, seed=1)
    again = adapted
    if agent != "es-maml":  # it learns of a perturbation from the return of its own episode alone
        save_recording(tmp_path / "log.npz", adapted.recording)
        recording = load_recording(tmp_path / "log.npz")
        again = adapt_to_recording(made, recording, action_space)
    observation = Anything(observation_space, action_space).reset(seed=3)[0]
    assert action_space.contains(again.policy.act(observation))


def _check(agent: str, refusal: str | None, *rest: Any) -> None:
    if refusal is None:
        _try(agent, *rest)
        return
    with pytest.raises(ValueError, match=refusal) as raised:
        _try(agent, *rest)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("agent", ALL)
def test_every_agent_acts_or_refuses(agent: str, actions: str, tmp_path: Any) -> None:
    _check(agent, _acted(agent, actions), VECTOR, ACTIONS[actions], tmp_path)


@pytest.mark.parametrize("observations", OBSERVATIONS)
@pytest.mark.parametrize("agent", ALL)
def test_every_agent_observes_or_refuses(agent: str, observations: str, tmp_path: Any) -> None:
    _check(agent, _observed(agent, observations), OBSERVATIONS[observations], ACTIONS["box"], tmp_path)


@pytest.mark.thorough
def test_running_statistics_are_of_what_is_not_learned() -> None:
    """Of an image and a vector, the vector is normalised and told; the image's features are neither."""
    space = spaces.Dict(image=IMAGE, vector=spaces.Box(90.0, 110.0, (3,)))
    family = anything(space, ACTIONS["discrete"])
    encoder = EncoderConfig(channels=(4,), image_features=8)
    policy = TrialPolicyConfig(normalise_observations=True, read_transitions=True, encoder=encoder)
    benchmark = family.benchmark()
    agent = Rl2Config(policy).make(AgentSetup(family.make_env(1, num_threads=1), benchmark, 1, 0, CPU))
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(family), num_threads=1) as workers:
        experience = agent.collect(workers, benchmark.train.sample(30, rng), rng)
        agent.update(experience)
        experience = agent.collect(workers, benchmark.train.sample(30, rng), rng)
    assert agent.policy.last_step_size == 3 + 3 + 3  # choices, reward and flags, vector
    mean, scale = agent.policy.observation_mean, agent.policy.observation_scale
    assert torch.equal(mean[:8], torch.zeros(8))
    assert torch.equal(scale[:8], torch.ones(8))
    with torch.no_grad():
        vectors = agent.policy.features(experience.observations)[experience.mask][:, 8:]
    assert (vectors.mean(0).abs() < 0.3).all()
    assert (vectors.std(0) - 1 < 0.3).all()
    trials = agent.batch(experience).trials
    told = agent.policy.trial_inputs(trials)[1:][trials.mask[1:]]
    assert len(told) > 50
    assert (told[:, 6:].abs() < 5).all()


def test_images_alone_have_no_statistics() -> None:
    family = anything(IMAGE, ACTIONS["discrete"])
    policy = TrialPolicyConfig(normalise_observations=True, read_transitions=True)
    benchmark = family.benchmark()
    agent = Rl2Config(policy).make(AgentSetup(family.make_env(1, num_threads=1), benchmark, 1, 0, CPU))
    rng = np.random.default_rng(0)
    with Workers(EnvMaker(family), num_threads=1) as workers:
        agent.update(agent.collect(workers, benchmark.train.sample(4, rng), rng))
    assert agent.policy.last_step_size == 3 + 3
    assert torch.equal(agent.policy.observation_mean, torch.zeros(64))


def _layers(prefix: str, count: int) -> set[str]:
    return {f"{prefix}{name}_{layer}" for layer in range(count) for name in ("weight", "bias")}


def test_parameters_for_vectors_keep_the_names_that_checkpoints_have() -> None:
    """Encoders and action spaces came later: where observations are vectors they add nothing to a checkpoint."""
    family = anything(VECTOR, ACTIONS["box"])
    setup = AgentSetup(
        family.make_env(1, num_threads=1),
        family.benchmark(train=[Task.of("anything", number=0.0)]),
        1,
        0,
        CPU,
    )
    gru = {f"memory.cell.{kind}_{gate}_l0" for kind in ("weight", "bias") for gate in ("ih", "hh")}
    heads = {"policy.weight_0", "policy.bias_0", "value.weight_0", "value.bias_0", "log_std"}
    statistics = {"observation_mean", "observation_scale", "observation_count"}
    rl2 = set(Rl2Config().make(setup).policy.state_dict())
    of_rewards = {name for name in rl2 if name.startswith("reward_")} | {"observed_scale"}
    assert rl2 - of_rewards == gru | heads | statistics
    for config in (PrompConfig(), MamlTrpoConfig()):
        assert set(config.make(setup).learner.policy.state_dict()) == _layers("mean.", 3) | {"log_std"}
    pearl = AGENTS["pearl"].make(setup)
    assert set(pearl.acting.encoder.state_dict()) == _layers("network.", 2)  # type: ignore[attr-defined]
    assert pearl.replay.width == 3 + 2 + 3 + 3  # type: ignore[attr-defined]
