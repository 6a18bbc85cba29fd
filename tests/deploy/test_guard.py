"""A guard keeps actions within limits and reacts to observations that are no good as its user chose."""

from typing import Any

import numpy as np
import pytest

from metarl.deploy.guard import Guard, Limits


class Doubling:
    """Acts by twice its observation, and remembers what it was asked and told."""

    def __init__(self, kind: str = "Box") -> None:
        self.card: dict[str, Any] = {
            "action_space": {"kind": kind, "shape": [2], "dtype": "float32", "low": -1.0, "high": [1.0, 3.0]},
            "met_in_training": {"observations": {"": {"low": [-1.0, -1.0], "high": [1.0, 1.0]}}},
        }
        self.asked: list[Any] = []
        self.told: list[tuple[Any, ...]] = []
        self.episodes = 0

    def begin_episode(self) -> None:
        self.episodes += 1

    def act(self, observation: Any) -> Any:
        self.asked.append(observation)
        return 2 * np.asarray(observation)

    def observe(self, observation: Any, reward: float, terminated: bool, truncated: bool, *, action: Any) -> None:
        self.told.append((observation, reward, terminated, truncated, action.tolist()))


GOOD, NOT_FINITE, OUTSIDE = np.array([0.25, 0.5]), np.array([np.nan, 0.0]), np.array([0.0, 1.5])


def _guard(limits: Limits, **options: Any) -> tuple[Guard, Doubling]:
    policy = Doubling()
    guard = Guard(policy, limits, **options)
    guard.begin_episode()
    assert policy.episodes == 1
    return guard, policy


def test_actions_stay_within_the_spaces_bounds_and_the_users() -> None:
    guard, _ = _guard(Limits())
    assert guard.act([0.9, 1.0]).tolist() == [1.0, 2.0]
    guard, _ = _guard(Limits(low=-0.5, high=[0.5, 1.0]))
    assert guard.act([0.9, -1.0]).tolist() == [0.5, -0.5]
    assert guard.act([0.1, 0.1]).tolist() == pytest.approx([0.2, 0.2])
    assert guard.counts["limited"] == 1


def test_an_action_changes_by_at_most_so_much_from_rest_on() -> None:
    guard, policy = _guard(Limits(max_change=[0.5, 1.0], rest=[0.1, 0.0]))
    acts = [guard.act([0.45, 0.9]).tolist() for _ in range(3)]
    assert np.allclose(acts, [[0.6, 1.0], [0.9, 1.8], [0.9, 1.8]])
    assert guard.counts["limited"] == 1
    guard.observe(GOOD, 1.0, truncated=True)
    assert policy.told == [(GOOD, 1.0, False, True, pytest.approx([0.9, 1.8]))]  # the applied action
    guard.begin_episode()
    assert guard.act([0.45, 0.9]).tolist() == pytest.approx([0.6, 1.0])


@pytest.mark.parametrize(
    ("cause", "observation", "age_s"),
    [("not_finite", NOT_FINITE, 0.0), ("late", GOOD, 0.5), ("late", None, 0.0), ("outside", OUTSIDE, 0.0)],
)
def test_each_cause_has_the_reaction_that_was_chosen(cause: str, observation: Any, age_s: float) -> None:
    def react(reaction: str) -> tuple[list[list[float]], Guard, Doubling]:
        chosen: Any = {f"on_{cause}": reaction}
        guard, policy = _guard(Limits(max_age_s=0.1, **chosen), fallback=lambda good: -np.asarray(good))
        actions = [guard.act(GOOD), guard.act(observation, age_s=age_s), guard.act(GOOD)]
        assert guard.counts[cause.replace("_", " ")] == 1
        return [action.tolist() for action in actions], guard, policy

    actions, guard, policy = react("hold")
    assert actions == [[0.5, 1.0], [0.5, 1.0], [0.5, 1.0]]
    assert (len(policy.asked), guard.counts["held"], guard.stopped) == (2, 1, False)
    actions, guard, policy = react("fallback")
    assert actions == [[0.5, 1.0], [-0.25, -0.5], [0.5, 1.0]]
    assert (len(policy.asked), guard.counts["fallback"]) == (2, 1)
    actions, guard, policy = react("stop")
    assert actions == [[0.5, 1.0], [0.0, 0.0], [0.0, 0.0]]
    assert (len(policy.asked), guard.counts["stopped"], guard.stopped) == (1, 2, True)
    guard.begin_episode()
    assert guard.act(GOOD).tolist() == [0.5, 1.0]


