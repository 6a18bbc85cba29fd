"""Two processes as torchrun starts them, which train every kind of agent; see test_parallel.py."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

import metarl
from metarl.experiments.loading import AnyExperiment
from metarl.runs import parallel

ROOT = Path(__file__).resolve().parents[2]
_SIZES = (
    *("--training.iterations", "2"),
    *("--training.meta-batch-size", "4"),
    *("--evaluation.num-tasks", "3"),
    *("--loggers", "csv"),
)
_RL = (
    *("--training.evaluate-every", "2"),
    *("--evaluation.num-steps", "1"),
    *("--evaluation.num-episodes", "2"),
    *("--horizon", "10"),
    *("--num-threads", "1"),
    *("--workers", "local"),
)
_INNER = ("--benchmark", "point", "--agent.adaptation.num-episodes", "3", "--agent.policy.hidden-sizes", "16")
_TRIALS = ("--benchmark", "point", "--agent.num-episodes", "2", "--agent.epochs", "2", "--agent.minibatches", "3")
_MEMORY = ("--agent.policy.memory-size", "16")
_PEARL = (
    *("--benchmark", "point", "--num-train-tasks", "6"),
    *("--agent.hidden-sizes", "16", "--agent.context.hidden-sizes", "16"),
    *("--agent.num-initial-episodes", "2", "--agent.num-updates", "3", "--agent.update-tasks", "4"),
    *("--agent.batch-size", "8", "--agent.context-size", "8", "--agent.normalise-rewards", "True"),
)
_FEWSHOT = ("--training.updates-per-iteration", "2", "--training.evaluate-every", "2")
_SINUSOIDS = ("--benchmark", "sinusoids", *_FEWSHOT, "--backbone.hidden-sizes", "16")

WORDS: dict[str, tuple[str, ...]] = {
    "promp": ("promp", *_RL, *_INNER, "--agent.adaptive-kl", "True"),
    "e-maml": ("promp", *_RL, *_INNER, "--agent.adaptation.exploration-coef", "0.1"),
    # With little damping ten iterations of conjugate gradient in float32 turn a rounding of 1e-7 into one of 0.1.
    "maml-trpo": ("maml-trpo", *_RL, *_INNER, "--agent.cg-damping", "1"),
    "reptile": ("reptile", *_RL, *_INNER),
    "multi-task": ("multi-task", *_RL, *_INNER),
    "rl2": ("rl2", *_RL, *_TRIALS, *_MEMORY),
    "varibad": ("varibad", *_RL, *_TRIALS, *_MEMORY, "--agent.belief-updates", "2"),
    "pearl": ("pearl", *_RL, *_PEARL),
    "few-shot maml": ("maml", *_SINUSOIDS),
    "implicit maml": ("implicit-maml", *_SINUSOIDS),
}


def experiment(name: str, num_workers: int) -> AnyExperiment:
    """The smallest experiment of a kind of agent whose two shares have two tasks each."""
    word, *options = WORDS[name]
    workers = ("--num-workers", str(num_workers)) if "--workers" in options else ()
    return metarl.experiment(word, *options, *_SIZES, *workers)


def start(count: int, *words: str, folder: Path) -> list[subprocess.Popen[str]]:
    """So many processes of one training, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "TORCHELASTIC_RUN_ID": "test",
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return [
        subprocess.Popen(
            [sys.executable, *words],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]


if __name__ == "__main__":
    torch.set_num_threads(1)
    with parallel.together():
        for each in sys.argv[2:]:
            metarl.train(experiment(each, 1), out=Path(sys.argv[1]) / each)
