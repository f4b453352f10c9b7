"""The study that several workers search together: claims, and the records of finished trials.

A trial is begun by a row of Optuna's in state RUNNING. Its worker then claims the schedule, in an
attribute, and waits until all who began before it have claimed theirs (Lamport's bakery, whose
numbers the database hands out): of two with one schedule the earlier goes on. What is known of a
finished trial goes into an attribute too, as a line of `trials.jsonl` would hold it, so that a run
folder can be made of the study alone. All calls are Optuna's own, which its proxy passes on.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from tokensearch.documents import validate
from tokensearch.errors import RunError
from tokensearch.policy import ModelSpec, Objective, Policy
from tokensearch.policy.file import policy_from_json
from tokensearch.records.checks import TRIAL
from tokensearch.records.measurements import Trial, from_json, to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.sampler import observations
from tokensearch.search.sampler.local import FIXED
from tokensearch.search.sampler.study import (
    ORIGIN,
    OUTSIDE,
    EstimatedTrial,
    Proposal,
    StudyAdapter,
    open_study,
    origin_of_trial,
)
from tokensearch.search.space.space import SearchSpace
from tokensearch.search.space.suggest import decode
from tokensearch.search.workers.lease import Lease

Role = Literal["accuracy", "latency", "both"]

# User attributes of trials, beside those that every study has.
CLAIM = "claim"  # hash of the schedule that the trial's worker is at
RECORD = "record"  # the finished trial, as a line of trials.jsonl
TAKEN_OVER = "taken over"  # how often it was begun anew
MOST_TAKEN_OVER = 2  # a trial that kills every worker is given up
STOPPED = "stopped"  # of the study: no trial is begun any more
POLL_S = 0.05


class SharedStudy(StudyAdapter):
    """The studies of one search, in a database: for one worker, with one trial at a time."""

    def __init__(
        self,
        folder: RunFolder,
        space: SearchSpace,
        model: ModelSpec,
        objective: Objective,
        *,
        storage: BaseStorage,
        name: str,
        role: Role,
    ) -> None:
        self._shared, self._name = storage, name
        self.may_time = role != "accuracy"
        self.salt = int(np.random.default_rng().integers(2**31))
        super().__init__(folder, space, model, objective)
        self._held: FrozenTrial | None = None
        self._held_in = self.study
        self._fetched = set[int]()
        self._lease = Lease(storage, self._running_trials, self._take_over)

    def _open(self) -> tuple[BaseStorage, optuna.Study, optuna.Study]:
        searched, outside = (
            open_study(self._shared, name, self.objective) for name in names_of(self._name)
        )
        return self._shared, searched, outside

    def close(self) -> None:
        """Let go of the study; a trial that was begun is another worker's."""
        self._lease.end()
        if self._held is not None:
            self._take_over(self._shared.get_trial(self._held._trial_id))  # with its parameters

    def _read_trials(self) -> tuple[Trial, ...]:
        """Return nothing: no file has trials, the study has them all."""
        return ()

    def reconcile(self, trials: object, finished: object) -> None:
        """Nothing: the study is the truth itself, and trials of others are under way."""

    @property
    def stopped(self) -> bool:  # type: ignore[override]  # read anew each time
        """Whether the search has been ended."""
        return bool(self.study.user_attrs.get(STOPPED))

    def stop(self, *, stopped: bool = True) -> None:
        """End the search for all workers, or take it up again."""
        self.study.set_user_attr(STOPPED, stopped)

    def keep(self, trial: Trial) -> None:
        """Nothing: the record goes with what Optuna is told."""

    def fetch_trials(self) -> tuple[Trial, ...]:
        """Return the records of trials that other workers have finished since the last call."""
        if self._lease.failure is not None:
            raise self._lease.failure
        new, running = list[tuple[Any, Trial]](), 0
        for trial in (trial for study in self._studies for trial in _all_trials(study)):
            if trial.state is TrialState.COMPLETE and RECORD in trial.user_attrs:
                if trial._trial_id not in self._fetched:
                    self._fetched.add(trial._trial_id)
                    new.append(((trial.datetime_complete, trial._trial_id), read_record(trial)))
            elif trial.state is TrialState.RUNNING and not self._is_mine(trial):
                running += 1
        self.running = running
        return tuple(record for _, record in sorted(new, key=lambda pair: pair[0]))

    @property
    def _studies(self) -> tuple[optuna.Study, optuna.Study]:
        return self.study, self.outside

    def _running_trials(self) -> list[FrozenTrial]:
        states = (TrialState.RUNNING,)
        return [t for s in self._studies for t in s.get_trials(deepcopy=False, states=states)]

    def _is_mine(self, trial: FrozenTrial) -> bool:
        return self._held is not None and trial._trial_id == self._held._trial_id

    def ask(self, line: int) -> Proposal:
        """Propose a policy: one that waits for a worker, or a new one."""
        while (waiting := self._pop_waiting()) is not None:
            more = {TAKEN_OVER: waiting.user_attrs.get(TAKEN_OVER, 0)}
            proposal = self.claim(self._policy_of(waiting), origin_of_trial(waiting), more)
            if proposal is not None:
                return proposal
        number = self._shared.create_new_trial(self.study._study_id)
        self._hold(self.study, number)
        trial = optuna.Trial(self.study, number)
        return Proposal(trial, self.space.suggest(trial, self.model), origin_of_trial(trial))

    def _pop_waiting(self) -> FrozenTrial | None:
        """Take a trial that waits; it is begun anew, for numbers are to tell who was first."""
        states = (TrialState.WAITING,)
        for trial in (t for s in self._studies for t in s.get_trials(False, states)):
            try:
                if self._shared.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    self._shared.set_trial_state_values(trial._trial_id, TrialState.FAIL)
                    return trial
            except UpdateFinishedTrialError:
                continue
        return None

    def _policy_of(self, waiting: FrozenTrial) -> Policy:
        if observations.POLICY in waiting.user_attrs:
            return policy_from_json(waiting.user_attrs[observations.POLICY])
        chosen = decode(waiting.system_attrs[FIXED], self.space.dimensions(self.model))
        return self.space.build(chosen, self.model)

    def claim(
        self, policy: Policy, origin: str, more: Mapping[str, Any] | None = None
    ) -> Proposal | None:
        """Begin a policy that no sampler proposes; None if another worker is at it.

        more  attributes of the trial
        """
        attributes = {ORIGIN: origin, CLAIM: policy.schedule_hash, **(more or {})}
        study, spelt = self._spell(policy, attributes)
        begun = create_trial(state=TrialState.RUNNING, **spelt)
        self._hold(study, self._shared.create_new_trial(study._study_id, begun))
        proposal = Proposal(None, policy, origin)
        if self._is_claimed_before(policy.schedule_hash):
            self.drop(proposal)
            return None
        return proposal

    def is_taken(self, proposal: Proposal) -> bool:
        """Whether another worker was earlier at the same schedule; it is this one's if not."""
        held, schedule = self._require_held(), proposal.policy.schedule_hash
        self._shared.set_trial_user_attr(held._trial_id, CLAIM, schedule)
        return self._is_claimed_before(schedule)

    def _is_claimed_before(self, schedule: str) -> bool:
        """Whether an earlier trial under way has the schedule, once all earlier have claimed."""
        number = self._require_held().number
        while True:
            states = (TrialState.RUNNING,)
            running = self._held_in.get_trials(deepcopy=False, states=states)
            earlier = [t.user_attrs.get(CLAIM) for t in running if t.number < number]
            if schedule in earlier:
                return True
            if None not in earlier:
                return False
            time.sleep(POLL_S)

    def tell(self, proposal: Proposal, finished: EstimatedTrial) -> bool:
        """Tell the result of a proposal; False if another worker has taken it over meanwhile."""
        return self._end(finished, {RECORD: to_json(finished.trial)})

    def repeat(self, proposal: Proposal, finished: EstimatedTrial) -> None:
        """Tell that a proposal is of a schedule that was tried before."""
        self._end(finished, self._repeated(finished))

    def _end(self, finished: EstimatedTrial, more: Mapping[str, Any]) -> bool:
        """Complete the trial that is held."""
        attributes = {**self._attributes(finished), **more}
        return self._finish(TrialState.COMPLETE, attributes, self._values(finished))

    def refuse(self, proposal: Proposal, ratio: float) -> None:
        """Tell that a proposal is predicted too slow to be tried: `ratio` times the baseline."""
        self._finish(TrialState.FAIL, self._refused(proposal, ratio))

    def drop(self, proposal: Proposal) -> None:
        """End a proposal without a result."""
        self._finish(TrialState.FAIL, {})

    def _hold(self, study: optuna.Study, trial_id: int) -> None:
        self._held, self._held_in = self._shared.get_trial(trial_id), study
        self._lease.hold(trial_id)

    def _require_held(self) -> FrozenTrial:
        assert self._held is not None  # something was asked for or claimed
        return self._held

    def _finish(
        self,
        state: TrialState,
        attributes: Mapping[str, Any],
        values: list[float] | None = None,
    ) -> bool:
        """End the trial that is held; False if another worker has ended it."""
        held = self._require_held()
        try:
            for name, value in attributes.items():
                self._shared.set_trial_user_attr(held._trial_id, name, value)
            self._shared.set_trial_state_values(held._trial_id, state, values)
        except UpdateFinishedTrialError:
            return False
        finally:
            self._held = None
            self._lease.hold(None)
        self._fetched.add(held._trial_id)
        return True

    def _take_over(self, trial: FrozenTrial) -> None:
        """End a trial whose worker is gone, and have it begun anew."""
        try:
            self._shared.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            return  # by its worker after all, or by another one
        times = int(trial.user_attrs.get(TAKEN_OVER, 0)) + 1
        if times > MOST_TAKEN_OVER:
            return
        attributes = {ORIGIN: origin_of_trial(trial), TAKEN_OVER: times}
        if observations.POLICY in trial.user_attrs:
            attributes[observations.POLICY] = trial.user_attrs[observations.POLICY]
            waiting = create_trial(state=TrialState.WAITING, user_attrs=attributes)
            self._shared.create_new_trial(self.outside._study_id, waiting)
            return
        self._propose_again(trial, attributes)


def names_of(study: str) -> tuple[str, str]:
    """Return what Optuna knows the two studies of one search by."""
    return study, f"{study}: {OUTSIDE}"


def read_record(trial: FrozenTrial) -> Trial:
    """Return the record of a finished trial; RunError if it is none of ours."""
    written = trial.user_attrs[RECORD]
    try:
        validate(written, TRIAL, "the trial", RunError)
        return from_json(Trial, written)
    except RunError as error:
        error.add_note(f"in trial {trial.number} of the shared study")
        raise


def _all_trials(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False)
