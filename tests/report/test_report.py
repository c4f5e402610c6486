"""report.md: what it says, and what it never says."""

import json
import re

import pytest
from support.hosting import BISECT, ROOT, observation, observed
from support.injected_run import LOAD, LOGITS, PROMPT
from support.reports import ENVIRONMENT, answer, good, much, tables

from repro.core.answer import read
from repro.core.encoding import encode, replace
from repro.core.errors import ReproError
from repro.core.records import Case, Cell, Header
from repro.diagnosis.answer import answer as answered
from repro.diagnosis.verdict import judge
from repro.report import markdown
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.privacy.redact import redact
from repro.report.render import LIMIT, Part, parts, render
from repro.report.section import named, names

CASE = Case("org/model", dtype="float16", prompts=("a",))


def test_an_answer_comes_back_from_its_file(tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text(encode(answer()), "utf-8")
    assert read(path) == answer()
    assert json.loads(path.read_text("utf-8"))["forward"]["logits"]["min"] == "nan"


def test_the_answer_names_model_and_cell():
    found = answer()
    assert (found.model.id, found.model.weights, found.model.class_, found.model.parameters) == (
        "org/model",
        "checkpoint",
        "LlamaForCausalLM",
        1000,
    )
    assert (found.cell.torch, found.cell.device) == ("2.13.0", "cpu")


def test_parts_that_were_not_asked_for_are_none():
    steps = observed(observation("environment"), observation("files"), observation("weights"))
    header = Header(CASE, Cell("p"), "0" * 64, "0.1.0", (), "2026")
    found = answered(judge(steps, CASE, "weights"), steps, header)
    assert [found.load, found.forward, found.origin, found.bisect, found.owner] == [None] * 5
    assert "## Origin" not in render(found)


def test_the_report_opens_with_title_place_for_words_and_summary():
    lines = render(answer()).splitlines()
    assert lines[0] == "# org/model: float16 overflow in model.layers.7"
    assert re.fullmatch(r"<!-- [^<>]+ -->", lines[2])
    assert lines[4] == (
        "float16 overflow in model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416): token 0 '\\<bos>', channel 163; "
        "float32 has 68394.9 there, the limit is 65504. "
        "2 ablations: good with dtype=float32; still bad with attn=eager."
    )


def ablations(**verdicts):
    return [observation(f"ablation:{name}", verdict, f"{name} is {verdict}") for name, verdict in verdicts.items()]


def test_workarounds_come_by_name_and_what_does_not_help_as_a_number():
    lines = render(answer(*ablations(a="bad", b="bad", c="skip", second_prompt="good"))).splitlines()
    assert lines[4].endswith(
        "5 ablations: good with dtype=float32; still bad with the other 3; another prompt is good."
    )


def test_an_ablation_that_does_not_apply_is_in_no_table():
    text = render(answer(*ablations(aligned_copy="skip")))
    assert "Not applicable: `aligned_copy` (aligned_copy is skip)." in text
    assert "| `aligned_copy` |" not in text


def test_a_good_run_says_what_else_was_good():
    assert "Every step gave a verdict; 2 ablations: bad with attn=eager." in render(good())
    skipped = observation("weights", "skip", "no file is read")
    assert "No verdict from weights; 2 ablations" in render(
        answer(skipped, observation("forward"), observation("bisect", payload={"origin": None}))
    )


SCRIPT = Case("/x/script.py")


def of_script(*steps):
    steps = observed(*steps)
    header = Header(SCRIPT, Cell("p"), "0" * 64, "0.1.0", (), "2026")
    return answered(judge(steps, SCRIPT, "script"), steps, header)


def test_a_good_script_is_said_to_be_what_was_asked_of_it():
    told = {"exit_status": 0, "lines": ["loss 0.1"], "further_runs": 1}
    found = of_script(observation("script", "good", "loss 0.1", told))
    assert found.headline == (
        "The script ended with exit status 0 in 2 of 2 runs. That is its own verdict: its numbers were not looked at. "
        "It ended with: loss 0.1"
    )
    assert "No fault found: The script ended" in render(found)


def test_the_origin_of_a_script_is_said_once_and_then_what_makes_it_go_away():
    script = observation("script", "bad", "it is NaN", {"exit_status": 1, "lines": []})
    said = [script, observation("bisect", "bad", payload=BISECT), *ablations(a="good", b="bad")]
    text = render(of_script(*said)).partition("\n## ")[0]
    assert text.count("float32 has 68394.9 there") == 1
    assert "2 ablations: good with a; still bad with b." in text


def test_the_origin_is_said_once_in_the_steps():
    assert "| `bisect` | **bad** | 0.5 | see Origin |" in render(answer())


def test_a_note_of_the_origin_stands_once():
    origin = {**BISECT["origin"], "note": "a remarkable note"}
    assert render(answer(observation("bisect", "bad", payload={**BISECT, "origin": origin}))).count("remarkable") == 1


def test_a_gguf_file_is_said_to_have_been_dequantized():
    files = observation("files", payload={"source": "gguf", "files": [], "findings": []})
    assert "| weights | checkpoint, dequantized by Transformers from the .gguf file |" in render(answer(files))


def test_the_folders_of_this_machine_are_left_out():
    case = Case("/data/secret/project/my-model")
    result = answer(
        observation("load", "skip", "no /data/secret/project/my-model/x, see /opt/venv/lib/y.py"), case=case
    )
    result = replace(
        result,
        cell=replace(result.cell, executable="/opt/venv/bin/python"),
        command="repro /data/secret/project/my-model --python /opt/venv/bin/python",
    )
    text = render(result)
    assert text.startswith("# my-model: ")
    assert "repro ./my-model --python ENV/bin/python\n" in text
    assert "no ./my-model/x, see ENV/lib/y.py" in text.replace("No ./", "no ./")
    assert not re.search("secret|/opt", text)


def test_the_report_has_the_origin_the_command_and_the_hashes():
    text = render(answer())
    for part in (
        "| module | `model.layers.7` (Gemma3DecoderLayer) |",
        "| operator | `aten.add.Tensor` |",
        "| reference value | 68394.9 (float32, whole model) |",
        "```sh\nrepro org/model --dtype float16\n```",
        f"SHA-256 `{'e' * 64}`",
        f"SHA-256 `{'0' * 64}`",
        "Numbers are rounded to 6 significant digits",
    ):
        assert part in text


@pytest.mark.parametrize("result", [answer(), good(), answer(observation("load", "skip", "no such class"))])
def test_no_placeholder_is_left(result):
    text = render(result)
    assert not re.search(r"\{\{|\{%|\bTODO\b|\bNone\b|\bundefined\b|<fill|\bXXX\b", text)


@pytest.mark.parametrize("result", [answer(), good()])
def test_every_table_row_has_as_many_cells_as_its_head(result):
    for table in tables(render(result)):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1


NASTY = [
    "|",
    "`",
    "``|`",
    "\n",
    "a\r\nb",
    "</table>",
    "<!-- -->",
    "[x](http://y)",
    "@someone",
    "#12",
    "*",
    "_x_",
    "\\|",
]


@pytest.mark.parametrize("nasty", NASTY)
def test_a_nasty_token_prompt_or_reason_breaks_no_table(nasty):
    origin = {**BISECT["origin"], "token": nasty}
    prompt = {**PROMPT, "prompt": nasty, "tokens": [nasty]}
    result = answer(
        observation("bisect", "bad", nasty, {**BISECT, "origin": origin}),
        observation("forward", "bad", nasty, {"logits": LOGITS, "prompts": [prompt]}),
        observation("ablation:attn=eager", "bad", nasty),
    )
    text = render(result)
    for table in tables(text):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table}) == 1
    assert text.count("<!--") == 1 + text.count("`<!-- -->`") + text.count("\\<!--")
    assert not re.search(r"(?<![`\\\w.'])@someone", text)


