"""Secrets injected wherever a run meets them, and every file that leaves the machine searched for them."""

import json
import platform
import zipfile

import pytest
from corpus.families import write_tokenizer
from corpus.faults import BY_NAME, TOKEN
from support.hosting import environment, repro

from repro.core.answer import Ablation, Answer, CellInfo, ModelInfo, StepRow, answer_from, read
from repro.core.encoding import encode, replace
from repro.core.payloads import Bisect, Forward, Inputs, Origin, Pass, Reduction
from repro.core.records import Case, Outcome
from repro.report.privacy.machine import private_words
from repro.report.privacy.prompts import WITHHELD, prompts_of, withhold, withhold_text, without_prompts
from repro.report.privacy.redact import redact_answer
from repro.report.render import render
from repro.run.bundle.write import bundle

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
    assert redact_answer(found, private_words()).origin.output == found.origin.output
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        assert answer_from(json.loads(archive.read("verdict.json"))).origin.output == found.origin.output


# --- --private-prompts -------------------------------------------------------------------------------------------

WORDS = ("zanzibar", "quarterly", "figures", "w9", f"w{TOKEN}", TOKENS["in the prompt"])


def reduced(found):
    ids, tokens = (1, 5), ("<bos>", "w5")
    inputs = Inputs(before=8, after=2, ids=ids, tokens=tokens, special=(True, False), trials=4)
    return replace(found, reduction=Reduction(inputs=inputs))


def test_the_words_of_the_prompt_were_in_the_answer(run):
    assert [word for word in WORDS if word not in encode(run[2])] == []


def test_no_word_of_the_prompt_is_in_the_answer_or_the_report(run):
    found = without_prompts(reduced(run[2]))
    assert found.private_prompts
    for text in (encode(found), render(found)):
        assert [word for word in WORDS if word in text] == []


def test_no_word_of_the_prompt_is_in_the_evidence_the_plan_or_the_log(run):
    folder, _, found = run
    prompts = prompts_of(found)
    lines = [
        withhold(json.loads(line), prompts) for line in (folder / "evidence.jsonl").read_text("utf-8").splitlines()
    ]
    plan = withhold(json.loads((folder / "plan.json").read_text("utf-8")), prompts)
    log = withhold_text((folder / "kit.log").read_text("utf-8"), prompts)
    for text in (json.dumps(lines), json.dumps(plan), log):
        assert [word for word in WORDS if word in text] == []


def test_no_word_of_the_prompt_is_in_a_bundle_without_it(run, tmp_path):
    folder, _, answer = run
    for name in STAYS:
        if (folder / name).exists():
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "report.md").write_text(render(without_prompts(answer)), "utf-8")
    bundle(tmp_path, without_prompts(answer), private_words(), prompts_of(answer))
    found = [(name, word) for name, content in leaving(tmp_path) for word in WORDS if word.encode() in content]
    assert found == []
    assert "bundle.zip/evidence.jsonl" in {name for name, _ in leaving(tmp_path)}


def test_the_ids_of_the_reduced_input_stand_for_the_prompt(run):
    found = without_prompts(reduced(run[2]))
    assert found.case.prompts == ("(token ids 1, 5)",)
    assert found.forward.prompts[0].input_ids == (1, 5)
    assert "'(token ids 1, 5)'" in found.command


def test_without_a_reduced_input_nothing_of_the_prompt_is_told(run):
    found = without_prompts(replace(run[2], reduction=None))
    assert found.case.prompts == (WITHHELD,)
    assert found.forward.prompts[0].input_ids == ()


def passed(prompt, ids, tokens, **more):
    return Pass(prompt=prompt, input_ids=ids, tokens=tokens, **more)


SMALL = Answer(
    verdict=Outcome.BAD,
    headline="overflow in m: token 1 'w5', channel 3; without <bos>",
    reason="ValueError: no token of 'w5 quarterly zanz",
    model=ModelInfo(id="m"),
    cell=CellInfo(),
    case=Case("m", prompts=("w5 quarterly zanzibar", "a")),
    bisect=Bisect(prompt=1),
    origin=Origin(token="w5", token_index=1),
    forward=Forward(
        verdict=Outcome.BAD,
        prompts=(
            passed("w5 quarterly zanzibar", (1, 5, 9, 2), ("<bos>", "w5", "<unk>", "<unk>")),
            passed("a", (1, 2), ("<bos>", "a"), decoder_input_ids=(0,)),
        ),
    ),
    ablations=(
        Ablation(
            name="second_prompt",
            verdict=Outcome.GOOD,
            reason="finite, 0 to 1 ('another text')",
            change={"prompt": "another"},
        ),
    ),
    steps=(
        StepRow(
            step="forward", verdict=Outcome.BAD, reason="a good one", stderr_tail=("Zanzibar: no such key", "a line")
        ),
    ),
    reduction=Reduction(inputs=Inputs(ids=(1, 2), tokens=("<bos>", "a"), special=(True, False))),
    command="repro m --prompt 'w5 quarterly zanzibar' --prompt=a",
)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (lambda found: found.headline, "overflow in m: token 1 (token), channel 3; without <bos>"),
        (lambda found: found.verdict, Outcome.BAD),
        (lambda found: found.case.prompts, (WITHHELD, "(token ids 1, 2)")),
        (lambda found: found.origin, Origin(token="(token)", token_index=1)),
        (lambda found: found.forward.prompts[0], passed(WITHHELD, (), None)),
        (lambda found: found.forward.prompts[1], passed("(token ids 1, 2)", (1, 2), None)),
        (lambda found: found.ablations[0].reason, "finite, 0 to 1 (another prompt)"),
        (lambda found: found.ablations[0].change, {"prompt": "another"}),
        (lambda found: found.steps[0].stderr_tail, ("(word): no such key", "a line")),
        (lambda found: found.steps[0].reason, "a good one"),
        (lambda found: found.reduction.inputs.ids, (1, 2)),
        (lambda found: found.reduction.inputs.tokens, ("<bos>", "id 2")),
        (lambda found: found.command, "repro m --prompt '(withheld)' '--prompt=(token ids 1, 2)'"),
    ],
)
def test_each_place_of_a_prompt_or_a_token(place, value):
    assert place(without_prompts(SMALL)) == value


@pytest.mark.parametrize("word", ["bad", "good", "ended", "-inf"])
def test_a_prompt_that_is_a_word_of_verdict_json_leaves_that_readable(word):
    found = without_prompts(replace(SMALL, case=Case("m", prompts=(word,))))
    assert (found.case.prompts, found.verdict) == ((WITHHELD,), Outcome.BAD)


def test_a_prompt_that_was_cut_off_in_a_message_is_withheld():
    assert without_prompts(SMALL).reason == "ValueError: no token of '(word) (word) zanz"


def test_seeded_ids_are_nobodys_text():
    seeded = Forward(prompts=(Pass(input_source="seeded", input_ids=(4, 7)),))
    assert without_prompts(replace(SMALL, forward=seeded)).forward == seeded


def test_a_command_that_no_shell_takes_is_withheld_word_by_word():
    assert without_prompts(replace(SMALL, command="repro 'm --prompt zanzibar")).command == "repro 'm --prompt (word)"


def test_the_words_of_this_machine_are_read_from_it():
    assert private_words({}).host == (platform.node() or None)
