"""transformers PR#33317: Qwen2 in float16 gives NaN, because q.k overflows before it is scaled.

The pull request reports it for the real Qwen2-7B. Here the biases of the query and key projections are injected: q.k is
90,000 for every pair of tokens, beyond 65,504, the largest float16; scaled by 1 / sqrt(64) it is 11,250.
Expected: finite logits, since the scaled score is within float16. Bad: sdpa on torch up to 2.4.1, and eager everywhere.
Good: sdpa from torch 2.5.0, and bfloat16. Needs transformers with Qwen2 (4.37 or newer).

Exit status, as `git bisect run` reads it: 0 the fault is gone, 1 it is there, 125 it could not be asked here.
"""

import sys

LAYERS, HEADS, HEAD_SIZE, VOCABULARY, TOKENS = 1, 2, 64, 32, 6
HIDDEN = HEADS * HEAD_SIZE
# Rotary embeddings turn this channel of a head least of all, so a score injected there holds for every pair of tokens.
SLOW = HEAD_SIZE // 2 - 1


def build():
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": HEADS}
    model = Qwen2ForCausalLM(Qwen2Config(attn_implementation="sdpa", **sizes, **heads)).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() == 2:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=random))
            if name.endswith(("q_proj.bias", "k_proj.bias")):
                parameter.zero_()
                parameter[SLOW::HEAD_SIZE] = 300.0
    return model.half()


def main() -> int:
    import torch
    import transformers

    with torch.no_grad():
        logits = build()(input_ids=torch.arange(TOKENS)[None]).logits[0]
    bad = int((~torch.isfinite(logits)).any(dim=1).sum())
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}; expected: finite logits for {TOKENS} tokens; seen: NaN for {bad} of {TOKENS}")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception as error:  # noqa: BLE001 (a traceback exits with 1, which would pass for "bad")
        print("could not ask:", type(error).__name__, " ".join(str(error).split()))
        status = 125
    sys.exit(status)
