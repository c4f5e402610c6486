"""A command that is printed can be pasted, whatever the encoding of the terminal: bash itself is the oracle."""

import os
import shlex
import shutil
import subprocess

import pytest

from repro.core.sentences import pasteable


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize(
    "raw", [b"plain", "\u041a\u043e\u0442 1".encode(), b"it's\x80\\n", b"a\x1b[31mb", b"", b"\xff1f"]
)
def test_a_shell_reads_the_word_again(raw, encoding):
    word = os.fsdecode(raw)
    line = pasteable(shlex.join(["repro", word]), encoding)
    assert line.isprintable()
    script = b"printf %s " + line.removeprefix("repro ").encode(encoding)
    assert subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout == raw
