"""Runs of one model, side by side: what to ship in each cell, and what one policy for all costs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokensearch.errors import RunError
from tokensearch.policy import is_control
from tokensearch.records.measurements import Cell, to_json
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import Finalist, RunDocument
from tokensearch.report import text
from tokensearch.report.run.bounds import describe_unkept_losses, keeps_latency
from tokensearch.report.run.footnotes import describe_caution
from tokensearch.report.run.result import measure_of, name_finalist
from tokensearch.report.run.tables import cell_line
from tokensearch.report.table import ReportTable


@dataclass(frozen=True, slots=True)
class CellRun:
    """A run that has an answer, in its cell."""

    folder: Path
    run: RunDocument
    answer: Finalist

    @property
    def cell(self) -> Cell:
        """Where its latencies belong."""
        return self.run.cell

    @property
    def as_good(self) -> frozenset[str]:
        """Schedules that would do there: what was asked, with the accuracy of the best.

        Where a loss is bounded, all within the bounds for certain are good enough.
        """
        alike: Iterable[str] = self.run.finished.as_good or ()
        if self.run.settings.goal.bounded:
            alike = (f.schedule_hash for f in self.run.finished.finalists if self._keeps_goal(f))
        return frozenset((*alike, self.answer.schedule_hash))

    def _keeps_goal(self, finalist: Finalist) -> bool:
        fast = self.run.settings.target is None or keeps_latency(self.run, finalist)
        return fast and not describe_unkept_losses(self.run, finalist)

    def cost(self, schedule_hash: str) -> float | None:
        """Return the latency of a schedule as a multiple of the answer's; None: not measured."""
        finalist = self.run.finished.finalist(schedule_hash)
        if finalist is None:
            return None
        return finalist.comparison.ratio / self.answer.comparison.ratio


def read_cells(folders: Sequence[Path]) -> tuple[CellRun, ...]:
    """Read runs of one model, with their answers.

    Raises:
        RunError: A folder holds no run, a run has not ended or has no answer, or two are of
            different models.
    """
    cells = tuple(map(_read_cell, folders))
    first = cells[0]
    for other in cells[1:]:
        _check_same_model(first, other)
    return cells


def _read_cell(path: Path) -> CellRun:
    run = RunFolder(path).require_run()
    if run.result is None:
        raise RunError(f"the search in {path} has not ended; its own command goes on with it")
    if run.result.answer is None:
        goal = text.plain(str(run.settings.goal))
        raise RunError(f"the run in {path} has no answer: no policy meets {goal}; leave it out")
    return CellRun(path, run, run.result.answer)


def _check_same_model(first: CellRun, other: CellRun) -> None:
    mine, its = first.run.model, other.run.model
    if (mine.name, mine.geometry) != (its.name, its.geometry):
        raise RunError(
            f"{first.folder} is of the model {mine.name!r:.60} and {other.folder} of "
            f"{its.name!r:.60}; give runs of one model"
        )
    if mine.weights != its.weights:
        raise RunError(
            f"{first.folder} and {other.folder} are of other weights of {mine.name!r:.60}; give "
            f"runs of one checkpoint"
        )


def find_shared(cells: Sequence[CellRun]) -> tuple[Finalist, ...]:
    """Return the finalists that were timed in every cell, controls left out, the cheapest first.

    By the cell in which each costs most beside that cell's answer.
    """
    hashes = [{f.schedule_hash for f in cell.run.finished.finalists} for cell in cells]
    shared = [
        finalist
        for finalist in cells[0].run.finished.finalists
        if all(finalist.schedule_hash in others for others in hashes)
        and not is_control(finalist.origin)
    ]
    return tuple(sorted(shared, key=lambda one: worst_cost(one.schedule_hash, cells)))


def worst_cost(schedule_hash: str, cells: Sequence[CellRun]) -> float:
    """Return the most that a schedule costs in any cell, as a multiple of the answer there."""
    return max(cell.cost(schedule_hash) or float("inf") for cell in cells)


def choose_for_all(cells: Sequence[CellRun]) -> Finalist | None:
    """Return the one policy for all cells: good enough in each, and of such the cheapest.

    None where no policy that was timed in every cell is.
    """
    shared = find_shared(cells)
    good = [f for f in shared if all(f.schedule_hash in cell.as_good for cell in cells)]
    return next(iter(good), None)


def cell_names(cells: Sequence[CellRun]) -> tuple[str, ...]:
    """Name the cells, with the number of threads where that differs, and the target."""
    threads = len({cell.cell.threads for cell in cells}) > 1
    names = []
    for cell in cells:
        where = cell_line(to_json(cell.cell))
        with_threads = f", {text.count(cell.cell.threads, 'thread')}" if threads else ""
        names.append(f"{where}{with_threads}; asked for {text.plain(str(cell.run.settings.goal))}")
    return tuple(names)


