"""Scripts that read a model's files. The faults are written by hand into small files, whose truth is known."""

import ast
import json
import os
import struct
import sys

import pytest
import transformers
from corpus import files as by_hand
from corpus.faults import BY_NAME
from support.reduced import ANSWER, CELL, ORIGIN
from support.running import in_process, outcome

from repro.core.answer import CheckpointFiles, ModelInfo, StepRow
from repro.core.encoding import decode, replace
from repro.core.payloads import (
    Environment,
    Files,
    Finding,
    Forward,
    Further,
    Inputs,
    Load,
    Mismatch,
    Misplaced,
    Pass,
    Reduction,
    Tensor,
    Values,
    WeightFile,
    Weights,
)
from repro.core.records import Case, Ending, Kind, Outcome
from repro.probes.checkpoint.files import list_weights
from repro.probes.checkpoint.header import BadHeader, read_header
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.reproducer.offer import offer, scripts
from repro.reproducer.scripts.checkpoint import checkpoint_of
from repro.reproducer.verify import UNCAUGHT, verify


def answer(folder, kind="load", dtype="float32", trust=False, files=(), **parts):
    """A bad run of a local model; ``files`` is what the files step said besides."""
    names = [path.name for pattern in ("*.safetensors", "*.bin") for path in sorted(folder.glob(pattern))]
    rows = tuple(WeightFile(name=name) for name in names)
    return replace(
        ANSWER,
        **{
            "kind": Kind(kind),
            "model": ModelInfo(id=str(folder)),
            "cell": replace(CELL, torch="2.13.0", dtype=dtype),
            "case": Case(str(folder), dtype=dtype, trust_remote_code=trust),
            "origin": None,
            "files": Files(source="folder", folder=str(folder), files=rows, **dict(files)),
            **parts,
        },
    )


def offered(folder, run, made):
    """What is offered, each script run once in this process."""
    run.mkdir(exist_ok=True)
    return offer(made, sys.executable, run, Mask(Private()), run=in_process)


def write_file(path, tensors):
    """A safetensors file of (name, dtype, shape, bytes), as the format says."""
    header, at = {}, 0
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(content)]}
        at += len(content)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(content for *_, content in tensors))


@pytest.fixture
def folder(tmp_path):
    """A model folder of one file with two tensors."""
    model = tmp_path / "private" / "tiny"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    write_file(model / "model.safetensors", [("a", "F32", [2], struct.pack("<2f", 1, 2)), ("b", "F32", [1], b"\0" * 4)])
    return model


def files_of(folder):
    """What the kit says of the files."""
    findings = tuple(decode(Finding, row) for row in list_weights(str(folder)).findings)
    return {"verdict": Outcome.BAD, "format": "safetensors", "findings": findings}


def header_problem(folder):
    with pytest.raises(BadHeader) as caught:
        read_header(str(folder / "model.safetensors"))
    return str(caught.value)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-3])


def longer(path):
    path.write_bytes(path.read_bytes() + b"more")


def no_json(path):
    path.write_bytes(struct.pack("<Q", 4) + b"{{{{")


def too_long_header(path):
    path.write_bytes(struct.pack("<Q", 1 << 20) + b"{}")


def other_shape(path):
    write_file(path, [("a", "F32", [3], b"\0" * 8)])


def twice(path):
    entry = b'"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'
    text = b"{" + entry + b", " + entry + b"}"
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0")


def hole(path):
    text = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [3, 4]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)


def stump(path):
    path.write_bytes(b"abc")


BREAK = [truncated, longer, no_json, too_long_header, other_shape, twice, hole, stump]


@pytest.mark.parametrize("damage", BREAK)
def test_a_damaged_file_is_shown_with_the_standard_library_alone(folder, tmp_path, damage):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    damage(path)
    header_problem(folder)
    found = offered(folder, tmp_path / "run", answer(folder, "files", files=files_of(folder)))
    assert (found.level, found.needs, found.verified) == ("files", (), True), found.reason
    path.write_bytes(whole)
    assert outcome((tmp_path / "run" / "reproducer.py").read_text(), (str(folder),))[0] == 0


def test_a_script_of_files_is_short_and_says_what_it_needs(folder):
    truncated(folder / "model.safetensors")
    hashes = {"model.safetensors": "ab" * 32, "other.safetensors": "cd" * 32}
    script = scripts(answer(folder, "files", files=files_of(folder)), hashes)[0]
    assert script.lines <= 15
    words = " ".join(ast.get_docstring(ast.parse(script.text)).split())
    assert words.startswith("model.safetensors is not as long as its header says: the file is cut: ")
    assert f"It needs the folder tiny as its argument (SHA-256 of model.safetensors: {'ab' * 32})." in words
    assert "private" not in script.text
    assert script.usage == ("tiny",)
    assert script.checkpoint.sha256 == hashes


