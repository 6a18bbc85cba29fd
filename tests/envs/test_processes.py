"""Environments in worker processes: the same results as in this one, and nothing that hangs or is left behind."""

import copy
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from metarl.agents.maml import AdaptationConfig, AdaptivePolicy, GradientActor, PolicyConfig
from metarl.envs import CustomFamily
from metarl.envs.gymnasium.vector_env import ProcessVectorEnv
from metarl.runs.cores import WorkerError
from metarl.workers import EnvMaker, Workers
from tests.environments import MARK, WALKS, Walk, walk

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Worker processes find these tests' environments, and a file to mark that one went wrong."""
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv(MARK, str(tmp_path / "mark"))


@pytest.fixture
def two() -> Iterator[ProcessVectorEnv]:
    """Five environments in two processes."""
    env = WALKS.make_env(5, num_threads=2, timeout_s=20.0)
    yield env
    env.close()


def episode(env: ProcessVectorEnv, seed: int = 0, steps: int = 6) -> list[np.ndarray]:
    """Observations, rewards and flags of an episode with actions of their own, from a seeded reset on."""
    rng = np.random.default_rng(1)
    found = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        transition = env.advance(rng.uniform(-1, 1, (env.num_envs, 1)).astype(np.float32))
        found += [transition.observations, transition.rewards, transition.terminated, transition.truncated]
        found.append(transition.infos["success"])
    return found


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_results_do_not_depend_on_the_number_of_processes(two: ProcessVectorEnv) -> None:
    tasks = [walk(goal) for goal in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    results = []
    for env in (WALKS.make_env(5, num_threads=1), two):
        env.set_tasks(tasks)
        results.append(episode(env))
        env.close()
    assert same(results[0], results[1])


def test_each_row_equals_its_environment_stepped_alone(two: ProcessVectorEnv) -> None:
    goals = (-2.0, -1.0, 0.0, 1.0, 2.0)
    two.set_tasks([walk(goal) for goal in goals])
    found = episode(two, seed=3)
    actions = np.random.default_rng(1).uniform(-1, 1, (6, 5, 1)).astype(np.float32)
    for row, goal in enumerate(goals):
        alone = Walk()
        alone.goal = goal
        # the row's generator, of seed 3 + row, draws the seed of the episode
        observation, _ = alone.reset(seed=int(np.random.default_rng(3 + row).integers(2**31)))
        assert np.array_equal(found[0][row], observation)
        for t in range(6):
            observation, reward, terminated, _, info = alone.step(actions[t, row])
            assert np.array_equal(found[1 + 5 * t][row], observation)
            assert found[2 + 5 * t][row] == reward
            assert found[3 + 5 * t][row] == terminated
            assert found[5 + 5 * t][row] == info["success"]


def test_environments_are_kept_and_given_new_tasks() -> None:
    made = []

    def make() -> Walk:
        made.append(Walk())
        return made[-1]

    family = CustomFamily(WALKS.name, WALKS.parameters, make=make, set_task=WALKS._set_task, horizon=3)
    env = family.make_env(4, num_threads=1)
    asked = len(made)
    for goal in (1.0, 2.0):
        env.set_tasks([walk(goal)] * 4)
        env.reset(seed=0)
        assert [w.goal for w in made[asked:]] == [goal] * 4
    assert len(made) == asked + 4
    env.close()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_an_environment_that_cuts_its_own_episode_starts_the_next(mode: AutoresetMode) -> None:
    """Row 1 truncates at every step, long before the horizon; the other row goes on."""
    env = WALKS.make_env(2, num_threads=1, autoreset_mode=mode)
    env.set_tasks([walk(5.0), walk(5.0, trouble=300.0)])
    env.reset(seed=0)
    zero = np.zeros((2, 1), np.float32)
    _, _, terminated, truncated, infos = env.step(zero)
    assert truncated.tolist() == [False, True]
    assert not terminated.any()
    if mode == AutoresetMode.SAME_STEP:
        assert infos["_final_obs"].tolist() == [False, True]
    else:  # a reset takes the place of the step, and earns nothing
        _, rewards, _, truncated, _ = env.step(zero)
        assert (rewards == 0.0).tolist() == [False, True]
        assert not truncated.any()
    env.set_tasks([walk(5.0)] * 2)
    env.reset(seed=0)
    assert not env.step(zero)[3].any()  # what the last task did is forgotten


def test_rows_that_are_not_stepped_stay_where_they_are() -> None:
    actions = np.array([[0.1], [0.2], [0.3]], np.float32)
    seen = []
    for parts in ([[0, 1, 2]], [[0, 2], [1]]):
        env = WALKS.make_env(3, num_threads=1)
        env.set_tasks([walk(float(row)) for row in range(3)])
        env.reset(seed=0)
        observations = np.zeros((3, 2))
        for rows in map(np.array, parts):
            observations[rows] = env.advance(actions[rows], rows).observations
        seen.append(observations)
    assert np.array_equal(*seen)


@pytest.mark.slow
def test_some_rows_go_on_while_others_have_ended_and_are_reset(two: ProcessVectorEnv) -> None:
    two.set_tasks([walk(0.0, trouble=300.0 * (row == 2)) for row in range(5)])
    two.reset(seed=0)
    transition = two.advance(np.zeros((5, 1), np.float32))
    assert transition.truncated.tolist() == [False, False, True, False, False]  # its own, not the horizon's
    rows = np.array([0, 1, 3])
    onward = two.advance(np.ones((3, 1), np.float32), rows)
    assert onward.observations.shape == (3, 2)
    assert (onward.observations[:, 0] > transition.observations[rows, 0]).all()
    mask = np.array([False, False, True, False, False])
    observations, _ = two.reset(seed=9, options={"reset_mask": mask})
    assert np.array_equal(observations[rows], onward.observations)


@pytest.mark.slow
def test_autoreset_starts_the_next_episode() -> None:
    env = WALKS.make_env(2, num_threads=2, horizon=2, autoreset_mode=AutoresetMode.SAME_STEP)
    env.set_tasks([walk(5.0), walk(-5.0)])
    env.reset(seed=0)
    zero = np.zeros((2, 1), np.float32)
    env.step(zero)
    observations, _, _, truncated, infos = env.step(zero)
    assert truncated.all()
    assert np.array_equal(observations[:, 1], [5.0, -5.0])
    assert not np.array_equal(infos["final_obs"][0], observations[0])
    env.close()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(3.0, "died with exit code 7"), pytest.param(-3.0, "has not answered for 3 s", marks=pytest.mark.slow)],
)
def test_a_process_that_dies_or_hangs_starts_again_and_the_episode_goes_on(trouble: float, said: str) -> None:
    tasks = [walk(float(row), trouble=trouble * (row == 3)) for row in range(4)]
    calm = WALKS.make_env(4, num_threads=1)
    calm.set_tasks([walk(float(row)) for row in range(4)])
    expected = episode(calm)
    env = WALKS.make_env(4, num_threads=2, timeout_s=3.0)
    env.set_tasks(tasks)
    with pytest.warns(RuntimeWarning, match=f"environment process 1 {said}"):
        found = episode(env)
    assert same(found, expected)
    env.set_tasks([walk(float(row)) for row in range(4)])
    assert same(episode(env), expected)
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize(("trouble", "goes_on"), [(0.0, True), (400.0, False)])
def test_rows_that_go_on_are_brought_back_when_a_process_dies_in_the_reset_of_another(
    trouble: float, goes_on: bool, tmp_path: Path
) -> None:
    """Rows 0 and 2 share a process; row 2 dies in a reset of its own while row 0 is within an episode."""
    env = WALKS.make_env(3, num_threads=2)
    env.set_tasks([walk(0.0, trouble), walk(1.0), walk(2.0, 500.0)])
    env.reset(seed=0)
    for _ in range(3):
        before = env.advance(np.full((3, 1), 0.5, np.float32)).observations
    (tmp_path / "mark.armed").touch()
    mask = {"reset_mask": np.array([False, False, True])}
    if goes_on:
        with pytest.warns(
            RuntimeWarning, match="environment process 0 died with exit code 8; it was started again"
        ):
            observations, _ = env.reset(seed=7, options=mask)
        assert np.array_equal(observations[:2], before[:2])
        calm = WALKS.make_env(3, num_threads=1)
        calm.set_tasks([walk(0.0), walk(1.0), walk(2.0)])
        calm.reset(seed=0)
        for _ in range(3):
            calm.advance(np.full((3, 1), 0.5, np.float32))
        calm.reset(seed=7, options=mask)
        after = [e.advance(np.zeros((3, 1), np.float32)).observations for e in (env, calm)]
        assert np.array_equal(*after)
    else:
        with pytest.raises(WorkerError, match="started again, its environments did not repeat their episodes"):
            env.reset(seed=7, options=mask)
    env.close()


