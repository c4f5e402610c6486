"""The catalogue of known faults: each is recognised, none is taken for its neighbour, and its further test is read."""

import pytest

from repro.core.answer import Ablation, Answer, CellInfo, ModelInfo, StepRow
from repro.core.encoding import replace
from repro.core.errors import RecordError
from repro.core.payloads import Finding, Inputs, Load, Origin, Reduction, Weights
from repro.core.records import Case, Kind, Outcome
from repro.core.sweep_answers import CellRow, Release, Versions
from repro.diagnosis.known import excluded, looks_like
from repro.diagnosis.known.entries import documented, faults
from repro.diagnosis.known.fingerprint import facts, in_range, matches

CELL = CellInfo(
    torch="2.13.0+cpu", transformers="5.23.0", dtype="float32", attn="sdpa", device="cpu",
    platform="Linux-6.1-x86_64-with-glibc2.36",
)  # fmt: skip


def run(verdict="bad", kind="nonfinite", model="org/model", **more):
    """An answer as far as the catalogue reads it.

    Fields of the origin, of the cell and of the load step go where they belong by their names.
    """

    def given(*names):
        return {name: more[name] for name in names if name in more}

    origin = given("mechanism", "op", "module", "module_class", "token")
    load = given("model_type", "misaligned", "unset_buffers", "missing_keys")
    findings = tuple(Finding(problem=text) for text in more.get("findings", ()))
    asked = Outcome.BAD if kind == "load" else Outcome.GOOD
    return Answer(
        verdict=Outcome(verdict),
        reason="a test",
        kind=None if kind is None else Kind(kind),
        model=ModelInfo(id=model, class_=more.get("model_class")),
        cell=replace(CELL, **given("torch", "transformers", "dtype", "attn", "device", "platform")),
        case=Case(model),
        origin=Origin(**origin) if origin else None,
        load=Load(verdict=more.get("load", asked), findings=findings, **load),
        weights=Weights(verdict=Outcome.GOOD, overflows_in={"float16": more.get("overflows_in", ())}),
        steps=tuple(StepRow(step="load", verdict=Outcome.SKIP, reason=text) for text in more.get("reasons", ())),
        ablations=tuple(Ablation(name=name, verdict=Outcome(word)) for name, word in more.get("ablations", {}).items()),
    )


