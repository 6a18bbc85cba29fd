"""Few-shot data: balance, no overlap, seeds, rotations, images as they should be, one line for what is wrong."""

import io
import json
import math
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metarl.fewshot.data.augmentation import Augmentation, Distortion
from metarl.fewshot.data.classes import ClassData, ClassEpisodes
from metarl.fewshot.data.decoding import decode_image
from metarl.fewshot.data.division import read_split
from metarl.fewshot.data.images import read_class_folders
from metarl.fewshot.data.omniglot import EVALUATION_ALPHABETS, VALIDATION_ALPHABETS, read_omniglot, split_names
from metarl.fewshot.data.sinusoids import Harmonics, Sinusoids
from metarl.fewshot.episodes import Episodes


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _numbered(counts: list[int]) -> ClassData:
    """Every example is one number, 100 * class + place: no two are alike."""
    examples = [torch.arange(count) + 100 * c for c, count in enumerate(counts)]
    return ClassData.join({f"class{c}": x.float().unsqueeze(1) for c, x in enumerate(examples)})


EPISODES = ClassEpisodes(_numbered([7, 5, 9, 6, 5, 8]), num_ways=3, num_shots=2, num_queries=3)


def test_every_task_has_exactly_its_ways_and_shots() -> None:
    episodes = EPISODES.sample(50, _rng())
    for examples, shots in ((episodes.support, 2), (episodes.query, 3)):
        classes = examples.inputs[..., 0].div(100, rounding_mode="floor")
        assert classes.shape == (50, 3 * shots)
        for task, targets in zip(classes, examples.targets, strict=True):
            assert targets.bincount().tolist() == [shots] * 3
            of_target = [task[targets == way].unique().tolist() for way in range(3)]
            assert all(len(found) == 1 for found in of_target)
            assert len({found[0] for found in of_target}) == 3


def test_support_and_query_name_classes_alike() -> None:
    episodes = EPISODES.sample(50, _rng())
    support = episodes.support.inputs[:, ::2, 0].div(100, rounding_mode="floor")
    query = episodes.query.inputs[:, ::3, 0].div(100, rounding_mode="floor")
    assert torch.equal(support, query)


def test_support_and_query_never_overlap_and_no_example_comes_twice() -> None:
    episodes = EPISODES.sample(500, _rng())
    drawn = torch.cat([episodes.support.inputs, episodes.query.inputs], 1)[..., 0]
    assert all(len(task.unique()) == 15 for task in drawn)


def test_every_class_and_every_example_is_drawn_equally_often() -> None:
    drawn = EPISODES.sample(4000, _rng()).support.inputs.flatten()
    for c, count in enumerate([7, 5, 9, 6, 5, 8]):
        for place in range(count):
            # a class is drawn with probability 1/2, and 2 of its examples: 4,000 / count times on average
            times = int((drawn == 100 * c + place).sum())
            assert abs(times - 4000 / count) < 5 * math.sqrt(4000 / count)


