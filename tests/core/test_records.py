"""Records, their JSON form, and the evidence on disk."""

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hosting import observation

from repro.core.answer import StepRow
from repro.core.encoding import SCHEMA, decode, encode, number, plan_text, to_json
from repro.core.errors import EvidenceError, RecordError
from repro.core.payloads import Bisect
from repro.core.records import Case, Cell, Ending, Failure, Header, Observation, Plan
from repro.core.sweep_answers import SiblingModel
from repro.engine.evidence import Evidence

HEADER = Header(Case("gpt2", prompts=("a",)), Cell("/usr/bin/python3"), "0" * 64, "0.1.0", ("repro", "gpt2"), "2026")
SIBLING = {"name": "a", "model": "a", "verdict": "bad", "reason": "r"}


def test_a_record_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        HEADER.case.model = "other"


def test_an_observation_survives_json():
    whole = observation("load", "skip", payload={"a": [1, {"b": None}]}, ending="crashed", exit_status=-11)
    whole = dataclasses.replace(whole, stderr_tail=("x", "y"), failure=Failure("crash", "gone", None, "SIGSEGV"))
    assert decode(Observation, json.loads(encode(whole))) == whole


def test_a_header_survives_json():
    assert decode(Header, json.loads(encode(HEADER))) == HEADER


@given(st.floats())
def test_every_float_survives_json(value):
    back = number(json.loads(encode(value)))
    assert back == value or (math.isnan(value) and math.isnan(back))


@given(st.text())
def test_every_prompt_survives_json(prompt):
    case = Case("gpt2", prompts=(prompt,))
    assert decode(Case, json.loads(encode(case))) == case


def test_a_lone_surrogate_survives_json():
    case = Case("gpt2", prompts=("\udc80",))
    assert decode(Case, json.loads(encode(case))) == case


def test_non_finite_numbers_travel_as_words():
    assert to_json({"a": (math.nan, math.inf, -math.inf)}) == {"a": ["nan", "inf", "-inf"]}


@pytest.mark.parametrize("value", [True, None, "nano", [], "NaN"])
def test_what_is_no_number_is_none(value):
    assert number(value) is None


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (Cell, {"pyhton": "x"}, "Cell: object missing required field python"),
        (Cell, {"python": 3}, "python: expected str, got int"),
        (Cell, [], "Cell: expected object, got array"),
        (StepRow, {"step": "load", "verdict": "worse"}, "verdict: expected one of good, bad, skip, got 'worse'"),
        (StepRow, {"step": "load", "verdict": "bad", "ending": 1}, "ending: expected str, got int"),
        (Bisect, {"headroom": [{}, {"ratio": "x"}]}, "headroom[1].ratio: expected one of -inf, inf, nan, got 'x'"),
        (SiblingModel, {**SIBLING, "headroom": {"a": "x"}}, "headroom[...]: expected one of -inf, inf, nan, got 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place_and_what_was_expected(kind, data, message):
    with pytest.raises(RecordError) as caught:
        decode(kind, data)
    assert str(caught.value) == message


def test_a_key_that_is_not_known_is_left_out():
    """A newer version may have written it."""
    assert decode(Cell, {"python": "x", "arch": "y"}) == Cell("x")


def test_the_plan_has_the_keys_that_the_kit_reads():
    plan = json.loads(plan_text(Plan(("load",), HEADER.case, "/cache")))
    assert plan["schema"] == SCHEMA
    assert plan["steps"] == ["load"]
    assert set(plan["case"]) == {field.name for field in dataclasses.fields(Case)}


def filled(folder, *observations):
    evidence = Evidence(folder)
    evidence.begin(HEADER)
    for item in observations:
        evidence.append(item)
    return evidence


def test_evidence_is_read_back(tmp_path):
    filled(tmp_path, observation("load"), observation("forward", "bad"))
    again = Evidence(tmp_path)
    assert again.header == HEADER
    assert again.observations == (observation("load"), observation("forward", "bad"))


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path):
    evidence = filled(tmp_path, observation("load"))
    with evidence.path.open("ab") as file:
        file.write(b'{"schema": 2, "record": "obser')
    again = Evidence(tmp_path)
    assert [item.step for item in again.observations] == ["load"]
    again.append(observation("forward"))
    assert [item.step for item in Evidence(tmp_path).observations] == ["load", "forward"]


def test_every_prefix_of_the_file_can_be_read(tmp_path):
    text = filled(tmp_path, observation("load"), observation("forward")).path.read_bytes()
    for length in range(0, len(text), 7):
        (tmp_path / "evidence.jsonl").write_bytes(text[:length])
        assert len(Evidence(tmp_path).observations) <= 2


def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    evidence = filled(tmp_path)
    with evidence.path.open("ab") as file:
        file.write(b"nonsense\n")
    with pytest.raises(EvidenceError, match=r"evidence\.jsonl, line 2: no JSON.*The lines before it hold"):
        Evidence(tmp_path)


def test_another_schema_is_refused(tmp_path):
    (tmp_path / "evidence.jsonl").write_text('{"schema": 1, "record": "header"}\n')
    with pytest.raises(EvidenceError, match="schema 1, and this version reads schema 2"):
        Evidence(tmp_path)


def test_a_later_line_about_a_step_replaces_the_earlier(tmp_path):
    filled(tmp_path, observation("load", "skip", ending="timed_out"), observation("load"))
    assert [item.ending for item in Evidence(tmp_path).observations] == [Ending.ENDED]


@pytest.mark.parametrize(
    ("ending", "payload", "kept"),
    [
        ("ended", None, True),
        ("crashed", None, True),
        ("timed_out", None, False),
        ("not_run", None, False),
        ("ended", {"fatal": True}, False),
    ],
)
def test_which_steps_a_resumed_run_keeps(tmp_path, ending, payload, kept):
    evidence = filled(tmp_path, observation("files", "skip", ending=ending, payload=payload))
    assert bool(list(evidence.finished())) is kept


@pytest.mark.parametrize(("signal", "kept"), [("SIGSEGV", True), ("SIGABRT", True), ("SIGKILL", False)])
def test_a_step_that_somebody_else_has_ended_is_asked_again(tmp_path, signal, kept):
    failure = Failure(type="crash", message="m", signal=signal)
    evidence = filled(tmp_path, observation("files", "skip", ending="crashed", failure=failure))
    assert bool(list(evidence.finished())) is kept


@pytest.mark.parametrize("gone", ["file", "folder"])
def test_evidence_that_was_removed_meanwhile_is_not_begun_anew(tmp_path, gone):
    (tmp_path / "run").mkdir()
    evidence = filled(tmp_path / "run")
    evidence.path.unlink()
    if gone == "folder":
        evidence.path.parent.rmdir()
    with pytest.raises(EvidenceError, match=rf"the {gone} .*was removed.*while the run was writing"):
        evidence.append(observation("load"))
    assert not evidence.path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_clear_error(tmp_path):
    (tmp_path / "evidence.jsonl").symlink_to("/dev/full")
    with pytest.raises(
        EvidenceError, match=r"could not write .*evidence\.jsonl: No space left on device\. What was rec"
    ):
        Evidence(tmp_path).begin(HEADER)


def test_the_hash_is_that_of_the_file(tmp_path):
    import hashlib

    evidence = filled(tmp_path, observation("load"))
    assert evidence.sha256() == hashlib.sha256(evidence.path.read_bytes()).hexdigest()