def test_without_its_argument_a_script_does_not_say_that_the_fault_is_there(folder):
    truncated(folder / "model.safetensors")
    status, _, errors = outcome(scripts(answer(folder, "files", files=files_of(folder)))[0].text)
    assert (status, "the following arguments are required: folder" in errors) == (2, True)


def sharded(folder):
    (folder / "model.safetensors").unlink()
    write_file(folder / "one.safetensors", [("a", "U8", [1], b"\0")])
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def other_shard(folder):
    sharded(folder)
    write_file(folder / "two.safetensors", [("c", "U8", [1], b"\0")])


def no_index(folder):
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text("[]")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (sharded, "seen ['two.safetensors'] missing"),
        (other_shard, "seen ['b'] missing there"),
        (no_index, "seen TypeError"),
    ],
)
def test_a_fault_of_an_index_is_named(folder, tmp_path, damage, said):
    damage(folder)
    found = offered(folder, tmp_path / "run", answer(folder, "files", files=files_of(folder)))
    assert found.verified
    assert said in found.output


@pytest.mark.parametrize(("name", "shows"), [("gpt2-pickle-runs-code", True), ("gpt2-pickle-sound", False)])
def test_a_pickle_that_would_run_code_is_read_and_not_run(tmp_path, name, shows):
    folder = model(tmp_path, name)
    reason = "pytorch_model.bin was refused and nothing of it was run: Unsupported global."
    found = offered(folder, tmp_path / "run", answer(folder, "files", files={"format": "pickle", "reason": reason}))
    assert found.verified is shows
    assert ("pathlib.Path" in found.output) is shows
    assert not (folder / "pickle-ran").exists()


NAN = Weights(findings=(Tensor(tensor="a", file="model.safetensors", nan=1, neginf=1, first_index=(1,)),))


def test_a_bad_value_is_named_with_its_index(folder, tmp_path):
    write_file(folder / "model.safetensors", [("a", "F32", [3], struct.pack("<3f", 1, float("nan"), float("-inf")))])
    found = offered(folder, tmp_path / "run", answer(folder, "weights", weights=NAN))
    assert (found.level, found.verified) == ("weights", True)
    assert found.output == "seen 2 of 3 values not finite, the first at [[1]]; right is 0"
    assert found.checkpoint.id == "tiny"
    text = (tmp_path / "run" / "reproducer.py").read_text()
    assert "a in model.safetensors contains 1 NaN and 1 -inf, the first at [1]." in text
    assert found.checkpoint.sha256["model.safetensors"] in text.replace("\n", "")


@pytest.mark.parametrize(
    ("parameters", "memory", "device", "together"),
    [
        (268_098_176, 24 << 30, "cpu", True),
        (268_098_176, 8 << 30, "cpu", False),
        (268_098_176, 24 << 30, "cuda", False),
        (None, 24 << 30, "cpu", False),
        (268_098_176, None, "cpu", False),
    ],
)
def test_runs_that_load_the_model_go_on_at_once_where_there_is_room(
    folder, tmp_path, parameters, memory, device, together
):
    seen = []

    def run(python, text, argv, *, together):
        seen.append(together)
        return in_process(python, text, argv, together=together)

    write_file(folder / "model.safetensors", [("a", "F32", [3], struct.pack("<3f", 1, float("nan"), float("-inf")))])
    made = answer(
        folder, "weights", weights=NAN, environment=Environment(memory_bytes=memory),
        model=ModelInfo(id=str(folder), parameters=parameters), cell=replace(CELL, device=device),
    )  # fmt: skip
    offer(made, sys.executable, tmp_path, Mask(Private()), run=run)
    assert seen == [together]


def test_a_repaired_file_passes(folder):
    script = scripts(answer(folder, "weights", weights=NAN))[0]
    assert outcome(script.text, (str(folder),))[0] == 0


