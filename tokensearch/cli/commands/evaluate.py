"""Measure one policy or preset: accuracy and latency beside the baseline."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokensearch.cli.console import caution, err, out, print_json
from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import JsonOption, RescaleOption

if TYPE_CHECKING:
    from tokensearch.cli.inputs import EvaluationInputs
    from tokensearch.data.splits import Split
    from tokensearch.policy import Policy
    from tokensearch.records.measurements import Cell

SECONDS = 6.0  # of passes, at most


@grouped
def evaluate(
    policy: Annotated[str, typer.Argument(help="policy file, or name of a preset")],
    wanted: ModelOptions,
    rescale: RescaleOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure one policy or preset: accuracy and latency beside the baseline."""
    from tokensearch.cli.inputs import load_inputs, resolve_name
    from tokensearch.cli.progress import progress_listener
    from tokensearch.evaluation.evaluator import PolicyEvaluator
    from tokensearch.progress import tell_images
    from tokensearch.records.measurements import to_json
    from tokensearch.report.run.console import evaluation
    from tokensearch.search.finalists.side_by_side import make_confirm_budget

    name = resolve_name(wanted.model, wanted.options)
    subject = load_inputs(wanted)
    chosen = _read(policy, subject, rescale=rescale)
    _caution_other_images(chosen, subject.splits.report)
    cell = _fitting_cell(subject.cell, chosen, wanted.backend)
    evaluator = PolicyEvaluator(
        subject.model,
        subject.splits,
        cell,
        wanted.seed,
        objective=subject.objective,
        dense=subject.dense,
    )
    evaluator.check_deterministic(subject.name)
    with progress_listener(err) as watcher:
        watcher.stage(f"accuracy of {name} on the report split, then of the baseline")
        scored = evaluator.score(chosen, "report", on_batch=tell_images(watcher))
        spreads = None
        if chosen.counts == "per_image":
            watcher.stage("patch tokens that the images of the report split keep")
            spreads = evaluator.count_tokens(chosen, "report")
        watcher.stage("latency, in turn with the baseline")
        comparison = evaluator.time(chosen, make_confirm_budget(1, SECONDS))
    document: dict[str, Any] = {
        "policy": policy,
        "provenance": dict(chosen.provenance),
        "schedule_hash": chosen.schedule_hash,
        "patch_tokens_per_block": list(chosen.patch_tokens_per_block),
        "patch_tokens_after_block": list(chosen.patch_tokens_after_block),
        "cell": to_json(cell),
        "data": subject.splits.name,
        "accuracy": to_json(scored.accuracy),
        "paired": asdict(scored.paired),
        "comparison": to_json(comparison),
    }
    if spreads is not None:
        document["patch_tokens_by_image"] = [asdict(spread) for spread in spreads]
    if as_json:
        print_json(document)
    else:
        out.print(evaluation(document))


def _read(name: str, subject: "EvaluationInputs", *, rescale: bool) -> "Policy":
    """Read a policy file, or build a preset for the subject's model, and say if it is rescaled."""
    from tokensearch.policy import is_file, load, preset
    from tokensearch.report.presets import is_rescaled, rescaled_line
    from tokensearch.runtime import describe

    if is_file(name):
        return load(name)
    spec = describe(subject.model, name=subject.name)
    chosen = preset(name, spec, rescale=rescale)
    if is_rescaled(chosen):
        caution(rescaled_line(chosen))
    return chosen


def _fitting_cell(cell: "Cell", policy: "Policy", asked: str) -> "Cell":
    """Return a cell that the policy can be timed in: thresholds are followed in eager mode alone.

    PolicyError where another backend was asked for.
    """
    from tokensearch.policy import check_static

    if policy.counts == "static" or cell.backend == "eager":
        return cell
    if asked != "auto":
        check_static(policy, f"--backend {asked}")
    err.print("--backend auto is eager here: the policy keeps other counts for other images")
    return replace(cell, backend="eager")


def _caution_other_images(policy: "Policy", split: "Split") -> None:
    """Say so if the images may be some that the policy was tuned on."""
    known = {evidence.accuracy.get("split_hash") for evidence in policy.evidence}
    if known and split.digest not in known:
        caution(
            "the policy's own report images are others than these, which may include some that "
            "it was tuned on; --data, --images and --seed of its run give the same"
        )