@pytest.fixture
def shared() -> Iterator[ProcessVectorEnv]:
    """Five environments, of which rows 1 and 3 are in this process and the others in another."""
    family = copy.copy(WALKS)
    family.steps_here_too = True  # type: ignore[misc]
    env = family.make_env(5, num_threads=2, timeout_s=20.0)
    yield env
    env.close()


def test_a_share_that_is_stepped_here_gives_the_same(two: ProcessVectorEnv, shared: ProcessVectorEnv) -> None:
    before = len(multiprocessing.active_children())
    shared.set_tasks([walk(float(number)) for number in range(5)])
    assert len(multiprocessing.active_children()) == before + 1
    two.set_tasks([walk(float(number)) for number in range(5)])
    assert same(episode(shared, seed=3), episode(two, seed=3))


def test_after_an_error_of_a_share_here_the_other_process_is_heard_aright(shared: ProcessVectorEnv) -> None:
    expected = WALKS.make_env(5, num_threads=1)
    shared.set_tasks([walk(0.0), walk(1.0, 102.0), *[walk(0.0)] * 3])
    with pytest.raises(ArithmeticError, match="the walker tripped"):
        episode(shared)
    with pytest.raises(RuntimeError, match="a call has failed since the last set_tasks"):
        shared.reset(seed=0)
    for env in (shared, expected):
        env.set_tasks([walk(7.0)] * 5)
    assert same(episode(shared, seed=5), episode(expected, seed=5))


