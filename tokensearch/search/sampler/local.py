"""Local search around the front, as an Optuna sampler: propose many, predict, try the best.

Candidates are schedules near good ones, by their parameters: one changed, all counts shifted, two
crossed. Latency is predicted by the forecast, the loss by the surrogate; the schedule tried next is
the one that is expected to move the front most. The cost of a step is known so much better than its
loss that latency is taken as given (expected hypervolume improvement in one uncertain objective).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any, NamedTuple

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from scipy.special import ndtr

from tokensearch.policy import ModelSpec, Policy
from tokensearch.search.early_stopping import LEAST_LOSS
from tokensearch.search.sampler.surrogate import Features, Surrogate, Values, features
from tokensearch.search.space.space import SearchSpace

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


GENERATIONS, CHILDREN = 3, 120  # weighed at each level, in less time than a timed trial takes
SURVIVORS = 12  # of all candidates so far, which the next generation is near to as well
LEAST_TRIED = 8  # before there is anything to learn from
GRID = 64  # latencies at which the front is looked at
AT_TARGET = 0.5  # of the weight that lies on the target itself, if there is one

# A gain, in log loss times share of latency, that is not worth a trial: below it what counts is to
# fill in the front where nothing is lost to speak of, by losses down to the finest.
LEAST_GAIN = 0.003


@dataclass(frozen=True, slots=True)
class Observation:
    """One policy that was tried, as the sampler sees it."""

    policy: Policy
    features: Features
    log_loss: float
    noise: float  # standard error of `log_loss`
    ratio: float
    whole: bool  # on all images


def observe(
    policy: Policy, *, log_loss: float, noise: float, ratio: float, whole: bool
) -> Observation:
    """Return what the sampler is to know of a policy."""
    return Observation(policy, features(policy), log_loss, noise, ratio, whole)


class Candidate(NamedTuple):
    """One schedule that may be proposed."""

    parameters: Parameters
    policy: Policy
    ratio: float  # predicted


class LocalSampler(BaseSampler):
    """Proposes schedules of a space near the front of those tried."""

    def __init__(
        self,
        space: SearchSpace,
        model: ModelSpec,
        *,
        known: Callable[[], Sequence[Observation]],
        ratio: Callable[[Policy], float],
        limit: Callable[[], float],
        finest: float,
        seed: int,
    ) -> None:
        self._space, self._model = space, model
        self._choices = space.dimensions(model)
        self._known, self._ratio, self._limit, self._finest = known, ratio, limit, finest
        self._random = np.random.default_rng(seed)
        self._neighbours = Neighbours(self._choices, self._random)
        # Losses are counted from the least that matters, and only then from the finest: over all
        # orders of magnitude at once they look rougher, and near the front less is learned.
        self._levels = tuple(dict.fromkeys((LEAST_LOSS, finest)))
        self._spellings: dict[Policy, Parameters] = {}

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
        parents = [self._spelled(one.policy) for one in front_of(_evaluated(known))]
        if len(known) < LEAST_TRIED:
            found = list(self._new(parents, hashes))
            return found[0].parameters if found else self._neighbours.drawn()
        return self._evolved(known, parents, hashes)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose one place at random; asked for nothing that `sample_relative` has chosen."""
        assert isinstance(param_distribution, CategoricalDistribution)
        return self._neighbours.one_of(param_distribution.choices)

    def _evolved(
        self, known: Sequence[Observation], parents: list[Parameters], seen: set[str]
    ) -> Parameters:
        """Choose what is expected to move the front most, by losses that matter if possible."""
        best: list[tuple[float, Parameters]] = []
        for least in self._levels:
            counted = [counted_from(one, least, finest=self._finest) for one in known]
            best = self._fittest(counted, parents, set(seen), least)
            if best and best[0][0] > LEAST_GAIN:
                break
        return best[0][1] if best else self._neighbours.drawn()

    def _fittest(
        self, known: Sequence[Observation], parents: list[Parameters], seen: set[str], least: float
    ) -> list[tuple[float, Parameters]]:
        """Return what is expected to gain most, near the front and near the best so far."""
        surrogate, best = fit_surrogate(known), list[tuple[float, Parameters]]()
        for _ in range(GENERATIONS):
            found = list(self._new([*parents, *(chosen for _, chosen in best)], seen))
            if found:
                gained = self._gains(_evaluated(known), found, surrogate, least)
                best += zip(gained, (one.parameters for one in found), strict=True)
                best = sorted(best, key=lambda one: -one[0])[:SURVIVORS]
        return best

    def _new(self, parents: Sequence[Parameters], seen: set[str]) -> Iterator[Candidate]:
        """Yield schedules that are fast enough, none that was seen before."""
        for _ in range(CHILDREN):
            parameters = self._neighbours.child(parents)
            policy = self._space.build(parameters, self._model)
            name = policy.schedule_hash
            if name not in seen and (ratio := self._ratio(policy)) <= self._limit():
                seen.add(name)
                yield Candidate(parameters, policy, ratio)

    def _spelled(self, policy: Policy) -> Parameters:
        """Parameters of the schedule of the space nearest to a policy."""
        if policy not in self._spellings:
            self._spellings[policy] = self._space.nearest(policy, self._model)
        return self._spellings[policy]

    def _gains(
        self,
        whole: Sequence[Observation],
        candidates: Sequence[Candidate],
        surrogate: Surrogate,
        least: float,
    ) -> list[float]:
        guess = surrogate.predict([features(one.policy) for one in candidates])
        ratios = np.array([one.ratio for one in candidates])
        found: list[float] = hypervolume_gains(
            whole, ratios, *guess, limit=self._limit(), least=least
        ).tolist()
        return found


