"""A sweep is a folder: an Optuna study in SQLite, a run per trial, and the best settings as an experiment.

    sweep.json     the experiment's words, the ranges, the seed of the sampler
    sweep.db       Optuna's study, which other tools of Optuna open too
    trial000/      the run of the first trial, which has the experiment's own settings if the ranges hold them
    best.py        the best trial's experiment, for `metarl train best.py:BEST`

Trials are proposed by a tree-structured Parzen estimator and stopped early where their learning curve is below the
median of the others at the same iteration. Each is trained in a process of its own. A sweep that was stopped goes
on: trials that were begun are resumed.
"""

import importlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metarl.experiments.arguments import UsageError
from metarl.experiments.prepared import planned
from metarl.experiments.run_process import State
from metarl.experiments.runs import CONFIG, make_run
from metarl.experiments.seeds import Member
from metarl.experiments.sweep.ranges import SettingRange, parse_ranges
from metarl.experiments.sweep.scores import Measure, progress_score, score_in
from metarl.runs.files import atomic_write, write_json
from metarl.runs.reading import read_json

SWEEP, DATABASE, BEST = "sweep.json", "sweep.db", "best.py"
TASK_SEED = 1
"""Seed of the test tasks of trials: other ones than those that runs with --seeds are reported on."""
_TASK_SEED = "--evaluation.task-seed"
_WARMUP_TRIALS, _WARMUP_FRACTION = 5, 0.2


@dataclass(frozen=True)
class SweepPlan:
    """All that decides what a sweep tries.

    Attributes:
        words: Words of `metarl train` for what is common to all trials.
        over: Ranges of the settings that differ, as the command line writes them.
        seed: Seed of the sampler that proposes settings.
        measure: Quantity of the evaluation that counts; None for the usual one.
    """

    words: tuple[str, ...]
    over: tuple[str, ...]
    seed: int = 0
    measure: Measure | None = None

    @property
    def ranges(self) -> tuple[SettingRange, ...]:
        """The ranges of the settings that differ."""
        return parse_ranges(self.over)

    def words_with(self, settings: Mapping[str, str]) -> list[str]:
        """Words of `metarl train` for a trial with some settings."""
        options = {each.name: each.option for each in self.ranges}
        return [*self.words, *(word for name, value in settings.items() for word in (options[name], value))]

    def check(self) -> None:
        """Raise a ValueError if the words name no single run, or a setting does not take the ends of its range."""
        if "--seeds" in self.words or any(word.startswith("--seeds=") for word in self.words):
            raise UsageError("the trials of a sweep have one seed, --seed; train the best with --seeds")
        for each in self.ranges:
            ends = each.values or tuple(str(int(x)) if each.whole else repr(x) for x in (each.low, each.high))
            for end in ends:
                planned(self.words_with({each.name: end}))[0].prepare()


class Sweep:
    """A sweep's folder and study.

    Args:
        plan: Experiment, ranges and seed.
        folder: Folder of the sweep; made if it is not there.

    Attributes:
        planned: Run that all trials have in common, before there are folders.
        draws_tasks: Whether trials are evaluated on tasks that a seed draws.

    Raises:
        ValueError: if the folder holds another sweep, or something else.
        ModuleNotFoundError: if Optuna is not installed.
    """

    def __init__(self, plan: SweepPlan, folder: Path) -> None:
        self.optuna = importlib.import_module("optuna")
        self.optuna.logging.set_verbosity(self.optuna.logging.ERROR)
        self.plan, self.folder = plan, folder
        (self.planned,) = planned(plan.words)
        if not (folder / SWEEP).exists():
            if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
                raise ValueError(f"{folder} exists and is not a sweep; give another --out")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"cannot make the sweep's folder {folder}: {error.strerror}") from error
            write_json(folder / SWEEP, asdict(plan))
        else:
            self._check_same()
        experiment = self.planned.prepare().experiment
        self.draws_tasks = hasattr(experiment.evaluation, "task_seed")
        self.study = self._open_study(int(_WARMUP_FRACTION * experiment.training.iterations))
        if not self.study.trials:
            own = self._own_settings(experiment)
            if own is not None:
                self.study.enqueue_trial(own)

    def _open_study(self, warmup_iterations: int) -> Any:
        """Optuna's study in the folder's database, made if it is not there."""
        path, samplers, pruners = self.folder / DATABASE, self.optuna.samplers, self.optuna.pruners
        try:
            study = self.optuna.create_study(
                storage=f"sqlite:///{path}",
                study_name="sweep",
                direction="maximize",
                load_if_exists=True,
                pruner=pruners.MedianPruner(n_startup_trials=_WARMUP_TRIALS, n_warmup_steps=warmup_iterations),
            )
        except importlib.import_module("sqlalchemy.exc").SQLAlchemyError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} cannot be read as a sweep's database: {reason}") from error
        # A sweep that goes on must not begin with the same proposals again.
        seed = (self.plan.seed + len(study.trials)) % 2**32
        study.sampler = samplers.TPESampler(seed=seed, constant_liar=True)
        return study

    def _check_same(self) -> None:
        made = read_json(self.folder / SWEEP, "sweep")
        for name, now in asdict(self.plan).items():
            before = made.get(name) if isinstance(made, dict) else None
            if before != (list(now) if isinstance(now, tuple) else now):
                raise ValueError(
                    f"{self.folder} is a sweep with {name} {before!r}, expected {now!r}; repeat what it was made "
                    "with, or give another --out"
                )

    def _own_settings(self, experiment: Any) -> dict[str, Any] | None:
        """The experiment's own values of the settings that differ; None if the ranges do not hold them."""
        own = {}
        for each in self.plan.ranges:
            value: Any = experiment
            for part in each.name.split("."):
                value = getattr(value, part, None)
            if not each.holds(value):
                return None
            own[each.name] = str(value) if each.values else value
        return own

    def members(self, num_trials: int) -> list[Member]:
        """The trials that are still to be trained, those that were begun first, until there are so many in all."""
        waiting, running = self.optuna.trial.TrialState.WAITING, self.optuna.trial.TrialState.RUNNING
        trials = [trial for trial in self.study.trials if trial.state != waiting]
        begun = [trial.number for trial in trials if trial.state == running]
        new = range(len(trials), num_trials)
        return [Trial(self, number).member(begun=True) for number in begun] + [
            Trial(self, number).member(begun=False) for number in new
        ]

    def finished(self) -> list[Any]:
        """Optuna's trials that have a score, the best first."""
        complete = self.optuna.trial.TrialState.COMPLETE
        trials = [trial for trial in self.study.trials if trial.state == complete]
        return sorted(trials, key=lambda trial: -trial.value)

    def importances(self) -> dict[str, float]:
        """Share of each setting in what makes the better trials better, the largest first; empty of few trials.

        After Watanabe et al. 2023, PED-ANOVA.
        """
        if len(self.finished()) < 2 * _WARMUP_TRIALS:
            return {}
        evaluator = self.optuna.importance.PedAnovaImportanceEvaluator()
        return dict(self.optuna.importance.get_param_importances(self.study, evaluator=evaluator))

    def best_words(self) -> list[str]:
        """Words of `metarl train` for the best trial."""
        best = self.finished()[0]
        return self.plan.words_with({name: str(value) for name, value in best.params.items()})

    def write_best(self) -> Path:
        """Write the best trial's experiment as a file."""
        words = self.best_words()
        arguments = ",\n    ".join(repr(word) for word in words)
        path = self.folder / BEST
        text = (
            f'"""The best of {len(self.finished())} trials, score {self.finished()[0].value:.6g}.\n\n'
            f"metarl train {path.name}:BEST\n"
            f'"""\n\nimport metarl\n\nBEST = metarl.experiment(\n    {arguments},\n)\n'
        )
        atomic_write(path, text.encode())
        return path


