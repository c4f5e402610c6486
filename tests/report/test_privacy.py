"""Secrets injected wherever a run meets them, and every file that leaves the machine searched for them."""

import json
import platform
import zipfile

import pytest
from corpus.families import write_tokenizer
from corpus.faults import BY_NAME, TOKEN
from support.hosting import environment, repro

from repro.core.answer import answer_from, read
from repro.report.privacy.machine import private_words
from repro.report.privacy.mask import Mask
from repro.run.bundle.write import bundle

pytestmark = pytest.mark.usefixtures("forked_interpreters")

INJECTED = BY_NAME["custom-mask-module-residual"]
STAYS = frozenset({"evidence.jsonl", "verdict.json", "plan.json", "plan.restart.json", "kit.log", "host.log"})
"""What stays on the reporter's machine, as it was; of the rest of the folder, every file may be posted."""
TOKENS = {
    "in the prompt": "ghp_" + "PromptSecret1234567890abcdefghijklmn",
    "in the folder": "hf_" + "FolderSecret1234567890abcdefghijkl",
    "in an exception": "glpat-" + "ExceptionSecret12345",
    "in a docstring": "sk-" + "DocstringSecret12345678",
    "in a warning": "AKIA" + "WARNINGSECRET123",
}
VARIABLES = {
    "USER": "injecteduser",
    "LOGNAME": "injectedlogin",
    "HOSTNAME": "injectedrig.injected-lab.example",
    "HF_TOKEN": "hf_" + "VariableSecret1234567890abcdefghij",
    "INJECTED_API_KEY": "correct-horse/battery staple",
    "HTTPS_PROXY": "http://someone:injected-pass@proxy.injected-net.example:3128",
    "MASTER_ADDR": "10.20.30.40",
}
SAID = (
    "injecteduser on injectedrig.injected-lab.example (injectedrig) at 10.20.30.40 and 00:1a:2b:3c:4d:5e, "
    "injected.person@mail.example, via proxy.injected-net.example, key correct-horse/battery staple, "
    f"{TOKENS['in an exception']}, {VARIABLES['HF_TOKEN']}, home {{home}}/notes"
)
PRIVATE = (
    *TOKENS.values(),
    *(
        "injecteduser",
        "injectedlogin",
        "injectedrig",
        "injected-lab",
        "injected-net",
        "injected-pass",
        "injected.person",
    ),
    *(VARIABLES["HF_TOKEN"], "battery staple", "10.20.30.40", "00:1a:2b:3c:4d:5e", "team-injected"),
)
PROMPT = f"w5 w9 zanzibar quarterly figures {TOKENS['in the prompt']} w{TOKEN}"
HOSTILE = '''"""A model of {docstring}, made by injecteduser."""
import sys
print("{warning} {said}", file=sys.stderr)
'''
RAISES = '''
    def forward(self, input_ids=None, *args, **kwargs):
        """Refuses bfloat16 with {docstring}."""
        if self.lm_head.weight.dtype is torch.bfloat16:
            raise RuntimeError("{said}")
        return self._forward(input_ids, *args, **kwargs)

    def _forward('''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a real run of hostile code, the environment that it ran in, and its answer."""
    top = tmp_path_factory.mktemp("privacy")
    home = top / "home" / "injecteduser"
    home.mkdir(parents=True)
    model = top / f"team-injected-{TOKENS['in the folder']}" / "model"
    INJECTED.build(model)
    write_tokenizer(model)
    said = SAID.format(home=home)
    code = (model / "modeling_injected.py").read_text("utf-8")
    head, forward, rest = code.rpartition("\n    def forward(")
    assert forward
    words = {"docstring": TOKENS["in a docstring"], "warning": TOKENS["in a warning"], "said": said}
    hostile = HOSTILE.format(**words) + head + RAISES.format(**words) + rest
    (model / "modeling_injected.py").write_text(hostile, "utf-8")
    variables = {**VARIABLES, "HOME": str(home)}
    out = top / "out"
    asked = (model, "--dtype", INJECTED.dtype, "--trust-remote-code", "--prompt", PROMPT, "--out", out)
    ended = repro("run", *asked, cwd=top, env=variables)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    found = read(out / "verdict.json")
    if not (out / "bundle.zip").exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOME", str(home))
            bundle(out, found, private_words(environment(**variables)))
    return out, variables, found


def leaving(folder):
    """Name and content of everything that may leave: files of the run, and members of archives."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in STAYS):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path.name}/{name}", archive.read(name)) for name in archive.namelist())
        else:
            yield str(path.relative_to(folder)), path.read_bytes()


def test_the_secrets_were_injected_where_the_run_meets_them(run):
    folder, _, _ = run
    kept = "".join((folder / name).read_text("utf-8") for name in STAYS if (folder / name).exists())
    # What is not in what the run itself keeps would be no test of what it gives away.
    assert [word for word in PRIVATE if word not in kept and word not in ("injectedlogin", "injected-pass")] == [
        TOKENS["in a docstring"]
    ]


