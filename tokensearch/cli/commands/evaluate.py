"""`tokensearch evaluate`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokensearch.cli.commands.show import check_policy_name
from tokensearch.cli.console import caution, err, out, print_json
from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import JsonOption, RescaleOption

if TYPE_CHECKING:
    from tokensearch.cli.inputs import EvaluationInputs
    from tokensearch.data.splits import Split
    from tokensearch.evaluation.evaluator import PolicyEvaluator
    from tokensearch.policy import Policy
    from tokensearch.progress import ProgressListener
    from tokensearch.records.measurements import Cell, Comparison

SECONDS = 6.0  # of passes, at most, for each policy


@grouped
def evaluate(
    policies: Annotated[
        list[str],
        typer.Argument(metavar="POLICY ...", help="policy files, or names of presets"),
    ],
    wanted: ModelOptions,
    rescale: RescaleOption = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="print CSV on stdout, a row per policy")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure policies or presets: accuracy and latency beside the baseline.

    Several are timed side by side, in turn with one baseline, so that they can be compared.
    """
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json are both given; give one of them")
    for named in policies:
        check_policy_name(named)
    from tokensearch.cli.inputs import load_inputs, resolve_name
    from tokensearch.cli.progress import progress_listener
    from tokensearch.evaluation.evaluator import PolicyEvaluator
    from tokensearch.records.measurements import to_json

    name = resolve_name(wanted.model, wanted.options)
    subject = load_inputs(wanted)
    chosen = [_read(policy, subject, rescale=rescale) for policy in policies]
    for policy in chosen:
        _caution_other_images(policy, subject.splits.report)
    cell = subject.cell
    for policy in chosen:  # all are timed in one cell
        cell = _fitting_cell(cell, policy, wanted.backend)
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
        documents = [
            _score(named, policy, evaluator, watcher, model=name)
            for named, policy in zip(policies, chosen, strict=True)
        ]
        for document, comparison in zip(documents, _time(chosen, evaluator, watcher), strict=True):
            document["comparison"] = to_json(comparison)
    _print(documents, as_csv=as_csv, as_json=as_json)


def _score(
    named: str,
    policy: "Policy",
    evaluator: "PolicyEvaluator",
    watcher: "ProgressListener",
    *,
    model: str,
) -> dict[str, Any]:
    """Measure how right a policy is; return what is known of it but for its latency."""
    from tokensearch.progress import tell_images
    from tokensearch.records.measurements import to_json

    watcher.stage(f"accuracy of {model} under {named} on the report split, then of the baseline")
    scored = evaluator.score(policy, "report", on_batch=tell_images(watcher))
    document = {
        "policy": named,
        "provenance": dict(policy.provenance),
        "schedule_hash": policy.schedule_hash,
        "patch_tokens_per_block": list(policy.patch_tokens_per_block),
        "patch_tokens_after_block": list(policy.patch_tokens_after_block),
        "cell": to_json(evaluator.cell),
        "data": evaluator.splits.name,
        "accuracy": to_json(scored.accuracy),
        "paired": asdict(scored.paired),
    }
    if policy.counts == "per_image":
        watcher.stage("patch tokens that the images of the report split keep")
        spreads = evaluator.count_tokens(policy, "report")
        document["patch_tokens_by_image"] = [asdict(spread) for spread in spreads]
    return document


def _time(
    policies: Sequence["Policy"], evaluator: "PolicyEvaluator", watcher: "ProgressListener"
) -> list["Comparison"]:
    """Time policies in turn with the baseline: one alone, or as many side by side as can be."""
    from tokensearch.evaluation.latency import MAX_TOGETHER
    from tokensearch.search.finalists.side_by_side import make_confirm_budget

    watcher.stage("latency, in turn with the baseline")
    if len(policies) == 1:
        return [evaluator.time(policies[0], make_confirm_budget(1, SECONDS))]
    timed: list[Comparison] = []
    for start in range(0, len(policies), MAX_TOGETHER):
        some = policies[start : start + MAX_TOGETHER]
        timed += evaluator.time_together(some, make_confirm_budget(len(some), SECONDS))
    return timed


def _print(documents: Sequence[dict[str, Any]], *, as_csv: bool, as_json: bool) -> None:
    """Print what was measured; of one policy all, of several a row each."""
    from tokensearch.report.run.console import evaluation, evaluation_table
    from tokensearch.report.table import table_to_csv, table_to_rich

    if as_json:
        print_json(documents[0] if len(documents) == 1 else list(documents))
    elif as_csv:
        typer.echo(table_to_csv(evaluation_table(documents)), nl=False)
    elif len(documents) == 1:
        out.print(evaluation(documents[0]))
    else:
        out.print(table_to_rich(evaluation_table(documents)))


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
