"""Chat messages become text by the tokenizer's own template, and by nothing else."""

import hashlib
import json

import pytest
from corpus.families import BOS
from support.handmade import emitter, load_folder
from support.prompt_models import RARE, write_llama

from repro.probes.model.inputs import load_tokenizer
from repro.probes.prompts.batches import Example, NotEncodable, Tokens
from repro.probes.prompts.run import run

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    " {{ {'user': 'w10', 'assistant': 'w11'}[m.role] }} {{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %} w12{% endif %}"
)
SAID = ({"role": "user", "content": "w3 w4"}, {"role": "assistant", "content": "w5"})


def folder(root, template=TEMPLATE):
    made = write_llama(root / "model", RARE)
    if template is not None:
        settings = made / "tokenizer_config.json"
        settings.write_text(json.dumps({**json.loads(settings.read_text()), "chat_template": template}))
    load_tokenizer.cache_clear()
    return load_folder(made, "float16")


def tokens(loaded, **more):
    return Tokens(loaded, load_tokenizer(loaded.source.folder, False), more.get("max_length"), None)


def test_the_template_writes_the_special_tokens_and_asks_for_an_answer_where_none_is(tmp_path):
    made = tokens(folder(tmp_path))
    assert made.ids(Example(0, None, "w3 w4", None, False, SAID[:1])) == [BOS, 10, 3, 4, 12]
    assert made.ids(Example(0, None, "w3 w4\nw5", None, False, SAID)) == [BOS, 10, 3, 4, 11, 5]
    assert made.ids(Example(0, None, "w3 w4")) == [BOS, 3, 4]


def test_a_chat_is_cut_as_a_text_is(tmp_path):
    assert tokens(folder(tmp_path), max_length=3).ids(Example(0, None, "", None, False, SAID)) == [BOS, 10, 3]


@pytest.mark.parametrize(
    ("template", "role", "reason"),
    [
        (None, "user", "the tokenizer has no chat template; --no-chat-template joins the messages' contents"),
        (TEMPLATE, "tool", "no tools here; --no-chat-template joins the contents"),
        ("{{ messages[", "user", "the chat template raised TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__ }}", "user", "the chat template raised SecurityError"),
    ],
)
def test_a_chat_that_no_template_takes_says_why(tmp_path, template, role, reason):
    with pytest.raises(NotEncodable, match=reason):
        tokens(folder(tmp_path, template)).ids(Example(0, None, "w3", None, False, ({"role": role, "content": "w3"},)))


def asked(loaded, path, *messages):
    lines = [json.dumps({"index": at, "side": None, "text": "t", "messages": m}) for at, m in enumerate(messages)]
    (path / "e.jsonl").write_text("\n".join(lines) + "\n")
    said, stream = emitter()
    outcome = run(loaded, {"file": str(path / "e.jsonl"), "total": len(lines)}, said, {}, False)
    return outcome, [json.loads(line)["record"] for line in stream.getvalue().splitlines() if '"record"' in line]


def test_which_template_was_used_is_said(tmp_path):
    loaded = folder(tmp_path)
    rare = [{"role": "user", "content": f"w3 w{RARE}"}]
    outcome, records = asked(loaded, tmp_path, [*SAID], rare)
    assert outcome[2]["chat_template"] == {
        "file": "tokenizer_config.json", "sha256": hashlib.sha256(TEMPLATE.encode()).hexdigest(), "examples": 2,
    }  # fmt: skip
    assert [(one["verdict"], one["token_index"], one["text"]) for one in records] == [
        ("good", None, "t"),
        ("bad", 3, "t"),
    ]
    assert outcome[2]["searched"]["agreed"] == 1


def test_without_a_template_each_chat_is_skipped_and_none_is_named(tmp_path):
    outcome, records = asked(folder(tmp_path, None), tmp_path, [*SAID])
    assert (outcome[0], outcome[2]["chat_template"], records[0]["verdict"]) == ("skip", None, "skip")
    assert "--no-chat-template" in records[0]["reason"]
