"""Exported policies: the time of one step on one core, beside torch's own actor.

A step is what a controller calls: `act` with an observation, then `observe` with what followed. The bare model is
the call of onnxruntime alone, with inputs that are ready. Contenders take turns in short rounds, and every step of
every round is one measurement: a controller cares for the slow ones too.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from gymnasium.spaces import Box

from metarl.agent import Interface
from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.agents.rl2 import TrialActor, TrialPolicy, TrialPolicyConfig
from metarl.deploy.exporting import export_policy
from metarl.deploy.policies import AdaptedPolicy
from metarl.deploy.runner import Runner
from metarl.experiments.bench.timing import machine
from metarl.experiments.console import Waiting, show_table
from metarl.runs.seeding import torch_generator


@dataclass(frozen=True)
class ExportSizes:
    """Sizes of the policies; observations and actions are those of HalfCheetah.

    Attributes:
        obs_size: Number of observed numbers.
        act_size: Number of action dimensions.
        memory_size: Number of units of the GRU.
        hidden_sizes: Widths of the hidden layers of the policy without memory.
        num_steps: Number of steps in one round.
        rounds: Number of rounds of every contender in one repeat.
    """

    obs_size: int = 20
    act_size: int = 6
    memory_size: int = 128
    hidden_sizes: tuple[int, ...] = (64, 64)
    num_steps: int = 500
    rounds: int = 4


Step = Callable[[np.ndarray], object]


def bench(repeats: int, sizes: ExportSizes | None = None) -> dict[str, Any]:
    """Measure all contenders, show a table and return the same as JSON types."""
    sizes = sizes or ExportSizes()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            contenders = _contenders(Path(folder), sizes)
            times_ms = _measure(contenders, sizes, sizes.rounds * repeats)
    finally:
        torch.set_num_threads(threads)
    result = {
        name: {"median_ms": float(np.median(times)), "p99_ms": float(np.percentile(times, 99))}
        for name, times in times_ms.items()
    }
    rows = [[name, f"{row['median_ms']:.3f}", f"{row['p99_ms']:.3f}"] for name, row in result.items()]
    show_table("one step on one core, milliseconds", ["policy", "median", "99th percentile"], rows)
    return {
        "bench": "export",
        "repeats": repeats,
        "machine": machine(),
        "sizes": vars(sizes),
        "steps": sizes.rounds * repeats * sizes.num_steps,
        "policies": result,
    }


def _contenders(folder: Path, sizes: ExportSizes) -> dict[str, Step]:
    contenders: dict[str, Step] = {}
    for name, policy in make_policies(sizes).items():
        model = export_policy(policy, folder / f"{len(contenders)}.onnx").model
        contenders[f"{name}, torch"] = _step_of(policy)
        contenders[f"{name}, runner"] = _step_of(Runner(model))
        contenders[f"{name}, bare model"] = _bare(model)
    return contenders


def make_policies(sizes: ExportSizes) -> dict[str, AdaptedPolicy]:
    """A policy with memory and one without, untrained."""
    interface = Interface(Box(-np.inf, np.inf, (sizes.obs_size,)), Box(-1.0, 1.0, (sizes.act_size,)))
    memory = TrialPolicyConfig(memory_size=sizes.memory_size)
    network = TrialPolicy(interface, memory, generator=torch_generator(0))
    plain = PolicyConfig(hidden_sizes=sizes.hidden_sizes)
    learner = AdaptivePolicy(interface, plain, AdaptationConfig(), seed=0, device=torch.device("cpu"))
    widths = "-".join(str(size) for size in sizes.hidden_sizes)
    return {
        f"GRU {sizes.memory_size}": AdaptedPolicy(TrialActor(network), interface.action_space, 0),
        widths: AdaptedPolicy(GradientActor(learner, None), interface.action_space, 0),
    }


def _step_of(policy: AdaptedPolicy | Runner) -> Step:
    policy.begin_episode()

    def step(observation: np.ndarray) -> None:
        policy.act(observation)
        policy.observe(observation, 1.0)

    return step


def _bare(model: Path) -> Step:
    card = Runner(model).card
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {
        name: np.zeros(entry["shape"], entry["dtype"]) for name, entry in (card["inputs"] | card["state"]).items()
    }
    return lambda observation: session.run(None, feed)


def _measure(contenders: dict[str, Step], sizes: ExportSizes, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds of every step by contender, [step]; each round begins with a few steps that do not count."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((sizes.num_steps, sizes.obs_size)).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with Waiting("export, measurement") as waiting:
        for turn in range(rounds):
            for name, step in contenders.items():
                for observation in observations[:20]:
                    step(observation)
                for observation in observations:
                    began = time.perf_counter()
                    step(observation)
                    times[name].append(1e3 * (time.perf_counter() - began))
            waiting.progress(turn + 1, rounds)
    return {name: np.array(values) for name, values in times.items()}