@pytest.mark.parametrize("files", [1, 2])
def test_a_finite_number_beyond_the_dtype_is_shown(folder, tmp_path, files):
    write_file(folder / "model.safetensors", [("a", "F32", [2], struct.pack("<2f", 1, -70000))])
    if files == 2:
        write_file(folder / "another.safetensors", [("b", "F32", [1], b"\0" * 4)])
    origin = replace(ORIGIN, tensor="model.a")
    weights = Weights(overflows_in={"float16": ("a",)})
    made = answer(folder, "nonfinite", "float16", weights=weights, origin=origin)
    found = offered(folder, tmp_path / "run", made)
    assert found.output == "seen -inf (float16), right is -70000.0 (the file)"
    assert found.verified


def model(tmp_path, name):
    folder = tmp_path / "model"
    BY_NAME[name].build(folder)
    return folder


LOST = BY_NAME["llama-missing-key"].truth.missing_keys[0]
WEIGHT = "transformer.h.1.mlp.c_fc.weight"
SWAPPED = Misplaced(tensor=WEIGHT, holds="transformer.h.2.mlp.c_fc.weight", belongs=WEIGHT)
INJECTED = Load(class_="InjectedForCausalLM", unset_buffers=("positions.table",))


@pytest.mark.parametrize(
    ("name", "load", "shows", "said"),
    [
        ("llama-missing-key", Load(class_="LlamaForCausalLM", missing_keys=(LOST,)), True, f"seen ['{LOST}'] missing"),
        ("llama-files-sound", Load(class_="LlamaForCausalLM", missing_keys=("x",)), False, "seen [] missing"),
        ("gpt2-mismatched-shape", Load(class_="GPT2LMHeadModel", mismatched=(Mismatch(tensor="x"),)), True, "shape"),
        ("custom-unset-buffer", INJECTED, True, "seen other values in ['positions.table']"),
        ("custom-persistent-buffer", INJECTED, False, "seen other values in []"),
        ("gpt2-files-sound", Load(class_="GPT2LMHeadModel", values=Values(differ=(WEIGHT,))), False,
         "seen 0 of 2048 values that differ from the file's"),
        ("gpt2-files-sound", Load(class_="GPT2LMHeadModel", misplaced=(SWAPPED,)), False,
         "seen the values of transformer.h.2.mlp.c_fc.weight: False, right are those of transformer.h.1"),
        ("gpt2-files-sound", Load(class_="GPT2LMHeadModel", meta=("x",)), False, "seen no values in []"),
    ],
)  # fmt: skip
def test_what_from_pretrained_gets_wrong_is_shown_by_calling_it(tmp_path, name, load, shows, said):
    folder = model(tmp_path, name)
    found = offered(folder, tmp_path / "run", answer(folder, trust=load is INJECTED, load=load))
    assert (found.level, found.verified) == ("load", shows), found.reason
    assert said in found.output
    text = (tmp_path / "run" / "reproducer.py").read_text().replace("\n", " ")
    assert ("It runs the model's own code." in text) is (load is INJECTED)


def test_other_files_than_those_of_the_run_are_refused(tmp_path):
    folder = model(tmp_path, "llama-missing-key")
    made = answer(folder, load=Load(class_="LlamaForCausalLM", missing_keys=("x",)))
    script = scripts(made, {"model.safetensors": "00" * 32})[0]
    status, _, errors = outcome(script.text, script.argv)
    assert status == UNCAUGHT
    assert "model.safetensors is not the file that the fault was seen with" in errors


def test_a_damaged_copy_in_a_cache_has_no_script(folder):
    finding = Finding(file="model.safetensors", problem="the cached blob is corrupt: its name", severity="bad")
    assert scripts(answer(folder, "files", files={"findings": (finding,)})) == ()


def forward(*ids):
    row = Pass(input_ids=ids, verdict=Outcome.BAD)
    return Forward(verdict=Outcome.BAD, output="logits", prompts=(row,))


def test_an_encoder_and_a_decoder_get_their_own_tokens(folder):
    reduction = Reduction(inputs=Inputs(ids=(4,), decoder_ids=(0,), attention_mask=False))
    load = Load(class_="T5ForConditionalGeneration")
    text = scripts(answer(folder, "nonfinite", forward=forward(4, 5), load=load, reduction=reduction))[0].text
    assert "decoder_input_ids = torch.tensor([[0]])" in text
    assert "model(input_ids=input_ids, decoder_input_ids=decoder_input_ids).logits" in text


