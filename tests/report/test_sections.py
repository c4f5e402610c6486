"""The sections that only some runs have, each filled by hand."""

import pytest
from support.hosting import BISECT, observation
from support.reports import answer

from repro.core.answer import CheckpointFiles, KnownFault, Reproducer
from repro.core.encoding import replace
from repro.core.finite.reference import OperatorKind, Reference, Swallowed
from repro.core.payloads import Forward, Further, Inputs, Layers, Origin, Pass, Reduction
from repro.core.records import Case, Outcome, Owner
from repro.core.sentences import origin_sentence, place_words, plain
from repro.core.sweep_answers import Counts, Place, PromptAblation, Prompts, Vectors, Why, WhyOutcome
from repro.report.opening import title
from repro.report.render import parts, render


def section(found, heading, **scripts):
    """A section's text."""
    return next(part.text for part in parts(render(found, scripts=scripts)) if part.heading == heading)


def why(*sentences):
    counts = {"failing": 1, "passing": 1, "skipped": 0, "asked": 2, "level": 0.05}
    return Why(outcome=WhyOutcome.PATTERN, sentence=sentences[0], sentences=sentences, **counts)


PROMPTS = Prompts(
    verdict=Outcome.BAD,
    reason="2 of 5",
    asked=5,
    good=3,
    bad=2,
    padding_side="left",
    pairs=4,
    pairs_lost=(1,),
    vectors=Vectors(path="v.safetensors", used=3, lost=1),
    places=(Place(layer="model.layers.7", kind="NaN", examples=2, token="<bos>"),),
    causes={"own": 1, "padding": 1, "composition": 1},
    counts=(
        Counts(values=1280, rows=2, row_size=640, whole=True, examples=1),
        Counts(values=7, rows=2, row_size=640, whole=False, examples=1),
    ),
    why=why("failing prompts are longer"),
    lost_why=why("the same"),
    ablations=(
        PromptAblation(
            name="dtype=float32", verdict=Outcome.GOOD, reason="r", saved=2, asked=2, seconds=1.25, weights_bytes=2**30
        ),
        PromptAblation(name="batch=1", verdict=Outcome.SKIP, reason="r"),
    ),
)


def test_many_prompts():
    found = replace(answer(), origin=None, prompts=PROMPTS)
    assert title(found) == "org/model: 2 of 5 prompts give NaN or Inf, first in model.layers.7"
    text = section(found, "Prompts")
    for line in (
        "| asked | 5 |",
        "| padding | `left` |",
        "| pairs | 4, 1 of them lost |",
        "| steering vectors | from 3 sound pairs (1 left out) |",
        "| `model.layers.7` | `<bos>` | NaN | 2 |",
        "- 1 also fail alone.",
        "- 1 fail only with the padding of their batch.",
        "| 1,280 | 2 x 640 | 1 |",
        "| 7 | no whole rows | 1 |",
        "- Failing prompts are longer",
        "- Lost pairs compared with the rest: the same",
        "| `dtype=float32` | 2 of 2 | 1.2 | 1.07 GB | r |",
        "| `batch=1` | - | - | - | r |",
    ):
        assert line in text.splitlines()


