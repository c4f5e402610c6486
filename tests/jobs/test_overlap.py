"""Sets of prompts against each other: every count against plain set arithmetic, the sentences word by word."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from repro.core.errors import UsageError
from repro.jobs.overlap.compare import normalised, overlap

TWELVE = {f"question {number}" for number in range(38)}
TWENTY_SEVEN = {f"question {number}" for number in range(19)}
EVERY = {f"question {number}" for number in range(100)}
SETS = st.dictionaries(st.sampled_from("abcd"), st.frozensets(st.integers(0, 12).map(str)), min_size=2)


def test_the_numbers_of_the_gemma_logs():
    (pair,) = overlap({"12b": TWELVE, "27b": TWENTY_SEVEN}, 100).pairs
    assert (pair.both, len(pair.only_first), len(pair.only_second)) == (19, 19, 0)
    assert (pair.jaccard, pair.first_in_second, pair.second_in_first) == (0.5, 0.5, 1.0)
    assert (pair.expected, pair.chance) == (7.22, pytest.approx(2.67e-10, rel=1e-3))


def test_they_are_said_in_words():
    (pair,) = overlap({"12b": TWELVE, "27b": TWENTY_SEVEN}, 100).pairs
    assert pair.sentence == (
        "All 19 in 27b are among the 38 in 12b; 7.22 would be expected by chance, "
        "and this many or more has probability 2.67e-10."
    )


def test_no_chance_is_claimed_where_the_population_is_not_known():
    found = overlap({"12b": TWELVE, "27b": TWENTY_SEVEN})
    (pair,) = found.pairs
    assert (pair.chance, pair.corrected, pair.expected, found.population) == (None, None, None, None)
    assert pair.sentence == "All 19 in 27b are among the 38 in 12b."
    assert "how many prompts were run is not known" in found.notes[-1]


def test_a_population_of_texts_is_as_good_as_its_number():
    by_number, by_text = (overlap({"a": TWELVE, "b": TWENTY_SEVEN}, given) for given in (100, EVERY))
    assert by_number == by_text


def test_a_member_that_is_not_in_the_population_is_counted_but_not_in_the_chance():
    found = overlap({"a": TWELVE | {"of another file"}, "b": TWENTY_SEVEN}, EVERY)
    assert (found.sizes["a"], found.counted["a"]) == (39, 38)
    assert found.pairs[0].chance == pytest.approx(2.67e-10, rel=1e-3)
    assert found.notes == ("1 of 39 in a are not found in the population; probabilities leave them out.",)


def test_an_overlap_as_chance_has_it_is_called_so():
    (pair,) = overlap({"a": {str(n) for n in range(50)}, "b": {str(n) for n in range(25, 75)}}, 100).pairs
    assert pair.sentence.endswith(", so this may be chance.")


def test_a_set_that_is_the_whole_population_proves_nothing():
    (pair,) = overlap({"a": EVERY, "b": TWENTY_SEVEN}, 100).pairs
    assert pair.chance == 1.0
    assert pair.sentence.endswith("as they must be: one of the two is the whole population.")


def test_an_empty_set_has_no_shares():
    (pair,) = overlap({"a": set(), "b": TWENTY_SEVEN}, 100).pairs
    assert (pair.first_in_second, pair.second_in_first, pair.jaccard, pair.sentence) == (None, 0.0, 0.0, "a is empty.")


def test_two_empty_sets():
    assert overlap({"a": set(), "b": set()}, 100).pairs[0].jaccard is None


def test_chances_of_several_pairs_are_corrected_for_there_being_several():
    found = overlap({"a": TWELVE, "b": TWENTY_SEVEN, "c": {"question 1", "question 70"}}, 100)
    first, *others = found.pairs
    assert first.corrected == pytest.approx(3 * first.chance)
    assert all(pair.corrected > pair.chance for pair in others)
    assert "(8.01e-10 corrected)" in first.sentence
    assert any("Holm's method" in note for note in found.notes)


def test_three_at_once_have_a_chance_of_their_own():
    """Against the distribution put together step by step: what two share is drawn, then what the third shares."""
    third = {f"question {number}" for number in range(10, 40)}
    found = overlap({"a": TWELVE, "b": TWENTY_SEVEN, "c": third}, 100)
    expected = sum(hypergeom.pmf(n, 100, 38, 19) * hypergeom.sf(8, 100, n, 30) for n in range(20))
    assert found.in_all == 9
    assert found.in_all_chance == pytest.approx(expected, rel=1e-6)


@given(SETS)
def test_every_row_of_the_venn_table_is_what_set_arithmetic_says(sets):
    found = overlap(sets)
    assert {row.sets for row in found.regions} == {
        row for size in range(1, len(sets) + 1) for row in itertools.combinations(sets, size)
    }
    for row in found.regions:
        inside = frozenset.intersection(*(sets[name] for name in row.sets))
        others = frozenset().union(*(members for name, members in sets.items() if name not in row.sets))
        assert (row.inside, set(row.alone)) == (len(inside), inside - others)


def test_of_many_sets_only_the_rows_with_members_are_given():
    sets = {f"run {number}": {str(number), "shared"} for number in range(8)}
    rows = overlap(sets).regions
    assert {row.sets for row in rows} == {(name,) for name in sets} | {tuple(sets)}


@given(SETS, st.integers(13, 40))
def test_every_chance_is_one(sets, population):
    found = overlap(sets, population)
    assert all(0 < pair.chance <= pair.corrected <= 1 for pair in found.pairs)


def test_the_order_of_two_sets_changes_nothing_but_the_sides():
    (one,), (other,) = (overlap(sets, 100).pairs for sets in (
        {"a": TWELVE, "b": TWENTY_SEVEN}, {"b": TWENTY_SEVEN, "a": TWELVE}
    ))  # fmt: skip
    assert (one.sentence, one.chance, one.only_first) == (other.sentence, other.chance, other.only_second)


def test_texts_in_a_template_are_pointed_out():
    templated = {f"Question: What is the capital of country {number}?\nAnswer:" for number in range(3)}
    plain = {f"What is the capital of country {number}?" for number in range(3)}
    notes = overlap({"log": templated, "list": plain}).notes
    assert any("3 texts of list occur inside texts of log, probably in a prompt template" in note for note in notes)


def test_texts_that_have_nothing_in_common_are_not_called_a_template():
    notes = overlap({"a": {"What is the capital of France?"}, "b": {"Who is the richest person?"}}).notes
    assert not any("template" in note for note in notes)


def test_one_set_cannot_be_compared():
    with pytest.raises(UsageError, match="1 set given"):
        overlap({"a": TWELVE})


def test_a_population_that_is_too_small_is_refused():
    with pytest.raises(UsageError, match="is 30 prompts, fewer than the 38 distinct ones"):
        overlap({"a": TWELVE, "b": TWENTY_SEVEN}, 30)


def test_a_member_that_may_be_another_ones_prompt_does_not_make_a_population_too_small():
    sets = {"a": {"cut 1…", "cut 2…"}, "b": {"cut 1 whole", "cut 2 whole"}}
    may_be = {("a", "b"): {"cut 1…": 1, "cut 2…": 1}, ("b", "a"): {"cut 1 whole": 1, "cut 2 whole": 1}}
    assert overlap(sets, 3, may_be).population == 3
    with pytest.raises(UsageError, match="is 1 prompt, fewer than the 2 distinct ones"):
        overlap(sets, 1, may_be)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("Question: who?\nAnswer:", "Question: who?\\nAnswer:"),
        ("Question: who?\r\nAnswer:", "Question: who? Answer:"),
        ("  two  spaces\t", "two spaces"),
        ("no-break\u00a0space", "no-break space"),
    ],
)
def test_the_same_prompt_written_in_another_way(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(("one", "other"), [("Who?", "who?"), ("Who?", "Who"), ("a b", "ab"), ("½", "1/2")])
def test_what_changes_the_tokens_is_another_prompt(one, other):
    assert normalised(one) != normalised(other)


@given(st.text())
def test_what_is_normalised_stays_as_it_is(text):
    assert normalised(normalised(text)) == normalised(text)
