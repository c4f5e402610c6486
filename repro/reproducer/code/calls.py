"""Operator calls of a reduced case as expressions that a person would write: ``a + b``, ``torch.bmm(a, b)``.

An operator for which the tables below have no public spelling, or none with these arguments, is called by its own name:
``torch.ops.aten.NAME.OVERLOAD(...)``, which always works.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from repro.core.payloads import Call
from repro.reproducer.code.tensors import literal

Arg = Mapping[str, Any]
"""An argument: an object with one of ref, const, list, dtype, device, layout, memory_format."""
Render = Callable[[Arg], str]
"""Writes an argument as Python."""

INFIX = {
    "add": "+", "sub": "-", "subtract": "-", "mul": "*", "multiply": "*", "div": "/", "divide": "/",
    "true_divide": "/", "pow": "**", "remainder": "%", "floor_divide": "//", "eq": "==", "ne": "!=", "lt": "<",
    "le": "<=", "gt": ">", "ge": ">=", "bitwise_and": "&", "bitwise_or": "|",
}  # fmt: skip
"""Operators of two arguments that Python has a sign for."""

OF_TORCH = frozenset((
    "abs", "acos", "acosh", "addbmm", "addcdiv", "addcmul", "addmm", "addmv", "all", "amax", "amin", "any",
    "argmax", "asin", "asinh", "atan", "atan2", "atanh", "baddbmm", "bitwise_not", "bmm", "cat", "ceil", "clamp",
    "clamp_max", "clamp_min", "copysign", "cos", "cosh", "count_nonzero", "cumprod", "cumsum", "deg2rad", "digamma",
    "dist", "dot", "erf", "erfc", "erfinv", "exp", "exp2", "expm1", "flip", "floor", "fmax", "fmin", "fmod", "frac",
    "gather", "heaviside", "hypot", "i0", "index_select", "isfinite", "isinf", "isnan", "isneginf", "isposinf",
    "lerp", "lgamma", "log", "log10", "log1p", "log2", "logaddexp", "logaddexp2", "logcumsumexp", "logical_and",
    "logical_not", "logical_or", "logit", "logsumexp", "matmul", "maximum", "mean", "minimum", "mm", "mv",
    "mvlgamma", "nan_to_num", "nanmean", "nansum", "neg", "nextafter", "polar", "prod", "rad2deg", "reciprocal",
    "relu", "renorm", "roll", "rot90", "round", "rsqrt", "sgn", "sigmoid", "sign", "signbit", "sin", "sinc", "sinh",
    "sqrt", "square", "stack", "std", "sum", "take", "tan", "tanh", "trace", "tril", "triu", "trunc", "var",
    "where", "xlogy",
))  # fmt: skip
"""Functions of the namespace ``torch`` that take what the operator takes."""

OF_ITS_SPACE = {"special_": "torch.special", "linalg_": "torch.linalg"}
"""Beginnings of operators' names, and the namespace that has the rest of the name as a public function."""

OF_FUNCTIONAL = frozenset((
    "elu", "gelu", "glu", "group_norm", "hardswish", "hardtanh", "layer_norm", "leaky_relu", "linear", "log_sigmoid",
    "mish", "normalize", "relu6", "silu", "softplus",
))  # fmt: skip
"""The same for ``torch.nn.functional``."""

