"""`tokensearch tune`: learned steps."""

from dataclasses import asdict
from math import inf
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from tokensearch.cli.console import err, error, out, print_json
from tokensearch.cli.inputs import ModelOptions
from tokensearch.cli.option_groups import grouped
from tokensearch.cli.options import JsonOption
from tokensearch.cli.training_options import TrainingOptions, Usual
from tokensearch.documents import read_object
from tokensearch.errors import PolicyError
from tokensearch.policy import is_file, load, load_set, preset, save
from tokensearch.policy.file import SET_FORMAT, policy_to_json
from tokensearch.policy.steps import SCORES, Score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokensearch.cli.inputs import EvaluationInputs
    from tokensearch.evaluation.evaluator import PolicyEvaluator
    from tokensearch.policy import Policy
    from tokensearch.tune.budget import Budget
    from tokensearch.tune.changes import ChangedAccuracy
    from tokensearch.tune.learned_thresholds import ThresholdsResult
    from tokensearch.tune.weights import WeightsResult

NO_BETTER = 4  # the exit code where training has not helped
WEIGHTS = Usual(steps=300, lr=1e-5)
THRESHOLDS = Usual(steps=0, lr=0.02)  # of logarithms: calibration has done the most already
OUT_OF_REACH = 3  # the exit code of a budget that cannot be met, as of a target in `run`

