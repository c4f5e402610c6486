"""Prompt files: every format, the same for every command, and every mistake with its place."""

import codecs
import json
import sys

import pytest

from repro.core.errors import UsageError
from repro.jobs.overlap.sets import read as read_set
from repro.jobs.prompt_files import asked_examples, examples, sha256
from repro.jobs.prompt_tables import files_of

PAIR = {"question": "Q: why?", "positive": "Yes", "negative": "No"}


def answer(index, text, verdict="bad", **more):
    return {"index": index, "side": None, "text": text, "token_ids": [2, index], "verdict": verdict, **more}


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


RUN = lines({"schema": 1, "record": "header"}, answer(0, "one"), answer(1, "two", "good"))
FORMATS = [
    ("a.txt", "one\n\n \t\ntwo\n", {}),
    ("A.TXT", "one\r\ntwo", {}),
    ("a.jsonl", '"one"\n\n"two"\n', {}),
    ("a.jsonl", lines({"prompt": "one"}, {"instruction": "two"}), {}),
    ("a.jsonl", lines({"text": "one", "verdict": "bad"}, {"text": "two", "verdict": "bad"}), {}),
    ("a.jsonl", lines({"whatever": "one"}, {"whatever": "two"}), {}),
    ("a.jsonl", lines({"q": "one", "a": "x"}, {"q": "two", "a": "y"}), {"field": "q"}),
    ("a.json", '["one", {"content": "two", "loss": NaN}]', {}),
    ("a.json", '{"model": "12b", "skipped": ["one", "two"]}', {}),
    ("a.csv", "index,question\n0,one\n1,two\n", {}),
    ("a.csv", "whatever\none\ntwo\n", {}),
    ("prompts.jsonl", lines({"prompt": "one"}, {"prompt": "two"}), {}),  # a list that has the name of a run's file
    ("prompts.jsonl", RUN.replace("good", "bad"), {}),
    ("prompts.jsonl", RUN.replace("good", "bad") + '{"index": 1, "te', {}),
]


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path, field=None, pairs=False):
    return [one.text for one in examples(path, field, pairs=pairs)]


# --- one reader for every command --------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "content", "how"), FORMATS)
def test_every_command_reads_the_same_texts(tmp_path, name, content, how):
    path = written(tmp_path, name, content)
    asked = list(asked_examples(path, **how))
    assert asked == [{"index": 0, "side": None, "text": "one"}, {"index": 1, "side": None, "text": "two"}]
    assert read_set(path, **how).failed == {"one", "two"}


@pytest.mark.parametrize(
    "entry",
    [
        {"positive": "Q: why? Yes", "negative": "Q: why? No"},
        PAIR,
        {"prompt": "Q: why? ", "positive": "Yes", "negative": "No"},
        {"question": "Q: why?\n", "answer_matching_behavior": "Yes", "answer_not_matching_behavior": "No"},
        {"prompt": "Q: why?", "chosen": "Yes", "rejected": "No"},
    ],
)
def test_each_spelling_of_a_pair_is_two_examples_of_one_index(tmp_path, entry):
    path = written(tmp_path, "a.json", json.dumps([entry, entry]))
    found = list(asked_examples(path, pairs=True))
    assert [(one["index"], one["side"]) for one in found] == [
        (0, "positive"), (0, "negative"), (1, "positive"), (1, "negative"),
    ]  # fmt: skip
    assert [" ".join(one["text"].split()) for one in found[:2]] == ["Q: why? Yes", "Q: why? No"]
    assert read_set(path, pairs=True).failed == {"Q: why? Yes", "Q: why? No"}


def test_token_ids_in_place_of_a_text(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"ids": [5, 6]}\n{"ids": [7]}\n')
    assert [(one["text"], one["ids"]) for one in asked_examples(path)] == [(None, (5, 6)), (None, (7,))]
    assert read_set(path).failed == {"token ids 5 6", "token ids 7"}


# --- texts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_format_in_every_unicode_encoding(tmp_path, name, encoding):
    content = {"a.txt": "où?\n人\n", "a.jsonl": '"où?"\n"人"\n', "a.json": '["où?", "人"]', "a.csv": "text\noù?\n人\n"}
    assert texts(written(tmp_path, name, content[name].encode(encoding))) == ["où?", "人"]


