"""The experiments on random tabular MDPs (Duan et al. 2016, table 2)."""

from dataclasses import replace

from metarl.agents.rl2.trial_policy import TrialPolicyConfig
from metarl.experiments.configuration import Experiment
from metarl.experiments.presets.bandits import ON_REGRETS, ON_REWARDS
from metarl.experiments.presets.preset import Preset, Presets
from metarl.experiments.presets.trials import trials
from metarl.training import TrainingConfig


def _mdp(num_episodes: int, iterations: int, meta_batch_size: int) -> Preset[Experiment]:
    """A column of Duan et al. 2016, table 2, with attention instead of a GRU.

    A learner needs the outcomes of the last visits to a state. In 8 million steps, a GRU with the same inputs
    learned little more than to repeat rewarded actions (mean reward 120 to 125 of n = 10); one layer of attention
    over transitions retrieves those visits. Values differ by tens from MDP to MDP; the small gamma at the start
    keeps their errors out of the first advantages.
    """
    agent = replace(ON_REWARDS, gamma=0.5)
    if num_episodes > 10:  # with n = 10's settings n = 25 stopped exploring at 400 of 426
        agent = replace(ON_REGRETS, gamma=0.9, entropy_coef=0.2, final_entropy_coef=0.004, minibatches=6)
    agent = replace(
        agent,
        num_episodes=num_episodes,
        policy=TrialPolicyConfig(memory="transformer", memory_size=64, num_layers=1, read_transitions=True),
        final_gamma=1.0,
        outer_lr=2e-3,
    )
    training = TrainingConfig(iterations, meta_batch_size, checkpoint_every=10, evaluate_every=0)
    source = f"Duan et al. 2016, table 2, n = {num_episodes}; PPO instead of TRPO, attention instead of a GRU"
    return trials("tabular-mdp", agent, training, source, num_tasks=1000)


TABULAR: Presets = {
    "tabular-n10-rl2": _mdp(10, iterations=200, meta_batch_size=1000),
    **{f"tabular-n{n}-rl2": _mdp(n, iterations=110, meta_batch_size=15_000 // n) for n in (25, 50, 75, 100)},
}
