"""Result files with NaN or Inf: texts as the host reads them, tensors as the kit answers, and which files are taken."""

import gzip
import json
import math
import os
import pickle
import random
import shutil
import sys
import tracemalloc
from pathlib import Path

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from repro.core.records import Cell, Outcome, Verdict
from repro.engine import kit
from repro.jobs.scan import csv_text, looking, tensor_files
from repro.jobs.scan.json_text import read_json
from repro.jobs.scan.looking import READERS, kind_of, look

NAN, INF = math.nan, math.inf
HERE = Cell(sys.executable)


def scan(paths, **options):
    """A scan with the interpreter of the tests."""
    return looking.scan(paths, HERE, **options)


def told(path):
    """Place -> (count, NaN, +inf, -inf, first) of what was found."""
    return {one.place: (one.count, one.nan, one.posinf, one.neginf, one.first) for one in look(path).findings}


def written(path, content):
    """A file with this text or these bytes."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def verdict(path):
    """The outcome and the reason."""
    found = look(path).verdict
    return found.outcome.value, found.reason


# JSON


def test_numbers_of_json_by_their_keys(tmp_path):
    text = '{"loss": [1, NaN, -Infinity], "runs": [{"score": 1}, {"score": Infinity}], "note": null, "ok": true}'
    assert told(written(tmp_path / "a.json", text)) == {
        "loss[]": (3, 1, 0, 1, "loss[1]"),
        "runs[].score": (2, 0, 1, 0, "runs[1].score"),
    }


def test_null_is_no_nan(tmp_path):
    assert verdict(written(tmp_path / "a.json", "[null, 1]")) == ("good", "none of 1 number is NaN or Inf")


@pytest.mark.parametrize(("word", "counts"), [("nan", (1, 0, 0)), (" NaN ", (1, 0, 0)), ("-inf", (0, 0, 1))])
def test_a_text_that_spells_one_counts_and_is_said(tmp_path, word, counts):
    (found,) = look(written(tmp_path / "a.json", json.dumps({"x": word}))).findings
    assert (found.nan, found.posinf, found.neginf) == counts
    assert found.as_text == 1


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('{"x": ["nan", "inf"]}', 2),
        ('{"x": ["nan", 1.5]}', 1),
        ('{"x": ["nan", "error", 1.5]}', 1),
        ('{"merges": ["nan", "the", "inf"]}', 0),
        ('{"word": "the"}\n{"word": "nan"}', 0),
    ],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_word_among_other_texts_is_a_word(tmp_path, text, bad, suffix):
    found = look(written(tmp_path / f"a.{suffix}", text if suffix == "jsonl" else f"[{text}]".replace("\n", ",")))
    assert sum(found.counts) == bad


def test_words_that_are_passed_over_are_said(tmp_path):
    assert verdict(written(tmp_path / "a.json", '["nan", "the"]')) == (
        "good", 'there is no number in it (1 words such as "nan" stand among other texts)'
    )  # fmt: skip


def test_a_person_of_that_name_in_a_table_is_no_nan(tmp_path):
    assert verdict(written(tmp_path / "a.csv", "name,x\nNan,1\nIda,2\n"))[0] == "good"
    assert verdict(written(tmp_path / "b.csv", "name,x\nIda,NaN\nNan,2\n"))[1] == "1 of 2 numbers is NaN or Inf"


@pytest.mark.parametrize("text", ['"nancy"', '"banana"', '"information"', '"null"', '""', "1e308", "1" * 400])
def test_what_is_no_nan(tmp_path, text):
    assert verdict(written(tmp_path / "a.json", text))[0] == "good"


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999", "-1e999", "1.#QNAN", "Infinity"])
def test_words_outside_quotes(tmp_path, word):
    assert verdict(written(tmp_path / "a.json", f"[1, {word}, 2]")) == ("bad", "1 of 3 numbers is NaN or Inf")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def numbers(value):
    """Every number in plain data."""
    if isinstance(value, (list, dict)):
        return [found for item in (value.values() if isinstance(value, dict) else value) for found in numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


@given(value=PLAIN, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_json_is_read_as_the_standard_library_does(tmp_path_factory, value, indent, ascii_only):
    path = tmp_path_factory.getbasetemp() / "plain.json"
    written(path, json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass"))
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return  # a lone surrogate is no UTF-8
    found, expected = look(path), numbers(value)
    words = sum(one.as_text for one in found.findings)
    assert found.unread == ()
    assert found.numbers - words == len(expected)
    assert sum(found.counts) - words == sum(not math.isfinite(one) for one in expected)


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_the_cut_between_two_pieces_may_lie_anywhere(tmp_path, monkeypatch, piece):
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", piece)
    text = '{"a\\"é": [1.5, 2, -3e1 , NaN,\n 4], "b": "x\\\\", "c": {"d": [[-Infinity], 12]}}'
    assert told(written(tmp_path / "a.json", text)) == {
        'a"é[]': (5, 1, 0, 0, 'a"é[3]'),
        "c.d[][]": (1, 0, 0, 1, "c.d[0][0]"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1",
        "{",
        '{"a"',
        '{"a":}',
        "[1,]",
        "[,1]",
        "{,}",
        "[1}",
        "1 2",
        "hello",
        '"open',
        "[1 2]",
        '{"a" 1}',
        "]",
        "[@]",
    ],
)
def test_what_is_no_json_is_not_good(tmp_path, text):
    assert verdict(written(tmp_path / "a.json", text))[0] == "skip"


def test_escapes_in_keys_are_read(tmp_path):
    assert list(told(written(tmp_path / "a.json", '{"\\u00e9\\n\\ud83d\\ude00": NaN}'))) == ["é\n😀"]


def test_what_stands_before_the_cut_counts(tmp_path):
    found = look(written(tmp_path / "a.json", '{"loss": [1, NaN, 2'))
    assert (found.verdict.outcome, found.counts) == (Outcome.BAD, (1, 0, 0))
    assert "it was cut" in found.unread[0]


def test_deep_json_is_refused(tmp_path):
    assert "deeper than 10,000 levels" in verdict(written(tmp_path / "a.json", "[" * 200_000))[1]


def test_deep_json_within_the_limit_is_read(tmp_path):
    assert verdict(written(tmp_path / "a.json", "[" * 9_000 + "NaN" + "]" * 9_000))[0] == "bad"


def test_bytes_that_are_no_text_are_not_good(tmp_path):
    assert "no text" in verdict(written(tmp_path / "a.json", b'["\xff\xfe\xff"]'))[1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_names_the_encoding(tmp_path, encoding):
    assert verdict(written(tmp_path / "a.json", '["é", NaN]'.encode(encoding)))[0] == "bad"


def test_keys_made_from_data_do_not_fill_the_memory(tmp_path):
    text = json.dumps({f"prompt {n}": 1.0 for n in range(30_000)} | {"last": NAN})
    assert told(written(tmp_path / "a.json", text)) == {"(further keys)": (20_001, 1, 0, 0, "last")}


def test_json_lines_by_key_with_the_line(tmp_path):
    text = '{"s": 1}\n{"s": NaN, "t": "x"}\n\n{"s": "inf"}\n'
    assert told(written(tmp_path / "a.jsonl", text)) == {"s": (3, 1, 1, 0, "line 2: s")}


def test_a_line_that_is_no_json_does_not_hide_the_others(tmp_path):
    found = look(written(tmp_path / "a.jsonl", '{"s": 1}\noops\n{"s": NaN}\n{"s": 1'))
    assert found.counts == (1, 0, 0)
    assert [reason.split(":")[0] for reason in found.unread] == ["line 2", "line 4"]


def test_many_broken_lines_are_counted(tmp_path):
    found = look(written(tmp_path / "a.jsonl", "oops\n" * 10))
    assert (len(found.unread), found.unread[-1]) == (4, "7 further lines that are no JSON")


def test_packed_text_is_unpacked(tmp_path):
    path = written(tmp_path / "a.jsonl.gz", gzip.compress(b'{"s": NaN}\n'))
    assert told(path) == {"s": (1, 1, 0, 0, "line 1: s")}
    assert verdict(written(tmp_path / "b.json.gz", gzip.compress(b"[1]")[:-4]))[0] == "skip"


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", 4096)
    path = written(tmp_path / "a.json", "[" + ", ".join(['{"score": 1.25, "text": "some words"}'] * 30_000) + "]")
    tracemalloc.start()
    try:
        found = look(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.numbers, path.stat().st_size > 1_000_000) == (30_000, True)
    assert peak < 200_000


def test_a_long_text_takes_linear_time(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", 64)
    assert verdict(written(tmp_path / "a.json", '["' + "x" * 3_000_000 + '", NaN]'))[0] == "bad"


def test_a_text_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("repro.jobs.scan.json_text.LONGEST_TOKEN", 1000)
    monkeypatch.setattr("repro.jobs.scan.json_text.CHUNK", 100)
    assert "more than 1,000 characters" in verdict(written(tmp_path / "a.json", '["' + "x" * 5000))[1]


# Tables


def test_numbers_of_a_table_by_column(tmp_path):
    text = "name,loss,acc\na,1.5,2\nb,nan,\nc,-inf,3\n"
    assert told(written(tmp_path / "a.csv", text)) == {"loss": (3, 1, 0, 1, "line 3")}


def test_an_empty_field_is_no_nan(tmp_path):
    assert verdict(written(tmp_path / "a.csv", "a,b\n1,\n,2\n"))[0] == "good"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path, delimiter):
    text = "\n".join(delimiter.join(row) for row in (("x", "y"), ("1", "2"), ("3", "inf")))
    assert told(written(tmp_path / "a.csv", text)) == {"y": (2, 0, 1, 0, "line 3")}


def test_columns_without_names_are_numbered(tmp_path):
    assert told(written(tmp_path / "a.csv", "1,2\n3,nan\n")) == {"column 2": (2, 1, 0, 0, "line 2")}


def test_fields_with_line_breaks_and_lines_of_other_lengths(tmp_path):
    assert told(written(tmp_path / "a.csv", 'text,x\n"a\nb",1\n"c",2,nan\n')) == {"column 3": (1, 1, 0, 0, "line 4")}


def test_a_nul_in_a_table_is_said(tmp_path):
    assert "has a NUL" in verdict(written(tmp_path / "a.csv", b"a,b\n1,\x002\n"))[1]


def test_a_quote_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_text, "LONGEST_FIELD", 1000)
    before = csv_text.csv.field_size_limit()
    assert "cannot be taken apart" in verdict(written(tmp_path / "a.csv", 'a,b\n"' + "x,1\n" * 1000))[1]
    assert csv_text.csv.field_size_limit() == before


def test_a_prompt_longer_than_the_csv_modules_limit_is_read(tmp_path):
    assert verdict(written(tmp_path / "a.csv", "text,x\n" + "w" * 200_000 + ",nan\n"))[0] == "bad"


# Parquet


def test_parquet_without_its_library_is_could_not_tell(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in verdict(written(tmp_path / "a.parquet", b"PAR1"))[1]


def test_the_columns_of_a_parquet_file(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    from pyarrow import parquet

    rows = [
        {"x": 1.0, "v": [1.0, NAN], "s": {"y": -INF}, "n": 1, "t": "nan"},
        {"x": None, "v": [INF], "s": {"y": 0.0}, "n": 2, "t": "b"},
        {"x": NAN, "v": None, "s": None, "n": 3, "t": "c"},
    ]
    table = pyarrow.Table.from_pylist(rows)
    deep = pyarrow.array([[[1.0]], [], [[2.0], [NAN, 3.0]]], pyarrow.list_(pyarrow.list_(pyarrow.float16())))
    pairs = pyarrow.array([[("a", 1.0)], None, [("b", INF)]], pyarrow.map_(pyarrow.string(), pyarrow.float32()))
    table = table.append_column("deep", deep).append_column("pairs", pairs)
    parquet.write_table(table, tmp_path / "a.parquet")
    assert told(tmp_path / "a.parquet") == {
        "x": (2, 1, 0, 0, "row 2"),
        "v[]": (3, 1, 1, 0, "row 0"),
        "s.y": (2, 0, 0, 1, "row 0"),
        "deep[][]": (4, 1, 0, 0, "row 2"),
        "pairs[].value": (2, 0, 1, 0, "row 2"),
    }


def test_a_broken_parquet_file_is_not_good(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    assert "pyarrow does not read it" in verdict(written(tmp_path / "a.parquet", b"PAR1 and nothing else"))[1]


# Any damage

SOUND = {
    "a.json": lambda path: written(path, json.dumps({"loss": [1.5, 2], "runs": [{"a": "b"}]})),
    "a.jsonl": lambda path: written(path, '{"s": 1}\n{"s": [2.5]}\n'),
    "a.csv": lambda path: written(path, "x,y\n1,2\n3,4\n"),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_damaged_file_gets_an_answer_and_no_error(tmp_path, name):
    SOUND[name](tmp_path / name)
    sound = (tmp_path / name).read_bytes()
    assert verdict(tmp_path / name)[0] == "good"
    chance = random.Random(name)
    for _ in range(150):
        raw = bytearray(sound)
        for _ in range(chance.choice([1, 1, 2, 8])):
            raw[chance.randrange(len(raw))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
        found = look(written(tmp_path / name, bytes(raw[: chance.choice([len(raw), chance.randrange(len(raw))])])))
        assert not any(reason.startswith("unexpected ") for reason in found.unread), found


def test_an_error_that_nobody_planned_is_could_not_tell(tmp_path, monkeypatch):
    def broken(path, tally):
        raise KeyError("x")

    monkeypatch.setitem(READERS, ".json", broken)
    assert verdict(written(tmp_path / "a.json", "[1]"))[1].startswith("unexpected KeyError: 'x'")


# Files of tensors


def test_the_kinds_of_the_host_are_those_that_the_kit_reads():
    from repro.probes.checkpoint.look import READERS as OF_THE_KIT

    assert set(tensor_files.KINDS) == set(OF_THE_KIT)
    assert not set(tensor_files.KINDS) & set(READERS)


def tensors(folder):
    """A folder with a text and a file of each kind of tensors, each with a NaN but ``cut.npy``."""
    bad = torch.tensor([[1.0, 2.0], [3.0, NAN]])
    written(folder / "a.json", "[NaN]")
    numpy.save(folder / "b.npy", bad.numpy())
    written(folder / "cut.npy", (folder / "b.npy").read_bytes()[:-1])
    numpy.savez(folder / "d.npz", x=bad.numpy())
    save_file({"x": bad}, folder / "e.safetensors")
    for suffix in ("pt", "pth", "bin"):
        torch.save({"x": bad}, folder / f"f.{suffix}")
    return folder


def test_one_process_reads_all_files_of_tensors(tmp_path, monkeypatch):
    started, told = [], []

    def run(setting, *others, plain=tensor_files.run, **named):
        started.append(setting)
        return plain(setting, *others, **named)

    monkeypatch.setattr(tensor_files, "run", run)
    found = scan([tensors(tmp_path)], told=told.append)
    assert len(started) == 1
    assert sorted(told, key=lambda looked: looked.path) == list(found.files)
    (cut,) = (looked for looked in found.files if looked.verdict.outcome is not Outcome.BAD)
    assert (Path(cut.path).name, cut.verdict.outcome, cut.bytes) == ("cut.npy", Outcome.SKIP, 143)
    for finding in (finding for looked in found.files[1:] for finding in looked.findings):
        assert (finding.dtype, finding.shape, finding.count, finding.first) == ("float32", (2, 2), 4, "[1, 1]")


@pytest.mark.skipif(os.name == "nt", reason="the interpreter without torch is a shell script")
def test_without_torch_texts_are_answered_and_the_remedy_is_said(tmp_path):
    bare = written(tmp_path / "bare", f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    (tmp_path / "results").mkdir()
    text, *others = looking.scan([tensors(tmp_path / "results")], Cell(str(bare))).files
    assert text.verdict.outcome is Outcome.BAD
    assert {looked.verdict.outcome for looked in others} == {Outcome.SKIP}
    assert all("has no torch. Give --python" in looked.verdict.reason for looked in others)


@pytest.mark.parametrize(("most", "expected"), [(12, "bad skip bad"), (0, "bad skip skip")])
def test_a_file_that_ends_the_process_does_not_keep_the_others_from_it(tmp_path, monkeypatch, most, expected):
    shutil.copytree(kit.SOURCE, tmp_path / "kit", ignore=shutil.ignore_patterns("__pycache__"))
    reader = tmp_path / "kit" / "checkpoint" / "look.py"
    deadly = 'READERS[kind](path, found)\n        if "deadly" in path:\n            os.abort()'
    reader.write_text(reader.read_text().replace("READERS[kind](path, found)", deadly))
    monkeypatch.setattr(tensor_files, "pack", lambda: kit.pack(tmp_path / "kit"))
    monkeypatch.setattr(tensor_files, "CRASHES", most)
    paths = [tmp_path / f"{name}.npy" for name in ("a", "deadly", "z")]
    for path in paths:
        numpy.save(path, numpy.array([NAN]))
    found = scan(paths).files
    assert " ".join(looked.verdict.outcome.value for looked in found) == expected
    assert "the process " in found[1].verdict.reason


def test_a_name_that_is_no_utf_8_goes_to_the_kit_and_comes_back(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    header = b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}'
    written(path, len(header).to_bytes(8, "little") + header + b"\0\x7e")
    (looked,) = scan([path]).files
    assert (looked.path, looked.findings[0].place) == (str(path), "a")


def test_a_tensor_whose_name_is_no_text_is_could_not_tell(tmp_path):
    header = rb'{"\ud800":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}'
    path = written(tmp_path / "a.safetensors", len(header).to_bytes(8, "little") + header + b"\0\x7e")
    (looked,) = scan([path]).files
    assert looked.verdict.outcome is Outcome.SKIP
    assert "the header is no JSON" in looked.verdict.reason


# Folders


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.json", ".json"), ("a.JSON", ".json"), ("a.b.jsonl", ".jsonl"), ("a.csv.gz", ".csv"), ("a.npy.gz", None),
        ("a.gz", None), ("a.txt", ".txt"), ("a.rst", None), ("json", None), (".json", None), ("a.pt", ".pt"),
    ],
)  # fmt: skip
def test_the_kind_of_a_file(tmp_path, name, kind):
    assert kind_of(tmp_path / name) == kind


def folder_of(tmp_path):
    for name in ("a.json", "sub/b.json", "sub/c.csv", "old/d.json", "notes.md", "sub/x.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        written(tmp_path / name, "[NaN]")
    return tmp_path


def names(found, top):
    return [os.path.relpath(looked.path, top).replace(os.sep, "/") for looked in found.files]


def test_folders_are_searched_through_and_other_kinds_counted(tmp_path):
    found = scan([folder_of(tmp_path)])
    assert names(found, tmp_path) == ["a.json", "old/d.json", "sub/b.json", "sub/c.csv"]
    assert found.others == {".md": 2}


def test_patterns_take_in_and_leave_out(tmp_path):
    found = scan([folder_of(tmp_path)], include=["*.json"], exclude=["old", "sub/b*"])
    assert names(found, tmp_path) == ["a.json"]


def test_a_file_that_is_named_twice_is_looked_at_once(tmp_path):
    folder_of(tmp_path)
    assert len(scan([tmp_path / "a.json", tmp_path, tmp_path / "a.json"]).files) == 4


def test_a_named_file_of_another_kind_is_could_not_tell(tmp_path):
    (looked,) = scan([folder_of(tmp_path) / "notes.md"]).files
    assert looked.verdict.outcome is Outcome.SKIP


def test_a_pipe_and_a_link_to_nothing_are_said(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "link.json").symlink_to(tmp_path / "gone.json")
    reasons = [looked.verdict.reason for looked in scan([tmp_path]).files]
    assert reasons == ["it cannot be read: No such file or directory", "it is no plain file"]


def test_a_link_in_a_circle_ends(tmp_path):
    (folder_of(tmp_path) / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(scan([tmp_path]).files) == 4


def test_the_verdict_of_a_scan(tmp_path):
    sound, bad, broken = (
        written(tmp_path / f"{name}.json", text) for name, text in (("s", "[1]"), ("b", "[NaN]"), ("x", "["))
    )
    outcomes = [scan(paths).verdict.outcome.value for paths in ([sound], [sound, broken], [bad, broken], [broken])]
    assert outcomes == ["good", "skip", "bad", "skip"]
    told = scan([sound, broken]).verdict
    assert told == Verdict(Outcome.SKIP, "no NaN or Inf in 1 of 2 files; 1 could not be read")


def test_the_reader_of_json_raises_for_what_is_none(tmp_path):
    from repro.jobs.scan.findings import Tally, Unreadable

    with pytest.raises(Unreadable, match=r"'@\]' \(near line 2\)"):
        read_json(written(tmp_path / "a.json", "[1,\n@]"), Tally())


class Runs:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False], ids=["zipped", "of the older form"])
def test_a_pickle_that_would_run_code_is_could_not_tell_and_does_not_run(tmp_path, zipped):
    path, canary = tmp_path / "a.pt", tmp_path / "canary"
    torch.save({"w": torch.ones(3), "x": Runs(canary)}, path, _use_new_zipfile_serialization=zipped)
    assert scan([path]).verdict.outcome is Outcome.SKIP
    assert not canary.exists()


def test_a_pickle_behind_a_file_of_the_older_form_is_could_not_tell(tmp_path):
    path, canary = tmp_path / "a.pt", tmp_path / "canary"
    torch.save({"w": torch.ones(300, 7), "v": torch.arange(9), "h": torch.ones(2).half()}, path,
               _use_new_zipfile_serialization=False)  # fmt: skip
    assert scan([path]).verdict.outcome is Outcome.GOOD
    path.write_bytes(path.read_bytes() + pickle.dumps(Runs(canary)))
    (looked,) = scan([path]).files
    assert looked.verdict.outcome is Outcome.SKIP
    assert "bytes stand behind what torch.load reads" in looked.verdict.reason
    assert not canary.exists()


# --- plain text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "nan", "first"),
    [
        ("1.0 2.0\n3.0 nan\n", 1, "line 2"),
        ("1.0, nan, 3\n", 1, "line 1"),
        ("[0.1, nan, 3.0]\n[nan, 1, 2]\n", 2, "line 1"),
        ("tensor([nan, nan, 1.0], device='cuda:0')\n", 2, "line 1"),
        ("tensor([[1.0, 2.0],\n        [nan, 4.0]])\n", 1, "line 2"),
        ("logits = tensor([nan, 1.])\n", 1, "line 1"),
        ("Logits: Min=nan, Max=nan, Mean=nan\n", 3, "line 1"),
        ("entropy: 2.3\nentropy: nan\n", 1, "line 2"),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".log"])
def test_plain_text_is_read(tmp_path, text, nan, first, suffix):
    found = look(written(tmp_path / f"results{suffix}", text))
    assert (found.counts[0], found.findings[0].first) == (nan, first)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("1.0 2.0\n", "good"),
        ("no NaN found\nloss: 2.0\n", "good"),
        ("a banana for Nancy\n", "good"),
        ("all 7 of them were NaN again\n", "skip"),
    ],
)
def test_plain_text_without_a_bad_value(tmp_path, text, outcome):
    assert look(written(tmp_path / "results.txt", text)).verdict.outcome.value == outcome


def test_the_first_place_is_the_first_in_the_file_whatever_its_kind(tmp_path):
    rows = ['{"a": 1.0}'] * 2 + ['{"a": "nan"}'] + ['{"a": 1.0}'] * 2 + ['{"a": NaN}']
    (found,) = look(written(tmp_path / "a.jsonl", "\n".join(rows) + "\n")).findings
    assert (found.nan, found.as_text, found.first) == (2, 1, "line 3: a")
    rows[1], rows[4] = '{"b": NaN}', '{"b": "nan"}'
    places = look(written(tmp_path / "b.jsonl", "\n".join(rows) + "\n")).findings
    assert [(one.place, one.first) for one in places] == [("b", "line 2: b"), ("a", "line 3: a")]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [('{"a": [1, 2, 12', 2), ('{"a": 1, "b": 12', 1), ('{"a": [1, 2, -', 2), ('{"a": [1, 2, 3 ', 3)],
)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_number_that_may_go_on_is_not_counted(tmp_path, text, numbers, suffix):
    outcome, reason = verdict(written(tmp_path / f"cut{suffix}", text))
    least = numbers if suffix == ".json" or not text.endswith(" ") else numbers - 1
    assert outcome == "skip"
    assert f"none found in {least} other number{'s' * (least != 1)}" in reason


def test_a_word_for_nan_at_the_end_of_a_cut_file_counts(tmp_path):
    assert verdict(written(tmp_path / "cut.json", '{"a": [1, NaN'))[0] == "bad"


def test_one_number_is_said_as_one(tmp_path):
    assert verdict(written(tmp_path / "one.json", "[1]"))[1] == "none of 1 number is NaN or Inf"
