"""An exported policy acts like the toolkit's own actor, and what cannot be exported says so and writes nothing."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import onnx
import pytest
import torch
from gymnasium import spaces

import metarl
from metarl.agent import Interface
from metarl.agents.es_maml import EsAdaptationConfig, EsMaml, EsMamlConfig
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.memory_sac import MemorySac, MemorySacConfig, SoftPolicyConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.varibad import BeliefPolicyConfig, Varibad, VaribadConfig
from metarl.deploy import exporting, models
from metarl.deploy.exporting import Exported, export_policy
from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.recordings import load_recording, save_recording
from metarl.deploy.runner import Runner
from metarl.deploy.steps import PolicyStep, StepInputs
from metarl.envs.single import single_env
from metarl.experiments.cli import main
from metarl.experiments.loading import load_agent
from metarl.nets.actions import action_map
from metarl.nets.distributions import DiagonalGaussian
from metarl.nets.memories import Carry
from metarl.runs.files import WriteError
from metarl.tasks import Task
from tests.experiments.tiny import TINY

pytestmark = pytest.mark.thorough

CPU = torch.device("cpu")
STATE = spaces.Box(-5.0, 5.0, (3,), np.float32)
PARTS = spaces.Dict({"image": spaces.Box(0, 255, (6, 6, 3), np.uint8), "place": spaces.Discrete(4, start=1)})
ARM = spaces.Box(np.array([-2.0, 0.0]), np.array([1.0, 3.0]), dtype=np.float64)
TASKS = [Task.of("tiny", x=0.0)]
TOLERANCE = 1e-5


class TinyEnv(gymnasium.Env[Any, Any]):
    """Random observations, and rewards that depend on observation and action; odd episodes end early."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.max_episode_steps, self._episode, self._step = 7, 0, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.observation_space.seed(seed)
        self._episode, self._step = self._episode + 1, 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._step += 1
        reward = float(np.sum(action)) * (0.5 if self._step % 2 else -1.5)
        ended = self._episode % 2 == 1 and self._step == 5
        return self.observation_space.sample(), reward, ended, not ended and self._step == 7, {}


def _agent(kind: str, env: Any) -> Any:
    few = AdaptationConfig(num_episodes=2)
    if kind.startswith("promp"):
        policy = PolicyConfig(hidden_sizes=(8, 8), context_size=3 if kind == "promp-context" else 0)
        return Promp(env, PrompConfig(policy, replace(few, inner_lr=1.0)), iterations=1, seed=0, device=CPU)
    if kind.startswith("pearl"):
        context = ContextConfig("recurrent" if kind == "pearl-recurrent" else "set", 3, (8, 8), kind != "pearl")
        config = PearlConfig(context=context, hidden_sizes=(8, 8), vary_context=False, replay_capacity=1000)
        return Pearl(env, config, TASKS, iterations=1, seed=0, device=CPU)
    if kind == "memory-sac":
        soft = MemorySacConfig(SoftPolicyConfig(memory_size=8, head_sizes=(8,)))
        return MemorySac(env, soft, iterations=1, seed=0, device=CPU)
    if kind == "varibad":
        belief = BeliefPolicyConfig(latent_size=2, memory_size=8, decoder_sizes=(8,), normalise_observations=True)
        return Varibad(env, VaribadConfig(policy=belief), iterations=1, seed=0, device=CPU)
    memory: Any = kind
    policy = TrialPolicyConfig(memory=memory, memory_size=8, num_heads=2, read_transitions=True, head_sizes=(8,))
    agent = Rl2(env, Rl2Config(policy, num_episodes=2), iterations=1, seed=0, device=CPU)
    agent.policy.reward_mean.fill_(0.2)
    agent.policy.observed_scale.fill_(0.3)
    return agent


def _grown(agent: Any) -> Any:
    """The agent with weights so large that its actions depend on all that it reads."""
    generator = torch.Generator().manual_seed(1)
    parts = [vars(agent)[name] for name in ("policy", "acting", "learner") if name in vars(agent)]
    modules = [part if isinstance(part, torch.nn.Module) else part.policy for part in parts]
    for parameter in modules[0].parameters():
        if parameter.dim() == 2:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.data += noise * 0.7 / parameter.shape[0] ** 0.5
    return agent


def _policy(kind: str, env: TinyEnv, *, deterministic: bool = False) -> AdaptedPolicy:
    """An agent adapted for two episodes."""
    return metarl.adapt(_grown(_agent(kind, env)), env, episodes=2, seed=3, deterministic=deterministic).policy