class Trial:
    """One trial of a sweep while it is trained; a `metarl.experiments.seeds.Watcher`.

    Args:
        sweep: Sweep that it belongs to.
        number: Number of the trial, from 0.
    """

    def __init__(self, sweep: Sweep, number: int) -> None:
        self._sweep, self._number = sweep, number
        self._trial: Any = None
        self._pruned = False
        self.folder = sweep.folder / f"trial{number:03d}"

    def member(self, *, begun: bool) -> Member:
        """The trial as a run of a group.

        Args:
            begun: Whether it was begun by an earlier process.
        """
        make = self._find if begun else self._ask
        return Member(self.folder, f"trial {self._number}", self._sweep.planned.own, make=make, watcher=self)

    def _ask(self) -> None:
        """Have settings proposed, and make the run's folder."""
        self._trial = self._sweep.study.ask()
        if self._trial.number != self._number:
            raise ValueError(f"{self._sweep.folder / DATABASE} is used by another process; stop one of them")
        self._make({each.name: each.suggest(self._trial) for each in self._sweep.plan.ranges})

    def _find(self) -> None:
        """Go on with a trial that was begun."""
        frozen = self._sweep.study.trials[self._number]
        self._trial = self._sweep.optuna.trial.Trial(self._sweep.study, frozen._trial_id)
        if not (self.folder / CONFIG).exists():
            self._make({each.name: each.suggest(self._trial) for each in self._sweep.plan.ranges})

    def _make(self, settings: Mapping[str, str]) -> None:
        words = self._sweep.plan.words_with(settings)
        if self._sweep.draws_tasks and not any(word.partition("=")[0] == _TASK_SEED for word in words):
            words += [_TASK_SEED, str(TASK_SEED)]
        run = planned(words)[0].prepare()
        run.introduction()  # what cannot be made leaves no folder behind
        make_run(run, self.folder)

    def heard(self, iteration: int, metrics: Mapping[str, float]) -> bool:
        """Report the learning curve; true if it is worse than those of most trials."""
        value = progress_score(metrics)
        if value is None or self._pruned:
            return False
        self._trial.report(value, iteration)
        self._pruned = bool(self._trial.should_prune())
        return self._pruned

    def ended(self, state: State) -> None:
        """Tell the study what became of the trial; one that was interrupted stays open."""
        states = self._sweep.optuna.trial.TrialState
        if self._trial is None:
            return
        if state == "done":
            self._sweep.study.tell(self._trial, score_in(self.folder, self._sweep.plan.measure))
        elif self._pruned:
            self._sweep.study.tell(self._trial, state=states.PRUNED)
        elif state == "failed":
            self._sweep.study.tell(self._trial, state=states.FAIL)


def command_line(words: Sequence[str]) -> str:
    """A line that a shell reads as `metarl train` with these words."""
    return shlex.join(["metarl", "train", *words])
