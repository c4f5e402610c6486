"""A whole attention written out as its formula: the reference for a fused kernel, which would be its own judge."""

from repro.core.encoding import number
from repro.core.payloads import Call, Program
from repro.reproducer.code.calls import Render, base_name, bound, index_of
from repro.reproducer.code.tensors import WIDTH, literal


def is_attention(call: Call) -> bool:
    """Whether an operator is all of attention: query, key, value and mask."""
    return base_name(call.op).lstrip("_").startswith("scaled_dot_product")


def formula(program: Program, call: Call, render: Render) -> list[str] | None:
    """softmax(q k^T scale + mask) v in float64; 0 for a query without any key, which has nothing to sum.

    None where the call is no attention, or has arguments that this does not understand.
    """
    given = bound(call) if is_attention(call) else None
    if given is None or not given.keys() >= {"query", "key", "value"}:
        return None
    leaves = {leaf.name: leaf for leaf in program.leaves}
    shapes = {name: leaves[given[name]["ref"]].shape for name in ("query", "key")}
    query, key, value = (render(given[name]) for name in ("query", "key", "value"))
    heads = [shape[-3] if len(shape) > 2 else 1 for shape in shapes.values()]
    if heads[0] != heads[1]:
        key, value = (f"{name}.repeat_interleave({heads[0] // heads[1]}, -3)" for name in (key, value))
    scale = number(given.get("scale", {}).get("const"))
    factor = shapes["query"][-1] ** -0.5 if scale is None else scale
    scores = f"{query} @ {key}.mT" + ("" if factor == 1 else f" * {factor!r}")
    mask = given.get("attn_mask", {})
    if "ref" in mask:
        is_bool = leaves[mask["ref"]].dtype == "bool"
        less = f"({scores}).masked_fill(~{render(mask)}, {literal('-inf')})"
        scores = less if is_bool else f"{scores} + {render(mask)}"
    if given.get("is_causal", {}).get("const") is True:
        later = f"torch.ones({shapes['query'][-2]}, {shapes['key'][-2]}, dtype=torch.bool).triu(1)"
        scores = f"({scores}).masked_fill({later}, {literal('-inf')})"
    no_key = ".nan_to_num(0)" if program.mechanism == "masked_row" else ""
    index = index_of(program.output.index)
    whole = f"expected = (torch.softmax({scores}, -1){no_key} @ {value}){index}"
    if len(whole) <= WIDTH:
        return [whole]
    return [f"scores = {scores}", f"expected = (torch.softmax(scores, -1){no_key} @ {value}){index}"]