ADD, BMM, SOFTMAX = "aten.add.Tensor", "aten.bmm.default", "aten._softmax.default"
FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"
MAC = "macOS-15.6.1-arm64-arm-64bit"
HALF = {"dtype": "float16", "mechanism": "overflow"}
GEMMA = {
    **HALF,
    "model": "/models/gemma-3-270m-q4_k_m.gguf",
    "model_class": "Gemma3ForCausalLM",
    "model_type": "gemma3_text",
    "op": ADD,
    "module": "model.layers.7",
    "module_class": "Gemma3DecoderLayer",
    "token": "<bos>",
}
T5 = {**HALF, "model_type": "t5"}
ATTENTION = "model.layers.0.self_attn"
MASKED = {"mechanism": "masked_row", "module": ATTENTION}
RUNS = {
    "transformers-36822": run(**GEMMA),
    "transformers-25311": run(**MASKED, op=SOFTMAX, model_type="llama", dtype="float16", attn="eager"),
    "pytorch-103749": run(**MASKED, op=FLASH, torch="2.4.1", transformers="4.40.2"),
    "transformers-28675": run(mechanism="invalid", model_type="swinv2", transformers="4.39.3"),
    "transformers-48892": run(kind="load", unset_buffers=("model.positions",)),
    "transformers-45902": run(kind="load", model_type="qwen3_5_moe_text", unset_buffers=("model.rotary_emb.inv_freq",)),
    "transformers-30953": run(kind="load", mechanism="bad_weights", missing_keys=("classifier.weight",)),
    "pytorch-191238": run("skip", "crash", misaligned=28, platform=MAC, transformers="4.42.4"),
    "transformers-31771": run(misaligned=28, transformers="4.57.3"),
    "transformers-33317": run(**HALF, op=BMM, module=ATTENTION, model_type="qwen2", attn="eager"),
    "transformers-28163": run(**HALF, op=BMM, module=ATTENTION, model_type="phi", attn="eager"),
    "transformers-45491": run(**MASKED, op="aten._scaled_dot_product_efficient_attention.default",
                              model_class="Gemma3TextModel", dtype="bfloat16", device="cuda:0"),
    "transformers-38690": run(**MASKED, op=FLASH, torch="2.7.1", transformers="4.53.0"),
    "transformers-47651": run(**MASKED, model_type="gemma4_text", dtype="bfloat16", device="cuda:0"),
    "transformers-32390": run(**MASKED, op=FLASH, model_type="gemma2", transformers="4.43.3"),
    "transformers-44931": run(kind="load", findings=["lm_head.weight: declared tied to the input embedding"]),
    "transformers-31725": run("skip", None, "/m/tinyllama.Q6_K.gguf", transformers="4.42.3",
                              reasons=["ValueError: could not dequantize the tensors"]),
    "transformers-32526": run("skip", None, "/m/qwen1_5-32b-chat.gguf", transformers="4.43.4", model_type="qwen2",
                              reasons=["ValueError: could not dequantize the tensors"]),
    "pytorch-193487": run(kind="divergent", op=BMM, device="mps:0", torch="2.11.0"),
    "pytorch-182726": run(mechanism="unknown", model_class="Qwen2_5_VLModel", device="mps:0", torch="2.10.0"),
    "pytorch-156707": run(**MASKED, op=SOFTMAX, device="mps:0", torch="2.7.1"),
    "pytorch-122045": run(kind="divergent", op="aten.addmm.default", device="mps:0", torch="2.5.1"),
    "transformers-9295": run(**T5, op=ADD, module_class="T5LayerSelfAttention"),
    "transformers-5651": run(**T5, op="aten.mm.default", module_class="T5DenseActDense"),
    "pytorch-183601": run(kind="divergent", op=BMM),
}  # fmt: skip
"""One run of each kind, made from what its thread says."""


def ids(answer):
    return [match.id for match in looks_like(answer)]


def only(answer, name):
    """The match with one fault."""
    return next(match for match in looks_like(answer) if match.id == name)


def test_every_entry_has_a_run_of_its_kind_here():
    assert {fault.id for fault in faults()} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_its_kind_looks_like_it(name):
    assert name in ids(RUNS[name])


@pytest.mark.parametrize(
    ("name", "neighbour"), [(fault.id, other) for fault in faults() for other in fault.test.neighbours]
)
def test_a_neighbours_run_does_not(name, neighbour):
    assert name not in ids(RUNS[neighbour])


def test_the_real_gemma_run_looks_like_its_issue_and_like_no_other():
    (match,) = looks_like(
        run(**GEMMA, ablations={"dtype=float32": "good", "dtype=bfloat16": "good", "attn=eager": "bad"})
    )
    assert (match.issue, match.result, match.excluded) == ("huggingface/transformers#36822", "agrees", False)
    assert match.sentence == (
        "Looks like: huggingface/transformers#36822, Gemma 3 is broken with fp16. What tells it from "
        "huggingface/transformers#45491: bfloat16, with float32's range, is finite: agrees (dtype=bfloat16 is good)."
    )


def test_a_good_run_looks_like_nothing():
    assert not any(ids(replace(one, verdict=Outcome.GOOD)) for one in RUNS.values())


def test_where_the_further_test_disagrees_the_fault_is_ruled_out_and_comes_last():
    first, last = looks_like(run(**GEMMA, ablations={"dtype=bfloat16": "bad"}, misaligned=3))
    assert (first.id, first.result) == ("transformers-31771", "not run")
    assert (last.id, last.result, last.excluded) == ("transformers-36822", "disagrees", True)
    assert last.sentence.startswith("Ruled out: huggingface/transformers#36822")


