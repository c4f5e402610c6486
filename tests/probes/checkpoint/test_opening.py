"""The kit's opener, its JSON, and how something out of a file stands in a message."""

import json
import os
from pathlib import Path

import pytest

from repro.core.foreign import limits as host_limits
from repro.core.foreign import opening as host
from repro.probes.checkpoint import limits, opening
from repro.probes.checkpoint.opening import BadJson, NotAFile, TooDeep, depth_of, open_foreign, read_json, shown
from repro.probes.checkpoint.resolve import CannotResolve, Source, refuse_odd_files


def test_host_and_kit_say_the_same_of_what_is_no_file():
    assert (host.KINDS, host_limits.VARIABLE) == (opening.KINDS, limits.VARIABLE)


def test_a_fifo_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(NotAFile, match="it is a FIFO"):
        open_foreign(str(tmp_path / "a"))
    monkeypatch.setattr(opening, "check_is_file", lambda path: None)  # put in its place meanwhile
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(NotAFile, match="it is a FIFO"):
        open_foreign(str(tmp_path / "a"))
    assert set(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ("{", "it is no JSON"),
        ("\ufeff{}", "it is no JSON"),
        ("[" * 100_000, "nested more than 100 levels"),
        ("[" * 102 + "]" * 102, "nested more than 100 levels"),
    ],
)
def test_what_is_no_json(tmp_path, text, said):
    (tmp_path / "a").write_text(text, encoding="utf-8")
    with pytest.raises(BadJson, match=said):
        read_json(str(tmp_path / "a"), 10**6)


def test_json_up_to_the_limits_is_read(tmp_path, monkeypatch):
    text = "[" * 101 + "]" * 101
    (tmp_path / "a").write_text(text)
    assert read_json(str(tmp_path / "a"), len(text)) == json.loads(text)
    with pytest.raises(limits.OverLimit, match="a has 202 bytes, and the limit is 201"):
        read_json(str(tmp_path / "a"), len(text) - 1)
    monkeypatch.setenv(limits.VARIABLE, "2")
    assert read_json(str(tmp_path / "a"), 101)
    (tmp_path / "a").write_text(f"[{text}]")
    with pytest.raises(TooDeep):
        read_json(str(tmp_path / "a"), 10**6)


@pytest.mark.parametrize(("data", "depth"), [(1, 0), ([], 0), ([1], 1), ({"a": [1, {"b": 2}]}, 3)])
def test_depth(data, depth):
    assert depth_of(data) == depth


@pytest.mark.parametrize("value", ["\x1b[2J" * 1000, ["x" * 1000] * 1000, {"a" * 9: list(range(999))}, 10**4000, None])
def test_what_is_shown_is_short_and_cannot_act(value):
    assert len(shown(value)) < 1000
    assert shown(value).isprintable()


def test_a_folder_s_odd_files_are_refused_and_others_left_alone(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "checkpoints.bin").mkdir()
    (tmp_path / "gone.json").symlink_to("nowhere")
    os.mkfifo(tmp_path / "events")
    refuse_odd_files(Source("folder", str(tmp_path)))
    refuse_odd_files(Source("gguf", None, gguf="x.gguf"))
    (tmp_path / "tokenizer.json").mkdir()
    with pytest.raises(CannotResolve, match=r"tokenizer\.json cannot be read: it is a folder"):
        refuse_odd_files(Source("folder", str(tmp_path)))
    os.mkfifo(tmp_path / "a.jinja")
    with pytest.raises(CannotResolve, match=r"a\.jinja cannot be read: it is a FIFO"):
        refuse_odd_files(Source("random", None, config=str(tmp_path)))
    with pytest.raises(CannotResolve, match=r"a\.jinja cannot be read: it is a FIFO"):
        refuse_odd_files(Source("random", None, config=str(tmp_path / "a.jinja")))
