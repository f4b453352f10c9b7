"""`tokensearch evaluate`."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from tokensearch.cli.commands.show import check_policy_name
from tokensearch.cli.console import caution, err, out, print_json
from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import ConfirmOption, JsonOption, RescaleOption
from tokensearch.policy import is_file, load

if TYPE_CHECKING:
    from tokensearch.cli.inputs import EvaluationInputs
    from tokensearch.data.splits import Split
    from tokensearch.evaluation.evaluator import PolicyEvaluator
    from tokensearch.policy import Policy
    from tokensearch.progress import ProgressListener
    from tokensearch.records.measurements import Cell, Comparison
    from tokensearch.records.policy_evaluation import PolicyEvaluation

SECONDS = 6.0  # of passes, at most, for each policy


@grouped
def evaluate(
    policies: Annotated[
        list[str],
        typer.Argument(metavar="POLICY", help="policy files, or names of presets"),
    ],
    wanted: ModelOptions,
    rescale: RescaleOption = False,
    confirm_seconds: ConfirmOption = None,
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
        if is_file(named):
            load(named)  # a damaged one is refused before anything heavy is imported
    from tokensearch.cli.inputs import load_inputs, resolve_name
    from tokensearch.cli.progress import progress_listener

    name = resolve_name(wanted.model, wanted.options)
    from tokensearch.evaluation.evaluator import PolicyEvaluator

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
    each = confirm_seconds or SECONDS
    _say_plan(len(chosen), len(subject.splits.report), each)
    with progress_listener(err) as watcher:
        scored = [
            _score(named, policy, evaluator, watcher, model=name)
            for named, policy in zip(policies, chosen, strict=True)
        ]
        timed = _time(chosen, evaluator, watcher, each)
    evaluations = [
        known(comparison=comparison) for known, comparison in zip(scored, timed, strict=True)
    ]
    _print(evaluations, as_csv=as_csv, as_json=as_json)


def _say_plan(policies: int, images: int, seconds: float) -> None:
    """Say what is done and how long it takes, as far as that is known."""
    from tokensearch.report import text

    most = text.duration(policies * seconds)
    err.print(
        f"measures {text.count(policies, 'policy')} on {text.count(images, 'image')}, "
        f"then times passes for about {most}"
    )


def _score(
    named: str,
    policy: "Policy",
    evaluator: "PolicyEvaluator",
    watcher: "ProgressListener",
    *,
    model: str,
) -> "partial[PolicyEvaluation]":
    """Measure how right a policy is; return its record, but for the comparison of latency."""
    from tokensearch.progress import tell_images
    from tokensearch.records.policy_evaluation import PolicyEvaluation

    watcher.stage(f"accuracy of {model} under {named} on the report split, then of the baseline")
    scored = evaluator.score(policy, "report", on_batch=tell_images(watcher))
    spreads = None
    if policy.counts == "per_image":
        watcher.stage("patch tokens that the images of the report split keep")
        spreads = evaluator.count_tokens(policy, "report")
    return partial(
        PolicyEvaluation,
        policy=named,
        provenance=dict(policy.provenance),
        schedule_hash=policy.schedule_hash,
        patch_tokens_per_block=policy.patch_tokens_per_block,
        patch_tokens_after_block=policy.patch_tokens_after_block,
        cell=evaluator.cell,
        data=evaluator.splits.name,
        accuracy=scored.accuracy,
        paired=scored.paired,
        patch_tokens_by_image=spreads,
    )


def _time(
    policies: Sequence["Policy"],
    evaluator: "PolicyEvaluator",
    watcher: "ProgressListener",
    seconds: float,
) -> list["Comparison"]:
    """Time policies in turn with the baseline: one alone, or as many side by side as can be."""
    from tokensearch.evaluation.latency import MAX_TOGETHER
    from tokensearch.search.finalists.side_by_side import make_confirm_budget, tell_rounds

    watcher.stage("latency, in turn with the baseline", unit="rounds")
    timed: list[Comparison] = []
    for start in range(0, len(policies), MAX_TOGETHER):
        some = policies[start : start + MAX_TOGETHER]
        budget = make_confirm_budget(len(some), seconds)
        tell = partial(tell_rounds, watcher, budget)
        if len(policies) == 1:
            timed.append(evaluator.time(policies[0], budget, tell=tell))
        else:
            timed += evaluator.time_together(some, budget, tell=tell)
    return timed


def _print(evaluations: Sequence["PolicyEvaluation"], *, as_csv: bool, as_json: bool) -> None:
    """Print what was measured; of one policy all, of several a row each."""
    from tokensearch.records.measurements import to_json
    from tokensearch.report.run.console import evaluation, evaluation_table
    from tokensearch.report.table import table_to_csv, table_to_rich

    if as_json:
        print_json(to_json(evaluations[0] if len(evaluations) == 1 else evaluations))
    elif as_csv:
        typer.echo(table_to_csv(evaluation_table(evaluations)), nl=False)
    elif len(evaluations) == 1:
        out.print(evaluation(evaluations[0]))
    else:
        out.print(table_to_rich(evaluation_table(evaluations)))


def _read(name: str, subject: "EvaluationInputs", *, rescale: bool) -> "Policy":
    """Read a policy file, or build a preset for the subject's model, and say if it is rescaled."""
    from tokensearch.policy import preset
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
