"""Local search around the front, as an Optuna sampler: propose many, predict, try the best.

Candidates are mutations of good schedules: some parameters changed, all counts shifted, or two
schedules crossed. The forecast predicts their latency, the surrogate their loss. Proposed is the
candidate with the largest expected hypervolume improvement. Latency is known so much better than
loss that it is taken as certain: one objective is uncertain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from tokensearch.costs.forecast import MACS_ERROR, Forecast
from tokensearch.policy import ModelSpec, Policy, mac_share
from tokensearch.search.early_stopping import FINEST_LOSS, LEAST_LOSS
from tokensearch.search.sampler.gains import count_loss_from, front_of, hypervolume_gains
from tokensearch.search.sampler.mutations import ParameterMutator, Parameters
from tokensearch.search.sampler.observations import Knowledge, Observation, Pending, StudyReader
from tokensearch.search.sampler.surrogate import Surrogate, features
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.suggest import encode, make_distributions

GENERATIONS, CHILDREN = 3, 120  # at each level of loss: less time than a timed trial takes
SURVIVORS = 12  # best candidates so far, which are parents of the next generation as well
MIN_OBSERVATIONS = 4  # before the surrogate is fitted: its trend needs no more (DECISIONS.md)
FIXED = "fixed_params"  # system attribute of Optuna: the parameters that were enqueued

# A gain, in log loss times share of latency, that is not worth a trial. Where no candidate gains
# more, losses are counted from the finest: what is left to do is to fill in the front where hardly
# anything is lost.
LEAST_GAIN = 0.0003


class Candidate(NamedTuple):
    """One schedule that may be proposed."""

    parameters: Parameters
    policy: Policy
    ratio: float  # predicted


class LocalSampler(BaseSampler):
    """Proposes schedules of a space near the front of the evaluated ones.

    All that it knows comes from the trials of the study: see `observations` for the user attributes
    that an objective sets. So a second process, or a later one, goes on from what is there.

        def objective(trial):
            policy = space.suggest(trial, model)
            trial.set_user_attr("loss", divergence(policy))
            return accuracy(policy), latency(policy)

        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=LocalSampler(space, model)
        )
        study.optimize(objective, n_trials=100)
    """

    def __init__(
        self,
        space: SearchSpace,
        model: ModelSpec,
        *,
        forecast: Forecast | None = None,
        target_ratio: float = 1.0,
        smallest_loss: float = FINEST_LOSS,
        seed: int | None = None,
        companion: Study | None = None,
    ) -> None:
        """Propose schedules of `space` for `model`.

        forecast       predicts latencies before any is timed; by multiply-accumulates if not given
        target_ratio   largest latency that is proposed, as a share of the baseline's
        smallest_loss  least difference between losses that counts: 1e-9 nats, 1e-3 for shares
        companion      another study of the model, whose trials teach as well; where the space
                       cannot spell their schedules, they have the attribute `policy`
        """
        self._space, self._model = space, model
        self._choices = space.dimensions(model)
        self._target_ratio, self._smallest_loss = target_ratio, smallest_loss
        self._seed = _draw_seed() if seed is None else seed
        self._others = () if companion is None else (companion,)
        prior = forecast or Forecast(mac_share, MACS_ERROR)
        self._reader = StudyReader(space, model, prior, smallest_loss)

    def reseed_rng(self) -> None:
        """Draw another seed: parallel workers are to differ."""
        self._seed = _draw_seed()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all dimensions: they are chosen together."""
        return make_distributions(self._choices)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Choose a schedule, by the trials of the study and the number of this one alone.

        What other workers are at counts as if it came out as predicted (Ginsbourger et al. 2010,
        "kriging believer"), so that nobody else gains by it.
        """
        if search_space.keys() <= trial.system_attrs.get(FIXED, {}).keys():
            return {}  # enqueued
        studies = (study, *self._others)
        proposer = Proposer(
            self._space,
            self._model,
            self._reader.read(*studies),
            ParameterMutator(self._choices, np.random.default_rng((self._seed, trial.number))),
            self._target_ratio,
            self._smallest_loss,
            self._reader.read_running(*studies, but=trial),
        )
        return encode(proposer.propose(), self._choices)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Choose a parameter that is none of the space's at random."""
        dice = RandomSampler(seed=self._seed + trial.number)
        return dice.sample_independent(study, trial, param_name, param_distribution)


