"""Questions that are announced before they are asked, answers of dead processes, and delta debugging on small cases."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.reducing import trials

from repro.probes.reduce import trials as module
from repro.probes.reduce.trials import ddmin


def test_a_trial_is_announced_before_it_starts_and_answered_behind() -> None:
    asked, events = trials()
    seen: list[object] = []
    assert asked.ask("a try", lambda: bool(seen.extend(events)) or True)
    assert seen == [("1: a try", None)]
    assert events == [("1: a try", None), ("1: a try", True)]


def test_a_question_that_raises_is_answered_by_no() -> None:
    asked, events = trials()
    assert asked.ask("a try", lambda: 1 // 0 == 1) is False
    assert events[-1] == ("1: a try", False)


def test_an_interrupt_is_no_answer() -> None:
    def interrupted() -> bool:
        raise KeyboardInterrupt

    asked, events = trials()
    with pytest.raises(KeyboardInterrupt):
        asked.ask("a try", interrupted)
    assert events == [("1: a try", None)]


def test_known_answers_are_taken_in_order_without_asking() -> None:
    asked, events = trials({"1: a": True, "2: b": False})
    assert [asked.ask(what, lambda: 1 // 0 == 1) for what in ("a", "b")] == [True, False]
    assert (events, asked.asked, asked.crashed) == ([], 2, 0)


def test_a_trial_that_killed_its_process_is_skipped_and_counted() -> None:
    asked, events = trials({"1: a": True, "2: b": None})
    assert [asked.ask(what, lambda: True) for what in ("a", "b", "c")] == [True, False, True]
    assert (asked.asked, asked.crashed) == (3, 1)
    assert [name for name, _ in events] == ["3: c", "3: c"]


def test_behind_the_time_every_new_answer_is_no_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", -1.0)
    asked, events = trials({"1: a": True})
    asked.begin("fewer tokens")
    assert [asked.ask(what, lambda: True) for what in ("a", "b", "c")] == [True, False, False]
    assert (events, asked.asked) == ([], 1)
    (note,) = asked.notes
    assert "fewer tokens" in note


def test_answers_that_nobody_asks_for_do_not_hold_the_time_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", -1.0)
    asked, _ = trials({"1: another question": True})
    asked.begin("fewer tokens")
    assert not asked.ask("a", lambda: True)


def test_each_stage_has_time_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", -1.0)
    asked, _ = trials()
    asked.begin("one")
    assert asked.over
    monkeypatch.setattr(module, "SECONDS", 60.0)
    asked.begin("two")
    assert asked.ask("a", lambda: True)


def test_what_is_made_is_announced_and_made_again_in_every_process() -> None:
    asked, events = trials({"made 1: a model": True})
    assert asked.attempt("a model", lambda: 7) == 7
    assert events == [("made 1: a model", None), ("made 1: a model", True)]
    assert asked.asked == 0


def test_what_killed_its_process_when_it_was_made_is_not_made_again() -> None:
    asked, events = trials({"made 1: a model": None})
    assert asked.attempt("a model", lambda: 7) is None
    assert (events, asked.crashed) == ([], 1)
    assert asked.notes == ["a model: this killed the process"]


def test_what_raises_when_it_is_made_leaves_a_note() -> None:
    asked, _ = trials()
    assert asked.attempt("a model", lambda: 1 // 0) is None
    assert asked.attempt("another", lambda: 1 // 0, may_raise=True) is None
    assert asked.notes == ["a model: ZeroDivisionError: integer division or modulo by zero"]


def check_minimal(items: list[int], holds: object) -> None:
    """The result holds, is a part in order, and no single item can go."""
    assert callable(holds)
    asked: list[list[int]] = []

    def counted(part: list[int]) -> bool:
        asked.append(part)
        return bool(holds(part))

    found = ddmin(items, counted)
    assert holds(found)
    assert found == [item for item in items if item in set(found)]
    assert found in asked or found == items
    assert len(found) == 1 or not any(holds([*found[:at], *found[at + 1 :]]) for at in range(len(found)))


@pytest.mark.parametrize("size", range(1, 8))
def test_every_set_that_is_needed_together_is_found(size: int) -> None:
    """All sets of needed items of all small sizes: then the answer is that very set."""
    items = list(range(size))
    for count in range(1, size + 1):
        for needed in itertools.combinations(items, count):
            assert ddmin(items, lambda part, needed=needed: set(needed) <= set(part)) == list(needed)  # type: ignore[misc]


@given(st.integers(1, 6), st.data())
def test_no_single_item_of_the_answer_can_go_whatever_holds(size: int, data: st.DataObject) -> None:
    """Any test at all, monotone or not, of which only the whole is known to hold."""
    items = list(range(size))
    parts = [part for count in range(1, size) for part in itertools.combinations(items, count)]
    good = data.draw(st.sets(st.sampled_from(parts) if parts else st.nothing())) | {tuple(items)}
    check_minimal(items, lambda part: tuple(part) in good)


def test_an_empty_part_is_never_asked() -> None:
    assert all(part for part in _asked_of(6))


def _asked_of(size: int) -> list[list[int]]:
    asked: list[list[int]] = []
    ddmin(list(range(size)), lambda part: bool(asked.append(part)))
    return asked
