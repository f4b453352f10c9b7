from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from tests.policy.learned import random_tensors
from tests.report.fixtures import (
    FOUND,
    SPEC,
    evaluated_policy,
    front,
    run_document,
)
from tokensearch.policy import Policy, PolicySet, Pool, Prune, Step, preset
from tokensearch.records.measurements import Caution
from tokensearch.records.policy_evaluation import CountSpread
from tokensearch.records.run_folder import RunFolder
from tokensearch.report.html.strips import make_strip
from tokensearch.report.phases import groups
from tokensearch.report.presets import preset_table
from tokensearch.report.run import tables
from tokensearch.report.run.console import evaluation, summary
from tokensearch.report.run.result import name_finalist
from tokensearch.report.table import ReportTable, table_to_markdown, table_to_rich


def drawn(what: RenderableType) -> str:
    console = Console(file=StringIO(), width=120)
    console.print(what)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_front_is_fastest_first_and_marks_the_answer() -> None:
    grid = tables.front_table(front(), run_document())

    assert [row[0] for row in grid.rows] == ["found 99b913f5", "found b19998e4", "baseline"]
    assert grid.marked == {0}


def test_the_un_reduced_model_has_no_change_from_itself() -> None:
    grid = tables.front_table(front(), run_document())

    assert [row[-2] for row in grid.rows][1:] == ["-0.2 [-0.8, +0.4]", "-"]


def test_the_figure_that_decided_is_shown_and_marked_where_it_is_as_good_as_the_best() -> None:
    grid = tables.front_table(front(), run_document())

    assert grid.columns[-1] == "KL (select)"
    assert [row[-1] for row in grid.rows] == ["≈ 0.00260", "0.00200", "0.00180"]


def test_a_divergence_of_rounding_is_not_written_out() -> None:
    policy = front().policies[1]
    evidence = policy.evidence[0]
    close = {**evidence.extra["select"], "kl": 1.14e-8}
    near = replace(evidence, extra={**evidence.extra, "select": close})

    grid = tables.front_table(PolicySet((policy.with_evidence(near),)), run_document())

    assert grid.rows[0][-1] == "< 0.00001"


def test_the_answer_is_marked_on_a_console_without_bold() -> None:
    lines = drawn(table_to_rich(tables.front_table(front(), run_document()))).splitlines()

    assert [line.strip()[:7] for line in lines if "→" in line] == ["→ found"]


def test_finalists_are_told_from_published_ones_and_controls() -> None:
    finalists = run_document().finished.finalists

    kinds = [tables.kind_of(one) for one in finalists]

    assert kinds == ["found", "published", "found", "control", "control"]


def test_a_schedule_says_what_each_block_does() -> None:
    rows = tables.schedule_table(FOUND).rows

    assert rows[0] == ("0", "keep", "", "196", "100.0 %", "100.0 %")
    assert rows[5][:4] == (
        "5",
        "prune to 80 then pool to 64",
        "class attention then bipartite",
        "64",
    )
    assert rows[11][:4] == ("11", "prefix tokens alone", "", "0")


def test_a_step_at_the_end_of_a_block_is_counted_in_what_it_hands_on() -> None:
    policy = Policy(SPEC, (Prune(4, 49, at="block_end"),))

    shown = [row[3] for row in tables.schedule_table(policy).rows]
    strip = make_strip(policy, "ending", answer=False)

    assert shown[3:6] == ["196", "49", "49"]
    assert [bar.tokens for bar in strip.blocks][3:6] == [196, 49, 49]
    assert tables.token_strip(policy)[3:6] == "█▂▂"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Pool(3, 98), "bipartite"),
        (Pool(3, 98, "ranked"), "ranked, class attention"),
        (Pool(3, 98, "energy", margin=0.5), "energy, margin 0.5"),
        (Pool(3, 98, metric="learned", tensors="a"), "bipartite, learned metric"),
        (Prune(3, 98, "learned", rest="mean", tensors="a"), "learned, rest averaged"),
    ],
)
def test_a_schedule_says_what_each_step_goes_by(step: Step, said: str) -> None:
    learns = step.tensors is not None
    tensors = random_tensors(SPEC.width, step) if learns else None

    assert tables.schedule_table(Policy(SPEC, (step,), tensors=tensors)).rows[3][2] == said


def test_presets_show_what_is_left_and_what_it_costs() -> None:
    grid = preset_table({name: preset(name, SPEC) for name in ("tome-r8", "evit-0.7", "none")})

    assert [row[:5] for row in grid.rows] == [
        ("tome-r8", "███▇▇▇▆▆▆▅▅▅", "188 .. 100", "0.423", "72.4 %"),
        ("evit-0.7", "███▆▆▆▅▅▅▃▃▃", "139 99 71", "0.374", "64.0 %"),
        ("none", "████████████", "", "0.584", "100.0 %"),
    ]


def test_cells_of_a_page_cannot_break_its_table() -> None:
    grid = ReportTable(
        ("name", "ms"), [("a|b", "1")], numbers=frozenset({"ms"}), marked=frozenset({0})
    )

    assert table_to_markdown(grid) == "| name | ms |\n| --- | ---: |\n| **a\\|b** | **1** |"


def test_names_in_brackets_are_no_markup() -> None:
    assert "[bold]x" in drawn(table_to_rich(ReportTable(("name",), [("[bold]x",)])))


def test_every_block_belongs_to_one_group() -> None:
    for blocks in (1, 2, 3, 12, 13):
        held = [sum(block in group.blocks for group in groups(blocks)) for block in range(blocks)]

        assert held == [1] * blocks


def test_the_summary_holds_answer_front_cautions_and_paths() -> None:
    said = drawn(summary(run_document(), front(), folder=RunFolder(Path("somewhere"))))

    assert said.startswith("Target met: 0.5x for a pass of 8 images; the answer, the fastest of 2")
    assert "It beats the best published finalist" in said
    assert "found 99b913f5  ██▅▅▅▃▃▃▂▂▂·" in said
    assert "caution: passes differ widely: stop other work on the machine" in said
    assert "report  somewhere/report.md" in said


def test_an_evaluation_names_what_was_measured() -> None:
    said = drawn(evaluation(evaluated_policy(cautions=(Caution.DRIFT,))))

    assert "agreement with the baseline" in said
    assert "accuracy" not in said
    assert "97.3 % [96.5, 98.0] on 1,000 images of photographs" in said
    assert "19.2 ms, 417 images/s" in said
    assert f"caution: {Caution.DRIFT}" in said


def test_an_evaluation_tells_the_counts_of_images_where_they_change() -> None:
    kept = (40.0, 38.0, 60.0, 80), (40.0, 38.0, 60.0, 80), (20.0, 19.0, 30.0, 44)
    spreads = tuple(CountSpread(block, *spread) for block, spread in enumerate(kept))

    said = drawn(evaluation(evaluated_policy(spreads=spreads)))

    assert "after block 0" in said
    assert "after block 1" not in said
    assert "after block 2" in said
    assert "mean 20, p50 19, p90 30, max 44" in said


@pytest.mark.parametrize(
    ("origin", "kind", "name"),
    [
        ("sampler", "found", "found"),
        ("seed", "found", "found"),
        ("fastest", "found", "found"),
        ("random", "random", "random"),
        ("tome-r16", "published", "tome-r16"),
        ("random-tome-r16", "control", "random-tome-r16"),
    ],
)
def test_only_what_was_published_is_called_so(origin: str, kind: str, name: str) -> None:
    one = replace(run_document().finished.finalists[0], origin=origin)

    assert tables.kind_of(one) == kind
    assert name_finalist(one).split()[0] == name
