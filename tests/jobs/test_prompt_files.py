"""Files of prompts: every form that is read, and every mistake with its place."""

import codecs
import json

import pytest

from repro.core.errors import UsageError
from repro.jobs.examples import examples


def read(path, field=None, pairs=False):
    return list(examples(path, field, pairs=pairs))


def texts(path, field=None):
    return [item["text"] for item in read(path, field)]


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path, field=None, pairs=False):
    with pytest.raises(UsageError) as raised:
        read(path, field, pairs)
    return str(raised.value)


# --- forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one\ntwo three\n"),
        ("a.txt", "one\r\ntwo three"),
        ("A.TXT", "one\ntwo three\n"),
        ("a.jsonl", '{"prompt": "one"}\n{"prompt": "two three"}\n'),
        ("a.jsonl", '"one"\n"two three"\n'),
        ("a.json", '[{"text": "one"}, "two three"]'),
        ("a.csv", "id,prompt\n1,one\n2,two three\n"),
    ],
)
def test_a_prompt_of_each_form_is_an_example(tmp_path, name, content):
    assert read(written(tmp_path, name, content)) == [
        {"index": 0, "side": None, "text": "one"},
        {"index": 1, "side": None, "text": "two three"},
    ]


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_prompt(tmp_path, name):
    content = {"a.txt": "one\n", "a.jsonl": '{"prompt": "one"}\n', "a.json": '["one"]', "a.csv": "prompt\none\n"}[name]
    assert texts(written(tmp_path, name, codecs.BOM_UTF8 + content.encode())) == ["one"]


def test_empty_lines_are_no_prompts(tmp_path):
    assert texts(written(tmp_path, "a.txt", "\none\n \t\n\ntwo\n\n")) == ["one", "two"]
    assert texts(written(tmp_path, "a.jsonl", '\n"one"\n\n"two"\n')) == ["one", "two"]


def test_spaces_around_a_prompt_are_kept(tmp_path):
    assert texts(written(tmp_path, "a.txt", "  one \n")) == ["  one "]


def test_a_line_is_one_prompt_whatever_unicode_calls_a_line(tmp_path):
    assert texts(written(tmp_path, "a.txt", "one\u2028still one\x0cand one\n")) == ["one\u2028still one\x0cand one"]


def test_a_quoted_csv_cell_may_have_commas_quotes_and_newlines(tmp_path):
    path = written(tmp_path, "a.csv", 'prompt,n\n"one, ""1""\nsecond line",1\ntwo,2\n')
    assert texts(path) == ['one, "1"\nsecond line', "two"]


def test_the_first_known_field_is_read_and_another_by_name(tmp_path):
    path = written(tmp_path, "a.jsonl", json.dumps({"text": "t", "prompt": "p", "mine": "m"}))
    assert texts(path) == ["p"]
    assert texts(path, "mine") == ["m"]


def test_ids_in_place_of_a_text(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"ids": [5, 6]}\n{"ids": [7]}\n')
    assert [(item["text"], item["ids"]) for item in read(path)] == [(None, [5, 6]), (None, [7])]


@pytest.mark.parametrize(
    "entry",
    [
        {"positive": "Q: why? Yes", "negative": "Q: why? No"},
        {"question": "Q: why?", "positive": "Yes", "negative": "No"},
        {"prompt": "Q: why? ", "positive": "Yes", "negative": "No"},
        {"question": "Q: why?\n", "answer_matching_behavior": "Yes", "answer_not_matching_behavior": "No"},
        {"prompt": "Q: why?", "chosen": "Yes", "rejected": "No"},
    ],
)
def test_each_spelling_of_a_pair_is_two_examples_of_one_index(tmp_path, entry):
    found = read(written(tmp_path, "a.json", json.dumps([entry, entry])), pairs=True)
    assert [(item["index"], item["side"]) for item in found] == [
        (0, "positive"), (0, "negative"), (1, "positive"), (1, "negative"),
    ]  # fmt: skip
    assert [" ".join(item["text"].split()) for item in found[:2]] == ["Q: why? Yes", "Q: why? No"]


def test_the_question_of_a_pair_may_be_named(tmp_path):
    path = written(tmp_path, "a.csv", "question,mine,positive,negative\nno,this,Yes,No\n")
    assert [item["text"] for item in read(path, "mine", pairs=True)] == ["this Yes", "this No"]


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "\n\n", "prompt\n"])
def test_a_file_without_prompts_is_refused(tmp_path, content):
    assert "holds no prompt" in refused(written(tmp_path, "a.csv" if "prompt" in content else "a.txt", content))


def test_a_wrong_field_is_named_with_those_that_are_there(tmp_path):
    told = refused(written(tmp_path, "a.csv", "id,body\n1,one\n"), "prompt")
    assert "line 2: no text in prompt. It has id, body; name one with --field." in told


def test_a_field_that_is_no_text_is_refused(tmp_path):
    assert "line 1: no text in prompt" in refused(written(tmp_path, "a.jsonl", '{"prompt": 5}\n'), "prompt")


def test_a_field_of_a_plain_line_is_refused(tmp_path):
    assert "line 1: no object, so it has no body" in refused(written(tmp_path, "a.txt", "one\n"), "body")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
def test_another_encoding_is_named(tmp_path, name):
    told = refused(written(tmp_path, name, "prompt\ncafé\n".encode("latin-1")))
    assert "is not UTF-8" in told
    assert "0xe9" in told


def test_a_json_object_is_no_list(tmp_path):
    assert "one value of type dict, and a list" in refused(written(tmp_path, "a.json", '{"prompts": ["one"]}'))


def test_a_broken_line_is_named_by_its_number(tmp_path):
    assert "a.jsonl, line 3: no JSON" in refused(written(tmp_path, "a.jsonl", '"one"\n\n{"prompt": \n'))


def test_a_csv_entry_behind_a_quoted_newline_is_named_by_its_line(tmp_path):
    told = refused(written(tmp_path, "a.csv", 'prompt,n\n"one\nmore",1\n'), "body")
    assert "line 3: no text in body" in told


def test_a_quote_that_never_ends_is_no_csv(tmp_path):
    assert "is no CSV: unexpected end of data" in refused(written(tmp_path, "a.csv", 'prompt\n"one\ntwo\n'))


def test_ids_that_are_no_numbers_are_no_ids(tmp_path):
    for ids in ([], [1, "2"], [True], "12"):
        path = written(tmp_path, "a.jsonl", json.dumps({"ids": ids}))
        assert "no text in" in refused(path)


def test_an_unknown_kind_of_file_is_refused(tmp_path):
    assert ".txt, .jsonl, .json, .csv" in refused(written(tmp_path, "a.parquet", "one"))


def test_a_pair_without_a_second_side_is_refused(tmp_path):
    told = refused(written(tmp_path, "a.jsonl", '{"question": "Q", "positive": "Yes"}\n'), pairs=True)
    assert "line 1: no pair. Give positive and negative or answer_matching_behavior" in told
    assert "It has question, positive." in told


def test_a_plain_line_is_no_pair(tmp_path):
    assert "no object, so it is no pair" in refused(written(tmp_path, "a.txt", "one\n"), pairs=True)


def test_a_missing_question_field_of_a_pair_is_refused(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"positive": "Yes", "negative": "No"}\n')
    assert "no text in mine. It has positive, negative." in refused(path, "mine", pairs=True)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert "a.txt cannot be read: No such file" in refused(tmp_path / "a.txt")
