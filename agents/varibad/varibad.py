"""VariBAD: a policy on a belief about the task (Zintgraf et al. 2020, arXiv:1910.08348), with PPO.

    repeat:
        collect one trial of num_episodes episodes for each task: after every step the encoder updates its
            posterior q_t over a latent z, from N(0, I) on; the policy observes o_t, its mean and its log variance
        PPO on the trials, in which beliefs are numbers: no gradient of it reaches the encoder
        repeat belief_updates times, for belief_trials of the trials:
            z_t = mean_t + std_t * noise  for t = 0..T
            loss = mean over trials of  sum over t, s of (reward_s - decoded(z_t, step s))^2
                                        + kl_coef * sum over t of KL(q_t || q_{t-1})
            Adam step on its gradient: encoder and decoders
        with beliefs_first these steps come before PPO, which then reads the beliefs of the new encoder

Every posterior decodes the whole trial, its past and its future, so that a belief holds what is known of the task
and how unsure that is. How we differ: PPO's batches are whole trials of many tasks, as those of RL2 here, and the
encoder learns from the last ones alone unless belief_replay keeps more (10,000 as published). The encoder reads
whole transitions with both flags, also the one that ends an episode. The policy reads the prior itself before the
first step of a trial; in the reference code it reads the last transition of the task before. The KL terms are
averaged over trials, as squared errors are; the reference code sums them. What is decoded of observations is the
change of their normalised numbers. The loss is divided by the number of pairs (t, s): the length of a trial does
not scale its gradient.

With beliefs_first what the encoder changes in the policy is part of PPO's ratio. As published it is not seen by
PPO, and was measured to change the next actions as much as PPO does, or up to ten times as much.

HyperX (Zintgraf et al. 2021) is VariBAD with bonuses for exploring: `metarl.agents.varibad.bonuses`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import astuple, dataclass, field, replace
from functools import partial
from operator import itemgetter
from typing import Any, ClassVar

import torch
from torch import Tensor

from metarl.agent import AgentSetup
from metarl.agents.trials.context import CONTEXT
from metarl.agents.trials.ppo import TrialPpo, TrialPpoConfig
from metarl.agents.varibad.bonuses import HyperstateNovelty
from metarl.agents.varibad.elbo import Axes, decoding_errors, elbo
from metarl.agents.varibad.network import BeliefPolicy, BeliefPolicyConfig
from metarl.agents.varibad.store import TrialStore
from metarl.learning.failures import LearnedState, unchanged_on_failure
from metarl.learning.reward_scale import RunningUnit
from metarl.learning.schedules import set_step_size
from metarl.learning.trials import TrialSteps, as_steps
from metarl.nets.distributions import DiagonalGaussian
from metarl.runs import parallel
from metarl.runs.configs import (
    MOST_REPEATS,
    MOST_STEPS,
    MOST_TASKS,
    check_counts,
    check_not_negative,
    check_positive,
)
from metarl.runs.seeding import torch_generator
from metarl.tasks import TaskEnv
from metarl.trajectories import Trajectories

_BELIEF_STREAM, _NOVELTY_STREAM = 1, 2  # added to the seed: PPO's order of minibatches has the seed itself


@dataclass(frozen=True)
class VaribadConfig(TrialPpoConfig):
    """Hyperparameters of VariBAD with PPO. Names that begin with final_ are values at the end of annealing.

    Attributes:
        policy: Encoder, decoders and heads of the policy.
        belief_lr: Adam step size of the encoder and the decoders.
        final_belief_lr: Adam step size of the encoder and the decoders at the end of the run, reached linearly;
            None for no change.
        belief_updates: Adam steps of the encoder and the decoders with each PPO update.
        belief_trials: Number of trials that each of these steps learns from.
        belief_replay: Number of the latest trials that the encoder and the decoders learn from; 0 for those of the
            last collection alone, by which they forget what it does not show.
        beliefs_first: The encoder and the decoders learn before PPO, which then reads the beliefs of the encoder
            as it is now; otherwise after it, and the next actions are taken on other beliefs than PPO read.
        num_posteriors: Number of posteriors of a trial, at random times, that are decoded at a step; None for all.
        num_decoded: Number of steps of a trial, drawn at random, that each posterior decodes; None for all.
        kl_coef: Weight of the KL divergence between successive posteriors, beside squared errors of rewards in
            units of their running scale.
        observation_coef: Weight of the squared error of decoded observations.
        novelty_coef: Weight of HyperX's bonus for new hyper-states (observation and belief) at the start of the
            run, in units of rewards; falls linearly to zero. 0 for VariBAD as published.
        decoding_coef: Weight of HyperX's bonus for steps that are decoded badly at the start of the run, in units
            of rewards; falls linearly to zero.
    """

    policy: BeliefPolicyConfig = field(default_factory=BeliefPolicyConfig)
    belief_lr: float = 1e-3
    final_belief_lr: float | None = None
    belief_updates: int = 8
    belief_trials: int = 32
    belief_replay: int = 0
    beliefs_first: bool = False
    num_posteriors: int | None = None
    num_decoded: int | None = None
    kl_coef: float = 0.1
    observation_coef: float = 1.0
    novelty_coef: float = 0.0
    decoding_coef: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(self, "belief_updates", most=MOST_REPEATS)
        check_counts(self, "belief_trials", most=MOST_TASKS)
        check_counts(self, "belief_replay", least=0, most=MOST_TASKS)
        check_counts(self, "num_posteriors", "num_decoded", most=MOST_STEPS)
        check_positive(self, "belief_lr")
        check_not_negative(self, "kl_coef", "observation_coef", "novelty_coef", "decoding_coef")
        check_not_negative(self, "final_belief_lr", optional=True)

    def make(self, setup: AgentSetup) -> "Varibad":
        """Make an untrained agent with this configuration."""
        return Varibad(setup.env, self, iterations=setup.iterations, seed=setup.seed, device=setup.device)


class Varibad(TrialPpo[BeliefPolicy, VaribadConfig]):
    """A VariBAD agent; see `metarl.agent.Agent`.

    Args:
        env: Environment of the family, read for its spaces and its time limit.
        config: Hyperparameters.
        iterations: Number of updates of the whole run, for annealing.
        seed: Seed of the initial weights, of the order of minibatches and of the latents.
        device: Device of the network and the losses; acting is on the CPU.
    """

    algorithm: ClassVar[str] = "VariBAD"
    data_parallel = True
    not_weights: ClassVar[tuple[str, ...]] = ("trials",)

    def __init__(
        self, env: TaskEnv, config: VaribadConfig, *, iterations: int, seed: int, device: torch.device
    ) -> None:
        policy = BeliefPolicy(env, config.policy, generator=torch_generator(seed))
        super().__init__(policy, env, config, iterations=iterations, seed=seed, device=device)
        self.belief_optimizer = torch.optim.Adam(policy.believing(), lr=config.belief_lr)
        self._latent_noise = torch_generator(seed + _BELIEF_STREAM)
        self._trials: TrialStore | None = None
        if config.belief_replay:
            self._trials = TrialStore(config.belief_replay, env.max_episode_steps * config.num_episodes)
        generator = torch_generator(seed + _NOVELTY_STREAM)
        self._novelty: HyperstateNovelty | None = None
        if config.novelty_coef:
            self._novelty = HyperstateNovelty(policy.num_fixed + policy.context_size, generator, device)
        self._usual = {"novelty": RunningUnit(), "decoding": RunningUnit()}  # bonuses before they are weighted

    def update(self, experience: Trajectories) -> dict[str, float]:
        """PPO on the trials, then the belief's steps; an update that fails leaves the agent as it was.

        Raises:
            FloatingPointError: if the experience or a loss is not finite, naming the task.
        """
        adding: AbstractContextManager[None] = nullcontext()
        if self._trials is not None:
            adding = self._trials.adding(*as_steps(experience), experience.tasks)
        with adding, unchanged_on_failure(LearnedState(self)):
            return self._learn(experience)

    def _learn(self, experience: Trajectories) -> dict[str, float]:
        """An update that may fail halfway; its metrics by name."""
        rate = self._now(self.config.belief_lr, self.config.final_belief_lr)
        set_step_size(self.belief_optimizer, rate)
        if not self.config.beliefs_first:
            return super()._learn(experience) | self._learn_beliefs(experience)
        # Bonuses are for what was new when it was met, so that they are known before the encoder learns of it.
        experience = replace(experience, records=experience.records | {"gain": self.gains(experience)})
        metrics = self._learn_beliefs(experience)
        return super()._learn(self._believed_anew(experience)) | metrics

    @torch.no_grad()
    def _believed_anew(self, experience: Trajectories) -> Trajectories:
        """The trials with the beliefs that the encoder would have had in them as it is now."""
        steps, mask = as_steps(experience)
        posteriors = self.policy.posteriors(steps.map(self._on_device))
        contexts = torch.cat((posteriors.mean, 2 * posteriors.log_std), -1)[:-1].cpu()
        recorded = torch.zeros_like(experience.records[CONTEXT])
        recorded[experience.mask] = contexts.transpose(0, 1)[mask.T]
        return replace(experience, records=experience.records | {CONTEXT: recorded})

    def gains(self, experience: Trajectories) -> Tensor:
        """The numbers whose sum over a trial is maximised, [task, episode, time], with HyperX's bonuses."""
        if "gain" in experience.records:
            return experience.records["gain"]
        gains = super().gains(experience)
        coefs = {
            name: self._now(coef, 0.0)
            for name, coef in (("novelty", self.config.novelty_coef), ("decoding", self.config.decoding_coef))
            if coef
        }
        if not coefs:
            return gains
        steps, mask = as_steps(experience)
        raw = self.bonuses(steps.map(self._on_device))
        scale = float(self.policy.reward_scale)
        total = torch.zeros(mask.shape)
        for name, coef in coefs.items():
            usual = self._usual[name]
            usual.read(raw[name].cpu()[mask])
            total += coef * raw[name].cpu() / (usual.mean or 1.0)
        added = torch.zeros_like(gains)
        added[experience.mask] = total.T[mask.T] / (scale or 1.0)
        return gains + added

    @torch.no_grad()
    def bonuses(self, steps: TrialSteps) -> dict[str, Tensor]:
        """HyperX's bonuses before they are weighted, by name, each [time, trial]; see `varibad.bonuses`.

        Args:
            steps: Steps of trials with their outcomes, [time, trial, ...], on the device.
        """
        after, bonuses = self._beliefs_after(steps), {}
        if self._novelty is not None:
            bonuses["novelty"] = self._novelty(self._hyperstates(steps, after))
        if self.config.decoding_coef:
            latents = after.sample(self._on_device(torch.randn(after.mean.shape, generator=self._latent_noise)))
            targets = self.policy.targets(steps, self.config.observation_coef)
            bonuses["decoding"] = decoding_errors(latents, targets)
        return bonuses

    @torch.no_grad()
    def _beliefs_after(self, steps: TrialSteps) -> DiagonalGaussian:
        """Posteriors after each of the steps, [time, trial, latent]."""
        return DiagonalGaussian(*(part[1:] for part in self.policy.posteriors(steps)))

    @torch.no_grad()
    def _hyperstates(self, steps: TrialSteps, after: DiagonalGaussian) -> Tensor:
        """Observations and beliefs after steps, [time, trial, feature]."""
        belief = torch.cat((after.mean, 2 * after.log_std), -1)
        if not self.policy.num_fixed:
            return belief
        return torch.cat((self.policy.fixed_features(steps.next_observations), belief), -1)

    def _learn_beliefs(self, experience: Trajectories) -> dict[str, float]:
        """All Adam steps of the encoder and the decoders; mean losses by name."""
        steps, mask = as_steps(experience)
        steps, mask = steps.map(self._on_device), self._on_device(mask)
        if self._novelty is not None:
            self._novelty.learn(self._hyperstates(steps, self._beliefs_after(steps))[mask])
        sums = torch.zeros(2, device=self._device)
        for _ in range(self.config.belief_updates):
            sums += self.belief_step(*self._draw_trials(steps, mask, experience.tasks))
        error, kl = (sums / self.config.belief_updates).tolist()
        return {"loss/decoding": error, "belief/kl": kl}

    def _draw_trials(
        self, steps: TrialSteps, mask: Tensor, tasks: Sequence[object]
    ) -> tuple[TrialSteps, Tensor, Sequence[object]]:
        """Trials for a step of the belief: of the store if there is one, else of the last collection."""
        if self._trials is not None:
            stored, real, named = self._trials.draw(self.config.belief_trials, self._latent_noise)
            return stored.map(self._on_device), self._on_device(real), named
        order = torch.randperm(mask.shape[1], generator=self._latent_noise)[: self.config.belief_trials]
        chosen = partial(torch.index_select, dim=1, index=order.to(self._device))
        return steps.map(chosen), chosen(mask), [tasks[index] for index in order.tolist()]

    def belief_step(self, steps: TrialSteps, mask: Tensor, tasks: Sequence[object]) -> Tensor:
        """One Adam step on the lower bound; mean squared error of a decoded step, and KL of a trial in nats, [2].

        Args:
            steps: Steps of trials with their outcomes, [time, trial, ...], on the device.
            mask: True for real steps, [time, trial].
            tasks: Task of each trial, for errors.

        Raises:
            FloatingPointError: if the loss or its gradient is not finite; no step is taken then.
        """
        config, policy = self.config, self.policy
        axes = Axes.draw(len(mask), config.num_posteriors, config.num_decoded, self._latent_noise)
        num_trials, own = mask.shape[1], parallel.share(mask.shape[1])
        shape = (len(axes.posteriors), num_trials, config.policy.latent_size)
        noise = self._on_device(torch.randn(shape, generator=self._latent_noise))[:, own]
        num_steps = mask.sum(0).float()
        num_pairs = (num_steps * (num_steps + 1)).sum()
        steps, mask, tasks = steps.map(itemgetter((slice(None), own))), mask[:, own], tasks[own]
        posteriors = policy.posteriors(steps)
        errors, kl = elbo(posteriors, noise, policy.targets(steps, config.observation_coef), mask, axes)
        bounds = errors + config.kl_coef * kl
        if not bool(torch.isfinite(bounds).all()):
            index = int((~torch.isfinite(bounds)).nonzero()[0])
            raise FloatingPointError(
                f"VariBAD's lower bound is {-float(bounds[index].detach())} on {tasks[index]}; lower belief_lr"
            )
        self.belief_optimizer.zero_grad()
        (bounds.sum() / num_pairs).backward()  # type: ignore[no-untyped-call]
        parallel.sum_gradients(policy.believing())
        norm = torch.nn.utils.clip_grad_norm_(policy.believing(), config.max_grad_norm)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError("the gradient of VariBAD's lower bound is not finite; lower belief_lr")
        self.belief_optimizer.step()
        return parallel.total(torch.stack((errors.sum() / num_pairs, kl.sum() / num_trials)).detach())

    def _on_device(self, values: Tensor) -> Tensor:
        return values.to(self._device)

    def state_dict(self) -> dict[str, Any]:
        """All that it learned, and the trials that beliefs learn from."""
        return self.learned_state() | {"trials": None if self._trials is None else self._trials.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self.load_learned_state(state)
        if self._trials is not None:
            self._trials.load_state_dict(state["trials"])

    def learned_state(self) -> dict[str, Any]:
        """The state of PPO, Adam's moments of the belief, the stream of the latents, and units of bonuses."""
        return super().state_dict() | {
            "belief_optimizer": self.belief_optimizer.state_dict(),
            "latent_noise": self._latent_noise.get_state(),
            "novelty": None if self._novelty is None else self._novelty.state_dict(),
            "usual_bonuses": {name: astuple(usual) for name, usual in self._usual.items()},
        }

    def load_learned_state(self, state: dict[str, Any]) -> None:
        """Put back what `learned_state` gave."""
        super().load_state_dict(state)
        self.belief_optimizer.load_state_dict(state["belief_optimizer"])
        self._latent_noise.set_state(state["latent_noise"])
        if self._novelty is not None:
            self._novelty.load_state_dict(state["novelty"])
        for name, numbers in state.get("usual_bonuses", {}).items():
            self._usual[name] = RunningUnit(*numbers)
