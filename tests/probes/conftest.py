"""Tiny checkpoints of the six families, written once."""

from pathlib import Path

import pytest
from corpus import families


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family, in float32, each with the same tiny tokenizer. Not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")
    for family in families.FAMILIES:
        families.build(family).save_pretrained(root / family)
    families.write_tokenizer(root / "llama")
    return {family: root / family for family in families.FAMILIES}