def test_a_reproducer_names_its_checkpoint_and_what_was_left_out():
    script = Reproducer(
        level="module",
        path="reproducer.py",
        reason="the module alone.",
        output="seen nan\n",
        checkpoint=CheckpointFiles(id="org/model", revision="abc", sha256={"model.safetensors": "0f"}),
    )
    reduction = Reduction(
        inputs=Inputs(before=15, after=2, ids=(2, 7), special=(True, False)),
        layers=Layers(path="model.layers", total=18, kept=(7,), fed="captured hidden states"),
        trials=31,
        crashed_trials=2,
        notes=("one note",),
    )
    found = replace(answer(), reproducer=script, reduction=reduction)
    assert section(found, "Reproducer", **{"reproducer.py": "pass\n\n\npass\n"}) == (
        "The module alone.\n\n"
        "- 2 of 15 tokens are enough (ids 2, 7, 1 of them special).\n"
        "- Layer 7 of the 18 in model.layers is enough, fed with captured hidden states.\n"
        "- 31 trials (2 killed their process); each smaller case has the same operator and mechanism.\n"
        "- One note.\n\n"
        "`reproducer.py`. Needs only Python. Reads the checkpoint `org/model` at revision abc "
        "(SHA-256: model.safetensors 0f).\n\n"
        "```python\npass\n\n\npass\n```\n\n"
        "Not verified (exit statuses none). Output:\n\n"
        "```\nseen nan\n```"
    )
    assert "```" not in section(found, "Reproducer")


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        (Owner("pytorch", "it differs."), "**PyTorch.** it differs."),
        (Owner(None, "open."), "**Not known.** open."),
        (Owner("caller", "float16.", "load it in bfloat16"), "**The caller.** float16. Fix: load it in bfloat16."),
        (Owner("caller", "float16.", "Load it."), "**The caller.** float16. Fix: Load it."),
    ],
)
def test_the_owner_with_the_reason_and_what_to_do(owner, said):
    assert section(replace(answer(), owner=owner), "Owner") == said


def test_known_faults_come_with_their_address():
    fault = KnownFault(id="x", issue="org/project#1", url="https://github.com/org/project/issues/1", sentence="It is.")
    text = section(replace(answer(), looks_like=(fault,)), "Similar known faults")
    assert text == "- It is. https://github.com/org/project/issues/1"


def test_what_was_ruled_out_has_its_reason():
    ruled_out = [{"module": "", "op": "aten.log", "why": "a where drops it"}]
    found = answer(observation("bisect", "bad", payload={**BISECT, "ruled_out": ruled_out}))
    text = section(found, "Ruled out")
    assert "| `the model itself` | `aten.log` | a where drops it |" in text


def test_inputs_beside_token_ids():
    picture = Further(name="pixel_values", shape=(1, 3, 8, 8), dtype="float16", seed=0)
    passes = (
        Pass(input_source="seeded", seed=0, further=(picture,), verdict=Outcome.BAD),
        Pass(input_source="seeded", seed=0, input_ids=(5,), further=(picture,), without=("x",), verdict=Outcome.BAD),
    )
    found = replace(answer(), case=Case("m", prompts=("a",)), forward=Forward(verdict=Outcome.BAD, prompts=passes))
    drawn = "`pixel_values`: (1, 3, 8, 8), float16, normally distributed, seed 0."
    first, second = section(found, "Inputs").splitlines()[:2]
    assert first == f"- inputs drawn from seed 0 (the model takes no token ids): bad. {drawn}"
    assert second.endswith(f"bad. Ids: 5. {drawn} Not given: `x`.")
    alone = replace(found, forward=Forward(verdict=Outcome.BAD, prompts=passes[:1]))
    assert "The prompt was not used: the model takes no token ids" in section(alone, "Inputs")


@pytest.mark.parametrize(
    ("place", "words", "row"),
    [
        (("patch", (3, 1), (4, 4)), "patch (row 3, column 1)", "patch (row 3, column 1), of 4 x 4 in `pixel_values`"),
        (("patch", (1, 3, 1), (2, 4, 4)), "patch (frame 1, row 3, column 1)", "of 2 x 4 x 4 in"),
        (("map", (3, 1), (7, 7)), "place (row 3, column 1)", "of 7 x 7 in"),
        (("pixel", (3, 1), (32, 32)), "pixel (row 3, column 1)", "of 32 x 32 in"),
        (("spectrogram patch", (1, 3), (4, 7)), "spectrogram patch (band 1, time 3)", "of 4 x 7 in"),
        (("stretch", (1, 3), (2, 4)), "stretch (series 1, stretch 3)", "of 2 x 4 in"),
        (("frame", (12,), (47,)), "frame 12", "frame 12, of 47 in"),
        (("special", (0,), (4, 4)), "token 0 beside the patches", "token 0 beside the patches"),
    ],
)
def test_a_place_that_is_no_token(place, words, row):
    kind, index, shape = place
    spot = {"kind": kind, "of": "pixel_values", "index": index, "shape": shape}
    born = {**BISECT["origin"], "token_index": None, "token": None, "place": spot}
    found = answer(observation("bisect", "bad", payload={**BISECT, "origin": born}))
    assert place_words(found.origin.place) == words
    text = section(found, "Origin")
    assert row in text
    assert "| token |" not in text