@pytest.mark.parametrize(
    ("content", "found"),
    [("  one \n", "  one "), ("one\u2028still one\x0cand one\n", "one\u2028still one\x0cand one")],
)
def test_a_line_is_a_prompt_as_it_is(tmp_path, content, found):
    assert texts(written(tmp_path, "a.txt", content)) == [found]


def test_a_quoted_csv_cell_may_have_commas_quotes_and_newlines(tmp_path):
    path = written(tmp_path, "a.csv", 'prompt,n\n"one, ""1""\nsecond line",1\ntwo,2\n')
    assert texts(path) == ['one, "1"\nsecond line', "two"]


def test_the_first_known_field_is_read_and_another_by_name(tmp_path):
    path = written(tmp_path, "a.jsonl", json.dumps({"text": "t", "prompt": "p", "mine": "m"}))
    assert (texts(path), texts(path, "mine")) == (["p"], ["m"])


def test_the_question_of_a_pair_may_be_named(tmp_path):
    path = written(tmp_path, "a.csv", "question,mine,positive,negative\nno,this,Yes,No\n")
    assert texts(path, "mine", pairs=True) == ["this Yes", "this No"]


# --- the answers of a run ----------------------------------------------------------------------------------------


def test_the_last_answer_about_an_example_counts_and_examples_are_in_order(tmp_path):
    cut = '{"index": 1, "te{"index": 1, "text": "tw'
    path = written(tmp_path, "prompts.jsonl", f"{RUN}{cut}\n{lines(answer(0, 'one', 'good'))}")
    notes = []
    found = [(one.index, one.verdict) for one in examples(path, note=notes.append)]
    assert (found, notes) == ([(0, "good"), (1, "good")], ["1 line cut short and left out."])


def test_the_sides_and_token_ids_of_a_run_are_kept(tmp_path):
    rows = [answer(0, f"{side} one", side=side) for side in ("positive", "negative")]
    path = written(tmp_path, "prompts.jsonl", lines(*rows, answer(1, None, side="positive")))
    first, second, third = asked_examples(path, pairs=True)
    assert (first["side"], second["side"], second["text"]) == ("positive", "negative", "negative one")
    assert (third["text"], third["ids"]) == (None, (2, 1))
    assert read_set(path).failed == {"positive one", "negative one", "token ids 2 1"}