OF_TENSOR = frozenset((
    "clone", "contiguous", "detach", "diagonal", "expand", "flatten", "masked_fill", "movedim", "narrow", "permute",
    "repeat", "reshape", "select", "squeeze", "t", "transpose", "unsqueeze", "view",
))  # fmt: skip
"""The same for methods of the first argument."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """A public function for an operator whose arguments are in another order, or partly internal.

    Args:
        text: The call up to its optional arguments, with the names of ``names`` in braces.
        names: The operator's positional arguments in order.
        keywords: Optional ones that the public function takes under the same name.
        ignored: Those that do not change the result that is looked at.
        result: Which of the operator's results the public function gives; None where there is only one.
        words: What stands for the numbers of an argument in the public function.
    """

    text: str
    names: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    result: int | None = None
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ATTENTION = "torch.nn.functional.scaled_dot_product_attention({query}, {key}, {value}"
QKV = ("query", "key", "value")
OPTIONS = ("attn_mask", "dropout_p", "is_causal", "scale")
FACTORY = ("dtype", "device")
LOSS = "torch.nn.functional.{name}({{x}}, {{target}}"
REDUCTION = {"reduction": ("none", "mean", "sum")}
BATCH_NORM = "torch.nn.functional.batch_norm({x}, {mean}, {var}, {weight}, {bias}, {training}, {momentum}, {eps}"
BATCH_NORM_NAMES = ("x", "weight", "bias", "mean", "var", "training", "momentum", "eps")


def _loss(name: str, names: tuple[str, ...], more: str = "", **options: Any) -> Spelling:
    """A loss with its reduction as a word."""
    text = LOSS.format(name=name) + more + ", reduction={reduction}"
    return Spelling(text, names, words=REDUCTION, **options)


MEMORY = ("layout", "pin_memory")
SPELLINGS: Mapping[str, Spelling] = {
    "_softmax": Spelling("torch.softmax({x}, {dim}", ("x", "dim", "half_to_float")),
    "_log_softmax": Spelling("torch.log_softmax({x}, {dim}", ("x", "dim", "half_to_float")),
    "full": Spelling("torch.full({shape}, {value}", ("shape", "value"), FACTORY, MEMORY),
    "ones": Spelling("torch.ones({shape}", ("shape",), FACTORY, MEMORY),
    "scalar_tensor": Spelling("torch.tensor({value}", ("value",), FACTORY, MEMORY),
    "zeros": Spelling("torch.zeros({shape}", ("shape",), FACTORY, MEMORY),
    "_to_copy": Spelling("{x}.to({dtype}", ("x", "dtype")),
    "_unsafe_view": Spelling("{x}.reshape({shape}", ("x", "shape")),
    "nll_loss_forward": _loss(
        "nll_loss", ("x", "target", "weight", "reduction", "ignore_index"), ", {weight}, ignore_index={ignore_index}",
        result=0),
    "nll_loss2d_forward": _loss(
        "nll_loss", ("x", "target", "weight", "reduction", "ignore_index"), ", {weight}, ignore_index={ignore_index}",
        result=0),
    "mse_loss": _loss("mse_loss", ("x", "target", "reduction")),
    "smooth_l1_loss": _loss("smooth_l1_loss", ("x", "target", "reduction", "beta"), ", beta={beta}"),
    "huber_loss": _loss("huber_loss", ("x", "target", "reduction", "delta"), ", delta={delta}"),
    "binary_cross_entropy": _loss("binary_cross_entropy", ("x", "target", "weight", "reduction"), ", {weight}"),
    "native_group_norm": Spelling(
        "torch.nn.functional.group_norm({x}, {groups}, {weight}, {bias}, {eps}",
        ("x", "weight", "bias", "n", "channels", "size", "groups", "eps"), ignored=("n", "channels", "size"), result=0),
    "native_batch_norm": Spelling(BATCH_NORM, BATCH_NORM_NAMES, result=0),
    "_native_batch_norm_legit": Spelling(BATCH_NORM, BATCH_NORM_NAMES, result=0),
    "_native_batch_norm_legit_no_training": Spelling(
        "torch.nn.functional.batch_norm({x}, {mean}, {var}, {weight}, {bias}, False, {momentum}, {eps}",
        ("x", "weight", "bias", "mean", "var", "momentum", "eps"), result=0),
    "max_pool2d_with_indices": Spelling(
        "torch.nn.functional.max_pool2d({x}, {size}", ("x", "size", "stride", "padding", "dilation", "ceil_mode"),
        ("stride", "padding", "dilation", "ceil_mode"), result=0),
    "embedding": Spelling(
        "torch.nn.functional.embedding({indices}, {table}", ("table", "indices", "padding", "scale_grad", "sparse"),
        ignored=("padding", "scale_grad", "sparse")),
    "native_layer_norm": Spelling(
        "torch.nn.functional.layer_norm({x}, {shape}, {weight}, {bias}, {eps}",
        ("x", "shape", "weight", "bias", "eps"), result=0),
    "_fused_rms_norm": Spelling(
        "torch.nn.functional.rms_norm({x}, {shape}, {weight}, {eps}", ("x", "shape", "weight", "eps"), result=0),
    "scaled_dot_product_attention": Spelling(
        ATTENTION, (*QKV, "attn_mask", "dropout_p", "is_causal"), (*OPTIONS, "enable_gqa")),
    "_scaled_dot_product_flash_attention_for_cpu": Spelling(
        ATTENTION, (*QKV, "dropout_p", "is_causal"), OPTIONS, result=0),
    "_scaled_dot_product_flash_attention": Spelling(
        ATTENTION, (*QKV, "dropout_p", "is_causal", "debug"), OPTIONS, ("debug",), result=0),
    "_scaled_dot_product_efficient_attention": Spelling(
        ATTENTION, (*QKV, "attn_mask", "logsumexp", "dropout_p", "is_causal"), OPTIONS, ("logsumexp",), result=0),
    "_scaled_dot_product_cudnn_attention": Spelling(
        ATTENTION, (*QKV, "attn_mask", "logsumexp", "dropout_p", "is_causal", "debug"), OPTIONS,
        ("logsumexp", "debug"), result=0),
    "_scaled_dot_product_fused_attention_overrideable": Spelling(
        ATTENTION, (*QKV, "attn_mask", "dropout_p", "is_causal", "debug"), OPTIONS, ("debug",), result=0),
    "_scaled_dot_product_attention_math": Spelling(
        ATTENTION, (*QKV, "attn_mask", "dropout_p", "is_causal", "dropout_mask"), (*OPTIONS, "enable_gqa"), result=0),
    "_scaled_dot_product_attention_math_for_mps": Spelling(
        ATTENTION, (*QKV, "attn_mask", "dropout_p", "is_causal", "dropout_mask"), OPTIONS, result=0),
}  # fmt: skip
"""Operators whose public function looks different. A call that its spelling cannot express is made by its own name.
Source: the schemas in PyTorch's aten/src/ATen/native/native_functions.yaml."""


