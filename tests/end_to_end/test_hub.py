"""Models by their Hub id, from a server on this machine that speaks the Hub's API and fails as networks do."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from support.hosting import repro
from support.hub_server import Hub, Serving, etag
from transformers import GPT2Config, GPT2LMHeadModel

from repro.probes.checkpoint import files, resolve
from repro.probes.checkpoint.resolve import CannotResolve

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("tiny")
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 32, "vocab_size": 64, "n_positions": 32}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(place)
    return place


@pytest.fixture
def hub(folder: Path) -> Iterator[Hub]:
    with Serving(Hub()) as served:
        served.add("org/tiny", folder)
        yield served


@pytest.fixture
def cache(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and the hub as the Hub, for what runs in this process."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix("https://huggingface.co")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.address}{template}")
    return tmp_path / "home" / "hub"


def asked(hub: Hub, place: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """The real command, with the cache in this place."""
    found = {"HF_ENDPOINT": hub.address, "HF_HOME": str(place / "home"), "HF_HUB_OFFLINE": "0"}
    return repro(*args, cwd=place, env=found)


def step_files(model: str, **more: Any) -> tuple[str, str]:
    """Verdict and reason of the files step."""
    return files.check(resolve.resolve({"model": model, **more}), lambda *_: None)[:2]


def refused(model: str) -> str:
    with pytest.raises(CannotResolve) as caught:
        resolve.resolve({"model": model})
    return str(caught.value)


def brought(hub: Hub) -> list[str]:
    """The files that were downloaded, each time one was."""
    return [one.rpartition("/")[2] for one in hub.asked.elements() if one.startswith("GET /org") and "/resolve/" in one]


# --- the command -------------------------------------------------------------------------------------------------


def test_a_model_is_downloaded_once_and_then_taken_from_the_cache_without_a_network(hub: Hub, tmp_path: Path) -> None:
    first = asked(hub, tmp_path, "weights", "org/tiny")
    assert first.returncode == 0, first.stderr
    assert "3 cached files have the hash of their name" in first.stderr
    hub.down = True
    before = hub.asked.total()
    again = asked(hub, tmp_path, "weights", "org/tiny")
    assert (again.returncode, hub.asked.total()) == (0, before), again.stderr


def test_bytes_that_are_not_those_of_the_published_hash_are_bad_and_the_file_is_named(
    hub: Hub, folder: Path, tmp_path: Path
) -> None:
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[-5] ^= 1
    hub.wrong[WEIGHTS] = bytes(data)
    done = asked(hub, tmp_path, "weights", "org/tiny", "--json")
    assert done.returncode == 1, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["verdict"], answer["kind"], answer["owner"]["project"]) == ("bad", "files", "caller")
    sent, promised = hashlib.sha256(data).hexdigest()[:12], etag(WEIGHTS, (folder / WEIGHTS).read_bytes())[:12]
    assert answer["reason"].startswith(f"{WEIGHTS}: the cached blob is corrupt: its name is {promised}")
    assert sent in answer["reason"]


def test_a_network_that_goes_away_in_the_middle_is_no_verdict(hub: Hub, tmp_path: Path) -> None:
    hub.cut[WEIGHTS], hub.down_after_cut = 20_000, True
    done = asked(hub, tmp_path, "weights", "org/tiny")
    assert done.returncode == 125
    assert "the network did not bring it" in done.stdout
    assert "where there is a network (hf download org/tiny)" in done.stdout


# --- the steps of it ---------------------------------------------------------------------------------------------


def test_how_much_is_downloaded_is_told_in_bytes(
    hub: Hub, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "TOLD_EVERY", 0.01)
    told: list[tuple[int, int, str]] = []
    resolve.resolve({"model": "org/tiny"}, lambda *now: told.append(now))
    whole = sum(path.stat().st_size for path in folder.iterdir())
    assert told[-1] == (whole, whole, "bytes")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_a_revision_has_its_own_bytes(hub: Hub, cache: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    save_file({"wte": torch.full((2, 2), float("nan"))}, other / WEIGHTS)
    sha = hub.add("org/tiny", other, "v2")
    for model in ("org/tiny@v2", f"org/tiny@{sha}"):
        source = resolve.resolve({"model": model})
        assert source.revision == sha
        assert Path(source.folder or "", WEIGHTS).read_bytes() == (other / WEIGHTS).read_bytes()
    main = resolve.resolve({"model": "org/tiny"})
    assert Path(main.folder or "", WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_a_cut_connection_is_taken_up_again(hub: Hub, cache: Path, folder: Path) -> None:
    hub.cut[WEIGHTS] = 20_000
    assert step_files("org/tiny")[0] == "good"
    assert brought(hub).count(WEIGHTS) == 2
    (blob,) = cache.glob(f"*/blobs/{etag(WEIGHTS, (folder / WEIGHTS).read_bytes())}")
    assert blob.read_bytes() == (folder / WEIGHTS).read_bytes()


CHUNK = constants.DOWNLOAD_CHUNK_SIZE
"""What huggingface_hub writes at once: of a cut download it keeps whole chunks, and asks for the rest by a range."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose file is larger than two chunks."""
    place = tmp_path_factory.mktemp("large")
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 32, "vocab_size": 5 * CHUNK // 256, "n_positions": 32}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(place)
    return place


