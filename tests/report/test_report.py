"""verdict.json and report.md: what they say, and what they never say."""

import json
import re

import pytest
from support.hosting import BISECT, ROOT, observation, observed

from repro.core.encoding import encode
from repro.core.records import Case, Cell, Header
from repro.diagnosis.verdict import judge
from repro.report import markdown
from repro.report.document import document
from repro.report.privacy.redact import Private, redact
from repro.report.render import LIMIT, render

CASE = Case("org/model", dtype="float16", prompts=("a",))
ENVIRONMENT = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "platform": "Linux", "blas": "mkl"}
LOAD = {"class": "LlamaForCausalLM", "parameters": 1000, "dtype": "float16", "attn": "sdpa", "device": "cpu"}
PROMPT = {"prompt": "a", "input_source": "tokenizer", "input_ids": [2, 3], "tokens": ["<bos>", "a"], "verdict": "bad"}
LOGITS = {"min": "nan", "max": "nan", "mean": "nan", "nan": 60, "posinf": 0, "neginf": 0}
KEYS = {
    *("schema", "verdict", "reason", "kind", "model", "cell", "files", "weights", "load", "forward"),
    *("origin", "ablations", "reproducer", "owner", "versions"),
}


def answer(*changed, case=CASE):
    """The verdict of a float16 overflow, in which some steps may have come out otherwise."""
    steps = observed(
        observation("environment", payload=ENVIRONMENT),
        observation("files", payload={"source": "folder", "revision": None, "files": [], "findings": []}),
        observation("weights", payload={"tensors": 3, "findings": [], "stats": [{"tensor": "x"}] * 3}),
        observation("load", payload=LOAD),
        observation("forward", "bad", "every logit is NaN", {"logits": LOGITS, "prompts": [PROMPT]}),
        observation("bisect", "bad", payload=BISECT),
        observation(
            "ablation:dtype=float32", payload={"change": {"dtype": "float32"}, "logits": {"min": -1, "max": 1.0}}
        ),
        observation("ablation:attn=eager", "bad"),
        *changed,
    )
    header = Header(case, Cell("/usr/bin/python3"), "0" * 64, "0.1.0", ("repro", "org/model"), "2026")
    asked = ("repro", "org/model", "--dtype", "float16")
    return document(judge(steps, case), steps, header, "e" * 64, asked)


def good(**options):
    forward = observation("forward", payload={"logits": {}, "prompts": [PROMPT]})
    return answer(forward, observation("bisect", payload={"origin": None}), **options)


def test_the_document_has_the_keys_of_the_design():
    assert set(KEYS) <= set(answer())


def test_the_document_is_strict_json():
    assert json.loads(encode(answer()))["forward"]["logits"]["min"] == "nan"


def test_the_document_names_model_and_cell():
    result = answer()
    assert result["model"] | {"seed": 0} == {
        "id": "org/model",
        "revision": None,
        "weights": "checkpoint",
        "seed": 0,
        "class": "LlamaForCausalLM",
        "parameters": 1000,
    }
    assert result["cell"]["torch"] == "2.13.0"
    assert result["cell"]["device"] == "cpu"


def test_one_row_a_tensor_stays_in_the_evidence():
    assert "stats" not in answer()["weights"]


def test_parts_that_were_not_asked_for_are_none():
    steps = observed(observation("environment"), observation("files"), observation("weights"))
    header = Header(CASE, Cell("p"), "0" * 64, "0.1.0", (), "2026")
    result = document(judge(steps, CASE, "weights"), steps, header, None, ("repro",))
    assert [result[key] for key in ("load", "forward", "origin", "bisect", "owner")] == [None] * 5
    assert "## Where it is born" not in render(result)


