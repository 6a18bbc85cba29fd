"""ONNX models and the files beside them: what has to be there, what is written, and what went wrong in one line.

FILE.onnx      the model; its metadata hold the card, so that a runner needs this file alone
FILE.json      the card
metarl_*.py    copies of the files of this package that run it without torch
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metarl.runs.files import atomic_write

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """The files of an exported policy or learner.

    Attributes:
        model: ONNX model.
        card: JSON card.
        runner: Copy of the runner.
        largest_difference: Largest difference between the model's outputs and torch's on random inputs.
    """

    model: Path
    card: Path
    runner: Path
    largest_difference: float


def check_target(path: Path, copies: Mapping[str, str]) -> None:
    """Raise a ValueError in one line if a model cannot be exported to this file.

    Args:
        path: File that the model will be written to, ending in .onnx.
        copies: Names of the files that will stand beside it, and of this folder's files that they are copies of.
    """
    if path.suffix != ".onnx":
        raise ValueError(f"the model's file must end in .onnx, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"the folder {path.parent} does not exist; make it, or export to another")
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f'export needs {" and ".join(missing)}; pip install "metarl-toolkit[onnx]"')
    for file in (path, path.with_suffix(".json")):
        if file.exists():
            raise ValueError(f"{file} exists and is left as it is; give the model another name")
    for file, content in copied(path, copies).items():
        if file.exists() and file.read_bytes() != content:
            raise ValueError(f"{file} exists and is another version's; export to another folder")


def copied(path: Path, copies: Mapping[str, str]) -> dict[Path, bytes]:
    """The contents of files that need no torch, as they stand beside a model."""
    return {path.with_name(name): Path(__file__).with_name(own).read_bytes() for name, own in copies.items()}


def convert(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    output_names: Sequence[str],
    dynamic_shapes: Any,
    *,
    translations: Mapping[Any, Callable[..., Any]] | None = None,
) -> Any:  # an onnx.ModelProto, which need not be installed
    """The ONNX model of a module, without the inputs that it does not use.

    Args:
        module: Module, called with the inputs in their order.
        inputs: Examples of the inputs, by name.
        output_names: Names of the outputs.
        dynamic_shapes: Axes that may have any length, as `torch.export` has them; None for none.
        translations: Functions that make ONNX of operators of torch, instead of the exporter's own.

    Raises:
        ValueError: If an operator cannot be exported; one line.
    """
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=output_names,
                dynamic_shapes=dynamic_shapes,
                custom_translation_table=None if translations is None else dict(translations),
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise ValueError(f"the model cannot be exported: {reason(error)}") from error
    assert program is not None
    model = program.model_proto
    used = {name for node in model.graph.node for name in node.input} | {out.name for out in model.graph.output}
    needed = [entry for entry in model.graph.input if entry.name in used]
    del model.graph.input[:]
    model.graph.input.extend(needed)
    return model


def add_metadata(model: Any, texts: Mapping[str, str]) -> bytes:
    """A model's content with texts in its metadata."""
    for name, text in texts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = name, text
    content: bytes = model.SerializeToString()
    return content


def session(content: bytes) -> Any:  # an onnxruntime.InferenceSession, which need not be installed
    """A session that runs a model.

    Raises:
        ValueError: If it cannot be run; one line.
    """
    import onnxruntime  # noqa: PLC0415  # only an export needs it

    try:
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises errors of its own
        raise ValueError(f"the exported model cannot be run: {reason(error)}") from error


def write_all(files: Mapping[Path, bytes]) -> None:
    """Write all files, or none."""
    written: list[Path] = []
    try:
        for file, content in files.items():
            if not file.exists():
                atomic_write(file, content)
                written.append(file)
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise


def versions() -> dict[str, str]:
    """The versions of the packages that made a model."""
    return {name: _version(name) for name in ("metarl-toolkit", "torch", "onnx", "onnxscript")}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def reason(error: BaseException) -> str:
    """One line that says most: of the exporter's long texts the last cause's first line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on packages that nobody needs here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
