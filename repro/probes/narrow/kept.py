"""The step's answer: the set in words, the code that keeps it, and that code run in a process of its own."""

import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Optional

import torch

from ..model.forward import main_output, run
from ..model.load import Loaded
from ..model.precision import in_dtype
from ..values.figures import dtype_name
from . import keeping
from .keep import Names, Search, cost, wide_run
from .noise import TIMES, Noise

SECONDS = 1800  # at most, for the process of its own: it loads the model again
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


def keep(
    loaded: Loaded, inputs: list[Any], case: dict[str, Any], cache: str, dtype: torch.dtype = torch.float32
) -> tuple[str, dict[str, Any]]:
    """(sentence, payload); ``dtype`` is that of the modules that are kept, float32 or bfloat16.

    Raises:
        CannotFollow, NotSound, DigitsLost: there is no float32 run to hold it against; the message says why.
    """
    narrow, rounded = loaded.dtype, dtype if dtype != torch.float32 else loaded.dtype
    with in_dtype(loaded, torch.float32):
        wide = wide_run(replace(loaded, dtype=torch.float32), inputs, narrow, rounded)
    search = Search(loaded, wide, dtype)
    names = search.answer()
    payload: dict[str, Any] = {
        "dtype": dtype_name(narrow),
        "kept_in": dtype_name(dtype),
        "rounded_to": dtype_name(rounded),
        "modules": None if names is None else list(names),
        "candidates": len(wide.order),
        "trials": len(search.trials),
        "bytes": None,
        "bytes_of_model": cost(loaded.model, ())[1],
        "noise": max(noise.rmse for noise in wide.noises),
        "allowed": TIMES,
        "code": None,
        "verified": None,
    }
    if names is None:
        return f"no proper subset of the modules in {dtype_name(dtype)} makes {dtype_name(narrow)} sound", payload
    found = search.agreements[frozenset(names)]
    payload.update(
        bytes=cost(loaded.model, names, dtype)[0],
        rmse=max(one.rmse or 0.0 for one in found),
        flips=sum(one.flips for one in found),
        words=in_short(names),
    )
    if not names:
        return f"nothing has to stay in {dtype_name(dtype)}: {_agrees(payload)}", payload
    payload["code"] = code_of(names, dtype)
    payload["verified"], payload["verified_reason"] = verify(payload["code"], wide.noises, case, cache)
    share = payload["bytes"] / payload["bytes_of_model"]
    sentence = f"sound with {len(names)} of {len(wide.order)} modules in {dtype_name(dtype)} ({payload['words']})"
    sentence += (
        f", each of them needed: {payload['bytes']:,} bytes more, {share:.2g} of the weights; {_agrees(payload)}"
    )
    return sentence, payload


def _agrees(payload: dict[str, Any]) -> str:
    ratio = payload["rmse"] / payload["noise"] if payload["noise"] else 0.0
    return "the output differs from float32 by {:.3g} (RMSE), {:.2g} times what rounding to {} makes".format(
        payload["rmse"], ratio, payload["rounded_to"]
    )


def in_short(names: Names) -> str:
    """The names, with the numbers of layers that have the same module together: "model.layers.8-17.input_layernorm"."""
    found: dict[str, list[int]] = {}
    for name in names:
        match = NUMBER.search(name)
        pattern = name if match is None else f"{name[: match.start()]}{{}}{name[match.end() :]}"
        found.setdefault(pattern, []).extend([] if match is None else [int(match.group())])
    return ", ".join(pattern.replace("{}", _ranges(numbers)) for pattern, numbers in found.items())


def _ranges(numbers: list[int]) -> str:
    """ "3,8-17"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def code_of(names: Names, dtype: torch.dtype) -> str:
    """A file to be imported, or to be pasted: the function, the names, and how it is called."""
    listed = "".join(f"    {name!r},\n" for name in names)
    called = "# After loading the model: keep_in(model, KEEP, DTYPE)"
    return f"{inspect.getsource(keeping)}\n\nDTYPE = {dtype}\nKEEP = [\n{listed}]\n\n{called}\n"


CHILD = """
import importlib, json, sys
with open(sys.argv[1], encoding="utf-8") as opened:
    given = json.load(opened)
sys.path[:] = given["path"]
print(json.dumps(importlib.import_module(given["module"]).in_this_process(given)))
"""


def verify(code: str, noises: Sequence[Noise], case: dict[str, Any], cache: str) -> tuple[Optional[bool], str]:
    """Whether the code, run in a process of its own on a model that is loaded there, gives a sound output; None where
    that process could not tell.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, wide = (os.path.join(folder, name) for name in ("given.json", "wide.pt"))
        torch.save([(noise.name, noise.wide.cpu(), noise.rmse, noise.most) for noise in noises], wide)
        given = {"path": sys.path, "module": __name__, "code": code, "case": case, "cache": cache, "wide": wide}
        with open(path, "w", encoding="utf-8") as opened:
            json.dump(given, opened)
        try:
            ran = subprocess.run(
                [sys.executable, "-I", "-c", CHILD, path], capture_output=True, text=True, timeout=SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return None, f"it took longer than {SECONDS} s"
    if ran.returncode != 0:
        return None, (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1][:300]
    sound: bool = json.loads(ran.stdout.strip().splitlines()[-1])["sound"]
    return sound, "sound" if sound else "not sound"


def in_this_process(given: dict[str, Any]) -> dict[str, Any]:
    """What the process of its own does: the case's model, the code, the case's inputs."""
    from ..machine.family import die_with_parent
    from ..model.session import Session
    from ..protocol.wire import Emitter

    die_with_parent()
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        session = Session(given["case"], given["cache"], Emitter(nowhere))
        loaded, inputs = session.loaded(), session.inputs()
        place: dict[str, Any] = {"__name__": "keep"}
        exec(compile(given["code"], "keep.py", "exec"), place)
        place["keep_in"](loaded.model, place["KEEP"], place["DTYPE"])
        wide = torch.load(given["wide"], weights_only=True)
        judges = [Noise(made, name, tensor, *rest) for made, (name, tensor, *rest) in zip(inputs, wide)]
        outputs = [main_output(run(loaded.model, judge.inputs), judge.name)[1].cpu() for judge in judges]
    return {"sound": all(judge.judged(output).sound for judge, output in zip(judges, outputs))}
