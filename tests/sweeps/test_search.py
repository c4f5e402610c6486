"""The search against oracles that enumerate: every small range, every boundary, every set of skips."""

import itertools
import math

import pytest

from repro.core.records import Outcome
from repro.sweeps.releases.search import Reply, bisect, cover, most_tests, scan

GOOD, BAD, SKIP = Outcome.GOOD, Outcome.BAD, Outcome.SKIP
LARGEST = 9
LETTERS = {"g": GOOD, "b": BAD, "s": SKIP}


def ranges(largest=LARGEST):
    """Every range up to nine items that changes once, both directions, with every set of skips."""
    for count in range(2, largest + 1):
        for first, boundary in itertools.product((GOOD, BAD), range(1, count)):
            second = BAD if first is GOOD else GOOD
            for skips in itertools.product((False, True), repeat=count):
                truth = [first] * boundary + [second] * (count - boundary)
                yield [SKIP if skip else value for skip, value in zip(skips, truth, strict=True)]


def asked(values, search=bisect, **options):
    """What the search says of these answers, and the indexes that it tested, in order."""
    calls = []

    def test(index):
        calls.append(index)
        return values[index]

    return search(len(values), test, **options), calls


def letters(text):
    return [LETTERS[letter] for letter in text]


def oracle(values):
    """The narrowest interval that any search could give, by looking at everything; None where an end is skip."""
    if SKIP in (values[0], values[-1]):
        return None
    text = "".join(value.value[0] for value in values)
    pairs = [
        (low, high)
        for low in range(len(text))
        for high in range(low + 1, len(text))
        if text[low] + text[high] in ("gb", "bg") and set(text[low + 1 : high]) <= {"s"}
    ]
    assert len(pairs) == 1
    low, high = pairs[0]
    good, bad = (low, high) if text[low] == "g" else (high, low)
    return good, bad, tuple(range(low + 1, high))


def test_every_small_range_with_every_boundary_and_every_set_of_skips():
    cases = 0
    for values in ranges():
        found, calls = asked(values)
        expected = oracle(values)
        cases += 1
        assert len(calls) == len(set(calls))
        assert found.tested == tuple(Reply(index, values[index]) for index in calls)
        assert calls[:2] == [0, len(values) - 1]
        if expected is None:
            assert (found.last_good, found.first_bad, found.skipped, len(calls)) == (None, None, (), 2)
        else:
            assert (found.last_good, found.first_bad, found.skipped) == expected
            assert set(found.skipped) <= set(calls)
    assert cases == sum(2 * (count - 1) * 2**count for count in range(2, LARGEST + 1))


def test_the_oracle_can_fail():
    with pytest.raises(AssertionError):
        oracle(letters("gbg"))


@pytest.mark.parametrize("first", [GOOD, BAD])
def test_without_skips_the_bound_on_the_tests_holds(first):
    second = BAD if first is GOOD else GOOD
    for count in range(2, 200):
        most = 0
        for boundary in range(1, count):
            _, calls = asked([first] * boundary + [second] * (count - boundary))
            most = max(most, len(calls))
        assert most == most_tests(count) <= math.ceil(math.log2(count)) + 2


@pytest.mark.parametrize("text", ["gggg", "bbbb", "ggbg", "bggb", "sgbb", "ggbs", "sgbs", "gs", "sg", "ss", "gg"])
def test_ends_that_agree_or_cannot_tell_give_no_boundary_and_end_the_search(text):
    found, calls = asked(letters(text))
    assert (found.last_good, found.first_bad, found.skipped) == (None, None, ())
    assert [tested.outcome for tested in found.ends] == letters(text[0] + text[-1])
    assert calls == [0, len(text) - 1]


@pytest.mark.parametrize("letter", "gbs")
def test_a_range_of_one_item_is_tested_once(letter):
    found, calls = asked(letters(letter))
    assert (found.last_good, found.first_bad, calls) == (None, None, [0])
    assert found.ends == (Reply(0, LETTERS[letter]),) * 2


def test_what_changes_more_than_once_still_gives_a_true_change():
    for count in range(2, 8):
        for values in itertools.product((GOOD, BAD, SKIP), repeat=count):
            found, _ = asked(values)
            if found.last_good is not None:
                low, high = sorted((found.last_good, found.first_bad))
                assert (values[found.last_good], values[found.first_bad]) == (GOOD, BAD)
                assert set(values[low + 1 : high]) <= {SKIP}


def test_a_single_skip_in_the_middle_costs_one_test():
    values = letters("g" * 20 + "b" * 45)
    _, plain = asked(values)
    values[32] = SKIP
    _, skipped = asked(values)
    assert len(skipped) <= len(plain) + 1


def test_a_long_row_of_skips_is_left_soon():
    found, calls = asked(letters("g" * 10 + "b" * 30 + "s" * 50 + "b" * 10))
    assert (found.last_good, found.first_bad) == (9, 10)
    assert len(calls) < 25


def test_the_tests_left_are_told_and_never_too_few():
    for values in ranges(7):
        if SKIP not in values:
            told = []
            _, calls = asked(values, ahead=told.append)
            assert len(told) == len(calls)
            assert all(left >= len(calls) - done for done, left in enumerate(told))
            assert told == sorted(told, reverse=True)


def test_a_scan_finds_every_boundary_of_every_small_range():
    for count in range(1, 8):
        for values in itertools.product((GOOD, BAD, SKIP), repeat=count):
            found, calls = asked(values, scan)
            assert calls == list(range(count))
            got = [(bracket.last_good, bracket.first_bad, bracket.skipped) for bracket in found.boundaries]
            assert got == changes(values)


def changes(values):
    """Every boundary, by walking along and remembering the last answer that was one."""
    last, skipped, found = None, [], []
    for index, value in enumerate(values):
        if value is SKIP:
            skipped.append(index)
            continue
        if last is not None and values[last] is not value:
            good, bad = (last, index) if value is BAD else (index, last)
            found.append((good, bad, tuple(skipped)))
        last, skipped = index, []
    return found


def test_a_window_has_two_boundaries():
    found, _ = asked(letters("ggsbbsg"), scan)
    assert [(b.last_good, b.first_bad, b.skipped) for b in found.boundaries] == [(1, 3, (2,)), (6, 4, (5,))]
    assert [tested.index for tested in found.boundaries[0].tested] == [1, 2, 3]
    assert [tested.outcome for tested in found.tested] == letters("ggsbbsg")


def test_a_cover_has_the_fewest_changes_of_all():
    sets = [tuple(c for c in range(3) if bits >> c & 1) for bits in range(8)]
    for count in range(5):
        for choices in itertools.product(sets, repeat=count):
            chosen = cover(choices)
            assert [choice is None for choice in chosen] == [not own for own in choices]
            real = [own for own in choices if own]
            picked = [choice for choice in chosen if choice is not None]
            assert all(choice in own for choice, own in zip(picked, real, strict=True))
            assert changed(picked) == min(changed(way) for way in itertools.product(*real))


def changed(way):
    return sum(one != other for one, other in itertools.pairwise(way))


def test_a_cover_takes_the_largest_choice_that_serves_the_whole_stretch():
    assert cover([(0, 1, 2), (0, 1), (), (2, 3), (2, 3, 4)]) == (1, 1, None, 3, 3)
