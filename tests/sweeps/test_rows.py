"""A row holds what a cell answered, or why it did not."""

from support.hosting import ORIGIN

from repro.core.records import Recipe
from repro.sweeps.matrix.rows import answered, unanswered

RECIPE = Recipe(id="a", python="3.11", device="cpu", why="a test", pins={"torch": "2.4.1", "transformers": "4.57.3"})
DOCUMENT = {
    "verdict": "bad",
    "reason": "every logit is NaN",
    "kind": "nonfinite",
    "origin": ORIGIN,
    "cell": {
        "python": "3.11.7", "torch": "2.4.1+cu121", "transformers": "4.57.3", "platform": "Linux-6.1",
        "dtype": "float16", "attn": "sdpa", "device": "cpu", "executable": "/home/me/python",
    },
    "ablations": [{"name": "dtype=float32", "verdict": "good", "reason": "finite", "logits": {"nan": 0}}],
    "workarounds": ["dtype=float32"],
    "environment": {"machine": "x86_64", "torch": "2.4.1+cu121"},
}  # fmt: skip


def test_a_row_has_what_the_cell_found_and_what_was_asked():
    row = answered(RECIPE, DOCUMENT, 3.5, "repro matrix m --cell a")
    assert (row["id"], row["why"], row["verdict"], row["kind"], row["seconds"]) == (
        "a",
        "a test",
        "bad",
        "nonfinite",
        3.5,
    )
    assert (row["python"], row["torch"], row["machine"]) == ("3.11.7", "2.4.1+cu121", "x86_64")
    assert row["asked"] == {"python": "3.11", "torch": "2.4.1", "transformers": "4.57.3"}
    assert row["ablations"] == [{"name": "dtype=float32", "verdict": "good", "reason": "finite"}]
    assert (row["folder"], row["command"]) == ("a", "repro matrix m --cell a")


def test_a_row_does_not_name_the_interpreters_path():
    assert "/home/me" not in str(answered(RECIPE, DOCUMENT, 3.5, ""))


def test_a_cell_without_an_answer_is_a_skip_with_its_reason_on_this_platform():
    row, other = unanswered(RECIPE, "not built: no Python 3.11", "again"), answered(RECIPE, DOCUMENT, 1.0, "")
    assert (row["verdict"], row["reason"], row["environment"], row["torch"]) == (
        "skip",
        "not built: no Python 3.11",
        None,
        None,
    )
    assert row["platform"]
    assert row["device"] == "cpu"
    assert row.keys() == other.keys()
