"""What several machines found, in one table: the folders are those of real matrices, with the platform changed."""

import functools
import json
import shutil

import pytest
from support.hosting import BISECT, NAN_FORWARD, ask_cells, recipe, repro

from repro.core.errors import UsageError
from repro.core.records import Outcome
from repro.run import output
from repro.sweeps.matrix.merge import merge


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """The folder of a matrix that ran on some platform."""

    def ran(name, platform, machine, *cells, **more):
        ask_cells(tmp_path, monkeypatch, *cells, out=name, **more)
        for path in (tmp_path / name).glob("*/row.json"):
            data = json.loads(path.read_text())
            data["row"].update(platform=platform, machine=machine)
            path.write_text(json.dumps(data))
        return tmp_path / name

    return ran


def rows(answer):
    return {row.id: row.verdict.value for row in answer.cells}


def test_a_cell_that_ran_on_two_platforms_is_two_cells(machine, tmp_path):
    mac = machine("mac", "macOS-15.1-arm64", "arm64", recipe("a"), steps={"forward": NAN_FORWARD})
    linux = machine("linux", "Linux-6.1-x86_64", "x86_64", recipe("a"), recipe("b"))
    answer = merge([mac, linux], tmp_path / "merged").answer
    assert rows(answer) == {"a@macos-arm64": "bad", "a@linux-x86_64": "good", "b": "good"}
    assert (answer.verdict, answer.shown_cell) == (Outcome.BAD, "a@macos-arm64")
    assert json.loads((tmp_path / "merged" / "a@macos-arm64" / "verdict.json").read_text())["verdict"] == "bad"
    assert "a@macos-arm64" in (tmp_path / "merged" / "report.md").read_text()


def test_folders_are_looked_for_below_as_ci_downloads_them(machine, tmp_path):
    machine("artifacts/one/matrix-1", "Linux-6.1", "x86_64", recipe("a"))
    machine("artifacts/two/matrix-2", "Linux-6.1", "x86_64", recipe("b"))
    assert rows(merge([tmp_path / "artifacts"], tmp_path / "merged").answer) == {"a": "good", "b": "good"}


def test_the_same_cell_twice_on_one_platform_is_numbered(machine, tmp_path):
    places = [machine(name, "Linux-6.1", "x86_64", recipe("a")) for name in ("one", "two")]
    assert rows(merge(places, tmp_path / "merged").answer) == {"a@linux-x86_64": "good", "a@linux-x86_64-2": "good"}


def test_a_cell_that_could_not_be_built_stays_a_skip_with_its_reason(machine, tmp_path):
    place = machine("one", "Windows-11", "AMD64", recipe("a"), broken=["a"])
    answer = merge([place], tmp_path / "merged").answer
    assert (answer.verdict, answer.cells[0].verdict, answer.cells[0].folder) == (Outcome.SKIP, Outcome.SKIP, None)
    assert "no Python 3.11" in answer.cells[0].reason


def test_a_single_run_is_a_cell_with_the_folders_name(machine, tmp_path):
    one = machine("one", "Linux-6.1", "x86_64", recipe("a"))
    answer = merge([one / "a"], tmp_path / "merged").answer
    assert rows(answer) == {"a": "good"}


def test_other_questions_do_not_share_a_table(machine, tmp_path):
    one = machine("one", "Linux-6.1", "x86_64", recipe("a"))
    two = machine("two", "Linux-6.1", "x86_64", recipe("a"), options={"dtype": "float16"})
    with pytest.raises(UsageError, match=r"ask different questions \(model checkpoint and model checkpoint float16\)"):
        merge([one, two], tmp_path / "merged")


def test_the_place_of_a_local_model_is_no_part_of_the_question(machine, tmp_path):
    """The same folder on Linux and on Windows."""
    places = [machine(name, "Linux-6.1", "x86_64", recipe(name)) for name in ("one", "two")]
    header = tmp_path / "two" / "matrix.json"
    data = json.loads(header.read_text())
    data["case"]["model"] = "D:\\work\\model"
    header.write_text(json.dumps(data))
    assert rows(merge(places, tmp_path / "merged").answer) == {"one": "good", "two": "good"}


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is nothing to join in it"):
        merge([tmp_path], tmp_path / "merged")


