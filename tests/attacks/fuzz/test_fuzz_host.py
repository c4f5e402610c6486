"""The host's readers of foreign bytes: each input is read, or refused by an error of the project's own."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hosting import observation
from support.injected_run import CASE, run_folder

from attacks.fuzz.inputs import SCALARS, VALUES, damaged_bytes, damaged_json, encoded, text_of
from attacks.fuzz.settings import variants, varied
from repro.core.answer import read as read_answer
from repro.core.errors import ReproError
from repro.core.records import Cell, Header
from repro.engine.events import read as read_event
from repro.engine.evidence import NAME, Evidence
from repro.jobs.logs import read_log
from repro.jobs.prompt_files import examples
from repro.jobs.scan.looking import READERS, look
from repro.jobs.settings.reading import read as read_settings
from repro.run.bundle import manifest
from repro.run.bundle.read import open_bundle

JSON_LINES = st.lists(VALUES, max_size=4).map(lambda rows: b"\n".join(map(text_of, rows)))
WORDS_OF_LOGS = (
    "Skipping example 3: NaN in the hidden states", "step 12: loss nan", "grad_norm=inf", "Loaded 100 prompts", "\r",
    "Traceback (most recent call last):", "Loading model org/m-1b", "2025-11-17 10:54:09,297 | ERROR |", "[rank1]:",
    "\x1b[31m", "text: ", "NaN count=7680", "9" * 400, "\ufeff", '{"loss": NaN}', "error", "inf", "\t", "|", "'" * 30,
)  # fmt: skip
LOG_LINES = st.lists(
    st.lists(st.sampled_from(WORDS_OF_LOGS) | st.text(max_size=10), max_size=5).map(" ".join), max_size=12
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as it is written."""
    folder = run_folder(tmp_path_factory.mktemp("fuzz") / "run")
    from repro.report.privacy.machine import Private
    from repro.run.bundle.write import bundle
    from repro.sharing.forms.folder import open_run

    bundle(folder, open_run(folder).answer, Private())
    evidence = Evidence(folder)
    evidence.begin(Header(CASE, Cell("/usr/bin/python3"), "0" * 64, "0.1.0", ("repro", "x"), "2026"))
    for step in ("environment", "files", "forward"):
        evidence.append(observation(step, "bad", payload={"a": [1, None]}))
    return folder


def refused_or_read(read: Any, *given: Any) -> None:
    """Anything else than the project's own error fails the test."""
    with contextlib.suppress(ReproError):
        read(*given)


