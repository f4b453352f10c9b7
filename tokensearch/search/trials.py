"""The search itself: propose, measure, write down, learn; until the limits are reached."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from tokensearch.measure import Budget
from tokensearch.policy import Policy
from tokensearch.policy.file import policy_to_json
from tokensearch.records import Trial, to_json
from tokensearch.run_folder import RunFolder
from tokensearch.search.evaluator import Evaluator, Scored
from tokensearch.search.listener import Listener
from tokensearch.search.proposals import Proposals
from tokensearch.search.settings import Limits

# A policy is ruled out when its first images show, with confidence, a loss that nobody would take:
# ten points is more than any published schedule of use loses.
SCREEN_IMAGES = 128
HOPELESS_LOSS = 0.10

# Pairs of a trial: enough to order policies that differ by a few percent; finalists get more.
TRIAL_BUDGET = Budget(warmup=1, min_pairs=12, max_pairs=40, seconds=2.0, precision=0.02)

# A sampler that proposes nothing new this many times in a row has seen what it can reach.
MOST_REPEATS = 50


@dataclass
class Search:
    """One search under way."""

    evaluator: Evaluator
    proposals: Proposals
    folder: RunFolder
    limits: Limits
    listener: Listener
    trials: list[Trial] = field(default_factory=list)
    earlier_seconds: float = 0.0  # spent on trials by a process that was stopped
    searched_seconds: float = 0.0  # once the search has ended
    _began: float = field(default_factory=time.monotonic)

    def try_fixed(self, fixed: Iterable[tuple[str, Policy]]) -> None:
        """Try policies that no sampler proposed: presets and controls."""
        for origin, policy in fixed:
            if self.known(policy) is None and self.goes_on():
                self.proposals.add(self._try(policy, origin))

    def explore(self) -> None:
        """Try what the sampler proposes, until the limits."""
        repeats = 0
        while self.goes_on() and repeats < MOST_REPEATS:
            repeats = 0 if self._propose() else repeats + 1
        self.searched_seconds = self.seconds

    def known(self, policy: Policy) -> Trial | None:
        """Return the trial of an equal schedule, if there was one."""
        wanted = policy.schedule_hash
        return next((trial for trial in self.trials if trial.schedule_hash == wanted), None)

    def goes_on(self) -> bool:
        """Whether the limits allow another trial; the first is always made."""
        spent = self.limits.spent(trials=len(self.trials), seconds=self.seconds)
        return spent < 1 or not self.trials

    @property
    def duplicates(self) -> int:
        """Proposals of schedules that had been tried before."""
        return max(0, self.proposals.told - len(self.trials))

    @property
    def seconds(self) -> float:
        """Time that this search has taken, trials of a stopped process counted in."""
        return self.earlier_seconds + time.monotonic() - self._began

    def _propose(self) -> bool:
        """Ask for one policy and try it; False if it had been tried before."""
        proposal = self.proposals.ask(len(self.trials))
        same = self.known(proposal.policy)
        if same is not None:
            self.proposals.tell(proposal, to_json(same))
            return False
        self.proposals.tell(proposal, self._try(proposal.policy, proposal.origin))
        return True

    def _try(self, policy: Policy, origin: str) -> dict[str, object]:
        """Measure one policy and write it down."""
        began = time.monotonic()
        scored = self.evaluator.score(policy, "search", limit=SCREEN_IMAGES)
        hopeless = scored.paired.high < -HOPELESS_LOSS
        if not hopeless:
            scored = self.evaluator.complete(policy, scored)
        trial = Trial(
            number=len(self.trials),
            origin=origin,
            schedule_hash=policy.schedule_hash,
            state="ruled_out" if hopeless else "complete",
            comparison=None if hopeless else self.evaluator.time(policy, TRIAL_BUDGET),
            accuracy=scored.accuracy,
            seconds=time.monotonic() - began,
            policy=policy_to_json(policy),
        )
        line = to_json(trial)
        self.folder.append_trial(line)
        self.trials.append(trial)
        self._tell(trial, scored)
        return line

    def _tell(self, trial: Trial, scored: Scored) -> None:
        done = len(self.trials)
        spent = self.limits.spent(trials=done, seconds=self.seconds)
        speed = "ruled out" if trial.comparison is None else f"{trial.comparison.ratio:.2f}x"
        self.listener.progress(
            done=done,
            total=self.limits.trials or max(done, round(done / spent)),
            seconds_left=max(0.0, self.seconds / spent - self.seconds),
            text=f"{speed} {100 * scored.accuracy.top1:.1f} % ({trial.origin})",
        )
