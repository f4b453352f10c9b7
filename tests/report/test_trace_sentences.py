from typing import Any

from tests.report.ledgers import baseline, operator
from tokensearch.chrome import ChromeTrace
from tokensearch.diff.operators import operator_changes
from tokensearch.records.profile import OUTSIDE, Operator
from tokensearch.report.diff.operators import Traced, change_table, trace_sentences


def called(name: str, calls: float, ms: float, steps: int = 5) -> Operator:
    traced = tuple(ms * (1 + 0.001 * number) for number in range(steps))
    return Operator(*OUTSIDE, name, kernel=False, calls=calls, passes_ms=traced)


def trace(*, blocks: int = 4, passes: int = 1, ms: float = 2.0, steps: int = 5) -> ChromeTrace:
    """A trace of a ViT, which holds so many passes in each step."""
    operators = (
        called("aten::conv2d", passes, 0.5, steps),
        called("aten::layer_norm", passes * (2 * blocks + 1), 1.0, steps),
        called("aten::addmm", passes * 4 * blocks, ms, steps),
    )
    return ChromeTrace("a.json", operators, (10.0 + ms,) * steps, True, (), (), {})


def words(one: Traced, other: Traced) -> tuple[str, ...]:
    changes = operator_changes(one.operators, other.operators)
    return trace_sentences((one, other), ("a.json", "b.json"), changes)


def test_alike_but_for_one_operator_is_one_sentence() -> None:
    assert words(trace(ms=2.0), trace(ms=1.0)) == (
        "b.json takes 11.0 ms a step under the profiler, a.json 12.0 ms, 0.92x; the largest "
        "change: aten::addmm decreased, -1.00 ms.",
    )


def test_where_nothing_is_significant_that_is_said() -> None:
    assert words(trace(), trace())[0].endswith("1.00x; no operator has changed significantly.")


def test_one_step_proves_nothing() -> None:
    assert words(trace(ms=2.0, steps=1), trace(ms=1.0, steps=1))[0].endswith(
        "the largest change: aten::addmm, -1.00 ms, which one step cannot prove."
    )


def test_steps_of_another_number_of_passes_are_named() -> None:
    for sides in ((trace(passes=3), trace()), (trace(), trace(passes=3))):
        many = "a.json" if sides[0].operators[0].calls == 3 else "b.json"
        assert words(*sides)[1].startswith(f"A step of {many} calls all 3.00 times as often as one")


def test_traces_of_two_models_are_told_apart_by_their_calls() -> None:
    assert words(trace(blocks=12), trace(blocks=24))[1] == (
        "Their models differ, by what they call in a step: aten::conv2d 1 against 1 and "
        "aten::layer_norm 25 against 49."
    )


def test_beside_a_profile_a_trace_has_no_name_of_its_model() -> None:
    profile = baseline(operators=(operator((0, "mlp"), "gelu", 1.0),), traced_ms=(20.0,) * 5)

    assert words(profile, trace())[-1] == (
        "b.json names neither its model nor its batch: see that they are toy and 8, as of a.json."
    )


def test_of_one_step_the_table_has_no_interval() -> None:
    def shown(**sides: Any) -> tuple[str, ...]:
        changes = operator_changes(trace(ms=2.0).operators, trace(ms=1.0, **sides).operators)
        return next(row for row in change_table(changes).rows if row[0] == "aten::addmm")

    assert shown(steps=1)[2] == "not testable: one step"
    assert shown(steps=1)[-1] == "-1.00 ms"
    assert shown()[2] == "decreased"
    assert "[" in shown()[-1]