def _draw_seed() -> int:
    return int(np.random.default_rng().integers(2**31))


@dataclass(frozen=True, slots=True)
class Proposer:
    """One proposal under way."""

    space: SearchSpace
    model: ModelSpec
    knowledge: Knowledge
    mutator: ParameterMutator
    target_ratio: float
    smallest_loss: float
    pending: Sequence[Pending] = ()

    def propose(self) -> Parameters:
        """Return the parameters of a new schedule; of any, if no new one is near."""
        observations = self.knowledge.observations
        known = [one.policy for one in observations] + [one.policy for one in self.pending]
        seen = {policy.schedule_hash for policy in known}
        parents = [one.parameters for one in front_of(_complete(observations))]
        if len(observations) < MIN_OBSERVATIONS:
            candidates = list(self._candidates(parents, seen))
            return candidates[0].parameters if candidates else self.mutator.draw()
        return self._evolve(parents, seen)

    def _evolve(self, parents: list[Parameters], seen: set[str]) -> Parameters:
        """Return the candidate with the largest expected gain, at the coarsest level of loss.

        Losses are counted from the least that matters first, and only then from the smallest. Over
        all orders of magnitude at once they look rougher: less is learned near the front.
        """
        best: list[tuple[float, Parameters]] = []
        for least in dict.fromkeys((LEAST_LOSS, self.smallest_loss)):
            counted = [
                count_loss_from(one, least, smallest_loss=self.smallest_loss)
                for one in self.knowledge.observations
            ]
            best = self._select_best(counted, parents, set(seen), least)
            if best and best[0][0] > LEAST_GAIN:
                break
        return best[0][1] if best else self.mutator.draw()

    def _select_best(
        self,
        observations: Sequence[Observation],
        parents: list[Parameters],
        seen: set[str],
        least: float,
    ) -> list[tuple[float, Parameters]]:
        """Return the candidates with the largest expected gains, best first, after generations."""
        surrogate, best = fit_surrogate(observations), list[tuple[float, Parameters]]()
        reached = [*_complete(observations), *self._believe(surrogate)]
        for _ in range(GENERATIONS):
            candidates = list(self._candidates([*parents, *(chosen for _, chosen in best)], seen))
            if candidates:
                gains = self._gains(reached, candidates, surrogate, least)
                best += zip(gains, (one.parameters for one in candidates), strict=True)
                best = sorted(best, key=lambda one: -one[0])[:SURVIVORS]
        return best

    def _believe(self, surrogate: Surrogate) -> list[Observation]:
        """Return what others are at as if it had come out as predicted."""
        if not self.pending:
            return []
        losses, _ = surrogate.predict([one.features for one in self.pending])
        ratio = self.knowledge.forecast.ratio
        return [
            Observation(*one, float(loss), 0.0, ratio(one.policy), complete=True)
            for one, loss in zip(self.pending, losses, strict=True)
        ]

    def _candidates(self, parents: Sequence[Parameters], seen: set[str]) -> Iterator[Candidate]:
        """Yield new schedules that are fast enough; each is added to `seen`."""
        forecast = self.knowledge.forecast
        for _ in range(CHILDREN):
            parameters = self.mutator.mutate(parents)
            policy = self.space.build(parameters, self.model)
            schedule = policy.schedule_hash
            if schedule not in seen and (ratio := forecast.ratio(policy)) <= self.target_ratio:
                seen.add(schedule)
                yield Candidate(parameters, policy, ratio)

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
            complete, ratios, mean, deviation, target_ratio=self.target_ratio, least=least
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
