"""Another engine's logits from a file: ids, positions, template and special tokens first, then the numbers."""

import pytest
import torch
from corpus import families
from safetensors.torch import save_file
from support.handmade import case_of, emitter

from repro.probes.model.session import Session
from repro.probes.steps.diff import run

PROMPT = "w17 w42 w99 w5 w63 w28 w110 w77"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    families.build("llama").save_pretrained(folder)
    families.write_tokenizer(folder)
    return folder


def asked(folder, path, prompts=(PROMPT,)):
    case = {**case_of(folder, "float32"), "prompts": list(prompts), "against": f"file:{path}"}
    return run(Session(case, str(folder), emitter()[0]), "diff")


@pytest.fixture(scope="module")
def engine(llama):
    """Ids and logits, by another kernel: eager attention and a product of its own."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama, attn_implementation="eager", dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(llama)(PROMPT, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return ids[0], model(ids).logits[0]


def written(path, tensors, **metadata):
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, path, metadata or None)
    return path


def top(logits, count=5):
    values, ids = logits.log_softmax(-1).topk(count)
    return {"top_logprobs": values, "top_ids": ids}


@pytest.mark.parametrize("prompts", [(PROMPT,), ()], ids=["the same prompt", "the ids of the file"])
@pytest.mark.parametrize("form", ["logits", "logprobs", "top"])
def test_the_same_model_agrees(llama, engine, tmp_path, form, prompts):
    ids, logits = engine
    given = {"logits": {"logits": logits}, "logprobs": {"logprobs": logits.log_softmax(-1)}, "top": top(logits)}[form]
    verdict, reason, payload = asked(llama, written(tmp_path / "a.safetensors", {"input_ids": ids, **given}), prompts)
    assert (verdict, "within rounding" in reason, payload["places"]) == ("good", True, 1)


def test_two_prompts_and_a_padded_vocabulary_are_taken(llama, engine, tmp_path):
    ids, logits = engine
    padded = torch.cat([logits, torch.zeros(len(logits), 3)], dim=-1)
    tensors = {"input_ids.0": ids, "logits.0": padded, "input_ids.1": ids[:5], "logits.1": padded[:5]}
    verdict, _, payload = asked(llama, written(tmp_path / "a.safetensors", tensors), ())
    assert (verdict, payload["places"]) == ("good", 2)


def test_logits_beyond_rounding_name_the_token(llama, engine, tmp_path):
    ids, logits = engine
    wrong = logits.clone()
    wrong[3, 17] += 1.0
    path = written(tmp_path / "a.safetensors", {"input_ids": ids, "logits": wrong}, engine="vllm 0.12")
    verdict, reason, payload = asked(llama, path)
    found = payload["departure"]
    assert (verdict, found["token_index"], found["channel_index"]) == ("bad", 3, 17)
    assert "vllm 0.12" in reason


@pytest.mark.parametrize(
    ("change", "metadata", "words"),
    [
        (lambda t: {**t, "input_ids": t["input_ids"].roll(1)}, {}, "token 0 of prompt 0 is 1 here and 77 in the file"),
        (lambda t: {**t, "positions": torch.arange(1, 10)}, {}, "the position of token 0 of prompt 0 is 0 here"),
        (lambda t: t, {"bos_token_id": "99"}, "bos_token_id is"),
        (lambda t: {"input_ids.0": t["input_ids"], "logits.0": t["logits"], "input_ids.1": t["input_ids"],
                    "logits.1": t["logits"]}, {}, "there are 1 prompts here and 2 in the file"),
    ],
)  # fmt: skip
def test_what_was_given_is_compared_before_any_tensor(llama, engine, tmp_path, change, metadata, words):
    ids, logits = engine
    tensors = change({"input_ids": ids, "logits": logits})
    verdict, reason, payload = asked(llama, written(tmp_path / "a.safetensors", tensors, **metadata))
    assert verdict == "bad"
    assert words in reason
    assert "end" not in payload


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"logits": torch.zeros(2, 3)}, "has no tensor input_ids"),
        ({"input_ids": torch.arange(2)}, "has no logits, logprobs, or top_ids"),
        ({"input_ids": torch.arange(2), "logits": torch.zeros(3, 4)}, "logits has 3 rows for 2 token ids"),
    ],
)
def test_a_file_of_another_form_is_refused_in_words(llama, tmp_path, tensors, words):
    verdict, reason, _ = asked(llama, written(tmp_path / "a.safetensors", tensors))
    assert (verdict, words in reason) == ("skip", True)


def test_a_file_that_is_none_is_refused_in_words(llama, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"nothing")
    verdict, reason, _ = asked(llama, path)
    assert (verdict, "cannot be read as .safetensors" in reason) == ("skip", True)
