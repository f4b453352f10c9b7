"""The search itself: propose, predict, race, time what is promising, learn; until the limits."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from tokensearch.costs.forecast import Forecast
from tokensearch.evaluation.evaluator import PolicyEvaluator
from tokensearch.policy import Objective, Policy
from tokensearch.policy.file import policy_from_json, policy_to_json
from tokensearch.progress import ProgressListener
from tokensearch.records.measurements import Comparison, Trial, TrialState, to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.search.early_stopping import (
    EvaluatedTrial,
    ExtrapolatedLoss,
    Race,
    extrapolate_loss,
    loss_growths,
    to_log_loss,
    trial_value,
    value_from_log_loss,
)
from tokensearch.search.sampler.local import Observation, observe
from tokensearch.search.sampler.study import StudyAdapter
from tokensearch.search.settings import SearchBudget

RANDOM_ORIGIN = "random"
RANDOM_CONTROLS = 8  # enough for the best of them to mean something, few enough for a short run

# A sampler that proposes nothing new this many times in a row has seen what it can reach.
MOST_REPEATS = 200


@dataclass
class SearchLoop:
    """One search under way."""

    evaluator: PolicyEvaluator
    proposals: StudyAdapter
    folder: RunFolder
    limits: SearchBudget
    listener: ProgressListener
    forecast: Forecast
    objective: Objective
    limit: float = 1.0  # the target as a share of the baseline's latency
    earlier_seconds: float = 0.0  # spent on trials by a process that was stopped
    searched_seconds: float = 0.0  # once the search has ended
    _ran: list[EvaluatedTrial] = field(default_factory=list)
    _seen: list[Observation] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial so far, in order."""
        return tuple(one.trial for one in self._ran)

    @property
    def ran(self) -> tuple[EvaluatedTrial, ...]:
        """The same with their policies."""
        return tuple(self._ran)

    @property
    def seen(self) -> tuple[Observation, ...]:
        """The same as the local sampler sees them."""
        return tuple(
            replace(one, ratio=self.ratio(ran))
            for one, ran in zip(self._seen, self._ran, strict=True)
        )

    def remember(self, trial: Trial) -> None:
        """Take in a trial, of this process or of one before."""
        policy = policy_from_json(trial.policy)
        self._ran.append(EvaluatedTrial(trial, policy))
        self._seen.append(self._as_seen(trial, policy))
        if trial.comparison is not None:
            self.learn(policy, trial.comparison)

    def learn(self, policy: Policy, comparison: Comparison) -> None:
        """Correct predictions by a timing."""
        self.forecast = self.forecast.learned(policy, comparison)

    def try_fixed(self, fixed: Iterable[tuple[str, Policy]], *, always: bool = False) -> None:
        """Try policies that no sampler proposed, on all images: presets and controls.

        always  whatever the limits
        """
        for origin, policy in fixed:
            if self.known(policy) is None and (always or self.goes_on()):
                found = self._try(policy, origin, whole=True)
                self.proposals.add(found, self._worth_of(found))

    def try_drawn(self, drawn: Iterable[Policy]) -> None:
        """Try some schedules drawn at random: what searching has to beat."""
        made = sum(trial.origin == RANDOM_ORIGIN for trial in self.trials)
        for policy in drawn:
            if made < RANDOM_CONTROLS and self.known(policy) is None and self.goes_on():
                found = self._try(policy, RANDOM_ORIGIN)
                self.proposals.add(found, self._worth_of(found))
                made += 1

    def explore(self) -> None:
        """Try what the sampler proposes, until the limits."""
        repeats = 0
        while self.goes_on() and repeats < MOST_REPEATS:
            repeats = 0 if self._propose() else repeats + 1
        if repeats == MOST_REPEATS:
            self.listener.caution(
                f"the search ended early: of the last {repeats} proposals all were tried before or "
                f"are predicted too slow; another --sampler or a larger --space may go on"
            )
        self.searched_seconds = self.seconds

    def known(self, policy: Policy) -> Trial | None:
        """Return the trial of an equal schedule, if there was one."""
        wanted = policy.schedule_hash
        return next((trial for trial in self.trials if trial.schedule_hash == wanted), None)

    def goes_on(self) -> bool:
        """Whether the limits allow another trial; the first is always made."""
        spent = self.limits.spent(trials=len(self._ran), seconds=self.seconds)
        return spent < 1 or not self._ran

    @property
    def margin(self) -> float:
        """Relative error that a prediction is allowed."""
        return self.forecast.margin

    @property
    def out_of_reach(self) -> int:
        """Proposals that were predicted to miss the target."""
        return self.proposals.refused

    @property
    def duplicates(self) -> int:
        """Proposals of schedules that had been tried before."""
        return self.proposals.repeated

    @property
    def seconds(self) -> float:
        """Time that this search has taken, trials of a stopped process counted in."""
        return self.earlier_seconds + time.monotonic() - self._began

    def ratio(self, one: EvaluatedTrial) -> float:
        """Latency of a trial, as predicted by all that was timed since, and by its own timing.

        Not by its own alone: one that came out too fast by chance would seem to beat all that is
        only predicted (96.7 % of the reference, and no progress for fifty trials).
        """
        timed, forecast = one.trial.comparison, self.forecast
        return forecast.ratio(one.policy) if timed is None else forecast.weighed(one.policy, timed)

    def reaches(self, policy: Policy) -> bool:
        """Whether a policy may meet the target, as far as predictions are believed."""
        return self.forecast.ratio(policy) <= self.limit * (1 + self.margin)

    def _propose(self) -> bool:
        """Ask for one policy and try it; False if it was tried before or cannot meet the target."""
        proposal = self.proposals.ask(len(self._ran))
        same = self.known(proposal.policy)
        if same is not None:
            self.proposals.repeat(proposal, same, self._worth_of(same))
        elif not self.reaches(proposal.policy):
            self.proposals.refuse(proposal, self.forecast.ratio(proposal.policy))
        else:
            found = self._try(proposal.policy, proposal.origin)
            self.proposals.tell(proposal, found, self._worth_of(found))
            return True
        return False

    def _try(self, policy: Policy, origin: str, *, whole: bool = False) -> Trial:
        """Measure one policy and write it down."""
        began = time.monotonic()
        predicted, heat = self.forecast.ratio(policy), self._heat()
        state: TrialState = "complete"
        if whole:
            accuracy = self.evaluator.score(policy, "search").accuracy
        else:
            state, accuracy = heat.raced(policy, predicted)
        teaches = not policy.reduces or not self.forecast.knows(policy)
        leads = whole or (state == "complete" and heat.leads(accuracy, predicted))
        trial = Trial(
            number=len(self._ran),
            origin=origin,
            schedule_hash=policy.schedule_hash,
            state=state,
            predicted=predicted,
            comparison=heat.timed(policy) if teaches and leads else None,
            accuracy=accuracy,
            seconds=time.monotonic() - began,
            policy=policy_to_json(policy),
        )
        self.folder.append_trial(to_json(trial))
        self.remember(trial)
        self._tell(trial)
        return trial

    def _worth_of(self, trial: Trial) -> float:
        """Worth on all images, as any sampler is to see it."""
        return value_from_log_loss(self._foreseen(trial).log_loss, self.objective)

    def _heat(self) -> Race:
        whole = [one for one in self._ran if one.trial.state == "complete"]
        return Race(self.evaluator, self.objective, whole, self.margin, self.ratio)

    def _as_seen(self, trial: Trial, policy: Policy) -> Observation:
        """Return a trial as the sampler sees it: what stopped early, by how others went on."""
        found = self._foreseen(trial)
        return observe(
            policy,
            log_loss=found.log_loss,
            noise=found.noise,
            ratio=self.ratio(EvaluatedTrial(trial, policy)),
            whole=trial.state == "complete",
        )

    def _foreseen(self, trial: Trial) -> ExtrapolatedLoss:
        """Log loss on all images, foreseen where a trial was stopped before."""
        first = to_log_loss(trial_value(trial.accuracy, self.objective), self.objective)
        if trial.state == "complete":
            return ExtrapolatedLoss(first, 0.0)
        whole, images = [one for one in self._ran if one.trial.state == "complete"], trial.accuracy
        grown = loss_growths(
            whole, images.images, evaluator=self.evaluator, objective=self.objective
        )
        return extrapolate_loss(first, grown)

    def _tell(self, trial: Trial) -> None:
        done = len(self._ran)
        spent = self.limits.spent(trials=done, seconds=self.seconds)
        speed = f"{'about ' if trial.comparison is None else ''}{trial.ratio:.2f}x"
        speed = speed if trial.state == "complete" else trial.state
        at, of = self.limits.progress(trials=done, seconds=self.seconds)
        self.listener.progress(
            done=at,
            total=of,
            seconds_left=max(0.0, self.seconds / spent - self.seconds),
            text=f"trial {done}: {speed} {100 * trial.accuracy.top1:.1f} % ({trial.origin})",
        )