def test_random_weights_are_said_at_the_top():
    text = render(answer(case=Case("gpt2", weights="random:3")))
    assert text.splitlines()[0].startswith("# gpt2 with random weights: ")
    assert "> **Random weights.** The model was built from its configuration, with weights drawn from seed 3." in text


def test_a_good_run_claims_no_workaround_and_no_owner():
    text = render(good())
    assert text.startswith("# org/model: good\n")
    for claim in ("Workarounds", "## Owner", "## Origin", "How it spreads"):
        assert claim not in text


def test_a_skip_says_that_nothing_follows():
    text = render(answer(observation("forward", "skip", "no kernel"), observation("bisect", "skip")))
    assert "No kernel. This run does not show whether the model is sound." in text


def test_a_crash_shows_signal_and_last_lines():
    crash = observation(
        "forward", "skip", "the process was ended by SIGSEGV", ending="crashed", stderr_tail=("Fatal", "```x")
    )
    text = render(answer(crash))
    assert text.startswith("# org/model: the process crashed\n")
    assert "````\nFatal\n```x\n````" in text


def test_a_fault_that_does_not_repeat_takes_weight_from_the_ablations():
    prompts = [{**PROMPT, "repeat_equal": False}]
    text = render(answer(observation("forward", "bad", payload={"logits": LOGITS, "prompts": prompts})))
    assert "but repeating the same input gave other numbers" in text


