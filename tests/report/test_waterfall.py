from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from tests.report.ledgers import baseline, candidate, of_itself, of_known_terms
from tokensearch.diff.ledger import Ledger, make_ledger
from tokensearch.errors import RunError
from tokensearch.report.diff import waterfall as waterfall_picture
from tokensearch.report.diff.blocks import block_table, paybacks
from tokensearch.report.diff.waterfall import (
    ROOM,
    WHISKERS,
    bars,
    draw_waterfall,
    legend,
    term_table,
    waterfall,
)

COLUMNS = 100


def drawn(found: Ledger) -> list[str]:
    """What a pipe of 100 columns gets."""
    console = Console(file=StringIO(), width=COLUMNS)
    console.print(waterfall(found))
    assert isinstance(console.file, StringIO)
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_terms_come_largest_first_between_both_passes_and_the_residual_last() -> None:
    assert [bar.label for bar in bars(of_known_terms())] == [
        "baseline",
        "saved in MLP",
        "saved in attention",
        "saved in qkv",
        "spent on selecting",
        "spent on merging",
        "shifted in attention",
        "spent on size bias",
        "inside the noise (5 terms)",
        "residual",
        "halved",
    ]


def test_the_other_way_round_terms_have_other_names() -> None:
    labels = [bar.label for bar in bars(make_ledger(candidate(), baseline()))]

    assert labels[1:5] == [
        "added in MLP",
        "added in attention",
        "added in qkv",
        "no longer spent on selecting",
    ]


def test_each_bar_starts_where_the_last_one_ended() -> None:
    lines = bars(of_known_terms())

    ends = [round(bar.end_ms, 3) for bar in lines[:-1]]

    assert ends == [26.0, 21.2, 19.2, 18.2, 19.0, 19.6, 20.1, 20.3, 20.3, 20.4]
    assert lines[-1].end_ms == pytest.approx(lines[-2].end_ms)


def test_figures_have_intervals_shares_of_the_baseline_and_marks_of_noise() -> None:
    rows = term_table(of_known_terms()).rows

    assert rows[0] == ("baseline", "26.0 ms", "100.0 %")
    assert rows[1][0] == "saved in MLP"
    assert rows[1][1].startswith("-4.80 ms [-4.81, ")
    assert rows[1][2] == "-18.5 %"
    assert [row[0] for row in rows if row[1].startswith("~")] == [
        "inside the noise (5 terms)",
        "residual",
    ]
    assert rows[-1] == ("halved", "20.4 ms", "78.5 %")


def test_a_residual_outside_the_noise_is_not_marked() -> None:
    residual = term_table(of_known_terms(plain_ms=23.0)).rows[-2]

    assert residual[0] == "residual"
    assert residual[1].startswith("+2.70 ms")


def test_blocks_show_tokens_terms_and_which_cut_does_not_pay() -> None:
    # Block 3 cuts 10 of the 60 tokens that its MLP lacks: of the 1.8 ms saved there 0.3 are its.
    assert block_table(of_known_terms()).rows == [
        ("0", "100", "-", "-", "~+0.00", "~+0.00", ""),
        ("1", "100 → 50", "+1.50", "+1.00", "~+0.00", "-0.50", ""),
        ("2", "100 → 50", "+3.00", "+0.10", "+0.25", "-2.65", ""),
        ("3", "100 → 40", "+3.30", "+0.50", "+0.25", "-2.55", "its cut does not pay"),
        ("outside", "", "~+0.00", "-", "~+0.00", "~+0.00", ""),
    ]


def test_what_later_blocks_save_is_dealt_to_the_blocks_that_cut() -> None:
    first, last = paybacks(of_known_terms())

    assert (first.block, last.block) == (1, 3)
    assert last.spent.value == pytest.approx(0.4)
    assert last.saved.value == pytest.approx(0.3, rel=1e-4)
    assert first.spent.value == pytest.approx(1.0 + 0.2)  # and all of the bias, which is older
    assert first.saved.value + last.saved.value == pytest.approx(7.8, rel=1e-4)


