"""Schedules near others, by their parameters: a place changed, all counts shifted, two crossed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Parameters = dict[str, Any]

CROSSED, SHIFTED, RANDOM = 0.2, 0.15, 0.1  # shares of children; the rest changes a few places
MORE_CHANGES = 1.0  # beyond the first, on average
NEIGHBOUR = 0.7  # of changes to an ordered choice that go to a neighbour


class Neighbours:
    """Draws parameters of a space, at random or near others."""

    def __init__(self, choices: Mapping[str, Sequence[Any]], random: np.random.Generator) -> None:
        self._choices, self._random = choices, random
        self._names = [name for name, values in choices.items() if len(values) > 1]

    def drawn(self) -> Parameters:
        """Draw every place."""
        return {name: self.one_of(values) for name, values in self._choices.items()}

    def child(self, parents: Sequence[Parameters]) -> Parameters:
        """Return something near one of the parents, now and then something else."""
        kind = self._random.random()
        if kind < RANDOM or not parents:
            return self.drawn()
        child = dict(self.one_of(parents))
        if kind < RANDOM + SHIFTED:
            return self._shifted(child)
        if kind < RANDOM + SHIFTED + CROSSED:
            other = self.one_of(parents)
            child = {name: self.one_of((child[name], other[name])) for name in child}
        changes = min(len(self._names), 1 + self._random.poisson(MORE_CHANGES))
        for name in self._random.choice(self._names, size=changes, replace=False):
            child[str(name)] = self._changed(str(name), child[str(name)])
        return child

    def one_of(self, values: Sequence[Any]) -> Any:
        """Draw one of some values."""
        return values[int(self._random.integers(len(values)))]

    def _changed(self, name: str, value: Any) -> Any:
        values = self._choices[name]
        if _ordered(values) and self._random.random() < NEIGHBOUR:
            return _moved(values, value, self.one_of((-2, -1, 1, 2)))
        return self.one_of([other for other in values if other != value])

    def _shifted(self, child: Parameters) -> Parameters:
        """The same schedule with more, or with fewer tokens everywhere."""
        by = self.one_of((-1, 1))
        return {
            # A float is a share of tokens; blocks are integers.
            name: _moved(self._choices[name], value, by) if isinstance(value, float) else value
            for name, value in child.items()
        }


def _moved(values: Sequence[Any], value: Any, by: int) -> Any:
    return values[min(max(values.index(value) + by, 0), len(values) - 1)]


def _ordered(values: Sequence[Any]) -> bool:
    """Whether neighbours in a list of choices are alike: numbers are, names are not."""
    return len(values) > 2 and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in values
    )
