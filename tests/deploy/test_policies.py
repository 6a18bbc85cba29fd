"""An adapted policy is saved and loaded: same actions to the bit, adaptation goes on, tampering is one line."""

import itertools
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from gymnasium import spaces
from torch import Tensor

import metarl
from metarl.agent import Actions, Interface, Outcome, SavedActor
from metarl.agents.es_maml import EsAdaptationConfig, EsMaml, EsMamlConfig
from metarl.agents.maml import AdaptationConfig, PolicyConfig
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.memory_sac import MemorySac, MemorySacConfig, SoftPolicyConfig
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.pearl import Pearl, PearlConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2.rl2 import Rl2, Rl2Config
from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.agents.teacher_student import InformedPolicyConfig, TeacherStudent, TeacherStudentConfig
from metarl.agents.varibad import BeliefPolicyConfig, Varibad, VaribadConfig
from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.spaces import space_from_json, space_to_json
from metarl.envs.single import SingleTaskEnv, single_env
from metarl.envs.toy.point import Point
from metarl.experiments.configuration import Experiment
from metarl.experiments.loading import load_agent
from metarl.task_numbers import TaskNumbers
from metarl.tasks import Task
from metarl.training import EvaluationConfig, TrainingConfig
from metarl.trajectories import Trajectories

CPU = torch.device("cpu")
FAMILY = Point()
TASKS = [Task.of(FAMILY.name, goal=(0.3, 0.2)), Task.of(FAMILY.name, goal=(-0.2, 0.4))]
KINDS = [
    "promp",
    "promp-context",
    "promp-step-sizes",
    "maml-trpo",
    "gru",
    "lstm",
    "splagger",
    "transformer",
    "memoryless",
    "varibad",
    "student",
    "memory-sac",
    "pearl",
    "pearl-recurrent",
]


def _env() -> SingleTaskEnv:
    return single_env("point", TASKS[0], horizon=8)


def _agent(kind: str) -> Any:
    env = FAMILY.make_env(1, horizon=8)
    small, few = PolicyConfig(hidden_sizes=(8, 8)), AdaptationConfig(num_episodes=2)
    if kind.startswith("promp"):
        small = replace(small, context_size=3 if "context" in kind else 0)
        few = replace(few, learn_inner_lr="step-sizes" in kind)
        agent = Promp(env, PrompConfig(small, few), iterations=1, seed=0, device=CPU)
        for rate in agent.learner.inner_lrs.values():
            rate.data.fill_(0.7)
        return agent
    if kind == "es-maml":
        return EsMaml(env, EsMamlConfig(adaptation=EsAdaptationConfig(num_episodes=2)), seed=0)
    if kind == "maml-trpo":
        return MamlTrpo(env, MamlTrpoConfig(policy=small, adaptation=few), seed=0, device=CPU)
    if kind.startswith("pearl"):
        context = ContextConfig(kind="recurrent" if "-" in kind else "set", hidden_sizes=(8, 8))
        config = PearlConfig(context=context, hidden_sizes=(8, 8), vary_context=False, replay_capacity=1000)
        return Pearl(env, config, TASKS, iterations=1, seed=0, device=CPU)
    return _agent_of_trials(kind, env, {"iterations": 1, "seed": 0, "device": CPU})


def _agent_of_trials(kind: str, env: Any, setup: dict[str, Any]) -> Any:
    if kind == "memory-sac":
        soft = SoftPolicyConfig(memory="transformer", memory_size=8, num_heads=2, normalise_observations=True)
        return MemorySac(env, MemorySacConfig(soft), **setup)
    if kind == "varibad":
        beliefs = BeliefPolicyConfig(memory_size=8, normalise_observations=True)
        return Varibad(env, VaribadConfig(beliefs), **setup)
    if kind == "student":
        informed = InformedPolicyConfig(memory_size=8, infers="parameters", normalise_observations=True)
        return TeacherStudent(env, TeacherStudentConfig(informed, num_episodes=2), TaskNumbers(FAMILY), **setup)
    memory: Any = "none" if kind == "memoryless" else kind
    policy = TrialPolicyConfig(memory=memory, memory_size=8, num_heads=2, normalise_observations=True)
    return Rl2(env, Rl2Config(policy, num_episodes=2), **setup)


