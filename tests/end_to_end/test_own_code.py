"""A model whose code comes with it (auto_map): its authors get a script that runs their own class."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from support.hosting import repro

MODELING = """
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class MineConfig(PretrainedConfig):
    model_type = "mine"

    def __init__(self, vocab_size=16, hidden_size=4, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**kwargs)


class MineNorm(nn.Module):
    def forward(self, x):
        x = x - x.mean(-1, keepdim=True)
        return x / x.pow(2).mean(-1, keepdim=True).sqrt()


class MineForCausalLM(PreTrainedModel):
    config_class = MineConfig

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.norm = MineNorm()
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, **kwargs):
        return CausalLMOutput(logits=self.head(self.norm(self.embed(input_ids))))
"""


@pytest.fixture
def mine(tmp_path):
    """Each token's embedding is one value throughout, so its variance is 0."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "modeling_mine.py").write_text(MODELING)
    names = {"AutoConfig": "MineConfig", "AutoModelForCausalLM": "MineForCausalLM"}
    config = {
        "model_type": "mine", "architectures": ["MineForCausalLM"], "vocab_size": 16, "hidden_size": 4,
        "auto_map": {auto: f"modeling_mine.{name}" for auto, name in names.items()},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    rows = torch.arange(16.0)[:, None].repeat(1, 4)
    save_file(
        {"embed.weight": rows, "head.weight": torch.ones(16, 4)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def test_its_authors_get_a_script_that_runs_their_class(mine, tmp_path):
    ran = repro(str(mine), "--trust-remote-code", "--out", str(tmp_path / "run"), cwd=tmp_path)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "run" / "verdict.json").read_text())
    assert (found["origin"]["module_class"], found["origin"]["code"]) == ("MineNorm", "transformers_modules")
    assert found["owner"]["project"] is None
    assert "the model's own code" in found["owner"]["reason"]
    script = found["reproducer"]
    assert (script["level"], script["verified"]) == ("model", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "home").mkdir()
    clean = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "run" / "reproducer.py"), str(mine)],
        cwd=tmp_path / "empty", capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert clean.returncode == 1
    assert "AssertionError" in clean.stderr
