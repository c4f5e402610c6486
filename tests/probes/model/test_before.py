"""What is asked before a model is built: its configuration, its room, its time, and a tokenizer's rules."""

import json
import shutil
import signal
import time

import pytest
import torch
from corpus.families import write_tokenizer
from support.handmade import load_folder

from repro.probes.checkpoint import limits
from repro.probes.checkpoint.limits import OverLimit
from repro.probes.checkpoint.resolve import Source, resolve
from repro.probes.model import load as module
from repro.probes.model.before import room
from repro.probes.model.before.described import BadConfig, blamed, described
from repro.probes.model.before.growth import check_prompt, most_made, too_much
from repro.probes.model.before.room import bounded, check_fits, free_memory, gigabytes
from repro.probes.model.compat import CannotLoad, model_class, read_config, size_without_memory
from repro.probes.model.forward import look
from repro.probes.model.inputs import load_tokenizer, make_inputs
from repro.probes.model.load import load


@pytest.fixture
def folder(tmp_path, checkpoints):
    """A sound model's folder that a test may change."""
    shutil.copytree(checkpoints["gpt2"], tmp_path / "model")
    write_tokenizer(tmp_path / "model")
    return tmp_path / "model"


def changed(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
    return str(folder)


def loaded(folder, **case):
    case = {"model": str(folder), "weights": "checkpoint", **case}
    return load(case, resolve(case))


def test_the_size_without_memory_is_that_of_the_model(checkpoints):
    for name, folder in checkpoints.items():
        config = read_config(Source("folder", str(folder)), False)
        chosen = model_class(config, False)
        size = size_without_memory(chosen, config, False, torch.float16, float("inf"))
        model = load_folder(folder).model
        buffers = sum(one.numel() * one.element_size() for one in model.buffers())
        assert size.bytes == 2 * sum(one.numel() for one in model.parameters()) + buffers, name
        assert size.whole


def test_what_is_mapped_needs_no_memory_and_what_is_widened_does(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "check_fits", lambda needed, kind, remedy, whole: asked.append((needed, kind)))
    model = loaded(folder).model
    bytes_of = sum(one.numel() for one in model.parameters()) * 4
    buffers = sum(one.numel() * one.element_size() for one in model.buffers())
    assert asked == [(buffers, "float32")]
    loaded(folder, dtype="float64")
    assert asked[1] == (2 * bytes_of + buffers, "float64")
    loaded(folder, weights="random:0")
    assert asked[2] == (bytes_of + buffers, "float32")


def test_a_model_that_does_not_fit_is_told_before_it_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(room, "free_memory", lambda: 10_000)
    monkeypatch.setattr(module, "free_memory", lambda: 10_000)
    assert loaded(folder)  # its weights are mapped
    with pytest.raises(OverLimit, match=r"needs more than 0\.0 GB in float64, and this machine has 0\.0 GB free"):
        loaded(folder, dtype="float64")
    monkeypatch.setenv(limits.VARIABLE, "none")
    assert loaded(folder, dtype="float64")


def test_half_of_it_is_offered_where_that_would_fit(folder, monkeypatch):
    needed = sum(one.numel() for one in loaded(folder).model.parameters()) * 4
    for free, offered in ((needed * 2 // 3, True), (needed // 3, False)):
        for place in (room, module):
            monkeypatch.setattr(place, "free_memory", lambda free=free: free)
        with pytest.raises(OverLimit) as caught:
            loaded(folder, weights="random:0")
        assert ("--dtype bfloat16" in str(caught.value)) is offered


def test_free_memory_is_the_least_of_machine_and_group(monkeypatch):
    whole = free_memory()
    assert whole > 0
    monkeypatch.setattr(room, "_left_in_groups", lambda: iter([5]))
    assert free_memory() == 5
    check_fits(5, "float32")
    with pytest.raises(OverLimit, match="--limits none"):
        check_fits(6, "float32")
    monkeypatch.setattr(room, "free_memory", lambda: None)
    check_fits(10**18, "float32")


@pytest.mark.parametrize(("count", "text"), [(54e9, "54 GB"), (1.3e12, "1,300 GB"), (2.5e8, "0.2 GB")])
def test_gigabytes(count, text):
    assert gigabytes(count) == text


# The interruption may fall into a callback of the garbage collector (hypothesis has one), where Python passes it over;
# the next one comes a moment later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_too_many_layers_are_stopped_and_nothing_is_left_behind(folder, monkeypatch):
    import resource

    def state():
        register = torch.nn.Module.register_parameter
        return resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM), register

    before = state()
    monkeypatch.setenv(limits.VARIABLE, "0.01")
    with pytest.raises(OverLimit, match=r"takes more than 1 seconds.*layers.*--limits 10"):
        loaded(changed(folder, n_layer=10**9))
    assert state() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_swallows_the_interruption_is_interrupted_again(monkeypatch):
    monkeypatch.setattr(room, "AGAIN_SECONDS", 0.05)

    def stubborn():
        for _ in range(2):
            try:
                while True:
                    time.sleep(0.01)
            except BaseException:  # noqa: BLE001 - a library that swallows all
                continue
        while True:
            time.sleep(0.01)

    with pytest.raises(OverLimit, match="takes more than"), bounded("It", 0.05):
        stubborn()


def test_more_memory_than_there_is_is_refused_and_not_taken(monkeypatch):
    with pytest.raises(OverLimit, match="takes more memory than there is"), bounded("It"):
        bytearray(1 << 46)
    monkeypatch.setenv(limits.VARIABLE, "none")
    with bounded("It"):
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("null", "config.json holds None, where an object"),
        ("", "config.json cannot be read: it is empty"),
        ("version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("<html></html>", "a web page"),
        ("\ufeff{}", "a byte-order mark"),
        ("{", "save_pretrained"),
    ],
)
def test_a_configuration_that_is_none(folder, text, said):
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(CannotLoad, match=said):
        read_config(Source("folder", str(folder)), False)


def test_what_stands_beside_it_is_an_object_too(folder):
    assert described(str(folder))["model_type"] == "gpt2"
    (folder / "generation_config.json").write_text("{")  # the library leaves that out
    assert described(str(folder))
    for text, said in (("[]", "holds "), ("[" * 9999, "nested more than 100")):
        (folder / "generation_config.json").write_text(text)
        with pytest.raises(BadConfig, match=rf"generation_config\.json.*{said}"):
            described(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(BadConfig, match=r"config\.json cannot be read: No such file"):
        described(str(folder))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"activation_function": "nope"}, r"config\.json says activation_function 'nope'\. Without it it can be built"),
        ({"layer_norm_epsilon": "small"}, r"layer_norm_epsilon"),
        ({"architectures": 3}, r"architectures in config\.json is 3: expected a list of names"),
        ({"dtype": 3}, r"dtype"),
    ],
)
def test_an_entry_that_cannot_be_is_named(folder, entries, said):
    with pytest.raises(CannotLoad, match=said):
        loaded(changed(folder, **entries))