def test_what_is_passed_is_acted_on_and_counted() -> None:
    guard, _ = _guard(Limits(max_age_s=0.1, on_late="pass", on_outside="pass", margin=0.2))
    assert guard.act([0.0, 1.2]).tolist() == pytest.approx([0.0, 2.4])  # within the margin
    assert guard.act(OUTSIDE).tolist() == [0.0, 3.0]
    assert guard.act(GOOD, age_s=1.0).tolist() == [0.5, 1.0]
    assert guard.act(None).tolist() == [0.5, 1.0]  # there is nothing to act on
    assert guard.report() == "steps 4, late 2, outside 1, held 1"


def test_an_outcome_is_read_of_the_policys_own_actions_alone() -> None:
    guard, policy = _guard(Limits())
    guard.act(GOOD)
    guard.observe(NOT_FINITE, np.nan)
    guard.act(None)
    guard.observe(GOOD, 5.0)  # of an action that was held
    guard.act(GOOD)
    guard.observe(OUTSIDE, 2.0)
    assert [(told[0] is GOOD, told[1]) for told in policy.told] == [(True, 0.0), (False, 2.0)]
    assert guard.counts["substituted"] == 2


def test_a_policy_that_reads_every_outcome_gets_one_where_none_came() -> None:
    guard, policy = _guard(Limits())
    guard.act(GOOD)
    guard.act(GOOD)
    assert policy.told == []
    policy.card["reads"] = "every outcome"
    guard.act(None)
    guard.act(OUTSIDE)
    assert [(told[0] is GOOD, told[1], told[4]) for told in policy.told] == [(True, 0.0, [0.5, 1.0])]
    assert guard.counts["substituted"] == 2


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a fallback"):
        Guard(Doubling(), Limits(on_late="fallback"))
    with pytest.raises(ValueError, match="continuous actions, got Discrete"):
        Guard(Doubling("Discrete"), Limits())
    with pytest.raises(ValueError, match="low must not be above high"):
        Guard(Doubling(), Limits(low=2.0))
    unfit: list[tuple[dict[str, Any], str]] = [
        ({"max_change": [0.1, 0.1, 0.1]}, r"max_change must be one number or one per component of \(2,\), got 3"),
        ({"low": [0.0, 0.0, 0.0]}, "low must be one number"),
        ({"rest": [0.0, 0.0, 0.0]}, "rest must be one number"),
        ({"rest": np.nan}, "rest must be finite, got nan"),
    ]
    for fields, words in unfit:
        with pytest.raises(ValueError, match=words):
            Guard(Doubling(), Limits(**fields))
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"on_late": "panic"}, "on_late must be one of"),
        ({"on_not_finite": "pass"}, "on_not_finite must be hold"),
        ({"max_change": 0.0}, "max_change must be positive"),
        ({"max_age_s": 0.0}, "max_age_s must be positive"),
        ({"margin": np.nan}, "margin not negative"),
    ]
    for fields, words in wrong:
        with pytest.raises(ValueError, match=words):
            Limits(**fields)
    guard, _ = _guard(Limits(on_late="fallback"), fallback=lambda good: np.array([np.inf, 0.0]))
    with pytest.raises(ValueError, match="action must be finite"):
        guard.act(None)
