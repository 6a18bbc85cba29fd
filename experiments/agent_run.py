"""RL runs: a meta-RL agent, its benchmark, and the test tasks that were drawn when the run was made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from metarl.agent import Agent, KeepsData
from metarl.envs.dynamics.files import copy_family, is_family_file
from metarl.experiments.arguments import overridden
from metarl.experiments.cards import run_card
from metarl.experiments.configuration import (
    Device,
    Experiment,
    encode,
    experiment_benchmark,
    make_agent,
    make_workers,
)
from metarl.experiments.measure import measure, show
from metarl.experiments.options import EvaluationOptions
from metarl.experiments.runs import Kind, Run, checkpoint_path
from metarl.loop import Progress, Report
from metarl.runs import parallel, seeding
from metarl.runs.checkpoint import CHECKPOINT
from metarl.runs.loggers import Logger
from metarl.runs.metrics import Axis
from metarl.tasks import Benchmark, Task, load_tasks, sample_distinct, save_tasks
from metarl.training import restore, train
from metarl.workers import EnvMaker

TEST_TASKS = "test_tasks.json"
FAMILY = "family"
"""Folder of the copies of a family file and all files that it needs."""


@dataclass(frozen=True)
class AgentRun(Run):
    """The run of an `Experiment`.

    Attributes:
        benchmark: Training and test tasks, made from the experiment.
        test_tasks: Tasks that it is evaluated on, drawn when the run was made.
    """

    kind: ClassVar[Kind] = "rl"
    axis: ClassVar[Axis] = "env_steps"
    options: ClassVar[tuple[str, ...]] = (
        *(
            "tasks",
            "num_tasks",
            "split",
            "num_steps",
            "num_episodes",
            "horizon",
            "deterministic",
            "seed",
            "checkpoint",
        ),
    )

    experiment: Experiment
    benchmark: Benchmark = None  # type: ignore[assignment]  # fields after one with a default need one; always set
    test_tasks: tuple[Task, ...] = ()

    @classmethod
    def prepare(cls, folder: Path, name: str, experiment: Experiment, sources: Mapping[str, Any]) -> "AgentRun":
        """The run with test tasks drawn by the experiment's seed, or by one of their own."""
        benchmark = experiment_benchmark(experiment)
        seed = experiment.evaluation.task_seed
        rng = seeding.streams(experiment.seed if seed is None else seed)["test_tasks"]
        tasks = sample_distinct(benchmark.test, experiment.evaluation.num_tasks, rng)
        if experiment.video_every:
            # Imported here because few runs are filmed.
            from metarl.experiments.filming import check_drawn  # noqa: PLC0415

            check_drawn(benchmark.test, tasks[0], experiment.horizon)
        return cls(folder, name, experiment, sources, benchmark=benchmark, test_tasks=tuple(tasks))

    @classmethod
    def open(cls, folder: Path, name: str, experiment: Experiment, sources: Mapping[str, Any]) -> "AgentRun":
        """The run with the test tasks, and the family file if it has one, of its folder."""
        copied = _family_file(folder, experiment)
        benchmark = experiment_benchmark(experiment, copied if copied is not None and copied.exists() else None)
        path = folder / TEST_TASKS
        if not path.is_file():
            raise ValueError(
                f"{folder} lacks {TEST_TASKS}, the tasks it is evaluated on; put it back or train anew"
            )
        tasks = load_tasks(path, benchmark.family)
        return cls(folder, name, experiment, sources, benchmark=benchmark, test_tasks=tuple(tasks))

    def encode(self) -> Any:
        """The experiment as JSON types."""
        return encode(self.experiment)

    def write(self, folder: Path) -> None:
        """Write the test tasks, the files of the family, and the weights that it starts from."""
        super().write(folder)
        save_tasks(folder / TEST_TASKS, self.test_tasks)
        copied = _family_file(folder, self.experiment)
        if copied is not None:
            copy_family(str(self.experiment.benchmark), copied.parent, self.experiment.reward)

    def introduction(self) -> list[str]:
        """The memory that data take, and the benchmark."""
        agent = self.untrained()
        parallel.check_divisible(agent, self.experiment.training.meta_batch_size)
        if self.experiment.reward is not None:
            _try_reward(self.benchmark)
        data = [agent.data_summary()] if isinstance(agent, KeepsData) else []
        return [*data, f"{self.name}: {self.benchmark.description}", *self.origin()]

    def agent(self, *, checkpoint: str = CHECKPOINT, device: Device | None = "cpu") -> Any:
        """The trained agent; a card says what it was trained for, and goes with the policies that it adapts to."""
        agent: Any
        agent, progress = self.on_device(device).restored(checkpoint)
        agent.card = run_card(self.name, self.experiment, self.benchmark, progress)
        return agent

    def untrained(self) -> Agent[Any]:
        """The agent before any training."""
        return make_agent(self.experiment, self.benchmark)

    def spaces(self) -> Mapping[str, Any]:
        """The spaces of observations and of actions."""
        env = EnvMaker(self.benchmark.family, self.experiment.horizon)(1, 1)
        try:
            return {"observations": env.single_observation_space, "actions": env.single_action_space}
        finally:
            env.close()

    def train(
        self,
        *,
        loggers: Sequence[Logger],
        report: Report | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Progress:
        """Train to the configured number of iterations, from the checkpoint if there is one."""
        agent, report = self.started(), report or (lambda progress, metrics: None)
        training = self.experiment.training
        if self.experiment.video_every:
            report = self._with_films(report, agent, loggers)
            # Films are of the agent as it is when its iteration is reported.
            training = replace(training, overlap_evaluation=False)
        with make_workers(self.experiment, self.benchmark) as workers:
            return train(
                agent,
                self.benchmark,
                workers,
                training,
                self.experiment.evaluation,
                folder=self.folder,
                seed=self.experiment.seed,
                test_tasks=self.test_tasks,
                loggers=loggers,
                report=report,
                stop=stop or (lambda: False),
            )

    def _with_films(self, report: Report, agent: Agent[Any], loggers: Sequence[Logger]) -> Report:
        """The report of training, which logs films too."""
        # Imported here because few runs are filmed.
        from metarl.experiments.filming import with_films  # noqa: PLC0415
        from metarl.experiments.video import FilmSettings  # noqa: PLC0415

        own, tests = self.experiment, self.experiment.evaluation
        num_steps = min(2, tests.num_steps)
        sizes = FilmSettings(num_steps, tests.num_episodes, own.horizon, deterministic=tests.deterministic)
        tasks, task = self.benchmark.test, self.test_tasks[0]
        return with_films(report, agent, tasks, task, every=own.video_every, settings=sizes, loggers=loggers)

    def restored(self, checkpoint: str = CHECKPOINT) -> tuple[Agent[Any], Progress]:
        """The agent as a checkpoint left it, and how far it was trained."""
        agent, generators = self.untrained(), seeding.streams(self.experiment.seed)
        return agent, restore(agent, generators, checkpoint_path(self, checkpoint), self.benchmark)

    def measure(self, options: EvaluationOptions) -> dict[str, Any]:
        """Evaluate on the run's test tasks, on fresh ones or on those of a file, beside the baselines."""
        run = self
        if options.horizon is not None:
            run = replace(self, experiment=replace(self.experiment, horizon=options.horizon))
        settings = overridden(self.experiment.evaluation, options, "num_steps", "num_episodes", "deterministic")
        tasks = self._tasks(options)
        agent, progress = self.restored(options.checkpoint)  # made for the horizon that it was trained with
        # The tasks of a user's file are all that is asked about; others may be drawn from a distribution.
        distribution = self.benchmark.train if options.split == "train" else self.benchmark.test
        exhaustive = options.tasks is not None or distribution.exhausted_by(tasks)
        with make_workers(run.experiment, run.benchmark) as workers:
            measured = measure(
                {"meta-trained": agent.actor(), "untrained": self.untrained().actor()},
                workers,
                tasks,
                settings,
                family=run.benchmark.family,
                seed=options.seed,
                exhaustive=exhaustive,
            )
        split = "file" if options.tasks is not None else options.split
        return {
            **run.result_head(options, progress),
            "split": split,
            "num_tasks": len(tasks),
            "num_episodes": settings.num_episodes,
            "horizon": run.experiment.horizon or run.benchmark.family.horizon,
            "train_env_steps": progress.env_steps,
            "tasks_exhaust_the_distribution": exhaustive,
            "tasks_shared_with_training": run.benchmark.shared or split == "train",
            **measured,
        }

    def _tasks(self, options: EvaluationOptions) -> tuple[Task, ...]:
        """The tasks that are asked for."""
        if options.tasks is not None:
            return tuple(load_tasks(options.tasks, self.benchmark.family))
        if options.num_tasks is None:
            return self.test_tasks
        drawn_from = self.benchmark.train if options.split == "train" else self.benchmark.test
        return tuple(sample_distinct(drawn_from, options.num_tasks, seeding.streams(options.seed)["fresh_tasks"]))

    def show(self, result: Mapping[str, Any]) -> None:
        """Print a result of `measure` as tables."""
        show(result)

    def describe(self, progress: Progress, metrics: Mapping[str, float]) -> list[str]:
        """Steps, speed, and the returns before and after adaptation if the agent reports them.

        An agent may report `train/return_pre` and `train/return_post`, or other metrics of the group `train`.
        """
        parts = [f"{progress.env_steps:,} steps"]
        if "time/env_steps_per_s" in metrics:
            parts.append(f"{metrics['time/env_steps_per_s']:,.0f}/s")
        returns = [metrics[key] for key in ("train/return_pre", "train/return_post") if key in metrics]
        if returns:
            return [*parts, "return " + " -> ".join(f"{value:.2f}" for value in returns)]
        others = [(key.partition("/")[2], value) for key, value in metrics.items() if key.startswith("train/")]
        return [*parts, *(f"{key} {value:.4g}" for key, value in others[:2])]

    def experience(self, progress: Progress) -> str:
        """The number of environment steps."""
        return f"{progress.env_steps:,} environment steps"


def _try_reward(benchmark: Benchmark) -> None:
    """Step an environment once, so that a mistake in a user's reward is said at once."""
    env = benchmark.family.make_env(1, num_threads=1)
    try:
        env.set_tasks(benchmark.train.sample(1, np.random.default_rng(0)))
        env.reset(seed=0)
        env.advance(np.zeros((1, *(env.single_action_space.shape or ())), np.float32))
    finally:
        env.close()


def _family_file(folder: Path, experiment: Experiment) -> Path | None:
    """The place in a run folder of the copy of its family file; None for other benchmarks."""
    benchmark = experiment.benchmark
    if not (isinstance(benchmark, str) and is_family_file(benchmark)):
        return None
    return folder / FAMILY / Path(benchmark).name
