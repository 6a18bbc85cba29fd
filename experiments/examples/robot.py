"""A robot in another process, reached by datagrams at 50 Hz with jitter and loss, under an exported policy.

python experiments/examples/robot.py RUN_FOLDER [TASK]

The policy of the run is exported and acts for four episodes behind a guard, which holds the last action where no
observation comes in time. The agent adapts to what was recorded; the adapted policy is exported too and controls
the robot from then on. The robot is one of the run's test tasks; of a real one the driver would replace
`be_the_robot`.
"""

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import metarl
from metarl.deploy.exporting import agent_policy, export_policy
from metarl.deploy.guard import Guard, Limits
from metarl.deploy.recordings import load_recording
from metarl.deploy.runner import Runner
from metarl.envs import single_env
from metarl.experiments.agent_run import AgentRun
from metarl.tasks import Task

_ROBOT = "--be-the-robot"
_PATIENCE_S = 10.0  # without any message from the robot
_MOST_BYTES = 65_507  # of one datagram


@dataclass(frozen=True)
class Link:
    """The connection to a robot.

    Attributes:
        period_s: Control period in seconds.
        jitter: Greatest delay of an observation, as a share of the period.
        loss: Probability that a message is lost, in either direction.
        seed: Seed of jitter and loss.
    """

    period_s: float = 0.02
    jitter: float = 0.3
    loss: float = 0.05
    seed: int = 0


def be_the_robot(link: Link, benchmark: str, task: Task, num_episodes: int, horizon: int | None) -> None:
    """Step the environment once per period with the action that came last, and send what it observes.

    The first line of the output is the port to which a controller speaks first.

    Args:
        link: Period, jitter and loss.
        benchmark: Name of the benchmark.
        task: Task of the robot.
        num_episodes: Number of episodes.
        horizon: Number of steps in each; None for the family's own.
    """
    rng = np.random.default_rng(link.seed)
    env = single_env(benchmark, task, horizon=horizon)
    space: Any = env.action_space
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", 0))
        print(wire.getsockname()[1], flush=True)
        wire.settimeout(_PATIENCE_S)
        _, controller = wire.recvfrom(_MOST_BYTES)  # whoever speaks first controls
        wire.setblocking(False)
        due = time.monotonic()
        for episode in range(num_episodes):
            observation, _ = env.reset(seed=episode)
            action, step, total, ended = np.zeros(space.shape), 0, 0.0, False
            message = {"reward": 0.0, "terminated": False, "truncated": False}
            while True:
                message |= {"episode": episode, "step": step, "return": total, "measured_s": time.monotonic()}
                time.sleep(link.jitter * link.period_s * rng.random())
                if rng.random() >= link.loss:
                    wire.sendto(json.dumps(message | {"observation": observation.tolist()}).encode(), controller)
                if ended:
                    break
                due += link.period_s
                time.sleep(max(0.0, due - time.monotonic()))
                while (received := _newest(wire)) is not None:
                    if rng.random() >= link.loss and received["episode"] == episode:
                        action = np.array(received["action"])
                observation, reward, terminated, truncated, _ = env.step(action.astype(space.dtype))
                step, total, ended = step + 1, total + float(reward), terminated or truncated
                message = {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated)}
        for _ in range(20):  # so that one of them arrives
            wire.sendto(json.dumps({"episode": num_episodes}).encode(), controller)


def _newest(wire: socket.socket) -> Any:
    with contextlib.suppress(BlockingIOError):
        return json.loads(wire.recv(_MOST_BYTES))
    return None


