"""What `tokensearch tune` says, as text and as JSON."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tokensearch.cli.console import out

if TYPE_CHECKING:
    from tokensearch.policy import Policy
    from tokensearch.tune.changes import ChangedAccuracy
    from tokensearch.tune.learned_thresholds import ThresholdsResult
    from tokensearch.tune.weights import WeightsResult


def change_to_json(changed: "ChangedAccuracy") -> dict[str, Any]:
    """Return an accuracy before and after, as JSON."""
    from tokensearch.records.measurements import to_json

    return {
        "schedule_hash": changed.policy.schedule_hash,
        "before": to_json(changed.before),
        "after": to_json(changed.after),
        "paired": asdict(changed.paired),
    }


def _print_change(where: str, changed: dict[str, Any]) -> None:
    before, after = (_figures(changed[when]) for when in ("before", "after"))
    out.print(f"{where}: before {before}; after {after}", soft_wrap=True)
    paired = changed["paired"]
    out.print(
        f"  right now and not before {paired['only_candidate']}, the other way round "
        f"{paired['only_baseline']} of {paired['images']} (p = {paired['p_value']:.2g})"
    )


def print_merger(document: dict[str, Any]) -> None:
    """Print what training has made of a merger."""
    for split in ("search", "select"):
        _print_change(split, document[split])
    kept = "trained" if document["better"] else "no better on search: kept as it began"
    out.print(f"{document['file']}: {kept}; measure: tokensearch evaluate {document['file']}")


def print_rates(document: dict[str, Any]) -> None:
    """Print counts that have learned."""
    for split in ("search", "select"):
        _print_change(split, document[split])
    counts = " ".join(map(str, document["patch_tokens_after_block"]))
    kept = "learned" if document["better"] else "no better on search: the same share everywhere"
    out.print(
        f"{document['file']}: {kept}; multiply-accumulates {document['mac_share']:.3f}x; patch "
        f"tokens after each block {counts}",
        soft_wrap=True,
    )
    out.print(f"try it among others: tokensearch run --from {document['file']}")


def weights_to_json(result: "WeightsResult") -> dict[str, Any]:
    """Return what fine-tuning has changed, as JSON."""
    return {
        "better": result.better,
        "weights": None if result.weights is None else str(result.weights),
        "policies": [str(path) for path in result.policies],
        "search": [change_to_json(changed) for changed in result.search],
        "select": [change_to_json(changed) for changed in result.select],
    }


def print_weights(document: dict[str, Any]) -> None:
    """Print what fine-tuning has changed."""
    for split in ("search", "select"):
        for number, changed in enumerate(document[split], start=1):
            own = f" of policy {number}" if len(document[split]) > 1 else ""
            _print_change(f"{split}{own}", changed)
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


def print_thresholds(document: dict[str, Any], policy: "Policy") -> None:
    """Print thresholds and what they keep."""
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
    out.print(compare_with_static(document), soft_wrap=True)
    out.print(f"compare their latency: tokensearch tune freeze {document['file']}")


def compare_with_static(document: dict[str, Any]) -> str:
    """Say whether thresholds or the same counts for all images are better, and how sure that is.

    A batch is filled up to its largest image: at equal accuracy the static twin is better.
    """
    from tokensearch.records.measurements import PairedAccuracy, from_json
    from tokensearch.report import text
    from tokensearch.report.run.result import measure_in

    lead = from_json(PairedAccuracy, document["lead"])
    own, static = document["padded_mac_share"], document["static_mac_share"]
    measure = measure_in(document["select"]["static"])
    figures = f"{text.signed_points_interval(lead.interval)} ({text.probability(lead.p_value)})"
    costs = f"{own:.3f}x against {static:.3f}x in batches of {document['batch']}"
    if lead.significant:
        better, verb = ("thresholds", "gain") if lead.difference > 0 else ("static", "lose")
        gained = f"thresholds {verb} {figures} {measure}, which is significant"
        return f"better: {better}; {gained}; {costs}"
    better = "static, which costs less" if static < own else "neither"
    return f"better: {better}; the {measure} differs by {figures}, not significantly; {costs}"


def thresholds_to_json(result: "ThresholdsResult") -> dict[str, Any]:
    """Return thresholds and what they keep, as JSON."""
    from tokensearch.evaluation.evaluator import spread_of_counts
    from tokensearch.policy import mac_share
    from tokensearch.records.measurements import to_json
    from tokensearch.tune.thresholds import freeze

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
        "static_mac_share": mac_share(freeze(calibrated.policy)),
        "select": {name: to_json(scored.accuracy) for name, scored in result.select.items()},
        "lead": to_json(result.lead),
    }
