"""Doubts about timings, as marks on the rows that they are about."""

from collections.abc import Iterable, Mapping

from tokensearch.records.measurements import Caution, Comparison
from tokensearch.records.run_result import RunDocument

MARKS = "¹²³⁴⁵⁶⁷⁸⁹"
# What a user of `run` and `retarget` can do, where the caution itself names no option of theirs.
REMEDIES: Mapping[Caution, str] = {
    Caution.SLOW_START: "allow more --confirm-seconds, so that it counts for less",
    Caution.WIDE_SPREAD: "stop other work on the machine, or allow more --confirm-seconds",
    Caution.FEW_PASSES: "allow more --confirm-seconds",
    Caution.COARSE_CLOCK: "use a larger --batch-size",
}
NEED_MINUTES = {Caution.FEW_PASSES}  # a search gives timings what its minutes leave


class Footnotes:
    """Numbers the cautions of a table's rows."""

    def __init__(self, comparisons: Iterable[Comparison], *, has_minutes: bool = False) -> None:
        raised = {caution for comparison in comparisons for caution in comparison.cautions}
        ordered = [caution for caution in Caution if caution in raised]
        self._marks = dict(zip(ordered, MARKS, strict=False))
        self._has_minutes = has_minutes  # the command: `retarget` takes as long as it takes

    @classmethod
    def of_run(cls, run: RunDocument) -> "Footnotes":
        """Number what was raised of finalists and alternatives, for all tables of a report."""
        result = run.finished
        finalists = [finalist.comparison for finalist in result.finalists]
        others = [other.comparison for other in result.alternatives]
        return cls([*finalists, *others], has_minutes=run.retargeted is None)

    @property
    def raised(self) -> bool:
        """Whether any row carries a mark."""
        return bool(self._marks)

    def mark(self, comparison: Comparison) -> str:
        """Return the marks of a row, with a space before them; empty where nothing was raised."""
        marks = "".join(
            mark for caution, mark in self._marks.items() if caution in comparison.cautions
        )
        return f" {marks}" if marks else ""

    def lines(self, comparisons: Iterable[Comparison]) -> tuple[str, ...]:
        """Return what the marks of some rows mean."""
        raised = {caution for comparison in comparisons for caution in comparison.cautions}
        return tuple(
            f"{mark} {describe_caution(caution, has_minutes=self._has_minutes)}"
            for caution, mark in self._marks.items()
            if caution in raised
        )


def cautions_absent(run: RunDocument) -> str:
    """Say that nothing is doubtful about a run as a whole; its rows may carry marks."""
    raised = Footnotes.of_run(run).raised
    return "None besides those marked in the tables." if raised else "None was raised."


def describe_caution(caution: Caution, *, has_minutes: bool) -> str:
    """Say what is doubtful, and what can be done about it with the options that there are."""
    what, general = caution.value.split(": ")
    for_them = ", and --minutes for them" if has_minutes and caution in NEED_MINUTES else ""
    return f"{what}: {REMEDIES.get(caution, general)}{for_them}"