def test_the_whole_model_is_run_on_the_reduced_input(tmp_path):
    folder = model(tmp_path, "llama-nan-embedding")
    token = BY_NAME["llama-nan-embedding"].truth.tensor_index[0]
    reduction = Reduction(inputs=Inputs(ids=(token,), attention_mask=True))
    load = Load(class_="LlamaForCausalLM")
    made = answer(folder, "nonfinite", forward=forward(44, token), load=load, reduction=reduction)
    assert f"input_ids = torch.tensor([[{token}]])" in scripts(made)[0].text
    found = offered(folder, tmp_path / "run", made)
    assert (found.level, found.verified) == ("model", True), found.reason
    assert "gives logits that are not all finite for one token." in (tmp_path / "run" / "reproducer.py").read_text()


def test_a_model_of_pictures_is_run_on_the_same_picture(tmp_path):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    made = transformers.ViTModel(transformers.ViTConfig(**sizes, image_size=16, patch_size=8))
    made.layernorm.weight.data[3] = float("nan")
    made.save_pretrained(tmp_path / "vit")
    drawn = Further(name="pixel_values", shape=(1, 3, 16, 16), dtype="float32", seed=0)
    row = Pass(input_source="seeded", seed=0, further=(drawn,), verdict=Outcome.BAD)
    asked = Forward(verdict=Outcome.BAD, output="last_hidden_state", prompts=(row,))
    run = answer(tmp_path / "vit", "nonfinite", forward=asked, load=Load(class_="ViTModel"))
    found = offered(tmp_path / "vit", tmp_path / "run", run)
    assert (found.level, found.verified) == ("model", True), found.reason
    assert "not all finite for seeded pixel_values." in (tmp_path / "run" / "reproducer.py").read_text()


