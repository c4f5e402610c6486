"""Run steps on a model, one process, one load; events go to standard output as JSON lines.

    python probes.pyz run PLAN.json                 the steps of a plan (what the host sends)
    python probes.pyz STEP MODEL [options]          one step and what it stands on; --help lists the steps
    python probes.pyz script|trace SCRIPT.py        a script that ends with 0 (good), 1 (bad) or 125 (could not tell)

Needs torch and transformers (safetensors comes with them). Exit status of a single step: 0 good, 1 bad, 125 could not
tell, 2 wrong usage. ``run`` ends with 0 when the plan is done, whatever the verdicts: the events carry them.
"""

import argparse
import json
import os
import sys
import time
import traceback
from typing import Any, Optional

from .checkpoint import limits
from .checkpoint.resolve import is_script, seed_of
from .machine.family import end_with_host
from .protocol.failures import in_words, one_line, panics_raised
from .protocol.wire import SCHEMA, Emitter, hold_descriptors, own_stdout
from .steps import registry

NEEDED = ("torch", "transformers")
STATUS = {"good": 0, "bad": 1, "skip": 125}
MODEL_HELP = ("Hub id, folder, .gguf file, or a script (.py) to trace", "the script, a .py file")


def run_plan(plan: dict[str, Any], emitter: Emitter) -> list[tuple[str, str]]:
    """Every step of the plan, announced before it starts. Returns (step, verdict) pairs."""
    import platform

    steps = registry.announced(plan["steps"])
    emitter.event("hello", schema=SCHEMA, pid=os.getpid(), python=platform.python_version(), steps=steps)
    # A script that needs Transformers says so by itself; files of tensors need none.
    torch_alone = plan["steps"] == ["scan"] or is_script(plan["case"].get("model"))
    missing = _missing(NEEDED[:1] if torch_alone else NEEDED)
    session: Any = None
    verdicts = []
    for step in plan["steps"]:
        emitter.start(step)
        begin = time.monotonic()
        error: Optional[dict[str, Any]] = None
        payload: Optional[dict[str, Any]]
        if missing:
            verdict, reason, payload = "skip", missing, {"fatal": True}
        else:
            try:
                if session is None:
                    from .model.session import Session

                    further = (plan.get(name) for name in ("trials", "prompts", "files", "passed"))
                    session = Session(plan["case"], plan["cache"], emitter, *further)
                with panics_raised():
                    verdict, reason, payload = registry.run(session, step, session.is_script)
            except Exception as raised:  # noqa: BLE001 - the model's own code may raise anything: this step's answer
                verdict, reason, payload, error = _failed(raised)
        emitter.event(
            "end",
            step=step,
            verdict=verdict,
            reason=reason,
            seconds=time.monotonic() - begin,
            payload=payload,
            error=error,
        )
        verdicts.append((step, verdict))
        if payload and payload.get("fatal"):
            break
    emitter.event("done")
    return verdicts


def _missing(needed: tuple[str, ...]) -> Optional[str]:
    import importlib.util

    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return "The interpreter {} has no {}. Give --python the interpreter of an environment with {}.".format(
        sys.executable, " and no ".join(missing), " and ".join(needed)
    )


def _failed(raised: Exception) -> tuple[str, str, Optional[dict[str, Any]], dict[str, Any]]:
    """(verdict, reason, payload, error) of a step that raised. An exception is never "bad": nothing was measured."""
    name = type(raised).__name__
    error = {"type": name, "message": str(raised)[:4000], "traceback": traceback.format_exc()[-8000:]}
    if name in ("CannotResolve", "CannotLoad", "OverLimit"):  # their messages are whole sentences for the user
        text = one_line(str(raised), 500)
        return "skip", text, {"fatal": True} if name == "CannotResolve" else None, error
    return "skip", in_words(raised), None, error


