"""Loading adapted policies: the kinds of actors of the agents in this package, by their names in files."""

from functools import partial
from pathlib import Path

from metarl.agent import SavableActor
from metarl.agents.es_maml import PerturbedActor
from metarl.agents.maml import GradientActor
from metarl.agents.memory_sac import SoftPolicy
from metarl.agents.pearl.actor import LatentActor
from metarl.agents.rl2 import TrialPolicy
from metarl.agents.teacher_student import Student, Teacher
from metarl.agents.trials.actor import TrialActor
from metarl.agents.trials.network import TrialNetwork
from metarl.agents.varibad import BeliefPolicy
from metarl.deploy.policies import ActorMaker, AdaptedPolicy, load_saved

_TRIAL_NETWORKS: tuple[type[TrialNetwork], ...] = (TrialPolicy, BeliefPolicy, SoftPolicy, Student, Teacher)
_MAKERS: dict[str, ActorMaker] = {
    GradientActor.saved_as: GradientActor.from_saved,
    LatentActor.saved_as: LatentActor.from_saved,
    **{kind.saved_as: partial(TrialActor.from_saved, network=kind) for kind in _TRIAL_NETWORKS},
    PerturbedActor.saved_as: PerturbedActor.from_saved,
}


def load_policy(path: Path | str, *, actor: type[SavableActor] | None = None) -> AdaptedPolicy:
    """The adapted policy of a file that `adapted.save(FILE)` wrote; it acts as before saving, to the bit.

    No run folder is needed, and nothing in the file is executed. `metarl.adapt(policy, env, episodes=2)` and
    `metarl.adapt_to_recording` go on adapting it.

    Args:
        path: File to read.
        actor: Class of the actor, where it is one of your own; see `metarl.agent.SavableActor`.

    Raises:
        ValueError: if it is no such file, has been tampered with, or is another agent's; one line.
    """
    own = {} if actor is None else {actor.saved_as: actor.from_saved}
    return load_saved(path, _MAKERS | own)
