"""metarl video: what it writes, and that the film shows what the agent did."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import metarl
from metarl.experiments.cli import main
from metarl.experiments.filming import NAME
from metarl.experiments.video import Panel, film_task, frames, write_film
from metarl.runs.files import WriteError

TINY = ["--training.iterations", "1", "--training.meta-batch-size", "2", "--evaluation.num-tasks", "3"]
TINY += ["--evaluation.num-steps", "1", "--evaluation.num-episodes", "2", "--num-threads", "1", "--horizon", "5"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gradient agent and one that learns within trials, both hardly trained."""
    folder = tmp_path_factory.mktemp("runs")
    agent = ["--agent.adaptation.num-episodes", "2", "--agent.policy.hidden-sizes", "8"]
    assert main(["train", "point-promp", "--out", str(folder / "promp"), *TINY, *agent]) == 0
    assert main(["train", "gridnavi-rl2", "--out", str(folder / "rl2"), *TINY]) == 0
    return folder


@pytest.mark.thorough
def test_a_film_of_gradient_steps_and_one_of_a_trial(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "film.gif"
    assert main(["video", str(runs / "promp"), "--out", str(out), "--num-tasks", "2"]) == 0
    said = capsys.readouterr().out
    assert "before adaptation" in said
    assert "after 1 step" in said
    with Image.open(out) as film:
        assert film.n_frames == 6  # the start and five steps
        assert film.size == (2 * 360 + 6, 2 * (360 + 88) + 6)
    assert main(["video", str(runs / "rl2"), "--out", str(tmp_path / "trial.gif"), "--num-steps", "2"]) == 0
    assert "episode 3" in capsys.readouterr().out


@pytest.mark.thorough
def test_films_are_numbered_and_nothing_is_overwritten(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    for number in range(2):
        assert main(["video", str(runs / "promp"), "--num-steps", "0"]) == 0
        film = runs / "promp" / "videos" / f"{number}.mp4"
        assert film.read_bytes()[4:8] == b"ftyp"
    capsys.readouterr()
    assert main(["video", str(runs / "promp"), "--out", str(film)]) == 2
    assert "give --out another name" in capsys.readouterr().err


@pytest.mark.thorough
def test_a_panel_has_the_return_of_its_episode(runs: Path) -> None:
    run = metarl.open_run(runs / "promp")

    def film() -> tuple[list[Panel], int]:
        agent, tasks, task = run.agent(), run.benchmark.test, run.test_tasks[0]
        return film_task(agent, tasks, task, num_steps=1, num_episodes=2, horizon=5, deterministic=True)

    (panels, fps), (again, _) = film(), film()
    assert fps == 5
    assert [panel.title for panel in panels] == ["before adaptation", "after 1 step"]
    assert all(len(panel.pictures) == len(panel.returns) == 6 for panel in panels)
    assert [panel.returns for panel in panels] == [panel.returns for panel in again]
    np.testing.assert_array_equal(panels[0].pictures[0], panels[1].pictures[0])  # both start alike
    assert panels[0].returns != panels[1].returns


def test_fast_worlds_are_thinned_and_short_episodes_held() -> None:
    dark, bright = np.zeros((10, 10, 3), np.uint8), np.full((10, 10, 3), 255, np.uint8)
    long = Panel("a", (dark,) * 7, tuple(range(7)))
    short = Panel("b", (dark, bright), (0.0, 1.0), success=True)
    pictures, fps = frames([("task", [long, short])], fps=125)
    assert fps == pytest.approx(125 / 3)
    assert len(pictures) == 3  # steps 0, 3 and 6
    assert (pictures[-1][-5, -5] == 255).all()
    assert not (pictures[0][-5, -5] == 255).all()
    assert pictures.shape[1] % 2 == pictures.shape[2] % 2 == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--first", "3"], "there are 3 tasks, counted from 0"),
        (["--out", "film.avi"], "must end in .mp4 or .gif"),
        (["--num-tasks", "0"], "num_tasks must be"),
    ],
)
def test_mistakes_are_one_line(
    runs: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["video", str(runs / "promp"), *words]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(WriteError, match="cannot write"):
        write_film(tmp_path / "missing" / "film.gif", pictures, 5)
    (tmp_path / "film.gif").mkdir()
    with pytest.raises(WriteError, match="cannot write"):
        write_film(tmp_path / "film.gif", pictures, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.thorough
def test_films_in_training_go_to_tensorboard_and_change_nothing(runs: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    words = [*TINY, "--agent.adaptation.num-episodes", "2", "--agent.policy.hidden-sizes", "8"]
    words += ["--training.iterations", "3", "--training.evaluate-every", "0"]
    for name, every in (("plain", "0"), ("filmed", "2")):
        assert main(["train", "point-promp", "--out", str(tmp_path / name), *words, "--video-every", every]) == 0
    states = [metarl.open_run(tmp_path / name).agent().state_dict()["policy"] for name in ("plain", "filmed")]
    assert len(states[0]) > 2
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    events = EventAccumulator(str(tmp_path / "filmed" / "tensorboard"))
    events.Reload()
    (film,) = events.Images(NAME)  # of three iterations, the second
    plain = EventAccumulator(str(tmp_path / "plain" / "tensorboard"))
    plain.Reload()
    assert plain.Tags()["images"] == []
    assert film.step == [event.step for event in events.Scalars("train/return_post")][1]
    with Image.open(io.BytesIO(film.encoded_image_string)) as picture:
        assert picture.format == "GIF"
        assert picture.n_frames == 6  # the start and five steps
        assert picture.size == (film.width, film.height)
        assert film.width <= 720


def test_what_cannot_be_drawn_is_said_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "bandit-n10-k5-rl2", "--out", str(tmp_path / "run"), "--training.iterations", "1"]
    assert main([*words, "--video-every", "1"]) == 2
    error = capsys.readouterr().err
    assert "draw" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
