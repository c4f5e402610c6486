"""``repro known``: the catalogue listed, searched and shown, and a new entry made of a run."""

import json
import tomllib

import pytest
from support.hosting import BISECT, NAN_FORWARD, answers, fake_python, model_folder, repro

from repro.cli.main import main
from repro.core.answer import Answer, CellInfo, ModelInfo
from repro.core.encoding import encode, replace
from repro.core.payloads import Environment, Figures, Load, Origin
from repro.core.records import Case, Kind, Outcome
from repro.diagnosis.known.entries import faults
from repro.sharing.known import Wanted, catalogue, search

RUN = Answer(
    verdict=Outcome.BAD,
    reason="a test",
    kind=Kind.NONFINITE,
    model=ModelInfo(id="/home/jane/secret-model", class_="BoxedForCausalLM"),
    cell=CellInfo(torch="2.13.0+cpu", transformers="5.23.0", dtype="float16", attn="eager", device="cuda:0"),
    case=Case("/home/jane/secret-model"),
    origin=Origin(
        module="layers.0", module_class="BoxedLayer", op="aten.mul.Tensor", mechanism="overflow", phase="forward",
        output=Figures(dtype="float16"),
    ),
    load=Load(verdict=Outcome.GOOD, model_type="boxed"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """The folder of the user's own entries, which is not there yet."""
    monkeypatch.setenv("REPRO_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config/known"


@pytest.fixture
def folder(tmp_path):
    """The folder of a run."""
    return saved(tmp_path / "run", RUN)


def saved(folder, answer):
    folder.mkdir()
    (folder / "verdict.json").write_text(encode(answer))
    return folder


def known(capsys, *words):
    """(status, stdout, stderr) of the command."""
    status = main(["known", *map(str, words)])
    return (status, *capsys.readouterr())


def names(capsys, *words):
    """The names of the entries that are listed."""
    return [row["id"] for row in json.loads(known(capsys, *words, "--json")[1])]


def test_without_words_all_are_listed(capsys, own):
    status, out, err = known(capsys)
    assert (status, err) == (0, "")
    assert all(f"\n{fault.id} " in out for fault in faults())
    assert out.endswith(f"your own: 0 in {own}\n")


def test_an_entry_that_has_all_of_the_words_is_found(capsys):
    assert names(capsys, "Left", "PADDING", "xlm") == []
    found = names(capsys, "left", "PADDING")
    assert "transformers-25311" in found
    assert "pytorch-8069" not in found


def test_nothing_found_is_said_and_is_the_status(capsys):
    status, out, _ = known(capsys, "no such words")
    assert status == 1
    assert out.startswith(f"0 of {len(faults())} known faults; ")


@pytest.mark.parametrize(
    ("option", "value", "with_it", "without"),
    [
        ("--package", "vllm", "vllm-40290", "pytorch-103749"),
        ("--device", "mps", "pytorch-118115", "pytorch-147303"),
        ("--mechanism", "compiler", "pytorch-189787", "pytorch-103749"),
    ],
)
def test_conditions(capsys, option, value, with_it, without):
    found = names(capsys, option, value)
    assert with_it in found
    assert without not in found


def test_a_search_is_for_every_condition_at_once():
    assert search(catalogue(), Wanted(("softmax",), package="pytorch", device="mps", mechanism="compiler")) == ()


@pytest.mark.parametrize("name", ["pytorch-103749", "pytorch#103749", "pytorch/pytorch#103749"])
def test_an_entry_is_shown_by_name_or_issue(capsys, name):
    status, out, _ = known(capsys, "show", name)
    assert status == 0
    assert "https://github.com/pytorch/pytorch/issues/103749" in out
    assert "  torch: >=2.0,<2.5" in out
    assert "  torch >=2.5 must be good" in out
    assert "  repro versions MODEL --package torch --good 2.5.1 --bad 2.4.1" in out
    assert "torch 2.4.1 bad" in out
    assert "  import torch\n" in out


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: fault.id)
def test_every_entry_can_be_shown(capsys, fault):
    status, out, _ = known(capsys, "show", fault.id)
    assert status == 0
    assert f"What decides: {fault.test.question}" in out


def test_an_entry_as_data(capsys):
    _, out, _ = known(capsys, "show", "pytorch-8069", "--json")
    data = json.loads(out)
    assert (data["outcome"], data["own"]) == ("not a bug", False)
    assert data["fingerprint"]["forward_op"] == ["aten.acos*"]


def test_a_name_that_is_none(capsys):
    status, _, err = known(capsys, "show", "transformers-2567")
    assert status == 2
    assert err.startswith("repro: no known fault is called 'transformers-2567'. Did you mean transformers-")


def test_an_own_file_that_is_broken_is_told_and_stops_nothing(capsys, own):
    own.mkdir(parents=True)
    (own / "mine.toml").write_text("issues = [")
    status, out, err = known(capsys, "padding")
    assert status == 0
    assert "transformers-25311" in out
    assert err.startswith(f"{own / 'mine.toml'} cannot be read as TOML: ")
    assert err.endswith("This entry is left out: mend the file, or remove it.\n")


def test_a_run_tells_of_it_and_goes_on(tmp_path, own):
    own.mkdir(parents=True)
    (own / "mine.toml").write_text("issues = [")
    told = answers(tmp_path, forward=NAN_FORWARD, bisect={"verdict": "bad", "reason": "born there", "payload": BISECT})
    ran = repro("bisect", model_folder(tmp_path), "--python", fake_python(tmp_path), cwd=tmp_path, env=told)
    assert ran.returncode == 1
    assert f"{own / 'mine.toml'} cannot be read as TOML" in ran.stderr + ran.stdout


# A new entry


def test_what_a_run_knows_is_written(capsys, own, folder):
    status, out, _ = known(capsys, "add", folder)
    path = own / "boxedforcausallm-overflow-mul.toml"
    assert status == 0
    assert out.startswith(f"written: {path}\n")
    made = tomllib.loads(path.read_text())
    assert made["fingerprint"] == {
        "kind": ["nonfinite"], "mechanism": ["overflow"], "op": ["aten.mul.Tensor"], "module_class": ["BoxedLayer"],
        "model_class": ["BoxedForCausalLM"], "model_type": ["boxed"], "dtype": ["float16"], "attn": ["eager"],
        "device": ["cuda*"], "torch": "==2.13.0", "transformers": "==5.23.0",
    }  # fmt: skip
    assert made["what"] == "Overflow in aten.mul.Tensor of BoxedLayer."
    assert made["issues"] == []


def test_nothing_private_is_in_it(capsys, own, folder):
    known(capsys, "add", folder)
    text = next(own.iterdir()).read_text()
    assert "jane" not in text
    assert "secret-model" not in text


def test_an_issue_names_the_file(capsys, own, folder):
    known(capsys, "add", folder, "--issue", "org/project#7")
    assert tomllib.loads((own / "project-7.toml").read_text())["issues"] == ["org/project#7"]


def test_a_backward_pass_is_a_condition_and_an_ordinary_one_is_none(capsys, tmp_path):
    origin = replace(RUN.origin, phase="backward", forward_op="aten.sqrt.default", mechanism="unknown")
    folder = saved(tmp_path / "other", replace(RUN, origin=origin))
    known(capsys, "add", folder, "--out", tmp_path / "new.toml")
    made = tomllib.loads((tmp_path / "new.toml").read_text())["fingerprint"]
    assert (made["phase"], made["forward_op"], "mechanism" in made) == (["backward"], ["aten.sqrt.default"], False)


def test_what_made_it_good_is_the_test(capsys, tmp_path):
    folder = saved(tmp_path / "other", replace(RUN, workarounds=("dtype=float32",)))
    status, out, _ = known(capsys, "add", folder, "--out", tmp_path / "new.toml")
    made = tomllib.loads((tmp_path / "new.toml").read_text())["test"]
    assert (made["ablation"], made["verdict"]) == ("dtype=float32", "good")
    assert (status, out.splitlines()[-1]) == (0, "nothing is left to do")


def test_what_the_run_looks_like_besides_is_a_neighbour(capsys, tmp_path):
    origin = replace(RUN.origin, module_class="PegasusEncoderLayer", op="aten.add.Tensor")
    folder = saved(tmp_path / "other", replace(RUN, origin=origin))
    known(capsys, "add", folder, "--out", tmp_path / "new.toml")
    assert tomllib.loads((tmp_path / "new.toml").read_text())["test"]["neighbours"] == ["transformers-12225"]


def test_the_next_run_is_recognised(capsys, own, folder):
    known(capsys, "add", folder)
    assert names(capsys, "boxedlayer") == ["boxedforcausallm-overflow-mul"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"verdict": Outcome.GOOD}, "is good, so it shows no fault: a test"),
        ({"origin": None}, "names no origin, and a fault is recognised by that. Find it first: repro bisect MODEL"),
    ],
)
def test_a_run_that_cannot_become_one(capsys, tmp_path, own, changed, said):
    folder = saved(tmp_path / "other", replace(RUN, **changed))
    status, _, err = known(capsys, "add", folder)
    assert (status, own.exists()) == (2, False)
    assert err == f"repro: {folder} {said}\n"


