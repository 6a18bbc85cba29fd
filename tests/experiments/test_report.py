"""metarl report: well-formed pages without a network, with a way through for everybody, that say what was run."""

import base64
import itertools
import json
import re
import shlex
import shutil
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import metarl
from metarl.experiments.arguments import parse
from metarl.experiments.cli import main
from metarl.experiments.comparison.grouping import run_folders
from metarl.experiments.configuration import encode
from metarl.experiments.fewshot.configuration import encode as encode_fewshot
from metarl.experiments.prepared import TrainArguments
from metarl.experiments.presets.table import PRESETS, preset
from metarl.experiments.report.build import build
from metarl.experiments.report.page import NONE, interval, node, number
from metarl.experiments.report.settings import Described, described, differences, train_command
from tests.experiments.test_comparison import make_run

pytestmark = pytest.mark.thorough

RESULTS = Path(metarl.__file__).resolve().parent.parent / "experiments" / "results"
HOSTILE = '"><img src=x onerror=alert(1)>&amp;$x\x1b'
MINUS = "\N{MINUS SIGN}"
VOID = {"meta", "img", "br", "link", "input"}


@dataclass
class Page(HTMLParser):
    """A page as a browser without mercy reads it: every element is closed by its own end tag."""

    text: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    parents: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.feed(self.text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"{tag} has an attribute twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.parents.append(self.stack[-1] if self.stack else "")
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def __contains__(self, text: object) -> bool:
        return str(text) in " ".join(" ".join(self.texts).split())


def groups_of_seeds(folder: Path) -> list[Path]:
    """Two groups of three seeds; the name of one is an attack."""
    rng = np.random.default_rng(0)
    for name in ("plain", HOSTILE):
        for seed in range(3):
            returns = np.array([[0.0], [1.0]]) + rng.normal(size=(2, 40))
            make_run(folder / name / f"seed{seed}", name, seed, returns=returns, benchmark=HOSTILE)
    return [folder / "plain", folder / HOSTILE]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    """Reports of one run, of groups of seeds, of few-shot runs, of Meta-World's families and of a study."""
    folder = tmp_path_factory.mktemp("runs")
    copied = folder / "filmed"
    shutil.copytree(RESULTS / "half-cheetah-dir-promp-seed0", copied)
    (copied / "videos").mkdir()
    (copied / "videos" / "0.mp4").write_bytes(b"\x00\x00\x00\x18ftypmp42")
    (copied / "videos" / "1.gif").write_bytes(b"GIF89a")
    folders = {
        "run": [copied],
        "groups": groups_of_seeds(folder),
        "few-shot": [RESULTS / "omniglot-maml-seed0", RESULTS / "omniglot-protonet-seed0"],
        "families": [RESULTS / "ml10-rl2-short-episodes-seed0"],
        "study": [RESULTS / "study-half-cheetah-dynamics-seed0"],
    }
    return {name: Page(build(own, command="metarl report X").decode()) for name, own in folders.items()}


KINDS = ("run", "groups", "few-shot", "families", "study")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_and_nothing_runs(pages: dict[str, Page], kind: str) -> None:
    page = pages[kind]
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "poster", "srcset", "action", "data") or name.endswith(":href"):
                assert value.startswith(("data:", "#")), (tag, name, value[:40])
            if name != "src":
                assert not re.search(r"url\((?!#)", value), (tag, name, value[:40])
    style = page.text[page.text.index("<style>") : page.text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policies = [meta["content"] for meta in page.of("meta") if "http-equiv" in meta]
    assert len(policies) == 1
    assert policies[0].startswith("default-src 'none'")


@pytest.mark.parametrize("kind", KINDS)
def test_keyboards_and_screen_readers_find_their_way(pages: dict[str, Page], kind: str) -> None:
    page = pages[kind]
    assert page.of("html")[0]["lang"] == "en"
    assert all(len(page.of(tag)) == 1 for tag in ("h1", "header", "nav", "main", "footer", "title"))
    first_link = page.of("a")[0]
    assert first_link["href"] == f"#{page.of('main')[0]['id']}"
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for _, attributes in page.elements:
        references = attributes.get("aria-labelledby", "").split()
        references += re.findall(r"url\(#([^)]+)\)", " ".join(attributes.values()))
        references += [attributes["href"][1:]] if attributes.get("href", "").startswith("#") else []
        assert set(references) <= set(ids)
    assert len(page.of("svg")) > 0
    assert all(svg["role"] == "img" and len(svg["aria-label"]) > 40 for svg in page.of("svg"))
    assert all(img["alt"] for img in page.of("img"))
    assert all(video["aria-label"] for video in page.of("video"))
    assert all(th["scope"] in ("col", "row") for th in page.of("th"))
    after_tables = [page.elements[place + 1][0] for place, (tag, _) in enumerate(page.elements) if tag == "table"]
    assert len(after_tables) > 1
    assert set(after_tables) == {"caption"}
    frames = [attributes for tag, attributes in page.elements if attributes.get("class") == "scroll"]
    assert len(frames) == len(after_tables)
    assert all(frame["tabindex"] == "0" and frame["aria-label"] for frame in frames)


def test_figures_take_the_colours_of_the_page(pages: dict[str, Page]) -> None:
    page = pages["run"]
    drawn = page.text[page.text.index("<svg") : page.text.rindex("</svg>")]
    assert "#000000" not in drawn
    assert "currentColor" in drawn
    assert "<metadata" not in drawn
    assert "environment steps (millions)" in page  # texts are texts


def test_a_run_is_told_with_its_settings_films_and_commands(pages: dict[str, Page]) -> None:
    page = pages["run"]
    for text in (
        f"{MINUS}3.23 → 296.3",
        f"[{MINUS}22.2, 15.9]",
        f"direction = {MINUS}1.00",
        "agent.adaptation.gae_lambda",
        "untrained",
    ):
        assert text in page, text
    assert "metarl train half-cheetah-dir-promp --training.iterations 200 --training.meta-batch-size 40" in page
    assert "git_commit 020e40bd15a8" in page
    assert "One seed says nothing about others" in page
    assert "Worst tasks" not in page  # both tasks have rows of their own
    sources = [video["src"] for video in page.of("video")] + [img["src"] for img in page.of("img")]
    assert base64.b64decode(sources[0].removeprefix("data:video/mp4;base64,")) == b"\x00\x00\x00\x18ftypmp42"
    assert base64.b64decode(sources[1].removeprefix("data:image/gif;base64,")) == b"GIF89a"


def test_texts_of_users_are_texts(pages: dict[str, Page]) -> None:
    page = pages["groups"]
    assert page.of("img") == []
    shown = HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert page.texts.count(shown) > 2
    assert HOSTILE[:20] not in page.text
    assert "\x1b" not in page.text


def test_groups_are_compared(pages: dict[str, Page]) -> None:
    page = pages["groups"]
    assert "P(better)" in page
    assert "95% intervals over seeds and tasks" in page
    assert "n = 3 seeds" in page
    assert "--seeds 0,1,2" in page
    assert "One seed says nothing" not in page


def test_families_get_a_row_each(pages: dict[str, Page]) -> None:
    page = pages["families"]
    assert "return by task family, before adaptation and after" in page
    assert "meta-world/door-close-v3" in page
    assert "the 10 of 50 tasks with the lowest return after adaptation" in page


def test_few_shot_runs_and_studies_have_reports_of_their_own(pages: dict[str, Page]) -> None:
    assert "accuracy (%) 89.3 on test tasks of 5 ways, 1 shots, 15 queries, untrained 26.5." in pages["few-shot"]
    assert "validation" in pages["few-shot"]
    study = pages["study"]
    for text in (
        "Held-out tasks: extrapolation",
        "tasks of greatest regret",
        "metarl study half-cheetah-dynamics",
    ):
        assert text in study, text


@pytest.mark.parametrize("name", ["half-cheetah-dir-promp", "gridnavi-rl2", "sparse-point-robot-pearl-cpu"])
def test_the_command_makes_the_configuration_again(name: str) -> None:
    before = preset(name)
    changed = replace(
        before,
        training=replace(before.training, iterations=7),
        agent=replace(before.agent, gamma=0.5) if hasattr(before.agent, "gamma") else before.agent,
        evaluation=replace(before.evaluation, deterministic=True),
        horizon=9,
        seed=3,
        num_threads=1,
    )
    run = Described(Path("X"), name, "rl", encode(changed), changed, {}, {})
    line, note = train_command([run])
    assert note == ""
    words = shlex.split(line)
    assert words[:3] == ["metarl", "train", name]
    assert parse(TrainArguments, words[3:], "metarl train", TrainArguments(before)).experiment == changed


def test_commands_of_algorithms_few_shot_runs_and_files() -> None:
    experiment: Any = replace(preset("point-promp"), benchmark="ant-goal")
    run = Described(Path("X"), "ant-goal-promp", "rl", encode(experiment), experiment, {}, {})
    assert train_command([run])[0].startswith("metarl train promp --benchmark ant-goal --agent")
    own = replace(run, sources={"experiment": {"source": "my file.py:mine"}}, experiment=None)
    line, note = train_command([own])
    assert line == "metarl train 'my file.py:mine' --seed 0"
    assert "the file" in note
    parts = {"benchmark": {"source": "cards.py:CARDS"}, "backbone": {"source": "cards.py:Net"}}
    own = Described(Path("X"), "cards-cards-meta-sgd", "few-shot", {}, None, parts, {})
    words = "--benchmark cards.py:CARDS --backbone cards.py:Net"
    assert train_command([own])[0] == f"metarl train meta-sgd {words} --seed 0"
    own = replace(own, name="omniglot-protonet", sources={"backbone": parts["backbone"]})
    assert train_command([own])[0] == "metarl train omniglot-protonet --backbone cards.py:Net --seed 0"
    few: Any = PRESETS["sinusoid-maml"].configuration
    few = replace(few, training=replace(few.training, iterations=5))
    described_few = Described(Path("X"), "sinusoid-maml", "few-shot", encode_fewshot(few), few, {}, {})
    assert train_command([described_few])[0] == "metarl train sinusoid-maml --training.iterations 5 --seed 0"


def test_every_recorded_run_is_described() -> None:
    runs = [path.parent for path in sorted(RESULTS.glob("*/config.json"))]
    assert len(runs) > 50
    for run in runs:
        one = described(run)
        assert one.experiment is not None, run
        assert all(difference.meaning for difference in differences(one.experiment)), run
        assert train_command([one])[0].startswith("metarl train ")


def test_numbers_have_about_four_digits() -> None:
    assert [number(x) for x in (12345.6, 123.45, -1.234, 0.01234)] == ["12,346", "123.5", f"{MINUS}1.23", "0.012"]
    assert interval([-1, 20]) == f"[{MINUS}1.00, 20.0]"
    assert interval(None) == NONE


def test_texts_and_elements_are_joined_in_order() -> None:
    made = node("p", None, "a", node("b", None, "c"), "d", "e")
    assert "".join(made.itertext()) == "acde"


@pytest.mark.slow
def test_a_report_films_the_first_run_of_a_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = ["--training.iterations", "1", "--training.meta-batch-size", "2", "--evaluation.num-tasks", "3"]
    tiny += ["--evaluation.num-steps", "1", "--evaluation.num-episodes", "2", "--num-threads", "1"]
    tiny += ["--horizon", "5", "--agent.adaptation.num-episodes", "2", "--agent.policy.hidden-sizes", "8"]
    run = tmp_path / "run"
    assert main(["train", "point-promp", "--out", str(run), *tiny]) == 0
    pytest.importorskip("imageio_ffmpeg")
    assert main(["report", str(run), "--video", "True"]) == 0
    assert main(["report", str(run)]) == 0
    assert f"written to {run / 'report-2.html'}" in capsys.readouterr().out.replace("\n", "")
    page = Page((run / "report-2.html").read_text(encoding="utf-8"))
    film = base64.b64encode((run / "videos" / "0.mp4").read_bytes()).decode()
    assert [video["src"] for video in page.of("video")] == [f"data:video/mp4;base64,{film}"]
    assert run_folders(run) == [run]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "report needs run folders"),
        (["MISSING"], "no run folder"),
        ([str(RESULTS / "point-promp-seed0"), str(RESULTS / "omniglot-maml-seed0")], "got both"),
        ([str(RESULTS / "point-promp-seed0"), str(RESULTS / "study-half-cheetah-dynamics-seed0")], "one study"),
        ([str(RESULTS / "omniglot-maml-seed0"), str(RESULTS / "sinusoid-maml-seed0")], "one kind of score"),
        ([str(RESULTS / "point-promp-seed0"), str(RESULTS / "gridnavi-rl2-seed0")], "no returns by task"),
        ([str(RESULTS / "point-promp-seed0"), "--out", "report.pdf"], "must end in .html"),
        (["--evaluation", "none.json", str(RESULTS / "point-promp-seed0")], "has no none.json"),
        (["--evaluation", "none.json"], "needs run folders"),
        ([str(RESULTS / "omniglot-maml-seed0"), "--video", "True"], "few-shot run"),
        ([str(RESULTS / "study-half-cheetah-dynamics-seed0"), "--video", "True"], "no run to film"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_broken_evaluations_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (
        ("omniglot-maml-seed0", '{"adaptation": [{}]}'),
        ("study-half-cheetah-dynamics-seed0", "{}"),
    ):
        folder = tmp_path / name
        shutil.copytree(RESULTS / name, folder)
        file = folder / ("results.json" if "study" in name else "evaluation.json")
        file.write_text(content)
        assert main(["report", str(folder)]) == 2
        file.unlink()
        assert main(["report", str(folder)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2
        assert all(str(folder) in line for line in lines)
        assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"baselines": {"untrained": []}},
        {"baselines": {"untrained": [{"step": 0}]}},
        {"adaptation": [{"step": 0, "return_mean": 1.0, "return_ci95": 3}]},
        {"tasks": [{"family": "point", "params": None, "return_mean": [1.0, 2.0]}]},
        {"tasks": [{"family": "point", "params": {"goal": None}, "return_mean": [1.0, 2.0]}]},
    ],
)
def test_damaged_scores_and_tasks_are_one_line(
    tmp_path: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    make_run(folder, "damaged", 0, returns=np.array([[1.0, 2.0], [2.0, 3.0]]))
    file = folder / "evaluation.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert main(["report", str(folder)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert str(file) in lines[0]
