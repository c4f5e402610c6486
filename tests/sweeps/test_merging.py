"""What several machines found, in one table: the folders are those of real matrices, with the platform changed."""

import json

import pytest
from support.hosting import NAN_FORWARD, ask_cells, recipe, repro

from repro.core.errors import UsageError
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


def rows(document):
    return {row["id"]: row["verdict"] for row in document["cells"]}


def test_a_cell_that_ran_on_two_platforms_is_two_cells(machine, tmp_path):
    mac = machine("mac", "macOS-15.1-arm64", "arm64", recipe("a"), steps={"forward": NAN_FORWARD})
    linux = machine("linux", "Linux-6.1-x86_64", "x86_64", recipe("a"), recipe("b"))
    document = merge([mac, linux], tmp_path / "merged").document
    assert rows(document) == {"a@macos-arm64": "bad", "a@linux-x86_64": "good", "b": "good"}
    assert (document["verdict"], document["shown_cell"]) == ("bad", "a@macos-arm64")
    assert json.loads((tmp_path / "merged" / "a@macos-arm64" / "verdict.json").read_text())["verdict"] == "bad"
    assert "a@macos-arm64" in (tmp_path / "merged" / "report.md").read_text()


def test_folders_are_looked_for_below_as_ci_downloads_them(machine, tmp_path):
    machine("artifacts/one/matrix-1", "Linux-6.1", "x86_64", recipe("a"))
    machine("artifacts/two/matrix-2", "Linux-6.1", "x86_64", recipe("b"))
    assert rows(merge([tmp_path / "artifacts"], tmp_path / "merged").document) == {"a": "good", "b": "good"}


def test_the_same_cell_twice_on_one_platform_is_numbered(machine, tmp_path):
    places = [machine(name, "Linux-6.1", "x86_64", recipe("a")) for name in ("one", "two")]
    assert rows(merge(places, tmp_path / "merged").document) == {"a@linux-x86_64": "good", "a@linux-x86_64-2": "good"}


def test_a_cell_that_could_not_be_built_stays_a_skip_with_its_reason(machine, tmp_path):
    place = machine("one", "Windows-11", "AMD64", recipe("a"), broken=["a"])
    document = merge([place], tmp_path / "merged").document
    assert (document["verdict"], document["cells"][0]["reason"]) == (
        "skip",
        "not built: no Python 3.11 on this machine",
    )


def test_a_single_run_is_a_cell_with_the_folders_name(machine, tmp_path):
    one = machine("one", "Linux-6.1", "x86_64", recipe("a"))
    document = merge([one / "a"], tmp_path / "merged").document
    assert rows(document) == {"a": "good"}


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
    assert rows(merge(places, tmp_path / "merged").document) == {"one": "good", "two": "good"}


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="there is nothing to join in it"):
        merge([tmp_path], tmp_path / "merged")


def test_a_folder_that_is_not_empty_is_not_written_to(machine, tmp_path):
    place = machine("one", "Linux-6.1", "x86_64", recipe("a"))
    with pytest.raises(UsageError, match="is not empty"):
        merge([place], place)


def test_the_command_prints_the_table_and_ends_with_the_verdicts_status(machine, tmp_path):
    place = machine("one", "Linux-6.1", "x86_64", recipe("a"), steps={"forward": NAN_FORWARD})
    done = repro("merge", place, "--out", tmp_path / "merged", cwd=tmp_path)
    assert done.returncode == 1
    assert "every logit is NaN" in done.stdout
    assert json.loads(repro("merge", place, "--json", cwd=tmp_path).stdout)["verdict"] == "bad"