@contextlib.contextmanager
def robot(link: Link, benchmark: str, task: Task, num_episodes: int, horizon: int | None) -> Iterator[int]:
    """A robot in a process of its own; gives its port."""
    words = json.dumps([asdict(link), benchmark, task.to_json(), num_episodes, horizon])
    process = subprocess.Popen([sys.executable, __file__, _ROBOT, words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def control(port: int, guard: Guard, num_episodes: int, period_s: float) -> list[float]:
    """Control the robot for so many episodes.

    Args:
        port: Port of the robot.
        guard: Policy within limits.
        num_episodes: Number of episodes that the robot will run.
        period_s: Control period in seconds.

    Returns:
        The last return that the robot reported of each episode.
    """
    returns: dict[int, float] = {}
    current, ended, heard = -1, True, time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.connect(("127.0.0.1", port))
        wire.send(b"{}")
        while time.monotonic() - heard < _PATIENCE_S:
            wire.settimeout(1.5 * period_s)
            try:
                message = json.loads(wire.recv(_MOST_BYTES))
            except TimeoutError:
                if not ended:
                    _send(wire, guard.act(None), current)
                continue
            heard = time.monotonic()
            if message["episode"] == num_episodes:
                return [returns[episode] for episode in sorted(returns)]
            observation = np.array(message["observation"], np.float32)
            if message["episode"] != current:
                current = message["episode"]
                guard.begin_episode()
            else:
                guard.observe(observation, message["reward"], message["terminated"], message["truncated"])
            returns[current] = message["return"]
            ended = message["terminated"] or message["truncated"]
            if not ended:
                _send(wire, guard.act(observation, age_s=heard - message["measured_s"]), current)
    raise RuntimeError(f"the robot said nothing for {_PATIENCE_S:.0f} s")


def _send(wire: socket.socket, action: np.ndarray, episode: int) -> None:
    wire.send(json.dumps({"action": action.tolist(), "episode": episode}).encode())


def adapt_and_control(
    folder: Path | str,
    out: Path,
    link: Link,
    *,
    number: int = 0,
    num_episodes: int = 4,
    horizon: int | None = None,
) -> dict[str, list[float]]:
    """Adapt to a robot in some episodes and control it in as many; the returns of both.

    Args:
        folder: Run folder of an agent of continuous actions.
        out: Folder for the exported models and the recording.
        link: Connection to the robot.
        number: Number of the test task that the robot is, counted from 0.
        num_episodes: Number of episodes to adapt in.
        horizon: Number of steps per episode; the family's own by default.
    """
    run = metarl.open_run(folder)
    assert isinstance(run, AgentRun)
    agent, task = run.agent(), run.test_tasks[number]
    limits = Limits(max_age_s=2 * link.period_s, on_late="hold")
    benchmark = str(run.experiment.benchmark)

    def act(policy: Any, name: str) -> tuple[list[float], Runner]:
        model = export_policy(policy, out / f"{name}.onnx").model
        runner = Runner(model, record=True)
        guard = Guard(runner, limits)
        with robot(link, benchmark, task, num_episodes, horizon) as port:
            returns = control(port, guard, num_episodes, link.period_s)
        print(f"{name}: {guard.report()}")
        return returns, runner

    start = agent_policy(agent)
    before, runner = act(start, "before")
    runner.save_recording(out / "recording.npz")
    recording = load_recording(out / "recording.npz")
    adapted = metarl.adapt_to_recording(agent, recording, start.action_space, deterministic=True).policy
    after, _ = act(adapted, "after")
    return {"before": before, "after": after}


def main(words: list[str]) -> None:
    """Be the robot, or adapt to one and control it with the agent of a run folder."""
    if words[0] == _ROBOT:
        link, benchmark, task, num_episodes, horizon = json.loads(words[1])
        be_the_robot(Link(**link), benchmark, Task.from_json(task), num_episodes, horizon)
        return
    with tempfile.TemporaryDirectory() as folder:
        number = int(words[1]) if len(words) > 1 else 0
        for moment, returns in adapt_and_control(words[0], Path(folder), Link(), number=number).items():
            print(moment, "adaptation: returns", ", ".join(f"{value:.1f}" for value in returns))


if __name__ == "__main__":
    main(sys.argv[1:])