def _acts(policy: Any, num_episodes: int = 2) -> list[np.ndarray]:
    env, actions = _env(), []
    for episode in range(num_episodes):
        observation, _ = env.reset(seed=episode)
        policy.begin_episode()
        ended = False
        while not ended:
            actions.append(policy.act(observation))
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            policy.observe(observation, reward, terminated, truncated)
            ended = terminated or truncated
    return actions


@pytest.mark.parametrize(
    ("kind", "deterministic"),
    [*itertools.product(KINDS, [False, True]), ("es-maml", False)],  # without perturbations it learns nothing
)
def test_a_loaded_policy_acts_the_same_to_the_bit_and_goes_on_adapting(
    kind: str, deterministic: bool, tmp_path: Path
) -> None:
    adapted = metarl.adapt(_agent(kind), _env(), episodes=2, seed=3, deterministic=deterministic)
    path = tmp_path / "policy.safetensors"
    adapted.save(path)
    loaded = metarl.load_policy(path)
    expected, came = _acts(adapted.policy), _acts(loaded)
    assert len(expected) == 16
    assert np.array_equal(came, expected)
    assert loaded.history == adapted.policy.history
    assert loaded.history[0].returns == pytest.approx(adapted.returns)
    # A policy is saved as its adaptation ended, whatever it did since.
    adapted.save(tmp_path / "later.safetensors")
    assert (tmp_path / "later.safetensors").read_bytes() == path.read_bytes()
    further = [metarl.adapt(policy, _env(), episodes=2, seed=4) for policy in (adapted.policy, loaded)]
    assert further[0].returns == further[1].returns
    assert np.array_equal(_acts(further[0].policy), _acts(further[1].policy))
    assert [entry.seed for entry in further[1].policy.history] == [3, 4]


def test_what_was_learned_is_in_the_file_and_is_used_when_going_on(tmp_path: Path) -> None:
    """A gradient agent's two steps through a file are those of one call."""
    agent = _agent("promp")
    recording = metarl.adapt(agent, _env(), episodes=4).recording
    space = _env().action_space
    metarl.adapt_to_recording(agent, recording, space).save(tmp_path / "one.safetensors")
    twice = metarl.adapt_to_recording(metarl.load_policy(tmp_path / "one.safetensors"), recording, space)
    whole = metarl.adapt_to_recording(agent, recording, space, num_steps=2)
    once = metarl.adapt_to_recording(agent, recording, space)
    assert np.array_equal(_acts(twice.policy), _acts(whole.policy))
    assert not np.array_equal(_acts(twice.policy), _acts(once.policy))
    entry = twice.policy.history[0]
    assert (entry.source, entry.episodes, entry.steps, entry.gradient_steps) == ("recording", 4, 32, 1)
    assert entry.observations[""]["high"] == recording.observations.max(0).tolist()


def test_the_file_says_where_the_policy_comes_from(tmp_path: Path) -> None:
    training = TrainingConfig(1, 2, evaluate_every=0)
    evaluation = EvaluationConfig(num_tasks=2, num_steps=1, num_episodes=1)
    few = AdaptationConfig(num_episodes=2)
    experiment = Experiment("point", PrompConfig(adaptation=few), training, evaluation, horizon=5, num_threads=1)
    agent = load_agent(metarl.train(experiment, out=tmp_path / "run").folder)
    metarl.adapt(agent, single_env("point", TASKS[0]), episodes=2).save(tmp_path / "policy.safetensors")
    card = metarl.load_policy(tmp_path / "policy.safetensors").card
    assert (card["agent"], card["benchmark"]) == ("Promp", "point")
    assert card["task_parameters"][0]["name"] == "goal"
    assert card["train_env_steps"] > 0


