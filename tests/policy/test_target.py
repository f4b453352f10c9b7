import pytest

from tokensearch.errors import NoPolicyError, TargetError, TokensearchWarning
from tokensearch.policy import Evidence, ModelSpec, Policy, PolicySet, Prune, parse_target

SPEC = ModelSpec("toy", blocks=4, patch_tokens=16, prefix_tokens=1, width=8)


@pytest.mark.parametrize(
    ("text", "limit_ms"),
    [("5ms", 5.0), ("800us", 0.8), ("1.5s", 1500.0), ("0.6x", 60.0), ("2000/s", 4.0)],
)
def test_every_form_of_target_is_a_limit_in_milliseconds(text: str, limit_ms: float) -> None:
    assert parse_target(text).limit_ms(batch=8, baseline_ms=100.0) == pytest.approx(limit_ms)


@pytest.mark.parametrize(
    "text", ["5", "-1ms", "", "ms", "5 minutes", "0x5", "1e3ms", "nan ms", "٣ms"]
)
def test_what_is_not_a_target_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(TargetError) as raised:
        parse_target(text)

    assert str(raised.value) == (
        f"latency target {text!r} cannot be read; "
        "write 5ms, 800us, 0.6x (of the baseline) or 2000/s (images)"
    )


def test_a_number_without_a_unit_is_no_target_either() -> None:
    with pytest.raises(TargetError, match=r"latency target '0[.]8' cannot be read"):
        FRONT.best(latency=0.8)  # type: ignore[arg-type]


def test_a_target_of_nothing_is_refused() -> None:
    with pytest.raises(TargetError, match="'0x' is not above zero"):
        parse_target("0x")


def member(keep: int, *, median_ms: float, top1: float) -> Policy:
    evidence = Evidence(
        cell={"batch": 8}, latency={"median_ms": median_ms}, accuracy={"top1": top1},
        baseline={"median_ms": 10.0}, confirmed=True,
    )  # fmt: skip
    return Policy(SPEC, (Prune(1, keep),)).with_evidence(evidence)


FRONT = PolicySet(
    (
        member(4, median_ms=3.0, top1=0.8),
        member(8, median_ms=5.0, top1=0.9),
        member(15, median_ms=9.0, top1=0.95),
    )
)


@pytest.mark.parametrize(
    ("latency", "keep"), [("5ms", 8), ("4.9ms", 4), ("0.95x", 15), ("1600/s", 8)]
)
def test_the_most_accurate_policy_under_the_target_is_best(latency: str, keep: int) -> None:
    with pytest.warns(TokensearchWarning, match="its medians decide alone"):
        assert FRONT.best(latency=latency).steps == (Prune(1, keep),)


def test_a_target_that_no_policy_meets_says_what_the_fastest_takes() -> None:
    with pytest.raises(NoPolicyError) as raised:
        FRONT.best(latency="1ms")

    assert (
        str(raised.value)
        == "no policy of the set meets 1ms; the fastest takes 3 ms, 0.300x of the baseline"
    )


def known(
    keep: int, ratio: float, low: float, high: float, *, sure: bool = True, top1: float = 0.9
) -> Policy:
    """A policy with all that the rule of the answer goes by."""
    evidence = Evidence(
        cell={"batch": 8}, latency={"median_ms": 10 * ratio}, accuracy={"top1": top1},
        baseline={"median_ms": 10.0}, confirmed=sure,
        extra={
            "select": {"top1": top1, "kl": 1 - top1, "images": 8},
            "choice": {"right": "7f", "kl_low": 0.0, "kl_high": 2 * (1 - top1)},
            "comparison": {
                "ratio": ratio, "low": low, "high": high, "low_ms": 10 * low, "high_ms": 10 * high
            },
        },
    )  # fmt: skip
    steps = () if ratio == 1 else (Prune(1, keep),)
    return Policy(SPEC, steps).with_evidence(evidence)


@pytest.mark.parametrize(
    ("sure", "doubt"),
    [
        (False, r"0.42x \[0.32, 0.50\]: it was timed under doubt, beside other programs"),
        (True, r"0.42x \[0.32, 0.50\]: not all intervals lie within what is asked"),
    ],
)
def test_a_policy_that_is_refused_is_named_with_its_doubt(*, sure: bool, doubt: str) -> None:
    target = "0.45x" if sure else "0.7x"
    front = PolicySet((known(4, 0.42, 0.32, 0.50, sure=sure),))

    with pytest.raises(NoPolicyError, match=doubt):
        front.best(target)

    assert front.best(target, doubtful=True) == front.policies[0]


def test_what_may_be_better_is_returned_where_doubts_are_allowed() -> None:
    sure, better = known(4, 0.42, 0.40, 0.44), known(8, 0.49, 0.46, 0.52, top1=0.95)
    front = PolicySet((sure, better))

    assert front.best("0.5x") == sure
    assert front.best("0.5x", doubtful=True) == better


def test_where_only_the_baseline_surely_keeps_a_bound_it_is_returned_with_a_warning() -> None:
    reduced, baseline = known(4, 0.42, 0.40, 0.44), known(16, 1.0, 1.0, 1.0, top1=1.0)
    front = PolicySet((reduced, baseline))

    with pytest.warns(TokensearchWarning, match="only the baseline meets at most 0.15 nats"):
        assert front.best(max_divergence=0.15) == baseline
    assert front.best(max_divergence=0.15, doubtful=True) == reduced
    assert front.best(max_divergence=0.5) == reduced


def test_a_drop_below_zero_is_refused_in_points() -> None:
    with pytest.raises(TargetError, match="max_drop is -1 points; give a number from 0 on"):
        FRONT.best(max_drop=-1)
