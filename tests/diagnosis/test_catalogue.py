"""The catalogue of known faults: each is recognised, none is taken for its neighbour, and its further test is read."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

from repro.core.answer import Ablation, Answer, CellInfo, ModelInfo, StepRow
from repro.core.encoding import replace
from repro.core.errors import RecordError
from repro.core.payloads import Environment, Figures, Finding, Inputs, Largest, Load, Origin, Reduction, Weights
from repro.core.records import Case, Kind, Outcome
from repro.core.sweep_answers import CellRow, Release, Versions
from repro.diagnosis.known import catalogue, excluded, looks_like
from repro.diagnosis.known.entries import documented, faults
from repro.diagnosis.known.fingerprint import facts, holds, in_range, matches, typical

CELL = CellInfo(
    torch="2.13.0+cpu", transformers="5.23.0", dtype="float32", attn="sdpa", device="cpu",
    platform="Linux-6.1-x86_64-with-glibc2.36",
)  # fmt: skip


WHERE = ("phase", "forward_op", "layer", "library", "decided_by")


def run(verdict="bad", kind="nonfinite", model="org/model", **more):
    """An answer as far as the catalogue reads it.

    Fields of the origin, of the cell and of the load step go where they belong by their names.
    """

    def given(*names):
        return {name: more[name] for name in names if name in more}

    origin = given("mechanism", "op", "module", "module_class", "token", "tensor", *WHERE)
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
    "transformers-25311": run(**MASKED, op=SOFTMAX, module_class="LlamaAttention", dtype="float16", attn="eager"),
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
    "transformers-44931": run(kind="load",
                              findings=["lm_head.weight: declared tied to another weight, but with other values"]),
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
    "pytorch-183601": run(kind="divergent", op="aten.reciprocal.default", mechanism="compiler", layer="inductor"),
}  # fmt: skip
"""One run of each kind, made from what its thread says."""
RUNS |= {
    "pytorch-109517": run(
        mechanism="kernel", op="aten._scaled_dot_product_efficient_attention.default", device="cuda:0", torch="2.1.0"
    ),
    "pytorch-124877": run(
        mechanism="kernel",
        op="aten._scaled_dot_product_efficient_attention.default",
        dtype="bfloat16",
        device="cuda:0",
        torch="2.3.0",
    ),
    "pytorch-119320": run(
        mechanism="kernel",
        op="aten._scaled_dot_product_efficient_attention_backward.default",
        phase="backward",
        device="cuda:0",
        torch="2.2.0",
    ),
    "pytorch-178251": run(
        mechanism="kernel",
        op="aten._scaled_dot_product_efficient_attention_backward.default",
        phase="backward",
        dtype="bfloat16",
        device="cuda:0",
        torch="2.9.0",
    ),
    "pytorch-196678": run(
        mechanism="kernel",
        op="aten._scaled_dot_product_cudnn_attention_backward.default",
        phase="backward",
        dtype="bfloat16",
        device="cuda:0",
        torch="2.12.0",
    ),
    "pytorch-110213": run(
        mechanism="kernel",
        op="aten._scaled_dot_product_efficient_attention.default",
        model_type="falcon",
        device="cuda:0",
        torch="2.1.0",
    ),
    "transformers-31035": run(
        mechanism="masked_row",
        op="aten._scaled_dot_product_efficient_attention.default",
        model_type="bert",
        dtype="bfloat16",
        device="cuda:0",
    ),
    "pytorch-127055": run(
        mechanism="kernel", op=FLASH, module="self_attn", module_class="MultiheadAttention", attn=None, torch="2.3.1"
    ),
    "pytorch-160064": run(
        mechanism="masked_row", op=SOFTMAX, module="attention", module_class="MultiheadAttention", attn=None
    ),
    "pytorch-41508": run(
        mechanism="masked_row", op=SOFTMAX, module="layers.0.self_attn", module_class="MultiheadAttention", attn=None
    ),
    "pytorch-197636": run(kind="divergent", op=BMM, device="mps:0", torch="2.14.0"),
    "pytorch-100764": run(kind="divergent", op="aten.neg.out", device="mps:0", torch="2.0.0"),
    "pytorch-145203": run(kind="divergent", op="aten.bitwise_xor_.Scalar", device="mps:0", torch="2.6.0"),
    "pytorch-170360": run(
        kind="divergent", mechanism="compiler", layer="inductor", op="aten.sum.default", device="mps:0", torch="2.9.1"
    ),
    "pytorch-191976": run(
        kind="divergent",
        mechanism="compiler",
        layer="inductor",
        op="aten.native_layer_norm.default",
        device="mps:0",
        torch="2.12.0",
    ),
    "pytorch-124206": run(kind="divergent", op="aten.index_put_.default", device="mps:0", torch="2.2.2"),
    "pytorch-96602": run(mechanism="kernel", op=SOFTMAX, device="mps:0", dtype="float16", torch="2.0.0"),
    "pytorch-151667": run(
        mechanism="kernel",
        op="aten._scaled_dot_product_attention_math_for_mps.default",
        module="attn",
        module_class="MultiheadAttention",
        attn=None,
        device="mps:0",
        torch="2.5.1",
    ),
    "pytorch-174861": run(
        kind="divergent",
        op="aten._scaled_dot_product_attention_math_for_mps.default",
        dtype="bfloat16",
        device="mps:0",
        torch="2.10.0",
    ),
    "pytorch-118115": run(
        kind="divergent",
        op="aten.addcdiv_.default",
        phase="optimizer",
        library="torch.optim.adamw",
        device="mps:0",
        torch="2.2.0",
    ),
    "pytorch-192212": run(kind="divergent", op="aten.convolution.default", device="mps:0", torch="2.12.0"),
    "pytorch-187521": run(mechanism="kernel", op="aten.baddbmm.default", device="mps:0", torch="2.12.0"),
    "pytorch-162779": run(kind="divergent", op="aten.linear.default", device="mps:0", torch="2.8.0"),
    "transformers-22468": run(
        kind="divergent",
        op="aten.upsample_bilinear2d.default",
        model_type="glpn",
        device="mps:0",
        torch="2.1.0.dev20230329",
        transformers="4.27.3",
    ),
    "pytorch-143978": run(kind="nonfinite", mechanism="compiler", layer="inductor", op="aten.angle.default"),
    "pytorch-99840": run(
        kind="nonfinite", mechanism="compiler", layer="inductor", op="aten.mul.Tensor", torch="2.1.0.dev20230419"
    ),
    "pytorch-100775": run(kind="nonfinite", mechanism="compiler", layer="inductor", op="aten._softmax.default"),
    "pytorch-168358": run(kind="nonfinite", mechanism="compiler", layer="inductor", op="aten.index_reduce.default"),
    "pytorch-189787": run(kind="divergent", mechanism="compiler", layer="inductor", op="aten.floor.default"),
    "pytorch-150114": run(kind="divergent", mechanism="compiler", layer="inductor", op="aten.tan.default"),
    "pytorch-173885": run(
        kind="nonfinite", mechanism="compiler", layer="inductor", op="aten.native_layer_norm.default", dtype="float16"
    ),
    "pytorch-172062": run(
        kind="divergent", mechanism="compiler", layer="inductor", op="aten.cumprod_backward.default", device="cuda:0"
    ),
    "pytorch-172061": run(
        kind="divergent",
        mechanism="compiler",
        layer="inductor",
        op="aten.affine_grid_generator.default",
        dtype="float16",
        device="cuda:0",
    ),
    "pytorch-160242": run(
        kind="divergent", mechanism="compiler", layer="inductor", op="aten.max_pool2d_with_indices.default"
    ),
    "pytorch-150165": run(kind="divergent", mechanism="compiler", layer="inductor", op="aten.linalg_inv_ex.default"),
    "pytorch-158310": run(mechanism="overflow", op="aten._log_softmax.default", dtype="float16", torch="2.7.1"),
    "pytorch-83863": run(kind="divergent", op="aten.mm.default", dtype="bfloat16", torch="2.0.1"),
    "pytorch-136299": run(kind="divergent", op="aten.baddbmm.default", dtype="float16", platform=MAC, torch="2.4.1"),
    "pytorch-163347": run(kind="divergent", op="aten.convolution.default", dtype="bfloat16", torch="2.5.1"),
    "pytorch-147303": run(
        mechanism="kernel",
        op="aten.native_batch_norm_backward.default",
        phase="backward",
        dtype="float16",
        torch="2.6.0",
    ),
    "pytorch-195701": run(
        mechanism="overflow",
        op="aten.batch_norm_backward_reduce.default",
        phase="backward",
        dtype="float16",
        device="cuda:0",
    ),
    "pytorch-41527": run(
        mechanism="kernel", op="aten.native_layer_norm.default", dtype="float16", device="cuda:0", torch="2.0.1"
    ),
    "pytorch-178123": run(mechanism="overflow", op="aten.native_layer_norm.default"),
    "pytorch-58123": run(
        mechanism="kernel", op="aten.convolution.default", dtype="float16", device="cuda:0", torch="2.0.1"
    ),
    "pytorch-163539": run(
        kind="divergent", op="aten.convolution.default", dtype="bfloat16", device="cuda:0", torch="2.9.0"
    ),
    "pytorch-187297": run(mechanism="invalid", op="aten.div.Tensor", phase="backward", forward_op="aten.sqrt.default"),
    "pytorch-108618": run(mechanism="invalid", op="aten.div.Tensor", phase="backward", forward_op="aten.log2.default"),
    "pytorch-49886": run(
        mechanism="invalid", op="aten.div.Tensor", phase="backward", forward_op="aten._linalg_svd.default"
    ),
    "pytorch-76531": run(
        mechanism="invalid", op="aten.div_.Tensor", phase="backward", forward_op="aten._linalg_eigh.default"
    ),
    "pytorch-31829": run(
        mechanism="invalid", op="aten.sub.Tensor", phase="backward", forward_op="aten.logsumexp.default"
    ),
    "pytorch-49724": run(
        mechanism="invalid", op="aten.sub.Tensor", phase="backward", forward_op="aten.logaddexp.default"
    ),
    "pytorch-98276": run(
        mechanism="divide_by_zero",
        op="aten.reciprocal.default",
        phase="backward",
        forward_op="aten.atan2.default",
        torch="2.4.1",
    ),
    "pytorch-8069": run(
        mechanism="divide_by_zero", op="aten.rsqrt.default", phase="backward", forward_op="aten.acos.default"
    ),
    "pytorch-116349": run(mechanism="invalid", op="aten.nll_loss_forward.default", phase="loss", decided_by="integers"),
    "captcha_break-29": run(
        mechanism="divide_by_zero", op="aten._ctc_loss.Tensor", phase="loss", decided_by="integers"
    ),
    "pytorch-14335": run(
        mechanism="kernel", op="aten._ctc_loss_backward.default", phase="backward", device="cuda:0", torch="2.0.1"
    ),
    "glide-finetune-5": run(
        mechanism="invalid", op="aten.addcdiv_.default", phase="optimizer", library="torch.optim.adam", dtype="float16"
    ),
    "pytorch-32137": run(
        mechanism="invalid",
        op="aten.div.Tensor",
        library="torch.nn.functional",
        decided_by="default constant",
        dtype="float16",
    ),
    "pytorch-183605": run(mechanism="divide_by_zero", op="aten.rsqrt.default", phase="forward", dtype="float16"),
    "transformers-12225": run(
        **HALF, op=ADD, module="model.encoder.layers.10", module_class="PegasusEncoderLayer", model_type="pegasus"
    ),
    "transformers-19229": run(
        **HALF, op=ADD, module="encoder.block.5.layer.1", module_class="LongT5LayerFF", model_type="longt5"
    ),
    "transformers-11461": run(
        **HALF, op=BMM, module="decoder.block.3.layer.0.SelfAttention", module_class="T5Attention", model_type="t5"
    ),
    "transformers-11076": run(
        **HALF,
        op="aten.addmm.default",
        module="transformer.h.5.mlp.c_proj",
        module_class="Linear",
        model_type="gpt_neo",
    ),
    "transformers-17433": run(
        mechanism="masked_row",
        op=SOFTMAX,
        module="model.decoder.layers.0.self_attn",
        module_class="OPTAttention",
        model_type="opt",
        dtype="float16",
        attn="eager",
    ),
    "transformers-18057": run(
        mechanism="masked_row",
        op=SOFTMAX,
        module="model.layers.0.self_attn",
        module_class="XGLMAttention",
        model_type="xglm",
        dtype="float16",
        attn=None,
    ),
    "transformers-33294": run(
        **HALF,
        op=BMM,
        module="model.layers.0.self_attn",
        module_class="Qwen2VLAttention",
        model_type="qwen2_vl",
        attn="eager",
    ),
    "vllm-40290": run(
        **HALF, op="aten.mul.Tensor", module="model.vision_tower", module_class="Gemma4VisionModel", model_type="gemma4"
    ),
    "Qwen3-522": run(
        **HALF,
        model="Qwen/Qwen2-7B-Instruct-AWQ",
        op=ADD,
        module="model.layers.3",
        model_type="qwen2",
        device="cuda:0",
        torch="2.1.0",
    ),
    "transformers-29720": run(
        **HALF,
        model="TheBloke/Mixtral-8x7B-Instruct-v0.1-AWQ",
        op=ADD,
        module="model.layers.3",
        model_type="mixtral",
        device="cuda:0",
    ),
    "AutoAWQ-458": run(
        **HALF, model="me/gemma-7b-awq", op=ADD, module="model.layers.3", model_type="gemma", device="cuda:0"
    ),
    "AutoGPTQ-657": run(
        **HALF,
        model="me/Meta-Llama-3-8B-Instruct-GPTQ-8bit",
        op=ADD,
        module="model.layers.3",
        model_type="llama",
        device="cuda:0",
    ),
    "bitsandbytes-1504": run(
        mechanism="unknown",
        model="Qwen/Qwen-7B",
        op=ADD,
        module="transformer.h.0",
        token="[PAD]",
        dtype="float16",
        device="cuda:0",
        torch="2.4.1",
    ),
    "diffusers-9844": run(
        **HALF,
        op="aten.convolution.default",
        model_class="AutoencoderKL",
        module="encoder.down_blocks.2.resnets.0.conv1",
        module_class="Conv2d",
        device="cuda:0",
    ),
    "TransformerLens-104": run(
        **HALF,
        model="EleutherAI/pythia-70m-deduped",
        op=ADD,
        module="gpt_neox.layers.3",
        module_class="GPTNeoXLayer",
        model_type="gpt_neox",
    ),
    "DeBERTa-77": run(
        **HALF,
        model="microsoft/mdeberta-v3-base",
        op=ADD,
        module="deberta.encoder.layer.9.output",
        model_type="deberta-v2",
    ),
    "Baichuan2-315": run(
        mechanism="masked_row",
        op=SOFTMAX,
        module="model.layers.0.self_attn",
        model="baichuan-inc/Baichuan2-7B-Chat",
        model_type="baichuan",
        token="<pad>",
        dtype="float16",
        device="cuda:0",
    ),
    "transformers-27676": run(mechanism="masked_row", op=SOFTMAX, phase="generate", model_type="gpt2", attn=None),
    "transformers-29554": run(kind="load", missing_keys=("blocks.0.gamma",), transformers="4.42.4"),
    "transformers-43429": run(
        kind="load", model_type="mistral3", missing_keys=("lm_head.weight",), transformers="5.0.0"
    ),
    "transformers-48154": run(
        kind="load",
        model_type="t5",
        findings=["encoder.embed_tokens.weight holds lm_head.weight's values, not decoder.embed_tokens.weight's"],
        transformers="5.15.1",
    ),
    "transformers-45005": run(
        kind="load",
        model_type="marian",
        findings=["lm_head.weight holds model.shared.weight's values, not its own"],
        transformers="5.3.0",
    ),
    "transformers-43880": run(
        kind="load",
        model_type="umt5",
        model_class="UMT5EncoderModel",
        missing_keys=("encoder.embed_tokens.weight",),
        transformers="5.0.0",
    ),
    "transformers-42362": run(
        kind="load", model_type="mvp", missing_keys=("model.decoder.embed_tokens.weight",), transformers="5.0.0"
    ),
    "transformers-25681": run(
        kind="divergent",
        op="aten.cos.default",
        module="model.rotary_emb",
        module_class="LlamaRotaryEmbedding",
        model_type="llama",
        dtype="bfloat16",
    ),
    "transformers-29496": run(
        kind="divergent",
        op="aten.cos.default",
        module="model.layers.0.self_attn.rotary_emb",
        module_class="MistralRotaryEmbedding",
        model_type="mistral",
        dtype="bfloat16",
    ),
    "transformers-270": run(
        mechanism="unset_memory", op="aten.empty.memory_format", model_class="TransfoXLModel", attn=None
    ),
    "TransformerLens-902": run(
        mechanism="unset_memory", op="aten.empty.memory_format", model_class="HookedTransformer", attn=None
    ),
    "diffusers-5316": run(
        kind="weights", mechanism="bad_weights", tensor="base_model.layers.0.q_proj.lora_A.default.weight"
    ),
    "Qwen3-VL-1099": run(
        kind="weights", mechanism="bad_weights", model_type="qwen2_5_vl", tensor="visual.patch_embed.proj.weight"
    ),
}
ALIKE = (
    ("pytorch-109517", "pytorch-110213"),
    ("pytorch-119320", "pytorch-178251"),
    ("pytorch-122045", "pytorch-162779"),
    ("pytorch-160064", "pytorch-41508"),
    ("pytorch-193487", "pytorch-197636"),
    ("transformers-45902", "transformers-48892"),
)
"""Pairs that no value of a run tells apart: each names the other, and the test of each is all that does."""


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


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_its_kind_is_taken_for_no_other(name):
    allowed = {name}.union(*(pair for pair in ALIKE if name in pair))
    assert set(ids(RUNS[name])) <= allowed


@pytest.mark.parametrize("pair", ALIKE, ids=" and ".join)
def test_those_that_cannot_be_told_apart_name_each_other(pair):
    by_id = {fault.id: fault for fault in faults()}
    assert all({*pair} - {name} <= set(by_id[name].test.neighbours) for name in pair)


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


SEEN = """[check]
script = "x"
seen = {{ "{}" = "{}" }}
[fingerprint]"""


def test_an_entry_is_read(tmp_path):
    (tmp_path / "one.toml").write_text(SOUND)
    (fault,) = faults(tmp_path)
    assert (fault.id, fault.title, fault.outcome) == ("one", None, "bug")
    assert (fault.test.ablation, fault.test.verdict) == ("attn=eager", "good")
    assert fault.fingerprint.conditions == {"verdict": ("bad",), "dtype": ("float16",)}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a/b#1", "a/b", "'issues' must name threads such as 'pytorch/pytorch#103749', got 'a/b'"),
        ("[fingerprint]", "[check]\nscript = 'x'\n[fingerprint]", "check: object missing required field seen"),
        (
            "[fingerprint]",
            SEEN.format("2.4.1", "bad"),
            "'check.seen' must name versions such as 'torch 2.4.1', got '2.4.1'",
        ),
        (
            "[fingerprint]",
            SEEN.format("torch 2.4.1", "skip"),
            "'check.seen' must say good or bad of torch 2.4.1, got 'skip'",
        ),
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


def test_a_shipped_entry_names_a_thread():
    assert [fault.id for fault in faults() if not fault.issues] == []


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.id)
def test_a_run_that_says_just_what_an_entry_asks_fits_it(fault):
    assert holds(fault.fingerprint.conditions, typical(fault.fingerprint.conditions))


def test_the_dtype_of_a_script_is_that_of_its_operator():
    whole, half = Figures(dtype="int64"), Figures(dtype="float16")
    script = replace(run(dtype=None), origin=Origin(inputs=(whole, half)))
    assert facts(script)["dtype"] == ("float16",)
    assert facts(replace(script, origin=Origin(inputs=(half,), output=Figures(dtype="float32"))))["dtype"] == (
        "float32",
    )
    assert facts(replace(script, origin=Origin(inputs=(whole,))))["dtype"] == ()


def test_a_script_whose_model_is_in_float16_is_recognised_where_its_softmax_is_in_float32():
    """Transformers computes the softmax of a model in float16 in float32."""
    script = run(dtype=None, **MASKED, op=SOFTMAX, module_class="OPTAttention")
    wide = Figures(dtype="float32")
    for dtype, known in (("float16", True), ("float32", False)):
        largest = Largest(tensor="w", value=1.0, dtype=dtype)
        ran = replace(script, origin=replace(script.origin, inputs=(wide,), output=wide, largest_weight=largest))
        assert ("transformers-17433" in ids(ran)) is known


@pytest.mark.parametrize(
    ("environment", "device"),
    [(Environment(torch="2.13.0"), ("cpu",)), (Environment(torch="2.13.0", accelerator="cuda"), ()), (None, ())],
)
def test_a_script_ran_on_the_cpu_where_there_is_nothing_else(environment, device):
    assert facts(replace(run(device=None), environment=environment))["device"] == device


# Entries of the user's own

NARROW = SOUND.replace('dtype = ["float16"]', 'op = ["mine.op*"]')


def test_an_own_entry_is_recognised(tmp_path):
    (tmp_path / "mine.toml").write_text(NARROW.replace('["a/b#1"]', "[]"))
    found = catalogue(tmp_path)
    assert (found.own, found.problems) == (frozenset({"mine"}), ())
    (match,) = looks_like(run(op="mine.op.default", ablations={"attn=eager": "good"}), found.faults)
    assert (match.issue, match.url, match.result) == ("mine", "", "agrees")
    assert match.sentence == ("Looks like: mine, w. What tells that it is this one: q: agrees (attn=eager is good).")


def test_own_entries_lie_in_the_users_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CONFIG_DIR", str(tmp_path))
    (tmp_path / "known").mkdir()
    (tmp_path / "known/mine.toml").write_text(NARROW)
    assert ids(run(op="mine.op.default")) == ["mine"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("broken", "issues = [", "broken.toml cannot be read as TOML"),
        ("broken", SOUND.replace("what", "whta"), "object contains unknown field whta"),
        ("broken", SOUND.replace("[]", '["none"]'), "broken.toml: 'test.neighbours' names 'none'"),
        ("pytorch-103749", SOUND, "pytorch-103749 is the name of an entry that ships with repro"),
    ],
)
def test_an_own_entry_that_cannot_be_used_is_told_and_left_out(tmp_path, name, text, said):
    (tmp_path / f"{name}.toml").write_text(text)
    (tmp_path / "sound.toml").write_text(NARROW)
    found = catalogue(tmp_path)
    assert found.own == {"sound"}
    (problem,) = found.problems
    assert said in problem
    assert problem.endswith("This entry is left out: mend the file, or remove it.")


def test_a_folder_of_own_entries_that_is_none_is_told(tmp_path):
    (tmp_path / "known").write_text("")
    (problem,) = catalogue(tmp_path / "known").problems
    assert "cannot be listed: Not a directory" in problem


# What the scripts of the entries give here

ALL = """
import json, sys
given, answers = json.load(sys.stdin), {}
for name, script in given.items():
    try:
        exec(compile(script, name, "exec"), {"__name__": "__main__"})
        answers[name] = "good"
    except AssertionError:
        answers[name] = "bad"
print(json.dumps(answers))
"""


def seen_here(fault):
    """What the entry says of the packages that are installed here; None where it says nothing."""
    for place, answer in fault.check.seen.items() if fault.check else ():
        parts = [part.split(" ") for part in place.split(", ")]
        if all(importlib.metadata.version(name).partition("+")[0] == version for name, version in parts):
            return answer
    return None


def test_every_script_of_an_entry_was_seen_to_fail():
    assert [fault.id for fault in faults() if fault.check and "bad" not in fault.check.seen.values()] == []


def test_the_scripts_of_the_entries_give_here_what_the_entries_say():
    """But those that compile, which takes half a minute each."""
    said = {fault.id: seen_here(fault) for fault in faults() if seen_here(fault)}
    scripts = {fault.id: fault.check.script for fault in faults() if fault.id in said}
    quick = {name: script for name, script in scripts.items() if "torch.compile" not in script}
    if not quick:
        pytest.skip("no entry was run with the packages that are installed here")
    command = [sys.executable, "-W", "ignore", "-c", ALL]
    done = subprocess.run(command, input=json.dumps(quick), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {name: said[name] for name in quick}
