"""Control a robot with an exported policy, in a process that knows neither torch nor this package.

You learn to export an agent as an ONNX model, to write a robot's control loop around the runner that lies beside
it (numpy and onnxruntime are all that it needs), and to adapt the agent to what the robot recorded. The robot is a
point that has to find a goal which it cannot see. Expect a return of about -50 before adaptation and of about -14
after it. Needs the extra `onnx`; `robot.py` beside this file adds jitter, lost messages and a guard.

python experiments/examples/exported_policy.py [FOLDER]        # about a minute on one core
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import metarl
from metarl.deploy.exporting import agent_policy, export_policy

ROBOT = """
import sys

import numpy as np
from metarl_runner import Runner  # a file beside the model, copied by the export

model, recording = sys.argv[1:]
policy, goal, returns = Runner(model, record=True), np.array([-0.3, 0.4]), []
for episode in range(20):
    position, total = np.zeros(2), 0.0
    policy.begin_episode()
    for step in range(100):
        action = policy.act(position.astype(np.float32))
        position = position + np.clip(action, -0.1, 0.1)
        reward = -float(np.linalg.norm(position - goal))
        policy.observe(position.astype(np.float32), reward, terminated=False, truncated=step == 99)
        total += reward
    returns.append(total)
policy.save_recording(recording)
assert "torch" not in sys.modules and "metarl" not in sys.modules
print(f"{model}: mean return of 20 episodes {np.mean(returns):.1f}")
"""
"""The program on the robot."""


def main(folder: Path) -> None:
    """Train, export, control, adapt to the recording, export and control again.

    Args:
        folder: Folder for the run, the models and the robot's program.
    """
    run = metarl.train(metarl.experiment("point-maml-trpo", "--training.iterations", "20"), out=folder / "run")
    agent = run.agent()
    (folder / "robot.py").write_text(ROBOT)

    start = agent_policy(agent)
    export_policy(start, folder / "before.onnx")
    subprocess.run([sys.executable, "robot.py", "before.onnx", "before.npz"], cwd=folder, check=True)

    recording = metarl.load_recording(folder / "before.npz")
    adapted = metarl.adapt_to_recording(agent, recording, start.action_space)
    export_policy(adapted.policy, folder / "after.onnx")
    subprocess.run([sys.executable, "robot.py", "after.onnx", "after.npz"], cwd=folder, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
