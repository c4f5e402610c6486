"""Some modules of a model in a wider dtype, the rest as it is: code to be pasted. It needs torch alone."""

from typing import Any

import torch


def keep_in(model: torch.nn.Module, names: "list[str]", dtype: torch.dtype) -> "list[Any]":
    """Run these modules of ``model`` in ``dtype``, and let what they give stay in it.

    Every other module that has parameters of its own is given its inputs in their dtype. A sum of both dtypes is in
    float32, also where they are float16 and bfloat16, so a residual stream stays in it. Gives the handles of the hooks.
    """

    def cast(value: Any, to: torch.dtype) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(to) if value.is_floating_point() else value
        if type(value) in (tuple, list):
            return type(value)(cast(item, to) for item in value)
        return {key: cast(item, to) for key, item in value.items()} if type(value) is dict else value

    def casting(to: torch.dtype) -> Any:
        return lambda module, args, kwargs: (cast(args, to), cast(kwargs, to))

    kept = [model.get_submodule(name).to(dtype) for name in names]
    inside = {part for module in kept for part in module.modules()}
    handles = [module.register_forward_pre_hook(casting(dtype), with_kwargs=True) for module in kept]
    for module in model.modules():
        own = next((weight for weight in module.parameters(recurse=False) if weight.is_floating_point()), None)
        if own is not None and module not in inside:
            handles.append(module.register_forward_pre_hook(casting(own.dtype), with_kwargs=True))
    return handles
