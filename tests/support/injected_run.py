"""Folders of runs made by hand: a float16 overflow with verified scripts, in which one thing at a time may be wrong."""

import hashlib
import json

from support.hosting import BISECT, observation, observed

from repro.core.encoding import encode, to_json
from repro.core.records import Case, Cell, Header
from repro.diagnosis.answer import answer as answered
from repro.diagnosis.verdict import judge
from repro.sharing.forms.forms import forms

CASE = Case("org/model", dtype="float16", prompts=("a",))
ENVIRONMENT = {
    "python": "3.11.7",
    "python_build": "3.11.7 (main) [GCC 12.2.0] (64-bit runtime)",
    "torch": "2.13.0+cpu",
    "torch_git": "c" * 40,
    "transformers": "5.23.0",
    "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0"},
    "distributions": {
        **{form.package: "1.2.0" for form in forms().values()}, "torch": "2.13.0+cpu", "transformers": "5.23.0",
        "tokenizers": "0.23.3", "accelerate": "1.15.0", "huggingface-hub": "2.4.0", "numpy": "2.4.6", "idna": "3.20",
    },
    "build": {"debug": False, "cuda": None, "hip": None, "xnnpack": False},
    "platform": "Linux-6.18-x86_64-with-glibc2.36",
    "machine": "x86_64",
    "system": "Debian GNU/Linux 12 (bookworm)",
    "libc": "glibc-2.36",
    "memory_bytes": 25276063744,
    "cpu": {"model": "A Processor", "capability": "AVX512", "count": 2},
    "blas": "mkl",
    "mkldnn": True,
    "threads": 2,
    "interop_threads": 2,
    "matmul_precision": "highest",
    "tf32": {"matmul": None, "cudnn": None},
    "deterministic": False,
    "flush_denormal": False,
    "accelerator": None,
    "accelerators": [],
    "gpu_driver": None,
    "accelerate_config": {},
    "allocator": {},
    "variables": {},
}  # fmt: skip
NEWEST = {name: version.partition("+")[0] for name, version in ENVIRONMENT["distributions"].items()}
"""The newest releases in a world where this run has them all."""
LOAD = {"class": "LlamaForCausalLM", "parameters": 1000, "dtype": "float16", "attn": "sdpa", "device": "cpu"}
PROMPT = {"prompt": "a", "input_source": "tokenizer", "input_ids": [2, 3], "tokens": ["<bos>", "a"], "verdict": "bad"}
LOGITS = {"min": "nan", "max": "nan", "mean": "nan", "nan": 60, "posinf": 0, "neginf": 0}
FAULT = "print('seen inf, right is 68384.0')\nassert False, 'seen inf'\n"
"""A script that shows its fault wherever there is a Python."""
MODULE = "def model():\n    import transformers\n\nprint('seen nan, right is 1.0')\nassert False, 'seen nan'\n"
OUTPUT = "seen inf, right is 68384.0\n"


def verdict(*changed, case=CASE, environment=ENVIRONMENT):
    """The answer of the overflow, made as a run makes it; some steps may have come out otherwise."""
    steps = observed(
        observation("environment", payload=environment),
        observation("files", payload={"source": "folder", "revision": None, "files": [], "findings": []}),
        observation("weights", payload={"tensors": 3, "findings": []}),
        observation("load", payload=LOAD),
        observation("forward", "bad", "every logit is NaN", {"logits": LOGITS, "prompts": [PROMPT]}),
        observation("bisect", "bad", payload=BISECT),
        observation(
            "ablation:dtype=float32", payload={"change": {"dtype": "float32"}, "logits": {"min": -1, "max": 1.0}}
        ),
        observation("ablation:attn=eager", "bad"),
        *changed,
    )
    command = ("repro", case.model, "--dtype", "float16")
    header = Header(case, Cell("/usr/bin/python3"), "0" * 64, "0.1.0", command, "2026")
    return answered(judge(steps, case), steps, header, "e" * 64)


def entry(path, text, needs, **more):
    """A script's part of verdict.json."""
    return {
        "path": path,
        "needs": needs,
        "verified": True,
        "runs": 3,
        "level": "operator",
        "lines": len(text.splitlines()),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "checkpoint": None,
        "output": OUTPUT,
        "exit_statuses": [1, 1, 1],
        "reason": "it is the smallest that shows it",
        **more,
    }


def run_folder(folder, *, script=FAULT, module=None, owner="transformers", answer=None, reproducer=None, **more):
    """A finished run with its scripts.

    Args:
        folder: Where; made if need be.
        script: The text of reproducer.py; None for a run without a script.
        module: The text of reproducer_module.py, which needs Transformers.
        owner: The owner's project.
        answer: If not that of the overflow.
        reproducer: What is changed in the script's own entry.
        more: What is changed in verdict.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {**to_json(answer or verdict()), "owner": {"project": owner, "reason": "a test"}, **more}
    if script is not None:
        (folder / "reproducer.py").write_text(script, encoding="utf-8")
        others = []
        if module is not None:
            (folder / "reproducer_module.py").write_text(module, encoding="utf-8")
            others = [entry("reproducer_module.py", module, ["torch", "transformers"], level="module")]
        found["reproducer"] = {**entry("reproducer.py", script, ["torch"]), "others": others, **(reproducer or {})}
    (folder / "verdict.json").write_text(encode(found, indent=1), encoding="utf-8")
    return folder


def change(folder, **more):
    """Change verdict.json of a run."""
    path = folder / "verdict.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **more}), encoding="utf-8")