def test_withheld_texts_are_read_from_what_the_run_was_asked(tmp_path):
    rows = [answer(number, None, token_ids=None) for number in range(2)]
    path = written(tmp_path, "prompts.jsonl", lines({"record": "header"}, *rows))
    found = read_set(path)
    assert (found.failed, found.notes) == (frozenset(), ("2 prompts with a withheld text left out.",))
    asked = [{"index": 0, "side": None, "text": "one"}, {"index": 1, "side": None, "text": None, "ids": [5]}]
    written(tmp_path, "examples.jsonl", lines(*asked))
    assert read_set(path).failed == {"one", "token ids 5"}
    assert [one["text"] for one in asked_examples(path)] == ["one", None]


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "how", "message"),
    [
        ("a.csv", "id,body\n1,one\n", {}, "line 2: expected a text in one of prompt, text, question"),
        ("a.csv", "\nnan\n", {}, "expected a text in one of prompt, text, question"),
        ("a.csv", "id,body\n1,one\n", {"field": "prompt"}, "in the field prompt; it has id, body. Name the field with"),
        ("a.csv", 'prompt,n\n"one\nmore",1\n', {"field": "body"}, "line 3: expected a text in the field body"),
        ("a.csv", 'prompt\n"one\ntwo\n', {}, "expected CSV: unexpected end of data"),
        ("a.jsonl", '{"prompt": 5}\n', {}, "line 1: expected a text"),
        ("a.jsonl", '"one"\n\n{"prompt": \n', {}, "line 3: expected JSON"),
        ("a.jsonl", '{"ids": []}', {}, "line 1: expected a text"),
        ("a.jsonl", '{"ids": [1, "2"]}', {}, "line 1: expected a text"),
        ("a.jsonl", '{"ids": [true]}', {}, "line 1: expected a text"),
        ("a.jsonl", '{"positive": "Yes", "question": "Q"}', {"pairs": True}, "line 1: expected a pair (positive"),
        ("a.jsonl", json.dumps(PAIR), {"pairs": True, "field": "mine"}, "in the field mine; it has question, positive"),
        ("a.txt", "one\n", {"field": "body"}, "a .txt file has no fields and no pairs. Leave out --field and --pairs."),
        ("a.json", '["one"]', {"pairs": True}, "entry 0: expected an object with the two sides of a pair; found str"),
        ("a.txt", codecs.BOM_UTF16_LE + b"o", {}, "expected UTF-16, which its byte-order mark says"),
        ("a.json", '{"a": 1}', {}, "or an object with one list in it; found an object with 0 lists"),
        ("a.json", '{"a": [], "b": []}', {}, "found an object with 2 lists"),
        ("a.json", "[1]", {}, "entry 0: expected a text or an object with one; found int"),
        ("a.json", "[" * 100_000, {}, "a.json: expected JSON"),
        ("a.xml", "one", {}, "expected a prompt file: .txt, .jsonl, .json, .csv"),
        ("prompts.jsonl", RUN, {"pairs": True}, "expected the answers of a run with --pairs"),
        *((name, b"prompt\ncaf\xe9\n", {}, "line 2: expected UTF-8, found the byte 0xe9. Save the file as UTF-8.")
          for name in ("a.txt", "a.jsonl", "a.json", "a.csv")),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_and_what_was_expected(tmp_path, name, content, how, message):
    path = written(tmp_path, name, content)
    with pytest.raises(UsageError) as raised:
        list(examples(path, **how))
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"a\.txt cannot be read: No such file"):
        list(examples(tmp_path / "a.txt"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n\n", "a.txt holds no prompt"),
        ("a.csv", "prompt\n", "a.csv holds no prompt"),
        ("prompts.jsonl", lines(answer(0, None, "skip", token_ids=None)), "example 0 has neither a text nor token ids"),
    ],
)
def test_nothing_to_run_is_told(tmp_path, name, content, message):
    with pytest.raises(UsageError, match=message):
        list(asked_examples(written(tmp_path, name, content)))


# --- chats, fields inside of fields, tables ----------------------------------------------------------------------

CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]


@pytest.mark.parametrize(
    "entry",
    [
        {"messages": CHAT, "id": 7},
        {"prompt": CHAT},
        CHAT,
        {"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hello"}]},
        {"messages": [CHAT[0], {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"text": "lo"}]}]},
    ],
)
def test_a_chat_is_its_messages_and_the_text_of_their_contents(tmp_path, entry):
    path = written(tmp_path, "a.jsonl", lines(entry))
    (one,) = asked_examples(path)
    assert one == {"index": 0, "side": None, "text": "Be kind.\nHello", "messages": CHAT}
    assert list(asked_examples(path, chat_template=False)) == [{"index": 0, "side": None, "text": "Be kind.\nHello"}]


def test_a_message_that_is_no_text_is_named_with_its_place(tmp_path):
    chat = [CHAT[0], {"role": "user", "content": [{"type": "image", "url": "x"}]}]
    with pytest.raises(UsageError, match=r"line 2, message 1: expected a role and a content of text; found list"):
        texts(written(tmp_path, "a.jsonl", lines({"messages": CHAT}, {"messages": chat})))


def test_a_pair_may_be_of_chats_and_a_question_is_not_said_twice(tmp_path):
    said = [*CHAT, {"role": "assistant", "content": "Hi"}]
    refused = [{"role": "assistant", "content": "Go"}]
    path = written(tmp_path, "a.jsonl", lines({"prompt": CHAT, "chosen": said, "rejected": refused}))
    found = list(asked_examples(path, pairs=True))
    assert [one["messages"][-1]["content"] for one in found] == ["Hi", "Go"]
    assert [len(one["messages"]) for one in found] == [3, 3]
    path = written(tmp_path, "b.jsonl", lines({"question": "Why?", "chosen": refused, "rejected": "No"}))
    found = list(asked_examples(path, pairs=True))
    assert [[message["role"] for message in one["messages"]] for one in found] == [["user", "assistant"]] * 2


