"""bundle.zip: what is in it, what is not, and what comes of an archive that no reporter of good will has made."""

import base64
import hashlib
import json
import os
import stat
import zipfile

import pytest
from support.hosting import ask_cells, recipe

from repro.core.answer import answer_from
from repro.core.answer import read as read_answer
from repro.core.encoding import encode
from repro.core.errors import EvidenceError, UsageError
from repro.core.records import Outcome
from repro.report.privacy.machine import Private
from repro.run.bundle import manifest, read
from repro.run.bundle import write as bundling
from repro.run.bundle.read import open_bundle
from repro.run.bundle.write import bundle

NOBODY = Private()
ALICE = Private(home="/home/alice", user="alice", host="alices-laptop")
TOKEN = "hf_" + "Q" * 34
SCRIPT = "import sys\nprint('seen: inf')\nsys.exit(1)\n"


def document(**more):
    """The content of a verdict.json, as far as a bundle reads it, as JSON data."""
    figures = {"min": 68394.8671875, "max": "inf", "mean": 1e-45, "nan": 7}
    return {
        "schema": 2, "verdict": "bad", "reason": "float16 overflow", "tool": "0.1.0", "command": "repro org/model",
        "model": {"id": "org/model"}, "cell": {}, "case": {"model": "org/model"}, "forward": {"logits": figures},
        **more,
    }  # fmt: skip