@dataclass(frozen=True, slots=True)
class Spelled:
    """A call as Python.

    Args:
        text: The expression.
        several: It gives a tuple, of which one item is taken.
        signs: It is ``a + b`` or the like, which needs brackets before an index.
    """

    text: str
    several: bool = False
    signs: bool = False

    def taken(self, result: int, index: Sequence[int]) -> str:
        """One element of one result."""
        places = [f"[{result}]"] if self.several else []
        places += [index_of(index)] if index else []
        return "".join([f"({self.text})" if places and self.signs else self.text, *places])


def index_of(index: Sequence[int]) -> str:
    """``[0, 5]``; nothing for a tensor that is one number."""
    return f"[{', '.join(map(str, index))}]" if index else ""


def base_name(op: str) -> str:
    """``add`` of ``aten.add_.Tensor``: without namespace, overload, and the underscore of a write in place."""
    name = op.split(".")[1] if "." in op else op
    return name.rstrip("_") if not name.endswith("__") else name


def spell(call: Call, render: Render, result: int = 0, own_name: bool = False) -> Spelled:
    """A call as a person would write it.

    Args:
        call: Of a reduction: op, args, kwargs.
        render: Writes an argument.
        result: Which result is wanted.
        own_name: Call it by its own name, even where there is a public spelling.
    """
    by_name = Spelled(_own_name(call, render), call.several or result > 0)
    if own_name or not call.op.startswith("aten."):
        return by_name
    args, kwargs = list(call.args), _said(call.kwargs)
    name = base_name(call.op)
    if name in SPELLINGS and (SPELLINGS[name].result or 0) == result:
        spelled = _by_table(SPELLINGS[name], args, kwargs, render)
        return by_name if spelled is None else Spelled(spelled)
    if by_name.several:
        return by_name
    if name in INFIX and len(args) == 2 and kwargs in ({}, {"alpha": {"const": 1}}):
        return Spelled(f"{_operand(render(args[0]))} {INFIX[name]} {_operand(render(args[1]))}", signs=True)
    if name == "rsub" and len(args) == 2 and not kwargs:
        return Spelled(f"{_operand(render(args[1]))} - {_operand(render(args[0]))}", signs=True)
    for space, names in (("torch", OF_TORCH), ("torch.nn.functional", OF_FUNCTIONAL)):
        if name in names:
            return Spelled(f"{space}.{name}({_arguments(args, kwargs, render)})")
    begin, _, rest = name.partition("_")
    if rest and (own := OF_ITS_SPACE.get(f"{begin}_")):
        return Spelled(f"{own}.{rest}({_arguments(args, kwargs, render)})")
    if name in OF_TENSOR and args and "ref" in args[0]:
        return Spelled(f"{render(args[0])}.{name}({_arguments(args[1:], kwargs, render)})")
    return by_name


