"""The metrics that all agents report of a training batch: before and after adaptation, and by family."""

from torch import Tensor

from metarl.trajectories import Trajectories

_ALL = slice(None)


def adaptation_metrics(
    first: Trajectories, last: Trajectories, before: slice = _ALL, after: slice = _ALL
) -> dict[str, float]:
    """Mean returns before and after adaptation, mean length of episodes, and success where it is reported.

    Batches of several families have the success, or the return where there is none, of every family too, as
    "train/success_post/NAME" or "train/return_post/NAME": which skills are learned when.

    Args:
        first: Episodes of the unadapted agent.
        last: Episodes of the adapted agent; may be the same, whose later episodes are then the adapted ones.
        before: Episodes of `first` that are acted without adaptation.
        after: Episodes of `last` that are acted after it.
    """
    returns = last.returns()[:, after]
    metrics = {
        "train/return_pre": float(first.returns()[:, before].mean()),
        "train/return_post": float(returns.mean()),
        "train/episode_length": float(last.mask.sum(-1).float().mean()),
    }
    successes = last.successes()
    if successes is None:
        return metrics | _by_family("train/return_post", returns, last)
    achieved = successes[:, after].float()
    metrics["train/success_post"] = float(achieved.mean())
    return metrics | _by_family("train/success_post", achieved, last)


def _by_family(name: str, values: Tensor, trajectories: Trajectories) -> dict[str, float]:
    """Means of the values, [task, episode], of every family, if there are several."""
    families = [task.family for task in trajectories.tasks]
    if len(set(families)) == 1:
        return {}
    rows = {family: [i for i, own in enumerate(families) if own == family] for family in sorted(set(families))}
    return {f"{name}/{family.rpartition('/')[2]}": float(values[own].mean()) for family, own in rows.items()}
