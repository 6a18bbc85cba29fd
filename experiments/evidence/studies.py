"""Studies on the page of results: every learner on each set of held-out tasks."""

import shlex
import textwrap
from pathlib import Path

from metarl.experiments.evidence.entries import Score
from metarl.experiments.evidence.markdown import amount, duration, score, table
from metarl.runs.reading import read_json


def study_lines(folder: Path) -> tuple[str, list[str]]:
    """The title and the lines of a study: return after the last adaptation episode by learner and set.

    Args:
        folder: Folder of the study, with study.json and results.json.

    Raises:
        ValueError: if a file is missing or malformed.
    """
    study, results = read_json(folder / "study.json", "study"), read_json(folder / "results.json", "results")
    try:
        rows = []
        for own, learner in results["learners"].items():
            row = {
                "learner": f"{own}, observes the task" if own == results["oracle"] else own,
                "steps": amount(learner["train_env_steps"]),
                "time": duration(learner["train_wall_s"]),
            }
            for key, held_out in results["sets"].items():
                last = held_out["learners"][own]["adaptation"][-1]
                row[key] = score(Score(last["return_mean"], *(last["return_ci95"] or (float("nan"),) * 2)))
            rows.append(row)
        sets = "; ".join(f"{key}: {held_out['meaning']}" for key, held_out in results["sets"].items())
        number = next(iter(results["sets"].values()))["num_tasks"]
        commit = str(results["versions"].get("git_commit") or "")[:8]
        name, seed = str(study["name"]), results["seed"]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, StopIteration) as error:
        raise ValueError(f"{folder} holds no results of a study ({type(error).__name__} {error})") from error
    what = f"Return after the last adaptation episode, {number} tasks per set ({sets}); seed {seed}, "
    what += f"intervals over tasks. [Folder]({folder.name}), commit {commit}."
    lines = [*textwrap.wrap(what, 118), "", *table(rows), ""]
    if (folder / "figure.png").is_file():
        lines += [f"![Return by adaptation episode]({folder.name}/figure.png)", ""]
    lines += ["```bash", f"metarl study {shlex.quote(name)} --seed {seed}", "```", ""]
    return f"Study: {name}", lines
