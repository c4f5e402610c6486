"""A label in front of every text of a set is no part of its prompts."""

from __future__ import annotations

import pytest

from repro.jobs.overlap.labels import without_labels
from repro.jobs.overlap.matching import Member
from repro.jobs.overlap.sets import PromptSet, completed


def of(*texts: str, name: str = "a", cut: bool = False) -> PromptSet:
    members = tuple(Member(text, cut) for text in texts)
    return PromptSet(name, name, "list", frozenset(one.shown for one in members), None, len(texts), (), members)


@pytest.mark.parametrize("label", ["Question: ", "Q: ", "User: ", "<|user|> ", "[INST] ", "<bos> Human: Question: "])
def test_a_label_that_every_text_of_one_set_has_is_left_out(label: str) -> None:
    plain = of("is it so?", "why so?", name="plain")
    (first, second), _ = without_labels([plain, of(f"{label}why so?", f"{label}who said so?", name="log")], None)
    assert first == plain
    assert second.failed == {"why so?", "who said so?"}
    assert label.split()[0].strip() in second.notes[0]


def test_truncated_texts_are_matched_behind_their_label() -> None:
    log = of("Question: is it", "Question: why", name="log", cut=True)
    every = dict.fromkeys(("is it so?", "why so?", "who?"), ())
    sets, matched = completed(without_labels([of("is it so?", "why so?", name="plain"), log], every)[0], every)
    assert sets[1].failed == {"is it so?", "why so?"}
    assert not matched.unclear


def test_a_label_that_tells_texts_of_another_set_apart_stays() -> None:
    sets = [of("Translate: cat", "Translate: dog"), of("Translate: cat", "cat", name="b")]
    assert without_labels(sets, None)[0] == tuple(sets)


def test_a_label_of_all_sets_stays() -> None:
    sets = [of("Question: why?"), of("Question: who?", name="b")]
    assert without_labels(sets, None)[0] == tuple(sets)


def test_texts_that_begin_with_different_words_and_colons_stay() -> None:
    sets = [of("Paris: a city?", "Rome: a city?"), of("why?", name="b")]
    assert without_labels(sets, None)[0] == tuple(sets)


def test_the_population_loses_its_label_as_well() -> None:
    sets, every = without_labels(
        [of("why?"), of("who?", name="b")], {"Q: why?": (0,), "Q: who?": (1,), "Q: what?": (2,)}
    )
    assert every == {"why?": (0,), "who?": (1,), "what?": (2,)}
    assert sets[0].failed == {"why?"}
