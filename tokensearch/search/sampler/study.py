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
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tokensearch.errors import RunError
from tokensearch.policy import ModelSpec, Objective, Policy
from tokensearch.policy.file import policy_from_json, policy_to_json
from tokensearch.records.measurements import Trial
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SamplerName
from tokensearch.search.early_stopping import (
    ExtrapolatedLoss,
    loss_from_log_loss,
    value_from_log_loss,
)
from tokensearch.search.resume import read_trials
from tokensearch.search.sampler import observations
from tokensearch.search.sampler.local import FIXED
from tokensearch.search.sampler.storage import DIRECTIONS, make_studies, open_storage, study_failure
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.suggest import encode, make_distributions

SEARCHED, OUTSIDE = "search", "outside the space"
_VERSION_1 = "tokensearch"  # the one study of earlier files, whose counts have no order

# User attributes, beside those that the local sampler reads.
_LINE = "line"  # the trial's number in trials.jsonl
ORIGIN = "origin"
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

    trial: optuna.Trial | None  # None where no sampler proposed it
    policy: Policy
    origin: str


@dataclass(frozen=True, slots=True)
class EstimatedTrial:
    """A trial with its loss on all images, extrapolated where it ran on a part of them."""

    trial: Trial
    loss: ExtrapolatedLoss


