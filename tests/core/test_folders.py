"""What identifies the files of a case, and which folders are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from repro.core.errors import EvidenceError, UsageError
from repro.core.folders import Claim, check_held_still, check_unchanged, check_unused, claim, inputs, seen
from repro.core.records import Case, Cell


def model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(64))
    (folder / "notes.pdf").write_text("not read")
    return folder


def test_every_file_that_a_model_is_read_from_is_seen_and_no_other(tmp_path: Path) -> None:
    found = seen(Case(str(model(tmp_path / "m"))))
    assert set(found) == {"config.json", "model.safetensors"}
    assert set(seen(Case(str(tmp_path / "m" / "model.safetensors")))) == {"model.safetensors"}


def test_a_small_file_is_known_by_its_content_alone(tmp_path: Path) -> None:
    case = Case(str(model(tmp_path / "m")))
    before = seen(case)
    os.utime(tmp_path / "m" / "config.json", (1, 1))
    assert seen(case) == before
    (tmp_path / "m" / "config.json").write_text("[]")
    assert "config.json was sha256" in (inputs.changed(before, seen(case)) or "")


def test_a_large_file_that_is_changed_in_place_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "HASHED", 16)
    weights = model(tmp_path / "m") / "model.safetensors"
    case = Case(str(tmp_path / "m"))
    before, state = seen(case), weights.stat()
    with weights.open("r+b") as file:
        file.seek(32)
        file.write(b"\x7f")
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))  # the size and the time of change are as before
    assert weights.stat().st_mtime_ns == state.st_mtime_ns
    assert "model.safetensors was of 64 bytes" in (inputs.changed(before, seen(case)) or "")


def test_the_modules_of_a_script_are_seen_whichever_way_they_are_imported(tmp_path: Path) -> None:
    for name in ("a.py", "b/__init__.py", "b/c.py", "b/d/__init__.py", "b/d/e.py", "unused.py", "deep.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("import deep\n" if name == "a.py" else "")
    script = tmp_path / "s.py"
    script.write_text("import a, os, b.d.e\nfrom b import c\nimport nowhere\n")
    found = set(seen(Case(str(script))))
    assert found == {"s.py", "a.py", "deep.py", "b/__init__.py", "b/c.py", "b/d/__init__.py", "b/d/e.py"}
    script.write_text("def (")
    assert set(seen(Case(str(script)))) == {"s.py"}


def test_a_model_of_the_hub_is_known_by_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    case = Case("org/name")
    assert seen(case) == {}
    place = tmp_path / "models--org--name"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    (place / "snapshots").mkdir()
    model(place / "snapshots" / "abc")
    before = seen(case)
    assert set(before) == {"refs/main", "config.json", "model.safetensors"}
    (place / "refs" / "main").write_text("def")
    model(place / "snapshots" / "def")
    assert "refs/main was" in (inputs.changed(before, seen(case)) or "")


def test_what_is_installed_beside_the_interpreter_is_seen(tmp_path: Path) -> None:
    (tmp_path / "lib" / "python3.12" / "site-packages" / "torch-2.9.1+cpu.dist-info").mkdir(parents=True)
    (tmp_path / "lib" / "python3.12" / "site-packages" / "torchvision-0.1.dist-info").mkdir()
    found = seen(Case(str(model(tmp_path / "m"))), Cell(str(tmp_path / "bin" / "python")))
    assert found["torch"] == "2.9.1+cpu"
    assert "torchvision" not in found


def test_what_was_not_there_before_is_no_change(tmp_path: Path) -> None:
    check_unchanged({}, {"a": "1"}, tmp_path)
    check_unchanged({"a": "1"}, {"a": "1", "b": "2"}, tmp_path)
    with pytest.raises(UsageError, match="a is gone"):
        check_unchanged({"a": "1"}, {"b": "2"}, tmp_path)


def test_only_a_folder_of_nothing_else_is_taken(tmp_path: Path) -> None:
    check_unused(tmp_path)
    (tmp_path / ".lock").touch()
    (tmp_path / "ours").touch()
    (tmp_path / "host.log").touch()
    check_unused(tmp_path, "ours")
    with pytest.raises(UsageError, match=r"not empty \(it holds ours\)"):
        check_unused(tmp_path)


def test_a_claim_is_of_one_question_about_one_state_of_the_files(tmp_path: Path) -> None:
    asked = Claim(command=("repro", "matrix", "m"), inputs={"a": "1"})
    path = tmp_path / "matrix.json"
    assert claim(path, asked, "a matrix of") is None
    assert claim(path, asked, "a matrix of") == asked
    with pytest.raises(UsageError, match="another question"):
        claim(path, Claim(command=("repro", "matrix", "n")), "a matrix of")
    with pytest.raises(UsageError, match="other inputs: a was 1, and is 2"):
        claim(path, Claim(command=asked.command, inputs={"a": "2"}), "a matrix of")


def test_what_holds_nothing_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "plots" / "empty").mkdir(parents=True)
    (tmp_path / "report.md.part").symlink_to("/dev/null")
    check_unused(tmp_path)
    (tmp_path / "plots" / "empty" / "a.png").touch()
    with pytest.raises(UsageError, match=r"it holds plots\)"):
        check_unused(tmp_path)


def test_what_changes_while_it_is_read_is_no_answer(tmp_path: Path) -> None:
    check_held_still({"a": "1"}, {"a": "1", "b": "2"}, tmp_path)
    with pytest.raises(EvidenceError, match="changed while the run went on: a was 1, and is 2"):
        check_held_still({"a": "1"}, {"a": "2"}, tmp_path)


def test_the_files_that_a_model_is_given_are_inputs_too(tmp_path):
    (tmp_path / "a.png").write_bytes(b"one")
    case = Case(str(model(tmp_path / "m")), image=str(tmp_path / "a.png"))
    before = seen(case)
    assert "--image a.png" in before
    (tmp_path / "a.png").write_bytes(b"two")
    assert "--image a.png was sha256" in (inputs.changed(before, seen(case)) or "")


def test_the_base_of_an_adapter_is_read_too(tmp_path):
    model(tmp_path / "base")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "../base"}')
    assert {"adapter_config.json", "base model.safetensors"} <= set(seen(Case(str(tmp_path / "adapter"))))
    (tmp_path / "adapter" / "adapter_config.json").write_text("[]")
    assert set(seen(Case(str(tmp_path / "adapter")))) == {"adapter_config.json"}