def test_a_run_is_no_word_to_search_for(capsys, folder):
    status, out, err = known(capsys, folder)
    assert (status, out) == (2, "")
    assert f"repro known add {folder}" in " ".join(err.split())


def test_a_folder_without_a_run(capsys, tmp_path):
    status, _, err = known(capsys, "add", tmp_path)
    assert status == 2
    assert f"{tmp_path / 'verdict.json'} cannot be used" in err


def test_an_issue_that_is_none(capsys, folder):
    status, _, err = known(capsys, "add", folder, "--issue", "#7")
    assert (status, err) == (
        2, "repro: --issue must be OWNER/NAME#NUMBER, such as pytorch/pytorch#103749, got '#7'.\n",
    )  # fmt: skip


def test_a_file_that_is_there_is_not_written_over(capsys, tmp_path, folder):
    (tmp_path / "new.toml").write_text("mine")
    status, _, err = known(capsys, "add", folder, "--out", tmp_path / "new.toml")
    assert (status, (tmp_path / "new.toml").read_text()) == (2, "mine")
    assert "is there already, and is not written over" in err


# The check of an entry

FILLED = """
issues = ["org/project#7"]
what = "w"
[fingerprint]
module_class = ["BoxedLayer"]
[test]
neighbours = []
question = "q"
by_hand = "look"
"""


