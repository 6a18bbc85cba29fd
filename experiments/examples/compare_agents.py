"""Compare two agents over three seeds, with intervals and figures: what does the meta-gradient add?

You learn to train several agents on several seeds in one command, to compare them on the same test tasks, and to
read the comparison. ProMP is trained so that one gradient step adapts it; multi-task pre-training takes the same
step, but knows nothing of it in training. Expect ProMP to return some 5 more after the step, and to be better on
nine in ten pairs of task and seed. The figures need the extra `report`.

python experiments/examples/compare_agents.py [FOLDER]         # about a minute on two cores
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

METARL = [sys.executable, "-m", "metarl"]
SETTINGS = shlex.split("""
--benchmark point --horizon 20 --seeds 3
--training.iterations 60 --training.meta-batch-size 20 --training.evaluate-every 0
--agent.policy.hidden-sizes 32 32 --agent.outer-lr 5e-3
--agent.adaptation.inner-lr 0.5 --agent.adaptation.num-episodes 10
--evaluation.num-tasks 20 --evaluation.num-steps 1 --evaluation.num-episodes 10
""")


def main(folder: Path) -> None:
    """Train, compare and say what came out.

    Args:
        folder: Folder for the runs and the comparison.
    """
    subprocess.run([*METARL, "train", "promp", "multi-task", *SETTINGS, "--out", folder / "runs"], check=True)
    agents = [folder / "runs" / "point-promp", folder / "runs" / "point-multi-task"]
    subprocess.run([*METARL, "compare", *agents, "--out", folder / "comparison"], check=True)

    (pair,) = json.loads((folder / "comparison" / "comparison.json").read_text())["pairs"]
    low, high = pair["difference_ci95"]
    print(f"after the step ProMP returns {pair['difference']:.1f} more, 95% interval {low:.1f} to {high:.1f}")
    print(f"and is better on a random task and seed with probability {pair['probability_of_improvement']:.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