def test_an_ablation_that_was_skipped_is_not_run():
    assert only(run(**GEMMA, ablations={"dtype=bfloat16": "skip"}), "transformers-36822").result == "not run"


def test_a_test_that_was_not_run_comes_with_its_command():
    match = only(run(**{**GEMMA, "model": "/my models/g.gguf"}), "transformers-36822")
    assert (match.seen, match.command) == (None, "repro '/my models/g.gguf' --dtype bfloat16")


@pytest.mark.parametrize(
    ("rows", "result"),
    [
        ([("2.5.1", "good")], "agrees"),
        ([("2.5.1+cpu", "good"), ("2.4.1", "bad")], "agrees"),
        ([("2.5.1", "bad")], "disagrees"),
        ([("2.5.1", "good"), ("2.9.1", "bad")], "disagrees"),
        ([("2.5.1", "skip")], "not run"),
        ([("2.4.1", "bad")], "not run"),
    ],
)
def test_other_environments_answer_by_cells_and_by_versions(rows, result):
    said = [(torch, Outcome(word)) for torch, word in rows]
    cells = tuple(CellRow(id=torch, torch=torch, verdict=verdict, reason="") for torch, verdict in said)
    probes = tuple(Release(version=torch, pins={"torch": torch}, verdict=verdict, reason="") for torch, verdict in said)
    for more in ({"cells": cells}, {"versions": Versions(package="torch", probes=probes)}):
        assert only(replace(RUNS["pytorch-103749"], **more), "pytorch-103749").result == result


def test_a_value_of_the_run_answers():
    missing = {"kind": "load", "mechanism": "bad_weights", "missing_keys": ("w",)}
    assert only(run(**missing), "transformers-30953").result == "agrees"
    assert only(run(**missing, unset_buffers=("b",)), "transformers-30953").result == "disagrees"
    assert only(run(**missing, load=Outcome.SKIP), "transformers-30953").result == "not run"


def test_what_only_a_person_can_ask_is_not_run():
    match = only(RUNS["pytorch-183601"], "pytorch-183601")
    assert (match.result, match.outcome) == ("not run", "not a bug")
    assert match.sentence.startswith("Known, and not a bug: pytorch/pytorch#183601")
    assert match.command.startswith("run it eager, compiled and in float64")


def test_the_address_of_the_thread():
    assert only(RUNS["pytorch-103749"], "pytorch-103749").url == "https://github.com/pytorch/pytorch/issues/103749"


@pytest.mark.parametrize(
    ("specifiers", "version", "within"),
    [
        (">=2.0,<2.5", "2.4.1+cu121", True),
        (">=2.0,<2.5", "2.5.1", False),
        ("<=2.13.0", "2.13.0+cpu", True),
        (">=2.13", "2.14.0.dev20260101", True),
        (">=2.0", "built here", False),
    ],
)
def test_ranges_of_versions(specifiers, version, within):
    assert in_range(specifiers, version) is within


def test_capitals_do_not_matter_and_brackets_are_no_pattern():
    assert matches("*Qwen[1]*", "/m/QWEN[1].gguf")
    assert not matches("[a]", "a")


@pytest.mark.parametrize(
    ("token", "kind"), [("<bos>", "special"), ("[PAD]", "padding"), ("\u2581capital", "text"), (None, None)]
)
def test_the_kind_of_the_token(token, kind):
    assert facts(run(token=token))["token"] == (() if kind is None else (kind,))


def test_a_token_that_the_tokenizer_calls_special_is():
    reduction = Reduction(inputs=Inputs(tokens=("START",), special=(True,)))
    assert facts(replace(run(token="START"), reduction=reduction))["token"] == ("special",)


SOUND = """
issues = ["a/b#1"]
what = "w"
[fingerprint]
dtype = ["float16"]
[test]
neighbours = []
question = "q"
ablation = "attn=eager"
verdict = "good"
"""