def ship_table(cells: Sequence[CellRun]) -> ReportTable:
    """Return what to ship in each cell: a row per run."""
    rows = [
        (
            f"run {number}",
            name_finalist(cell.answer),
            text.ms(cell.answer.comparison.candidate.median_ms),
            text.ratio_interval(cell.answer.comparison.interval),
            text.rate(cell.cell.batch, cell.answer.comparison.candidate.median_ms),
            text.percent_interval(cell.answer.report.interval),
            text.signed_points(cell.answer.paired.interval),
            text.plain(cell.run.finished.outcome),
            name,
            text.plain(str(cell.folder / "policy.json")),
        )
        for number, (name, cell) in enumerate(zip(cell_names(cells), cells, strict=True), 1)
    ]
    measures = " or ".join(_measures(cells))
    figures = ("latency", "of baseline", "throughput", measures, "change, points")
    columns = ("run", "answer", *figures, "target", "cell", "file")
    return ReportTable(columns, rows, numbers=frozenset(figures))


def shared_table(cells: Sequence[CellRun]) -> ReportTable:
    """Return what each policy that was timed in every cell costs there, beside its answer."""
    shared, chosen = find_shared(cells), choose_for_all(cells)
    rows = [
        (
            name_finalist(finalist),
            *(_cost_cell(cell, finalist.schedule_hash) for cell in cells),
            text.ratio(worst_cost(finalist.schedule_hash, cells)),
            text.percent_interval(finalist.report.interval),
        )
        for finalist in shared
    ]
    names = [f"run {number}" for number in range(1, len(cells) + 1)]
    figures = (*names, "at worst", measure_of(cells[0].run))
    marked = frozenset(i for i, one in enumerate(shared) if one is chosen)
    return ReportTable(("policy", *figures), rows, numbers=frozenset(figures), marked=marked)


def _cost_cell(cell: CellRun, schedule_hash: str) -> str:
    cost = cell.cost(schedule_hash)
    assert cost is not None  # it was timed in every cell
    return f"{text.ratio(cost)}{'' if schedule_hash in cell.as_good else ' *'}"


def verdict_sentences(cells: Sequence[CellRun]) -> tuple[str, ...]:
    """Say what to ship, and what one policy for all would cost."""
    answers = {cell.answer.schedule_hash for cell in cells}
    runs, chosen = text.count(len(cells), "cell"), choose_for_all(cells)
    if len(answers) == 1:
        return (f"One policy is the answer in all {runs}: {name_finalist(cells[0].answer)}.",)
    first = f"{text.count(len(answers), 'policy')} for {runs}"
    if chosen is None:
        return (
            f"Ship one policy per cell: {first}.",
            "No policy that was timed in every cell is sure to meet what was asked in each, as "
            "accurately as the best; `tokensearch retarget RUN` times the policies of one run in "
            "another cell.",
        )
    cost = worst_cost(chosen.schedule_hash, cells)
    doubtful = any(cell.run.finished.outcome == "ambiguous" for cell in cells)
    return (
        f"Ship one policy per cell, {first}, or {name_finalist(chosen)} in all: it "
        f"{'may meet' if doubtful else 'meets'} every target, and takes at most "
        f"{text.ratio(cost)} the latency of a cell's own answer.",
    )


def _measures(cells: Sequence[CellRun]) -> list[str]:
    return list(dict.fromkeys(measure_of(cell.run) for cell in cells))


def doubt_sentences(cells: Sequence[CellRun]) -> tuple[str, ...]:
    """Say what is not alike in these runs beside the cells."""
    said = []
    if cells[0].run.model.weights is None:
        said.append("the runs do not say which weights they measured: make sure that all are alike")
    if len(measures := _measures(cells)) > 1:
        said.append(f"the runs measure {text.listed(measures)}, which cannot be compared")
    images = {tuple(split.digest for split in cell.run.data.splits.values()) for cell in cells}
    if len(images) > 1:
        said.append("the runs quote accuracies on other images: compare them with care")
    if len({cell.cell.machine.name for cell in cells}) > 1:
        said.append("the runs are of several machines: milliseconds tell these apart, too")
    for number, cell in enumerate(cells, 1):
        timed, has_minutes = cell.answer.comparison, cell.run.retargeted is None
        raised = (describe_caution(one, has_minutes=has_minutes) for one in timed.cautions)
        said += [f"run {number}: {caution}" for caution in cell.run.finished.cautions]
        said += [f"run {number}, of the answer: {caution}" for caution in raised]
    return tuple(said)
