"""`results.csv`: finalists in the columns of timm's own scripts, to be laid beside their files.

`model` and `infer_*` are those of timm's benchmark.py; `top1`, `top1_err` and `img_size` those of
its validate.py (1.0.31). A step's time is the median of passes here and the mean there. What a run
does not measure (top-5, parameters, MACs of a whole model) has no column.
"""

from tokensearch.records.measurements import Accuracy
from tokensearch.records.run_result import Finalist, RunDocument
from tokensearch.report.run.result import name_finalist
from tokensearch.report.table import ReportTable

TIMM = (
    *("model", "infer_samples_per_sec", "infer_step_time", "infer_batch_size", "infer_img_size"),
    *("top1", "top1_err", "img_size"),
)
OURS = ("policy", "schedule_hash", "of_baseline", "of_baseline_low", "of_baseline_high", "answer")


def results_table(run: RunDocument) -> ReportTable:
    """Return a row per finalist, fastest first; the baseline is one, by the model's own name."""
    return ReportTable((*TIMM, *OURS), [_row(finalist, run) for finalist in run.finished.finalists])


def _row(finalist: Finalist, run: RunDocument) -> tuple[str, ...]:
    cell, policy = run.cell, finalist.policy
    ms, ratio = finalist.comparison.candidate.median_ms, finalist.comparison.interval
    side = str(cell.columns or cell.resolution)  # timm's is the last of the input's sizes
    name = f"{run.model.name}+{name_finalist(finalist)}" if policy.reduces else run.model.name
    return (
        name.replace(" ", "-"),
        f"{1e3 * cell.batch / ms:.2f}",
        f"{ms:.3f}",
        str(cell.batch),
        side,
        *_right(finalist),
        side,
        name_finalist(finalist),
        finalist.schedule_hash,
        *(f"{figure:.4f}" for figure in (ratio.value, ratio.low, ratio.high)),
        "yes" if finalist.schedule_hash == run.finished.answer_hash else "no",
    )


def _right(finalist: Finalist) -> tuple[str, str]:
    """Return top-1 on `report` and what is left of 100 %; empty where there are no labels."""
    report = finalist.report
    if not isinstance(report, Accuracy) or report.kind != "top1":
        return "", ""
    return f"{100 * report.share:.4f}", f"{100 - 100 * report.share:.4f}"
