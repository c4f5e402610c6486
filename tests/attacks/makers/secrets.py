"""Secrets in every place that a run meets them, and everything that is handed on searched for them."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.parse
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner
from support.hosting import BISECT, ORIGIN, observation, repro
from support.injected_run import ENVIRONMENT, LOAD, LOGITS, PROMPT, run_folder, verdict

from repro.cli.share import lint, report
from repro.core.answer import read
from repro.core.encoding import encode, replace
from repro.core.records import Case, Owner
from repro.report.plots.chart import Plot
from repro.report.privacy import machine
from repro.report.privacy.mask import Mask
from repro.reproducer.offer import offer
from repro.reproducer.verify import Verification
from repro.run import output

from . import deed

STAYS = frozenset(
    {
        "evidence.jsonl", "verdict.json", "plan.json", "plan.restart.json", "kit.log", "host.log", "latest.json",
        "trials.jsonl", "words.md", "inputs.json",
    }
)  # fmt: skip
"""What stays where the run was made; the rest of its folder may be posted."""
PROJECTS = ("transformers", "pytorch", "safetensors")


@deed
def inject(
    place: Path, text: list[str], never: list[str] | None = None, inside: bool = True, **world: Any
) -> Iterator[str]:
    """A text in every place of a run's answer and of its folder.

    Args:
        place: The attack's folder.
        text: In parts, so that no scanner of this repository takes the whole for a leaked secret.
        never: What of it must not be handed on; all of it, if not given.
        inside: Whether it is put into names as well, behind and in front of ``_``, ``-`` and ``.``.
        world: As ``_world``.
    """
    secret = "".join(text)
    forbidden = [secret] if never is None else never
    # A drawing would take most of the time, and what is drawn as outlines cannot be searched.
    pictures = mock.patch("repro.report.pictures.png", lambda plot: _in_words(plot).encode())
    with _world(**world), pictures:
        folder = _run_with(place / "run", secret, inside=inside)
        printed = _shared(folder)
    kept = "".join((folder / name).read_text("utf-8", "replace") for name in ("verdict.json", "kit.log"))
    yield from (f"{word!r} is nowhere in the run" for word in forbidden if word not in kept)
    for where, content in (*leaving(folder), *printed):
        yield from (f"{word!r} stands in {where}" for word in forbidden if word in content)


@deed
def keep(place: Path, text: str, world: Mapping[str, Any] | None = None) -> Iterator[str]:
    """A text that is evidence, and no secret: the report has it as it is."""
    with _world(**(world or {})):
        folder = run_folder(place / "run", answer=_answer_with(f"said {text} here"))
        output.write(folder, read(folder / "verdict.json"), whole=False)
    if f"said {text} here" not in (folder / "report.md").read_text("utf-8").replace("\\", "").replace("&lt;", "<"):
        yield f"{text!r} was masked"


@deed
def search(place: Path, run: list[str], never: list[str], needs: list[str], **world: Any) -> Iterator[str]:
    """A whole run of the command line; ``never`` is searched for in what is handed on, and ``needs`` must be there."""
    with _world(**world):
        ended = repro(*run, "--out", "o", cwd=place)
        if ended.returncode != 1:
            yield f"exit status {ended.returncode}: {ended.stderr[-300:]}"
            return
        printed = _shared(place / "o")
    found = dict(leaving(place / "o"))
    yield from (f"there is no {name}" for name in needs if name not in found)
    for where, content in (*found.items(), *printed):
        yield from (f"{word!r} stands in {where}" for word in never if word in content)


def leaving(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content of everything that may leave, members of archives and names included."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in STAYS):
        name = str(path.relative_to(folder))
        if path.parent.name != "tensors":
            yield f"the name {name}", name
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.namelist():
                    yield f"the name of {name}:{member}", member
                    yield f"{name}:{member}", archive.read(member).decode("utf-8", "backslashreplace")
        elif path.parent.name != "tensors":
            yield name, path.read_text("utf-8", "backslashreplace")


@contextlib.contextmanager
def _world(
    env: Mapping[str, str] | None = None, host: str | None = None, mounts: list[str] | None = None
) -> Iterator[None]:
    """A machine of another name, with further variables and file systems."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, env or {}))
        stack.enter_context(mock.patch("repro.sharing.lint.newest", return_value="1.0"))
        if host is not None:
            stack.enter_context(mock.patch("platform.node", return_value=host))
        if mounts is not None:
            lines = mock.Mock(**{"read_text.return_value": "".join(f"{line} nfs4 rw 0 0\n" for line in mounts)})
            stack.enter_context(mock.patch.object(machine, "MOUNTS", lines))
        yield


