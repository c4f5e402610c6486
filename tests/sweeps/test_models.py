"""What follows from several models: rows, thresholds, headroom, settings; from documents made by hand."""

import json

import pytest
from support.hosting import BISECT, OPTIONS, Told, answers, fake_python, model_folder

from repro.cli.options import request_from
from repro.core.answer import Answer, CellInfo, ModelInfo, read
from repro.core.encoding import replace
from repro.core.errors import UsageError
from repro.core.payloads import Bisect, Forward, Headroom, Load, Origin, Pass
from repro.core.records import Case, Kind, Outcome
from repro.core.sweep_answers import Born, Comparison, Peak, Place, Prompts, SiblingModel
from repro.report.models import lines, size
from repro.sweeps.models import run
from repro.sweeps.models.model import headrooms, settings_of, sibling
from repro.sweeps.models.run import WIDER, Comparing
from repro.sweeps.models.settings import differing
from repro.sweeps.models.threshold import threshold

LIMIT = 65504.0


def measured(value, dtype="float16", whole=True):
    return Peak(value=value, dtype=dtype, measured=whole)


def one(name, parameters, verdict="good", *, peak=None, asked=None, failed=None, **more):
    """A model in float16; a good one is measured there, a bad one in float32."""
    known = None if peak is None else measured(peak, "float16" if verdict == "good" else "float32")
    given = {"kind": Kind.NONFINITE if verdict == "bad" else None, "dtype": "float16", "attn": "sdpa", "peak": known}
    given |= {"model_class": "Gemma3ForCausalLM", "asked": asked, "failed": failed, "headroom": headrooms(known)}
    given |= {"share": failed / asked if asked else None, "parameters": parameters, "reason": "as injected"}
    return SiblingModel(name=name, model=f"org/{name}", verdict=Outcome(verdict), **{**given, **more})


def gemma(*verdicts, **more):
    sizes = {"270m": 268_098_176, "1b": 999_885_952, "4b": 3_880_099_328, "12b": 11_765_788_416, "27b": 27_009_002_240}
    return [one(name, own, verdict, **more) for (name, own), verdict in zip(sizes.items(), verdicts, strict=False)]


def said(siblings):
    return " ".join(threshold(siblings).sentences)


# --- the threshold -----------------------------------------------------------------------------------------------


def test_a_threshold_is_stated_as_far_as_it_was_tested():
    found = threshold(gemma("good", "good", "good", "bad", "bad"))
    assert (found.kind, found.below, found.above) == ("bad_from", "4b", "12b")
    assert found.sentences[0] == (
        "Good up to 4b (3.88B parameters), bad from 12b (11.8B parameters), as far as it was tested: "
        "no size between 3.88B and 11.8B was asked."
    )


def test_the_order_in_which_models_are_named_does_not_matter():
    models = gemma("good", "good", "bad")
    assert threshold(models[::-1]) == threshold(models)


def test_a_model_between_that_gave_no_answer_leaves_the_interval_open():
    models = gemma("good", "good", "skip", "bad")
    assert threshold(models).kind == "bad_from"
    assert "no other size between them answered (4b gave no answer)" in said(models)
    assert "No answer: 4b (as injected)." in said(models)


def test_a_model_beyond_that_gave_no_answer_is_not_between():
    assert "no size between 1B and 3.88B was asked" in said(gemma("good", "good", "bad", "skip"))


def test_one_bad_model_between_good_ones_is_no_threshold():
    models = [one("gpt2", 124), one("gpt2-medium", 355, "bad"), one("gpt2-large", 774), one("gpt2-xl", 1558)]
    found = threshold(models)
    assert (found.kind, found.below, found.above) == ("not_in_order", None, None)
    assert found.sentences[0] == (
        "The verdicts do not follow the size (gpt2 good, gpt2-medium bad, gpt2-large good, gpt2-xl good), "
        "so no threshold follows."
    )


def test_small_models_that_are_bad_are_a_threshold_too():
    found = threshold(gemma("bad", "good", "good"))
    assert (found.kind, found.below, found.above) == ("good_from", "270m", "1b")


@pytest.mark.parametrize("verdict", ["good", "bad"])
def test_with_one_verdict_there_is_no_threshold(verdict):
    models = gemma(verdict, verdict)
    assert threshold(models).kind == f"all_{verdict}"
    assert "in what was tested there is no threshold" in said(models)


