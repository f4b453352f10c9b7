"""A front that was timed anew: what it takes here, beside what it took before."""

from tokensearch.policy import Evidence, Policy, PolicySet
from tokensearch.report import text
from tokensearch.report.findings import name_of, read_measured
from tokensearch.report.grid import Grid
from tokensearch.report.tables import token_strip


def calibration_table(policies: PolicySet, before: PolicySet) -> Grid:
    """A row per policy, fastest first; `before` is the set that was timed anew."""
    earlier = {policy.schedule_hash: policy.evidence[0] for policy in before.policies}
    columns = (
        "policy",
        "tokens by block",
        "latency",
        "of un-reduced",
        "before",
        "right answers",
        "confirmed",
    )
    rows = [_row(policy, earlier[policy.schedule_hash]) for policy in policies.policies]
    return Grid(columns, rows, numbers=frozenset({"latency"}))


def _row(policy: Policy, earlier: Evidence) -> tuple[str, ...]:
    here, there = (read_measured(policy, one) for one in (policy.evidence[0], earlier))
    return (
        name_of(policy, str(policy.provenance.get("origin", "sampler"))),
        token_strip(policy),
        text.ms(here.median_ms),
        text.NONE if here.ratio is None else text.ratio_interval(here.ratio),
        text.NONE if there.ratio is None else text.ratio_interval(there.ratio),
        text.percent_interval(here.accuracy),
        "kept from before" if policy.evidence[0] == earlier else "yes" if here.confirmed else "no",
    )
