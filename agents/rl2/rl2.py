"""RL2: fast reinforcement learning via slow (Duan et al. 2016, arXiv:1611.02779; Wang et al. 2016), with PPO.

    repeat:
        collect one trial of num_episodes episodes for each task; the memory is kept from episode to episode
        PPO on the trials, which unrolls the memory over each  (gradients may be truncated to chunks of it);
        see `metarl.agents.trials.ppo`

How we differ: PPO instead of TRPO, as in every later implementation. Advantages and the value's targets are
centred over the trials of the batch. The policy observes rewards less their running mean, in units of their
spread, so that learning does not depend on the scale of rewards. Step size, entropy bonus, gamma and gae_lambda
can be annealed over the run: a short horizon finds the reward, a longer one learns to explore. Where the
environment reports what each action loses against the best one, training may add up minus these regrets instead
of the rewards (`objective`): undiscounted, the gradient is the same in expectation, without the noise of the
rewards and of what a task has to offer. The agent observes rewards only, in training as in evaluation.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from metarl.agent import AgentSetup
from metarl.agents.rl2.trial_policy import TrialPolicy, TrialPolicyConfig
from metarl.agents.trials.ppo import TrialPpo, TrialPpoConfig
from metarl.runs.seeding import torch_generator
from metarl.tasks import TaskEnv


@dataclass(frozen=True)
class Rl2Config(TrialPpoConfig):
    """Hyperparameters of RL2 with PPO. Names that begin with final_ are values at the end of annealing.

    Attributes:
        policy: Memory and heads of the policy.
    """

    policy: TrialPolicyConfig = field(default_factory=TrialPolicyConfig)

    def make(self, setup: AgentSetup) -> "Rl2":
        """Make an untrained agent with this configuration."""
        return Rl2(setup.env, self, iterations=setup.iterations, seed=setup.seed, device=setup.device)


class Rl2(TrialPpo[TrialPolicy, Rl2Config]):
    """An RL2 agent; see `metarl.agent.Agent`.

    Args:
        env: Environment of the family, read for its spaces and its time limit.
        config: Hyperparameters.
        iterations: Number of updates of the whole run, for annealing.
        seed: Seed of the initial weights and of the order of minibatches.
        device: Device of the network and the losses; acting is on the CPU.
    """

    algorithm: ClassVar[str] = "RL2"
    data_parallel = True

    def __init__(
        self, env: TaskEnv, config: Rl2Config, *, iterations: int, seed: int, device: torch.device
    ) -> None:
        policy = TrialPolicy(env, config.policy, generator=torch_generator(seed))
        super().__init__(policy, env, config, iterations=iterations, seed=seed, device=device)
