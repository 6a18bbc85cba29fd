"""What an experiment is, how it becomes objects, and how it is stored in a run folder."""

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from metarl.agent import Agent
from metarl.agents.maml_trpo import MamlTrpo, MamlTrpoConfig
from metarl.agents.promp import Promp, PrompConfig
from metarl.agents.rl2 import Rl2, Rl2Config
from metarl.configs import check_counts, check_not_negative
from metarl.tasks import Benchmark, TaskEnv, TaskFamily
from metarl.training import EvaluationConfig, TrainingConfig
from metarl.workers import Workers

Device = Literal["auto", "cpu", "cuda"]
AgentConfig = PrompConfig | MamlTrpoConfig | Rl2Config
_ALGORITHMS: dict[str, type[Any]] = {"promp": PrompConfig, "maml-trpo": MamlTrpoConfig, "rl2": Rl2Config}


@dataclass(frozen=True)
class Experiment:
    """One experiment, whole: benchmark, algorithm, budget.

    Attributes:
        benchmark: its name; see `metarl list benchmarks`.
        agent: the algorithm and its hyperparameters.
        training: how long to train.
        evaluation: how to evaluate.
        horizon: steps per episode; the benchmark's own by default.
        seed: of everything random.
        device: where networks are trained; auto takes CUDA when it is there.
        num_workers: processes that simulate; the engines use threads, so 1 is right on one machine.
        num_threads: simulation threads; one per core by default.
    """

    benchmark: str
    agent: AgentConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    horizon: int | None = None
    seed: int = 0
    device: Device = "auto"
    num_workers: int = 1
    num_threads: int | None = None

    def __post_init__(self) -> None:
        check_not_negative(self, "seed")
        check_counts(self, "horizon", "num_workers", "num_threads")


@dataclass(frozen=True)
class EnvMaker:
    """Makes vector environments of a task family; picklable, for worker processes."""

    family: TaskFamily
    horizon: int | None

    def __call__(self, num_envs: int, num_threads: int) -> TaskEnv:
        """A vector environment."""
        return self.family.make_env(num_envs, horizon=self.horizon, num_threads=num_threads)


def make_workers(experiment: Experiment, benchmark: Benchmark) -> Workers:
    """The collector of an experiment."""
    return Workers(
        EnvMaker(benchmark.family, experiment.horizon),
        num_workers=experiment.num_workers,
        num_threads=experiment.num_threads,
    )


def make_agent(experiment: Experiment, benchmark: Benchmark) -> Agent[Any]:
    """The untrained agent of an experiment; its initial weights follow from the seed.

    Raises:
        ValueError: if CUDA is asked for and not there.
    """
    if experiment.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for and is not available; use --device cpu or auto")
    name = "cuda" if experiment.device != "cpu" and torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    env = EnvMaker(benchmark.family, experiment.horizon)(1, 1)
    try:
        if isinstance(experiment.agent, PrompConfig):
            return Promp(env, experiment.agent, seed=experiment.seed, device=device)
        if isinstance(experiment.agent, Rl2Config):
            iterations = experiment.training.iterations
            return Rl2(env, experiment.agent, iterations=iterations, seed=experiment.seed, device=device)
        return MamlTrpo(env, experiment.agent, seed=experiment.seed, device=device)
    finally:
        env.close()


def encode(value: Any) -> Any:
    """A configuration as JSON types; an agent's says its algorithm."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return list(value) if isinstance(value, tuple) else value
    names: dict[type[Any], str] = {kind: name for name, kind in _ALGORITHMS.items()}
    data: dict[str, Any] = {"algorithm": names[type(value)]} if type(value) in names else {}
    return data | {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}


def decode(data: object) -> Experiment:
    """The experiment that `encode` wrote.

    Raises:
        ValueError: naming the field that is unknown, missing or of a wrong type.
    """
    experiment: Experiment = _decode(Experiment, data, "experiment")
    return experiment


def _decode(kind: Any, data: Any, where: str) -> Any:
    """The value of an annotation that a JSON value encodes; `where` names it in errors."""
    if kind == AgentConfig:
        algorithm = data.get("algorithm") if isinstance(data, dict) else None
        if algorithm not in _ALGORITHMS:
            raise ValueError(f"{where}: unknown algorithm {algorithm!r}; known: {', '.join(_ALGORITHMS)}")
        rest = {name: value for name, value in data.items() if name != "algorithm"}
        return _decode(_ALGORITHMS[algorithm], rest, where)
    if not dataclasses.is_dataclass(kind):
        return _decode_value(kind, data, where)
    if not isinstance(data, dict):
        raise ValueError(f"{where} must be an object, got {data!r}")
    hints = typing.get_type_hints(kind)
    build: Any = kind
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ValueError(f"{where} has unknown fields {unknown}; known: {sorted(hints)}")
    try:
        return build(**{name: _decode(hints[name], value, f"{where}.{name}") for name, value in data.items()})
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from error


def _decode_value(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        if not isinstance(data, list):
            raise ValueError(f"{where} must be a list, got {data!r}")
        return tuple(_decode_value(arguments[0], item, where) for item in data)
    if origin is Literal:
        valid = data in arguments
    elif origin is types.UnionType:
        valid = any(_matches(option, data) for option in arguments)
    else:
        valid = _matches(kind, data)
    if not valid:
        raise ValueError(f"{where} must be {getattr(kind, '__name__', kind)}, got {data!r}")
    return data


def _matches(kind: Any, data: Any) -> bool:
    if isinstance(data, bool):
        return bool(kind is bool)
    return isinstance(data, int | float) if kind is float else isinstance(data, kind)
