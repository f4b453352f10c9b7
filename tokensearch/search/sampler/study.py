"""The Optuna studies of a run folder: ask, tell, and resume after a kill.

Trials are appended to `trials.jsonl` before Optuna is told, so that file decides. A study that was
killed in between is told on resuming, and a proposal that was under way is made again.

`study.db` holds two studies. SEARCHED has the schedules of the space, whoever proposed them;
OUTSIDE has those that the space cannot spell: most presets and random controls. Samplers that
choose all parameters together use those that every trial has. After one trial without parameters
they would draw at random. The values are the objective, on all images, and the latency as a share
of the baseline's. What else there is to know of a trial stands in its user attributes, for
optuna-dashboard and for the local sampler: see `observations`.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tokensearch.errors import RunError
from tokensearch.policy import ModelSpec, Objective, Policy
from tokensearch.policy.file import policy_from_json
from tokensearch.records.measurements import Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SamplerName
from tokensearch.search.early_stopping import (
    ExtrapolatedLoss,
    loss_from_log_loss,
    value_from_log_loss,
)
from tokensearch.search.sampler import observations
from tokensearch.search.sampler.local import FIXED
from tokensearch.search.sampler.storage import DIRECTIONS, make_studies, open_storage, study_failure
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.suggest import encode, make_distributions

SEARCHED, OUTSIDE = "search", "outside the space"
_VERSION_1 = "tokensearch"  # the one study of earlier files, whose counts have no order

# User attributes, beside those that the local sampler reads.
_LINE = "line"  # the trial's number in trials.jsonl
_ORIGIN = "origin"
_OUTCOME = "outcome"
_REPEATED, _REFUSED = "tried before", "predicted too slow"
_OUTCOMES = {"complete": "complete", "raced": "likely worse"}
_SEEDED = "seeded"  # of the study: every starting point was enqueued
_VALUES: dict[Objective, str] = {
    "top1": "share of right answers",
    "agreement": "share of the baseline's answers",
    "kl": "minus divergence from the baseline (nats)",
    "ce": "minus cross-entropy (nats)",
    "cosine": "cosine similarity to the baseline, minus 1",
    "knn": "share of right classes by nearest images",
    "probe": "share of right classes by a linear probe",
}
_LATENCY = "latency (share of the baseline's)"


@dataclass(frozen=True, slots=True)
class Proposal:
    """One policy to be evaluated."""

    trial: optuna.Trial
    policy: Policy
    origin: str


@dataclass(frozen=True, slots=True)
class EstimatedTrial:
    """A trial with its loss on all images, extrapolated where it ran on a part of them."""

    trial: Trial
    loss: ExtrapolatedLoss


class StudyAdapter:
    """The studies of one run folder: they maximise the objective and minimise the latency."""

    def __init__(
        self, folder: RunFolder, space: SearchSpace, model: ModelSpec, objective: Objective
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space, self.model, self.objective = space, model, objective
        try:
            self._storage = _open_file(folder)
            self.study, self.outside = (
                _open_study(self._storage, name, objective) for name in (SEARCHED, OUTSIDE)
            )
        except RunError:
            raise
        except Exception as error:  # SQLAlchemy and Optuna each raise their own kinds
            raise study_failure(folder.study, error) from error

    def set_sampler(self, sampler: BaseSampler) -> None:
        """Use a sampler from now on."""
        self.study.sampler = sampler

    def reconcile(self, finished: Iterable[EstimatedTrial]) -> None:
        """Bring the studies to the state of `trials.jsonl`."""
        lines = {estimated.trial.number: estimated for estimated in finished}
        told = self._told_lines()
        for stale in _trials(self.study, TrialState.RUNNING):
            line = lines.get(stale.user_attrs.get(_LINE, -1))
            if line is None:
                self.study.tell(stale.number, state=TrialState.FAIL)
                fixed = stale.system_attrs.get(FIXED, stale.params)
                self.study.enqueue_trial(fixed, user_attrs={_ORIGIN: _origin(stale)})
            else:
                self._tell_stale(stale.number, line)
                told.add(line.trial.number)
        for number in sorted(lines.keys() - told):
            self.add(lines[number])

    def _tell_stale(self, number: int, finished: EstimatedTrial) -> None:
        """Tell the result of a proposal of a process that was killed before it could."""
        study_id = self._storage.get_study_id_from_name(SEARCHED)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        for name, value in self._attributes(finished).items():
            self._storage.set_trial_user_attr(trial_id, name, value)
        self.study.tell(number, self._values(finished))

    def _told_lines(self) -> set[int]:
        trials = (
            trial
            for study in (self.study, self.outside)
            for trial in _trials(study, TrialState.COMPLETE)
        )
        return {trial.user_attrs[_LINE] for trial in trials if _LINE in trial.user_attrs}

    @property
    def seeded(self) -> bool:
        """Whether all starting points were enqueued before."""
        return bool(self.study.user_attrs.get(_SEEDED))

    @property
    def repeated(self) -> int:
        """Number of proposals of schedules that had been tried before."""
        return self._count(TrialState.COMPLETE, _REPEATED)

    @property
    def refused(self) -> int:
        """Number of proposals that were predicted too slow to be tried."""
        return self._count(TrialState.FAIL, _REFUSED)

    def _count(self, state: TrialState, outcome: str) -> int:
        return sum(t.user_attrs.get(_OUTCOME) == outcome for t in _trials(self.study, state))

    def enqueue(self, starting_points: Iterable[Mapping[str, object]]) -> None:
        """Have schedules of the space proposed before the sampler's own."""
        dimensions = self.space.dimensions(self.model)
        for chosen in starting_points:
            self.study.enqueue_trial(encode(chosen, dimensions), user_attrs={_ORIGIN: "seed"})
        self.study.set_user_attr(_SEEDED, value=True)

    def ask(self, line: int) -> Proposal:
        """Propose a policy, which becomes line `line` of the trials if it is new."""
        trial = self.study.ask()
        trial.set_user_attr(_LINE, line)
        policy = self.space.suggest(trial, self.model)
        return Proposal(trial, policy, _origin(trial))

    def tell(self, proposal: Proposal, finished: EstimatedTrial) -> None:
        """Tell the result of a proposal."""
        self._tell(proposal.trial, finished)

    def repeat(self, proposal: Proposal, finished: EstimatedTrial) -> None:
        """Tell that a proposal is of a schedule that was tried before."""
        self._tell(proposal.trial, finished, {_LINE: finished.trial.number, _OUTCOME: _REPEATED})

    def refuse(self, proposal: Proposal, ratio: float) -> None:
        """Tell that a proposal is predicted too slow to be tried: `ratio` times the baseline.

        It fails: what was never run has no value, and one made up would stretch every plot.
        """
        told = {_OUTCOME: _REFUSED, "schedule": describe_schedule(proposal.policy)}
        for name, value in {**told, "predicted_latency": ratio}.items():
            proposal.trial.set_user_attr(name, value)
        self.study.tell(proposal.trial, state=TrialState.FAIL)

    def add(self, finished: EstimatedTrial) -> None:
        """Tell of a policy that the sampler did not propose."""
        trial = finished.trial
        chosen = self.space.nearest(policy_from_json(trial.policy), self.model)
        attributes = {_LINE: trial.number, _ORIGIN: trial.origin, **self._attributes(finished)}
        values, dimensions = self._values(finished), self.space.dimensions(self.model)
        if self.space.build(chosen, self.model).schedule_hash == trial.schedule_hash:
            self.study.add_trial(
                create_trial(
                    values=values,
                    params=encode(chosen, dimensions),
                    distributions=make_distributions(dimensions),
                    user_attrs=attributes,
                )
            )
        else:
            attributes[observations.POLICY] = trial.policy
            self.outside.add_trial(create_trial(values=values, user_attrs=attributes))

    def _tell(
        self,
        trial: optuna.Trial,
        finished: EstimatedTrial,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        for name, value in {**self._attributes(finished), **(changes or {})}.items():
            trial.set_user_attr(name, value)
        self.study.tell(trial, self._values(finished))

    def _values(self, finished: EstimatedTrial) -> list[float]:
        """Objective on all images, and latency as a share of the baseline's."""
        value = value_from_log_loss(finished.loss.log_loss, self.objective)
        return [value, finished.trial.ratio]

    def _attributes(self, finished: EstimatedTrial) -> dict[str, Any]:
        """What is known of a trial, by the names of user attributes."""
        trial, accuracy = finished.trial, finished.trial.accuracy
        known: dict[str, Any] = {
            _OUTCOME: _OUTCOMES[trial.state],
            "schedule": describe_schedule(policy_from_json(trial.policy)),
            "images": accuracy.images,
            accuracy.kind: accuracy.share,
            "divergence": accuracy.divergence,
            "latency_is": "predicted" if trial.comparison is None else "timed",
            "predicted_latency": trial.predicted,
            observations.LOSS: loss_from_log_loss(finished.loss.log_loss, self.objective),
        }
        if trial.state != "complete":
            known[observations.LOSS_ERROR] = finished.loss.noise
        if (timing := trial.comparison) is not None:
            known |= {
                observations.LATENCY: timing.ratio,
                observations.LATENCY_LOW: timing.low,
                observations.LATENCY_HIGH: timing.high,
            }
        return known


def describe_schedule(policy: Policy) -> str:
    """Return the steps of a policy in words.

    >>> from tokensearch.policy import Pool, Prune
    >>> describe_schedule(Policy(ModelSpec("m", 12, 196, 1, 192), (Prune(3, 98), Pool(6, 49))))
    'block 3: prune 196 to 98, block 6: pool 98 to 49'
    """
    counts = (policy.model.patch_tokens, *(step.keep for step in policy.steps))
    return (
        ", ".join(
            f"block {step.block}: {step.op} {before} to {after}"
            for step, (before, after) in zip(policy.steps, pairwise(counts), strict=True)
        )
        or "no reduction"
    )


def _open_file(folder: RunFolder) -> RDBStorage:
    """Open the file of the studies; one of version 1 gets those of now beside its own."""
    if not folder.study.exists():
        make_studies(folder.study, (SEARCHED, OUTSIDE))
    storage = open_storage(folder.study)
    if not {SEARCHED, _VERSION_1} & {*optuna.get_all_study_names(storage)}:
        raise KeyError(SEARCHED)
    return storage


def _open_study(storage: RDBStorage, name: str, objective: Objective) -> optuna.Study:
    study = optuna.create_study(
        study_name=name, storage=storage, directions=DIRECTIONS, load_if_exists=True
    )
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([_VALUES[objective], _LATENCY])
    return study


def _trials(study: optuna.Study, state: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(state,))


def _origin(trial: optuna.Trial | FrozenTrial) -> str:
    return str(trial.user_attrs.get(_ORIGIN, "sampler"))


def optuna_sampler(name: SamplerName, seed: int) -> BaseSampler:
    """Return a sampler of Optuna by its name here."""
    made: dict[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed),
        "tpe-multivariate": lambda: TPESampler(seed=seed, multivariate=True),
        "gp": lambda: GPSampler(seed=seed),
        "nsga2": lambda: NSGAIISampler(seed=seed),
        "random": lambda: RandomSampler(seed=seed),
    }
    return made[name]()
