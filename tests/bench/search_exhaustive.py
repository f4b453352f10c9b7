"""A space small enough to try all of it: after how many evaluations is its whole front found?"""

from dataclasses import dataclass

from tests.bench.searching import Bench, worth_of
from tokensearch.front import Point, front
from tokensearch.policy.file import policy_from_json
from tokensearch.runtime import describe
from tokensearch.search import load_space
from tokensearch.search.latency_model import forecast_from_table

SPACE = "exhaustive_small"
SHARE = 0.3  # of the evaluations that trying all takes


@dataclass(frozen=True, slots=True)
class Found:
    """What one seed found of the true front."""

    seed: int
    schedules: int  # in the space
    members: int  # of the true front
    found: int  # of them, within the budget
    after: float | None  # full evaluations to the last of them

    @property
    def line(self) -> str:
        """The same as text."""
        when = "" if self.after is None else f", the last after {self.after:.0f} full evaluations"
        return (
            f"exhaustive seed {self.seed}: {self.found} of {self.members} members of the true "
            f"front within {SHARE * self.schedules:.0f} of {self.schedules} evaluations{when}"
        )


def found_after(bench: Bench, seed: int) -> Found:
    """Try all, then search with 30 % of that."""
    model, ratio = describe(bench.model), forecast_from_table(bench.table).ratio
    policies = list(load_space(SPACE).every(model))
    answers = bench.session("random", 0, space=SPACE).evaluator()
    points = [
        Point(worth_of(answers.score(policy, "search").accuracy.kl), ratio(policy))
        for policy in policies
    ]
    true = {policies[place].schedule_hash for place in front(points)}
    search, cost, last = bench.trials("local", seed, SHARE * len(policies), space=SPACE), 0.0, None
    seen = set[str]()
    for trial in search:
        cost += 0 if trial.origin == "none" else trial.accuracy.images / len(bench.splits.search)
        name = policy_from_json(trial.policy).schedule_hash
        if trial.state == "complete" and name in true:
            seen.add(name)
            last = cost
    whole = seen == true
    return Found(seed, len(policies), len(true), len(seen), last if whole else None)
