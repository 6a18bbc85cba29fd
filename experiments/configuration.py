"""Experiments of reinforcement learning: their fields, the objects made of them, their form in a run folder."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from metarl.agent import Agent, AgentConfig, AgentSetup
from metarl.agents.es_maml import EsMamlConfig
from metarl.agents.maml_trpo import MamlTrpoConfig
from metarl.agents.memory_sac import MemorySacConfig
from metarl.agents.multi_task import MultiTaskConfig
from metarl.agents.pearl.pearl import PearlConfig
from metarl.agents.promp import PrompConfig
from metarl.agents.reptile import ReptileConfig
from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.teacher_student.teacher_student import TeacherStudentConfig
from metarl.agents.varibad.varibad import VaribadConfig
from metarl.envs import make_benchmark
from metarl.envs.dynamics.files import file_benchmark, is_family_file
from metarl.envs.dynamics.rewards import Reward
from metarl.envs.gymnasium.family import GymnasiumFamily
from metarl.envs.observed import observed
from metarl.nets.devices import check_device, make_device
from metarl.runs import codec, seeding
from metarl.runs.configs import (
    MOST_PROCESSES,
    MOST_STEPS,
    MOST_TASKS,
    MOST_UPDATES,
    Configuration,
    check_counts,
    check_seed,
)
from metarl.runs.loggers import LoggerName, check_loggers
from metarl.runs.warm_start import check_warm_start
from metarl.tasks import Benchmark, FiniteTasks
from metarl.training import EvaluationConfig, TrainingConfig
from metarl.workers import EnvMaker, WorkerKind, Workers

Device = Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda|cuda:N|mps")]
"""Name of a device."""
ALGORITHMS: dict[str, type[AgentConfig]] = {
    "promp": PrompConfig,
    "maml-trpo": MamlTrpoConfig,
    "rl2": Rl2Config,
    "pearl": PearlConfig,
    "varibad": VaribadConfig,
    "memory-sac": MemorySacConfig,
    "es-maml": EsMamlConfig,
    "reptile": ReptileConfig,
    "multi-task": MultiTaskConfig,
    "teacher-student": TeacherStudentConfig,
}
_TAGS: codec.Tags = {"algorithm": ALGORITHMS}


_BENCHMARK = PrimitiveConstructorSpec[str | Benchmark](
    nargs=1,
    metavar="NAME|FILE.yaml|FILE.py:NAME",
    instance_from_str=lambda words: words[0],
    is_instance=lambda value: isinstance(value, str | Benchmark),
    str_from_instance=lambda value: [value if isinstance(value, str) else value.name],
)
"""A benchmark on the command line: a word; an object is shown by its name."""


@dataclass(frozen=True)
class Experiment(Configuration):
    """One experiment, whole: benchmark, algorithm, budget.

    Attributes:
        benchmark: Benchmark to train and test on: a name of `metarl list benchmarks`, a YAML family file, or
            FILE.py:NAME of a family or a benchmark of your own.
        agent: Algorithm and its hyperparameters.
        training: Length of the run.
        evaluation: Numbers of test tasks, adaptation steps and episodes of evaluations.
        horizon: Steps per episode; the benchmark's own number by default.
        num_train_tasks: Number of training tasks, drawn once. By default every batch has fresh ones, or those of a
            benchmark that has finitely many.
        observe_task: The observation ends with the task's parameters, scaled to [-1, 1]: an oracle is trained.
        seed: Seed of all random streams of the run.
        device: Device of the networks; cuda:N is a numbered GPU, mps one of Apple's, and auto takes CUDA where it
            is available.
        workers: Place of the simulation: local for this process, processes for those of this machine, or ray for
            actors of a Ray cluster. One worker of processes is this process.
        num_workers: Number of workers, which simulate equal shares of the tasks. The engines use threads,
            so 1 is right on one machine.
        ray_address: Address of the Ray cluster, HOST:PORT, or auto for the one of this machine; None starts a
            session on this machine that ends with the run.
        num_threads: Number of simulation threads, or of processes for plain Gymnasium environments; one per
            core by default.
        loggers: Places that metrics are logged to; csv is always one of them.
        video_every: Number of iterations between films of the first test task, before adaptation and after its
            steps, which are logged to TensorBoard and W&B; 0 for none.
        init_from: Folder of another run of the same agent and spaces, whose weights training starts from.
        init_without: Parts of those weights that are not taken and start fresh, such as value: names of
            sub-modules, or of single tensors.
        reward: Reward of a step of your own, for the robot of a YAML family; None for the family's.
    """

    benchmark: Annotated[str | Benchmark, _BENCHMARK]
    agent: AgentConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    horizon: int | None = None
    num_train_tasks: int | None = None
    observe_task: bool = False
    seed: int = 0
    device: Device = "auto"
    workers: WorkerKind = "processes"
    num_workers: int = 1
    ray_address: str | None = None
    num_threads: int | None = None
    loggers: tuple[LoggerName, ...] = ("csv", "tensorboard")
    video_every: int = 0
    init_from: str | None = None
    init_without: tuple[str, ...] = ()
    reward: Annotated[Reward | None, tyro.conf.Suppress] = None

    def __post_init__(self) -> None:
        if isinstance(self.benchmark, str) and is_family_file(
            self.benchmark
        ):  # so that a run can be opened from anywhere
            object.__setattr__(self, "benchmark", str(Path(self.benchmark).resolve()))
        check_seed(self)
        check_device(self.device)
        check_counts(self, "horizon", most=MOST_STEPS)
        check_counts(self, "num_train_tasks", most=MOST_TASKS)
        check_counts(self, "num_workers", "num_threads", most=MOST_PROCESSES)
        if self.ray_address is not None and self.workers != "ray":
            raise ValueError(f"ray_address needs workers ray, got {self.workers}; add --workers ray")
        check_counts(self, "video_every", least=0, most=MOST_UPDATES)
        check_loggers(self.loggers)
        check_warm_start(self.init_from, self.init_without)


def make_workers(experiment: Experiment, benchmark: Benchmark) -> Workers:
    """The collector of an experiment."""
    return Workers(
        EnvMaker(benchmark.family, experiment.horizon),
        kind=experiment.workers,
        num_workers=experiment.num_workers,
        num_threads=experiment.num_threads,
        ray_address=experiment.ray_address,
    )


def experiment_benchmark(experiment: Experiment, family_file: Path | None = None) -> Benchmark:
    """The benchmark of an experiment; its training tasks are drawn here, by the seed, if they are to be fixed.

    Args:
        experiment: Experiment that names its benchmark.
        family_file: Copy of the benchmark's family file to read instead; None to read what the experiment names.

    Raises:
        ValueError: if there is none, or the experiment asks of it what it cannot do.
    """
    benchmark, num_train_tasks = experiment.benchmark, experiment.num_train_tasks
    if isinstance(benchmark, str):
        benchmark = (
            file_benchmark(benchmark, family_file, experiment.reward)
            if family_file
            else make_benchmark(benchmark, experiment.reward)
        )
    elif experiment.reward is not None:
        raise ValueError(f"a reward of your own needs a YAML family as the benchmark, got {benchmark.name}")
    own_name = benchmark.name
    if experiment.observe_task:
        shown, name = observed(benchmark.train), f"{benchmark.name} (task observed)"
        benchmark = replace(benchmark, name=name, train=shown, test=observed(benchmark.test))
    spawns = experiment.workers == "processes" and experiment.num_workers > 1
    if spawns and isinstance(benchmark.family, GymnasiumFamily):
        raise ValueError(
            f"num_workers must be 1 for {own_name}, whose environments have processes of their own, "
            f"got {experiment.num_workers}; num_threads is their number, and workers may be ray"
        )
    if num_train_tasks is None:
        return benchmark
    if isinstance(benchmark.train, FiniteTasks) and num_train_tasks > len(benchmark.train.tasks):
        there = len(benchmark.train.tasks)
        raise ValueError(f"{own_name} has {there} training tasks, got num_train_tasks {num_train_tasks}")
    rng = seeding.streams(experiment.seed)["train_tasks"]
    tasks = tuple(benchmark.train.sample(num_train_tasks, rng))
    if isinstance(benchmark.train, FiniteTasks):  # of its own kind: it may draw them in a way of its own
        return replace(benchmark, train=replace(benchmark.train, tasks=tasks))
    return replace(benchmark, train=FiniteTasks(benchmark.family, tasks))


def make_agent(experiment: Experiment, benchmark: Benchmark) -> Agent[Any]:
    """The untrained agent of an experiment; its initial weights follow from the seed.

    Raises:
        ValueError: if the device is not there, or an agent needs finitely many training tasks.
    """
    env = EnvMaker(benchmark.family, experiment.horizon)(1, 1)
    try:
        setup = AgentSetup(
            env=env,
            benchmark=benchmark,
            iterations=experiment.training.iterations,
            seed=experiment.seed,
            device=make_device(experiment.device),
        )
        return experiment.agent.make(setup)
    finally:
        env.close()


def encode(value: Any) -> Any:
    """A configuration as JSON types; an agent's says its algorithm."""
    return codec.encode(value, _TAGS)


def decode(data: object, template: Experiment | None = None) -> Experiment:
    """The experiment that `encode` wrote.

    Args:
        data: Decoded JSON.
        template: An experiment with the classes and objects that are not built in; None for none.

    Raises:
        ValueError: naming the field that is unknown, missing or of a wrong type.
    """
    experiment: Experiment = codec.decode(Experiment, data, "experiment", _TAGS, template)
    return experiment
