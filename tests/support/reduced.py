"""Reduced cases and answers made by hand, as far as scripts, owners and known faults read them."""

import torch

from repro.core.answer import Answer, CellInfo, ModelInfo
from repro.core.encoding import replace
from repro.core.payloads import Call, Environment, Expected, Leaf, Module, Origin, Output, Program, Reduction
from repro.core.records import Case, Kind, Outcome
from repro.probes.reduce.shrink import gives_several

LIMIT, LIMIT32 = 65504.0, 3.4028234663852886e38
ORIGIN = Origin(
    module="model.layers.7", op="aten.add.Tensor", mechanism="overflow", token_index=0, token="<bos>",
    channel_index=163, source="modeling_gemma3.py:416", limit=LIMIT,
)  # fmt: skip
CELL = CellInfo(python="3.11.7", torch="2.13.0+cpu", transformers="5.23.0", device="cpu", dtype="float16")
ANSWER = Answer(
    verdict=Outcome.BAD,
    reason="a test",
    kind=Kind.NONFINITE,
    model=ModelInfo(id="/data/secret/gemma", class_="Gemma3ForCausalLM", weights="random", seed=0),
    cell=CELL,
    case=Case("/data/secret/gemma", dtype="float16"),
    tool="0.1.0",
    environment=Environment(packages={"torch": "2.13.0+cpu", "numpy": "2.4.6", "safetensors": "0.8.0"}),
    origin=ORIGIN,
)
"""A bad run of a local model with random weights, which has no reduction yet."""


def reduced(program=None, module=None, **changed):
    """The same run with a reduction."""
    return replace(ANSWER, **{"reduction": Reduction(program=program, module=module), **changed})


def leaf(name, shape, values, dtype="float16", layout=None):
    rule = values if isinstance(values, dict) else {"kind": "constant", "value": values}
    return Leaf(name=name, shape=tuple(shape), values=rule, dtype=dtype, layout=layout)


def call(op, *args, name="out", **kwargs):
    """A call; a string is a reference, anything else a constant unless it is an argument already."""

    def argument(item):
        if isinstance(item, str):
            return {"ref": item}
        return item if isinstance(item, dict) else {"const": item}

    given = {key: argument(item) for key, item in kwargs.items()}
    space, _, named = op.partition(".")
    packet, _, overload = named.partition(".")
    func = getattr(getattr(getattr(torch.ops, space), packet, None), overload or "default", None)
    several = func is not None and gives_several(func)  # an operator that this PyTorch does not have gives one
    return Call(op=op, args=tuple(map(argument, args)), kwargs=given, name=name, several=several)


def program(leaves, *calls, seen="inf", expected=None, mechanism="overflow", index=None, result=0, limit=LIMIT):
    """Operators in order, of which the last has the bad element."""
    index = (0,) * len(leaves[0].shape) if index is None else tuple(index)
    return Program(
        leaves=tuple(leaves), calls=calls, seen=seen, mechanism=mechanism, limit=limit, device="cpu",
        output=Output(call=len(calls) - 1, result=result, index=index),
        expected=None if expected is None else Expected(value=expected, dtype="float64"),
    )  # fmt: skip


def elements(base, *places):
    """The rule for a tensor that is one number but for a few elements."""
    return {"kind": "elements", "base": base, "elements": [[list(index), value] for index, value in places]}


def listed(*values):
    """The rule for a tensor of these values."""
    return {"kind": "list", "values": list(values)}


ADD = program([leaf("a", (1,), 55008.0), leaf("b", (1,), 13376.0)], call("aten.add.Tensor", "a", "b"), expected=68384.0)
SOUND = replace(ADD, leaves=(leaf("a", (1,), 1.0), leaf("b", (1,), 1.0)))
MODULE = Module(
    model_class="LlamaModel", config_class="LlamaConfig", dtype="float16", attn="eager",
    config={"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1},
    path="layers.0.mlp", class_="LlamaMLP", leaves=(leaf("x", (1, 1, 8), 100.0),), args=({"ref": "x"},),
    parameters=(
        leaf("down_proj.weight", (8, 8), elements(0.0, ((3, 0), 1.0))),
        leaf("gate_proj.weight", (8, 8), 1.0),
        leaf("up_proj.weight", (8, 8), 1.0),
    ),
    output=Output(index=(0, 0, 3)), seen="nan", expected=Expected(value=640000.0, dtype="float32"),
    op="aten.mul.Tensor", source="modeling_llama.py:177", mechanism="overflow", limit=LIMIT,
)  # fmt: skip
"""Each of gate and up sums 8 times 100. silu(800) * 800 is 640000, which is inf; 0 * inf in the next product is NaN."""
