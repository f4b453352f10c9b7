from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokensearch.front import Point, dominates, front, hypervolume, spread

points = st.lists(st.builds(Point, st.integers(0, 5), st.integers(1, 6)), max_size=12)


@given(points)
def test_the_front_equals_the_naive_definition(some: list[Point]) -> None:
    naive = {p for p in some if not any(dominates(other, p) for other in some)}

    assert {some[place] for place in front(some)} == naive


@given(points)
def test_the_front_is_fastest_first_and_holds_no_point_twice(some: list[Point]) -> None:
    latencies = [some[place].latency for place in front(some)]

    assert latencies == sorted(set(latencies))


@given(points)
def test_the_hypervolume_counts_the_dominated_cells(some: list[Point]) -> None:
    cells = [
        (a, t)
        for a, t in product(range(5), range(1, 7))
        if any(p.accuracy > a and p.latency <= t for p in some)
    ]

    assert hypervolume(some, reference=Point(0, 7)) == len(cells)


@given(points, st.integers(1, 6))
def test_a_spread_is_part_of_the_front_with_both_ends(some: list[Point], count: int) -> None:
    members, chosen = front(some), spread(some, count)

    assert set(chosen) <= set(members)
    assert len(chosen) == min(count, len(members))
    if count > 1 and members:
        assert {chosen[0], chosen[-1]} == {members[0], members[-1]}


@pytest.mark.parametrize("count", [0, 1])
def test_an_empty_front_has_an_empty_spread(count: int) -> None:
    assert spread([], count) == ()
