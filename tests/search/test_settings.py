"""How far a search is."""

from tokensearch.records.run_settings import SearchBudget


def test_a_search_of_some_minutes_is_as_far_as_its_clock() -> None:
    limits = SearchBudget(None, 240.0)

    assert limits.unit == "s"
    assert limits.progress(trials=7, seconds=61.2) == (61, 240)
    assert limits.progress(trials=90, seconds=243.0) == (240, 240)


def test_a_search_counts_its_own_seconds_and_not_those_of_the_stages_before_it() -> None:
    limits = SearchBudget(None, 148.5)

    assert limits.progress(trials=7, seconds=62.0, before=59.4) == (3, 89)
    assert limits.progress(trials=90, seconds=150.0, before=59.4) == (89, 89)


def test_a_search_of_some_trials_is_as_far_as_they_are() -> None:
    limits = SearchBudget(60, 240.0)

    assert limits.unit == "trials"
    assert limits.progress(trials=7, seconds=61.2) == (7, 60)
    assert limits.progress(trials=61, seconds=243.0) == (61, 61)


def test_the_shortest_search_has_an_end() -> None:
    assert SearchBudget(None, 0.01).progress(trials=1, seconds=5.0) == (1, 1)