def test_the_report_opens_with_title_place_for_words_and_summary():
    lines = render(answer()).splitlines()
    assert lines[0] == "# org/model: float16 overflow in model.layers.7"
    assert re.fullmatch(r"<!-- [^<>]+ -->", lines[2])
    assert lines[4] == (
        "float16 overflow in model.layers.7 (aten.add.Tensor, modeling_gemma3.py:416): token 0 '\\<bos>', channel 163; "
        "float32 has 68394.9 there, the limit is 65504. "
        "2 single changes were tried; good with dtype=float32; still bad with attn=eager."
    )


def ablations(**verdicts):
    return [observation(f"ablation:{name}", verdict, f"{name} is {verdict}") for name, verdict in verdicts.items()]


def test_cures_come_by_name_and_what_does_not_help_as_a_number():
    lines = render(answer(*ablations(a="bad", b="bad", c="skip", second_prompt="good"))).splitlines()
    assert lines[4].endswith(
        "5 single changes were tried; good with dtype=float32; still bad with the other 3; another prompt is good."
    )


def test_a_change_that_does_not_apply_is_in_no_table():
    text = render(answer(*ablations(aligned_copy="skip")))
    assert "Not applicable here: `aligned_copy` (aligned_copy is skip)." in text
    assert "| `aligned_copy` |" not in text


def test_a_good_run_says_what_else_was_good():
    every = "Every step gave an answer; 2 single changes were tried, and the output is bad with attn=eager."
    assert every in render(good())
    skipped = observation("weights", "skip", "no file is read")
    assert "No answer came from weights; 2 single changes" in render(
        answer(skipped, observation("forward"), observation("bisect", payload={"origin": None}))
    )


def test_the_origin_is_said_once_in_the_steps():
    assert "| `bisect` | **bad** | 0.5 | the origin, as above |" in render(answer())


def test_a_note_of_the_origin_stands_once():
    origin = {**BISECT["origin"], "note": "a remarkable note"}
    assert render(answer(observation("bisect", "bad", payload={**BISECT, "origin": origin}))).count("remarkable") == 1


def test_a_gguf_file_is_said_to_have_been_expanded():
    files = observation("files", payload={"source": "gguf", "files": [], "findings": []})
    assert "| weights | checkpoint, expanded by Transformers from the .gguf file |" in render(answer(files))


def test_the_folders_of_this_machine_are_left_out():
    case = Case("/data/secret/project/my-model")
    result = answer(
        observation("load", "skip", "no /data/secret/project/my-model/x, see /opt/venv/lib/y.py"), case=case
    )
    result["cell"]["executable"] = "/opt/venv/bin/python"
    result["command"] = "repro /data/secret/project/my-model --python /opt/venv/bin/python"
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
        "| reference value there | 68394.9 (float32, the whole model run in it) |",
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


def tables(text):
    """Runs of lines that start with a bar."""
    found, rows = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append(line)
        elif rows:
            found.append(rows)
            rows = []
    return found


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
    assert "> **Random weights.** The model was built from its configuration with weights drawn from seed 3." in text


def test_a_good_run_claims_no_cure_and_no_owner():
    text = render(good())
    assert text.startswith("# org/model: good\n")
    for claim in ("workarounds", "Whose fault", "Where it is born", "It spreads"):
        assert claim not in text


def test_a_skip_says_that_nothing_follows():
    text = render(answer(observation("forward", "skip", "no kernel"), observation("bisect", "skip")))
    assert "No kernel. Nothing follows from this run about whether the model is sound." in text


def test_a_crash_shows_signal_and_last_words():
    crash = observation(
        "forward", "skip", "the process was ended by SIGSEGV", ending="crashed", stderr_tail=("Fatal", "```x")
    )
    text = render(answer(crash))
    assert text.startswith("# org/model: the process crashed\n")
    assert "````\nFatal\n```x\n````" in text


