"""ThisProcess: the executor that simulates in the process that asks, one share after another."""

from collections.abc import Sequence

from metarl.executors.shares import MakeEnv, Share, Traffic
from metarl.executors.simulator import Simulator
from metarl.trajectories import Trajectories, concatenate


class ThisProcess:
    """Collects in the calling process.

    Args:
        make_env: Maker of the vector environments.
        num_threads: Number of threads that simulate.
    """

    def __init__(self, make_env: MakeEnv, num_threads: int) -> None:
        self.traffic = Traffic()
        self._simulator = Simulator(make_env, num_threads)

    def collect(self, shares: Sequence[Share]) -> Trajectories:
        """The episodes of all shares, joined in the order of the shares."""
        return concatenate([self._simulator.collect(share) for share in shares])

    def close(self) -> None:
        """Close the environment and stop its threads."""
        self._simulator.close()
