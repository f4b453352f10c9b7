"""What `tokensearch evaluate` prints."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from tokensearch.records import Caution
from tokensearch.report import text
from tokensearch.report.findings import interval, measure
from tokensearch.report.grid import Grid, to_rich
from tokensearch.report.tables import caution_lines, cell_line


def evaluation(document: Mapping[str, Any]) -> RenderableType:
    """Return one policy's figures beside the un-reduced model's, and reasons to distrust them."""
    comparison = document["comparison"]
    cautions = [Caution[name.upper()].value for name in comparison["cautions"]]
    parts: list[RenderableType] = [
        Text(f"{text.plain(document['policy'])} on {cell_line(document['cell'])}"),
        to_rich(_figures(document)),
    ]
    if cautions:
        parts.append(caution_lines(cautions))
    return Group(*parts)


def _figures(document: Mapping[str, Any]) -> Grid:
    accuracy, paired = document["accuracy"], document["paired"]
    comparison, counts = document["comparison"], document["patch_tokens_per_block"]
    batch = document["cell"]["batch"]
    candidate_ms = comparison["candidate"]["median_ms"]
    named = measure(labelled=accuracy["kind"] == "top1")
    images = f"{text.count(accuracy['images'], 'image')} of {document['data']}"
    change = text.signed_points_interval(interval(paired, "difference"))
    rows = (
        ("tokens by block", ", ".join(text.count(left) for left in counts)),
        (named, f"{text.percent_interval(interval(accuracy, 'top1'))} on {images}"),
        ("change", f"{change} ({text.probability(paired['p_value'])})"),
        ("KL", text.nats(accuracy["kl"])),
        ("latency", f"{text.ms(candidate_ms)}, {text.rate(batch, candidate_ms)}"),
        ("un-reduced", text.ms(comparison["baseline"]["median_ms"])),
        ("ratio", text.ratio_interval(interval(comparison, "ratio"))),
        ("verdict", comparison["verdict"]),
    )
    return Grid(("figure", "value"), rows)
