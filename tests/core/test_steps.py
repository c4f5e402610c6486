"""The steps as the host reads them from the kit's registry."""

import dataclasses

import pytest

from repro.core.records import Case, Kind
from repro.core.steps import REGISTRY, Judges, Needs, asked_by, every, named

BASE = ("environment", "files", "weights")
LOADED = ("load", "forward", "bisect")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("weights", BASE),
        ("forward", (*BASE, "load", "forward")),
        ("bisect", (*BASE, "load", "forward", "bisect")),
        ("trace", ("environment", "files", "load", "trace")),
        ("prompts", (*BASE, "load", "prompts")),
        ("diff", ("environment", "files", "load", "diff")),
    ],
)
def test_each_command_asks_a_model_its_steps_in_order(command, expected):
    assert tuple(step.name for step in asked_by(command, "model")) == expected


@pytest.mark.parametrize("phase", ["generate", "train"])
def test_a_phase_is_asked_behind_the_forward_pass(phase):
    names = [step.name for step in asked_by("bisect", "model", phase)]
    assert names == [*BASE, "load", "forward", phase, "bisect"]


def test_a_module_that_a_factory_gives_has_no_files():
    assert [step.name for step in asked_by("bisect", "module")] == ["environment", *LOADED]
    assert asked_by("weights", "module") == ()


def test_a_run_ends_with_ablations_and_the_reduction():
    names = [step.name for step in asked_by("run", "model")]
    first = next(index for index, name in enumerate(names) if name.startswith("ablation:"))
    assert [name for name in names[:first] if name in BASE + LOADED] == [*BASE, *LOADED]
    assert all(name.startswith("ablation:") for name in names[first:-1])
    assert names[-1] == "reduce"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("run", ["environment", "script", "bisect", "reduce"]),
        ("forward", ["environment", "script"]),
        ("bisect", ["environment", "script", "bisect"]),
        ("trace", ["environment", "trace"]),
        ("weights", []),
        ("prompts", []),
        ("diff", []),
    ],
)
def test_a_script_is_asked_what_it_can_answer(command, expected):
    assert [step.name for step in asked_by(command, "script") if not step.is_ablation] == expected


def test_names_are_unique_and_every_step_asks_a_question():
    names = [step.name for step in every()]
    assert len(set(names)) == len(names)
    assert all(step.question.endswith("?") for step in every())


def test_another_input_is_no_workaround():
    assert [step.name for step in every() if not step.works_around] == [
        f"ablation:{name}"
        for name in (
            "without_example",
            "image=half_size",
            "image=crop",
            "audio=half_length",
            "sample_rate=half",
            "second_prompt",
        )
    ]


def test_what_a_step_judges_is_a_kind_of_fault():
    assert {step.name: step.judges.kind for step in every() if step.judges} == {
        "files": Kind.FILES,
        "weights": Kind.WEIGHTS,
        "load": Kind.LOAD,
        "forward": Kind.NONFINITE,
        "generate": Kind.NONFINITE,
        "train": Kind.NONFINITE,
        "reference": Kind.DIVERGENT,
        "script": None,
        "watch": None,
        "trace": None,
        "prompts": Kind.NONFINITE,
        "diff": Kind.DIVERGENT,
    }
    assert Judges.ANY.kind is None


def test_a_name_that_is_not_in_the_registry_is_none():
    assert (named("no such step"), named("load").needs) == (None, Needs.FILES)


def test_the_registry_is_the_kits_own_file():
    assert REGISTRY.parent.parent.name == "probes"


def test_a_step_of_an_option_names_a_field_of_the_case():
    asked = {step.name: step.option for step in every() if step.option is not None}
    assert asked == {"keep": "keep_float32", "keep:bfloat16": "keep_bfloat16"}
    assert set(asked.values()) <= {field.name for field in dataclasses.fields(Case)}
