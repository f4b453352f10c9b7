from pathlib import Path

from tokensearch.retime.searched_cell import MovedCell, SearchedCell, read_searched_cell

FRONT = Path("runs/a run/front.json")


def test_where_savings_are_kept_the_slowest_is_the_target_of_the_run() -> None:
    found = read_searched_cell([MovedCell(0.3, 0.3), MovedCell(0.58, 0.58)], share=0.6)

    assert found == SearchedCell(fastest=0.3, slowest=0.6)


def test_where_less_is_saved_in_another_cell_the_slowest_is_slower() -> None:
    found = read_searched_cell([MovedCell(0.25, 0.5), MovedCell(0.49, 0.7)], share=0.49)

    assert 0.69 < found.slowest < 0.71


def test_a_target_that_all_may_meet_stays_one() -> None:
    assert read_searched_cell([MovedCell(0.25, 0.5)], share=2.0).slowest > 1


def test_policies_that_saved_nothing_say_nothing_of_another_cell() -> None:
    assert read_searched_cell([MovedCell(1.2, 0.5)], share=0.6) == SearchedCell(
        fastest=0.5, slowest=0.6
    )
    assert read_searched_cell([], share=0.6) == SearchedCell(fastest=1.0, slowest=0.6)


def test_what_is_within_the_error_is_not_doubted() -> None:
    found = SearchedCell(fastest=0.3, slowest=0.6)

    assert found.doubt(0.62, off=0.05, front=FRONT) is None
    assert found.doubt(0.29, off=0.05, front=FRONT) is None
    assert found.doubt(1.0, off=0.05, front=FRONT) is None


def test_a_doubt_names_a_command_that_can_be_copied() -> None:
    said = SearchedCell(fastest=0.3, slowest=0.6).doubt(0.8, off=0.05, front=FRONT)

    assert said is not None
    assert said.endswith(": search with `tokensearch run --from 'runs/a run/front.json'`")


def test_a_target_that_nothing_of_the_run_meets_is_in_want_of_faster_schedules() -> None:
    said = SearchedCell(fastest=0.7, slowest=0.5).doubt(0.6, off=0.02, front=FRONT)

    assert said is not None
    assert said.startswith("the run holds nothing faster than about 0.70x, and 0.60x is asked now")