def test_two_schedules_have_no_paybacks() -> None:
    assert paybacks(make_ledger(candidate(), candidate(name="again"))) == ()


def test_it_fits_100_columns_and_a_pipe_without_colour() -> None:
    lines = drawn(of_known_terms())

    assert max(map(len, lines)) <= COLUMNS
    assert not any("\x1b" in line for line in lines)
    assert "baseline                     ████████████████████████                   26.0 ms" in (
        "\n".join(lines)
    )


def test_names_of_any_length_fit() -> None:
    long = make_ledger(
        baseline(name="policies/" + 40 * "b"), candidate(name="policies/" + 40 * "c")
    )

    assert max(map(len, drawn(long))) <= COLUMNS


def test_a_ledger_of_a_model_and_itself_is_one_sentence() -> None:
    said = " ".join(drawn(of_itself()))

    assert said.startswith("Nothing differs beyond the noise: again takes 26.0 ms a pass")
    assert "saved" not in said


@pytest.mark.parametrize("name", ["waterfall.png", "waterfall.svg"])
def test_the_picture_has_the_same_bytes_every_time(tmp_path: Path, name: str) -> None:
    found, paths = of_known_terms(), [tmp_path / part / name for part in ("one", "other")]
    for path in paths:
        path.parent.mkdir()
        draw_waterfall(found, path)

    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert [path.name for path in paths[0].parent.iterdir()] == [name]


def test_a_noisy_residual_does_not_squash_the_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(waterfall_picture, "save_figure", lambda figure, _: figures.append(figure))

    noisy = of_known_terms(noise_ms=19.0)
    draw_waterfall(noisy, Path("waterfall.png"))

    (axes,) = figures[0].axes
    assert axes.get_xlim() == (0, ROOM * WHISKERS * 26.0)
    row = len(bars(noisy)) - 2
    residual = [line.get_marker() for line in axes.lines if line.get_ydata()[0] == row]
    assert residual == ["None", "<", ">"]


def test_whiskers_within_the_picture_are_drawn_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(waterfall_picture, "save_figure", lambda figure, _: figures.append(figure))

    draw_waterfall(of_known_terms(), Path("waterfall.png"))

    (axes,) = figures[0].axes
    assert {line.get_marker() for line in axes.lines} == {"None", "|"}


def test_a_disk_that_fails_while_drawing_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("encoder error -2")

    monkeypatch.setattr(Figure, "savefig", fail)
    path = tmp_path / "waterfall.png"

    with pytest.raises(RunError) as caught:
        draw_waterfall(of_known_terms(), path)

    assert str(caught.value) == f"{path} cannot be written: encoder error -2"


def test_a_folder_that_is_a_file_is_one_sentence_too(tmp_path: Path) -> None:
    (tmp_path / "out").touch()

    with pytest.raises(RunError, match=r"waterfall\.png cannot be written: Not a directory"):
        draw_waterfall(of_known_terms(), tmp_path / "out" / "waterfall.png")


def test_the_legend_says_what_kind_of_mean_and_how_a_net_comes_about() -> None:
    in_turn, apart = (
        legend(make_ledger(baseline(), candidate(session=session))) for session in ("one", "two")
    )

    assert "means of the middle half of the passes, at one speed of the machine;" in in_turn
    assert "at one speed" not in apart
    assert "net = spent + shifted - saved" in in_turn


def test_a_picture_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        draw_waterfall(of_known_terms(), tmp_path / "waterfall.gif")

    assert str(caught.value) == "a picture ends in .png or .svg, not in '.gif'"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "waterfall.png"

    with pytest.raises(RunError) as caught:
        draw_waterfall(of_known_terms(), path)

    assert str(caught.value) == f"{path} cannot be written: No such file or directory"


def test_a_profile_whose_passes_are_one_piece_still_has_a_waterfall() -> None:
    whole = replace(baseline(), stamped=tuple(baseline().stamped[:1]))

    assert [bar.label for bar in bars(make_ledger(whole, whole))] == [
        "baseline",
        "residual",
        "baseline",
    ]