@varied
@given(data=st.data())
def test_a_verdict(data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    sound = (whole / "verdict.json").read_bytes()
    path = whole.parent / "verdict.json"
    for content in variants(data.draw(damaged_json(json.loads(sound)) | damaged_bytes(sound))):
        path.write_bytes(content)
        refused_or_read(read_answer, path)


@varied
@given(data=st.data())
def test_a_manifest(data: st.DataObject, whole: Path) -> None:
    with zipfile.ZipFile(whole / "bundle.zip") as archive:
        sound = archive.read(manifest.NAME)
    for content in variants(data.draw(damaged_json(json.loads(sound)) | damaged_bytes(sound))):
        refused_or_read(manifest.read, content)


@varied
@given(data=st.data())
def test_a_bundle(data: st.DataObject, whole: Path) -> None:
    path, into = whole.parent / "x.zip", whole.parent / "into"
    for content in variants(data.draw(damaged_bytes((whole / "bundle.zip").read_bytes()))):
        path.write_bytes(content)
        refused_or_read(open_bundle, path, into)
        shutil.rmtree(into, ignore_errors=True)


@varied
@given(data=st.data())
def test_the_evidence(data: st.DataObject, whole: Path) -> None:
    sound = (whole / NAME).read_bytes()
    for content in variants(data.draw(damaged_lines(sound) | damaged_bytes(sound))):
        (whole.parent / NAME).write_bytes(content)
        refused_or_read(Evidence, whole.parent)


@st.composite
def damaged_lines(draw: st.DrawFn, whole: bytes) -> bytes:
    """Lines of JSON, one of them another document."""
    lines = whole.splitlines() or [b"{}"]
    at = draw(st.integers(0, len(lines) - 1))
    try:
        lines[at] = draw(damaged_json(json.loads(lines[at])))
    except ValueError:
        lines[at] = draw(st.binary(max_size=40))
    return b"\n".join(lines) + b"\n"


EVENTS = [
    {"event": "hello", "schema": 2, "steps": []},
    {"event": "start", "step": "load"},
    {"event": "progress", "step": "load", "done": 1, "total": 2, "unit": "x"},
    {"event": "end", "step": "load", "verdict": "bad", "reason": "r", "seconds": 1.0, "payload": {"a": 1}},
    {"event": "example", "step": "prompts", "record": {"index": 1}},
]  # fmt: skip


@varied
@given(line=st.binary(max_size=60) | st.sampled_from(EVENTS).flatmap(damaged_json) | VALUES.map(text_of))
def test_an_event_of_the_kit(line: bytes) -> None:
    for content in variants(line):
        refused_or_read(read_event, content)


@varied
@given(lines=LOG_LINES, raw=st.binary(max_size=40), packed=st.booleans(), cut=st.integers(0, 200))
def test_a_log(lines: list[str], raw: bytes, packed: bool, cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.log"
    text = encoded("\n".join(lines)) + raw
    for content in variants(gzip.compress(text, mtime=0)[: -cut or None] if packed else text):
        path.write_bytes(content)
        refused_or_read(read_log, path)


PROMPT = st.fixed_dictionaries(
    {"text": st.text(max_size=10) | VALUES}, optional={"ids": VALUES, "positive": VALUES, "index": VALUES}
)
PROMPTS = (
    st.binary(max_size=80)
    | st.lists(PROMPT, max_size=4).map(text_of)
    | st.lists(PROMPT | VALUES, max_size=4).map(lambda rows: b"\n".join(map(text_of, rows)))
    | st.lists(st.text(max_size=8), max_size=5).map(lambda rows: encoded("text\n" + "\n".join(rows)))
)


@varied
@given(
    suffix=st.sampled_from([".txt", ".jsonl", ".json", ".csv"]),
    content=PROMPTS,
    pairs=st.booleans(),
    field=st.sampled_from([None, "text", "ids", "a.b", ""]),
)
def test_prompts(
    suffix: str, content: bytes, pairs: bool, field: str | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{suffix}"
    for one in variants(content):
        path.write_bytes(one)
        refused_or_read(lambda: list(examples(path, field, pairs=pairs)))


ANSWERED = st.lists(
    st.fixed_dictionaries(
        {"index": VALUES | st.integers(0, 9)},
        optional={"record": VALUES, "verdict": VALUES, "side": VALUES, "text": VALUES, "token_ids": VALUES},
    )
    | VALUES,
    max_size=5,
).map(lambda rows: b"\n".join(map(text_of, rows)))


@varied
@given(content=st.binary(max_size=80) | ANSWERED)
def test_the_answers_of_an_earlier_run(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "prompts.jsonl"
    for one in variants(content):
        path.write_bytes(one)
        refused_or_read(lambda: list(examples(path)))


ODD_SETTINGS = (
    b"a: &a [*a]", b"!!python/object/apply:os.system [x]", b"a: !!float nan", b"&x {<<: *x}", b"[a]\nb=1\n[a]",
    b"? {}\n: 1",
)  # fmt: skip
SETTINGS = (
    st.binary(max_size=80)
    | VALUES.map(text_of)
    | st.lists(st.tuples(st.text(max_size=6), SCALARS), max_size=5).map(
        lambda rows: encoded("\n".join(f"{key}: {value}" for key, value in rows))
    )
    | st.sampled_from(ODD_SETTINGS)
)


@varied
@given(suffix=st.sampled_from([".json", ".toml", ".yaml", ".yml", ".ini", ".txt", ".py"]), content=SETTINGS)
def test_settings(suffix: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"settings{suffix}"
    for one in variants(content):
        path.write_bytes(one)
        refused_or_read(read_settings, path)


@varied
@given(
    suffix=st.sampled_from([suffix for suffix in READERS if suffix != ".parquet"]),
    content=st.binary(max_size=80) | VALUES.map(text_of) | JSON_LINES,
)
def test_results(suffix: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / f"results{suffix}"
    for one in variants(content):
        path.write_bytes(one)
        found = look(path)
        assert not any("please report it" in reason for reason in found.unread)
        assert found.verdict.outcome.value in ("good", "bad", "skip")


def test_the_header_of_a_run_is_what_is_damaged_above(whole: Path) -> None:
    """The fuzzers start from what is sound: a fixture that is refused would make them idle."""
    assert len(Evidence(whole).observations) == 3
    assert read_answer(whole / "verdict.json").verdict.value == "bad"
    with zipfile.ZipFile(whole / "bundle.zip") as archive:
        assert manifest.read(archive.read(manifest.NAME)).files
