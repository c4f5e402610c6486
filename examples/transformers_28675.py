"""transformers#28675: Swinv2 is built with NaN in a buffer, and its output is NaN.

The window of the last stage shrinks to one patch here, as it does for small images. The table of relative
coordinates is divided by the window's size minus one: 0 / 0, when the model is built and before anything is loaded.
Expected: finite buffers and a finite output. Bad: transformers up to 4.39.3. Good: from 4.40.0.

Exit status, as `git bisect run` reads it: 0 the fault is gone, 1 it is there, 125 it could not be asked here.
"""

import sys

PIXELS = 8


def main() -> int:
    import torch
    import transformers
    from transformers import Swinv2Config, Swinv2Model

    # 8 pixels are 2 x 2 patches of 4 pixels, and the second stage joins those to 1 x 1.
    config = Swinv2Config(image_size=PIXELS, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=2)
    torch.manual_seed(0)
    model = Swinv2Model(config).eval()
    buffers = [name for name, buffer in model.named_buffers() if not torch.isfinite(buffer).all()]
    with torch.no_grad():
        output = model(torch.linspace(-1, 1, 3 * PIXELS * PIXELS).reshape(1, 3, PIXELS, PIXELS)).last_hidden_state
    bad = int((~torch.isfinite(output)).sum())
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    seen = f"{bad} of {output.numel()} output numbers are NaN, buffers with NaN: {', '.join(buffers) or 'none'}"
    print(f"{versions}; expected: no NaN; seen: {seen}")
    return 1 if bad or buffers else 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception as error:  # noqa: BLE001 (a traceback exits with 1, which would pass for "bad")
        print("could not ask:", type(error).__name__, " ".join(str(error).split()))
        status = 125
    sys.exit(status)