tune = typer.Typer(
    name="tune",
    help="Train: weights under a policy; find thresholds, make them static.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@tune.callback()
def describe_tune() -> None:
    """Train: weights under a policy; find thresholds, make them static."""


@tune.command()
def freeze(
    policy: Annotated[Path, typer.Argument(help="policy file with thresholds")],
    out_file: Annotated[
        Path | None, typer.Option("--out", help="default: POLICY-static.json beside it")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the policy that keeps equal counts for all images: the mean ones of its thresholds.

    It can be compiled, captured and exported. Measure both with `tokensearch evaluate`.
    """
    from tokensearch.tune.thresholds import freeze as freeze_policy

    twin = freeze_policy(load(policy))
    path = out_file or policy.with_name(f"{policy.stem}-static.json")
    save(twin, path)
    if as_json:
        print_json({"file": str(path), **policy_to_json(twin)})
        return
    counts = " ".join(map(str, twin.patch_tokens_after_block))
    out.print(f"{path}: patch tokens after each block {counts}")
    out.print(f"measure both: tokensearch evaluate {policy}; tokensearch evaluate {path}")


@tune.command()
@grouped
def thresholds(
    wanted: ModelOptions,
    training: TrainingOptions,
    sites: Annotated[str, typer.Option(help="blocks at whose end tokens go, such as 2,5,8")],
    budget: Annotated[
        str,
        typer.Option(help="of the mean image: multiply-accumulates, 0.6x, or with --costs 5ms"),
    ],
    score: Annotated[
        str, typer.Option(help=f"one of {', '.join(SCORES)}")
    ] = "head_weighted_class_attention",
    costs: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="costs.json of `profile --sweep`, which predicts times"),
    ] = None,
    out_file: Annotated[Path, typer.Option("--out", help="the policy")] = Path("thresholds.json"),
    as_json: JsonOption = False,
) -> None:
    """Find thresholds that keep, of every image, what scores high, and meet a budget in the mean.

    They are calibrated on the images of `search` by quantiles of their scores; with --steps they
    then learn. The policy and its static twin are compared on `select`.
    """
    from tokensearch.cli.files import check_file
    from tokensearch.cli.inputs import load_inputs
    from tokensearch.cli.progress import progress_listener
    from tokensearch.tune.learned_thresholds import find_thresholds

    blocks, scored_by = _read_blocks(sites), cast(Score, score)
    _check_budget(budget, costs)
    check_file(out_file)  # before minutes are spent
    subject = load_inputs(wanted)
    limit = _read_budget(budget, costs, subject, blocks, scored_by)
    evaluator = _evaluator(subject, wanted.seed)
    folder = out_file.with_name(f"{out_file.stem}-training")
    asked = (
        training.prepare(wanted, subject, evaluator, folder=folder, usual=THRESHOLDS)
        if training.steps
        else None
    )
    with progress_listener(err) as watcher:
        result = find_thresholds(
            evaluator,
            sites=blocks,
            budget=limit,
            score=scored_by,
            watcher=watcher,
            training=asked,
        )
    policy = result.calibrated.policy
    save(policy, out_file)
    document = {"file": str(out_file), "batch": wanted.batch_size, **_thresholds_to_json(result)}
    print_json(document) if as_json else _print_thresholds(document, policy)


def _read_budget(
    budget: str,
    costs: Path | None,
    subject: "EvaluationInputs",
    sites: "Sequence[int]",
    score: "Score",
) -> "Budget":
    """Return the budget; end with an exit code of its own where it cannot be met."""
    from tokensearch.costs import load_costs
    from tokensearch.runtime import describe
    from tokensearch.tune.budget import LatencyBudget, MacBudget, make_twin
    from tokensearch.tune.thresholds import check_reach

    spec, limit = describe(subject.model), float(budget.rstrip("xms"))
    chosen: Budget = MacBudget(spec, limit)
    if costs is not None:
        chosen = LatencyBudget(load_costs(costs), make_twin(spec, sites, score), limit)
    try:
        check_reach(spec, sites, chosen)
    except PolicyError as failure:
        error(str(failure))
        raise typer.Exit(OUT_OF_REACH) from failure
    return chosen


def _check_budget(budget: str, costs: Path | None) -> None:
    """Refuse what is no budget, or one in a unit that nothing is known of."""
    match = fullmatch(r"([0-9.]{1,12})(x|ms)", budget)
    try:
        limit = float(match[1]) if match else 0.0
    except ValueError:
        limit = 0.0
    if match is None or not 0 < limit < (1 if match[2] == "x" else inf):
        raise typer.BadParameter(
            f"--budget is {budget!r}; it must be a share like 0.6x, below 1x, or a time like 5ms"
        )
    if (match[2] == "ms") != (costs is not None):
        raise typer.BadParameter(
            f"--budget is {budget!r}, and --costs is {costs}; a time needs --costs FILE, from "
            f"`tokensearch profile --sweep`, and a share needs none"
        )


def _evaluator(subject: "EvaluationInputs", seed: int) -> "PolicyEvaluator":
    from tokensearch.evaluation.evaluator import PolicyEvaluator

    return PolicyEvaluator(
        subject.model,
        subject.splits,
        subject.cell,
        seed,
        objective=subject.objective,
        dense=subject.dense,
    )


def _thresholds_to_json(result: "ThresholdsResult") -> dict[str, Any]:
    from tokensearch.evaluation.evaluator import spread_of_counts
    from tokensearch.records.measurements import to_json

    calibrated, learning = result.calibrated, {}
    if result.search is not None and result.learned is not None:
        learning["learned"] = {
            "kept": result.learned is calibrated,
            "mac_share": result.learned.mac_share,
            "calibrated": to_json(result.search.before),
            "search": to_json(result.search.after),
        }
    return {
        **learning,
        "mac_share": calibrated.mac_share,
        "padded_mac_share": calibrated.padded_mac_share,
        "patch_tokens_by_image": [asdict(one) for one in spread_of_counts(calibrated.counts)],
        "select": {name: to_json(scored.accuracy) for name, scored in result.select.items()},
    }


@tune.command()
@grouped
def weights(
    wanted: ModelOptions,
    training: TrainingOptions,
    policy: Annotated[
        str,
        typer.Option(metavar="FILE", help="policy or preset; of a front one is drawn per step"),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="checkpoints, weights, policy, log")
    ] = Path("runs/tune-weights"),
    as_json: JsonOption = False,
) -> None:
    """Train a model's weights under a policy, so that they make up for what it removes.

    The better of before and after on `search` is kept. The same command goes on after anything.
    """
    from tokensearch.cli.inputs import load_inputs
    from tokensearch.cli.progress import progress_listener
    from tokensearch.tune.weights import tune_weights

    subject = load_inputs(wanted)
    policies, evaluator = _read_policies(policy, subject), _evaluator(subject, wanted.seed)
    asked = training.prepare(wanted, subject, evaluator, folder=out_folder, usual=WEIGHTS)
    with progress_listener(err) as watcher:
        result = tune_weights(evaluator, policies, asked, watcher)
    document = _weights_to_json(result)
    print_json(document) if as_json else _print_weights(document)
    if not result.better:
        raise typer.Exit(NO_BETTER)


def _read_policies(name: str, subject: "EvaluationInputs") -> "Sequence[Policy]":
    """Read a policy, the policies of a front, or a preset."""
    from tokensearch.runtime import describe

    if not is_file(name):
        return (preset(name, describe(subject.model, name=subject.name)),)
    document = read_object(Path(name), what="a policy or a front", error=PolicyError)
    return load_set(name).policies if document.get("format") == SET_FORMAT else (load(name),)


def _weights_to_json(result: "WeightsResult") -> dict[str, Any]:
    from tokensearch.records.measurements import to_json

    def changes(changed: "ChangedAccuracy") -> dict[str, Any]:
        return {
            "schedule_hash": changed.policy.schedule_hash,
            "before": to_json(changed.before),
            "after": to_json(changed.after),
            "paired": asdict(changed.paired),
        }

    return {
        "better": result.better,
        "weights": None if result.weights is None else str(result.weights),
        "policies": [str(path) for path in result.policies],
        "search": [changes(changed) for changed in result.search],
        "select": [changes(changed) for changed in result.select],
    }


def _print_weights(document: dict[str, Any]) -> None:
    for split in ("search", "select"):
        for number, changed in enumerate(document[split], start=1):
            own = f" of policy {number}" if len(document[split]) > 1 else ""
            before, after = (_figures(changed[when]) for when in ("before", "after"))
            out.print(f"{split}{own}: before {before}; after {after}")
            paired = changed["paired"]
            out.print(
                f"  right now and not before {paired['only_candidate']}, the other way round "
                f"{paired['only_baseline']} of {paired['images']} (p = {paired['p_value']:.2g})"
            )
    if document["better"]:
        out.print(f"better on search: {document['weights']} and {document['policies'][0]}")
        out.print(
            f"measure: tokensearch evaluate {document['policies'][0]} --checkpoint "
            f"{document['weights']}"
        )
    else:
        out.print("no better on search: the weights stay what they were, and none are written")


def _figures(accuracy: dict[str, Any]) -> str:
    """What is told of an accuracy, in words."""
    from tokensearch.report import text
    from tokensearch.report.run.result import measure_in, share_in
    from tokensearch.report.run.tables import closeness_of

    measure = measure_in(accuracy)
    figures = {measure: text.percent(share_in(accuracy).value)}
    figures |= closeness_of(accuracy, measure)
    return ", ".join(f"{what} {figure}" for what, figure in figures.items())


def _print_thresholds(document: dict[str, Any], policy: "Policy") -> None:
    out.print(
        f"{document['file']}: multiply-accumulates {document['mac_share']:.3f}x in the mean; "
        f"{document['padded_mac_share']:.3f}x in batches of {document['batch']}, filled up"
    )
    if "learned" in document:
        learned = document["learned"]
        out.print(
            f"search: calibrated {_figures(learned['calibrated'])}; learned "
            f"{_figures(learned['search'])}, {'kept' if learned['kept'] else 'not kept'}"
        )
    for step in policy.steps:
        spread = document["patch_tokens_by_image"][step.block]
        out.print(
            f"after block {step.block}: mean {spread['mean']:.0f} tokens, p50 {spread['p50']:.0f}, "
            f"p90 {spread['p90']:.0f}, max {spread['max']}"
        )
    for name, accuracy in document["select"].items():
        out.print(f"{name}: {_figures(accuracy)} on select", soft_wrap=True)
    out.print(f"compare their latency: tokensearch tune freeze {document['file']}")


def _read_blocks(sites: str) -> tuple[int, ...]:
    parts = sites.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise typer.BadParameter(f"--sites is {sites!r}; it must be blocks like 2,5,8")
    return tuple(sorted({int(part) for part in parts}))
