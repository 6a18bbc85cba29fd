"""PEARL: off-policy meta-RL with a probabilistic context (Rakelly et al. 2019, arXiv:1903.08254, algorithm 1).

    repeat:
        for some training tasks, all at once:
            collect num_prior_episodes with z ~ N(0, I), then num_posterior_episodes with z ~ q(z | context so far)
            these are the task's new context
            collect num_extra_episodes with z ~ q(z | context); they and the context go to the task's replay
        repeat num_updates times, on update_tasks tasks:
            z ~ q(z | transitions from the task's context)                one z per task
            critics and encoder: minimise  critic loss(replay, z) + kl_coef * mean over tasks of KL(q || N(0, I))
            value and actor:     minimise  their losses(replay, z), z detached
            target value moves a little towards the value

At test time z comes from the prior in the first exploration_episodes of a trial, and in all later ones
from the posterior after the trial's episodes so far; the policy takes its mode.

How we differ. The published loss sums the KL over the tasks of a meta-batch and averages the critics' loss, so
that a larger meta-batch means a larger weight of the KL; ours averages both, and kl_coef is the published weight
times the published meta-batch (0.1 * 16 = 1.6). Tasks of an update are drawn without replacement, as long as there
are enough. Posterior episodes use the posterior after all earlier episodes of the trial, as at test time; the
published collection starts each phase with one more episode from the prior, then uses a random part of the
context. Where episodes end early, tasks are collected again until each has the steps of full episodes. Numbers of
episodes replace numbers of steps. With vary_context, training infers from contexts as small as those of a test
trial. With collect_while_updating an iteration's trials are collected during its updates, with the networks from
before, and are stored after them.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from metarl.agent import AgentConfig, AgentSetup, Collector
from metarl.agents.pearl.actor import LatentActor
from metarl.agents.pearl.collection import (
    Collection,
    begin_trials,
    collect_whole,
    return_metrics,
    transitions_by_task,
)
from metarl.agents.pearl.context import ContextConfig
from metarl.agents.pearl.draws import UpdateDraw, UpdateSizes
from metarl.agents.pearl.gradients import GradientStep, StepSettings
from metarl.agents.pearl.networks import ActingConfig, make_networks
from metarl.agents.replay_agent import ReplayAgent
from metarl.learning.cuda_graph import CudaGraph
from metarl.learning.failures import LearnedState, unchanged_on_failure
from metarl.learning.replay import MultiTaskReplay, Transitions, example_transition
from metarl.learning.reward_scale import RewardScale
from metarl.learning.schedules import linear
from metarl.runs import parallel
from metarl.runs.configs import (
    MOST_STEPS,
    MOST_TASKS,
    MOST_UPDATES,
    check_counts,
    check_fraction,
    check_not_negative,
    check_positive,
    check_sizes,
)
from metarl.runs.pending import Pending
from metarl.runs.seeding import torch_generator
from metarl.tasks import FiniteTasks, Task, TaskEnv


@dataclass(frozen=True)
class PearlConfig(AgentConfig):
    """PEARL's hyperparameters, with the defaults of Rakelly et al. 2019 for HalfCheetah at target velocities.

    Attributes:
        context: Inference network of the latent task variable.
        hidden_sizes: Hidden layer sizes of policy, critics and value.
        num_initial_episodes: Episodes of every training task before the first update, with latents from the prior.
        num_prior_episodes: First episodes of a collected task, with latents from the prior; they are context.
        num_posterior_episodes: Next episodes of a collected task, with latents from the posterior; they are
            context too.
        num_extra_episodes: Last episodes of a collected task, with latents from the posterior; they are not
            context.
        collect_while_updating: Whether an iteration's trials are collected during its gradient steps and learned
            from in the next iteration, off-policy by one iteration. Saves time with workers in other processes or
            on Ray, none with workers in this process. Off, as published.
        num_updates: Number of gradient steps per iteration.
        update_tasks: Number of tasks in a gradient step, the paper's meta-batch; `training.meta_batch_size` tasks
            are collected per iteration.
        batch_size: Transitions per task for the critics and the actor.
        context_size: Transitions per task for the encoder. A recurrent one reads as many in a row, and should get
            no more than a test trial begins with: it does not generalise to shorter contexts.
        vary_context: Whether the encoder's transitions are drawn from a random window of the task's context, one
            episode or longer, so that it learns to infer from as little as a test trial begins with; otherwise
            from all of it, as published.
        gamma: Discount per environment step, in [0, 1].
        reward_scale: Factor of the rewards that the critics learn from, not of those in the context; the inverse
            of a temperature.
        normalise_rewards: Rewards are divided by their running root mean square, zeros aside, before they are
            multiplied by reward_scale and read by the encoder: learning does not depend on the units of rewards.
            Off, they are learned from as they are, as published.
        temperature: Temperature alpha of the policy's entropy; its initial value if it is learned.
        learn_temperature: Whether to adjust alpha until the policy's entropy is minus the number of action
            dimensions; use a reward_scale of 1.
        kl_coef: Weight of the KL per task.
        outer_lr: Adam step size of all networks.
        final_outer_lr: Adam step size at the last iteration, annealed linearly; None for no change.
        target_rate: Fraction by which the target value moves towards the value at each update, in [0, 1].
        regularisation: Weight of the squares of the policy's means and log standard deviations.
        replay_capacity: Transitions that the replay holds per task.
        learned_reward: Info to learn from instead of the reward, e.g. "dense_reward"; the context and all
            evaluation have the environment's reward. None for that reward everywhere.
        exploration_episodes: Episodes at the start of a test trial with latents from the prior.
        capture_graph: Whether to run updates as a captured graph on CUDA.
    """

    renamed: ClassVar[Mapping[str, str]] = {
        "learning_rate": "outer_lr",
        "final_learning_rate": "final_outer_lr",
    }

    context: ContextConfig = field(default_factory=ContextConfig)
    hidden_sizes: tuple[int, ...] = (300, 300, 300)
    num_initial_episodes: int = 10
    num_prior_episodes: int = 2
    num_posterior_episodes: int = 0
    num_extra_episodes: int = 3
    collect_while_updating: bool = False
    num_updates: int = 2000
    update_tasks: int = 16
    batch_size: int = 256
    context_size: int = 100
    vary_context: bool = False
    gamma: float = 0.99
    reward_scale: float = 5.0
    normalise_rewards: bool = False
    temperature: float = 1.0
    learn_temperature: bool = False
    kl_coef: float = 1.6
    outer_lr: float = 3e-4
    final_outer_lr: float | None = None
    target_rate: float = 0.005
    regularisation: float = 1e-3
    replay_capacity: int = 50_000
    learned_reward: str | None = None
    exploration_episodes: int = 2
    capture_graph: bool = True

    def __post_init__(self) -> None:
        check_sizes(self, "hidden_sizes")
        check_counts(self, "num_initial_episodes", "num_prior_episodes", most=MOST_TASKS)
        others = ("num_posterior_episodes", "num_extra_episodes", "exploration_episodes")
        check_counts(self, *others, least=0, most=MOST_TASKS)
        check_counts(self, "num_updates", most=MOST_UPDATES)
        check_counts(self, "update_tasks", "batch_size", most=MOST_TASKS)
        check_counts(self, "context_size", most=MOST_STEPS)
        check_counts(self, "replay_capacity")
        check_not_negative(self, "kl_coef", "regularisation")
        check_fraction(self, "gamma", "target_rate")
        check_positive(self, "reward_scale", "temperature", "outer_lr")
        if self.final_outer_lr is not None:
            check_positive(self, "final_outer_lr")
        if self.vary_context and self.context.kind == "recurrent":
            raise ValueError(
                "vary_context is for a set of transitions, got a recurrent encoder; turn it off and set "
                "context_size to the steps that a test trial begins with"
            )

    @property
    def num_context_episodes(self) -> int:
        """Number of a training trial's episodes that become the task's context."""
        return self.num_prior_episodes + self.num_posterior_episodes

    def check_capacity(self, horizon: int) -> None:
        """Raise a ValueError if a collection of episodes of so many steps may be more than the replay holds."""
        episodes = max(self.num_initial_episodes, self.num_context_episodes + self.num_extra_episodes)
        # Where episodes end early, the last round of a collection may start one step before it has enough.
        most = 2 * episodes * horizon - 1
        if most > self.replay_capacity:
            raise ValueError(
                f"replay_capacity must hold a collection of {episodes} episodes of {horizon} steps, "
                f"up to {most} where episodes end early, got {self.replay_capacity}"
            )

    def make(self, setup: AgentSetup) -> "Pearl":
        """Make an untrained agent with this configuration.

        Raises:
            ValueError: if there are infinitely many training tasks: transitions are stored per task.
        """
        train = setup.benchmark.train
        if not isinstance(train, FiniteTasks):
            raise ValueError(
                f"PEARL stores transitions per training task and {setup.benchmark.name} has infinitely many; "
                "give --num-train-tasks"
            )
        return Pearl(
            setup.env, self, train.tasks, iterations=setup.iterations, seed=setup.seed, device=setup.device
        )


class Pearl(ReplayAgent[MultiTaskReplay[Transitions]]):
    """A PEARL agent; see `metarl.agent.Agent` and `metarl.agent.KeepsData`.

    Args:
        env: Environment of the family, for its spaces and its horizon.
        config: Hyperparameters of the agent.
        train_tasks: All tasks that are ever collected from; each has a replay.
        iterations: Number of iterations of the run, for annealing the learning rate.
        seed: Seed of the initial weights and of the random numbers of updates.
        device: Device of replay and networks; acting is on the CPU.
    """

    data_parallel = True

    def __init__(
        self,
        env: TaskEnv,
        config: PearlConfig,
        train_tasks: Sequence[Task],
        *,
        iterations: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.config, self.device, self.horizon = config, device, env.max_episode_steps
        config.check_capacity(self.horizon)
        self.iterations, self.updates = iterations, 0
        self.tasks = {task: index for index, task in enumerate(dict.fromkeys(train_tasks))}
        self.learner, self.acting = make_networks(
            env,
            ActingConfig(config.context, config.hidden_sizes, config.normalise_rewards),
            temperature=config.temperature,
            generator=torch_generator(seed),
        )
        self.learner.to(device)
        self.acting.to(device)
        act_size = self.learner.policy.act_size
        self.replay = MultiTaskReplay(
            len(self.tasks),
            config.replay_capacity,
            example=example_transition(env.single_observation_space, act_size),
            device=device,
        )
        self.rewards = RewardScale(running=config.normalise_rewards).to(device)  # what the critics learn from
        self.step = GradientStep(
            StepSettings(
                config.gamma,
                config.reward_scale,
                config.kl_coef,
                config.regularisation,
                config.target_rate,
                target_entropy=-float(act_size) if config.learn_temperature else None,
            ),
            self.learner,
            self.acting,
            self.rewards,
            replay=self.replay,
            tasks=list(self.tasks),
            lr=config.outer_lr,
        )
        self._sizes = UpdateSizes(
            num_tasks=config.update_tasks,
            batch_size=config.batch_size,
            context_size=config.context_size,
            latent_size=config.context.latent_size,
            act_size=act_size,
            ordered=config.context.kind == "recurrent",
            shortest=self.horizon if config.vary_context else None,
        )
        self._seeds = torch_generator(seed)  # on the CPU, whose state any device's run can go on from
        self._sampling = torch_generator(seed, device)
        self._captured: CudaGraph | None = None
        self._under_way: Pending[Collection] | None = None  # trials that are collected during an update

    def actor(self) -> LatentActor:
        """The actor for evaluation: the policy's mode, with latents from the prior, then from the posterior."""
        return LatentActor(
            self.acting, num_prior=self.config.exploration_episodes, num_context=None, deterministic=True
        )

    def collect(self, collector: Collector, tasks: Sequence[Task], rng: np.random.Generator) -> list[Collection]:
        """Trials of the tasks; before the first, prior episodes of all training tasks.

        With collect_while_updating the trials are only begun, and the next `update` stores them when it is done.
        """
        config = self.config
        collections = []
        if not self.replay.num_transitions:
            initial = config.num_initial_episodes
            actor = LatentActor(self.acting, num_prior=initial, num_context=initial, deterministic=False)
            collections.append(
                collect_whole(collector, actor, list(self.tasks), rng, num_episodes=initial, horizon=self.horizon)
            )
        num_context = config.num_context_episodes
        actor = LatentActor(
            self.acting, num_prior=config.num_prior_episodes, num_context=num_context, deterministic=False
        )
        num_episodes = num_context + config.num_extra_episodes
        trials = partial(collect_whole, num_episodes=num_episodes, horizon=self.horizon)
        if not config.collect_while_updating:
            return [*collections, trials(collector, actor, tasks, rng)]
        actor = copy.deepcopy(actor)  # which the update does not reach
        self._under_way = begin_trials(collector, lambda: trials(collector, actor, tasks, rng))
        return collections

    def update(self, experience: Sequence[Collection]) -> dict[str, float]:
        """Store the trials, then take `num_updates` gradient steps on all that is stored.

        Trials that were begun are stored after the steps. An update that fails leaves everything as it was but the
        replay, which keeps the finite trials that were there before it.

        Raises:
            FloatingPointError: if the experience or a loss is not finite; on a CPU it names the task.
        """
        parallel.check_divisible(self, self.config.update_tasks)
        for collection in experience:
            self.store(collection)
        under_way, self._under_way = self._under_way, None
        try:
            with unchanged_on_failure(LearnedState(self)):
                metrics = self._descend()
                self.updates += 1
        except FloatingPointError:
            if under_way is not None:
                under_way.wait()  # after an update nobody collects
            raise
        if under_way is None:
            latest = experience[-1]
        else:
            latest = under_way.result()
            self.store(latest)
        metrics |= return_metrics(latest, self.config.num_prior_episodes)
        return metrics | {"replay/transitions": float(self.replay.num_transitions)}

    def _descend(self) -> dict[str, float]:
        """All gradient steps of an update; means of its metrics by name."""
        rate = linear(self.config.outer_lr, self.config.final_outer_lr, self.updates, self.iterations)
        self.step.set_rate(rate)
        step: Callable[[UpdateDraw], Tensor] = self.step
        # A graph would have to hold what the processes say to each other.
        if self.device.type == "cuda" and self.config.capture_graph and parallel.count() == 1:
            self._captured = self._captured or CudaGraph(lambda tensors: self.step(UpdateDraw(*tensors)))
            step = self._captured
        self._sampling.manual_seed(int(torch.randint(2**63 - 1, (), generator=self._seeds)))
        own = parallel.share(self.config.update_tasks)
        sums = torch.zeros(len(self.step.METRICS), device=self.device)
        for _ in range(self.config.num_updates):
            sums += step(self.draw().select(own))
        sums = parallel.mean(sums)
        if not bool(torch.isfinite(sums).all()):
            raise FloatingPointError("PEARL's loss is not finite; lower outer_lr or reward_scale")
        return dict(zip(self.step.METRICS, (sums / self.config.num_updates).tolist(), strict=True))

    def store(self, collection: Collection) -> None:
        """Put trials into the replay; their first episodes become the tasks' contexts, or part of them."""
        for task, (transitions, num_context) in transitions_by_task(
            collection, self.config.learned_reward
        ).items():
            self.rewards.read(transitions.rewards)
            self.acting.rewards.read(transitions.context_rewards)
            self.replay.add(self.tasks[task], transitions, num_context=num_context)

    def draw(self) -> UpdateDraw:
        """Tasks, transitions and noise of one update."""
        return self._sizes.draw(self.replay, self._sampling)

    def learned_state(self) -> dict[str, Any]:
        """The state without the replay's."""
        return {
            "encoder": self.acting.encoder.state_dict(),
            "learner": self.learner.state_dict(),
            "critic_optimizer": self.step.critic_optimizer.state_dict(),
            "actor_optimizer": self.step.actor_optimizer.state_dict(),
            "reward_scales": [self.rewards.state_dict(), self.acting.rewards.state_dict()],
            "seeds": self._seeds.get_state(),
            "updates": self.updates,
        }

    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Restore the state from `learned_state`."""
        self.acting.encoder.load_state_dict(state["encoder"])
        self.learner.load_state_dict(state["learner"])
        self.step.critic_optimizer.load_state_dict(state["critic_optimizer"])
        self.step.actor_optimizer.load_state_dict(state["actor_optimizer"])
        if "reward_scales" in state:  # earlier states have none: their rewards are as they are
            for scale, values in zip((self.rewards, self.acting.rewards), state["reward_scales"], strict=True):
                scale.load_state_dict(values)
        self._seeds.set_state(state["seeds"])
        self.updates = int(state["updates"])
        self._captured = None  # a graph holds on to the moments that were there when it was captured