def layout_model(tmp_path, box):
    """A LayoutLM with a NaN in the row of one place of the page, asked with one token in a box."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    made = transformers.LayoutLMModel(
        transformers.LayoutLMConfig(**sizes, vocab_size=20, max_2d_position_embeddings=64)
    )
    made.embeddings.x_position_embeddings.weight.data[41] = float("nan")
    made.save_pretrained(tmp_path / "layout")
    row = Pass(input_source="seeded", seed=0, input_ids=(3, 4), further=(box,), verdict=Outcome.BAD)
    asked = Forward(verdict=Outcome.BAD, output="last_hidden_state", prompts=(row,))
    return answer(tmp_path / "layout", "nonfinite", forward=asked, load=Load(class_="LayoutLMModel"))


BOX = Further(name="bbox", shape=(1, 2, 4), dtype="int64", made="exact", values=[[[1, 2, 3, 4], [41, 2, 50, 4]]])


def test_exact_values_are_written_into_the_script(tmp_path):
    found = offered(tmp_path / "layout", tmp_path / "run", layout_model(tmp_path, BOX))
    assert (found.level, found.verified) == ("model", True), found.reason
    text = (tmp_path / "run" / "reproducer.py").read_text()
    assert "bbox = torch.tensor([[[1, 2, 3, 4], [41, 2, 50, 4]]], dtype=torch.int64).reshape((1, 2, 4))" in text


def test_what_belongs_to_the_tokens_is_that_of_the_reduced_ones(tmp_path):
    cut = Further(name="bbox", shape=(1, 1, 4), dtype="int64", made="exact", values=[[[41, 2, 50, 4]]])
    run = replace(layout_model(tmp_path, BOX), reduction=Reduction(inputs=Inputs(ids=(4,), further=(cut,))))
    found = offered(tmp_path / "layout", tmp_path / "run", run)
    assert (found.level, found.verified) == ("model", True), found.reason
    assert "bbox = torch.tensor([[[41, 2, 50, 4]]]" in (tmp_path / "run" / "reproducer.py").read_text()


def test_many_values_of_a_file_are_no_script(tmp_path):
    box = Further(name="bbox", shape=(1, 2, 4), dtype="int64", made="file")
    assert scripts(layout_model(tmp_path, box)) == ()


def test_a_sound_model_shows_nothing(tmp_path):
    folder = model(tmp_path, "llama-files-sound")
    made = answer(folder, "nonfinite", forward=forward(44, 47), load=Load(class_="LlamaForCausalLM"))
    found = offered(folder, tmp_path / "run", made)
    assert not found.verified
    assert found.output == "seen 0 NaN or Inf in the logits (torch.float32), right is 0"


@pytest.mark.skipif(os.name == "nt", reason="there is no fork")
@pytest.mark.parametrize(
    ("dtype", "status", "said"), [("float16", 1, "seen SIGSEGV"), ("float32", 0, "seen 0")], ids=["dies", "lives"]
)
def test_a_child_that_dies_shows_its_signal(tmp_path, dtype, status, said):
    folder = model(tmp_path, "custom-crash-sigsegv-float16")  # it dies in float16 only
    step = StepRow(step="forward", verdict=Outcome.SKIP, ending=Ending.CRASHED, signal="SIGSEGV")
    load = Load(class_="InjectedForCausalLM")
    script = scripts(answer(folder, "crash", dtype, trust=True, steps=(step,), load=load))[0]
    found = verify(sys.executable, script.text, script.argv, runs=1)
    assert (script.level, found.exit_statuses) == ("crash", (status,)), found.reason
    assert found.output == f"{said}, right is exit status 0"


REVISION = "0123456789abcdef0123456789abcdef01234567"


def of_hub(folder, **more):
    made = answer(folder, load=Load(class_="LlamaForCausalLM", missing_keys=("x",)), **more)
    files = replace(made.files, source="hub", revision=REVISION)
    return replace(made, model=ModelInfo(id="org/tiny"), files=files)


def test_a_model_of_the_hub_is_named_with_its_revision(folder):
    script = scripts(of_hub(folder), {"model.safetensors": "00" * 32})[0]
    assert f'snapshot_download("org/tiny", revision="{REVISION}"' in script.text
    assert script.argv == script.usage == ()
    assert script.checkpoint == CheckpointFiles(
        id="org/tiny", revision=REVISION, sha256={"model.safetensors": "00" * 32}
    )


def test_a_model_of_the_hub_is_read_from_the_cache_without_network(tmp_path, monkeypatch):
    snapshot = tmp_path / "hub" / "models--org--tiny" / "snapshots" / REVISION
    BY_NAME["llama-missing-key"].build(snapshot)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    script = scripts(of_hub(snapshot))[0]
    found = verify(sys.executable, script.text, script.argv, runs=1)
    assert found.verified, found.reason


def test_a_gguf_file_is_loaded_by_its_name(folder):
    made = of_hub(folder)
    files = replace(made.files, source="gguf")
    script = scripts(replace(made, model=ModelInfo(id="/data/private/tiny.gguf"), files=files))[0]
    assert "gguf_file=name" in script.text
    assert script.needs == ("torch", "transformers", "accelerate", "gguf")
    assert (script.argv, script.usage) == (("/data/private/tiny.gguf",), ("tiny.gguf",))


@pytest.mark.parametrize(
    ("version", "dtype", "attn"),
    [("4.35.2", "torch_dtype", False), ("4.55.0", "torch_dtype", True), ("4.57.3", "dtype", True)],
)
def test_the_words_of_a_release_are_used_for_it(folder, version, dtype, attn):
    case = Case(str(folder), dtype="float32", attn="eager")
    cell = replace(CELL, transformers=version, dtype="float32")
    text = scripts(of_hub(folder, cell=cell, case=case))[0].text
    assert f" {dtype}=torch.float32" in text
    assert ('attn_implementation="eager"' in text) == attn


def test_random_weights_have_no_checkpoint(folder):
    made = replace(of_hub(folder), model=ModelInfo(id="org/tiny", weights="random", seed=0))
    assert checkpoint_of(made) is None
    assert scripts(made) == ()


def test_every_script_keeps_to_the_grammar_of_python_3_9(folder):
    for made in (of_hub(folder), answer(folder, "weights", weights=NAN)):
        for script in scripts(made):
            ast.parse(script.text, feature_version=(3, 9))


def test_the_corpus_and_this_file_write_the_same_format(folder):
    assert by_hand.read(folder / "model.safetensors")["a"].tolist() == [1.0, 2.0]


def test_a_bad_value_of_an_adapter_is_read_from_the_adapter(folder, tmp_path):
    """The files of the run are those of its base model; the adapter lies elsewhere."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    nan = struct.pack("<2f", float("nan"), 1)
    write_file(adapter / "adapter_model.safetensors", [("x.lora_A.weight", "F32", [2], nan)])
    bad = Tensor(tensor="x.lora_A.weight", file="adapter_model.safetensors", nan=1, first_index=(0,))
    made = answer(folder, kind="weights", files={"adapter": str(adapter)}, weights=Weights(findings=(bad,)))
    made = replace(made, model=ModelInfo(id=str(adapter)))
    (script,) = scripts(made)
    assert script.argv == (str(adapter),)
    status, printed, _ = outcome(script.text, [str(adapter)])
    assert (status, printed) == (1, "seen 1 of 2 values not finite, the first at [[0]]; right is 0")
