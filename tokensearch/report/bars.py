"""A ledger as a waterfall: from one pass to the other, with a bar for every term that is proven."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tokensearch.ledger import Kind, Ledger, Term
from tokensearch.report import text
from tokensearch.report.estimates import total
from tokensearch.report.phases import PHASE_NAMES
from tokensearch.resampling import Estimate

Part = Kind | Literal["pass", "noise"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a waterfall."""

    part: Part
    label: str
    ms: Estimate  # the change; of a pass its whole time, without an interval
    start_ms: float  # where the bars above it have led to

    @property
    def end_ms(self) -> float:
        """Where it leads to."""
        return self.start_ms + self.ms.value

    @property
    def doubtful(self) -> bool:
        """Whether it may be nothing at all."""
        return not self.ms.proven


def bars(ledger: Ledger) -> tuple[Bar, ...]:
    """Baseline, terms by phase (the largest first), noise, residual, candidate.

    Each bar starts where the last one ended, and the last change ends at the candidate's pass.
    """
    first = _pass(ledger.baseline.name, ledger.baseline_ms)
    made, reached_ms = [first], first.ms.value
    for part, label, ms in _changes(ledger):
        made.append(Bar(part, label, ms, reached_ms))
        reached_ms += ms.value
    return (*made, _pass(ledger.candidate.name, ledger.candidate_ms))


def _pass(name: str, ms: float) -> Bar:
    return Bar("pass", text.plain(name), Estimate(ms, ms, ms), 0.0)


def _changes(ledger: Ledger) -> Iterator[tuple[Part, str, Estimate]]:
    proven = [term for term in ledger.by_phase if term.ms.proven]
    for term in sorted(proven, key=lambda one: -abs(one.ms.value)):
        yield term.kind, label(term), term.ms
    rest = [term.ms for term in ledger.by_phase if not term.ms.proven]
    if rest:
        yield "noise", f"inside the noise ({text.count(len(rest), 'term')})", total(rest)
    yield "residual", "residual", ledger.residual.ms


def label(term: Term) -> str:
    """Name a term of one phase: "saved in MLP", or "added in MLP" if the candidate has more."""
    assert term.phase is not None, "a term by phase has one"
    return f"{_verb(term)} {PHASE_NAMES[term.phase]}"


def _verb(term: Term) -> str:
    match term.kind:
        case "saved":
            return "added in" if term.ms.low > 0 else "saved in"
        case "spent":
            return "no longer spent on" if term.ms.high < 0 else "spent on"
        case _:
            return f"{term.kind} in"