class MyActor:
    """A user's actor: it repeats the mean of the rewards that it has learned from."""

    sequential = True
    reads_outcomes = False
    saved_as: ClassVar[str] = "mine"

    def __init__(self, interface: Interface, mean: float = 0.0) -> None:
        self.interface, self.mean = interface, mean

    def select(self, tasks: slice) -> "MyActor":
        return self

    def begin(self, task_seeds: np.ndarray, num_parallel: int) -> None:
        self.num_tasks = len(task_seeds)

    def begin_episode(self) -> None:
        pass

    def act(self, observations: Tensor) -> Actions:
        actions = torch.full((self.num_tasks, 1, 2), self.mean)
        return Actions(actions.numpy(), actions, {})

    def observe(self, outcome: Outcome) -> None:
        pass

    def adapt(self, trajectories: Trajectories) -> "MyActor":
        return MyActor(self.interface, float(trajectories.rewards.mean()))

    def to_outputs(self, env_actions: np.ndarray) -> Tensor:
        return torch.from_numpy(env_actions)

    def saved(self) -> SavedActor:
        return SavedActor({}, {"mean": torch.tensor(self.mean)})

    @classmethod
    def from_saved(cls, interface: Interface, contents: SavedActor) -> "MyActor":
        return cls(interface, float(contents.tensors["mean"]))


class MyAgent:
    """A user's agent."""

    def actor(self) -> MyActor:
        return MyActor(Interface(_env().observation_space, _env().action_space))


