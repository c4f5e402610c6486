"""transformers PR#31771, pytorch#191238: float32 weights at addresses that no float32 should have.

A safetensors file whose header is not padded, so that its data start one byte behind a multiple of 4, is valid.
from_pretrained used to copy its tensors; since PR#31771 it maps them, and they stay where the file has them.
On x86-64 the numbers are the same all the same; on arm64 macOS kernels have crashed on such weights (pytorch#191238).
Expected: every address is a multiple of the element's 4 bytes. Good: up to transformers 4.42.4. Bad: 4.43.0 to 4.45.2,
and from 4.51.1 on. In between GPT-2, though not Llama, was copied again; 4.51.0 does not load it without accelerate.

Exit status, as `git bisect run` reads it: 0 the fault is gone, 1 it is there, 125 it could not be asked here.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path


def write_unpadded(path, tensors):
    """Writes float32 tensors as a safetensors file whose data start one byte behind a multiple of 4."""
    header, data = {"__metadata__": {"format": "pt", "pad": ""}}, b""
    for name, tensor in tensors:
        start, values = len(data), tensor.flatten().tolist()
        data += struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, len(data)]}
    # In front of the data stand 8 bytes, which hold the header's length, and the header.
    header["__metadata__"]["pad"] = "x" * ((1 - len(json.dumps(header))) % 4)
    path.write_bytes(struct.pack("<Q", len(json.dumps(header))) + json.dumps(header).encode() + data)


def load(folder):
    """The model from such a file. Its dtype is left at the default, float32: naming one can make a copy."""
    from transformers import GPT2Config, GPT2Model

    model = GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=16, bos_token_id=0, eos_token_id=0))
    model.config.save_pretrained(folder)
    write_unpadded(Path(folder, "model.safetensors"), model.named_parameters())
    return GPT2Model.from_pretrained(folder)


def main() -> int:
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        # Only the addresses are kept: a model that still maps the file would hinder the folder's removal on Windows.
        addresses = [parameter.data_ptr() for parameter in load(folder).parameters()]
    bad = sum(address % 4 != 0 for address in addresses)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}; expected: 0 of {len(addresses)} parameters misaligned; seen: {bad} of {len(addresses)}")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception as error:  # noqa: BLE001 (a traceback exits with 1, which would pass for "bad")
        print("could not ask:", type(error).__name__, " ".join(str(error).split()))
        status = 125
    sys.exit(status)