def test_two_models_of_one_size_and_two_verdicts_are_no_threshold():
    assert threshold([one("base", 100), one("tuned", 100, "bad")]).kind == "not_in_order"


def test_one_answer_is_no_threshold():
    assert threshold(gemma("bad", "skip")).kind == "too_few"


def test_a_change_of_dtype_with_size_hides_the_threshold():
    models = [one("4b", 4, dtype="bfloat16"), one("12b", 12, "bad"), one("27b", 27, "bad")]
    assert threshold(models).kind == "dtypes"
    assert "(4b in bfloat16 (good), 12b in float16 (bad) and 27b in float16 (bad))" in said(models)
    assert "Give --dtype." in said(models)


def test_another_architecture_may_be_what_differs():
    models = [one("gpt2", 1, model_class="GPT2LMHeadModel"), one("pythia", 2, "bad", model_class="GPTNeoXForCausalLM")]
    assert "different architectures (GPT2LMHeadModel and GPTNeoXForCausalLM): it need not be the size." in said(models)


def test_of_random_weights_it_is_said_that_nothing_follows_about_checkpoints():
    assert "nothing follows from this about their checkpoints" in said(gemma("good", "bad", weights="random"))
    assert "checkpoints" not in said(gemma("good", "bad"))


def test_a_failing_share_that_falls_with_size_is_pointed_out():
    models = [
        one("4b", 4, asked=100, failed=0),
        one("12b", 12, "bad", asked=100, failed=38),
        one("27b", 27, "bad", asked=100, failed=19),
    ]
    assert ("the failing share falls with the size: 12b 38 of 100 (38 %) and 27b 19 of 100 (19 %).") in said(models)


def test_a_bad_model_of_no_known_size_is_named():
    models = [*gemma("good", "good"), one("broken", None, "bad", kind=Kind.FILES)]
    assert threshold(models).kind == "all_good"
    assert "Not in the order, for the number of parameters is not known: broken." in said(models)


# --- headroom as the cause ---------------------------------------------------------------------------------------


def test_headroom_below_1_exactly_where_it_fails_is_the_cause():
    models = [one("s", 1, peak=9e3), one("m", 2, peak=5e4), one("l", 3, "bad", peak=7e4)]
    found = threshold(models)
    assert (found.headroom, found.headroom_with_size) == ("cause", "falls")
    assert "limit of 65504 (l 70000 in float32), and each good one stays below it" in said(models)
    assert "It falls with the size throughout." in said(models)


def test_headroom_of_models_of_one_size_does_not_fall_with_size():
    models = [one("a", 1, peak=9e3), one("b", 1, "bad", peak=7e4)]
    found = threshold(models)
    assert (found.headroom, found.headroom_with_size) == ("cause", "not in order")
    assert "It falls with the size throughout." not in said(models)


def test_headroom_that_does_not_fall_with_size_is_the_cause_but_the_size_is_not():
    models = [one("s", 1, peak=6e4), one("m", 2, "bad", peak=9e4), one("l", 3, peak=2e3)]
    found = threshold(models)
    assert (found.kind, found.headroom, found.headroom_with_size) == ("not_in_order", "cause", "not in order")
    assert "the size alone does not decide it" in said(models)


def test_a_bad_model_with_headroom_left_speaks_against_it():
    models = [one("s", 1, peak=1e3), one("l", 3, "bad", peak=2e3)]
    assert threshold(models).headroom == "not_cause"
    assert "the layers' outputs of l reach 2000 in float32, which is below it" in said(models)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"mechanism": "masked_row"}, "in l the mechanism is masked_row, not an overflow"),
        ({"wider": Outcome.BAD}, "l is bad in the wider dtype too"),
        ({"kind": Kind.WEIGHTS}, "what is bad in l is of another kind (weights)"),
    ],
)
def test_what_is_no_overflow_is_not_for_want_of_headroom(more, words):
    models = [one("s", 1, peak=1e3), one("l", 3, "bad", peak=9e4, **more)]
    assert threshold(models).headroom == "not_cause"
    assert words in said(models)