def test_a_folder_that_is_not_empty_is_not_written_to(machine, tmp_path):
    place = machine("one", "Linux-6.1", "x86_64", recipe("a"))
    with pytest.raises(UsageError, match="is not empty"):
        merge([place], place)


# Files from elsewhere


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A matrix of one cell whose fake kit answered much: (folder of the matrix, its files by name, as JSON data)."""
    place = tmp_path_factory.mktemp("sound")
    with pytest.MonkeyPatch.context() as patch:
        steps = {"forward": NAN_FORWARD, "bisect": {"verdict": "bad", "payload": BISECT}}
        ask_cells(place, patch, recipe("a"), out="one", steps=steps)
    return place / "one"


DROPPED = object()
VALUES = {"dropped": DROPPED, "none": None, "text": "x", "list": [1], "number": -7, "object": {"x": 1}}
PLACES = {
    "matrix.json": ("schema", "command", "case", "case.model", "case.prompts"),
    "a/row.json": (
        *("schema", "fingerprint", "ran", "row", "row.id", "row.verdict", "row.reason", "row.origin", "row.ablations"),
        *("row.asked", "row.environment", "row.environment.distributions", "row.seconds", "row.folder", "row.kind"),
    ),
    "a/verdict.json": (
        *("schema", "verdict", "reason", "model", "model.id", "cell", "cell.torch", "case", "case.model", "kind"),
        *("steps", "forward", "bisect", "origin", "origin.inputs", "ablations", "environment", "command"),
    ),
}


@pytest.mark.wrong_verdicts
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("file", "where"), [(file, where) for file, places in PLACES.items() for where in places])
def test_a_damaged_file_is_read_or_refused_in_one_line(sound, tmp_path, monkeypatch, file, where, value):
    """verdict.json is read of a single run; of a matrix it is row.json."""
    monkeypatch.setattr(output, "write", lambda folder, answer, *, whole: answer)  # what is read is the question here
    shutil.copytree(sound, tmp_path / "one")
    path, (*outer, key) = tmp_path / "one" / file, where.split(".")
    data = json.loads(path.read_text())
    inner = functools.reduce(lambda found, name: found[name] or found.setdefault(name, {}) or {}, outer, data)
    inner.pop(key, None)
    if VALUES[value] is not DROPPED:
        inner[key] = VALUES[value]
    path.write_text(json.dumps(data))
    refused, found = None, None
    try:
        found = merge([path.parent if file == "a/verdict.json" else tmp_path / "one"], tmp_path / "merged").answer
    except UsageError as error:
        refused = str(error)
    if found is None:
        assert (str(tmp_path / "one") in refused, "\n" in refused) == (True, False)
        assert not (tmp_path / "merged").exists()
    else:
        assert len(found.cells) == 1


@pytest.mark.wrong_verdicts
@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "[" * 100_000, '{"schema": 1}', '{"schema": 2}'])
@pytest.mark.parametrize("file", ["matrix.json", "a/row.json", "a/verdict.json"])
def test_what_is_no_json_object_is_refused_with_the_name_of_the_file(sound, tmp_path, file, text):
    shutil.copytree(sound, tmp_path / "one")
    (tmp_path / "one" / file).write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=f"{file} cannot be read"):
        merge([tmp_path / "one"], tmp_path / "merged")


@pytest.mark.parametrize("name", ["..", "../elsewhere", "a/b", "a\\b", "", "x" * 200, "\ud800", "a\0b"])
def test_a_cell_whose_id_is_no_name_of_a_folder_is_refused(sound, tmp_path, name):
    shutil.copytree(sound, tmp_path / "one")
    path = tmp_path / "one" / "a" / "row.json"
    data = json.loads(path.read_text())
    data["row"]["id"] = name
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match="is no name for a folder"):
        merge([tmp_path / "one"], tmp_path / "merged")


# The command


def test_the_command_prints_the_table_and_ends_with_the_verdicts_status(machine, tmp_path):
    place = machine("one", "Linux-6.1", "x86_64", recipe("a"), steps={"forward": NAN_FORWARD})
    done = repro("merge", place, "--out", tmp_path / "merged", cwd=tmp_path)
    assert done.returncode == 1
    assert "every logit is NaN" in done.stdout
    assert json.loads(repro("merge", place, "--json", cwd=tmp_path).stdout)["verdict"] == "bad"