def _largest_difference(
    policy: AdaptedPolicy, runner: Runner, env: TinyEnv, num_steps: int
) -> tuple[float, float]:
    """The largest difference between the actions of both, and how much the policy's actions vary."""
    actions, differences, steps = [], [], 0
    while steps < num_steps:
        observation, _ = env.reset(seed=steps)
        policy.begin_episode()
        runner.begin_episode()
        ended = False
        while not ended:
            action, other = policy.act(observation), runner.act(observation)
            assert np.shape(other) == np.shape(action)
            actions.append(action)
            differences.append(np.abs(np.subtract(action, other, dtype=float)).max())
            observation, reward, terminated, truncated, _ = env.step(action)
            policy.observe(observation, reward, terminated, truncated)
            runner.observe(observation, reward, terminated, truncated)
            ended = terminated or truncated
            steps += 1
    return max(differences), float(np.std(actions, 0).max())


CASES: Mapping[str, tuple[str, spaces.Space[Any], spaces.Space[Any]]] = {
    "gru": ("gru", STATE, ARM),
    "pearl": ("pearl", STATE, ARM),
}
SLOW: Mapping[str, tuple[str, spaces.Space[Any], spaces.Space[Any]]] = {
    "promp": ("promp", STATE, ARM),
    "promp choices": ("promp", STATE, spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [2, 3]])),
    "promp context": ("promp-context", STATE, ARM),
    "promp bits": ("promp", STATE, spaces.MultiBinary(3)),
    "gru images": ("gru", PARTS, spaces.Discrete(3, start=-1)),
    "lstm": ("lstm", STATE, spaces.Discrete(3, start=5)),
    "lstm choices": ("lstm", STATE, spaces.MultiDiscrete([[2, 3], [4, 2]], start=[[0, 1], [2, 3]])),
    "splagger": ("splagger", STATE, ARM),
    "transformer": ("transformer", STATE, ARM),
    "memoryless": ("none", PARTS, spaces.MultiBinary(3)),
    "varibad": ("varibad", STATE, ARM),
    "memory-sac": ("memory-sac", STATE, ARM),
    "memory-sac choices": ("memory-sac", STATE, spaces.Discrete(3, start=5)),
    "pearl next": ("pearl-next", STATE, ARM),
    "pearl recurrent": ("pearl-recurrent", STATE, ARM),
}


def _check(case: tuple[str, spaces.Space[Any], spaces.Space[Any]], folder: Path, num_steps: int) -> None:
    kind, observation_space, action_space = case
    env = TinyEnv(observation_space, action_space)
    sampling = _policy(kind, env)
    if kind.startswith("pearl"):  # which takes the mean at test time; its exploring actor samples
        actor: Any = sampling.actor
        actor._deterministic = False
        sampling = AdaptedPolicy(actor, action_space, sampling.seed)
    model = export_policy(sampling, folder / "policy.onnx").model
    largest, spread = _largest_difference(sampling, Runner(model), env, num_steps)
    assert spread > 0.1
    assert largest < TOLERANCE
    same = AdaptedPolicy(sampling.actor, action_space, sampling.seed, deterministic=True)
    largest, spread = _largest_difference(same, Runner(model, sampling=False), env, num_steps)
    assert spread > 0.01 or not isinstance(action_space, spaces.Box)
    assert largest < TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_an_exported_policy_acts_as_the_toolkits_actor(case: str, tmp_path: Path) -> None:
    _check(CASES[case], tmp_path, 40)


@pytest.mark.slow
@pytest.mark.parametrize("case", [*CASES, *SLOW])
def test_an_exported_policy_acts_as_the_toolkits_actor_for_a_thousand_steps(case: str, tmp_path: Path) -> None:
    _check({**CASES, **SLOW}[case], tmp_path, 1000)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A GRU's policy after two episodes."""
    folder = tmp_path_factory.mktemp("exported")
    return export_policy(_policy("gru", TinyEnv(STATE, ARM)), folder / "policy.onnx", card={"name": "tiny"})


