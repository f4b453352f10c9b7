"""Local search around the front, as an Optuna sampler: propose many, predict, try the best.

Candidates are mutations of good schedules: some parameters changed, all counts shifted, or two
schedules crossed. The forecast predicts their latency, the surrogate their loss. Proposed is the
candidate with the largest expected hypervolume improvement. Latency is known so much better than
loss that it is taken as certain: one objective is uncertain.
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

# Shares of mutations; the rest changes a few parameters.
CROSSED, SHIFTED, RANDOM = 0.2, 0.15, 0.1
MEAN_EXTRA_CHANGES = 1.0  # beyond the first
NEIGHBOUR_SHARE = 0.7  # of changes to an ordered choice: they go one or two choices up or down


class ParameterMutator:
    """Draws parameters of a space, at random or near others."""

    def __init__(self, choices: Mapping[str, Sequence[Any]], random: np.random.Generator) -> None:
        self._choices, self._random = choices, random
        self._names = [name for name, values in choices.items() if len(values) > 1]

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
        if _is_ordered(values) and self._random.random() < NEIGHBOUR_SHARE:
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


def _is_ordered(values: Sequence[Any]) -> bool:
    """Whether neighbours in a list of choices are similar: numbers are, names are not."""
    return len(values) > 2 and all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in values
    )


GENERATIONS, CHILDREN = 3, 120  # at each level of loss: less time than a timed trial takes
SURVIVORS = 12  # best candidates so far, which are parents of the next generation as well
MIN_OBSERVATIONS = 8  # before the surrogate is fitted
GRID = 64  # latencies at which the front is evaluated
TARGET_WEIGHT = 0.5  # share of the weight that lies on the target itself, if there is one

# A gain, in log loss times share of latency, that is not worth a trial. Where no candidate gains
# more, losses are counted from the finest: what is left to do is to fill in the front where hardly
# anything is lost.
LEAST_GAIN = 0.003


@dataclass(frozen=True, slots=True)
class Observation:
    """One evaluated policy, as the sampler sees it."""

    policy: Policy
    features: Features
    log_loss: float
    noise: float  # standard error of `log_loss`
    ratio: float
    complete: bool  # whether it ran on all images


def observe(
    policy: Policy, *, log_loss: float, noise: float, ratio: float, complete: bool
) -> Observation:
    """Return an evaluated policy as the sampler sees it."""
    return Observation(policy, features(policy), log_loss, noise, ratio, complete)


class Candidate(NamedTuple):
    """One schedule that may be proposed."""

    parameters: Parameters
    policy: Policy
    ratio: float  # predicted


class LocalSampler(BaseSampler):
    """Proposes schedules of a space near the front of the evaluated ones."""

    def __init__(
        self,
        space: SearchSpace,
        model: ModelSpec,
        *,
        observations: Callable[[], Sequence[Observation]],
        ratio: Callable[[Policy], float],
        target_ratio: Callable[[], float],
        smallest_loss: float,
        seed: int,
    ) -> None:
        """Propose schedules of `space` for `model`.

        observations   the policies evaluated so far
        ratio          predicted latency of a policy as a share of the baseline's
        target_ratio   the target in the same terms
        smallest_loss  what was added to every loss before its logarithm was taken
        """
        self._space, self._model = space, model
        self._choices = space.dimensions(model)
        self._observations, self._ratio, self._target_ratio = observations, ratio, target_ratio
        self._smallest_loss = smallest_loss
        self._random = np.random.default_rng(seed)
        self._mutator = ParameterMutator(self._choices, self._random)
        # Losses are counted from the least that matters first, and only then from the smallest.
        # Over all orders of magnitude at once they look rougher: less is learned near the front.
        self._levels = tuple(dict.fromkeys((LEAST_LOSS, smallest_loss)))
        self._nearest: dict[Policy, Parameters] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all dimensions: they are chosen together."""
        return {name: CategoricalDistribution(values) for name, values in self._choices.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Parameters:
        """Choose a schedule."""
        observations = self._observations()
        seen = {one.policy.schedule_hash for one in observations}
        parents = [
            self._nearest_parameters(one.policy) for one in front_of(_complete(observations))
        ]
        if len(observations) < MIN_OBSERVATIONS:
            candidates = list(self._candidates(parents, seen))
            return candidates[0].parameters if candidates else self._mutator.draw()
        return self._evolve(observations, parents, seen)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose one parameter at random; Optuna asks only for what `sample_relative` left out."""
        assert isinstance(param_distribution, CategoricalDistribution)
        return self._mutator.choose(param_distribution.choices)

    def _evolve(
        self, observations: Sequence[Observation], parents: list[Parameters], seen: set[str]
    ) -> Parameters:
        """Return the candidate with the largest expected gain, at the coarsest level of loss."""
        best: list[tuple[float, Parameters]] = []
        for least in self._levels:
            counted = [
                count_loss_from(one, least, smallest_loss=self._smallest_loss)
                for one in observations
            ]
            best = self._select_best(counted, parents, set(seen), least)
            if best and best[0][0] > LEAST_GAIN:
                break
        return best[0][1] if best else self._mutator.draw()

    def _select_best(
        self,
        observations: Sequence[Observation],
        parents: list[Parameters],
        seen: set[str],
        least: float,
    ) -> list[tuple[float, Parameters]]:
        """Return the candidates with the largest expected gains, best first, after generations."""
        surrogate, best = fit_surrogate(observations), list[tuple[float, Parameters]]()
        for _ in range(GENERATIONS):
            candidates = list(self._candidates([*parents, *(chosen for _, chosen in best)], seen))
            if candidates:
                gains = self._gains(_complete(observations), candidates, surrogate, least)
                best += zip(gains, (one.parameters for one in candidates), strict=True)
                best = sorted(best, key=lambda one: -one[0])[:SURVIVORS]
        return best

    def _candidates(self, parents: Sequence[Parameters], seen: set[str]) -> Iterator[Candidate]:
        """Yield new schedules that are fast enough; each is added to `seen`."""
        for _ in range(CHILDREN):
            parameters = self._mutator.mutate(parents)
            policy = self._space.build(parameters, self._model)
            schedule = policy.schedule_hash
            if schedule not in seen and (ratio := self._ratio(policy)) <= self._target_ratio():
                seen.add(schedule)
                yield Candidate(parameters, policy, ratio)

    def _nearest_parameters(self, policy: Policy) -> Parameters:
        """Return the parameters of the schedule of the space nearest to a policy."""
        if policy not in self._nearest:
            self._nearest[policy] = self._space.nearest(policy, self._model)
        return self._nearest[policy]

    def _gains(
        self,
        complete: Sequence[Observation],
        candidates: Sequence[Candidate],
        surrogate: Surrogate,
        least: float,
    ) -> list[float]:
        mean, deviation = surrogate.predict([features(one.policy) for one in candidates])
        ratios = np.array([one.ratio for one in candidates])
        gains: list[float] = hypervolume_gains(
            complete, ratios, mean, deviation, target_ratio=self._target_ratio(), least=least
        ).tolist()
        return gains


def fit_surrogate(observations: Sequence[Observation]) -> Surrogate:
    """Return a surrogate fitted to observations."""
    surrogate = Surrogate()
    surrogate.fit(
        [one.features for one in observations],
        np.array([one.log_loss for one in observations]),
        np.array([one.noise for one in observations]),
    )
    return surrogate


def _complete(observations: Sequence[Observation]) -> list[Observation]:
    return [one for one in observations if one.complete]


def count_loss_from(observation: Observation, least: float, *, smallest_loss: float) -> Observation:
    """Return an observation with log(loss + least) in place of log(loss + smallest_loss)."""
    loss = max(0.0, exp(observation.log_loss) - smallest_loss)
    share = (loss + smallest_loss) / (loss + least)  # by which the same error weighs less
    return replace(observation, log_loss=log(loss + least), noise=observation.noise * share)


def front_of(observations: Sequence[Observation]) -> tuple[Observation, ...]:
    """Return the Pareto front of latency and loss, fastest first."""
    front: list[Observation] = []
    for observation in sorted(observations, key=lambda one: (one.ratio, one.log_loss)):
        if not front or observation.log_loss < front[-1].log_loss:
            front.append(observation)
    return tuple(front)


def hypervolume_gains(
    observations: Sequence[Observation],
    ratios: Values,
    mean: Values,
    deviation: Values,
    *,
    target_ratio: float,
    least: float,
) -> Values:
    """Return the expected hypervolume improvement of each candidate, in log loss times latency.

    observations    of complete trials
    ratios          (n,) predicted latencies of the candidates, of the baseline's
    mean, deviation (n,) of their predicted log losses, which are normal
    target_ratio    the target as a share of the baseline's latency
    least           what was added to every loss before its logarithm: none has a smaller one
    """
    at = np.linspace(0.0, min(1.0, target_ratio), GRID + 1)[1:]
    worst = max(one.log_loss for one in observations)
    best = np.array(
        [min([o.log_loss for o in observations if o.ratio <= t], default=worst) for t in at]
    )
    floor, weight = np.array([log(least)]), np.full(GRID, 1 / GRID)
    best = np.maximum(best, floor)
    if target_ratio < 1:
        weight = (1 - TARGET_WEIGHT) * weight
        weight[-1] += TARGET_WEIGHT
    # A normal prediction includes losses below zero: these are no gain.
    expected = _shortfall(best, mean, deviation) - _shortfall(floor, mean, deviation)
    gains: Values = np.where(ratios[:, None] <= at, expected, 0.0) @ weight
    return gains


def _shortfall(level: Values, mean: Values, deviation: Values) -> Values:
    """Expected amount by which normal predictions lie below levels: (predictions, levels)."""
    lead = (level - mean[:, None]) / deviation[:, None]
    density = np.exp(-0.5 * np.square(lead)) / np.sqrt(2 * np.pi)
    shortfall: Values = deviation[:, None] * (lead * ndtr(lead) + density)
    return shortfall