@pytest.mark.parametrize(
    ("field", "expected"),
    [("a.b", "deep"), ("a.list.1.t", "second"), ("a.c.d", "a field called so"), ("x.y", "at the top")],
)
def test_a_field_may_lie_inside_of_another(tmp_path, field, expected):
    entry = {"a": {"b": "deep", "list": [{"t": "first"}, {"t": "second"}], "c.d": "a field called so"}}
    entry["x.y"] = "at the top"
    assert texts(written(tmp_path, "a.jsonl", lines(entry)), field=field) == [expected]


@pytest.mark.parametrize("field", ["a.c", "a.b.c", "a.list.2.t", "a.list.-1", "a.list.9" + "9" * 5000, ".", "a..b"])
def test_a_field_that_is_not_inside_is_named(tmp_path, field):
    path = written(tmp_path, "a.jsonl", lines({"a": {"b": "deep", "list": [{"t": "first"}]}}))
    with pytest.raises(UsageError, match=r"line 1: expected a text in the field"):
        texts(path, field=field)


def test_the_question_of_a_pair_may_lie_inside_of_another_field(tmp_path):
    path = written(tmp_path, "a.jsonl", lines({"q": {"text": "Why?"}, "positive": "Yes", "negative": "No"}))
    assert texts(path, field="q.text", pairs=True) == ["Why? Yes", "Why? No"]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_without_its_reader_names_the_package(tmp_path, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"needs pyarrow to be read: pip install pyarrow\."):
        texts(written(tmp_path, name, b"PAR1"))


def saved(folder, **state):
    """A folder as `save_to_disk` of datasets writes it, with one arrow file of no content."""
    folder.mkdir()
    written(folder, "data-00000-of-00001.arrow", b"")
    files = [{"filename": "data-00000-of-00001.arrow"}]
    written(folder, "state.json", json.dumps({"_data_files": files, "_split": None, **state}))
    return folder


def test_a_folder_of_datasets_is_its_arrow_files(tmp_path):
    folder = saved(tmp_path / "d")
    assert files_of(folder) == (folder / "data-00000-of-00001.arrow",)
    before = sha256(folder)
    written(folder, "data-00000-of-00001.arrow", b"other")
    assert sha256(folder) != before


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, r"flatten_indices\(\)"),
        ({"_data_files": [{"filename": "../secret.arrow"}]}, "expected the names of arrow files"),
        ({"_data_files": []}, "expected the names of arrow files"),
    ],
)
def test_a_folder_of_datasets_that_is_not_read_says_why(tmp_path, state, message):
    with pytest.raises(UsageError, match=message):
        files_of(saved(tmp_path / "d", **state))


def test_of_several_splits_one_is_asked_for_and_another_folder_is_refused(tmp_path):
    written(tmp_path, "dataset_dict.json", '{"splits": ["train", "test"]}')
    with pytest.raises(UsageError, match=r"holds several splits \(train, test\)"):
        texts(tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match=r"it has no state\.json"):
        texts(tmp_path / "other")


def test_tables_are_read_in_pieces_and_a_folder_over_its_files(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed here")
    from pyarrow import parquet

    rows = [{"messages": CHAT[1:], "n": number} for number in range(600)]
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "a.parquet")
    for name, opened in (("a.arrow", pyarrow.ipc.new_file), ("b.arrow", pyarrow.ipc.new_stream)):
        with pyarrow.OSFile(str(tmp_path / name), "wb") as file, opened(file, table.schema) as out:
            out.write_table(table)
    folder = saved(tmp_path / "d", _data_files=[{"filename": "b.arrow"}, {"filename": "b.arrow"}])
    (tmp_path / "b.arrow").rename(folder / "b.arrow")
    for path, count in ((tmp_path / "a.parquet", 600), (tmp_path / "a.arrow", 600), (folder, 1200)):
        found = list(asked_examples(path))
        assert [one["index"] for one in found] == list(range(count))
        assert {json.dumps(one["messages"]) for one in found} == {json.dumps(CHAT[1:])}
    for name in ("bad.parquet", "bad.arrow"):
        with pytest.raises(UsageError, match="pyarrow does not read it"):
            texts(written(tmp_path, name, b"PAR1 and nothing else"))
