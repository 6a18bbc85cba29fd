"""What several tests share: a numbered batch in which no two entries are alike."""

import os
import sys
import typing
import warnings
from collections.abc import Iterator

import pytest

if typing.TYPE_CHECKING:
    from metarl.trajectories import Trajectories


def pytest_collection_finish(session: pytest.Session) -> None:
    """The tests' tensors are tiny: threads would wait for each other longer than they work."""
    if session.items:  # pytest-xdist's own process has none, and no use for torch
        import torch

        torch.set_num_threads(1)
        loggers = sys.modules.get("metarl.experiments.loggers")
        if loggers is not None:  # a second for every worker, and some tenths for every run that a test trains
            loggers.can_draw = lambda: False  # type: ignore[attr-defined]  # a module of ours


@pytest.fixture
def numbered() -> "Trajectories":
    """2 tasks x 3 episodes x 4 steps; every reward carries its own index, so mixed-up axes cannot pass."""
    import torch

    from metarl.tasks import Task
    from metarl.trajectories import Trajectories

    shape = (2, 3, 4)
    rewards = torch.arange(24, dtype=torch.float32).view(shape)
    nothing = torch.zeros(shape, dtype=torch.bool)
    truncated = nothing.clone()
    truncated[..., -1] = True
    return Trajectories(
        tasks=tuple(Task.of("point", goal=(float(i), 0.0)) for i in range(2)),
        observations=torch.randn(*shape, 2, generator=torch.Generator().manual_seed(0)),
        actions=torch.zeros(*shape, 2),
        rewards=rewards,
        terminated=nothing,
        truncated=truncated,
        mask=torch.ones(shape, dtype=torch.bool),
        last_observations=torch.zeros(2, 3, 2),
        records={},
        infos={},
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[typing.Any]:
    """A head without CPUs, and two nodes of two."""
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        sizes = {"object_store_memory": 80 * 2**20, "num_gpus": 0}
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **sizes})
        made.add_node(num_cpus=2, **sizes)
        made.add_node(num_cpus=2, **sizes)
        yield made
        made.shutdown()
