"""The table of mechanisms: whole, and what it says of an operator."""

import math

import pytest

from repro.core.mechanisms import BY_NAME, CODE, NEVER, TABLE, mechanism


def test_each_mechanism_is_there_once():
    assert len(BY_NAME) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_row_that_excuses_the_operator_says_why_and_whose_fault_it_is(row):
    assert (row.correct != NEVER) is bool(row.cause) is (CODE in row.owners)


@pytest.mark.parametrize(
    ("name", "reference", "correct"),
    [
        ("overflow", 70000.0, True),
        ("overflow", -70000.0, True),
        ("overflow", 1.0, False),
        ("overflow", None, False),
        ("divide_by_zero", math.inf, True),
        ("invalid", math.nan, True),
        ("invalid", 1.0, False),
        ("masked_row", None, True),
        ("kernel", 70000.0, False),
        ("unknown", None, False),
    ],
)
def test_an_operator_is_correct_where_float64_has_no_number_that_the_dtype_holds(name, reference, correct):
    assert mechanism(name).operator_is_correct(reference, 65504.0) is correct


def test_without_a_limit_only_what_is_not_finite_excuses():
    assert not mechanism("overflow").operator_is_correct(1e300, None)
    assert mechanism("divide_by_zero").operator_is_correct(math.inf, None)


def test_a_name_that_this_version_does_not_know_is_its_own_words():
    assert (mechanism("newer").words, mechanism("newer").owners) == ("newer", ())
    assert mechanism(None) is BY_NAME["unknown"]
