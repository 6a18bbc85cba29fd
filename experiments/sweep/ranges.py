"""Ranges that a sweep draws settings from, as the command line writes them.

agent.outer_lr=log:1e-4:1e-2         a number, its logarithm uniform
agent.gamma=0.9:1                    a number, uniform
agent.outer_steps=int:1:10           a whole number; log-int for a uniform logarithm
agent.policy.memory=gru,lstm         one of several words
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metarl.runs.reading import shorten

_MOST_VALUES = 1000
_FORMS = "LOW:HIGH, log:LOW:HIGH, int:LOW:HIGH, log-int:LOW:HIGH or values with commas"


@dataclass(frozen=True)
class SettingRange:
    """The values that one setting of an experiment may take in a sweep.

    Attributes:
        name: Dotted name of the setting, such as agent.outer_lr.
        low: Least value of a number.
        high: Greatest value of a number.
        log: Whether the logarithm of the number is uniform.
        whole: Whether the number is a whole one.
        values: Words to choose from instead of a number.
    """

    name: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    values: tuple[str, ...] = ()

    def suggest(self, trial: Any) -> str:
        """The value that an Optuna trial is to have, as the command line takes it."""
        if self.values:
            return str(trial.suggest_categorical(self.name, self.values))
        if self.whole:
            return str(trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log))
        return repr(float(trial.suggest_float(self.name, self.low, self.high, log=self.log)))

    def holds(self, value: object) -> bool:
        """Whether a value is in the range."""
        if self.values:
            return str(value) in self.values
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    @property
    def option(self) -> str:
        """The option of the command line that sets it."""
        return "--" + self.name.replace("_", "-")


def parse_range(text: str) -> SettingRange:
    """The range that a word of the command line describes; see the module's docstring.

    Raises:
        ValueError: if it describes none.
    """
    name, separator, range_text = text.partition("=")
    name = name.removeprefix("--").replace("-", "_")
    if not separator or not name or not range_text:
        raise ValueError(f"--over takes SETTING=RANGE, the range {_FORMS}; got {shorten(text)}")
    if ":" not in range_text:
        values = tuple(value.strip() for value in range_text.split(","))
        if not 2 <= len(values) <= _MOST_VALUES or "" in values or len(set(values)) < len(values):
            raise ValueError(f"--over {name}: expected {_FORMS}, at least two different ones; got {range_text!r}")
        return SettingRange(name, values=values)
    *kind, low_text, high_text = range_text.split(":")
    try:
        low, high = float(low_text), float(high_text)
    except ValueError:
        low = high = math.nan
    whole, log = kind in (["int"], ["log-int"]), kind in (["log"], ["log-int"])
    if kind not in ([], ["log"], ["int"], ["log-int"]) or not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"--over {name}: expected {_FORMS}, got {shorten(range_text)}")
    if low >= high or (log and low <= 0) or (whole and not (low.is_integer() and high.is_integer())):
        needs = " above 0" if log else ""
        numbers = "whole numbers" if whole else "numbers"
        raise ValueError(f"--over {name}: expected two {numbers}{needs}, the lower first; got {range_text}")
    return SettingRange(name, low, high, log, whole)


def parse_ranges(texts: Sequence[str]) -> tuple[SettingRange, ...]:
    """The ranges of all words after --over, each of a setting of its own.

    Raises:
        ValueError: if there are none, or two of one setting.
    """
    ranges = tuple(parse_range(text) for text in texts)
    names = [each.name for each in ranges]
    if not ranges:
        raise ValueError(f"a sweep needs --over SETTING=RANGE, the range {_FORMS}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"--over names {twice} twice")
    return ranges
