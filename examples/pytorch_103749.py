"""pytorch#103749: attention gives NaN for a query that may see no key.

Needs torch alone. `scaled_dot_product_attention` gets a bool mask in which one row is False throughout, as padding
makes it. Expected: finite numbers everywhere, and zeros for that query, since it sees nothing.
Bad: torch 2.0.1 to 2.4.1. Good: from torch 2.5.0.

Exit status, as `git bisect run` reads it: 0 the fault is gone, 1 it is there, 125 it could not be asked here.
"""

import sys

TOKENS, CHANNELS, BLIND = 4, 8, 2


def main() -> int:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    tokens = torch.linspace(-1, 1, TOKENS * CHANNELS).reshape(1, 1, TOKENS, CHANNELS)
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[BLIND] = False
    output = scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask)[0, 0]
    rows = (~torch.isfinite(output)).any(dim=1).nonzero().flatten().tolist()
    seen = f"NaN in rows {rows}" if rows else f"none, and row {BLIND} is {output[BLIND].tolist()}"
    print(f"torch {torch.__version__}; expected: no NaN; seen: {seen}")
    return 1 if rows else 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception as error:  # noqa: BLE001 (a traceback exits with 1, which would pass for "bad")
        print("could not ask:", type(error).__name__, " ".join(str(error).split()))
        status = 125
    sys.exit(status)
