"""Configuration of the custom-code model of the corpus."""

from transformers import PretrainedConfig


class InjectedConfig(PretrainedConfig):
    """Each field that is not a size chooses one habit of real custom code, sound or not. See modeling_injected.py."""

    model_type = "injected"

    def __init__(
        self,
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        norm="wide",
        mask="finite",
        gate="plain",
        positions="none",
        memory="plain",
        crash=None,
        crash_at="forward",
        crash_dtype=None,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.norm = norm
        self.mask = mask
        self.gate = gate
        self.positions = positions
        self.memory = memory
        self.crash = crash
        self.crash_at = crash_at
        self.crash_dtype = crash_dtype
        super().__init__(**kwargs)