def fit_surrogate(known: Sequence[Observation]) -> Surrogate:
    """Return what is to be expected of others."""
    surrogate = Surrogate()
    surrogate.fit(
        [one.features for one in known],
        np.array([one.log_loss for one in known]),
        np.array([one.noise for one in known]),
    )
    return surrogate


def _evaluated(known: Sequence[Observation]) -> list[Observation]:
    return [one for one in known if one.whole]


def counted_from(one: Observation, least: float, *, finest: float) -> Observation:
    """Return the same with log(loss + least) in place of log(loss + finest)."""
    loss = max(0.0, exp(one.log_loss) - finest)
    share = (loss + finest) / (loss + least)  # by which the same error weighs less
    return replace(one, log_loss=log(loss + least), noise=one.noise * share)


def front_of(known: Sequence[Observation]) -> tuple[Observation, ...]:
    """Those that none that is as fast loses less than, fastest first."""
    chosen: list[Observation] = []
    for one in sorted(known, key=lambda one: (one.ratio, one.log_loss)):
        if not chosen or one.log_loss < chosen[-1].log_loss:
            chosen.append(one)
    return tuple(chosen)


def hypervolume_gains(
    known: Sequence[Observation],
    ratios: Values,
    mean: Values,
    deviation: Values,
    *,
    limit: float,
    least: float,
) -> Values:
    """Return how far each candidate is expected to push the front, in log loss times latency.

    ratios, mean, deviation  (n,) of the candidates: latency, and the normal guess of the log loss
    least                    what was added to every loss: none has a smaller logarithm
    """
    at = np.linspace(0.0, min(1.0, limit), GRID + 1)[1:]
    worst = max(one.log_loss for one in known)
    best = np.array([min([o.log_loss for o in known if o.ratio <= t], default=worst) for t in at])
    floor, weight = np.array([log(least)]), np.full(GRID, 1 / GRID)
    best = np.maximum(best, floor)
    if limit < 1:
        weight = (1 - AT_TARGET) * weight
        weight[-1] += AT_TARGET
    # A guess is normal, and promises losses below none: that is no gain.
    expected = _shortfall(best, mean, deviation) - _shortfall(floor, mean, deviation)
    gained: Values = np.where(ratios[:, None] <= at, expected, 0.0) @ weight
    return gained


def _shortfall(level: Values, mean: Values, deviation: Values) -> Values:
    """Expected amount by which normal guesses lie below levels: (guesses, levels)."""
    lead = (level - mean[:, None]) / deviation[:, None]
    density = np.exp(-0.5 * np.square(lead)) / np.sqrt(2 * np.pi)
    shortfall: Values = deviation[:, None] * (lead * ndtr(lead) + density)
    return shortfall