def weights_source(text: str) -> str:
    """--weights as it is, if it means something."""
    try:
        seed_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="probes.pyz",
        description=(__doc__ or "").split("\n")[0],
        epilog="Exit status: 0 good, 1 bad, 125 could not tell, 2 wrong usage.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="STEP")
    plan = kinds.add_parser("run", help="run the steps of a plan")
    plan.add_argument("plan")
    for row in registry.every():
        step = row["name"]
        single = kinds.add_parser(step, help=row["question"].replace("%", "%%"))
        single.add_argument("model", nargs="?", help=MODEL_HELP[step == "script"])
        single.add_argument("--dtype", choices=("float64", "float32", "bfloat16", "float16"))
        single.add_argument("--device", choices=("cpu", "cuda", "mps"))
        single.add_argument("--attn", choices=("eager", "sdpa"))
        single.add_argument("--prompt", action="append", default=[])
        single.add_argument("--factory", metavar="FILE.py:FUNCTION", help="a function that gives (module, inputs)")
        single.add_argument("--generate", type=int, metavar="N", help="a generation of N tokens")
        single.add_argument("--train-step", type=int, metavar="N", help="N steps of a training")
        single.add_argument("--accumulate", type=int, metavar="N", help="a step's batch as N micro batches")
        for kept in ("float32", "bfloat16"):
            single.add_argument(f"--keep-{kept}", choices=("auto",), help=f"which modules must stay in {kept}")
        for option, of in (("--image", "picture"), ("--audio", "sound"), ("--inputs", "exact inputs")):
            single.add_argument(option, metavar="FILE", help=f"file with {of}")
        single.add_argument("--weights", default="checkpoint", type=weights_source, help="checkpoint or random:SEED")
        single.add_argument("--trust-remote-code", action="store_true")
        single.add_argument("--limits", metavar="FACTOR|none", help="multiplies the limits on what a file may ask for")
        single.add_argument("--cache", default=os.path.join(os.path.expanduser("~"), ".cache", "repro-kit"))
    given = parser.parse_args(argv)
    if given.kind not in ("run", "environment") and given.model is None and given.factory is None:
        parser.error(f"{given.kind} needs MODEL, or --factory FILE.py:FUNCTION")
    return given


def main(argv: Optional[list[str]] = None) -> int:
    """Parse, run, and return the exit status."""
    end_with_host()
    stdout_is_open = hold_descriptors()
    given = _arguments(sys.argv[1:] if argv is None else argv)
    if not stdout_is_open:
        print("probes.pyz: standard output is closed: the answer has nowhere to go", file=sys.stderr)
        return 125
    with own_stdout() as stream:
        emitter = Emitter(stream)
        try:
            if given.kind == "run":
                with open(given.plan, encoding="utf-8") as opened:
                    plan = json.load(opened)
                schema = plan.get("schema") if isinstance(plan, dict) else None
                if schema != SCHEMA:
                    print(f"{given.plan}: no plan of schema {SCHEMA}: its schema is {schema}", file=sys.stderr)
                    return 125
                run_plan(plan, emitter)
                return 0
            if given.limits is not None:
                os.environ[limits.VARIABLE] = given.limits
            case = {
                "model": os.path.abspath(given.model) if is_script(given.model) else given.model,
                "revision": None,
                "weights": given.weights,
                "config": None,
                "device": given.device,
                "dtype": given.dtype,
                "attn": given.attn,
                "prompts": given.prompt,
                "trust_remote_code": given.trust_remote_code,
                **{name: vars(given)[name] for name in ("image", "audio", "inputs")},
                **{name: vars(given)[name] for name in ("factory", "generate", "train_step", "accumulate")},
                **{name: vars(given)[name] for name in ("keep_float32", "keep_bfloat16")},
            }
            if given.model is None:
                case["model"] = given.factory
            steps = registry.single(given.kind, is_script(given.model), given.factory is not None)
            verdicts = run_plan({"steps": steps, "case": case, "cache": given.cache}, emitter)
            return STATUS[verdicts[-1][1]]
        except (OSError, ValueError) as error:
            print(f"probes.pyz: {error}", file=sys.stderr)
            return 125