def test_the_runner_beside_a_model_needs_neither_torch_nor_the_toolkit(exported: Exported) -> None:
    program = """
import json, sys
sys.path.insert(0, sys.argv[1])
from metarl_runner import Runner
policy = Runner(sys.argv[1] + "/policy.onnx")
actions = []
for step in range(3):
    actions.append(policy.act([0.1, 0.2 * step, -0.3]).tolist())
    policy.observe([0.1, 0.2 * step + 0.2, -0.3], 1.0)
assert not {"torch", "metarl", "gymnasium"} & set(sys.modules)
print(json.dumps(actions))
"""
    words = [sys.executable, "-I", "-c", program, str(exported.model.parent)]
    output = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    policy = Runner(exported.model)
    for step, action in enumerate(json.loads(output)):
        assert policy.act([0.1, 0.2 * step, -0.3]).tolist() == action
        policy.observe([0.1, 0.2 * step + 0.2, -0.3], 1.0)


def test_the_card_is_in_the_model_and_beside_it(exported: Exported) -> None:
    card = json.loads(exported.card.read_text())
    assert Runner(exported.model).card == card
    assert card["name"] == "tiny"
    assert card["adapted_to"][0]["episodes"] == 2
    assert card["reads"] == "every outcome"
    assert exported.largest_difference < TOLERANCE


def test_a_trial_that_begins_again_is_the_same_and_another_seed_is_not(exported: Exported) -> None:
    def acts(policy: Runner) -> list[Any]:
        policy.begin_trial()
        actions = []
        for _ in range(3):
            actions.append(policy.act(np.ones(3)))
            policy.observe(np.ones(3), 1.0)
        return actions

    policy = Runner(exported.model)
    first = acts(policy)
    assert np.array_equal(acts(policy), first)
    assert not np.array_equal(acts(Runner(exported.model, seed=1)), first)
    still = Runner(exported.model, sampling=False)
    assert np.array_equal(acts(still), acts(Runner(exported.model, sampling=False, seed=1)))
    assert not np.array_equal(acts(still)[0], acts(still)[2])  # it has read what followed


def test_the_runner_refuses_what_does_not_fit(exported: Exported, tmp_path: Path) -> None:
    policy = Runner(exported.model)
    with pytest.raises(RuntimeError, match="call act before it"):
        policy.observe(np.zeros(3), 0.0)
    with pytest.raises(ValueError, match=r"observation \(3,\), got observation \(2,\)"):
        policy.act(np.zeros(2))
    with pytest.raises(ValueError, match="must be numbers"):
        policy.act(np.array(["a", "b", "c"]))
    with pytest.raises(FloatingPointError, match="observation is not finite"):
        policy.act(np.array([0.0, np.nan, 0.0]))
    policy.act(np.zeros(3))
    with pytest.raises(RuntimeError, match="reads rewards while it acts"):
        policy.act(np.zeros(3))
    with pytest.raises(FloatingPointError, match="reward is not finite after step 1"):
        policy.observe(np.zeros(3), np.inf)
    with pytest.raises(ValueError, match="action must be finite of shape"):
        policy.observe(np.zeros(3), 0.0, action=np.zeros(3))
    policy.observe(np.zeros(3), 0.0, terminated=True)
    with pytest.raises(RuntimeError, match="the episode has ended"):
        policy.act(np.zeros(3))
    for content in (b"", b"not a model"):
        path = tmp_path / "other.onnx"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no ONNX model|none that metarl export wrote") as caught:
            Runner(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="cannot read the model"):
        Runner(tmp_path / "none.onnx")


def test_what_the_runner_recorded_can_be_adapted_to(exported: Exported, tmp_path: Path) -> None:
    env, policy = TinyEnv(STATE, ARM), Runner(exported.model, record=True)
    with pytest.raises(ValueError, match="there are no transitions"):
        policy.save_recording(tmp_path / "none.npz")
    rewards = []
    for episode in range(3):
        observation, _ = env.reset(seed=episode)
        policy.begin_episode()
        ended = False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
            policy.observe(observation, reward, terminated, truncated and episode > 1)  # one end is not reported
            rewards.append(reward)
            ended = terminated or truncated
    path = tmp_path / "episodes.npz"
    policy.save_recording(path)
    recording = load_recording(path)
    assert recording.rewards == pytest.approx(rewards)
    assert recording.episode_ends.tolist() == [5, 12, 17]
    adapted = metarl.adapt_to_recording(_agent("promp", env), recording, ARM)
    assert adapted.policy.history[0].episodes == 3
    with pytest.raises(ValueError, match="exists and is left as it is"):
        policy.save_recording(path)