def test_a_process_that_dies_beside_a_share_here_is_made_up_for(shared: ProcessVectorEnv) -> None:
    calm = WALKS.make_env(5, num_threads=1)
    calm.set_tasks([walk(1.0)] * 5)
    shared.set_tasks([walk(1.0, 3.0), *[walk(1.0)] * 4])
    with pytest.warns(RuntimeWarning, match="environment process 0 died with exit code 7; it was started again"):
        seen = episode(shared, seed=2)
    assert same(seen, episode(calm, seed=2))


def test_an_interrupted_call_does_not_mix_up_the_answers(two: ProcessVectorEnv) -> None:
    two.set_tasks([walk(0.0)] * 5)
    expected = WALKS.make_env(5, num_threads=1)
    expected.set_tasks([walk(7.0)] * 5)
    two.reset(seed=0)
    host = two._hosts[0]
    waits = host.answer

    def interrupted(seen: np.ndarray) -> None:
        raise KeyboardInterrupt

    host.answer = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        two.advance(np.zeros((5, 1), np.float32))
    host.answer = waits  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="a call has failed since the last set_tasks"):
        two.reset(seed=5)
    two.set_tasks([walk(7.0)] * 5)
    assert same(episode(two, seed=5), episode(expected, seed=5))


@pytest.mark.slow
def test_what_is_kept_for_a_restart_is_one_episode_of_each_row() -> None:
    env = WALKS.make_env(4, num_threads=2, autoreset_mode=AutoresetMode.SAME_STEP)
    env.set_tasks([walk(5.0, trouble=300.0 if row == 1 else 0.0) for row in range(4)])
    env.reset(seed=0)
    for _ in range(40):
        env.step(np.zeros((4, 1), np.float32))
    kept = [len(actions) for host in env._hosts for _, actions in host._past.episodes.values()]  # type: ignore[union-attr]
    assert len(kept) == 4
    assert max(kept) <= WALKS.horizon
    env.close()


def test_actions_of_another_shape_are_refused_before_anyone_steps(two: ProcessVectorEnv) -> None:
    two.set_tasks([walk(0.0)] * 5)
    observations, _ = two.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected actions of shape \(5, 1\), got \(5, 3\)"):
        two.advance(np.zeros((5, 3), np.float32))
    assert np.array_equal(two._shared.observations, observations)


