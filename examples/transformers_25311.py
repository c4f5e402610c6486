"""transformers#25311: Llama in float16 gives NaN for a sentence that is padded on the left.

A Llama of two layers with eager attention and random weights. All its tokens share one direction, which makes every
attention score about -40. A mask of -65504, the lowest float16, plus such a score is -inf: for a padding token that is
the whole row, and its softmax is NaN. The next layer carries the NaN into the real tokens: 0 x NaN is NaN.
Expected: finite logits for the real tokens. Bad: from transformers 4.31.0. Good: 4.30.2, which raised the scores back
to -65504 before the softmax. float32, bfloat16 and, where it exists, sdpa are good in all.

Exit status, as `git bisect run` reads it: 0 the fault is gone, 1 it is there, 125 it could not be asked here.
"""

import sys

LAYERS, HEADS, HEAD_SIZE, VOCABULARY, PADDING, REAL = 2, 2, 16, 32, 3, 4
HIDDEN = HEADS * HEAD_SIZE
# Rotary embeddings turn this channel of a head least of all, so a score injected there holds for every pair of tokens.
SLOW = HEAD_SIZE // 2 - 1


def build():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS}
    config = LlamaConfig(num_attention_heads=HEADS, pad_token_id=0, attn_implementation="eager", **sizes)
    model = LlamaForCausalLM(config).eval()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.dim() == 2:  # not the norms, which stay 1
                weight.copy_(0.02 * torch.randn(weight.shape, generator=random))
            if "embed" in name:
                weight[:, 0] = 1.0  # the shared direction: about sqrt(HIDDEN) behind the norm
            if "q_proj" in name or "k_proj" in name:
                weight[SLOW::HEAD_SIZE, 0] = 2.25 if "q_proj" in name else -2.25  # 32 x 2.25 x -2.25 / sqrt(16) = -40.5
    return model.half()


def main() -> int:
    import torch
    import transformers

    ids = torch.tensor([[0] * PADDING + list(range(5, 5 + REAL))])
    seeing = torch.tensor([[0] * PADDING + [1] * REAL])
    with torch.no_grad():
        logits = build()(input_ids=ids, attention_mask=seeing).logits[0, PADDING:]
    bad = int((~torch.isfinite(logits)).any(dim=1).sum())
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}; expected: finite logits for {REAL} real tokens; seen: NaN for {bad} of {REAL}")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception as error:  # noqa: BLE001 (a traceback exits with 1, which would pass for "bad")
        print("could not ask:", type(error).__name__, " ".join(str(error).split()))
        status = 125
    sys.exit(status)
