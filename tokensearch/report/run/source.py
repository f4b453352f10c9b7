"""Everything that a report of a run is made of, read from its folder."""

from dataclasses import dataclass

from tokensearch.costs.file import load_costs
from tokensearch.costs.table import CostTable
from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.errors import RunError
from tokensearch.policy import PolicySet, load_set
from tokensearch.records.measurements import Trial
from tokensearch.records.patch_trace import TracedImage, read_traces
from tokensearch.records.profile import Profile
from tokensearch.records.run_folder import RunFolder
from tokensearch.records.run_result import RunDocument
from tokensearch.report.phases import read_profile
from tokensearch.report.run.contradictions import contradiction
from tokensearch.report.run.result import run_cautions


@dataclass(frozen=True, slots=True)
class ReportSource:
    """What Markdown and HTML show alike."""

    run: RunDocument
    front: PolicySet
    trials: tuple[Trial, ...]
    baseline: Profile | None
    ledger: Ledger | None  # None without an answer
    costs: CostTable | None  # None where the machine was not swept
    patches: tuple[TracedImage, ...] = ()  # images under the answer; none where none were kept
    unread: str | None = None  # why images that were kept cannot be shown

    @property
    def changed(self) -> str | None:
        """How the front contradicts its run; None where it does not."""
        return contradiction(self.front, self.run)

    @property
    def cautions(self) -> tuple[str, ...]:
        """What the run raised, and what has become of its files since."""
        since = (each for each in (self.changed, self.unread) if each is not None)
        return (*run_cautions(self.run), *since)


def read_source(folder: RunFolder) -> ReportSource:
    """Read a finished run.

    Raises:
        RunError: The folder holds no run, the search has not ended, or a file is damaged.
        PolicyError: front.json cannot be read.
    """
    run = folder.require_run()
    try:
        _ = run.finished
    except RunError as error:
        error.add_note(f"in {folder.path}")
        raise
    baseline, answer = (
        read_profile(folder.profiles / f"{name}.json") for name in ("baseline", "answer")
    )
    patches, unread = _read_patches(folder, run)
    return ReportSource(
        run=run,
        front=load_set(folder.front),
        trials=folder.read_trials(),
        baseline=baseline,
        ledger=None if baseline is None or answer is None else make_ledger(baseline, answer),
        costs=load_costs(folder.costs) if folder.costs.exists() else None,
        patches=patches,
        unread=unread,
    )


def _read_patches(
    folder: RunFolder, run: RunDocument
) -> tuple[tuple[TracedImage, ...], str | None]:
    """Return the images of the answer, none where they are those of another policy.

    And why they cannot be shown, where that is so: a report is worth more than its pictures.
    """
    if not folder.patches.exists():
        return (), None
    try:
        traces = read_traces(folder.patches)
    except RunError as error:
        return (), f"images are left out, since {folder.patches.name} cannot be read: {error}"
    return (traces.images if traces.schedule_hash == run.finished.answer_hash else ()), None
