"""What the local sampler learns from the trials of a study: user attributes, and what they mean.

    loss         how far the schedule is from perfect, at least 0: a divergence from the baseline in
                 nats, or a share of wrong answers
    loss_error   standard error of its logarithm, where it was extrapolated from a part of the
                 images; without it, the loss counts as that of all images
    latency      the timed latency as a share of the baseline's, where it was timed
    latency_low  lower end of its 95 % interval
    latency_high upper end
    policy       the schedule as a policy file spells it, where the parameters do not

Every complete trial needs a `loss`, the rest may be left out. Trials that failed or were pruned
teach nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from tokensearch.costs.forecast import Forecast
from tokensearch.errors import RunError
from tokensearch.policy import ModelSpec, Policy
from tokensearch.policy.file import policy_from_json
from tokensearch.search.sampler.mutations import Parameters
from tokensearch.search.sampler.surrogate import Features, features
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.suggest import decode

LOSS, LOSS_ERROR = "loss", "loss_error"
LATENCY, LATENCY_LOW, LATENCY_HIGH = "latency", "latency_low", "latency_high"
POLICY = "policy"


class Timing(NamedTuple):
    """A timed latency as a share of the baseline's, with its 95 % interval."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One evaluated policy, as the sampler sees it."""

    policy: Policy
    parameters: Parameters  # of the schedule of the space nearest to it
    features: Features
    log_loss: float
    noise: float  # standard error of `log_loss`
    ratio: float
    complete: bool  # whether it ran on all images


class Evaluated(NamedTuple):
    """A trial as its attributes tell it, before latencies are predicted."""

    policy: Policy
    parameters: Parameters
    features: Features
    loss: float
    loss_error: float
    timing: Timing | None


class Pending(NamedTuple):
    """A schedule that another worker is at."""

    policy: Policy
    parameters: Parameters
    features: Features


class Knowledge(NamedTuple):
    """What the trials of some studies teach."""

    observations: tuple[Observation, ...]
    forecast: Forecast


class StudyReader:
    """Reads what the trials of studies teach; a finished trial is read once."""

    def __init__(
        self, space: SearchSpace, model: ModelSpec, forecast: Forecast, smallest_loss: float
    ) -> None:
        self._space, self._model, self._dimensions = space, model, space.dimensions(model)
        self._forecast, self._smallest_loss = forecast, smallest_loss
        self._known: dict[tuple[str, int], Evaluated] = {}

    def read(self, *studies: Study) -> Knowledge:
        """Return one observation per schedule, with latencies by all timings there are."""
        evaluated: dict[str, Evaluated] = {}
        for trial in (trial for study in studies for trial in self._trials(study)):
            evaluated[trial.policy.schedule_hash] = trial  # the latest knows most
        forecast = self._forecast
        for trial in evaluated.values():
            if trial.timing is not None:
                forecast = forecast.learned(trial.policy, trial.timing)
        observations = (self._observe(trial, forecast) for trial in evaluated.values())
        return Knowledge(tuple(observations), forecast)

    def read_running(self, *studies: Study, but: FrozenTrial) -> tuple[Pending, ...]:
        """Return the schedules that other workers are at: those of running trials but one."""
        states = (TrialState.RUNNING,)
        running = (trial for study in studies for trial in study.get_trials(False, states))
        known = (trial for trial in running if trial._trial_id != but._trial_id)
        policies = (self._policy(trial) for trial in known if self._is_spelt(trial))
        return tuple(
            Pending(policy, self._space.nearest(policy, self._model), features(policy))
            for policy in policies
        )

    def _is_spelt(self, trial: FrozenTrial) -> bool:
        """Whether a trial says what its schedule is: one that is just being proposed does not."""
        return POLICY in trial.user_attrs or self._dimensions.keys() <= trial.params.keys()

    def _trials(self, study: Study) -> Iterator[Evaluated]:
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            key = study.study_name, trial.number
            if key not in self._known:
                self._known[key] = self._evaluated(trial, study.study_name)
            yield self._known[key]

    def _evaluated(self, trial: FrozenTrial, study: str) -> Evaluated:
        attributes = trial.user_attrs
        if LOSS not in attributes:
            raise RunError(
                f"trial {trial.number} of study {study!r} has no user attribute {LOSS!r}; have the "
                f"objective set it: trial.set_user_attr({LOSS!r}, ...)"
            )
        policy = self._policy(trial)
        loss, error = float(attributes[LOSS]), float(attributes.get(LOSS_ERROR, 0.0))
        parameters = self._space.nearest(policy, self._model)
        return Evaluated(policy, parameters, features(policy), loss, error, _timing(attributes))

    def _policy(self, trial: FrozenTrial) -> Policy:
        if POLICY in trial.user_attrs:
            return policy_from_json(trial.user_attrs[POLICY])
        return self._space.build(decode(trial.params, self._dimensions), self._model)

    def _observe(self, trial: Evaluated, forecast: Forecast) -> Observation:
        """Predict the latency of a trial, and weigh the prediction with its timing.

        Its own timing alone would not do: a trial that came out too fast by chance would seem to
        beat all that is only predicted (96.7 % of the reference, and no progress for fifty trials).
        """
        policy, timing = trial.policy, trial.timing
        return Observation(
            policy,
            trial.parameters,
            trial.features,
            log_loss=log(max(0.0, trial.loss) + self._smallest_loss),
            noise=trial.loss_error,
            ratio=forecast.ratio(policy) if timing is None else forecast.weighed(policy, timing),
            complete=not trial.loss_error,
        )


def _timing(attributes: Mapping[str, Any]) -> Timing | None:
    if LATENCY not in attributes:
        return None
    ratio = float(attributes[LATENCY])
    low, high = (float(attributes.get(name, ratio)) for name in (LATENCY_LOW, LATENCY_HIGH))
    return Timing(ratio, low, high)