def test_a_magnitude_known_from_below_is_enough_where_it_is_beyond_the_limit():
    beyond, before = measured(68395.0, whole=False), measured(5e4, whole=False)
    for peak, wanted in ((beyond, "cause"), (before, "unknown"), (None, "unknown")):
        models = [one("s", 1, peak=1e3), replace(one("l", 3, "bad"), peak=peak)]
        assert threshold(models).headroom == wanted


def test_without_a_bad_model_the_least_headroom_is_named():
    models = [one("s", 1, peak=LIMIT / 2), one("l", 2, peak=LIMIT / 4)]
    assert threshold(models).headroom is None
    assert "The least headroom to float16's limit of 65504 is 2, in s." in said(models)


@pytest.mark.parametrize(
    ("parameters", "words"), [(12_345, "12,345"), (268_098_176, "268M"), (27_009_002_240, "27B"), (10**9, "1B")]
)
def test_sizes_in_words(parameters, words):
    assert size(parameters) == words


# --- rows --------------------------------------------------------------------------------------------------------


def run_of(verdict="good", *, dtype="float16", absmax=(10.0, 20.0), origin=None, prompts=None, **config):
    """What a comparison reads of an answer."""
    headroom = tuple(Headroom(module=f"model.layers.{layer}", absmax=value) for layer, value in enumerate(absmax))
    return Answer(
        verdict=Outcome(verdict),
        reason="as injected",
        kind=Kind.NONFINITE if verdict == "bad" else None,
        case=Case("org/model"),
        model=ModelInfo(id="org/model", class_="M", parameters=7),
        cell=CellInfo(dtype=dtype, attn="sdpa"),
        load=Load(config={"hidden_size": 640, "num_hidden_layers": 18, **config}),
        forward=Forward(prompts=(Pass(verdict=Outcome(verdict)),)),
        bisect=Bisect(headroom=headroom),
        prompts=prompts,
        origin=origin,
        command="repro bisect org/model",
    )


def row(folder, answer, wider=None):
    return sibling("model", folder, answer, wider, folder / "wider")


def test_layers_and_hidden_size_come_from_the_settings(tmp_path):
    found = row(tmp_path, run_of())
    assert (found.layers, found.hidden_size, found.parameters) == (18, 640, 7)


def test_the_language_part_of_a_larger_model_stands_at_the_top():
    found = settings_of(run_of(model_type="gemma3", text_config={"hidden_size": 2560, "model_type": "gemma3_text"}))
    assert (found["hidden_size"], found["model_type"]) == (2560, "gemma3_text")


def test_a_good_run_is_measured_to_its_end(tmp_path):
    found = row(tmp_path, run_of(absmax=(10.0, 32752.0)))
    assert found.peak == measured(32752.0)
    assert found.headroom["float16"] == 2.0


def test_a_bad_run_is_measured_in_the_wider_dtype(tmp_path):
    wider = run_of(dtype="float32", absmax=(10.0, 131008.0))
    found = row(tmp_path, run_of("bad", absmax=(10.0, "inf")), wider)
    assert found.peak == measured(131008.0, "float32")
    assert found.headroom["float16"] == 0.5


def test_without_a_good_wider_run_a_bad_one_is_measured_from_below(tmp_path):
    answer = run_of("bad", absmax=(10.0, "inf"))
    wider = run_of("bad", dtype="float32", absmax=(10.0, "nan"))
    assert row(tmp_path, answer, wider).peak == measured(10.0, whole=False)
    assert row(tmp_path, answer).peak == measured(10.0, whole=False)


def test_the_reference_of_an_overflow_in_a_layers_own_sum_counts(tmp_path):
    origin = Origin(module="model.layers.1", mechanism="overflow", reference_value=-68394.9, op="aten.add.Tensor")
    found = row(tmp_path, run_of("bad", absmax=(10.0, "inf"), origin=origin))
    assert found.peak == measured(68394.9, whole=False)


def test_the_reference_of_an_overflow_inside_a_layer_does_not(tmp_path):
    origin = Origin(module="model.layers.1.mlp", mechanism="overflow", reference_value=1e5)
    assert row(tmp_path, run_of("bad", absmax=(10.0, "inf"), origin=origin)).peak.value == 10.0


