"""Mutations of schedules, as parameters of a space."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokensearch.search.space.suggest import is_ordered

Parameters = dict[str, Any]

# Shares of mutations; the rest changes a few parameters.
CROSSED, SHIFTED, RANDOM = 0.2, 0.15, 0.1
MEAN_EXTRA_CHANGES = 1.0  # beyond the first
NEIGHBOUR_SHARE = 0.7  # of changes to an ordered choice: they go one or two choices up or down


class ParameterMutator:
    """Draws parameters of a space, at random or near others."""

    def __init__(self, choices: Mapping[str, Sequence[Any]], random: np.random.Generator) -> None:
        self._choices, self._random = choices, random
        # As an array: NumPy would make one of a list at every draw.
        self._names = np.array([name for name, values in choices.items() if len(values) > 1])

    def draw(self) -> Parameters:
        """Draw every parameter."""
        return {name: self.choose(values) for name, values in self._choices.items()}

    def mutate(self, parents: Sequence[Parameters]) -> Parameters:
        """Return a mutation of one of the parents, or now and then a random draw."""
        kind = self._random.random()
        if kind < RANDOM or not parents:
            return self.draw()
        child = dict(self.choose(parents))
        if kind < RANDOM + SHIFTED:
            return self._shift_counts(child)
        if kind < RANDOM + SHIFTED + CROSSED:
            other = self.choose(parents)
            child = {name: self.choose((child[name], other[name])) for name in child}
        changes = min(len(self._names), 1 + self._random.poisson(MEAN_EXTRA_CHANGES))
        for name in self._random.choice(self._names, size=changes, replace=False):
            child[str(name)] = self._change(str(name), child[str(name)])
        return child

    def choose(self, values: Sequence[Any]) -> Any:
        """Draw one of the values."""
        return values[int(self._random.integers(len(values)))]

    def _change(self, name: str, value: Any) -> Any:
        values = self._choices[name]
        if len(values) > 2 and is_ordered(values) and self._random.random() < NEIGHBOUR_SHARE:
            return _move(values, value, self.choose((-2, -1, 1, 2)))
        return self.choose([other for other in values if other != value])

    def _shift_counts(self, child: Parameters) -> Parameters:
        """Return the same schedule with more tokens in every step, or with fewer."""
        by = self.choose((-1, 1))
        return {
            # A float is a share of tokens; blocks are integers.
            name: _move(self._choices[name], value, by) if isinstance(value, float) else value
            for name, value in child.items()
        }


def _move(values: Sequence[Any], value: Any, by: int) -> Any:
    return values[min(max(values.index(value) + by, 0), len(values) - 1)]
