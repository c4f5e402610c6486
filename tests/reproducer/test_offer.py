"""Which script a run is offered: the smallest that shows the same fault, and what stands beside it."""

import base64
import hashlib
import re
import sys

import numpy
import pytest
from support.reduced import ADD, MODULE, SOUND, call, leaf, program, reduced
from support.running import in_process

from repro.core.answer import Ablation, ModelInfo
from repro.core.encoding import replace
from repro.core.payloads import Configuration, Reduction
from repro.core.records import Case, Outcome
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.reproducer.code.calls import INFIX
from repro.reproducer.offer import offer, scripts
from repro.reproducer.verify import Verification


class Listener:
    """Keeps what it is told."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def offered(folder, *args, **changed):
    return offer(reduced(*args, **changed), sys.executable, folder, Mask(Private()), run=in_process)


def test_a_script_is_run_three_times_in_a_clean_interpreter(tmp_path):
    listener = Listener()
    found = offer(reduced(ADD), sys.executable, tmp_path, Mask(Private()), listener)
    assert (found.verified, found.runs, found.exit_statuses) == (True, 3, (1, 1, 1))
    assert found.output == "seen inf in float16, right is 68384.0 (float64 of the same inputs)"
    assert found.reason.startswith("It runs a + b without the model. Run 3 times")
    assert listener.notes == ["verifying the reproducer that runs a + b without the model"]


def addressed(folder, project, *args, **changed):
    asked = []

    def project_of(answer):
        asked.append(answer.reproducer.level)
        return project

    made = reduced(*args, **changed)
    return offer(made, sys.executable, folder, Mask(Private()), run=in_process, project_of=project_of), asked


@pytest.mark.parametrize("project", ["pytorch", None, "caller"])
def test_the_smallest_script_is_pytorchs(tmp_path, project):
    found, asked = addressed(tmp_path, project, ADD, MODULE)
    assert (found.path, found.level, found.others, asked) == ("reproducer.py", "operator", (), ["operator"])


def test_transformers_gets_a_script_that_imports_it_with_the_operator_beside_it(tmp_path):
    found, asked = addressed(tmp_path, "transformers", ADD, MODULE)
    assert (found.path, found.level, found.verified, asked) == ("reproducer.py", "module", True, ["operator"])
    assert "transformers" in found.needs
    assert [item.path for item in found.others] == ["reproducer_operator.py"]
    for item in (found, *found.others):
        assert item.sha256 == hashlib.sha256((tmp_path / item.path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("code", "level"),
    [("transformers_modules", "module"), ("diffusers", "module"), ("torch", "operator"), ("__main__", "operator"),
     (None, "operator"), ("transformers", "operator")],
)  # fmt: skip
def test_where_the_fault_is_in_code_that_comes_with_the_model_its_class_is_shown(tmp_path, code, level):
    made = reduced(ADD, MODULE)
    made = replace(made, origin=replace(made.origin, code=code))
    found = offer(made, sys.executable, tmp_path, Mask(Private()), run=in_process)
    assert (found.level, found.verified) == (level, True)


SMALL = Configuration(
    model_class="LlamaForCausalLM", config_class="LlamaConfig", dtype="float16", attn="eager", ids=(3, 4),
    config={"vocab_size": 8, "hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 1,
            "num_attention_heads": 2, "initializer_range": 1.0},
)  # fmt: skip
"""With weights of a spread of 1, the MLP adds 2048 products of some 1000 each: beyond float16, and not float32."""


def test_a_small_configuration_comes_before_a_layer_with_values_of_its_own(tmp_path):
    made = reduced(ADD, MODULE)
    made = replace(made, reduction=replace(made.reduction, configuration=SMALL))
    found = offer(
        made, sys.executable, tmp_path, Mask(Private()), run=in_process, project_of=lambda answer: "transformers"
    )
    assert (found.level, found.verified) == ("configuration", True), found.reason
    text = (tmp_path / "reproducer.py").read_text()
    assert "torch.manual_seed(0)" in text
    assert "seen = run(torch.float16)\nright = run(torch.float32)\n" in text
    assert re.search(r"seen \d+ NaN or Inf in the logits \(torch.float16\), right is 0 \(float32 has 0\)", found.output)


def test_the_right_setting_is_one_that_was_run_and_found_good(tmp_path):
    rows = (Ablation(name="dtype=float32", verdict=Outcome.BAD), Ablation(name="attn=sdpa", verdict=Outcome.GOOD))
    made = reduced(ADD, ablations=rows)
    made = replace(made, reduction=replace(made.reduction, configuration=SMALL))
    script = next(script for script in scripts(made) if script.level == "configuration")
    assert 'seen = run(torch.float16, "eager")\nright = run(torch.float16, "sdpa")\n' in script.text
    assert "With sdpa attention they are finite." in script.text.replace("\n", " ")
    for row in rows:
        alone = replace(made, ablations=(row,))
        text = next(script.text for script in scripts(alone) if script.level == "configuration")
        assert ("right = run" in text) is (row.verdict is Outcome.GOOD)


def test_a_script_that_does_not_show_it_is_written_and_not_verified(tmp_path):
    found = offered(tmp_path, SOUND)
    assert (found.verified, found.exit_statuses) == (False, (0,))
    assert (tmp_path / "reproducer.py").exists()


def test_where_the_smallest_does_not_show_it_the_next_is_offered_and_that_is_said(tmp_path):
    found = offered(tmp_path, SOUND, MODULE)
    assert (found.level, found.verified, found.path) == ("module", True, "reproducer.py")
    assert "A script that runs a + b without the model does not show the fault." in found.reason
    assert [item.path for item in found.others] == [None, None]


def test_a_public_function_that_does_not_show_it_is_tried_by_the_operators_own_name(tmp_path, monkeypatch):
    # a + b is spelled with a sign that is made wrong here, as if the public function took another path.
    monkeypatch.setitem(INFIX, "add", "-")
    assert offered(tmp_path, ADD).verified
    assert "torch.ops.aten.add.Tensor(a, b)" in (tmp_path / "reproducer.py").read_text()


def test_a_complex_nan_is_the_nan_that_was_seen(tmp_path):
    numbers = {"kind": "bytes", "base64": base64.b64encode(numpy.array([-200 - 1j], "complex64").tobytes()).decode()}
    x = leaf("x", (1,), numbers, "complex64")
    found = offered(tmp_path, program([x], call("aten.sigmoid.default", "x"), seen="nan", expected=1e-80))
    assert found.verified, found.reason


def test_another_bad_value_is_another_fault(tmp_path):
    found = offered(tmp_path, replace(ADD, seen="nan"))
    assert not found.verified
    assert "another fault" in found.reason
    assert found.reason.endswith("seen inf in float16, right is 68384.0 (float64 of the same inputs)")


def test_scripts_of_an_earlier_run_do_not_stay(tmp_path):
    (tmp_path / "reproducer_module.py").write_text("old")
    offered(tmp_path, ADD)
    assert [path.name for path in tmp_path.iterdir()] == ["reproducer.py"]


@pytest.mark.parametrize("changed", [{"verdict": Outcome.GOOD}, {"reduction": None}, {"reduction": Reduction()}])
def test_nothing_is_offered_where_there_is_nothing_to_show(tmp_path, changed):
    assert offered(tmp_path, ADD, **changed) is None
    assert not list(tmp_path.iterdir())


SHOWS = Verification(
    (1, 1, 1), "seen inf in float16, right is 68384.0 (float64 of the same inputs)", True, "Run 3 times."
)
FAILS = Verification((125,), "", False, "It could not tell: no such file.")


def local(name):
    """The run of a local model whose folder has a name."""
    case = Case(f"/srv/{name}", dtype="float16")
    return reduced(ADD, model=ModelInfo(id=f"/srv/{name}", class_="GPT2LMHeadModel"), case=case)


def test_what_is_run_and_recorded_is_what_is_handed_on(tmp_path):
    ran = []

    def run(python, text, argv, *, together):
        ran.append(text)
        return SHOWS

    found = offer(local("m-bob@mail.corp.example"), "python", tmp_path, Mask(Private()), run=run)
    text = (tmp_path / "reproducer.py").read_text("utf-8")
    assert ran == [text]
    assert "bob@" not in text
    assert "m-bob" not in text
    assert "MAIL" in text
    assert found.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert not found.masked


def test_a_script_that_needs_what_is_masked_is_run_with_it_and_handed_on_without(tmp_path):
    def run(python, text, argv, *, together):
        return SHOWS if "bob@" in text else FAILS

    found = offer(local("bob@mail.corp.example"), "python", tmp_path, Mask(Private()), run=run)
    assert (found.verified, found.masked) == (True, True)
    assert found.reason.endswith("It was run with them, and does not show the fault without.")
    assert "bob@" not in (tmp_path / "reproducer.py").read_text("utf-8")


def test_a_script_that_fails_with_what_is_masked_too_is_not_verified(tmp_path):
    found = offer(local("bob@mail.corp.example"), "python", tmp_path, Mask(Private()), run=lambda *_, together: FAILS)
    assert (found.verified, found.masked) == (False, False)
