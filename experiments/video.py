"""Films of adaptation: one task before it and after each step of it, side by side, each panel one episode."""

import importlib.util
import io
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from metarl.agent import Agent
from metarl.deploy.adapting import adapt
from metarl.deploy.policies import AdaptedPolicy
from metarl.envs.single import SingleTaskEnv
from metarl.runs.files import write_error
from metarl.tasks import Task, TaskDistribution

FPS = 50
"""Most pictures per second of a film; of faster environments every n-th step is shown."""
_STRIP = 44  # pixels above a panel, for two lines of text
_GAP = 6  # pixels between panels
SUFFIXES = (".mp4", ".gif")
FOLDER = "videos"
"""Folder of the films in a run folder."""


@dataclass(frozen=True)
class Panel:
    """One filmed episode and what is said above it.

    Attributes:
        title: Moment of the adaptation, e.g. "after 1 step".
        pictures: Pictures of the start and of every step, each uint8 [height, width, 3].
        returns: Sum of the rewards up to each picture.
        success: True if the environment reported success at some step; None if it reports none.
    """

    title: str
    pictures: tuple[np.ndarray, ...]
    returns: tuple[float, ...]
    success: bool | None = None


Row = tuple[str, list[Panel]]
"""A task's description and its panels."""


@dataclass(frozen=True)
class FilmSettings:
    """Sizes of the adaptation that a film shows.

    Attributes:
        num_steps: Number of adaptation steps.
        num_episodes: Number of episodes that a gradient step is taken on.
        horizon: Number of steps per episode; the family's own if None.
        seed: Seed of resets and of the actions' noise.
        deterministic: True for actions without sampling.
    """

    num_steps: int
    num_episodes: int
    horizon: int | None = None
    seed: int = 0
    deterministic: bool = False


class _Filmed(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps a picture of every step of each episode while `filming`.

    Args:
        env: Environment with render mode "rgb_array".
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.filming = True
        self.episodes: list[tuple[list[np.ndarray], list[float], list[bool]]] = []

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result = super().reset(seed=seed, options=options)
        if self.filming:
            self.episodes.append(([self._picture()], [0.0], []))
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = super().step(action)
        if self.filming:
            pictures, returns, successes = self.episodes[-1]
            pictures.append(self._picture())
            returns.append(returns[-1] + float(reward))
            successes += [bool(info["success"])] if "success" in info else []
        return observation, float(reward), terminated, truncated, info

    def _picture(self) -> np.ndarray:
        picture: Any = self.env.render()
        return np.asarray(picture)

    def panel(self, title: str) -> Panel:
        """The first filmed episode that has not become a panel yet."""
        pictures, returns, successes = self.episodes.pop(0)
        return Panel(title, tuple(pictures), tuple(returns), any(successes) if successes else None)


def film_task(
    agent: Agent[Any],
    tasks: TaskDistribution,
    task: Task,
    *,
    num_steps: int,
    num_episodes: int,
    horizon: int | None = None,
    seed: int = 0,
    deterministic: bool = False,
) -> tuple[list[Panel], int]:
    """Film one episode before adaptation and one after each step of it.

    An agent that learns within trials (RL2, PEARL) is filmed in the episodes of one trial. One that takes gradient
    steps is filmed in one episode after each step; all of them start alike.

    Args:
        agent: Trained agent; left as it is.
        tasks: Distribution of the task's family.
        task: Task to adapt to.
        num_steps: Number of adaptation steps.
        num_episodes: Number of episodes that a gradient step is taken on.
        horizon: Number of steps per episode; the family's own by default.
        seed: Seed of resets and of the actions' noise.
        deterministic: True for actions without sampling.

    Returns:
        The panels, and the steps of the environment per second.

    Raises:
        ValueError: if the environments of the family cannot be drawn.
    """
    env = SingleTaskEnv(tasks, task, horizon=horizon, render_mode="rgb_array")
    filmed = _Filmed(env)
    try:
        if agent.actor().sequential:
            adapt(agent, filmed, episodes=num_steps + 1, seed=seed, deterministic=deterministic)
            return [filmed.panel(f"episode {k + 1}") for k in range(num_steps + 1)], env.metadata["render_fps"]
        panels = []
        for k in range(num_steps + 1):
            filmed.filming = False
            policy = _adapted(agent, filmed, (k, num_episodes), seed=seed, deterministic=deterministic)
            filmed.filming = True
            policy.run_episode(filmed, seed=seed)
            panels.append(filmed.panel(["before adaptation", "after 1 step", f"after {k} steps"][min(k, 2)]))
        return panels, env.metadata["render_fps"]
    finally:
        env.close()


def _adapted(
    agent: Agent[Any], env: gymnasium.Env[Any, Any], sizes: tuple[int, int], *, seed: int, deterministic: bool
) -> AdaptedPolicy:
    """The policy after gradient steps, each on its own episodes; sizes are (steps, episodes)."""
    num_steps, episodes = sizes
    if num_steps:
        total = num_steps * episodes
        adapted = adapt(agent, env, episodes=total, num_steps=num_steps, seed=seed, deterministic=deterministic)
        return adapted.policy
    actor: Any = agent.actor()
    return AdaptedPolicy(actor.deterministic() if deterministic else actor, env.action_space, seed)


def film_tasks(
    agent: Agent[Any],
    tasks: TaskDistribution,
    chosen: Sequence[Task],
    settings: FilmSettings,
    *,
    name: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Row], np.ndarray, float]:
    """Film an agent on several tasks, as one film with a row for each.

    Args:
        agent: Trained agent; left as it is.
        tasks: Distribution of the tasks' families.
        chosen: Tasks to film.
        settings: Sizes of the adaptation.
        name: Name of the run, which stands before each task; empty for none.
        progress: Function that is called with the tasks that are done and all, after each.

    Returns:
        The rows, the pictures, and pictures per second; see `frames`.

    Raises:
        ValueError: if the environments cannot be drawn.
    """
    rows, fps = [], 1
    for done, task in enumerate(chosen, 1):
        panels, fps = film_task(agent, tasks, task, **asdict(settings))
        rows.append((f"{name}: {describe_task(task)}" if name else describe_task(task), panels))
        if progress is not None:
            progress(done, len(chosen))
    return rows, *frames(rows, fps)