def test_bad_tensors_and_findings_are_listed():
    finding = {"tensor": "wte", "file": "m", "dtype": "F32", "shape": [2, 2], "nan": 1, "posinf": 0, "neginf": 0}
    text = render(
        answer(
            observation("weights", "bad", payload={"tensors": 3, "findings": [{**finding, "first_index": [0, 1]}]}),
            observation("load", payload={**LOAD, "misaligned": 28, "missing_keys": [f"k{n}" for n in range(20)]}),
            observation(
                "files", payload={"files": [], "findings": [{"file": "f", "problem": "p", "severity": "note"}]}
            ),
        )
    )
    assert "| `wte` | `m` | F32 \\[2, 2\\] | 1 | 0 | 0 | \\[0, 1\\] |" in text
    assert "- load: missing keys (not in the file, so initialized at random): 20 (`k0`, `k1`" in text
    assert "- load: 28 parameters are misaligned in memory (a precondition of" in text
    assert "- files: `f`: p (not a fault by itself)" in text


@pytest.mark.parametrize("count", [1, 50, 300])
def test_the_report_stays_below_the_limit_and_says_what_was_left_out(count):
    text = render(much(count))
    assert len(text.encode()) < LIMIT
    assert ("rows are shown; verdict.json has all." in text) is (count > 1)


def test_the_origins_neighbours_survive_thinning():
    text = render(much(300))
    assert "| `model.layers.7` (origin) | 7 | below 0.1 % |" in text
    assert "| `model.layers.6` |" in text
    assert "| `model.layers.299` |" in text


def test_even_a_reason_beyond_all_measure_is_cut_below_the_limit():
    text = render(answer(observation("forward", "bad", "x" * 100_000), observation("bisect", "skip", "y" * 100_000)))
    assert len(text.encode()) < LIMIT
    assert "Cut here, at GitHub's limit" in text


def test_a_model_far_from_its_limits_gets_a_line_and_no_table():
    rows = [{"module": f"layers.{n}", "absmax": 10.0 * n, "ratio": 6550.4} for n in range(5)]
    forward = observation("forward", payload={"logits": {}, "prompts": [PROMPT]})
    far = render(answer(forward, observation("bisect", payload={**BISECT, "origin": None, "headroom": rows})))
    assert "output is 40, in `layers.4`: below 0.1 % of 65504, the largest finite float16." in far
    assert "share of the limit" not in far
    rows[2]["absmax"] = "nan"
    assert "share of the limit" in render(
        answer(forward, observation("bisect", payload={**BISECT, "origin": None, "headroom": rows}))
    )


def test_the_spread_ends_where_all_tokens_are_bad():
    bad = [[], [0], *[[0, 1, 2]] * 9]
    rows = [{"module": f"layers.{n}", "bad_tokens": tokens, "tokens": 3} for n, tokens in enumerate(bad)]
    text = render(answer(observation("bisect", "bad", payload={**BISECT, "spread": rows})))
    assert "| `layers.2` | 3 of 3 | all |\n\nAll tokens stay bad in the next 8 layers." in text