def test_an_agent_of_ones_own_is_saved_by_the_protocol(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    agent: Any = MyAgent()
    adapted = metarl.adapt(agent, _env(), episodes=1)
    assert adapted.policy.actor.mean < 0  # type: ignore[attr-defined]  # a user's
    adapted.save(path)
    mine: Any = MyActor
    assert np.array_equal(_acts(metarl.load_policy(path, actor=mine)), _acts(adapted.policy))
    with pytest.raises(ValueError, match="is of the kind 'mine', expected gradient, pearl, rl2"):
        metarl.load_policy(path)


def test_what_cannot_be_saved_says_so(tmp_path: Path) -> None:
    adapted = metarl.adapt(_agent("gru"), _env(), episodes=1)
    adapted.save(tmp_path / "policy")
    with pytest.raises(ValueError, match="exists and is left as it is"):
        adapted.save(tmp_path / "policy")

    class Plain:
        sequential = True
        begin = staticmethod(lambda seeds, num_parallel: None)

    plain: Any = Plain()
    policy = AdaptedPolicy(plain, _env().action_space, 0)
    with pytest.raises(TypeError, match="Plain cannot be saved; expected an actor with saved_as"):
        policy.save(tmp_path / "other")
    assert not (tmp_path / "other").exists()


Description = dict[str, Any]
Change = Callable[[Description, dict[str, Tensor]], object]


def _tampered(path: Path, change: Change) -> Path:
    """A copy of a policy's file with its description or its tensors changed."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    data = json.loads(header["__metadata__"]["metarl_policy"])
    tensors = safetensors.torch.load(content)
    change(data, tensors)
    bad = path.with_name("bad.safetensors")
    bad.write_bytes(safetensors.torch.save(tensors, {"metarl_policy": json.dumps(data)}))
    return bad


def _put(where: str, value: Any) -> Change:
    def change(data: Description, tensors: dict[str, Tensor]) -> None:
        *parts, last = where.split("/")
        place: Any = data
        for part in parts:
            place = place[part]
        assert last in place
        place[last] = value

    return change


BAD: Mapping[str, tuple[Change, str]] = {
    "missing": (lambda data, tensors: tensors.pop("policy.log_std"), "lacks the tensor 'log_std'"),
    "unknown": (lambda data, tensors: tensors.update({"policy.x": torch.ones(1)}), "unknown tensor 'x'"),
    "group": (lambda data, tensors: tensors.update({"x": torch.ones(1)}), "must belong to policy"),
    "shape": (lambda data, tensors: tensors.update({"carry.0": torch.ones(1, 9)}), r"must be .* \[1, 8\], got"),
    "nan": (lambda data, tensors: tensors["policy.log_std"].fill_(np.nan), "not a number"),
    "dtype": (lambda data, tensors: tensors.update({"carry.1": tensors["carry.1"].double()}), "float64"),
    "actor": (_put("actor", "pearl"), "settings must be"),
    "kind": (_put("actor", "os:system"), "is of the kind 'os:system'"),
    "size": (_put("settings/policy/memory_size", 10**9), "no tensor is so large"),
    "small": (_put("settings/policy/memory_size", 16), "must be"),
    "layers": (_put("settings/policy/head_sizes", [8] * 100), "at most 64"),
    "field": (_put("settings/policy/memory_size", "big"), "memory_size must be int"),
    "settings": (_put("settings", {}), "settings must be policy, sampling"),
    "space": (_put("observation_space", {"kind": "Graph"}), "space"),
    "shape of space": (_put("observation_space/shape", [10**9]), "counts must be from 1"),
    "other space": (_put("observation_space/shape", [3]), "must be"),
    "seed": (_put("seed", -1), "seed must not be negative"),
    "flag": (_put("deterministic", 1), "deterministic must be a bool"),
    "version": (_put("version", 2), "has version 2"),
    "history": (_put("history", [{"source": "dream"}]), "source must be"),
    "history entry": (_put("history", [1]), "must be an object"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a GRU's policy."""
    path = tmp_path_factory.mktemp("saved") / "policy.safetensors"
    metarl.adapt(_agent("gru"), _env(), episodes=2).save(path)
    return path


@pytest.mark.parametrize("case", BAD)
def test_a_tampered_file_is_one_line(case: str, saved: Path) -> None:
    change, words = BAD[case]
    path = _tampered(saved, change)
    with pytest.raises(ValueError, match=words) as caught:
        metarl.load_policy(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + b"x" * 50, b"\xff" * 100, b"\x02" + bytes(7) + b"{}"])
def test_another_kind_of_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a policy that") as caught:
        metarl.load_policy(path)
    assert "\n" not in str(caught.value)


def test_a_file_cut_short_and_one_that_is_not_there_are_one_line(saved: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    content = saved.read_bytes()
    for length in range(0, len(content), 97):
        short.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            metarl.load_policy(short)
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ValueError, match="cannot read the policy"):
            metarl.load_policy(path)


SPACES = [
    spaces.Box(-np.inf, np.inf, (3,), np.float64),
    spaces.Box(np.array([-1.5, -np.inf], np.float32), np.array([0.1, 2.0], np.float32)),
    spaces.Box(0, 255, (4, 4, 3), np.uint8),
    spaces.Discrete(4, start=-1),
    spaces.MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[0, 1], [2, 3]])),
    spaces.MultiBinary([2, 3]),
    spaces.Dict({"b": spaces.Discrete(2), "a": spaces.Tuple([spaces.MultiBinary(2), spaces.Discrete(3)])}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_is_the_same_after_json(space: spaces.Space[Any]) -> None:
    assert space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False))) == space


@pytest.mark.parametrize(
    ("entries", "text"),
    [
        (
            {"kind": "MultiDiscrete", "shape": [2], "dtype": "int64", "nvec": 2**62, "start": 0},
            "nvec must be positive",
        ),
        ({"kind": "Box", "shape": [2], "dtype": "float32", "low": -1e300, "high": 1}, "bounds must be .* got -1e"),
    ],
)
def test_numbers_that_a_space_cannot_have_are_refused(entries: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        space_from_json(entries)