def test_a_closed_environment_is_not_used_again(two: ProcessVectorEnv) -> None:
    two.set_tasks([walk(0.0)] * 5)
    two.close()
    with pytest.raises(RuntimeError, match="the environment was closed; make a new one"):
        two.reset(seed=0)


def test_a_limit_of_time_that_is_none_is_refused() -> None:
    for limit in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout_s must be positive, or None for no limit"):
            WALKS.make_env(2, timeout_s=limit)


@pytest.mark.slow
def test_a_process_that_dies_twice_at_a_step_is_named(two: ProcessVectorEnv) -> None:
    two.set_tasks([walk(0.0, trouble=202.0 * (row == 1)) for row in range(5)])
    with pytest.raises(
        WorkerError, match=r"environment process 1 died with exit code 9.*; started again, environ"
    ):
        episode(two)
    with pytest.warns(RuntimeWarning, match="started again and the run goes on"):
        two.set_tasks([walk(0.0)] * 5)
    assert len(episode(two)) == 31


def test_what_an_environment_raises_is_named_with_its_process(two: ProcessVectorEnv) -> None:
    two.set_tasks([walk(0.0, trouble=102.0 * (row == 0)) for row in range(5)])
    with pytest.raises(
        WorkerError, match="environment process 0 failed: ArithmeticError: the walker tripped"
    ) as e:
        episode(two)
    assert "tests/environments.py" in e.value.__notes__[0]


def test_an_info_that_is_not_reported_is_named() -> None:
    family = CustomFamily(
        "walk", WALKS.parameters, make=Walk, set_task=WALKS._set_task, horizon=3, info_names=("success", "speed")
    )
    env = family.make_env(1)
    env.set_tasks([walk(0.0, trouble=300.0)])  # which cuts its episodes
    env.reset(seed=0)
    with pytest.raises(
        ValueError, match=r"walk \(goal=0.0, .*the info 'speed' .* at no step .*; its last step has success"
    ):
        env.advance(np.zeros((1, 1), np.float32))


@pytest.mark.slow
def test_a_family_that_cannot_be_sent_to_a_process_is_refused() -> None:
    class Local(Walk):
        """Nobody else can import it."""

    family = CustomFamily("walk", WALKS.parameters, make=Local, set_task=WALKS._set_task, horizon=3)
    env = family.make_env(2, num_threads=2)
    with pytest.raises(ValueError, match="the task family 'walk' must be picklable, its functions at the top"):
        env.set_tasks([walk(0.0)] * 2)


def test_closing_leaves_no_process() -> None:
    env = WALKS.make_env(4, num_threads=2)
    env.set_tasks([walk(0.0)] * 4)
    env.reset(seed=0)
    mine = [
        process for process in multiprocessing.active_children() if process.name.startswith("environment-process-")
    ]
    assert len(mine) == 2
    env.close()
    env.close()
    assert not any(process.is_alive() for process in mine)


_SCRIPT = """
import signal
import time
# A shell's background jobs ignore it, and so do their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.environments import WALKS, walk
if __name__ == "__main__":
    env = WALKS.make_env(4, num_threads=2)
    env.set_tasks([walk(0.0)] * 4)
    env.reset(seed=0)
    import multiprocessing
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_processes_end_with_the_script_that_started_them(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as started:
        assert started.stdout is not None
        pids = [int(pid) for pid in started.stdout.readline().split()]
        assert len(pids) == 2
        started.send_signal(how)
        started.wait(timeout=10)
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_collector_runs_agents_on_your_own_environments() -> None:
    learner = AdaptivePolicy(
        WALKS.make_env(1), PolicyConfig(), AdaptationConfig(num_episodes=3), seed=0, device=torch.device("cpu")
    )
    actor = GradientActor(learner, None)
    tasks = [walk(goal) for goal in (-1.0, 0.0, 1.0)]
    results = []
    for threads, workers in ((1, 1), (2, 1)):
        with Workers(EnvMaker(WALKS, None), num_threads=threads, num_workers=workers) as collector:
            results.append(collector.collect(actor, tasks, 4, seed=5))
    for other in results[1:]:
        assert torch.allclose(results[0].rewards, other.rewards, rtol=1e-6, atol=1e-7)
        assert torch.equal(results[0].mask, other.mask)
    assert results[0].successes() is not None
