"""Prompts that must not go out: the kit answers without their texts, tokens and ids."""

import io
import json

import pytest
from corpus import families
from support.handmade import load_folder

from repro.probes.model.inputs import TOKEN, WITHHELD, load_tokenizer, make_inputs, tokenized
from repro.probes.model.session import Session
from repro.probes.protocol.wire import Emitter

SECRET = "w5 w9 w11"


@pytest.fixture(scope="module")
def loaded(checkpoints):
    return load_folder(checkpoints["llama"])


def test_only_special_tokens_keep_their_text(loaded):
    (made,) = make_inputs(loaded, [SECRET], trust_remote_code=False, withheld=True)
    assert made.tokens == ("<bos>", TOKEN, TOKEN, TOKEN)


def test_the_record_of_an_input_has_neither_text_nor_ids(loaded):
    (made,) = make_inputs(loaded, [SECRET], trust_remote_code=False, withheld=True)
    assert made.record() == {
        "prompt": WITHHELD,
        "input_source": "tokenizer",
        "seed": None,
        "input_ids": [],
        "decoder_input_ids": None,
        "tokens": None,
        "further": [],
        "without": [],
    }


def test_the_model_gets_the_same_ids(loaded):
    (open_,), (made,) = (make_inputs(loaded, [SECRET], False, withheld) for withheld in (False, True))
    assert made.input_ids.tolist() == open_.input_ids.tolist()


def test_a_prompt_of_the_kits_own_is_nobodys_secret(loaded):
    (made,) = make_inputs(loaded, [], trust_remote_code=False, withheld=True)
    assert made.record()["prompt"] != WITHHELD


def test_a_session_reads_the_prompts_from_their_file(loaded, tmp_path):
    texts = tmp_path / "inputs.json"
    texts.write_text(json.dumps({"prompts": [SECRET]}))
    session = Session({"model": str(tmp_path), "prompts": [WITHHELD], "texts": str(texts)}, "", Emitter(io.StringIO()))
    assert (session.withheld, session.prompts()) == (True, [SECRET])


def test_without_that_file_the_session_says_what_is_missing(tmp_path):
    session = Session(
        {"model": "m", "prompts": [WITHHELD], "texts": str(tmp_path / "gone")}, "", Emitter(io.StringIO())
    )
    with pytest.raises(Exception, match=r"withheld: .*gone is not here"):
        session.prompts()


@pytest.mark.parametrize(
    ("said", "text"), [("no token for 'abc'", "abc"), ("bad: my secret words!", "my secret words")]
)
def test_a_message_that_quotes_a_prompt_goes_out_without_it(said, text):
    stream = io.StringIO()
    emitter = Emitter(stream)
    emitter.withhold([text])
    emitter.event("end", step="forward", reason=said, error={"message": said, "traceback": None})
    event = json.loads(stream.getvalue())
    assert text not in stream.getvalue()
    assert WITHHELD in event["reason"]
    assert WITHHELD in event["error"]["message"]


def test_a_short_prompt_leaves_other_words_alone():
    stream = io.StringIO()
    emitter = Emitter(stream)
    emitter.withhold(["a"])
    emitter.event("end", step="bisect", reason="a model that answers")
    assert json.loads(stream.getvalue())["reason"] == "a model that answers"


def test_an_empty_prompt_is_refused_without_its_text(loaded):
    class Nothing:
        all_special_ids = ()

        def __call__(self, prompt, **_):
            return {"input_ids": families.torch.zeros((1, 0), dtype=families.torch.int64)}

    with pytest.raises(ValueError, match=r"no token of the prompt \(withheld\)"):
        tokenized(loaded, Nothing(), "secret", withheld=True)
    assert load_tokenizer(None, False) is None


def test_no_code_goes_out_beside_a_prompt_that_must_not():
    """The code may be the user's own, and have the prompt in it."""
    stream = io.StringIO()
    emitter = Emitter(stream)
    payload = {"origin": {"source": "a.py:1", "excerpt": {"lines": ["ask('abc')"]}}, "samples": [{"excerpt": "abc"}]}
    emitter.event("end", payload=payload)
    emitter.withhold(["abc"])
    emitter.event("end", payload=payload)
    before, behind = map(json.loads, stream.getvalue().splitlines())
    assert before["payload"] == payload
    assert behind["payload"] == {"origin": {"source": "a.py:1", "excerpt": None}, "samples": [{"excerpt": None}]}
