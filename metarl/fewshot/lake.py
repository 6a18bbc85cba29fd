"""Lake's one-shot classification runs of Omniglot (Lake et al. 2015; 2019, arXiv:1902.03477), and their baseline.

A run is a task of 20 characters of one alphabet: a training image of each, by one person, and 20 test images, by
another. The runs are run01 to run20, each with `training/`, `test/` and a `class_labels.txt` of pairs "test image,
training image". The score is the mean error over the runs. What checks reader and score is the authors' baseline,
the Modified Hausdorff distance of the images' ink (Dubuisson & Jain 1994), which is wrong in 38.8% of the trials.
"""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from torch import Tensor

from metarl.fewshot.data.decoding import decode_image, image_names, read_archive, read_image_file
from metarl.fewshot.data.omniglot import Resize
from metarl.fewshot.episodes import Examples
from metarl.fewshot.learner import Learner
from metarl.fewshot.prediction import class_outputs
from metarl.runs.reading import open_regular, read_text

LABELS = "class_labels.txt"
_MOST_LABEL_BYTES = 2**20
_FORM = f"expected run01, run02, ... with training/, test/ and {LABELS} each, as in Omniglot's all_runs.zip"


class LakeRun(NamedTuple):
    """The images of one run; ink is 255.

    Attributes:
        name: Name of the run, such as "run01".
        training: Training images, one of each class, bytes [class, 1, size, size].
        test: Test images, bytes [item, 1, size, size].
        labels: Class of each test image, int64 [item].
    """

    name: str
    training: Tensor
    test: Tensor
    labels: Tensor


def read_lake_runs(place: Path, *, size: int = 28, resize: Resize = "antialias") -> list[LakeRun]:
    """Read the runs of a folder or of the zip archive all_runs.zip.

    Args:
        place: The archive, or a folder that holds run01, run02, ..., or one that holds the archive.
        size: Width and height that images are resized to, in pixels.
        resize: Filter of the resizing.

    Raises:
        ValueError: If there are no runs, or a file is missing, damaged or names an image that is not there.
    """
    if (place / "all_runs.zip").is_file():
        place = place / "all_runs.zip"
    if not place.exists():
        raise ValueError(f"no one-shot runs at {place}: no such file or folder; {_FORM}")
    labels = dict(_label_files(place))
    if not labels:
        raise ValueError(f"no one-shot runs in {place}: no {LABELS}; {_FORM}")
    images: dict[str, dict[str, Tensor]] = {run: {} for run in labels}
    for run, name, content in _image_files(place):
        if run and run not in images:
            raise ValueError(f"{place}:{run} has images and no {LABELS}; {_FORM}")
        if run:
            images[run][name] = decode_image(
                content, f"{place}:{run}/{name}", size, colour=False, invert=True, antialias=resize == "antialias"
            )
    return [_assembled(place, run, images[run], labels[run]) for run in sorted(labels)]


def _assembled(place: Path, run: str, images: dict[str, Tensor], text: str) -> LakeRun:
    """A run of its images by name, and the text that pairs them."""
    where = f"{place}:{run}/{LABELS}"
    classes = sorted(name for name in images if name.startswith("training/"))
    items, labels, paired = [], [], set()
    for line in filter(str.strip, text.splitlines()):
        pair = [_below_run(word)[1] for word in line.replace(",", " ").split()]
        if len(pair) != 2:
            raise ValueError(f"{where}: expected lines of a test image and a training image, got {line[:80]!r}")
        missing = [name for name in pair if name not in images]
        if missing or pair[1] not in classes:
            raise ValueError(f"{where} names {(missing or pair)[0]!r}, which is not among the run's images")
        items.append(images[pair[0]])
        paired.add(pair[0])
        labels.append(classes.index(pair[1]))
    if not items or len(classes) < 2:
        raise ValueError(f"{place}:{run} has {len(items)} test and {len(classes)} training images; {_FORM}")
    unnamed = sorted(name for name in {*images} - paired if name.startswith("test/"))
    if unnamed:
        raise ValueError(f"{where} does not name {unnamed[0]!r}, one of the run's images; add its training image")
    training = torch.stack([images[name] for name in classes])
    return LakeRun(run, training, torch.stack(items), torch.tensor(labels))


def _below_run(path: str) -> tuple[str, str]:
    """The run and the path below it of "all_runs/run01/test/item01.png", or "" and the path if it names no run."""
    parts = PurePosixPath(path).parts
    runs = [place for place, part in enumerate(parts) if re.fullmatch(r"run\d+", part)]
    if not runs:
        return "", "/".join(parts)
    return parts[runs[0]], "/".join(parts[runs[0] + 1 :])


def _label_files(place: Path) -> Iterator[tuple[str, str]]:
    """Every run and the text that pairs its images."""
    if place.is_dir():
        for path in sorted(place.rglob(LABELS)):
            yield path.parent.name, read_text(path, "class labels", _MOST_LABEL_BYTES)
        return
    try:
        with open_regular(place) as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                name = PurePosixPath(member.filename)
                if name.name == LABELS and "__MACOSX" not in name.parts:
                    with archive.open(member) as opened:
                        yield name.parent.name, opened.read(_MOST_LABEL_BYTES).decode("utf-8", "replace")
    except ValueError:
        raise
    except Exception as error:  # zipfile's parsing of a damaged archive raises many kinds
        raise ValueError(f"{place} is damaged or not a zip archive: {error}") from error


def _image_files(place: Path) -> Iterator[tuple[str, str, bytes]]:
    """Run, path below it and content of every image."""
    if place.is_dir():
        files = (path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
        for name in image_names(str(place), (name for name in files if not name.endswith(LABELS))):
            yield *_below_run(name), read_image_file(place / name)
        return
    for member, content in read_archive(place, beside=LABELS):
        yield *_below_run(member), content


def hausdorff_error(run: LakeRun) -> float:
    """The fraction of a run's test images whose nearest training image is of another class.

    Distances are Modified Hausdorff distances between the places of ink, each image's about their own mean.
    """
    training, test = ([_ink(image) for image in images] for images in (run.training, run.test))
    distances = torch.tensor([[modified_hausdorff(item, one) for one in training] for item in test])
    return float((distances.argmin(1) != run.labels).float().mean())


def modified_hausdorff(first: Tensor, second: Tensor) -> float:
    """The larger of two mean distances: of each set's points [point, 2] to the nearest point of the other set."""
    distances = torch.cdist(first, second)
    return float(torch.maximum(distances.amin(1).mean(), distances.amin(0).mean()))


def _ink(image: Tensor) -> Tensor:
    """Places of ink [point, 2], about their mean; of an empty image its centre."""
    points = (image[0] > 127).nonzero().float()
    return points - points.mean(0) if len(points) else torch.zeros(1, 2)


def learner_error(learner: Learner, run: LakeRun, *, views: int, num_steps: int, device: torch.device) -> float:
    """The fraction of a run's test images that a learner takes for another class.

    Args:
        learner: Trained learner; it is left as it is.
        run: Images of the size that the learner takes.
        views: Number of views of every image whose mean features are compared.
        num_steps: Number of adaptation steps, of learners that have them.
        device: Device of the networks.

    Raises:
        ValueError: If the learner cannot compare so many views, or has not an output for every class.
    """
    training, test = run.training.to(device), run.test.to(device)
    support = Examples.of_one_task(training, torch.arange(len(training), device=device))
    try:
        outputs = class_outputs(learner, support, test, views=views, num_steps=num_steps)
    except ValueError as error:
        raise ValueError(f"{run.name}: {error}") from error
    return float((outputs.argmax(-1).cpu() != run.labels).float().mean())