def test_a_cut_download_is_taken_up_by_a_range(hub: Hub, cache: Path, large: Path) -> None:
    """No chunk that was kept goes out again."""
    hub.add("org/large", large)
    data, cut = (large / WEIGHTS).read_bytes(), 2 * CHUNK + 20_000
    hub.cut[WEIGHTS] = cut
    assert step_files("org/large")[0] == "good"
    (wanted,) = (words for words in hub.ranges if words.startswith(WEIGHTS))
    assert wanted.startswith(f"{WEIGHTS} bytes={2 * CHUNK}-")
    assert hub.served[WEIGHTS] == cut + len(data) - 2 * CHUNK
    (blob,) = cache.glob(f"*/blobs/{etag(WEIGHTS, data)}")
    assert blob.read_bytes() == data


def test_another_run_completes_what_a_network_that_went_away_has_left(hub: Hub, tmp_path: Path, large: Path) -> None:
    """Whether it asks for all of the file or for the rest is huggingface_hub's own choice."""
    hub.add("org/large", large)
    data, cut = (large / WEIGHTS).read_bytes(), CHUNK + 20_000
    hub.cut[WEIGHTS], hub.down_after_cut = cut, True
    assert asked(hub, tmp_path, "weights", "org/large").returncode == 125
    hub.down = False
    assert asked(hub, tmp_path, "weights", "org/large").returncode == 0
    assert cut + len(data) - CHUNK <= hub.served[WEIGHTS] <= cut + len(data)
    (blob,) = (tmp_path / "home" / "hub").glob(f"*/blobs/{etag(WEIGHTS, data)}")
    assert blob.read_bytes() == data


def test_a_snapshot_without_all_of_its_shards_is_completed(
    hub: Hub, cache: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded = tmp_path / "sharded"
    GPT2LMHeadModel.from_pretrained(folder).save_pretrained(sharded, max_shard_size="20KB")
    shards = sorted(path.name for path in sharded.glob("*.safetensors"))
    assert len(shards) > 1
    hub.add("org/sharded", sharded)
    source = resolve.resolve({"model": "org/sharded"})
    last = Path(source.folder or "", shards[-1])
    last.resolve().unlink()
    last.unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    verdict, reason = step_files("org/sharded")  # what is missing is named where it cannot be had
    assert (verdict, shards[-1] in reason) == ("bad", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert step_files("org/sharded")[0] == "good"
    assert brought(hub).count(shards[-1]) == 2
    assert brought(hub).count(shards[0]) == 1


def test_a_model_of_which_only_a_part_was_wanted_is_cached(hub: Hub, cache: Path) -> None:
    """The same model in another library's format is not downloaded, and not missed."""
    for files_of in hub.repositories["org/tiny"].commits.values():
        files_of["tf_model.h5"] = b"of another library"
    resolve.resolve({"model": "org/tiny"})
    before = hub.asked.total()
    assert step_files("org/tiny")[0] == "good"
    assert hub.asked.total() == before
    assert "tf_model.h5" not in brought(hub)


def test_a_cached_copy_in_part_is_completed_or_taken_as_it_is(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = resolve.resolve({"model": "org/tiny"})
    Path(source.folder or "", "generation_config.json").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve.resolve({"model": "org/tiny"}).folder == source.folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert resolve.resolve({"model": "org/tiny"}).folder == source.folder
    assert Path(source.folder or "", "generation_config.json").exists()


def test_a_gated_model_is_said_to_be_gated(hub: Hub, cache: Path) -> None:
    hub.repositories["org/tiny"].gated = True
    said = refused("org/tiny")
    assert f"it is gated: ask for access on {hub.address}/org/tiny" in said
    assert "`hf auth login`" in said


def test_a_name_and_a_revision_that_the_hub_has_not_are_told_apart(hub: Hub, cache: Path) -> None:
    assert "The Hub has no org/none, or it is private" in refused("org/none")
    assert "The Hub has org/tiny, but no revision v9" in refused("org/tiny@v9")


def test_another_id_with_the_same_bytes_and_a_fresh_download_are_the_same(
    hub: Hub, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("other/copy", folder)
    found = [resolve.resolve({"model": model}) for model in ("org/tiny", "other/copy")]
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache.parent / "fresh"))
    found.append(resolve.resolve({"model": "org/tiny"}))
    blobs = [Path(one.folder or "", WEIGHTS).resolve() for one in found]
    assert len(set(blobs)) == 3
    assert {blob.name for blob in blobs} == {etag(WEIGHTS, (folder / WEIGHTS).read_bytes())}
    assert found[0].revision == found[2].revision != found[1].revision
    assert {files.check(one, lambda *_: None)[0] for one in found} == {"good"}


def test_a_pipeline_of_diffusers_comes_with_the_weights_of_its_parts_and_nothing_else(
    hub: Hub, cache: Path, tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers")
    part = diffusers.UNet2DModel(
        sample_size=8, layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    whole = tmp_path / "whole"
    diffusers.DDPMPipeline(unet=part, scheduler=diffusers.DDPMScheduler()).save_pretrained(whole)
    weights = "diffusion_pytorch_model.safetensors"
    for other in ("unet/diffusion_pytorch_model.fp16.safetensors", "single.safetensors"):
        (whole / other).write_bytes((whole / "unet" / weights).read_bytes())
    hub.add("org/pipeline", whole)
    verdict, reason = step_files("org/pipeline")
    assert (verdict, sorted(brought(hub))) == (
        "good", sorted(["model_index.json", "config.json", "scheduler_config.json", weights]),
    ), reason  # fmt: skip
    assert "4 cached files have the hash of their name" in reason
    hub.down = True
    assert step_files("org/pipeline") == (verdict, reason)
