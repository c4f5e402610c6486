"""Only regular files are opened, and none of the others is waited for."""

import os
import socket
from pathlib import Path

import pytest

from repro.core.foreign import NotAFile, check_is_file, limits, open_foreign, open_text, read_foreign
from repro.core.foreign import opening as module


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """Something of each kind, by what is said of it."""
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        yield {
            "a FIFO": tmp_path / "fifo",
            "a folder": tmp_path / "folder",
            "a socket": tmp_path / "socket",
            "a character device": tmp_path / "zero",
        }


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a socket", "a character device"])
@pytest.mark.parametrize("read", [check_is_file, open_foreign, open_text, read_foreign])
def test_what_is_no_file_is_refused_by_name_also_behind_links(odd, tmp_path, kind, read):
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "one").symlink_to(odd[kind])
    (tmp_path / "two").symlink_to("one")
    for path in (odd[kind], tmp_path / "two"):
        with pytest.raises(NotAFile, match=f"{path.name} is {kind}") as caught:
            read(path)
        assert caught.value.exit_status == 2


def test_a_pipe_is_as_good_as_a_file_where_it_may_be_one(odd):
    check_is_file(odd["a FIFO"], pipe=True)
    with pytest.raises(NotAFile):
        check_is_file(odd["a socket"], pipe=True)


def test_what_is_put_in_its_place_meanwhile_is_refused_and_closed(odd, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "check_is_file", lambda path: None)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(NotAFile, match="is a FIFO"):
        open_foreign(odd["a FIFO"])
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_files_are_read_as_they_are(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xc3\xa9\n12")
    assert read_foreign(path) == b"\xc3\xa9\n12"
    assert read_foreign(path, 2) == b"\xc3\xa9"
    with open_text(path) as file:
        assert file.read() == "é\n12"
    with pytest.raises(FileNotFoundError):
        open_foreign(tmp_path / "gone")


def test_the_limits_factor_goes_on_in_the_environment(monkeypatch):
    monkeypatch.setenv(limits.VARIABLE, "")
    assert limits.wanted() is None
    for said in ("10", "none", "0.5"):
        limits.raise_to(said)
        assert (limits.wanted(), os.environ["REPRO_LIMITS"]) == (said, said)
    for said in ("0", "-1", "inf", "nan", "many"):
        with pytest.raises(ValueError, match=r".*"):
            limits.raise_to(said)
    assert limits.wanted() == "0.5"
