"""VariBAD's settings beside RL2's: the same trials, discounts and batches, so that only the agents differ."""

from dataclasses import fields, replace

from metarl.agents.rl2.rl2 import Rl2Config
from metarl.agents.trials.ppo import TrialPpoConfig
from metarl.agents.varibad.network import BeliefPolicyConfig
from metarl.agents.varibad.varibad import VaribadConfig

SOURCE = "Zintgraf et al. 2020: VariBAD with a latent of 5; trials, discounts and batches are those of RL2 here"


def varibad(rl2: Rl2Config, policy: BeliefPolicyConfig) -> VaribadConfig:
    """VariBAD with RL2's PPO, in minibatches of single steps, four times as many.

    Args:
        rl2: Settings of RL2 on the same tasks.
        policy: Encoder, decoders and heads.
    """
    shared = {field.name: getattr(rl2, field.name) for field in fields(TrialPpoConfig)} | {"policy": policy}
    return replace(
        VaribadConfig(**shared),
        minibatches=4 * rl2.minibatches,
        backprop_steps=None,
        belief_updates=8,
        belief_trials=32,
        beliefs_first=True,
        num_posteriors=50,
        num_decoded=50,
    )
