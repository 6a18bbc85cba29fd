"""Few-shot classification of your own images: learn from folders, predict new classes, see what is confused.

You learn the form of the data (a folder per class and a split file), to train a prototypical network on it, to
predict classes that it never saw from five labelled images each, and to diagnose its mistakes. The script draws
the images: shapes in colours, at random places and sizes. Expect more than 90% of the new images to be right.

python experiments/examples/image_folders.py [FOLDER]          # about a minute on one core
"""

import itertools
import json
import math
import random
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import metarl
from metarl.experiments.fewshot.configuration import FewshotExperiment
from metarl.experiments.fewshot.run import FewshotRun
from metarl.fewshot import PrototypicalConfig, StandardBackbone
from metarl.fewshot.data.class_tasks import EpisodesConfig
from metarl.fewshot.data.classes import ClassEpisodes
from metarl.fewshot.data.images import ClassFolderData
from metarl.fewshot.diagnosis import diagnose
from metarl.fewshot.outer import OuterConfig
from metarl.fewshot.training import FewshotEvaluationConfig, FewshotTrainingConfig

RADII = {"triangle": [1.0] * 3, "disk": [1.0] * 40, "star": [1.0, 0.4] * 5, "bar": [1.0, 0.25] * 2}
"""Distances of a shape's corners from its middle, all the way round."""
COLOURS = ["red", "orange", "gold", "green", "cyan", "blue", "purple", "pink", "white", "gray"]
SIZE = 32


def draw(shape: str, colour: str, path: Path, rng: random.Random) -> None:
    """Draw a shape of random place, size and direction."""
    image = Image.new("RGB", (SIZE, SIZE), "black")
    size, turn, radii = rng.uniform(8, 13), rng.uniform(0, math.tau), RADII[shape]
    x, y = (rng.uniform(size, SIZE - size) for _ in range(2))
    angles = [turn + math.tau * corner / len(radii) for corner in range(len(radii))]
    corners = [
        (x + size * r * math.cos(a), y + size * r * math.sin(a)) for r, a in zip(radii, angles, strict=True)
    ]
    ImageDraw.Draw(image).polygon(corners, fill=colour)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def draw_classes(folder: Path) -> None:
    """Draw the classes, a folder for every colour, and their split: colours of the test are not trained on."""
    rng = random.Random(0)
    classes = {f"{colour}/{shape}": (shape, colour) for colour, shape in itertools.product(COLOURS, RADII)}
    for name, (shape, colour) in classes.items():
        for number in range(40):
            draw(shape, colour, folder / "images" / name / f"{number}.png", rng)
    test = [name for name, (_, colour) in classes.items() if colour in ("blue", "pink")]
    train = [name for name in classes if name not in test]
    (folder / "split.json").write_text(json.dumps({"train": train, "test": test}))
    for shape in RADII:  # what the trained learner will be asked: five labelled images per class, and ten new ones
        for number in range(15):
            draw(shape, "blue", folder / ("known" if number < 5 else "new") / shape / f"{number}.png", rng)


def main(folder: Path) -> None:
    """Draw, train, predict and diagnose.

    Args:
        folder: Folder for the images and the run.
    """
    draw_classes(folder)
    experiment = FewshotExperiment(
        ClassFolderData(
            str(folder / "images"),
            EpisodesConfig(num_ways=4, num_shots=5, num_queries=5, within_groups="all"),  # tasks of one colour,
            size=SIZE,
            split_file=str(folder / "split.json"),
        ),
        # Colours differ from task to task, so batch norm takes the statistics of each task's labelled images.
        PrototypicalConfig(normalisation="support", outer=OuterConfig(outer_lr=3e-3, final_outer_lr=1e-5)),
        StandardBackbone(num_filters=24),
        FewshotTrainingConfig(iterations=15, updates_per_iteration=20, meta_batch_size=2, evaluate_every=0),
        FewshotEvaluationConfig(num_tasks=200, num_steps=0),
    )
    run = metarl.train(experiment, out=folder / "run")
    assert isinstance(run, FewshotRun)

    predictions = run.predict(folder / "known", folder / "new")
    right = [prediction.label == Path(prediction.file).parent.name for prediction in predictions]
    print(f"{sum(right)} of {len(right)} images of new classes are right")

    classes = run.episodes().held_out["test"]
    assert isinstance(classes, ClassEpisodes)
    mistakes = diagnose(run.agent(), classes, np.random.default_rng(0), num_tasks=100, num_steps=0)
    print(f"accuracy on test classes {mistakes.accuracy:.1%}, calibration error {mistakes.calibration():.1%}")
    for one, other, count in mistakes.confused[:3]:
        print(f"  {one} was taken for {other} {count} times")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