class Spectral(PolicyStep):
    """Acts by eigenvalues, which ONNX has no operator for."""

    def decide(self, inputs: StepInputs) -> tuple[DiagonalGaussian, Carry]:
        observations: Any = inputs.observations
        values = torch.linalg.eigvals(torch.diag_embed(observations)).real
        return DiagonalGaussian(values[:, :2], torch.zeros(2)), ()


def _odd_policy(actor: Any) -> AdaptedPolicy:
    actor.begin = lambda seeds, num_parallel: None
    return AdaptedPolicy(actor, ARM, 0)


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Actor:
        interface = Interface(STATE, ARM)
        reads_outcomes = False

        def policy_step(self) -> PolicyStep:
            return Spectral(self.interface, action_map(ARM, "it"), sampling=True)

    def refused(path: Path, words: str, actor: Any = None) -> None:
        with pytest.raises((ValueError, TypeError, WriteError), match=words) as caught:
            export_policy(_odd_policy(actor or Actor()), path)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    refused(tmp_path / "a.onnx", "cannot be exported: .*linalg_eig")
    refused(tmp_path / "a.onnx", "SimpleNamespace cannot be exported; expected an actor", SimpleNamespace())
    refused(tmp_path / "a.pt", "must end in .onnx")
    refused(tmp_path / "none" / "a.onnx", "the folder .* does not exist")
    refused(exported.model, "exists and is left as it is")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        refused(tmp_path / "a.onnx", r'export needs onnx and .*pip install "metarl-toolkit\[onnx\]"')
    runner = exported.runner.read_bytes()
    try:
        exported.runner.write_text("another")
        refused(exported.model.with_name("b.onnx"), "is another version's")
    finally:
        exported.runner.write_bytes(runner)

    def full(path: Path, content: bytes) -> None:
        if path.suffix == ".onnx":
            raise WriteError(f"cannot write {path}: no space left")
        path.write_bytes(content)

    monkeypatch.setattr(models, "atomic_write", full)
    monkeypatch.setattr(exporting, "_converted", lambda step: onnx.load(exported.model))
    monkeypatch.setattr(exporting, "_largest_difference", lambda *arguments: 0.0)
    refused(tmp_path / "a.onnx", "no space left")


def test_a_policy_that_reads_actions_of_no_range_is_refused() -> None:
    space = spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 0.0]), dtype=np.float64)
    with pytest.raises(ValueError, match="some have equal bounds"):
        Spectral(Interface(STATE, space), action_map(space, "it"), sampling=True, reads="outcomes")


def test_a_run_and_an_adapted_policy_are_exported_by_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", "point-promp", "--out", str(run), *TINY, "--horizon", "5"]) == 0
    agent = load_agent(run)
    with single_env("point", metarl.open_run(run).test_tasks[0], horizon=5) as env:
        adapted = metarl.adapt(agent, env, episodes=2)
    recording = tmp_path / "recording.npz"
    save_recording(recording, adapted.recording)
    words = ["export", str(run), "--onnx", str(tmp_path / "a.onnx"), "--recording", str(recording)]
    assert main([*words, "--num-tasks", "2", "--deterministic", "True"]) == 0
    assert "a.onnx, a.json and metarl_runner.py" in capsys.readouterr().out
    card = Runner(tmp_path / "a.onnx").card
    assert card["adapted_to"][0]["source"] == "recording"
    assert card["met_in_training"]["tasks"] == 2
    assert len(card["met_in_training"]["observations"][""]["low"]) == 2
    assert card["agent"]["benchmark"] == "point"
    same = load_recording(recording)
    again = metarl.adapt_to_recording(agent, same, env.action_space, deterministic=True).policy
    again.begin_episode()
    assert Runner(tmp_path / "a.onnx").act([0.1, 0.2]) == pytest.approx(again.act([0.1, 0.2]), abs=TOLERANCE)
    assert main(words) == 2
    assert "exists and is left as it is" in capsys.readouterr().err


def test_a_policy_of_a_kind_that_cannot_be_exported_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EsMamlConfig(adaptation=EsAdaptationConfig(num_episodes=2))
    env = TinyEnv(STATE, ARM)
    metarl.adapt(EsMaml(env, config, seed=0), env, episodes=2).save(tmp_path / "saved")
    assert main(["export", str(tmp_path / "saved"), "--onnx", str(tmp_path / "a.onnx")]) == 2
    assert "metarl: error: PerturbedActor cannot be exported; " in capsys.readouterr().err