def _equal(first: Episodes, second: Episodes) -> bool:
    pairs = zip([*first.support, *first.query], [*second.support, *second.query], strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("source", [EPISODES, Sinusoids(), Harmonics()], ids=["classes", "sinusoids", "harmonics"])
def test_episodes_follow_from_the_generator(source: ClassEpisodes | Sinusoids | Harmonics) -> None:
    assert _equal(source.sample(3, _rng(1)), source.sample(3, _rng(1)))
    assert not _equal(source.sample(3, _rng(1)), source.sample(3, _rng(2)))


def test_too_few_classes_or_examples_are_named() -> None:
    with pytest.raises(ValueError, match="7-way episodes need at least 7 classes, got 6"):
        ClassEpisodes(EPISODES.data, num_ways=7, num_shots=1, num_queries=1)
    with pytest.raises(ValueError, match="class 'class1' has 5 examples, expected at least 6: 1 for the support"):
        ClassEpisodes(EPISODES.data, num_ways=2, num_shots=1, num_queries=5)


def test_class_data_from_labels_sorts_and_counts() -> None:
    data = ClassData.of(torch.tensor([5.0, 1.0, 6.0, 7.0]), torch.tensor([9, 2, 9, 9]))
    assert data.names == ("2", "9")
    assert data.counts.tolist() == [1, 3]
    assert data.examples.tolist() == [1.0, 5.0, 6.0, 7.0]
    with pytest.raises(ValueError, match=r"one label per example, shape \(4,\), got \(3,\)"):
        ClassData.of(torch.zeros(4), torch.zeros(3, dtype=torch.int64))


def test_rotations_are_classes_of_their_own_and_every_image_of_a_class_turns_alike() -> None:
    images = torch.arange(2 * 2 * 9, dtype=torch.uint8).view(4, 1, 3, 3)
    data = ClassData.of(images, torch.tensor([0, 0, 1, 1])).with_rotations()
    assert data.names == tuple(f"{c}/rot{angle:03}" for angle in (0, 90, 180, 270) for c in (0, 1))
    assert data.counts.tolist() == [2] * 8
    for index, name in enumerate(data.names):
        original = images[2 * int(name[0]) : 2 * int(name[0]) + 2]
        turned = data.examples[2 * index : 2 * index + 2]
        assert torch.equal(turned, original.rot90(int(name[-3:]) // 90, (-2, -1)))


def test_bytes_become_fractions() -> None:
    data = ClassData.of(torch.full((4, 1, 2, 2), 255, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
    inputs = ClassEpisodes(data, num_ways=2, num_shots=1, num_queries=1).sample(1, _rng()).support.inputs
    assert inputs.dtype == torch.float32
    assert inputs.unique().tolist() == [1.0]


STILL = Distortion(max_rotation=0, max_shift=0, max_scaling=0, max_shear=0)


def test_an_augmentation_of_no_size_changes_nothing_and_a_shift_is_a_shift() -> None:
    images = torch.rand(5, 1, 8, 8)
    assert torch.allclose(Augmentation(STILL)(images, None, torch.Generator()), images, atol=1e-5)
    shifting = Augmentation(replace(STILL, max_shift=0.25))
    moved = shifting(images, None, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert not torch.allclose(moved, images, atol=0.1)


def test_a_class_is_distorted_alike_in_support_and_query_set_and_each_otherwise() -> None:
    image = torch.rand(1, 1, 8, 8).mul(255).to(torch.uint8)
    data = ClassData.of(image.expand(12, -1, -1, -1), torch.arange(3).repeat_interleave(4))
    augmentation = Augmentation(STILL, replace(STILL, max_rotation=90))
    source = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=2, augmentation=augmentation)
    support, query = (x.inputs.view(2, 3, 2, -1) for x in source.sample(2, _rng()))
    assert torch.equal(support, query)
    assert torch.equal(support[:, :, 0], support[:, :, 1])
    ways = support[:, :, 0].flatten(0, 1)
    assert torch.pdist(ways).min() > 0.01


def test_all_classes_of_a_task_are_distorted_alike_and_tasks_otherwise() -> None:
    image = torch.rand(1, 1, 8, 8).mul(255).to(torch.uint8)
    data = ClassData.of(image.expand(12, -1, -1, -1), torch.arange(3).repeat_interleave(4))
    augmentation = Augmentation(STILL, tasks=replace(STILL, max_rotation=90))
    source = ClassEpisodes(data, num_ways=3, num_shots=2, num_queries=2, augmentation=augmentation)
    support, query = (x.inputs.view(4, 6, -1) for x in source.sample(4, _rng()))
    assert torch.equal(support, query)
    assert torch.equal(support, support[:, :1].expand(-1, 6, -1))
    assert torch.pdist(support[:, 0]).min() > 0.01


def test_a_bend_shifts_the_parts_of_an_image_smoothly_and_before_its_class() -> None:
    # Of images that say where their places are, the distorted ones say where they were.
    ramp = torch.linspace(-31 / 32, 31 / 32, 32)
    images = torch.stack([ramp.expand(32, 32), ramp.unsqueeze(1).expand(32, 32)]).expand(200, -1, -1, -1)
    bending = Augmentation(replace(STILL, bend=0.03))
    bent = bending(images, None, torch.Generator().manual_seed(0))
    inner = (bent - images)[..., 4:28, 4:28]
    corner = (bent - images)[:, :, 0, 0]
    assert 0.02 < float(inner.std()) < 0.06  # twice a bend, as places go from -1 to 1, smoothed between the cells
    assert float(corner.std()) > 0.01
    steps = inner.diff(dim=-1)
    assert float(steps.std()) < float(inner.std()) / 4
    assert torch.equal(
        bent, Augmentation(replace(STILL, bend=0.03))(images, None, torch.Generator().manual_seed(0))
    )
    mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]).expand(200, -1, -1)
    mirrored = bending(images, mirror, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mirrored[:, 0], -bent[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(mirrored[:, 1], bent[:, 1], atol=1e-5, rtol=0)


def test_a_distortion_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="of classes or of tasks, got both"):
        Augmentation(STILL, STILL, STILL)
    with pytest.raises(ValueError, match=r"only images are bent, got a bend of 0\.1"):
        Augmentation(STILL, tasks=replace(STILL, bend=0.1))
    with pytest.raises(ValueError, match="bend"):
        replace(STILL, bend=-0.1)


def test_an_images_own_distortion_comes_after_its_classes() -> None:
    """A mirrored class that shifts to the right is not one that shifts to the right and is then mirrored."""
    images = torch.zeros(1, 1, 4, 4)
    images[..., 1] = 1.0
    mirror = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    assert Augmentation(STILL)(images, mirror, torch.Generator())[0, 0, 0].tolist() == [0, 0, 1, 0]

    class ToTheRight(Distortion):
        def draw(self, num_maps: int, generator: torch.Generator) -> torch.Tensor:
            return torch.tensor([[[1.0, 0.0, -0.5], [0.0, 1.0, 0.0]]]).expand(num_maps, -1, -1)

    shifting = Augmentation(ToTheRight())
    assert shifting(images, None, torch.Generator())[0, 0, 0].tolist() == [0, 0, 1, 0]
    assert shifting(images, mirror, torch.Generator())[0, 0, 0].tolist() == [0, 0, 0, 1]


def test_each_limit_of_a_distortion_bounds_what_it_names() -> None:
    """Turned, the map is a rotation; shifted, scaled or sheared, it is the identity but for its own entries."""

    def maps(**limits: float) -> Tensor:
        return replace(STILL, **limits).draw(500, torch.Generator().manual_seed(0))  # type: ignore[arg-type]

    turned = maps(max_rotation=30.0)
    linear, shift = turned[:, :, :2], turned[:, :, 2]
    assert torch.allclose(linear @ linear.transpose(1, 2), torch.eye(2).expand(500, -1, -1), atol=1e-6)
    assert torch.allclose(linear.det(), torch.ones(500))
    angles = torch.atan2(linear[:, 1, 0], linear[:, 0, 0]).rad2deg()
    assert 29 < float(angles.max()) <= 30
    assert -30 <= float(angles.min()) < -29
    assert shift.abs().max() == 0
    limits = {"max_shift": ([(0, 2), (1, 2)], 0.2), "max_scaling": ([(0, 0), (1, 1)], 0.1)}
    for name, (places, bound) in (limits | {"max_shear": ([(0, 1)], 0.1)}).items():
        changes = maps(**{name: 0.1}) - torch.eye(2, 3)
        for row, column in places:
            assert 0.95 * bound < float(changes[:, row, column].abs().max()) <= bound + 1e-6
            changes[:, row, column] = 0
        assert changes.abs().max() == 0


def test_mirrored_maps_mirror_half_of_the_images() -> None:
    maps = replace(STILL, mirrored=True).draw(1000, torch.Generator().manual_seed(0))
    assert 400 < int((maps[:, 0, 0] == -1).sum()) < 600
    assert (maps[:, 0, 0].abs() == 1).all()


def test_sinusoids_are_sinusoids() -> None:
    episodes = Sinusoids(num_shots=60).sample(20, _rng())
    for x, y in zip(*episodes.support, strict=True):
        basis = torch.cat([x.sin(), x.cos()], 1).double()
        solution = torch.linalg.lstsq(basis, y.double()).solution
        assert torch.allclose(basis @ solution, y.double(), atol=1e-5)
        assert 0.1 <= solution.norm() <= 5.0
        assert solution[1] <= 1e-6  # A sin(x - phi) = A cos(phi) sin(x) - A sin(phi) cos(x), phi in [0, pi]


def test_even_queries_cover_the_domain() -> None:
    query = Sinusoids(num_queries=5, even_queries=True).sample(2, _rng()).query.inputs
    assert query[..., 0].tolist() == [[-5.0, -2.5, 0.0, 2.5, 5.0]] * 2


def test_harmonics_are_two_waves_of_which_one_is_twice_as_fast() -> None:
    """Some frequency within the bounds explains all points, with its double and no other waves."""
    episodes = Harmonics(num_shots=60, noise=0.0, frequencies=(1.0, 2.0)).sample(5, _rng())
    frequencies = torch.linspace(1.0, 2.0, 1001, dtype=torch.float64).view(-1, 1, 1)
    for x, y in zip(*episodes.support, strict=True):
        places, values = x.double().unsqueeze(0), y.double().unsqueeze(0).expand(1001, -1, -1)
        waves = [f(n * frequencies * places) for n in (1, 2) for f in (torch.sin, torch.cos)]
        unexplained = []
        for basis in (torch.cat(waves, -1), torch.cat(waves[:2], -1)):  # both waves, and the slow one alone
            errors = basis @ torch.linalg.lstsq(basis, values).solution - values
            unexplained.append(float(errors.square().mean((1, 2)).sqrt().min() / y.std()))
        assert unexplained[0] < 0.02
        assert unexplained[1] > 0.1


def test_harmonics_lie_around_a_centre_of_their_own() -> None:
    inputs = Harmonics(num_shots=400).sample(50, _rng()).support.inputs[..., 0]
    assert torch.allclose(inputs.std(1), torch.ones(50), atol=0.2)
    assert inputs.mean(1).std() > 1.5


def _pixels(path: Path, **options: bool) -> Tensor:
    return decode_image(path.read_bytes(), str(path), 28, colour=False, **options)


def test_one_bit_images_are_antialiased_and_ink_is_one(omniglot_folder: Path) -> None:
    path = omniglot_folder / "omniglot-py/images_background/Greek/character01/0007_01.png"
    with Image.open(path) as image:
        assert image.mode == "1"
        ink = 1 - np.asarray(image).mean()
    smooth = _pixels(path, invert=True)
    assert smooth.dtype == torch.uint8
    assert len(smooth.unique()) > 10
    assert smooth[0, 0, 0] == 0  # the margin is paper
    # Lanczos overshoots at the edges of a stroke and is cut off at the paper's 0, so a little ink is gained.
    assert float(smooth.float().mean()) / 255 == pytest.approx(ink, rel=0.2)
    nearest = _pixels(path, invert=True, antialias=False)
    assert set(nearest.unique().tolist()) == {0, 255}


def test_omniglot_is_the_same_from_an_archive_and_from_a_folder(
    omniglot_archive: Path, omniglot_folder: Path
) -> None:
    packed, unpacked = read_omniglot(omniglot_archive), read_omniglot(omniglot_folder)
    for a, b in zip(packed, unpacked, strict=True):
        assert a.names == b.names
        assert torch.equal(a.examples, b.examples)
    assert [len(part.names) for part in packed] == [13, 5, 7]
    assert packed.train.examples.shape == (13 * 4, 1, 28, 28)
    assert {name.split("/")[0] for name in packed.test.names} == {"Sanskrit", "Tagalog"}


def test_a_character_that_two_archives_share_is_that_of_the_first(omniglot_archive: Path, tmp_path: Path) -> None:
    shutil.copy(omniglot_archive / "images_background_small1.zip", tmp_path)
    blank = io.BytesIO()
    Image.new("1", (105, 105), 1).save(blank, format="PNG")
    with zipfile.ZipFile(tmp_path / "images_background_small2.zip", "w") as archive:
        archive.writestr("small2/Greek/character01/0.png", blank.getvalue())
    for once, twice in zip(read_omniglot(omniglot_archive), read_omniglot(tmp_path), strict=True):
        assert twice.names == once.names
        assert torch.equal(twice.counts, once.counts)
        assert torch.equal(twice.examples, once.examples)


def _all_characters() -> list[str]:
    """Names in the numbers of the whole of Omniglot: 41 + 46 + 22 + 22 + 41 of validation's alphabets are 172."""
    background = dict(zip(VALIDATION_ALPHABETS, (41, 46, 22, 22, 41), strict=True))
    background |= {f"Background{i}": 32 for i in range(24)} | {"Korean": 24}
    sizes = (20, 26, 26, 26, 26, 26, 45, 45, 41, 26, 47, 40, 30, 45, 46, 28, 23, 25, 42, 26)
    evaluation = dict(zip(EVALUATION_ALPHABETS, sizes, strict=True))
    assert sum(background.values()) == 964
    assert sum(evaluation.values()) == 659
    return [f"{a}/character{i:02}" for a, n in (background | evaluation).items() for i in range(1, n + 1)]


@pytest.mark.parametrize(
    ("split", "sizes"), [("alphabets", [792, 172, 659]), ("vinyals", [1028, 172, 423]), ("lake", [964, 0, 659])]
)
def test_the_published_splits_have_the_published_sizes_and_share_nothing(split: str, sizes: list[int]) -> None:
    chosen = split_names(_all_characters(), split)  # type: ignore[arg-type]
    assert [len(chosen[part]) for part in ("train", "validation", "test")] == sizes
    assert len({name for names in chosen.values() for name in names}) == 1623


def test_only_vinyals_cuts_through_an_alphabet() -> None:
    for split, shared in (("alphabets", set()), ("vinyals", {"Gurmukhi"}), ("lake", set())):
        chosen = split_names(_all_characters(), split)  # type: ignore[arg-type]
        train, test = ({name.split("/")[0] for name in chosen[part]} for part in ("train", "test"))
        assert train & test == shared


def test_a_missing_omniglot_says_where_to_get_it(tmp_path: Path, omniglot_archive: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"no Omniglot .*expected images_background.*brendenlake/omniglot"):
            read_omniglot(folder)
    with pytest.raises(ValueError, match="the split vinyals needs all 1623 characters of Omniglot, got 25"):
        read_omniglot(omniglot_archive, "vinyals")
    with pytest.raises(ValueError, match="needs the alphabet Early_Aramaic, which is not there"):
        split_names(["Balinese/character01"], "eight_alphabets")


def test_a_damaged_archive_or_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "images_background.zip").write_bytes(b"PK not a zip")
    with pytest.raises(ValueError, match=r"images_background\.zip is damaged or not a zip archive"):
        read_omniglot(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Greek/character01/0001_01.png", bytes(1000))
    content = bytearray((tmp_path / "images_background.zip").read_bytes())
    content[60] ^= 0xFF  # in the compressed image
    (tmp_path / "images_background.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"zip:Greek/character01/0001_01\.png is damaged"):
        read_omniglot(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background.zip", "w") as archive:
        archive.writestr("readme", "nothing here")
    with pytest.raises(ValueError, match=r"no images of the form Alphabet/character/file\.png"):
        read_omniglot(tmp_path)
    with pytest.raises(ValueError, match=r"0001_01\.png is damaged or not an image"):
        decode_image(b"\x89PNG\r\n\x1a\nrest", "0001_01.png", 28, colour=False)


@pytest.fixture
def birds(tmp_path: Path) -> Path:
    """Three classes of four colour images each, of different sizes."""
    rng = np.random.default_rng(0)
    for name in ("crow", "finch", "gull"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(4):
            pixels = rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{index}.jpg")
    return tmp_path


def _split(folder: Path, **split: list[str]) -> Path:
    path = folder / "split.json"
    path.write_text(json.dumps(split))
    return path


def test_class_folders_are_split_by_a_file(birds: Path) -> None:
    splits = read_class_folders(birds / "images", _split(birds, train=["gull", "crow"], test=["finch"]), size=16)
    assert splits.train.names == ("gull", "crow")
    assert splits.train.examples.shape == (8, 3, 16, 16)
    assert splits.train.examples.dtype == torch.uint8
    assert splits.validation.names == ()
    assert splits.test.names == ("finch",)


def test_a_bad_split_file_names_the_class(birds: Path) -> None:
    images = birds / "images"
    with pytest.raises(ValueError, match="names the class 'owl', which is not a folder"):
        read_class_folders(images, _split(birds, train=["owl"], test=["gull"]))
    with pytest.raises(ValueError, match="names the class 'gull' twice, in train and in test"):
        read_split(_split(birds, train=["gull"], test=["gull"]))
    with pytest.raises(ValueError, match="train names no classes"):
        read_split(_split(birds, train=[], test=["gull"]))
    with pytest.raises(ValueError, match=r'expected \{"train": '):
        read_split(_split(birds, training=["gull"]))
    (birds / "split.json").write_text("gull, crow")
    with pytest.raises(ValueError, match=r"split\.json is not JSON"):
        read_split(birds / "split.json")
    with pytest.raises(ValueError, match="cannot read the split file"):
        read_split(birds / "none.json")
    with pytest.raises(ValueError, match=r"no folder .*nests; expected one that holds a folder of images"):
        read_class_folders(birds / "nests", _split(birds, train=["gull"], test=["crow"]))


def test_an_empty_class_and_a_corrupt_image_are_named(birds: Path) -> None:
    split = _split(birds, train=["gull"], test=["crow"])
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, format="PNG")
    (birds / "images" / "crow" / "9.png").write_bytes(buffer.getvalue()[:60])
    with pytest.raises(ValueError, match=r"crow.9\.png is damaged: image file is truncated"):
        read_class_folders(birds / "images", split)
    for path in (birds / "images" / "gull").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="class 'gull' has no images"):
        read_class_folders(birds / "images", split)