def test_where_there_are_no_ids_there_are_places():
    picture = Further(name="pixel_values", shape=(1, 3, 8, 8), dtype="float16", seed=0)
    forward = Forward(verdict=Outcome.BAD, prompts=(Pass(input_source="seeded", seed=0, further=(picture,)),))
    spread = [{"module": "layers.0", "bad_tokens": [1], "tokens": 4}]
    found = answer(observation("bisect", "bad", payload={**BISECT, "spread": spread}))
    heading = "How it spreads through the layers"
    assert "| bad tokens |" in section(found, heading)
    assert "| bad places |" in section(replace(found, forward=forward), heading)


def test_what_an_input_is_made_of():
    def said(**more):
        item = Further(name="x", shape=(1, 2), dtype="float16", **more)
        forward = Forward(prompts=(Pass(input_source="file", further=(item,), verdict=Outcome.BAD),))
        return section(replace(answer(), forward=forward), "Inputs")

    assert "`x`: (1, 2), float16, from the file of inputs (there float32)." in said(made="file", stored="float32")
    assert "whole numbers below 5, seed 0." in said(made="whole", below=5, seed=0)
    assert "`x`: (1, 2), float16: `[[1, 2]]`." in said(made="exact", values=[[1, 2]])
    assert "`x`: (1, 2), float16." in said()


def test_an_unknown_origin_has_its_reason():
    text = section(answer(observation("bisect", "skip", "it takes too long", {})), "Origin")
    assert text == "The origin is not known. it takes too long"


def test_inputs_from_a_seed_and_prompts_that_are_long():
    passes = (
        Pass(input_source="seeded", seed=3, input_ids=(5,), verdict=Outcome.BAD),
        Pass(prompt="x" * 500, input_ids=tuple(range(60))),
    )
    asked = Case("m", prompts=("a",))
    text = section(replace(answer(), case=asked, forward=Forward(verdict=Outcome.BAD, prompts=passes)), "Inputs")
    first, second = text.splitlines()
    assert first == "- token ids drawn from seed 3 (no tokenizer was used): bad. Ids: 5."
    assert "(the first 400 of 500 characters): no verdict. Ids: 0, 1," in second
    assert second.endswith("47, ... (60 in all).")
    seeded = replace(answer(), case=asked, forward=Forward(verdict=Outcome.BAD, prompts=passes[:1]))
    assert "The prompt was not used" in section(seeded, "Inputs")


def test_the_environment_has_a_row_for_each_setting():
    environment = replace(
        answer().environment,
        cpu={"model": "X", "count": 2, "capability": None},
        accelerators=({"type": "cuda", "name": "A100"},),
        deterministic=False,
    )
    text = section(replace(answer(), environment=environment), "Environment")
    for line in (
        "| cpu | `model=X, count=2` |",
        "| accelerators | `type=cuda name=A100` |",
        "| deterministic | `False` |",
    ):
        assert line in text.splitlines()
    assert "gpu driver" not in text


