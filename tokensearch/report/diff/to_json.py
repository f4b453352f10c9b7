"""A ledger as a document for other programs; no samples, which the profiles hold."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tokensearch.costs import Staircase
from tokensearch.diff.ledger import Ledger, Term
from tokensearch.diff.operators import OperatorChange
from tokensearch.records.measurements import to_json
from tokensearch.records.profile import Profile
from tokensearch.report.diff.blocks import paybacks
from tokensearch.report.diff.sentences import ledger_sentences
from tokensearch.stats.bootstrap import LEVEL

FORMAT, VERSION = "tokensearch.ledger", 1


def ledger_to_json(ledger: Ledger, staircase: Staircase | None = None) -> dict[str, Any]:
    """Return the ledger: milliseconds, candidate minus baseline; every interval of 95 %.

    The intervals of all figures hold at once. `proven` is whether an interval leaves out "no
    change". Passes are means of the middle half, of profiles taken in turn at one speed of the
    machine.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "level": LEVEL,
        "baseline": _side(ledger.baseline),
        "candidate": _side(ledger.candidate),
        "paired": ledger.paired,
        "empty": ledger.empty,
        "difference_ms": asdict(ledger.difference) | {"proven": ledger.difference.significant},
        "ratio": asdict(ledger.ratio) | {"proven": not ledger.ratio.low <= 1 <= ledger.ratio.high},
        "baseline_ms": ledger.baseline_ms,
        "candidate_ms": ledger.candidate_ms,
        "verdict": ledger.verdict,
        "closing": ledger.closing,
        "floor_gap_ms": None if ledger.floor_gap is None else asdict(ledger.floor_gap),
        "floor_closing": ledger.floor_closing,
        "closes": ledger.closes,
        "split": ledger.split,
        "nets": [{"block": block, **asdict(net)} for block, net in ledger.nets.items()],
        **{name: [_term(one) for one in terms] for name, terms in _groups(ledger).items()},
        "paybacks": [asdict(one) | {"loses": one.loses} for one in paybacks(ledger)],
        "operators": [_operator(one) for one in ledger.operators],
        "words": list(ledger_sentences(ledger, staircase)),
    }


def _groups(ledger: Ledger) -> Mapping[str, tuple[Term, ...]]:
    return {
        "by_kind": ledger.by_kind,
        "by_phase": ledger.by_phase,
        "by_block": ledger.by_block,
        "terms": ledger.terms,
    }


def _side(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "model": profile.model,
        "schedule_hash": profile.schedule_hash,
        "patch_tokens": list(profile.patch_tokens),
        "cell": to_json(profile.cell),
    }


def _term(term: Term) -> dict[str, Any]:
    return asdict(term) | {"proven": term.ms.significant}


def _operator(change: OperatorChange) -> dict[str, Any]:
    return asdict(change) | {"change": change.change}