def _answer_with(secret: str, *, inside: bool = True) -> Any:
    """The answer of an overflow, with a text wherever an answer has one that came from outside."""
    name = secret if inside else f" {secret} "
    file = f"model-{name}.safetensors"
    model = f"/srv/models-{secret}/model-{secret}" if inside else f"/{secret.strip('/')}/m"
    finding = {"severity": "note", "file": file, "problem": f"{secret} was seen in {file}"}
    tensor = {"tensor": f"layers.{name}.weight", "file": file, "nan": 1, "posinf": 0, "neginf": 0}
    origin = {
        **ORIGIN, "module": f"model.layers_{name}.proj", "module_class": f"Layer_{name}", "token": secret,
        "source": f"modeling_{name}.py:416", "code": f"x = load('{secret}')  # {secret}",
    }  # fmt: skip
    prompt = {**PROMPT, "prompt": f"w5 {secret} w9", "tokens": ["<bos>", secret]}
    environment = {
        **ENVIRONMENT,
        "distributions": {**ENVIRONMENT["distributions"], "mine": f"git+https://git.corp.example/{name}/repo.git"},
        "variables": {"HF_ENDPOINT": f"https://me:{secret}@hub.corp.example/{name}", "XLA_FLAGS": f"--dump={secret}"},
        "executable": f"/opt/{name}/bin/python",
    }
    files = {"source": "folder", "folder": model, "revision": None, "files": [{"name": file}], "findings": [finding]}
    steps = [
        observation("environment", payload=environment),
        observation("files", payload=files),
        observation("weights", payload={"tensors": 3, "findings": [tensor]}),
        observation("load", payload={**LOAD, "missing_keys": [f"head_{name}.weight"]}),
        observation("forward", "bad", f"every logit is NaN: {secret}", {"logits": LOGITS, "prompts": [prompt]}),
        observation("bisect", "bad", payload={**BISECT, "origin": origin}),
        observation("ablation:attn=eager", "skip", f"RuntimeError: cannot open {secret} here"),
    ]
    case = Case(model, dtype="float16", prompts=(f"w5 {secret} w9", f"w1 ({secret})"))
    return verdict(*steps, case=case, environment=environment)


def _run_with(folder: Path, secret: str, *, inside: bool) -> Path:
    """A finished run whose every file has the secret, with its scripts, as a run writes it."""
    answer = _answer_with(secret, inside=inside)
    folder = run_folder(folder, answer=answer, script=None)
    (folder / "tensors").mkdir()
    for name in ("kit.log", "host.log"):
        (folder / name).write_text(f"loading\nWarning: {secret} is deprecated\n'{secret}', at {secret}.\n", "utf-8")
    tail = [secret, f"x_{secret}_y" if inside else f"({secret})"]
    (folder / "evidence.jsonl").write_text(encode({"stderr_tail": tail}) + "\n", "utf-8")
    (folder / "words.md").write_text(f"I was running {secret} by hand.\n", "utf-8")
    if "/" not in secret and "\\" not in secret and "\n" not in secret:
        (folder / "tensors" / f"{secret}.safetensors").write_bytes(b"\0" * 16)

    def seen(python: str, text: str, argv: Any, *, together: bool) -> Verification:
        return Verification((1, 1, 1), f"expected {secret}, seen inf", True, f"It shows {secret}.")

    found = offer(answer, "python", folder, Mask.of(answer, machine.private_words()), run=seen)
    assert found is not None
    answer = replace(answer, reproducer=found, owner=Owner(project="transformers", reason=f"{secret} says so"))
    output.write(folder, answer, whole=True)
    return folder


def _in_words(plot: Plot) -> str:
    """All that a picture would show."""
    return json.dumps([plot.title, plot.note, plot.spec], ensure_ascii=False)


def _shared(folder: Path) -> list[tuple[str, str]]:
    """What is printed when the forms are filled and checked; the addresses as a browser reads them."""
    printed = []
    for project in PROJECTS:
        said = CliRunner().invoke(report, [str(folder), "--for", project], catch_exceptions=False).output
        urls = [line for line in said.splitlines() if line.startswith("https://")]
        printed += [(f"the address of {project}'s form", urllib.parse.unquote_plus(url)) for url in urls]
        printed.append((f"what report --for {project} prints", said))
    for option in ([], ["--json"]):
        printed.append(("what lint prints", CliRunner().invoke(lint, [str(folder), *option]).output))
    return printed