def test_narrower_dtypes_stand_in_the_headroom():
    operator = {"module": "layers.7", "op": "aten.add.Tensor", "absmax": 70_000.0, "ratio": 65504 / 70_000}
    first = {**operator, "source": "model.py:4", "token_index": 0, "channel_index": 163}
    within = {"module": "layers.6", "op": "aten.add.Tensor", "absmax": 32_752.0, "ratio": 2.0}
    rows = [
        {"dtype": "float16", "limit": 65504.0, "verdict": "overflows", "first": first, "largest": within,
         "modules": [{"module": "layers.7", "absmax": 70_000.0}, {"module": "layers.8", "absmax": 80_000.0}]},
        {"dtype": "bfloat16", "limit": 3.4e38, "verdict": "absorbed", "absorbed": 2, "largest": within},
        {"dtype": "float8_e5m2", "limit": 57344.0, "verdict": "overflows", "weights": ["a.weight", "b.weight"]},
    ]  # fmt: skip
    payload = {"dtype": "float32", "dtypes": rows, "operators": 9, "passes": 2}
    text = section(answer(observation("forecast", payload=payload)), "Headroom")
    assert "Narrower dtypes, told from this run in float32 without a run in them" in text
    assert "`layers.7`, `aten.add.Tensor`, `model.py:4`, token 0, channel 163: 70000, 0.94 of the limit | 2 |" in text
    assert "32752 in `layers.6`, 2 |" in text
    assert "Beyond float16: `layers.7` (70000) and `layers.8` (80000)." in text
    assert "sound: what is beyond is absorbed" in text
    assert "the weight `a.weight` and 1 more" in text
    assert "cast without a scale" in text


@pytest.mark.parametrize(("modules", "said"), [(["a.norm", "b"], "2,000 bytes more, 1 % of the weights"), ([], None)])
def test_what_is_kept_is_told_with_its_cost_and_its_code(modules, said):
    payload = {"dtype": "float16", "modules": modules, "words": "a.norm, b", "candidates": 9, "trials": 5, "flips": 0}
    payload |= {"bytes": 2000, "bytes_of_model": 200_000, "rmse": 0.01, "noise": 0.02, "verified": True}
    code = "KEEP = []" if modules else None
    text = section(
        answer(observation("keep", reason="sound with 2", payload={**payload, "code": code})), "Kept in another dtype"
    )
    assert "0.01; rounding to float16 alone makes 0.02" in text
    assert (said is None) or (said in text and "is sound as well" in text and "KEEP = []" in text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1 + 2**-23, "1.0000001"), (1 - 2**-24, "0.99999994"), (1.0, "1"), (65504.0, "65504"),
        (68394.8671875, "68394.9"),
        (-1 - 2**-23, "-1.0000001"), (0.0999755859375, "0.0999756"), (3.4e38, "3.4e+38"), (1e7 / 3, "3333333"),
    ],
)  # fmt: skip
def test_a_number_next_to_a_whole_one_is_not_shown_as_that(value, shown):
    assert plain(value) == shown


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("sound", "That makes no difference: it is the same."),
        ("open", "Whether that matters could not be told: it is the same."),
        ("wrong", None),
    ],
)
def test_what_overflows_inside_of_a_finite_pass(verdict, says):
    row = Swallowed(
        dtype="float16", module="", op="aten.exp.default", value="inf", verdict=verdict, reason="it is the same"
    )
    kinds = (OperatorKind(op="exp", dtype="float16", calls=1, ratio=0.5, rms=0.2),)
    text = section(
        replace(answer(), reference=Reference(operators=1, kinds=kinds, swallowed=(row,))), "Held against float64"
    )
    named = "`aten.exp.default` in `the model` gives inf in `float16`, of finite numbers, and the output is finite. "
    assert (named in text) == (says is not None)
    assert says is None or named + says in text


def test_the_origin_of_a_swallowed_overflow_says_that_it_is_swallowed():
    origin = Origin(
        mechanism="overflow", value="inf", reference_value=7e4, limit=65504.0, note="it is swallowed inside"
    )
    said = origin_sentence(replace(origin, confirmed_by="widened"), None)
    assert said.endswith("the reference has 70000 there, the limit is 65504; it is swallowed inside.")
    assert "swallowed" not in origin_sentence(origin, None)


def test_what_was_held_against_itself_is_named():
    kinds = (OperatorKind(op="rot", dtype="float32", calls=2, ratio=0.5, rms=0.2),)
    found = Reference(operators=2, kinds=kinds, alone={"mine.rot.default": 2})
    text = section(replace(answer(), reference=found), "Held against float64")
    assert "Held against nothing independent, being in float64 or another library's: `mine.rot.default` (2)." in text
