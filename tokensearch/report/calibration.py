"""A front that was timed anew: what it takes here, beside what it took before."""

from tokensearch.policy import PolicySet
from tokensearch.report import text
from tokensearch.report.findings import read_measured
from tokensearch.report.grid import Grid
from tokensearch.report.tables import token_strip


def calibration_table(policies: PolicySet) -> Grid:
    """A row per policy, fastest first."""
    rows = []
    for policy in policies.policies:
        here = read_measured(policy, policy.evidence[0])
        before = read_measured(policy, policy.evidence[1])
        rows.append(
            (
                token_strip(policy),
                text.ms(here.median_ms),
                text.NONE if here.ratio is None else text.ratio_interval(here.ratio),
                text.NONE if before.ratio is None else text.ratio_interval(before.ratio),
                text.percent_interval(here.accuracy),
            )
        )
    columns = ("tokens", "latency", "of un-reduced", "before", "right answers")
    return Grid(columns, rows, numbers=frozenset({"latency"}))