def test_the_prompts_of_a_run_are_counted_and_measured(tmp_path):
    places = (Place(layer="model.layers.7", token="<bos>", kind="special", examples=38),)
    answer = run_of("bad", prompts=Prompts(asked=100, good=62, bad=38, places=places))
    lines = [
        {"schema": 1, "record": "header"},
        {"index": 0, "absmax": 50.0},
        {"index": 1, "absmax": None},
        {"index": 2, "absmax": 70.0},
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"index": 3, "abs')
    found = row(tmp_path, answer)
    assert (found.asked, found.failed, found.share) == (100, 38, 0.38)
    assert found.born == Born(module="model.layers.7", token="<bos>")
    assert found.peak == measured(70.0, whole=False)


def test_where_nothing_was_loaded_nothing_is_known(tmp_path):
    found = row(tmp_path, replace(run_of("skip"), load=None, forward=None, bisect=None))
    assert (found.layers, found.peak, found.share) == (None, None, None)
    assert found.headroom == {"float16": None, "bfloat16": None, "float32": None}


# --- settings ----------------------------------------------------------------------------------------------------


def settings(*configs, sizes=(1, 2, 3), verdicts=("good", "good", "bad")):
    found, same = differing(("s", "m", "l"), configs, sizes, [Outcome(word) for word in verdicts])
    return {one.path: one for one in found}, same


def test_alike_settings_are_counted_only():
    found, same = settings({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 1, "b": 4})
    assert (list(found), same) == (["b"], 1)


@pytest.mark.parametrize(
    ("values", "order", "separates"),
    [
        ((1, 2, 3), "rises", True),
        ((3.0, 2.0, 1.0), "falls", True),
        ((1, 3, 2), "not in order", False),
        ((2, 2, 1), "falls", True),
        ((1, 3, 4.5), "rises", True),
        (("gelu", "gelu", "silu"), None, True),
        (("gelu", "silu", "silu"), None, False),
        (("a", "b", "c"), None, True),
        ((True, True, False), None, True),
        ((None, None, 1), None, True),
    ],
)
def test_how_a_setting_goes_with_size_and_verdict(values, order, separates):
    found, _ = settings(*({"key": value} for value in values))
    assert (found["key"].order, found["key"].separates) == (order, separates)


def test_a_setting_that_one_model_lacks_is_absent_there():
    found, _ = settings({"a": 1, "b": None}, {"a": 1}, {"a": 1})
    assert found["b"].absent == (False, True, True)


def test_nested_settings_are_aligned_by_their_path():
    found, _ = settings(*({"rope": {"theta": theta, "type": "default"}} for theta in (1.0, 1.0, 2.0)))
    assert list(found) == ["rope.theta"]


def test_models_of_one_size_have_no_order():
    found, _ = settings({"a": 1}, {"a": 2}, {"a": 3}, sizes=(1, 1, 2))
    assert found["a"].order is None


def test_a_model_without_settings_is_left_out():
    found, _ = settings({"a": 1}, {}, {"a": 2})
    assert found["a"].values == (1, None, 2)
    assert settings({"a": 1}, {}, {}) == ({}, 0)


# --- the flow ----------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Compare models whose fake interpreter answers as told; returns (answer, lines)."""
    monkeypatch.chdir(tmp_path)

    def ask(*names, steps=None, **more):
        for name in names:
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / name / "config.json").write_text("{}")
        for name, value in answers(tmp_path, **(steps or {})).items():
            monkeypatch.setenv(name, value)
        told = Told()
        given = {**OPTIONS, "python": str(fake_python(tmp_path)), "reduce": False, "deliver": False}
        requests = [request_from("bisect", {**given, "model": name}) for name in names]
        result = run.run(Comparing(tuple(requests), out=tmp_path / "out", **more), told)
        return result.answer, told.lines

    return ask


LOAD = {"payload": {"parameters": 5, "dtype": "float16", "class": "M", "config": {"hidden_size": 8}}}
BAD = {
    "load": LOAD,
    "forward": {"verdict": "bad", "reason": "every logit is NaN", "payload": {"prompts": []}},
    "bisect": {"verdict": "bad", "payload": BISECT},
}


def test_good_models_are_good(asked, tmp_path):
    answer, told = asked("a", "b", steps={"load": LOAD})
    assert answer.verdict is Outcome.GOOD
    assert [one.name for one in answer.comparison.models] == ["a", "b"]
    assert told == ["[1/2] a", "[2/2] b"]
    assert read(tmp_path / "out" / "b" / "verdict.json").verdict is Outcome.GOOD
    assert read(tmp_path / "out" / "verdict.json") == answer