def run_folder(folder, files=None, **more):
    """A run folder with the least that a run leaves, and ``files``. Returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "verdict.json": encode(document(**more), indent=1) + "\n",
        "evidence.jsonl": '{"step": "forward"}\n{"step": "bisect"}\n',
        "report.md": "# A report\n",
        "reproducer.py": SCRIPT,
        "probes.pyz": b"PK a kit",
        **(files or {}),
    }
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def bundled(folder, private=NOBODY):
    """The bundle of a run folder, by its own verdict.json."""
    return bundle(folder, read_answer(folder / "verdict.json"), private)


def members(path):
    """Name -> content."""
    with zipfile.ZipFile(path) as zipped:
        return {info.filename: zipped.read(info) for info in zipped.infolist()}


def noise(size):
    """Bytes that do not pack."""
    block = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(32_768))
    return (block * (size // len(block) + 1))[:size] if size <= len(block) else os.urandom(size)


# What is in it.


def test_a_bundle_has_the_files_of_the_run_and_a_manifest(tmp_path):
    plot = {"plots/layers.png": b"\x89PNG", "tensors/ab.safetensors": b"\0" * 8, "report-pytorch.md": "text"}
    run_folder(tmp_path, {**plot, "reproducer_module.py": SCRIPT, "report.html": "<p>"})
    assert set(members(bundled(tmp_path).path)) == {
        *("MANIFEST.json", "verdict.json", "evidence.jsonl", "report.md", "reproducer.py", "probes.pyz"),
        *("plots/layers.png", "tensors/ab.safetensors", "report-pytorch.md", "reproducer_module.py", "report.html"),
    }


def test_the_manifest_has_the_hash_and_the_size_of_every_other_member(tmp_path):
    content = members(bundled(run_folder(tmp_path)).path)
    said = json.loads(content.pop("MANIFEST.json"))
    assert {(item["name"], item["bytes"], item["sha256"]) for item in said["files"]} == {
        (name, len(data), hashlib.sha256(data).hexdigest()) for name, data in content.items()
    }


def test_the_manifest_says_by_which_command_and_which_tool(tmp_path):
    said = json.loads(members(bundled(run_folder(tmp_path)).path)["MANIFEST.json"])
    assert (said["schema"], said["tool"], said["command"]) == (2, "0.1.0", "repro org/model")


def test_the_same_run_gives_the_same_bytes(tmp_path):
    first = bundled(run_folder(tmp_path / "a")).path.read_bytes()
    folder = run_folder(tmp_path / "b")
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    assert bundled(folder).path.read_bytes() == first


def test_a_bundle_that_is_there_is_no_part_of_the_next_one(tmp_path):
    first = bundled(run_folder(tmp_path)).path.read_bytes()
    assert bundled(tmp_path).path.read_bytes() == first


def test_files_that_belong_to_no_run_stay_at_home(tmp_path):
    run_folder(tmp_path, {"diary.md": "dear diary", ".netrc": "machine", "plots/notes.txt": "x"})
    assert not {"diary.md", ".netrc", "plots/notes.txt"} & set(members(bundled(tmp_path).path))


def cell(name, folder=None):
    return {"id": name, "folder": folder, "verdict": "bad", "reason": "a test"}


def test_a_matrix_is_bundled_with_the_run_of_each_cell(tmp_path):
    cells = [cell("torch-2.4.1", "torch-2.4.1"), cell("torch-9")]
    below = {"torch-2.4.1/evidence.jsonl": "{}\n", "torch-2.4.1/row.json": "{}", "torch-9/row.json": "{}"}
    run_folder(tmp_path, {**below, "matrix.json": "{}", "stranger/evidence.jsonl": "{}\n"}, cells=cells)
    names = set(members(bundled(tmp_path).path))
    assert {*below, "matrix.json"} <= names
    assert "stranger/evidence.jsonl" not in names


def test_a_matrix_that_was_really_asked_is_bundled_whole(tmp_path, monkeypatch):
    content, _ = ask_cells(tmp_path, monkeypatch, recipe("a"), recipe("b"), recipe("c"), broken=["c"])
    names = set(members(bundle(tmp_path / "out", content, NOBODY).path))
    each = {"evidence.jsonl", "verdict.json", "row.json", "probes.pyz"}
    assert {f"{cell}/{name}" for cell in "ab" for name in each} | {"c/row.json", "matrix.json"} <= names


def release(version):
    answer = {"verdict": "bad", "reason": "a test"}
    return {**answer, "version": version, "runs": [{**answer, "command": "", "folder": f"probes/torch-{version}"}]}


VERSIONS = {
    "package": "torch",
    "last_good": "2.5.1",
    "first_bad": "2.4.1",
    "probes": [release(version) for version in ("2.5.1", "2.4.1", "2.3.1")],
}


def test_a_search_is_bundled_with_its_releases_and_traces(tmp_path):
    below = {"probes/torch-2.4.1/evidence.jsonl": "{}\n", "traces/torch-2.4.1/evidence.jsonl": "{}\n"}
    run_folder(tmp_path, {**below, "versions.json": "{}"}, versions=VERSIONS)
    assert {*below, "versions.json"} <= set(members(bundled(tmp_path).path))


def test_a_verdict_that_names_folders_elsewhere_brings_nothing_from_there(tmp_path):
    run_folder(tmp_path / "other")
    cells = [cell("a", "../other"), cell(str(tmp_path / "other")), cell("b", "a/../../other"), cell("\0")]
    names = set(members(bundled(run_folder(tmp_path / "run", cells=cells)).path))
    assert names == {"MANIFEST.json", "verdict.json", "evidence.jsonl", "report.md", "reproducer.py", "probes.pyz"}


@pytest.mark.parametrize("link", ["report.html", "tensors"])
def test_a_link_is_left_out_and_named(tmp_path, link):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    folder = run_folder(tmp_path / "run")
    (folder / link).symlink_to(tmp_path / "outside" / ("secret" if link == "report.html" else ""))
    made = bundled(folder)
    assert "link" in made.manifest.left_out[0].why
    assert not any(b"secret" in content for name, content in members(made.path).items() if name != "MANIFEST.json")


# What is too much.


def test_what_does_not_fit_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(bundling, "LIMIT", 20_000)
    tensors = {"tensors/large.safetensors": noise(30_000), "tensors/small.safetensors": noise(5_000)}
    made = bundled(run_folder(tmp_path, tensors))
    assert [(item.name, item.bytes) for item in made.manifest.left_out] == [("tensors/large.safetensors", 30_000)]
    assert "tensors/small.safetensors" in members(made.path)
    assert "1 (0.0 MB) were left out" in made.sentence


def test_a_bundle_above_25_megabytes_is_none(tmp_path):
    """With the real limit, and more tensors than it takes."""
    made = bundled(run_folder(tmp_path, {f"tensors/{name}.safetensors": os.urandom(9_000_000) for name in "abc"}))
    assert made.path.stat().st_size <= 25_000_000
    assert [item.name for item in made.manifest.left_out] == ["tensors/c.safetensors"]


def test_tensors_go_first_then_other_releases_then_plots(tmp_path, monkeypatch):
    some = noise(6_000)
    places = ("plots/a.png", "probes/torch-2.3.1/probes.pyz", "tensors/a.safetensors")
    run_folder(tmp_path, dict.fromkeys(places, some), versions=VERSIONS)
    left = []
    for room in (22_000, 15_000, 9_000):
        monkeypatch.setattr(bundling, "LIMIT", room)
        left.append({item.name for item in bundled(tmp_path).manifest.left_out})
    assert left == [set(places[2:]), set(places[1:]), set(places)]


def test_what_makes_the_report_is_never_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(bundling, "LIMIT", 5_000)
    evidence = base64.b64encode(noise(30_000)).decode()
    made = bundled(run_folder(tmp_path, {"evidence.jsonl": json.dumps({"e": evidence}) + "\n"}))
    assert {"verdict.json", "evidence.jsonl", "report.md", "reproducer.py"} <= set(members(made.path))
    assert made.too_large
    assert "above GitHub's limit" in made.sentence


def test_the_runs_beside_the_boundary_keep_their_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(bundling, "LIMIT", 3_000)
    below = {f"probes/torch-{version}/evidence.jsonl": "{}\n" for version in ("2.4.1", "2.3.1")}
    run_folder(tmp_path, below, versions=VERSIONS)
    assert [item.name for item in bundled(tmp_path).manifest.left_out if "evidence" in item.name] == [
        "probes/torch-2.3.1/evidence.jsonl"
    ]


def test_a_bundle_that_cannot_be_written_is_said(tmp_path):
    folder = run_folder(tmp_path)
    (folder / "bundle.zip.part").mkdir()
    with pytest.raises(EvidenceError, match="could not write"):
        bundled(folder)


# What is private.

INJECTED = f"at /home/alice/secret-project on alices-laptop by alice with {TOKEN}"


@pytest.mark.parametrize(
    "name",
    ["report.md", "report.html", "report-pytorch.md", "reproducer.py", "kit.log", "evidence.jsonl", "verdict.json"],
)
def test_nothing_private_is_in_any_member(tmp_path, name):
    injected = {"evidence.jsonl": json.dumps({"stderr_tail": [INJECTED]}) + "\n"}.get(name, f"# {INJECTED}\n")
    folder = run_folder(tmp_path / "alice", {} if name == "verdict.json" else {name: injected}, reason=INJECTED)
    content = members(bundled(folder, ALICE).path)
    assert name in content
    for secret in ("/home/alice", "secret-project on alices-laptop", "alices-laptop", TOKEN, str(tmp_path)):
        assert not [member for member, data in content.items() if secret.encode() in data]
    assert not [member for member, data in content.items() if b"by alice" in data]


def test_a_folder_that_is_named_for_somebody_is_masked_in_the_names_too(tmp_path):
    cells = [cell("alice", "alice")]
    run_folder(tmp_path, {"alice/evidence.jsonl": "{}\n"}, cells=cells)
    assert "USER/evidence.jsonl" in members(bundled(tmp_path, ALICE).path)


def test_masked_json_is_json_and_its_numbers_are_as_they_were(tmp_path):
    content = members(bundled(run_folder(tmp_path, reason=INJECTED), ALICE).path)
    assert json.loads(content["verdict.json"])["forward"] == document()["forward"]


def test_what_holds_nothing_private_is_byte_for_byte_the_original(tmp_path):
    folder = run_folder(tmp_path, {"kit.log": b"caf\xe9 \xff\r\nline\r", "verdict.json": json.dumps(document())})
    content = members(bundled(folder, ALICE).path)
    for name in ("kit.log", "verdict.json", "evidence.jsonl", "probes.pyz"):
        assert content[name] == (folder / name).read_bytes()


def test_a_masked_file_is_named_with_the_hash_of_its_original(tmp_path):
    """The report quotes the hash of the evidence as it was written, which the reporter keeps."""
    evidence = json.dumps({"line": INJECTED}) + "\n"
    said = bundled(run_folder(tmp_path, {"evidence.jsonl": evidence}), ALICE).manifest
    assert [(item.name, item.original_bytes, item.original_sha256) for item in said.masked] == [
        ("evidence.jsonl", len(evidence), hashlib.sha256(evidence.encode()).hexdigest())
    ]


def test_evidence_that_ends_in_the_middle_of_a_line_is_masked_as_text(tmp_path):
    torn = '{"step": "forward"}\n{"step": "bisect", "reason": "' + TOKEN
    content = members(bundled(run_folder(tmp_path, {"evidence.jsonl": torn})).path)["evidence.jsonl"]
    assert content.startswith(b'{"step": "forward"}\n{"step": "bisect"')
    assert TOKEN.encode() not in content


def test_where_prompts_are_withheld_their_file_and_what_may_quote_them_stay(tmp_path):
    files = {"inputs.json": '{"prompts": ["Marzipan"]}', "kit.log": "warning: Marzipan\n"}
    folder = run_folder(tmp_path, files, private_prompts=True)
    made = bundle(folder, answer_from(document(private_prompts=True)), NOBODY)
    assert not {"inputs.json", "kit.log"} & set(members(made.path))
    assert [(item.name, "quoted a withheld prompt" in item.why) for item in made.manifest.left_out] == [
        ("kit.log", True)
    ]


# Opened again.


@pytest.fixture
def archive(tmp_path):
    return bundled(run_folder(tmp_path / "run", {"plots/a.png": b"\x89PNG"}, reason=INJECTED), ALICE).path


def rewritten(archive, change):
    """The archive, with (name, content, ZipInfo) of each member as ``change`` gives them back."""
    path = archive.with_name("other.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w") as new:
        items = [(zipfile.ZipInfo(name), data) for name, data in members(old.filename).items()]
        for info, data in change(items):
            new.writestr(info, data)
    return path


def with_another(name, content=b"x", mode=0, listed=True):
    """A change that adds a member, in the manifest as well."""

    def change(items):
        info = zipfile.ZipInfo(name)
        info.filename = name
        info.external_attr = mode << 16
        said = json.loads(items[0][1])
        if listed:
            sha256 = hashlib.sha256(content).hexdigest()
            said["files"].append({"name": name, "bytes": len(content), "sha256": sha256})
        return [(items[0][0], json.dumps(said).encode()), *items[1:], (info, content)]

    return change


def refused(path, tmp_path):
    """The message; and nothing was left behind, here or outside."""
    before = set(tmp_path.rglob("*"))
    with pytest.raises(EvidenceError) as caught:
        open_bundle(path, tmp_path / "into" / "bundle")
    assert set(tmp_path.rglob("*")) == before
    return str(caught.value)


def test_a_sound_bundle_is_unpacked_byte_for_byte(archive, tmp_path):
    opened = open_bundle(archive, tmp_path / "into")
    assert {name: (tmp_path / "into" / name).read_bytes() for name in members(archive)} == members(archive)
    assert opened.answer.verdict is Outcome.BAD


def test_an_unpacked_bundle_is_verified_as_a_folder(archive, tmp_path):
    open_bundle(archive, tmp_path / "into")
    assert open_bundle(tmp_path / "into", tmp_path / "unused").manifest is not None
    (tmp_path / "into" / "report.md").write_text("# A deport\n")
    assert "'report.md' has the SHA-256" in refused(tmp_path / "into", tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "extra.py").write_text("x"), "'extra.py' is not in its manifest"),
        (lambda folder: (folder / "report.md").unlink(), "'report.md' is in its manifest and missing"),
        (lambda folder: (folder / "report.md").write_text("longer than it was\n"), "'report.md' has 19 bytes"),
        (lambda folder: (folder / "link").symlink_to("report.md"), "'link' is a link"),
        (lambda folder: os.mkfifo(folder / "pipe"), "'pipe' is a link or not a plain file"),
        (lambda folder: (folder / "MANIFEST.json").write_text("[]"), "MANIFEST.json cannot be read"),
        (lambda folder: (folder / "MANIFEST.json").write_bytes(b" " * 9_000_000), "has more than"),
    ],
)
def test_a_folder_that_is_not_what_its_manifest_says_is_refused(archive, tmp_path, change, words):
    open_bundle(archive, tmp_path / "into")
    change(tmp_path / "into")
    assert words in refused(tmp_path / "into", tmp_path)


def test_a_tampered_byte_is_seen(archive, tmp_path):
    def change(items):
        return [
            (info, data.replace(b"inf", b"nan") if info.filename == "reproducer.py" else data) for info, data in items
        ]

    assert "'reproducer.py' has the SHA-256" in refused(rewritten(archive, change), tmp_path)


def test_every_byte_of_an_archive_counts(archive, tmp_path):
    """A byte turned over is refused, or belongs to no name and no content (a date, the version of a format)."""
    content, sound = archive.read_bytes(), members(archive)
    for place in range(0, len(content), 7):
        path = tmp_path / "turned.zip"
        path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            opened = open_bundle(path, tmp_path / f"into-{place}")
        except (EvidenceError, UsageError):
            assert not (tmp_path / f"into-{place}").exists()
        else:
            assert {name: (opened.folder / name).read_bytes() for name in sound} == sound


def test_a_member_that_the_manifest_does_not_name_is_refused(archive, tmp_path):
    path = rewritten(archive, with_another("extra.py", listed=False))
    assert "'extra.py' is not in its manifest" in refused(path, tmp_path)


def test_a_missing_member_is_refused(archive, tmp_path):
    path = rewritten(archive, lambda items: [item for item in items if item[0].filename != "report.md"])
    assert "'report.md' is in its manifest and missing" in refused(path, tmp_path)


def test_an_archive_without_a_manifest_is_refused(archive, tmp_path):
    assert "has no MANIFEST.json" in refused(rewritten(archive, lambda items: items[1:]), tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil", "leads out"),
        ("a/../../evil", "leads out"),
        ("/tmp/evil", "absolute"),
        ("C:/evil", "characters"),
        ("..\\evil", "characters"),
        ("a:stream", "characters"),
        ("a//b", "empty part"),
        ("./b", "empty part"),
        ("folder/", "empty part"),
        ("a\nb", "characters"),
        ("a\u202eb", "characters"),
        ("nul", "device"),
        ("plots/COM1.png", "device"),
        ("report.md.", "dot or a space"),
        ("x" * 300, "longer"),
        ("Report.MD", "one file on some systems"),
        ("report.md/x", "is a file, and a folder"),
        ("plots", "is a file, and a folder"),
    ],
)
def test_a_name_that_must_not_be_written_is_refused(archive, tmp_path, name, words):
    assert words in refused(rewritten(archive, with_another(name)), tmp_path)


def test_two_names_that_are_one_when_composed_are_refused():
    assert "one file" in manifest.wrong_names(["caf\u00e9.png", "cafe\u0301.png"])


def test_two_members_of_one_name_are_refused(archive, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = rewritten(archive, lambda items: [*items, items[-1]])
    assert "one file" in refused(path, tmp_path)


@pytest.mark.parametrize(("mode", "words"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "plain"), (stat.S_IFCHR, "plain")])
def test_a_member_that_is_no_file_is_refused(archive, tmp_path, mode, words):
    assert words in refused(rewritten(archive, with_another("x", b"/etc/passwd", mode | 0o777)), tmp_path)


def test_an_encrypted_member_is_refused(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    place = content.find(b"PK\x01\x02") + 8  # the flags in the first entry of the central directory
    content[place] |= 1
    archive.write_bytes(content)
    assert "is encrypted" in refused(archive, tmp_path)


def test_a_method_that_no_bundle_uses_is_refused(archive, tmp_path):
    def change(items):
        items[-1][0].compress_type = zipfile.ZIP_LZMA
        return items

    assert "packed by method 14" in refused(rewritten(archive, change), tmp_path)


def test_a_bomb_is_refused_before_anything_is_written(archive, tmp_path):
    def change(items):
        changed = with_another("bomb.png", bytes(50_000_000))(items)
        changed[-1][0].compress_type = zipfile.ZIP_DEFLATED
        return changed

    assert "'bomb.png' is said to unpack from" in refused(rewritten(archive, change), tmp_path)


def test_many_members_that_are_too_much_together_are_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MOST_BYTES", 100)
    assert "would unpack to" in refused(archive, tmp_path)


def test_too_many_members_are_refused(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MOST_MEMBERS", 5)
    assert "members" in refused(archive, tmp_path)


def test_a_size_that_is_not_the_manifests_is_refused(archive, tmp_path):
    def change(items):
        said = json.loads(items[0][1])
        said["files"][0]["bytes"] += 1
        return [(items[0][0], json.dumps(said).encode()), *items[1:]]

    assert "the manifest says" in refused(rewritten(archive, change), tmp_path)


@pytest.mark.parametrize(
    "said",
    [
        "[]",
        "{}",
        '{"schema": 1, "tool": "0", "command": "", "files": []}',
        '{"schema": 2, "tool": "0", "command": "", "files": [{"name": "a", "bytes": -1, "sha256": "%s"}]}' % ("a" * 64),
        '{"schema": 2, "tool": "0", "command": "", "files": [{"name": "a", "bytes": 1, "sha256": "x"}]}',
        '{"schema": 2, "tool": "0", "command": "", "files": [], "more": 1}',
        '{"schema": 2, "tool": 0, "command": "", "files": []}',
        "[" * 100_000,
        "\ud800",
    ],
)
def test_a_manifest_that_is_none_is_refused(archive, tmp_path, said):
    content = said.encode("utf-8", "surrogatepass")
    path = rewritten(archive, lambda items: [(items[0][0], content), *items[1:]])
    assert "MANIFEST.json cannot be read" in refused(path, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive at all", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_refused(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    assert "refused" in refused(tmp_path / "x.zip", tmp_path)


@pytest.mark.wrong_verdicts
@pytest.mark.parametrize("text", ["none", "[]", "[" * 100_000])
def test_a_verdict_that_is_none_is_refused(tmp_path, text):
    folder = run_folder(tmp_path / "run", {"verdict.json": text})
    assert "verdict.json cannot be read" in refused(folder, tmp_path)


def test_a_run_folder_is_held_against_the_hashes_of_its_verdict(tmp_path):
    sha256 = hashlib.sha256(b"PK a kit").hexdigest()
    folder = run_folder(tmp_path / "run", kit_sha256=sha256)
    assert open_bundle(folder, tmp_path / "unused").manifest is None
    (folder / "probes.pyz").write_bytes(b"PK another")
    assert "probes.pyz does not have the SHA-256" in refused(folder, tmp_path)


@pytest.mark.parametrize(("place", "words"), [("nothing", "does not exist"), (".", "neither")])
def test_what_is_not_there_is_wrong_usage(tmp_path, place, words):
    with pytest.raises(UsageError, match=words):
        open_bundle(tmp_path / place, tmp_path / "into")


def test_a_place_that_cannot_be_written_is_said(archive, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EvidenceError, match="could not unpack"):
        open_bundle(archive, tmp_path / "file" / "into")


def test_a_file_that_is_changed_after_it_was_verified_is_not_read(archive, tmp_path):
    opened = open_bundle(archive, tmp_path / "into")
    (tmp_path / "into" / "reproducer.py").write_text("import os\n")
    with pytest.raises(EvidenceError, match="changed since"):
        opened.read("reproducer.py")


def test_the_kits_epoch_is_the_bundles_too(archive):
    """No date tells when it was packed."""
    with zipfile.ZipFile(archive) as zipped:
        assert {info.date_time for info in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}