def test_an_entry_is_read(tmp_path):
    (tmp_path / "one.toml").write_text(SOUND)
    (fault,) = faults(tmp_path)
    assert (fault.id, fault.title, fault.outcome) == ("one", None, "bug")
    assert (fault.test.ablation, fault.test.verdict) == ("attn=eager", "good")
    assert fault.fingerprint.conditions == {"verdict": ("bad",), "dtype": ("float16",)}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("what =", "whta =", "unknown field whta"),
        ('what = "w"', "", "missing required field what"),
        ('what = "w"', "what = 3", "what: expected str, got int"),
        ('["float16"]', '"float16"', "fingerprint.dtype: expected array | null, got str"),
        ('["float16"]', "[16]", "fingerprint.dtype[0]: expected str, got int"),
        ("dtype", "dtpye", "fingerprint: object contains unknown field dtpye"),
        ('dtype = ["float16"]', "", "'fingerprint' must have a condition"),
        ('dtype = ["float16"]', 'torch = "2.5"', "'fingerprint.torch' must be a range such as '>=2.0,<2.5', got '2.5'"),
        ("[]", '["two"]', "names 'two', and there is no such file"),
        ('ablation = "attn=eager"', "", "must have one of ablation, cell, key, by_hand, got none"),
        ('verdict = "good"', "", "'test.verdict' must be good or bad, got None"),
        ('"good"', '"fine"', "'test.verdict' must be good or bad, got 'fine'"),
        ('ablation = "attn=eager"', 'cell = { pytorch = ">=2" }', "test.cell: object contains unknown field pytorch"),
        ('ablation = "attn=eager"', 'key = "load.tied"', "'test.is' is missing"),
        ('what = "w"', 'what = "w"\noutcome = "maybe"', "'outcome' must be one of bug, not a bug, got 'maybe'"),
        ("[fingerprint]", "[fingerprint", "cannot be read as TOML"),
    ],
)
def test_an_entry_that_cannot_be_used_names_file_and_key(tmp_path, old, new, said):
    (tmp_path / "one.toml").write_text(SOUND.replace(old, new))
    with pytest.raises(RecordError) as raised:
        faults(tmp_path)
    assert "one.toml" in str(raised.value)
    assert said in str(raised.value)


def test_a_documented_entry_says_which_models_it_is_about(tmp_path):
    (tmp_path / "x.toml").write_text('dtype = ["float16"]\nsource = "s"\nsays = "s"\ninstead = "i"\n')
    with pytest.raises(RecordError, match="'model' or 'model_type' must say"):
        documented(tmp_path)


FINITE = {"dtype=float32": "good", "dtype=bfloat16": "good"}


@pytest.mark.parametrize("model", ["google/embeddinggemma-300m", "/models/embeddinggemma-300m"])
def test_what_the_models_documentation_rules_out(model):
    found = excluded(run(model=model, dtype="float16", ablations=FINITE))
    assert (found.dtype, found.source) == ("float16", "https://huggingface.co/google/embeddinggemma-300m")


def test_a_models_type_can_be_what_is_documented():
    assert excluded(run(**HALF, model="me/summaries", model_type="pegasus")).id == "pegasus"


def test_a_local_copy_of_a_hub_model_is_known_by_its_last_two_names():
    assert excluded(run(model="/cache/bigscience/T0pp", dtype="float16", ablations=FINITE)).id == "t0"


@pytest.mark.parametrize(
    "answer",
    [
        run(**GEMMA, ablations=FINITE),
        run(model="google/embeddinggemma-300m", dtype="bfloat16", ablations=FINITE),
        run(model="google/embeddinggemma-300m", dtype="float16", ablations={"dtype=float32": "bad"}),
        run(model="google/embeddinggemma-300m", dtype="float16", mechanism="masked_row"),
        run("good", None, "google/embeddinggemma-300m", dtype="float16", ablations=FINITE),
        run(kind="weights", model="google/embeddinggemma-300m", dtype="float16", ablations=FINITE),
    ],
    ids=["Gemma 3 itself", "another dtype", "bad in every dtype", "no wider dtype tried", "good", "bad weights"],
)
def test_where_the_documentation_says_nothing_about_the_fault(answer):
    assert excluded(answer) is None