def test_what_load_found_is_said_once_and_with_a_number():
    problems = ["k0: not in the file", "2 parameters are not aligned to their item size", "declared tied"]
    found = [{"problem": problem, "severity": "bad"} for problem in problems]
    shapes = {"tensor": "w", "file": [2, 3], "model": [3, 2]}
    load = {**LOAD, "missing_keys": ["k0"], "mismatched": [shapes], "misaligned": 2, "findings": found}
    text = render(answer(observation("load", "bad", payload=load)))
    assert (text.count("k0"), text.count("aligned"), text.count("declared tied")) == (1, 1, 1)
    assert "- load: mismatched shapes: 1 (`w [2, 3] in the file, [3, 2] in the model`)" in text


def test_a_limit_and_a_dtype_belong_to_arithmetic_only():
    masked = {**BISECT["origin"], "mechanism": "masked_row", "element": [0, 3, 1]}
    text = render(answer(observation("bisect", "bad", payload={**BISECT, "origin": masked})))
    assert text.startswith("# org/model: softmax of a fully masked row in model.layers.7\n")
    assert "dtype limit" not in text
    assert "| output element | \\[0, 3, 1\\] |" in text


def test_no_headroom_where_no_layer_is_left():
    rows = [{"module": "layers.0", "absmax": "nan", "ratio": None}]
    assert "## Headroom" not in render(answer(observation("bisect", "bad", payload={**BISECT, "headroom": rows})))


def test_a_good_run_with_random_weights_says_so_once():
    text = render(good(case=Case("gpt2", weights="random:3")))
    assert text.splitlines()[4].startswith("No fault found with random weights (seed 3): forward is good.")


def test_a_crash_names_the_settings_without_one():
    crash = observation("forward", "skip", "the process was ended by SIGSEGV", ending="crashed")
    assert "SIGSEGV. It does not crash with dtype=float32." in render(answer(crash, observation("bisect", "skip")))


def test_the_same_last_lines_stand_once():
    words = ("Fatal", '  File "/x/run/probes.pyz/probes/forward.py", line 51 in run', "Extension modules: torch._C")
    crashes = [observation(step, "skip", "x", ending="crashed", stderr_tail=words) for step in ("forward", "bisect")]
    text = render(answer(*crashes))
    assert text.count("Last lines of") == 1
    assert '  File "probes.pyz/probes/forward.py", line 51 in run' in text
    assert "Extension modules" not in text


ALICE = Private(home="/home/alice", user="alice", host="wonder.land.example")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("/home/alice/models/x", "~/models/x"),
        ("/home/bob/x and /Users/carol/y", "~/x and ~/y"),
        (r"C:\Users\dave\x", r"~\x"),
        ("by alice on wonder", "by USER on HOST"),
        ("wonder.land.example:80", "HOST:80"),
        ("hf_abcdefghijklmnop", "TOKEN"),
        ("Authorization: Bearer abcdef123456", "Authorization: Bearer TOKEN"),
        ("https://alice:secret@host/x", "https://TOKEN@host/x"),
        ("malice.layers.7 and alice.layers", "malice.layers.7 and USER.layers"),
        ("wonderful", "wonderful"),
        ('File "/my runs/x/probes.pyz/probes/forward.py", line 5', 'File "probes.pyz/probes/forward.py", line 5'),
        ('"a" in /x/run/kit.log, see "b"', '"a" in kit.log, see "b"'),
        ("/x/plan.json /y/probes.pyz/", "plan.json probes.pyz/"),
    ],
)
def test_what_is_private_is_left_out(said, left):
    assert redact(said, ALICE) == left


def test_a_hub_id_keeps_its_public_name():
    assert redact("repro alice/model in /home/alice", ALICE, keep=("alice/model",)) == "repro alice/model in ~"


def test_common_names_and_the_root_folder_stay():
    assert redact("the root of /", Private(home="/", user="root", host="localhost")) == "the root of /"


def test_no_private_word_is_in_a_report():
    case = Case("/home/alice/m", prompts=("a",))
    result = answer(observation("load", "skip", "no /home/alice/m on wonder for alice, hf_abcdefghijk"), case=case)
    assert not re.search(r"alice|wonder|hf_a", render(result, ALICE))


