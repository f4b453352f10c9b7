"""The choices of a space as Optuna's parameters.

Numbers are ordered, so Optuna is asked for their index: its samplers then know which are near each
other. Everything else is categorical.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

Values = Sequence[Any]


class SuggestsParameters(Protocol):
    """The part of an Optuna trial that a space uses."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Choose one of `choices`."""
        ...

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Choose an integer from `low` to `high`."""
        ...


def is_ordered(values: Values) -> bool:
    """Whether neighbours in a list of choices are similar: numbers are, names and flags are not."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def suggest_value(trial: SuggestsParameters, name: str, values: Values) -> Any:
    """Have a trial choose one of the values."""
    if is_ordered(values):
        return values[trial.suggest_int(name, 0, len(values) - 1)]
    return trial.suggest_categorical(name, values)


def make_distributions(dimensions: Mapping[str, Values]) -> dict[str, BaseDistribution]:
    """Return the distribution of every dimension, as `suggest_value` asks for it."""
    return {
        name: IntDistribution(0, len(values) - 1)
        if is_ordered(values)
        else CategoricalDistribution(values)
        for name, values in dimensions.items()
    }


def encode(chosen: Mapping[str, Any], dimensions: Mapping[str, Values]) -> dict[str, Any]:
    """Return choices as Optuna's parameters."""
    return {
        name: values.index(chosen[name]) if is_ordered(values) else chosen[name]
        for name, values in dimensions.items()
    }


def decode(parameters: Mapping[str, Any], dimensions: Mapping[str, Values]) -> dict[str, Any]:
    """Return the choices that Optuna's parameters stand for."""
    return {
        name: values[parameters[name]] if is_ordered(values) else parameters[name]
        for name, values in dimensions.items()
    }
