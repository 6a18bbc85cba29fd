"""Loggers: where the metrics of a run go, besides metrics.csv.

A run is given as many as it is to have: those of this file, or any object of your own with the same methods.
What they log is a copy. Resumption reads the checkpoint and metrics.csv alone.
"""

import contextlib
import io
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from metarl.runs.files import append, write_error

LoggerName = Literal["csv", "tensorboard", "wandb"]


def check_loggers(names: Sequence[str]) -> None:
    """Raise a ValueError unless metrics.csv is among the loggers, and none is named twice."""
    if "csv" not in names or len(set(names)) < len(names):
        raise ValueError(f"loggers must be different ones and include csv, got {' '.join(names) or 'none'}")


class Logger:
    """Receives the metrics of one run; this one does nothing, and yours overrides the methods that it needs."""

    def begin(self, iteration: int, position: int) -> None:
        """Drop what was logged after this iteration: a run that was killed goes on from its checkpoint.

        Args:
            iteration: Last outer update that is done, 0 at the start of a run.
            position: Environment steps, or tasks of few-shot runs, until then.
        """

    def hyperparameters(self, config: Mapping[str, Any]) -> None:
        """Log the configuration as JSON types, nested as it is in config.json; called before `begin`."""

    def log(self, iteration: int, position: int, metrics: Mapping[str, float]) -> None:
        """Log an iteration's metrics, at a position on the x axis; called in order."""

    def evaluation(self, position: int, metrics: Mapping[str, float]) -> None:
        """Log what the trained agent reached in the evaluation at the end of the run."""

    def film(self, position: int, name: str, gif: bytes, size: tuple[int, int]) -> None:
        """Show a film of the agent.

        Args:
            position: Place on the x axis.
            name: Name of the film.
            gif: Content of an animated GIF file.
            size: Height and width in pixels.
        """

    def figure(self, position: int, name: str, png: bytes, size: tuple[int, int]) -> None:
        """Show a figure of the run.

        Args:
            position: Place on the x axis.
            name: Name of the figure.
            png: Content of a PNG file.
            size: Height and width in pixels.
        """

    def close(self) -> None:
        """Write what is still to be written; called once, also when training fails."""


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """The leaves of a nested configuration by their dotted names; lists as text, what is None left out."""
    flat: dict[str, bool | int | float | str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        elif value is not None:
            flat[f"{prefix}{name}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return flat


class TensorBoardLogger(Logger):
    """Writes scalars, hyperparameters and the final evaluation to an event file in a run's folder `tensorboard`.

    It writes without a thread of its own and after every iteration, so that a kill loses nothing and a full disk
    is reported where it happens. TensorBoard is imported when the first event is written.

    Args:
        folder: Run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._path: Path | None = None
        self._config: dict[str, bool | int | float | str] = {}

    def begin(self, iteration: int, position: int) -> None:
        """Have TensorBoard disregard the events of earlier processes after this position."""
        from tensorboard.compat.proto.event_pb2 import SessionLog  # noqa: PLC0415  # a second of imports

        if self._folder.exists():
            self._write(step=position + 1, session_log=SessionLog(status=SessionLog.START))
        if not self._config:
            return
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415

        _, start, _ = hparams(dict(self._config), {})  # type: ignore[no-untyped-call]
        self._write(summary=start)

    def hyperparameters(self, config: Mapping[str, Any]) -> None:
        """Have `begin` show the configuration under HPARAMS."""
        self._config = flatten(config)

    def log(self, iteration: int, position: int, metrics: Mapping[str, float]) -> None:
        """Write one event with all metrics of an iteration."""
        self._write(step=position, summary=_scalars(metrics))

    def evaluation(self, position: int, metrics: Mapping[str, float]) -> None:
        """Show the final evaluation beside the hyperparameters, and as scalars."""
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415

        experiment, _, end = hparams(dict(self._config), dict(metrics))  # type: ignore[no-untyped-call]
        for summary in (experiment, end):
            self._write(summary=summary)
        self._write(step=position, summary=_scalars(metrics))

    def film(self, position: int, name: str, gif: bytes, size: tuple[int, int]) -> None:
        """Show a film under IMAGES, where TensorBoard plays it."""
        self._show(position, name, gif, size)

    def figure(self, position: int, name: str, png: bytes, size: tuple[int, int]) -> None:
        """Show a figure of the run under IMAGES."""
        self._show(position, name, png, size)

    def _show(self, position: int, name: str, content: bytes, size: tuple[int, int]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

        image = Summary.Image(height=size[0], width=size[1], colorspace=3, encoded_image_string=content)
        self._write(step=position, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

    def _write(self, **event: Any) -> None:  # the fields of TensorBoard's Event
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415

        records = []
        if self._path is None:
            self._path = self._make_file()
            records.append(Event(wall_time=time.time(), file_version="brain.Event:2"))
        records.append(Event(wall_time=time.time(), **event))
        append(self._path, b"".join(_framed(record.SerializeToString()) for record in records))

    def _make_file(self) -> Path:
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise write_error(self._folder, error) from error
        return self._folder / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"


def _scalars(metrics: Mapping[str, float]) -> Any:  # TensorBoard's Summary
    from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

    return Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()])


def _framed(record: bytes) -> bytes:
    """A record as TFRecord files have it: length, checksum of the length, content, checksum of the content."""
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c  # noqa: PLC0415

    length = len(record).to_bytes(8, "little")
    return b"".join(
        (length, masked_crc32c(length).to_bytes(4, "little"), record, masked_crc32c(record).to_bytes(4, "little"))
    )


class WandbLogger(Logger):
    """Logs to Weights & Biases, which the extra `wandb` installs; a resumed run goes on in the same run there.

    Its environment variables say the rest: WANDB_MODE=offline keeps everything on this machine.

    Args:
        folder: Run folder; wandb's own files go there.
        name: Name of the run.
        project: Project of the run.
    """

    def __init__(self, folder: Path, *, name: str, project: str = "metarl") -> None:
        try:
            import wandb  # noqa: PLC0415
        except ImportError as error:
            raise ValueError(
                'the logger wandb needs wandb, which is not installed; pip install "metarl-toolkit[wandb]"'
            ) from error
        self._wandb: Any = wandb  # has types only where it is installed
        self._settings = {"dir": str(folder), "name": name, "project": project, "resume": "allow"}
        self._id_path = folder / "wandb-id.txt"
        self._run: Any = None
        self._config: Mapping[str, Any] = {}

    def begin(self, iteration: int, position: int) -> None:
        """Open the run, a new one or the one that this run folder had before."""
        if iteration == 0 or not self._id_path.exists():
            self._id_path.unlink(missing_ok=True)
            append(self._id_path, secrets.token_hex(4).encode())
        self._run = self._wandb.init(id=self._id_path.read_text(), **self._settings)
        # W&B's own steps cannot go back: the x axis is a metric, and the last rows of a killed process stay there.
        self._run.define_metric("position")
        self._run.define_metric("*", step_metric="position")
        self._run.config.update(flatten(self._config), allow_val_change=True)

    def hyperparameters(self, config: Mapping[str, Any]) -> None:
        """Have `begin` set the run's configuration."""
        self._config = config

    def log(self, iteration: int, position: int, metrics: Mapping[str, float]) -> None:
        """Log an iteration as a new row."""
        self._run.log({"iteration": iteration, "position": position, **metrics})

    def evaluation(self, position: int, metrics: Mapping[str, float]) -> None:
        """Put the final evaluation into the run's summary."""
        self._run.summary.update(dict(metrics))

    def film(self, position: int, name: str, gif: bytes, size: tuple[int, int]) -> None:
        """Log a film at a position."""
        self._run.log({"position": position, name: self._wandb.Video(io.BytesIO(gif), format="gif")})

    def figure(self, position: int, name: str, png: bytes, size: tuple[int, int]) -> None:
        """Log a figure at a position."""
        from PIL import Image  # noqa: PLC0415  # few runs log figures

        self._run.log({"position": position, name: self._wandb.Image(Image.open(io.BytesIO(png)))})

    def close(self) -> None:
        """Finish the run, once it was opened."""
        if self._run is not None:
            self._run.finish()


@contextlib.contextmanager
def closing(loggers: Sequence[Logger]) -> Iterator[Sequence[Logger]]:
    """The loggers, all closed at the end, whatever happens."""
    with contextlib.ExitStack() as stack:
        for logger in loggers:
            stack.callback(logger.close)
        yield loggers