def test_the_template_names_every_section_once():
    listed = re.findall(r'section\("(\w+)"\)', (ROOT / "REPORT_TEMPLATE.md").read_text("utf-8"))
    assert sorted(listed) == list(names())
    assert len({named(name).heading for name in listed}) == len(listed)


def template(folder, monkeypatch, text):
    """Put another REPORT_TEMPLATE.md in place of the shipped one."""
    (folder / "REPORT_TEMPLATE.md").write_text(text, "utf-8")
    monkeypatch.setattr("repro.report.render.__file__", str(folder / "render.py"))


def test_a_changed_template_gives_another_order_and_its_own_words(tmp_path, monkeypatch):
    template(tmp_path, monkeypatch, '# t\n\n{{ section("owner") }}\n\nMy words.\n\n{{ section("reproduce") }}')
    assert render(answer()).startswith("# t\n\nMy words.\n\n## Reproduce\n\n```sh\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [('{{ section("owners") }}', "there is no section 'owners'. Sections: ablations, "), ("{{ titel }}", "titel")],
)
def test_a_template_that_cannot_be_filled_is_refused(tmp_path, monkeypatch, text, said):
    template(tmp_path, monkeypatch, text)
    with pytest.raises(ReproError, match=re.escape(said)):
        render(answer())


def test_a_report_is_cut_at_its_headings_and_not_inside_code():
    report = "# a *b*\n\nhead\n\n## One\n\n```\n## no heading\n\n\n```\n\n## Two\n\nx\n"
    assert parts(report) == [
        Part("a *b*", "head"),
        Part("One", "```\n## no heading\n\n\n```"),
        Part("Two", "x"),
    ]


@pytest.mark.parametrize("name", ["bad", "nan", "skip", "crash"])
def test_words_that_verdict_json_needs_are_nobodys_name(name):
    assert Mask(Private(user=name)).answer(answer()) == Mask(Private()).answer(answer())


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("a", "`a`"),
        ("", "(empty)"),
        ("  ", "(2 spaces)"),
        ("`", "`` ` ``"),
        ("a\nb", "`a\\nb`"),
        ("\u202e", "`\\u202e`"),
    ],
)
def test_a_code_span_shows_its_value(value, span):
    assert markdown.code(value) == span


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("modeling_gemma3.py:416", "modeling_gemma3.py:416"),
        ("_x_", "\\_x\\_"),
        ("- a", "\\- a"),
        ("&lt;", "&amp;lt;"),
        ("a & b > c", "a & b > c"),
        ("mail a@b #3", "mail a&#64;b &#35;3"),
        ("a\n\nb", "a b"),
    ],
)
def test_prose_reads_as_it_was(value, line):
    assert markdown.text(value) == line


def test_the_report_of_a_script_speaks_of_a_script():
    steps = observed(
        observation("environment", payload=ENVIRONMENT),
        observation("script", "bad", "NaN in row 2", {"exit_status": 1}),
    )
    case = Case("/home/me/asks.py")
    header = Header(case, Cell("/usr/bin/python3"), "0" * 64, "0.1.0", ("repro", "asks.py"), "2026")
    report = render(answered(judge(steps, case, "script"), steps, header))
    assert report.startswith("# asks.py: the script reports a fault\n")
    assert "(exit status 1)" in report
    assert "weights" not in report
    assert "/home/me" not in report


def test_the_origin_and_the_skip_of_a_script_speak_of_no_model():
    origin = {"op": "aten.log.default", "code": "__main__", "call_index": -1, "mechanism": "division_by_zero"}
    found = {"origin": {**origin, "confirmed": True, "confirmed_by": "repaired"}}
    case = Case("/home/me/asks.py")
    header = Header(case, Cell("/usr/bin/python3"), "0" * 64, "0.1.0", ("repro", "asks.py"), "2026")
    bad = observation("script", "bad", "loss nan", {"exit_status": 1})
    for steps in (
        observed(bad, observation("bisect", "bad", "division by zero", found)),
        observed(observation("script", "skip", "SyntaxError", {"exit_status": 125})),
    ):
        report = render(answered(judge(steps, case, "script"), steps, header))
        assert "the model" not in report
        assert "module call" not in report
    assert "This run does not show whether the script is sound." in report