def bound(call: Call) -> Mapping[str, Arg] | None:
    """The arguments of a call by the names of its spelling; None for an operator that has none."""
    spelling = SPELLINGS.get(base_name(call.op))
    if spelling is None or len(call.args) > len(spelling.names):
        return None
    return {**dict(zip(spelling.names, call.args, strict=False)), **call.kwargs}


def _by_table(spelling: Spelling, args: Sequence[Arg], kwargs: Mapping[str, Arg], render: Render) -> str | None:
    if len(args) > len(spelling.names):
        return None
    given = {**dict(zip(spelling.names, args, strict=False)), **kwargs}
    wanted = [name for name in spelling.names if f"{{{name}}}" in spelling.text]
    options = {
        name: given[name]
        for name in spelling.keywords
        if name in given and not _is_default(given[name]) and given[name] != {"device": "cpu"}
    }
    rest = set(given) - set(wanted) - set(spelling.keywords) - set(spelling.ignored)
    if not set(wanted) <= set(given) or any(not _is_default(given[name]) for name in rest):
        return None
    more = "".join(f", {name}={render(value)}" for name, value in options.items())
    return spelling.text.format(**{name: _worded(spelling, name, given[name], render) for name in wanted}) + more + ")"


def _worded(spelling: Spelling, name: str, value: Arg, render: Render) -> str:
    words, number = spelling.words.get(name), value.get("const")
    return literal(words[number]) if words and isinstance(number, int) and number < len(words) else render(value)


def _own_name(call: Call, render: Render) -> str:
    """``torch.ops.aten.add.Tensor(a, b)``. An operator that writes in place gets a copy: its inputs are used again."""
    space, name, *overload = call.op.split(".")
    args = [render(arg) for arg in call.args]
    if name.endswith("_") and not name.endswith("__") and args:
        args[0] += ".clone()"
    args += [f"{key}={render(value)}" for key, value in call.kwargs.items()]
    return f"torch.ops.{'.'.join([space, name, *overload])}({', '.join(args)})"


def _said(kwargs: Mapping[str, Arg]) -> dict[str, Arg]:
    """Without arguments that are None, their default."""
    return {name: value for name, value in kwargs.items() if value != {"const": None}}


def _is_default(value: Arg) -> bool:
    return "const" in value and value["const"] in (None, False, 0)


def _arguments(args: Sequence[Arg], kwargs: Mapping[str, Arg], render: Render) -> str:
    return ", ".join([*map(render, args), *(f"{name}={render(value)}" for name, value in kwargs.items())])


def _operand(text: str) -> str:
    """In brackets if it starts with a sign, which would bind differently."""
    return f"({text})" if text.startswith("-") else text


def renderer(
    reference: Render,
    types: Mapping[str, str] | None = None,
    devices: Mapping[str, str] | None = None,
    sequence: str = "[]",
) -> Render:
    """What writes arguments.

    Args:
        reference: Writes a leaf or an earlier result.
        types, devices: What stands for a dtype or a device; without them, itself.
        sequence: The brackets of a list.
    """

    def render(arg: Arg) -> str:
        kind, value = next((key, item) for key, item in arg.items() if key != "result")
        if kind == "ref":
            return reference(arg)
        if kind == "list":
            inner = ", ".join(map(render, value))
            return f"{sequence[0]}{inner}{',' if sequence == '()' and len(value) == 1 else ''}{sequence[1]}"
        if kind == "device":
            return (devices or {}).get(value, literal(value))
        if kind == "dtype":
            return (types or {}).get(value, f"torch.{value}")
        return f"torch.{value}" if kind in ("layout", "memory_format") else literal(value)

    return render


def arguments_in(nest: Any, kind: str) -> list[str]:
    """Every dtype, device or reference among arguments, once each, in order."""
    if isinstance(nest, Mapping):
        inside = [item for value in nest.values() for item in arguments_in(value, kind)]
        return list(dict.fromkeys([*([str(nest[kind])] if isinstance(nest.get(kind), str) else []), *inside]))
    if isinstance(nest, list | tuple):
        return list(dict.fromkeys(item for value in nest for item in arguments_in(value, kind)))
    return []
