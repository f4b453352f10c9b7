"""The search itself: propose, predict, race, time what is promising, learn; within the budget."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tokensearch.costs.forecast import Forecast
from tokensearch.errors import ExportError, MeasurementError
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Objective, Policy, is_control
from tokensearch.policy.file import policy_from_json, policy_to_json
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Comparison, Latency, Trial, TrialState
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_settings import SearchBudget
from tokensearch.search.early_stopping import (
    EvaluatedTrial,
    ExtrapolatedLoss,
    LossGrowth,
    Race,
    extrapolate_loss,
    loss_growths,
    to_log_loss,
    trial_value,
)
from tokensearch.search.sampler.study import EstimatedTrial, Proposal, StudyAdapter
from tokensearch.search.time_plan import LEAST_TRIALS

RANDOM_ORIGIN = "random"
CONTROL_SHARE = 0.2  # of the trials at most: a control is found by nobody
MOST_GROWTHS = 250  # each asks for stored results, which a process checks at their first use
COMPLETED_SHARE = 0.5  # of what proposals leave: a race is wrong about few

# A sampler that proposes nothing new this many times in a row has exhausted what it can reach.
MAX_REPEATS = 200


@dataclass
class SearchLoop:
    """One search under way."""

    evaluator: PolicyEvaluator
    study: StudyAdapter
    folder: RunFolder
    budget: SearchBudget
    listener: ProgressListener
    forecast: Forecast
    objective: Objective
    target_ratio: float = 1.0  # the target as a share of the baseline's latency
    earlier_seconds: float = 0.0  # spent on trials by a process that was stopped
    searched_seconds: float = 0.0  # of proposing; set once the search has ended
    began: float = field(default_factory=time.monotonic)  # of the run, in this process
    _evaluated: list[EvaluatedTrial] = field(default_factory=list)
    _losses: dict[int, ExtrapolatedLoss] = field(default_factory=dict)  # by number, once asked for
    _growths: dict[int, tuple[int, list[LossGrowth]]] = field(default_factory=dict)
    _failed: set[str] = field(default_factory=set)  # schedules that cannot be measured
    _entered: float = field(default_factory=time.monotonic)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial so far, in order."""
        return tuple(evaluated.trial for evaluated in self._evaluated)

    @property
    def baseline(self) -> Latency:
        """Latency of the baseline, when it was the trial itself."""
        timed = next(each.trial for each in self._evaluated if not each.policy.reduces).comparison
        assert timed is not None  # it always is
        return timed.baseline

    @property
    def evaluated(self) -> tuple[EvaluatedTrial, ...]:
        """Every trial so far with its policy, in order."""
        return tuple(self._evaluated)

    def add_trial(self, trial: Trial) -> None:
        """Add a trial, of this process or of an earlier one."""
        evaluated = EvaluatedTrial(trial, policy_from_json(trial.policy))
        self._evaluated.append(evaluated)
        if trial.comparison is not None:
            self.update_forecast(evaluated.policy, trial.comparison)

    def update_forecast(self, policy: Policy, comparison: Comparison) -> None:
        """Correct predictions of latency by a timing."""
        self.forecast = self.forecast.learned(policy, comparison)

    def try_fixed(
        self,
        fixed: Iterable[tuple[str, Policy]],
        *,
        share: float = 1.0,
        always: bool = False,
    ) -> None:
        """Evaluate policies that no sampler proposed, on all images.

        fixed   each with its origin
        share   of what is left of the budget
        always  even when the budget is spent
        """
        most = self._share_of_rest(share)
        for origin, policy in fixed:
            allowed = always or self.within_budget(most, least=LEAST_TRIALS - 1)
            if allowed and self.find_trial(policy) is None:
                self._try(policy, origin, race=False)

    def try_controls(self, controls: Iterable[tuple[str, Policy]]) -> None:
        """Evaluate what searching has to beat, in at most a fifth of all trials.

        controls  each with its origin
        """
        for origin, policy in controls:
            if not self.within_budget() or not self._allows_control():
                return
            if self.find_trial(policy) is None:
                self._try(policy, origin, race=origin == RANDOM_ORIGIN)

    def _allows_control(self) -> bool:
        """Whether controls are fewer than their share of all trials."""
        others = sum(not self._is_control(trial) for trial in self.trials)
        allowed = max(1, round(others * CONTROL_SHARE / (1 - CONTROL_SHARE)))
        return len(self.trials) - others < allowed

    def _is_control(self, trial: Trial) -> bool:
        reduces = trial.origin != "none"
        return reduces and (trial.origin == RANDOM_ORIGIN or is_control(trial.origin))

    def _try(self, policy: Policy, origin: str, *, race: bool) -> None:
        if policy.schedule_hash in self._failed:
            return
        known = self.find_trial(policy)
        proposal = self.study.claim(policy, origin)
        if proposal is None:  # another worker is at it
            return
        self.fetch_trials()
        if self.find_trial(policy) is known:
            self._finish(proposal, race=race)
        else:  # another worker has just finished it
            self.study.drop(proposal)

    def fetch_trials(self) -> None:
        """Add what other workers have finished meanwhile."""
        for trial in self.study.fetch_trials():
            self.add_trial(replace(trial, number=len(self._evaluated)))

    def explore(self) -> None:
        """Evaluate what the sampler proposes, within what the budget leaves beside controls."""
        repeats, most = 0, self._share_of_rest(1 - CONTROL_SHARE)
        while self.within_budget(most) and repeats < MAX_REPEATS:
            repeats = 0 if self._try_proposal() else repeats + 1
        if repeats == MAX_REPEATS:
            self.listener.caution(
                f"the search ended early: the last {repeats} proposals were all tried before or "
                f"are predicted too slow; use another --sampler or a larger --space"
            )

    def complete_raced(self) -> None:
        """Run on all images what a race stopped near the front, within half of what is left.

        A race tests ranks, and the front is one of means: what was stopped is likely worse, and no
        more. Near is what may lose less than all that is as fast, within the error of its loss.
        """
        most = self._share_of_rest(COMPLETED_SHARE)
        for evaluated in self._raced_near_front():
            if not self.within_budget(most, least=0):
                return
            if self.find_trial(evaluated.policy) is evaluated.trial:  # still the last of them
                self._try(evaluated.policy, evaluated.trial.origin, race=False)

    def _raced_near_front(self) -> list[EvaluatedTrial]:
        """Return what races stopped and may still be on the front, most promising first."""
        complete, latest = self._complete(), self._latest.values()
        promising: list[tuple[float, EvaluatedTrial]] = []
        for evaluated in self._evaluated:
            if evaluated.trial.state == "complete" or evaluated.trial not in latest:
                continue
            loss, ratio = self._loss(evaluated.trial), self.ratio(evaluated)
            best = min(
                (self._loss(c.trial).log_loss for c in complete if self.ratio(c) <= ratio),
                default=loss.log_loss,
            )
            if (lead := loss.log_loss - loss.noise - best) <= 0:
                promising.append((lead, evaluated))
        return [evaluated for _, evaluated in sorted(promising, key=lambda pair: pair[0])]

    def end(self) -> None:
        """Note how long the search took."""
        self.searched_seconds = self.earlier_seconds + time.monotonic() - self._entered

    def find_trial(self, policy: Policy) -> Trial | None:
        """Return the trial of an equal schedule, None if there is none."""
        return self._latest.get(policy.schedule_hash)

    @property
    def _latest(self) -> dict[str, Trial]:
        """The last trial of every schedule: one that a race had stopped may have been run anew."""
        return {trial.schedule_hash: trial for trial in self.trials}

    def within_budget(self, most: float = 1.0, *, least: int = LEAST_TRIALS) -> bool:
        """Whether `most` of the budget allow another trial; the first few are always made."""
        self.fetch_trials()
        if self.study.stopped:
            return False
        asked = least if self.budget.trials is None else min(least, self.budget.trials)
        return self._spent < most or len(self._evaluated) < asked

    @property
    def _spent(self) -> float:
        begun = len(self._evaluated) + self.study.running
        return self.budget.spent(trials=begun, seconds=self.seconds)

    def _share_of_rest(self, share: float) -> float:
        """Return the part of the budget that is spent once a share of the rest is."""
        return self._spent + share * max(0.0, 1 - self._spent)

    @property
    def margin(self) -> float:
        """Relative error that a predicted latency is allowed."""
        return self.forecast.margin

    @property
    def out_of_reach(self) -> int:
        """Number of proposals that were predicted to miss the target."""
        return self.study.refused

    @property
    def duplicates(self) -> int:
        """Number of proposals of schedules that had been tried before."""
        return self.study.repeated

    @property
    def seconds(self) -> float:
        """Time that this run has taken, with trials of stopped processes."""
        return self.earlier_seconds + time.monotonic() - self.began

    def ratio(self, evaluated: EvaluatedTrial) -> float:
        """Latency of a trial, by the forecast from all timings so far and by its own timing.

        Its own timing alone would not do: a trial that came out too fast by chance would seem to
        beat all that is only predicted (96.7 % of the reference, and no progress for fifty trials).
        """
        comparison, policy = evaluated.trial.comparison, evaluated.policy
        if comparison is None:
            return self.forecast.ratio(policy)
        return self.forecast.weighed(policy, comparison)

    def predict(self, policy: Policy) -> float:
        """Return the latency of a policy, by all that was timed so far."""
        return self.forecast.ratio(policy)

    def order_by_promise(self, named: Sequence[tuple[str, Policy]]) -> Iterator[tuple[str, Policy]]:
        """Yield what may meet the target, nearest to it first: more tokens lose less.

        A run that has time for one is to have one that meets it, and not what is as near as timings
        can tell: the first is to meet it by the margin of predictions. All are asked anew after
        every timing.
        """
        left = list(named)
        while left:
            first, sure = len(left) == len(named), self.target_ratio / (1 + self.margin)
            under = [each for each in left if self.predict(each[1]) <= sure]
            nearest = min((first and under) or left, key=lambda each: self._distance(each[1]))
            left.remove(nearest)
            if self.may_meet_target(nearest[1]):
                yield nearest

    def _distance(self, policy: Policy) -> float:
        return abs(self.predict(policy) - self.target_ratio)

    def may_meet_target(self, policy: Policy) -> bool:
        """Whether a policy may meet the target, within the margin of predictions."""
        return self.forecast.ratio(policy) <= self.target_ratio * (1 + self.margin)

    def _try_proposal(self) -> bool:
        """Ask for one policy and evaluate it; False if it was tried before or is out of reach."""
        proposal = self.study.ask(len(self._evaluated))
        known = self.find_trial(proposal.policy)
        if known is not None:
            self.study.repeat(proposal, self.estimate(known))
        elif not self.may_meet_target(proposal.policy):
            self.study.refuse(proposal, self.forecast.ratio(proposal.policy))
        elif proposal.policy.schedule_hash in self._failed or self._is_others(proposal):
            self.study.drop(proposal)
        else:
            return self._finish(proposal, race=not is_control(proposal.origin))
        return False

    def _is_others(self, proposal: Proposal) -> bool:
        """Whether another worker is at the schedule that was proposed, or has just finished it."""
        if self.study.is_taken(proposal):
            return True
        self.fetch_trials()
        return self.find_trial(proposal.policy) is not None

    def _finish(self, proposal: Proposal, *, race: bool) -> bool:
        """Measure the policy of a proposal, write its trial, and tell Optuna; whether it could be.

        A policy that cannot be measured or exported, as one whose logits overflow, fails alone; the
        baseline may not.

        race  stop early where the policy is significantly worse than a faster one
        """
        forecast, policy = self.forecast, proposal.policy
        try:
            trial = self._evaluate(policy, proposal.origin, race=race)
        except (MeasurementError, ExportError) as error:
            if not policy.reduces:
                raise
            self.study.drop(proposal)
            self._failed.add(policy.schedule_hash)
            self.listener.caution(f"a trial failed: {error}{self._name_overflow(policy)}")
            return False
        self.study.keep(trial)
        self.add_trial(trial)
        if self.study.tell(proposal, self.estimate(trial)):
            self._report_progress(trial)
        else:  # this process was thought dead: the trial is another's now
            self.forecast = forecast
            del self._evaluated[-1], self._losses[trial.number]
            self._growths.clear()
        return True

    def _name_overflow(self, policy: Policy) -> str:
        block = self.evaluator.find_overflow(policy)
        return "" if block is None else f"; block {block} is the first whose tokens are not finite"

    def _evaluate(self, policy: Policy, origin: str, *, race: bool) -> Trial:
        """Measure one policy."""
        began = time.monotonic()
        predicted, contest = self.forecast.ratio(policy), self._make_race()
        state: TrialState = "complete"
        if race:
            state, accuracy = contest.run(policy, predicted)
        else:
            accuracy = self.evaluator.score(policy, "search").accuracy
        informative = not policy.reduces or not self.forecast.knows(policy)
        leading = not race or (state == "complete" and contest.may_lead(accuracy, predicted))
        timed = informative and leading and self.study.may_time
        return Trial(
            number=len(self._evaluated),
            origin=origin,
            schedule_hash=policy.schedule_hash,
            state=state,
            predicted=predicted,
            comparison=contest.time(policy) if timed else None,
            accuracy=accuracy,
            seconds=time.monotonic() - began,
            policy=policy_to_json(policy),
        )

    def estimate(self, trial: Trial) -> EstimatedTrial:
        """Return a trial of this search with its loss on all images."""
        return EstimatedTrial(trial, self._loss(trial))

    def _loss(self, trial: Trial) -> ExtrapolatedLoss:
        """Log loss on all images, from the first time that it was asked for."""
        if trial.number not in self._losses:
            self._losses[trial.number] = self._extrapolate(trial)
        return self._losses[trial.number]

    def _complete(self) -> list[EvaluatedTrial]:
        return [evaluated for evaluated in self._evaluated if evaluated.trial.state == "complete"]

    def _make_race(self) -> Race:
        return Race(self.evaluator, self.objective, self._complete(), self.margin, self.ratio)

    def _extrapolate(self, trial: Trial) -> ExtrapolatedLoss:
        """Log loss on all images, extrapolated where a trial was stopped early."""
        log_loss = to_log_loss(trial_value(trial.accuracy, self.objective), self.objective)
        if trial.state == "complete":
            return ExtrapolatedLoss(log_loss, 0.0)
        return extrapolate_loss(log_loss, self._growths_from(trial.accuracy.images))

    def _growths_from(self, images: int) -> list[LossGrowth]:
        """Return how losses grew from so many images, for the latest complete trials."""
        known, growths = self._growths.get(images, (-1, []))
        if known != len(self._evaluated):
            latest = self._complete()[-MOST_GROWTHS:]
            growths = loss_growths(
                latest, images, evaluator=self.evaluator, objective=self.objective
            )
            self._growths[images] = len(self._evaluated), growths
        return growths

    def _report_progress(self, trial: Trial) -> None:
        trials, seconds = len(self._evaluated), self.seconds
        spent = self.budget.spent(trials=trials, seconds=seconds)
        speed = f"{'about ' if trial.comparison is None else ''}{trial.ratio:.2f}x"
        speed = speed if trial.state == "complete" else trial.state
        before = self._entered - self.began  # reading and the sweep of costs
        done, total = self.budget.progress(trials=trials, seconds=seconds, before=before)
        self.listener.progress(
            done=done,
            total=total,
            seconds_left=max(0.0, seconds / spent - seconds),
            text=f"trial {trials}: {speed} {100 * trial.accuracy.share:.1f} % ({_name(trial)})",
        )


def _name(trial: Trial) -> str:
    return "baseline" if trial.origin == "none" else trial.origin