def test_a_bad_model_is_asked_in_a_wider_dtype(asked, tmp_path):
    answer, told = asked("a", "b", steps=BAD)
    assert answer.verdict is Outcome.BAD
    assert "a is bad in float16; in float32, to see how large its values would be:" in told
    assert read(tmp_path / "out" / "a" / "float32" / "verdict.json").case.dtype == "float32"
    assert answer.comparison.models[0].wider is Outcome.BAD


def test_it_is_not_where_that_is_not_wanted(asked, tmp_path):
    answer, _ = asked("a", "b", steps=BAD, measure=False)
    assert not (tmp_path / "out" / "a" / "float32").exists()
    assert answer.command.endswith(" --no-measure --no-bundle")


def test_where_none_answers_the_reasons_are_told(asked):
    answer, _ = asked("a", "b", steps={"load": {"verdict": "skip", "reason": "no class knows it"}})
    assert (answer.verdict, answer.reason) == (Outcome.SKIP, "2 of 2 models are without an answer (a and b).")
    assert "a (" in " ".join(answer.comparison.threshold.sentences)


def test_it_goes_on_where_it_stopped(asked):
    first, _ = asked("a", "b", steps={"load": LOAD})
    second, _ = asked("a", "b", steps={"load": {"verdict": "bad"}})
    assert second.comparison == first.comparison


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 2, "command": "x"}'])
def test_a_damaged_header_is_refused_with_its_name(asked, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "compare.json").write_text(text)
    with pytest.raises(UsageError, match=r"compare\.json cannot be read"):
        asked("a", "b")


def test_a_folder_of_another_comparison_is_refused(asked):
    asked("a", "b")
    with pytest.raises(UsageError, match="holds a comparison of another question"):
        asked("a", "c")


def test_one_model_is_nothing_to_compare(asked):
    with pytest.raises(UsageError, match="at least two models"):
        asked("a")


def test_one_model_twice_is_refused(asked):
    with pytest.raises(UsageError, match="a is named twice"):
        asked("a", "a")


def test_a_script_is_refused(tmp_path):
    (tmp_path / "script.py").write_text("")
    request = request_from("bisect", {**OPTIONS, "model": str(tmp_path / "script.py")})
    other = request_from("bisect", {**OPTIONS, "model": str(model_folder(tmp_path))})
    with pytest.raises(UsageError, match="is a script"):
        run.run(Comparing((other, request), out=tmp_path / "out"), Told())


def test_models_of_one_name_have_two_folders(asked):
    answer, _ = asked("a/x", "b/X", steps={"load": LOAD})
    assert [one.folder for one in answer.comparison.models] == ["x", "X-2"]


def test_a_wider_dtype_is_never_the_same():
    assert all(narrow != wider for narrow, wider in WIDER.items())


# --- for people --------------------------------------------------------------------------------------------------


def answer_of(models):
    """The answer of a comparison of these models, which differ in one setting."""
    settings = [{"a": n, "b": "x|y"} for n, _ in enumerate(models)]
    sizes, verdicts = [one.parameters for one in models], [one.verdict for one in models]
    found, same = differing([one.name for one in models], settings, sizes, verdicts)
    compared = Comparison(models=models, threshold=threshold(models), settings=found, same_settings=same)
    return replace(run_of(), comparison=compared)


def test_a_terminal_has_a_line_for_each_model():
    born = Born(module="model.layers.7", token_index=0, token="<bos>")
    models = [one("s", 12_000_000, peak=1e3), one("l", 3 * 10**9, "bad", peak=131008.0, born=born, asked=4, failed=3)]
    found = list(lines(answer_of(models)))
    assert found[2].split("  ")[0] == "l"
    for words in ("3B", "3 of 4 (75 %)", "model.layers.7, token 0 '<bos>'", "131008 in float32", "0.5"):
        assert words in found[2]
    assert any(line.startswith("1 setting differs, 1 are") for line in found)


def test_what_is_known_from_below_is_said_to_be():
    peak = measured(131008.0, whole=False)
    bad = replace(one("l", 2, "bad"), peak=peak, headroom=headrooms(peak))
    shown = list(lines(answer_of([one("s", 1, peak=1.0), bad])))
    assert "at least 131008 in float16" in shown[2]
    assert "at most 0.5" in shown[2]
