"""Chances against oracles that count every possibility, and against scipy, which shares no code with them."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact, hypergeom

from repro.jobs.chances import at_least, holm, least_possible, shown


def counted(population, sizes, both):
    """The chance by going through every way of drawing the sets."""
    draws = list(itertools.product(*(itertools.combinations(range(population), size) for size in sizes)))
    hits = sum(1 for draw in draws if len(set.intersection(*map(set, draw))) >= both)
    return Fraction(hits, len(draws))


@pytest.mark.parametrize("population", range(1, 7))
def test_two_sets_agree_with_every_way_of_drawing_them(population):
    for sizes in itertools.product(range(population + 1), repeat=2):
        for both in range(min(sizes) + 1):
            assert at_least(population, sizes, both) == counted(population, sizes, both)


@pytest.mark.parametrize("population", range(1, 5))
def test_three_sets_agree_with_every_way_of_drawing_them(population):
    for sizes in itertools.product(range(population + 1), repeat=3):
        for both in range(min(sizes) + 1):
            assert at_least(population, sizes, both) == counted(population, sizes, both)


def test_all_19_within_38_of_100():
    chance = at_least(100, (38, 19), 19)
    assert float(chance) == pytest.approx(hypergeom.sf(18, 100, 38, 19), rel=1e-12)
    assert shown(chance) == "2.67e-10"


@given(st.integers(1, 300), st.data())
def test_two_sets_agree_with_scipy(population, data):
    sizes = [data.draw(st.integers(0, population)) for _ in range(2)]
    both = data.draw(st.integers(0, min(sizes)))
    # scipy works with logarithms of gamma functions: some digits are lost far out in the tail.
    expected = hypergeom.sf(both - 1, population, *sizes)
    assert float(at_least(population, sizes, both)) == pytest.approx(expected, rel=1e-7, abs=1e-300)


def test_a_chance_that_no_float_can_hold_is_a_bound():
    assert shown(at_least(10_000, (3_000, 3_000), 3_000)) == "less than 1e-300"


@given(st.integers(2, 25), st.data())
def test_the_least_possible_p_is_the_least_of_all_tables_with_these_sums(population, data):
    failing, marked = (data.draw(st.integers(1, population - 1)) for _ in range(2))
    tables = [
        ((hits, failing - hits), (marked - hits, population - failing - marked + hits))
        for hits in range(max(0, failing + marked - population), min(failing, marked) + 1)
    ]
    expected = min(fisher_exact(table).pvalue for table in tables)
    assert float(least_possible(population, failing, marked)) == pytest.approx(expected, rel=1e-9)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_step_by_step_from_the_least(values):
    """Corrected at most the level, exactly where the procedure as Holm wrote it rejects at that level."""
    level, rejected = 0.05, set()
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if (len(values) - rank) * values[place] > level:
            break
        rejected.add(place)
    assert {place for place, value in enumerate(holm(values)) if value <= level} == rejected