def test_a_fault_that_does_not_repeat_takes_weight_from_the_ablations():
    prompts = [{**PROMPT, "repeat_equal": False}]
    text = render(answer(observation("forward", "bad", payload={"logits": LOGITS, "prompts": prompts})))
    assert "a repeat of the same gave other numbers, so a good row may be chance" in text


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
    assert "- load: missing keys, not in the file and so initialised at random: 20 (`k0`, `k1`" in text
    assert "- load: 28 parameters are misaligned in memory (a precondition of some faults, no fault by itself)" in text
    assert "- files: `f`: p (a note, no fault by itself)" in text


def many(count):
    """A run with much of everything."""
    rows = [{"module": f"model.layers.{n}", "absmax": float(n), "ratio": 0.1} for n in range(count)]
    spread = [{"module": f"model.layers.{n}", "bad_tokens": list(range(n)), "tokens": count} for n in range(count)]
    prompts = [{**PROMPT, "prompt": "x" * 5000, "input_ids": list(range(5000))}] * count
    findings = [{"tensor": f"t{n}" * 50, "file": "f" * 200, "nan": 1, "posinf": 0, "neginf": 0} for n in range(count)]
    return answer(
        observation("weights", "bad", payload={"tensors": count, "findings": findings}),
        observation("forward", "bad", payload={"logits": LOGITS, "prompts": prompts}),
        observation("bisect", "bad", payload={**BISECT, "headroom": rows, "spread": spread}),
    )


@pytest.mark.parametrize("count", [1, 50, 300])
def test_the_report_stays_below_the_limit_and_says_what_was_left_out(count):
    text = render(many(count))
    assert len(text.encode()) < LIMIT
    assert ("rows are shown; verdict.json has all." in text) is (count > 1)


def test_the_origins_neighbours_survive_thinning():
    text = render(many(300))
    assert "| `model.layers.7` (origin) | 7 | below 0.1 % |" in text
    assert "| `model.layers.6` |" in text
    assert "| `model.layers.299` |" in text


def test_even_a_reason_beyond_all_measure_is_cut_below_the_limit():
    text = render(answer(observation("forward", "bad", "x" * 100_000), observation("bisect", "skip", "y" * 100_000)))
    assert len(text.encode()) < LIMIT
    assert "This report was cut here" in text


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
    assert "| `layers.2` | 3 of 3 | all |\n\nSo it stays in the 8 layers behind it." in text


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
    assert "largest finite value of the dtype" not in text
    assert "| element of the output | \\[0, 3, 1\\] |" in text


def test_no_headroom_where_no_layer_is_left():
    rows = [{"module": "layers.0", "absmax": "nan", "ratio": None}]
    assert "## Headroom" not in render(answer(observation("bisect", "bad", payload={**BISECT, "headroom": rows})))


def test_a_good_run_with_random_weights_says_so_once():
    text = render(good(case=Case("gpt2", weights="random:3")))
    assert text.splitlines()[4].startswith("No fault was found with random weights (seed 3): forward is good.")


def test_a_crash_names_the_settings_without_one():
    crash = observation("forward", "skip", "the process was ended by SIGSEGV", ending="crashed")
    assert "SIGSEGV. It does not crash with dtype=float32." in render(answer(crash, observation("bisect", "skip")))


def test_the_same_last_words_stand_once():
    words = ("Fatal", '  File "/x/run/probes.pyz/probes/forward.py", line 51 in run', "Extension modules: torch._C")
    crashes = [observation(step, "skip", "x", ending="crashed", stderr_tail=words) for step in ("forward", "bisect")]
    text = render(answer(*crashes))
    assert text.count("Last words of") == 1
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
        ("malice.layers.7 and alice.layers", "malice.layers.7 and alice.layers"),
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


def test_the_template_ships_at_the_top_of_the_repository():
    assert (ROOT / "REPORT_TEMPLATE.md").is_file()


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
    report = render(document(judge(steps, case, "script"), steps, header, None, ("repro", "asks.py")))
    assert report.startswith("# asks.py: bad, as the script says itself")
    assert "it ended with exit status 1" in report
    assert "weights" not in report
    assert "/home/me" not in report
