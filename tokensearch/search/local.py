"""Local search around the front, as an Optuna sampler: propose many, predict, try the best.

Latency is predicted by the forecast, what is lost by the surrogate; the schedule tried next is the
one that is expected to move the front most. What a step costs is known so much better than what it
loses that latency is taken as given (expected hypervolume improvement in one uncertain objective).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from tokensearch.policy import ModelSpec, Policy
from tokensearch.search.space import Space
from tokensearch.search.surrogate import Features, Surrogate, Values, features

Parameters = dict[str, Any]

CANDIDATES = 160  # weighed for every proposal: some 0.1 s on one core of a CPU
LEAST_TRIED = 8  # before there is anything to learn from
CROSSED, SHIFTED, RANDOM = 0.2, 0.15, 0.1  # shares of the candidates; the rest changes a few places
MORE_CHANGES = 1.0  # beyond the first, on average
NEIGHBOUR = 0.7  # of changes to an ordered choice that go to a neighbour
GRID = 64  # latencies at which the front is looked at
AT_TARGET = 0.5  # of the weight that lies on the target itself, if there is one


@dataclass(frozen=True, slots=True)
class Tried:
    """One policy that was tried, as the sampler sees it."""

    policy: Policy
    features: Features
    log_loss: float
    noise: float  # standard error of `log_loss`
    ratio: float
    whole: bool  # on all images


def tried(policy: Policy, *, log_loss: float, noise: float, ratio: float, whole: bool) -> Tried:
    """Return what the sampler is to know of a policy."""
    return Tried(policy, features(policy), log_loss, noise, ratio, whole)


class LocalSampler(BaseSampler):
    """Proposes schedules of a space near the front of those tried."""

    def __init__(
        self,
        space: Space,
        model: ModelSpec,
        *,
        known: Callable[[], Sequence[Tried]],
        ratio: Callable[[Policy], float],
        limit: Callable[[], float],
        seed: int,
    ) -> None:
        self._space, self._model = space, model
        self._choices = space.dimensions(model)
        self._known, self._ratio, self._limit = known, ratio, limit
        self._random = np.random.default_rng(seed)
        self._surrogate = Surrogate(self._random)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all dimensions: they are chosen together."""
        return {name: CategoricalDistribution(values) for name, values in self._choices.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Parameters:
        """Choose a schedule."""
        known = self._known()
        hashes = {one.policy.schedule_hash for one in known}
        found = self._candidates([one for one in known if one.whole], hashes)
        if not found:
            return self._drawn()
        if len(known) < LEAST_TRIED:
            return found[0][0]
        return found[self._best(known, [policy for _, policy in found])][0]

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose one place at random; asked for nothing that `sample_relative` has chosen."""
        assert isinstance(param_distribution, CategoricalDistribution)
        return self._one_of(param_distribution.choices)

    def _candidates(
        self, whole: Sequence[Tried], seen: set[str]
    ) -> list[tuple[Parameters, Policy]]:
        """New schedules that are fast enough, by their parameters."""
        parents = [self._space.nearest(one.policy, self._model) for one in front_of(whole)]
        found: dict[str, tuple[Parameters, Policy]] = {}
        for _ in range(CANDIDATES):
            parameters = self._child(parents) if parents else self._drawn()
            policy = self._space.build(parameters, self._model)
            name = policy.schedule_hash
            if name not in seen and name not in found and self._ratio(policy) <= self._limit():
                found[name] = parameters, policy
        return list(found.values())

    def _child(self, parents: Sequence[Parameters]) -> Parameters:
        kind = self._random.random()
        if kind < RANDOM:
            return self._drawn()
        child = dict(self._one_of(parents))
        if kind < RANDOM + SHIFTED:
            return self._shifted(child)
        if kind < RANDOM + SHIFTED + CROSSED:
            other = self._one_of(parents)
            child = {name: self._one_of((child[name], other[name])) for name in child}
        names = [name for name, values in self._choices.items() if len(values) > 1]
        changes = min(len(names), 1 + self._random.poisson(MORE_CHANGES))
        for name in self._random.choice(names, size=changes, replace=False):
            child[str(name)] = self._changed(str(name), child[str(name)])
        return child

    def _changed(self, name: str, value: Any) -> Any:
        values = self._choices[name]
        if _ordered(values) and self._random.random() < NEIGHBOUR:
            return self._moved(values, value, self._one_of((-2, -1, 1, 2)))
        return self._one_of([other for other in values if other != value])

    def _shifted(self, child: Parameters) -> Parameters:
        """The same schedule with more, or with fewer tokens everywhere."""
        by = self._one_of((-1, 1))
        return {
            name: self._moved(self._choices[name], value, by)
            if isinstance(value, float)  # a share of tokens; blocks are integers
            else value
            for name, value in child.items()
        }

    def _moved(self, values: Sequence[Any], value: Any, by: int) -> Any:
        return values[min(max(values.index(value) + by, 0), len(values) - 1)]

    def _drawn(self) -> Parameters:
        return {name: self._one_of(values) for name, values in self._choices.items()}

    def _one_of(self, values: Sequence[Any]) -> Any:
        return values[int(self._random.integers(len(values)))]

    def _best(self, known: Sequence[Tried], policies: Sequence[Policy]) -> int:
        """Which of the policies is expected to move the front most."""
        self._surrogate.fit(
            [one.features for one in known],
            np.array([one.log_loss for one in known]),
            np.array([one.noise for one in known]),
        )
        mean, deviation = self._surrogate.guess([features(policy) for policy in policies])
        ratios = np.array([self._ratio(policy) for policy in policies])
        whole = [one for one in known if one.whole]
        return int(np.argmax(gains(whole, ratios, mean, deviation, limit=self._limit())))


def front_of(known: Sequence[Tried]) -> tuple[Tried, ...]:
    """Those that none that is as fast loses less than, fastest first."""
    chosen: list[Tried] = []
    for one in sorted(known, key=lambda one: (one.ratio, one.log_loss)):
        if not chosen or one.log_loss < chosen[-1].log_loss:
            chosen.append(one)
    return tuple(chosen)


def gains(
    known: Sequence[Tried], ratios: Values, mean: Values, deviation: Values, *, limit: float
) -> Values:
    """Return how far each candidate is expected to push the front, in log loss times latency.

    ratios, mean, deviation  (n,) of the candidates: latency, and the normal guess of the log loss
    """
    at = np.linspace(0.0, min(1.0, limit), GRID + 1)[1:]
    worst = max(one.log_loss for one in known)
    best = np.array([min([o.log_loss for o in known if o.ratio <= t], default=worst) for t in at])
    weight = np.full(GRID, 1 / GRID)
    if limit < 1:
        weight = (1 - AT_TARGET) * weight
        weight[-1] += AT_TARGET
    lead = (best - mean[:, None]) / deviation[:, None]
    expected = deviation[:, None] * (lead * _below(lead) + _density(lead))
    gained: Values = np.where(ratios[:, None] <= at, expected, 0.0) @ weight
    return gained


def _ordered(values: Sequence[Any]) -> bool:
    """Whether neighbours in a list of choices are alike: numbers are, names are not."""
    return len(values) > 2 and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in values
    )


def _density(x: Values) -> Values:
    density: Values = np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi)
    return density


def _below(x: Values) -> Values:
    """Share of a normal distribution below x, to 7.5e-8 (Abramowitz & Stegun 26.2.17)."""
    t = 1 / (1 + 0.2316419 * np.abs(x))
    powers = (0.319381530, -0.356563782, 1.781477937, -1.821255978, 1.330274429)
    tail = _density(x) * sum(c * t**k for k, c in enumerate(powers, 1))
    return np.where(x > 0, 1 - tail, tail)