def describe_task(task: Task) -> str:
    """A task in a few words: "velocity = 2.00", or the family's name if it has many parameters."""
    parts = [
        f"{name} = {', '.join(f'{x:.2f}' for x in value)}" if isinstance(value, tuple) else f"{name} = {value:.2f}"
        for name, value in task.params
    ]
    text = "; ".join(parts)
    return text if text and len(text) <= 60 else task.family


def free_film(folder: Path, suffix: str = SUFFIXES[0]) -> Path:
    """The first NUMBER.mp4 of a folder, or of another suffix, that is not there yet."""
    return next(path for number in range(10**6) if not (path := folder / f"{number}{suffix}").exists())


def frames(rows: Sequence[tuple[str, Sequence[Panel]]], fps: int) -> tuple[np.ndarray, float]:
    """The pictures of a film: a row of panels per task, under the task's description.

    Args:
        rows: Pairs of a task's description and its panels.
        fps: Steps of the environment per second.

    Returns:
        Pictures, uint8 [frame, height, width, 3] with even height and width, and pictures per second.
    """
    every = -(-fps // FPS)
    longest = max(len(panel.pictures) for _, panels in rows for panel in panels)
    moments = [*range(0, longest, every)]
    if moments[-1] != longest - 1:
        moments.append(longest - 1)
    return np.stack([_frame(rows, moment) for moment in moments]), fps / every


def _frame(rows: Sequence[tuple[str, Sequence[Panel]]], moment: int) -> np.ndarray:
    height, width = rows[0][1][0].pictures[0].shape[:2]
    columns = max(len(panels) for _, panels in rows)
    row_height = height + 2 * _STRIP
    size = (columns * (width + _GAP) - _GAP, len(rows) * (row_height + _GAP) - _GAP)
    sheet = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), "white")  # MP4 wants even sizes
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(20), ImageFont.load_default(16)
    for number, (description, panels) in enumerate(rows):
        top = number * (row_height + _GAP)
        draw.text((8, top + 10), description, "black", large)
        for column, panel in enumerate(panels):
            left, at = column * (width + _GAP), min(moment, len(panel.pictures) - 1)
            ended = moment >= len(panel.pictures) - 1
            state = f"return {panel.returns[at]:.1f}   step {at}"
            if ended and panel.success is not None:
                state += "   success" if panel.success else "   no success"
            draw.text((left + 8, top + _STRIP), panel.title, "#0072b2", large)
            draw.text((left + 8, top + _STRIP + 24), state, "black", small)
            sheet.paste(Image.fromarray(panel.pictures[at]), (left, top + 2 * _STRIP))
    return np.asarray(sheet)


def write_film(path: Path, pictures: np.ndarray, fps: float) -> None:
    """Write an MP4 file (H.264) or a GIF, whole or not at all.

    Args:
        path: File that ends in .mp4 or .gif.
        pictures: Frames, uint8 [frame, height, width, 3].
        fps: Frames per second.

    Raises:
        ValueError: if the suffix is another, or imageio-ffmpeg is missing.
        WriteError: if the file cannot be written.
    """
    check_film(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".film-") as folder:
            part = Path(folder) / path.name
            if path.suffix == ".gif":
                part.write_bytes(encode_gif(pictures, fps))
            else:
                _write_mp4(part, pictures, fps)
            os.replace(part, path)
    except OSError as error:
        raise write_error(path, error) from error


def encode_gif(pictures: np.ndarray, fps: float) -> bytes:
    """The content of a GIF file.

    Args:
        pictures: Frames, uint8 [frame, height, width, 3].
        fps: Frames per second.
    """
    images = [Image.fromarray(picture).quantize(128) for picture in pictures]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=round(1000 / fps), loop=0)
    return file.getvalue()


def check_film(path: Path) -> None:
    """Raise a ValueError unless a film can be written as a file of this name, before anything is filmed."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"a film must be a file that ends in {' or '.join(SUFFIXES)}, got {path}")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ValueError("films in MP4 need imageio-ffmpeg: pip install imageio-ffmpeg; a .gif file needs nothing")


def _write_mp4(path: Path, pictures: np.ndarray, fps: float) -> None:
    import imageio_ffmpeg  # noqa: PLC0415  # an extra

    height, width = pictures.shape[1:3]
    size = (width, height)
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=fps, codec="libx264", quality=8, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()
    if not path.is_file() or not path.stat().st_size:
        raise OSError(5, "ffmpeg wrote nothing")
