"""Synthetic logs in the form of the Gemma write-up, with its figures."""

FAILED_12B = [f"Question: number {number} of those that fail?" for number in range(38)]
FAILED_27B = FAILED_12B[:19]
ROWS_12B = [31 + number % 7 for number in range(19)] + [21 + number for number in range(18)] + [41]
"""Token rows of each prompt; the first 19 fail in the 27B model too: 31 to 37 rows there, 21 to 41 here."""


def seed_lines(model, dtype, max_length, layer, failed, rows, width, total=100):
    """The lines of one job."""
    stamp = "2025-11-17 10:54:09,297"
    lines = [
        f"{stamp} | INFO | Loading model google/{model}",
        f"{stamp} | INFO | dtype: {dtype}, max_length: {max_length}",
        f"{stamp} | INFO | Loaded {total} CAA prompt pairs",
        f"{stamp} | INFO | Extracting activations from layer {layer}",
    ]
    for index, (text, tokens) in enumerate(zip(failed, rows, strict=True)):
        lines += [
            f"{stamp} | INFO | Processed batch {index}",
            f"{stamp} | ERROR | Invalid activations in batch example {index % 4}: NaN count={tokens * width}",
            f"{stamp} | ERROR | Problematic text: {text}",
            f"{stamp} | WARNING | Skipping index {index} due to NaN/Inf",
        ]
    return [*lines, f"{stamp} | INFO | Built vector bank with {total - len(failed)} samples"]


def write_seed_logs(folder):
    """The three logs of the write-up: 4B without a failure, 12B with 38, 27B with 19 of the same."""
    made = {
        "job_1067485_gemma3_4b_it_SUCCESS.err": seed_lines("gemma-3-4b-it", "bfloat16", 512, 16, [], [], 2560),
        "job_1067566_gemma3_12b_it_fp16.err": seed_lines(
            "gemma-3-12b-it", "float16", 384, 18, FAILED_12B, ROWS_12B, 3840
        ),
        "job_1067567_gemma3_27b_it_fp16.err": seed_lines(
            "gemma-3-27b-it", "float16", 384, 26, FAILED_27B, ROWS_12B[:19], 5376
        ),
    }
    for name, lines in made.items():
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / name for name in made]
