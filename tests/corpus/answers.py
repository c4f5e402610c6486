"""What is asked of an injected model, and whether the kit's answer is the injected truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .faults import InjectedFault, Truth

STEPS = ("files", "weights", "load", "forward", "bisect")
Ends = dict[str, dict[str, Any]]
"""Each step's end event, by step."""


def case_of(fault: InjectedFault, folder: Path) -> dict[str, Any]:
    """The plan's case for a fault that was built in `folder`."""
    return {
        "model": str(folder),
        "revision": None,
        "weights": "checkpoint",
        "config": None,
        "device": "cpu",
        "dtype": fault.dtype,
        "attn": fault.attn,
        "prompts": [fault.prompt] if fault.prompt else [],
        "trust_remote_code": fault.trust_remote_code,
    }


def check_answer(truth: Truth, ends: Ends) -> None:
    """The answer must name the injected place, and a sound twin must be good."""
    verdicts = {step: end["verdict"] for step, end in ends.items()}
    reasons = {step: end["reason"] for step, end in ends.items()}
    wanted = {truth.verdict, *truth.also_verdict}

    if truth.verdict == "good":
        seen = {"bad"} & set(verdicts.values())
        assert not seen or "bad" in wanted, reasons
        assert verdicts["forward"] == "good" or "bad" in wanted, reasons
    else:
        assert verdicts[truth.step] in wanted, reasons
    if truth.misaligned:
        assert ends["load"]["payload"]["misaligned"] > 0
    if truth.missing_keys:
        assert tuple(ends["load"]["payload"]["missing_keys"]) == truth.missing_keys
    if truth.unexpected_keys:
        assert tuple(ends["load"]["payload"]["unexpected_keys"]) == truth.unexpected_keys
    if truth.mismatched:
        assert tuple(row["tensor"] for row in ends["load"]["payload"]["mismatched"]) == truth.mismatched
    if truth.unset_buffers:
        assert tuple(ends["load"]["payload"]["unset_buffers"]) == truth.unset_buffers
    if truth.missing_file:
        assert truth.missing_file in {finding["file"] for finding in ends["files"]["payload"]["findings"]}
    if verdicts.get("forward") == "bad" and truth.verdict == "bad":
        assert verdicts["bisect"] == "bad", reasons
        check_origin(ends["bisect"]["payload"]["origin"], truth)
    for name in truth.workarounds:
        assert verdicts["ablation:" + name] == "good", reasons


def check_origin(origin: dict[str, Any], truth: Truth) -> None:
    """The origin names the injected place."""
    if truth.module is not None:
        assert origin["module"] in (truth.module, *truth.also_module)
    if truth.op is not None:
        assert origin["op"].startswith(truth.op)
    if truth.mechanism is not None:
        assert origin["mechanism"] in (truth.mechanism, *truth.also_mechanism)
    if truth.token_index is not None:
        assert origin["token_index"] == truth.token_index
    if truth.channel_index is not None:
        assert origin["channel_index"] == truth.channel_index
    if truth.tensor is not None:
        assert origin["tensor"] in (truth.tensor, *truth.also_tensor)
    if truth.tensor_index is not None:
        assert tuple(origin["tensor_index"]) == truth.tensor_index
    assert origin["confirmed"] is True
