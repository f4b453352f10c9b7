"""The picture of a front shows what is near the answer, and says what it leaves out."""

from pathlib import Path

from tests.report.fixtures import BASELINE, FOUND, MILD, front, run_document, run_folder, trials
from tokensearch.policy import Policy
from tokensearch.report.html.chart import HEIGHT, WIDTH, Mark, name_box, place_names
from tokensearch.report.html.front import front_chart, shown_dots
from tokensearch.report.run.front_dots import FrontDot, lowest_share, picture_notes
from tokensearch.report.run.page import write_report
from tokensearch.stats.interval import Interval

GOOD = (78.5, 81.4, 84.0, 84.8, 85.2, 85.4, 85.5)


def dot(percent: float, policy: Policy = FOUND) -> FrontDot:
    """A member of a front with an accuracy."""
    return FrontDot(
        "front", policy, "found", Interval(20, 19, 21), Interval(percent, percent - 4, percent + 3)
    )


def test_the_axis_begins_a_little_under_the_lowest_policy_that_is_worth_showing() -> None:
    shown = lowest_share([dot(percent) for percent in GOOD])

    assert 70 < shown < 78.5 - 4
    assert lowest_share([dot(percent) for percent in (40.6, *GOOD)]) > 70


def test_policies_that_are_spread_out_are_all_shown() -> None:
    assert lowest_share([dot(percent) for percent in (40, 55, 60, 75, 85)]) < 36
    assert lowest_share([dot(3), dot(60)]) == 0  # never below nothing
    assert 30 < lowest_share([dot(40)]) < 36


def test_a_policy_far_below_stands_at_the_edge_with_its_accuracy_and_bends_no_line() -> None:
    run = run_document()
    dots = [dot(percent, MILD) for percent in GOOD] + [dot(40.6, BASELINE)]

    chart = front_chart(run, dots, (), ())

    (sunk,) = (mark for mark in chart.marks if mark.sunk)
    assert sunk.name == "found, 40.6 %"
    assert sunk.y == chart.y.start
    assert chart.line.count("L") == len(GOOD) - 1


def test_names_of_neighbours_do_not_lie_on_each_other_nor_beyond_the_edge() -> None:
    """As `ppt-r50-pool`, `last-cls` and `baseline` did on one line."""
    near = [
        Mark("preset", x, 120.0, "", name)
        for x, name in ((520, "ppt-r50-pool"), (640, "last"), (690, "all"))
    ]

    boxes = [name_box(mark) for mark in place_names(near)]

    assert [a.overlap(b) for a in boxes for b in boxes if a is not b] == [0.0] * 6
    assert all(box.left > 0 and box.right < WIDTH and box.bottom < HEIGHT for box in boxes)


def test_reports_say_what_the_picture_may_be_misread_for(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, profiles=False)
    page = write_report(folder).read_text(encoding="utf-8")

    for said in (page, folder.report.read_text(encoding="utf-8")):
        assert "The axis of the accuracy does not begin at 0" in said
        assert "A trial above and left of the answer was not passed over" in said


def test_a_picture_from_0_without_trials_needs_no_words() -> None:
    run = run_document()

    assert picture_notes(run, [dot(2), dot(60)], trials=False) == ()
    assert len(picture_notes(run, shown_dots(run, front()), trials=bool(trials()))) == 2
