"""Standard streams in any state: what is lost, what is said, and what goes on."""

import errno
import io
import os
import subprocess
import sys

import pytest

from repro.cli.screen.streams import Stream
from repro.core.errors import NobodyReads, NotPrinted

CODE = (
    "import os, sys; from repro.cli.screen.streams import hold_descriptors; hold_descriptors(); "
    "os._exit(sum(1 << fd for fd in (0, 1, 2) if os.fstat(fd)) | (os.open(os.devnull, os.O_RDONLY) <= 2) << 3)"
)


class Failing(io.StringIO):
    """A stream that fails from its first word on."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


def test_a_failure_of_stdout_is_an_error_each_time():
    stream = Stream(Failing(OSError(errno.ENOSPC, "No space left on device")), "stdout", may_be_lost=False)
    for _ in range(2):
        with pytest.raises(NotPrinted, match=r"could not print the answer on stdout: No space left on device\."):
            stream.write("x")
    stream.flush()


def test_a_failure_of_stderr_is_passed_over():
    stream = Stream(Failing(OSError(errno.ENOSPC, "full")), "stderr", may_be_lost=True)
    assert stream.write("x") == 1


def test_a_reader_that_has_gone_away_has_an_error_of_its_own():
    stream = Stream(Failing(BrokenPipeError()), "stdout", may_be_lost=False)
    with pytest.raises(NobodyReads):
        stream.write("x")


def test_a_stream_that_is_not_there_takes_nothing_but_nothing():
    stream = Stream(None, "stdout", may_be_lost=False)
    stream.write("")
    stream.flush()
    assert not stream.isatty()
    with pytest.raises(NotPrinted, match="it is closed"):
        stream.write("x")


def test_bytes_go_the_same_way():
    inner = io.StringIO()
    assert Stream(inner, "stdout", may_be_lost=False).buffer.write("ä".encode()) == 2
    assert inner.getvalue() == "ä"


@pytest.mark.skipif(os.name == "nt", reason="the shell is POSIX's")
@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_takes_the_place_of_a_stream(closed):
    ran = subprocess.run(["sh", "-c", f'"$0" -c "$1" {closed}', sys.executable, CODE], check=False)
    assert ran.returncode == 0b0111