def test_what_leaves_holds_no_secret(run):
    folder, variables, _ = run
    private = (*PRIVATE, variables["HOME"], str(folder.parent))
    found = [(name, word) for name, content in leaving(folder) for word in private if word.encode() in content]
    assert found == []


def test_the_bundle_was_searched_member_by_member(run):
    names = {name for name, _ in leaving(run[0])}
    assert {"report.md", "bundle.zip/report.md", "bundle.zip/evidence.jsonl", "bundle.zip/verdict.json"} <= names


def test_the_search_finds_what_was_not_masked(run, tmp_path):
    (tmp_path / "report.md").write_text(f"see {TOKENS['in the prompt']}", "utf-8")
    assert [name for name, content in leaving(tmp_path) if TOKENS["in the prompt"].encode() in content] == ["report.md"]


def test_the_report_still_says_what_was_found(run):
    text = (run[0] / "report.md").read_text("utf-8")
    assert text.startswith("# model (InjectedForCausalLM): float16 overflow in layers.1")
    assert "aten.add.Tensor" in text
    assert "RuntimeError: USER on HOST (HOST) at IP and MAC, MAIL, via HOST, key SECRET, TOKEN" in text


def test_the_numbers_of_the_evidence_stay(run):
    folder, _, found = run
    assert Mask.of(found, private_words()).answer(found).origin.output == found.origin.output
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        assert answer_from(json.loads(archive.read("verdict.json"))).origin.output == found.origin.output


# --- --private-prompts -------------------------------------------------------------------------------------------

WORDS = ("zanzibar", "quarterly", "figures", "w9", f"w{TOKEN}", TOKENS["in the prompt"])
HOLDS_THEM = frozenset({"inputs.json", "kit.log"})
"""The file of the prompts, and what other programs wrote: neither is handed on."""
PACKED = frozenset({"probes.pyz", "bundle.zip"})
"""Archives: the kit is the same for every prompt, and the members of the bundle are looked at one by one."""


@pytest.fixture(scope="module")
def withheld(tmp_path_factory):
    """The folder of a real run whose prompts are withheld, and what it printed."""
    top = tmp_path_factory.mktemp("withheld")
    INJECTED.build(top / "model")
    write_tokenizer(top / "model")
    asked = (top / "model", "--dtype", INJECTED.dtype, "--trust-remote-code", "--prompt", PROMPT, "--private-prompts")
    ended = repro("run", *asked, "--out", top / "out", cwd=top)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return top / "out", ended.stdout + ended.stderr


def test_the_prompt_lives_in_one_file(withheld):
    assert json.loads((withheld[0] / "inputs.json").read_text("utf-8"))["prompts"] == [PROMPT]


def test_no_word_of_the_prompt_is_in_any_other_file(withheld):
    """Also not in what stays: answer, evidence, plan."""
    files = {str(path.relative_to(withheld[0])): path for path in withheld[0].rglob("*") if path.is_file()}
    assert {"verdict.json", "evidence.jsonl", "plan.json", "report.md", "reproducer.py"} <= set(files)
    others = {name: path.read_bytes() for name, path in files.items() if name not in HOLDS_THEM | PACKED}
    assert [(name, word) for name, content in others.items() for word in WORDS if word.encode() in content] == []


def test_no_word_of_the_prompt_is_in_the_bundle_and_no_file_that_may_have_one(withheld):
    with zipfile.ZipFile(withheld[0] / "bundle.zip") as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name not in PACKED}
    assert not HOLDS_THEM & set(members)
    assert [(name, word) for name, content in members.items() for word in WORDS if word.encode() in content] == []


def test_no_word_of_the_prompt_is_on_the_screen(withheld):
    assert [word for word in WORDS if word in withheld[1]] == []


def test_the_answer_is_the_same_as_with_the_prompt(withheld, run):
    open_, found = run[2], read(withheld[0] / "verdict.json")
    assert found.private_prompts
    for one in (open_, found):
        assert one.origin is not None
    place = ("module", "op", "mechanism", "token_index", "channel_index")
    assert [getattr(found.origin, key) for key in place] == [getattr(open_.origin, key) for key in place]


def test_placeholders_stand_for_prompts_and_tokens(withheld):
    found = read(withheld[0] / "verdict.json")
    assert found.case.prompts == ("(withheld)",)
    assert "--prompt '(withheld)'" in found.command
    (seen,) = found.forward.prompts
    assert (seen.prompt, seen.input_ids, seen.tokens) == ("(withheld)", (), None)
    assert set(found.reduction.inputs.tokens) <= {"<bos>", "(token)"}


def test_other_prompts_need_another_folder(withheld):
    out = withheld[0]
    asked = (out.parent / "model", "--dtype", INJECTED.dtype, "--trust-remote-code", "--private-prompts", "--out", out)
    ended = repro("run", *asked, "--prompt", "another", cwd=out.parent)
    assert ended.returncode == 2
    assert "holds a run of other prompts" in ended.stderr


def test_the_words_of_this_machine_are_read_from_it():
    assert private_words({}).host == (platform.node() or None)