def checked(capsys, tmp_path, folder, text):
    (tmp_path / "new.toml").write_text(text)
    status, out, _ = known(capsys, "add", folder, "--check", "--out", tmp_path / "new.toml")
    return status, out


def test_an_entry_that_holds(capsys, tmp_path, folder):
    status, out = checked(capsys, tmp_path, folder, FILLED)
    assert (status, out) == (0, "the run is recognised by it\nnothing is left to do\n")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"q"', '"FILL IN: q"', "[test] is not filled in yet: say what tells this fault from others."),
        (
            "BoxedLayer",
            "OtherLayer",
            "to do: the run is not recognised by it: a condition of [fingerprint] does not fit",
        ),
        ('module_class = ["BoxedLayer"]', 'kind = ["nonfinite"]', "a run of pytorch-103749 would be taken for it"),
        ("[]", '["none"]', "'test.neighbours' names 'none', and there is no such entry."),
        ("what", "whta", "unknown field whta"),
    ],
)
def test_an_entry_that_does_not(capsys, tmp_path, folder, old, new, said):
    status, out = checked(capsys, tmp_path, folder, FILLED.replace(old, new))
    assert status == 1
    assert said in out
    assert "then: repro known add" in out


def test_there_is_no_file_to_check(capsys, tmp_path, folder):
    status, _, err = known(capsys, "add", folder, "--check")
    assert status == 2
    assert "Write it without --check, or name it with --out." in err


def test_a_script_without_transformers_has_no_version_of_it(capsys, tmp_path):
    from repro.core.payloads import Script

    answer = replace(RUN, script=Script(verdict=Outcome.BAD), environment=Environment(torch="2.13.0"))
    known(capsys, "add", saved(tmp_path / "other", answer), "--out", tmp_path / "new.toml")
    assert "transformers" not in tomllib.loads((tmp_path / "new.toml").read_text())["fingerprint"]
