"""Doubts about the timings that a run's result rests on."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict

from tokensearch.comparable import Sentinel
from tokensearch.records import Caution, Trial
from tokensearch.search.finalists import Finalist
from tokensearch.search.listener import Listener
from tokensearch.search.rivals import Rival
from tokensearch.search.timing import Timing


def cautions(finalists: Sequence[Finalist], others: Sequence[Rival] = ()) -> list[str]:
    """Every doubt about a confirmed timing, once; and one about comparing them in milliseconds."""
    timed = [one.comparison for one in finalists] + [one.comparison for one in others]
    found = {caution for one in timed for caution in one.cautions}
    if _sentinel([*finalists, *others]).drifted:
        found.add(Caution.MOVED_BASELINE)
    return sorted(caution.value for caution in found)


def launching(timing: Timing, listener: Listener) -> dict[str, float] | None:
    """Say so if the un-reduced model is launch-bound; return what run.json holds of it."""
    found = timing.launching
    if found is not None and found.bound:
        listener.caution(found.sentence)
    return None if found is None else asdict(found)


def moved(timed: Iterable[Finalist | Rival | Trial]) -> float:
    """Share by which the un-reduced model's speed changed between them."""
    return _sentinel(timed).moved


def _sentinel(timed: Iterable[Finalist | Rival | Trial]) -> Sentinel:
    """Return how the un-reduced model fared beside each of them; some trials were not timed."""
    comparisons = [one.comparison for one in timed]
    return Sentinel([one.baseline for one in comparisons if one is not None])
