"""One task as a plain Gymnasium environment: to look at, to step by hand, and to give to other libraries.

    env = single_env("half-cheetah-vel", velocity=2.0, render_mode="rgb_array")
    env = gymnasium.make("metarl/HalfCheetahVel-v0", velocity=2.0)

It is one row of the family's vector environment, stepped in this process, so it takes the same steps as that row
does in training. Without a task every reset draws one, as training does.
"""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from metarl.envs.benchmarks import make_benchmark
from metarl.envs.pictures import Window
from metarl.observations import as_nested
from metarl.tasks import Benchmark, Task, TaskDistribution


class SingleTaskEnv(gymnasium.Env[Any, Any]):
    """One sub-environment of a task family as a plain Gymnasium environment.

    Args:
        tasks: Distribution that every reset draws a task from; its family makes the environment.
        task: Task of every episode; None draws one at every reset.
        horizon: Number of steps after which an episode is truncated; the family's own by default.
        render_mode: Way to draw: "rgb_array" returns pictures, "human" shows them in a window; None draws nothing.

    Raises:
        ValueError: if the task is not of the family, or its environments cannot be drawn in this mode.
    """

    metadata = {"render_modes": ["rgb_array", "human"], "render_fps": 30}  # noqa: RUF012  # Gymnasium's form

    def __init__(
        self,
        tasks: TaskDistribution,
        task: Task | None = None,
        *,
        horizon: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        family = tasks.family
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f'render_mode must be "rgb_array", "human" or None, got {render_mode!r}')
        if task is not None:
            family.check(task)
        self._tasks, self._fixed = tasks, task
        env: Any = family.make_env(1, horizon=horizon, num_threads=1)
        if not hasattr(env, "render_row"):
            raise TypeError(f"expected a family whose environments are TaskVectorEnvs, got {type(env).__name__}")
        self._row = env
        self.render_mode = render_mode
        if render_mode is not None and not env.can_render:
            env.close()
            raise ValueError(f"environments of {family.name!r} cannot be drawn; leave render_mode out")
        self.metadata = {**self.metadata, "render_fps": env.render_fps}
        self.observation_space: spaces.Space[Any] = env.single_observation_space
        self.action_space: spaces.Space[Any] = env.single_action_space
        self.task: Task | None = task
        self._task_rng: np.random.Generator | None = None
        self._window: Window | None = None
        self._begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode of the fixed task, or of a new one.

        Args:
            seed: Seed of the episode's noise and of the drawn tasks; None goes on with the streams.
            options: Dictionary that may hold "task", the task from now on.
        """
        super().reset(seed=seed)
        if seed is not None or self._task_rng is None:
            self._task_rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
        if options and "task" in options:
            self._fixed = options["task"]
        task = self._fixed or self._tasks.sample(1, self._task_rng)[0]
        if task != self.task or not self._begun:
            self._row.set_tasks([task])
            self.task, self._begun = task, True
        observations, infos = self._row.reset(seed=seed)
        infos = {name: values[0] for name, values in infos.items() if not name.startswith("_")}
        self._show()
        return _first(self.observation_space, observations), infos

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one step; after the episode's end call `reset`."""
        if not self._begun:
            raise gymnasium.error.ResetNeeded("call reset before step")
        after = self._row.advance(np.asarray(action)[None])
        observation = as_nested(self.observation_space, _parts_of_row(after.observations))
        infos = {name: values[0] for name, values in after.infos.items()}
        self._show()
        return observation, float(after.rewards[0]), bool(after.terminated[0]), bool(after.truncated[0]), infos

    def render(self) -> Any:
        """The present picture, uint8 [height, width, 3]; None in a window and without a render_mode."""
        if self.render_mode != "rgb_array":
            return None
        if not self._begun:
            raise gymnasium.error.ResetNeeded("call reset before render")
        return self._row.render_row(0)

    def close(self) -> None:
        """Close the window and release threads."""
        if self._window is not None:
            self._window.close()
            self._window = None
        self._row.close()

    def _show(self) -> None:
        if self.render_mode != "human":
            return
        self._window = self._window or Window(str(self.task and self.task.family), self.metadata["render_fps"])
        self._window.show(self._row.render_row(0))


def single_env(
    benchmark: str | Benchmark,
    task: Task | None = None,
    *,
    test: bool = False,
    horizon: int | None = None,
    render_mode: str | None = None,
    **params: Any,
) -> SingleTaskEnv:
    """One task of a benchmark as a plain Gymnasium environment.

    Args:
        benchmark: Benchmark, or the name of one, or the path of a family file.
        task: Task of every episode. Without it, and without parameters, every reset draws one.
        test: Whether tasks are drawn from the test distribution instead of the training one.
        horizon: Number of steps after which an episode is truncated; the family's own by default.
        render_mode: Way to draw: "rgb_array" returns pictures, "human" shows them in a window; None draws nothing.
        params: Parameters of the task by name, instead of `task`: `velocity=2.0`.

    Raises:
        ValueError: if there is no such benchmark, or the task is not one of its family.
    """
    made = make_benchmark(benchmark) if isinstance(benchmark, str) else benchmark
    tasks = made.test if test else made.train
    if params:
        if task is not None:
            raise ValueError(f"give either a task or its parameters, got both: {', '.join(sorted(params))}")
        drawn = tasks.sample(1, np.random.default_rng(0))[0]  # Meta-World's tasks name an environment too
        task = Task.of(drawn.family, **params)
    return SingleTaskEnv(tasks, task, horizon=horizon, render_mode=render_mode)


def _parts_of_row(observations: Any) -> Any:
    if isinstance(observations, dict):
        return {name: part[0] for name, part in observations.items()}
    return observations[0]


def _first(space: spaces.Space[Any], observations: Any) -> Any:
    """The first row of batched observations in Gymnasium's nested form."""
    if isinstance(space, spaces.Dict):
        return {name: _first(part, observations[name]) for name, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_first(part, observations[k]) for k, part in enumerate(space.spaces))
    return observations[0]