@pytest.mark.parametrize("name", ["pipeline", "PreTrainedModel", "AutoConfig", "GPT2Config", "Nope"])
def test_an_architecture_that_is_no_model_is_passed_over(folder, name):
    assert loaded(changed(folder, architectures=[name])).class_name == "GPT2LMHeadModel"


def test_blame_is_an_experiment():
    def works(data):
        if "b" in data or "c" not in data:
            raise ValueError

    assert blamed({"a": 1, "b": 2, "c": 3}, works) == (
        "config.json says b 2. Without it it can be built: correct that, or write the file again with"
        " save_pretrained()."
    )
    assert blamed({"a": 1, "c": 3, "b": 0, "d": 0}, lambda data: None) == ""  # not one of four, but any
    assert blamed({"a": 1}, lambda data: 1 / 0) == ""


def rules(folder, **parts):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))
    load_tokenizer.cache_clear()
    return load_tokenizer(str(folder), False)


def test_a_tokenizer_s_growth_is_arithmetic(folder):
    assert most_made(load_tokenizer(str(folder), False), 10) == 11  # <bos> in front
    double = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    grown = rules(folder, normalizer={"type": "Sequence", "normalizers": [double] * 20})
    assert most_made(grown, 10) == 10 * 2**20 + 1
    check_prompt(grown, "a" * 10)
    with pytest.raises(OverLimit, match="the limit is 300,000,000"):
        check_prompt(grown, "a" * 1000)
    assert too_much(grown, "a") is None
    assert "The prompt has 4,000,001 characters" in too_much(grown, "a" * 4_000_001)
    assert most_made(None, 7) == 7


def test_a_tokenizer_that_cannot_be_read_says_so(folder):
    (folder / "tokenizer.json").write_text("{")
    load_tokenizer.cache_clear()
    with pytest.raises(CannotLoad, match=r"The tokenizer cannot be read: .*tokenizer\.json.*or remove it"):
        load_tokenizer(str(folder), False)


def test_a_token_beyond_the_vocabulary_is_named(folder):
    words = json.loads((folder / "tokenizer.json").read_text())["model"]
    words["vocab"]["w5"] = 900
    rules(folder, model=words)
    at = loaded(folder)
    (inputs,) = make_inputs(at, ["w4 w5"], False)
    with pytest.raises(CannotLoad, match=r"the id 900 \('w5'\), and the model's embedding has 128 rows"):
        look(at.model, inputs)


def test_a_prompt_longer_than_the_model_says_how_long_it_may_be(folder):
    at = loaded(folder)
    (inputs,) = make_inputs(at, ["w4 " * 200], False)
    with pytest.raises(CannotLoad, match=r"The prompt has 201 tokens, and the model takes 64"):
        look(at.model, inputs)


def test_a_folder_without_weights_says_what_is_there(folder):
    from repro.probes.checkpoint.files import list_weights

    (folder / "model.safetensors").unlink()
    assert list_weights(str(folder)).findings[0]["problem"].endswith("--weights random:0 would need none")
    (folder / "consolidated.00.pth").write_text("")
    assert "found: consolidated.00.pth" in list_weights(str(folder)).findings[0]["problem"]
    (folder / "adapter_config.json").write_text("{}")
    assert "it is an adapter" in list_weights(str(folder)).findings[0]["problem"]