class StudyAdapter:
    """The studies of one run folder: they maximise the objective and minimise the latency.

    What several processes on one study have to ask each other is asked here, and answered as it is
    in a single process; `search.workers.study` answers for more.
    """

    may_time = True  # whether this process may time policies
    running = 0  # trials that other processes have begun
    stopped = False  # whether the process that has the budget has ended the search
    salt = 0  # differs between processes that have one seed

    def __init__(
        self, folder: RunFolder, space: SearchSpace, model: ModelSpec, objective: Objective
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.space, self.model, self.objective = folder, space, model, objective
        self._storage, self.study, self.outside = self._open()
        self._unread = self._read_trials()

    def _open(self) -> tuple[BaseStorage, optuna.Study, optuna.Study]:
        """Open the file of the folder."""
        try:
            storage = _open_file(self.folder)
            searched, outside = (
                open_study(storage, name, self.objective) for name in (SEARCHED, OUTSIDE)
            )
        except RunError:
            raise
        except Exception as error:  # SQLAlchemy and Optuna each raise their own kinds
            raise study_failure(self.folder.study, error) from error
        return storage, searched, outside

    def _read_trials(self) -> tuple[Trial, ...]:
        """Return the trials of earlier processes, all of whom have ended."""
        return read_trials(self.folder)

    def fetch_trials(self) -> tuple[Trial, ...]:
        """Return the trials that other processes have finished since the last call."""
        fetched, self._unread = self._unread, ()
        return fetched

    def keep(self, trial: Trial) -> None:
        """Write down a finished trial, before Optuna is told."""
        self.folder.append_trial(trial)

    def set_sampler(self, sampler: BaseSampler) -> None:
        """Use a sampler from now on."""
        self.study.sampler = sampler

    def reconcile(
        self, trials: Iterable[Trial], finished: Callable[[Trial], EstimatedTrial]
    ) -> None:
        """Bring the studies to the state of `trials.jsonl`.

        finished  estimates a trial's loss; called for what the studies lack alone
        """
        lines = {trial.number: trial for trial in trials}
        told = self._told_lines()
        for stale in _trials(self.study, TrialState.RUNNING):
            line = lines.get(stale.user_attrs.get(_LINE, -1))
            if line is None:
                self.study.tell(stale.number, state=TrialState.FAIL)
                self._propose_again(stale, {ORIGIN: origin_of_trial(stale)})
            else:
                self._tell_stale(stale.number, finished(line))
                told.add(line.number)
        for number, trial in sorted(lines.items()):
            if number not in told:
                self.add(finished(trial))

    def _propose_again(self, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
        """Enqueue a proposal whose process died, unless that was in the middle of proposing."""
        fixed = trial.system_attrs.get(FIXED, trial.params)
        if fixed.keys() >= self.space.dimensions(self.model).keys():
            self.study.enqueue_trial(fixed, user_attrs=dict(attributes))

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
            self.study.enqueue_trial(encode(chosen, dimensions), user_attrs={ORIGIN: "seed"})
        self.study.set_user_attr(_SEEDED, value=True)

    def ask(self, line: int) -> Proposal:
        """Propose a policy, which becomes line `line` of the trials if it is new."""
        trial = self.study.ask()
        trial.set_user_attr(_LINE, line)
        policy = self.space.suggest(trial, self.model)
        return Proposal(trial, policy, origin_of_trial(trial))

    def claim(self, policy: Policy, origin: str) -> Proposal | None:
        """Begin a policy that no sampler proposed; None if another process is at it."""
        return Proposal(None, policy, origin)

    def is_taken(self, proposal: Proposal) -> bool:
        """Whether another process is at the same schedule."""
        return False

    def drop(self, proposal: Proposal) -> None:
        """End a proposal without a result."""
        if proposal.trial is not None:
            self.study.tell(proposal.trial, state=TrialState.FAIL)

    def tell(self, proposal: Proposal, finished: EstimatedTrial) -> bool:
        """Tell the result of a proposal; False if another process has taken it over meanwhile."""
        if proposal.trial is None:
            self.add(finished)
        else:
            self._tell(proposal.trial, finished)
        return True

    def repeat(self, proposal: Proposal, finished: EstimatedTrial) -> None:
        """Tell that a proposal is of a schedule that was tried before."""
        assert proposal.trial is not None  # it was asked for
        self._tell(proposal.trial, finished, self._repeated(finished))

    def _repeated(self, finished: EstimatedTrial) -> dict[str, Any]:
        return {_LINE: finished.trial.number, _OUTCOME: _REPEATED}

    def refuse(self, proposal: Proposal, ratio: float) -> None:
        """Tell that a proposal is predicted too slow to be tried: `ratio` times the baseline.

        It fails: what was never run has no value, and one made up would stretch every plot.
        """
        assert proposal.trial is not None  # it was asked for
        for name, value in self._refused(proposal, ratio).items():
            proposal.trial.set_user_attr(name, value)
        self.study.tell(proposal.trial, state=TrialState.FAIL)

    def _refused(self, proposal: Proposal, ratio: float) -> dict[str, Any]:
        told = {_OUTCOME: _REFUSED, "schedule": describe_schedule(proposal.policy)}
        return {**told, "predicted_latency": ratio}

    def add(self, finished: EstimatedTrial) -> None:
        """Tell of a policy that the sampler did not propose."""
        trial = finished.trial
        attributes = {_LINE: trial.number, ORIGIN: trial.origin, **self._attributes(finished)}
        study, spelt = self._spell(policy_from_json(trial.policy), attributes)
        study.add_trial(create_trial(values=self._values(finished), **spelt))

    def _spell(
        self, policy: Policy, attributes: Mapping[str, Any]
    ) -> tuple[optuna.Study, dict[str, Any]]:
        """Return the study that a policy belongs to, and what makes a trial of it there."""
        chosen = self.space.nearest(policy, self.model)
        if self.space.build(chosen, self.model).schedule_hash != policy.schedule_hash:
            attributes = {**attributes, observations.POLICY: policy_to_json(policy)}
            return self.outside, {"user_attrs": attributes}
        dimensions = self.space.dimensions(self.model)
        params, kinds = encode(chosen, dimensions), make_distributions(dimensions)
        spelt = {"params": params, "distributions": kinds, "user_attrs": dict(attributes)}
        return self.study, spelt

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


def open_study(storage: BaseStorage, name: str, objective: Objective) -> optuna.Study:
    """Open a study, which is made if there is none, and name its values."""
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


def origin_of_trial(trial: optuna.Trial | FrozenTrial) -> str:
    """Return what a trial came from: the sampler, unless its attributes say otherwise."""
    return str(trial.user_attrs.get(ORIGIN, "sampler"))


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
