"""Logs as the programs of the field print them, with numbers of our own, and what they hold by a count of its own.

Each form writes one line for each step of a job in which the gradient norm is NaN from one step on and the loss from a
later one. What is printed is known here, so the truth comes from the writer and never from the reader.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

STEPS = range(100, 130, 2)
GRADIENT_FROM, LOSS_FROM = 116, 120
"""The first step at which each is NaN; beyond the last one in a sound job."""
NEVER = 1000


@dataclass(frozen=True)
class Form:
    """How one program prints a step: ``line`` gets the step, the loss and the norm as it prints them. ``norm`` and
    ``step`` say whether it prints the norm and the step at all, ``loss`` under which name it prints the loss."""

    line: Callable[[int, str, str], str]
    loss: str = "loss"
    norm: str | None = None
    step: str | None = "step"
    head: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    nan: str = "nan"
    number: Callable[[float], str] = "{:.4f}".format


FORMS = {
    "transformers 4": Form(
        lambda s, x, g: f"{{'loss': {x}, 'grad_norm': {g}, 'learning_rate': 4.9e-05, 'epoch': {s / 100}}}",
        norm="grad_norm",
        step="epoch",
    ),
    "transformers 5": Form(
        lambda s, x, g: f"{{'loss': '{x}', 'grad_norm': '{g}', 'learning_rate': '4.9e-05', 'epoch': '{s / 100}'}}",
        norm="grad_norm",
        step="epoch",
    ),
    "nanoGPT": Form(lambda s, x, _: f"iter {s}: loss {x}, time 98.12ms, mfu 3.10%"),
    "nanoGPT, evaluation": Form(lambda s, x, _: f"step {s}: train loss {x}, val loss 4.2017", "train loss"),
    "MLX": Form(
        lambda s, x, _: f"Iter {s}: Train loss {x}, Learning Rate 1.000e-05, It/sec 0.412, Tokens/sec 98.3",
        "Train loss",
        head=("Loading datasets", "Starting training..., iters: 600", "Iter 1: Val loss 2.913, Val took 31.002s"),
    ),
    "InsightFace": Form(
        lambda s, x, _: (
            f"Training: 2025-03-02 11:00:07,120-Speed 812.10 samples/sec   Loss {x}   LearningRate 0.0100   "
            f"Epoch: 0   Global Step: {s}   Fp16 Grad Scale: 16384   Required: 9 hours"
        ),
        "Loss",
    ),
    "fastai": Form(
        lambda s, x, _: f"{s:<9} {x:<11} 2.104433    0.301000  00:05",
        "train_loss",
        step="epoch",
        head=("epoch     train_loss  valid_loss  accuracy  time",),
    ),
    "Keras": Form(
        lambda s, x, _: f"Epoch {s}/200\n10/10 [======] - 1s 5ms/step - loss: {x} - accuracy: 0.1000", step="epoch"
    ),
    "Lightning, CSV": Form(lambda s, x, _: f"0,{s},{x}", "train_loss", head=("epoch,step,train_loss",)),
    "Lightning, bar": Form(
        lambda s, x, _: f"Epoch 3:  12%|#2        | {s}/1000 [00:20<02:10,  6.70it/s, v_num=4, train_loss={x}]",
        "train_loss",
    ),
    "Megatron-LM": Form(
        lambda s, x, g: (
            f" iteration {s:8}/    5000 | consumed samples: 9000 | learning rate: 1.0E-04 | lm loss: {x} | "
            f"loss scale: 1.0 | grad norm: {g} | number of skipped iterations:   0 | number of nan iterations:   0 |"
        ),
        "lm loss",
        "grad norm",
        number="{:.6E}".format,
        nan="NAN",
    ),
    "DeepSpeed": Form(
        lambda s, x, _: (
            f"[2025-03-02 11:00:07,120] [INFO] [logging.py:96:log_dist] [Rank 0] step={s}, skipped=3, lr=[0.0001]\n"
            f"steps: {s} loss: {x} iter time (s): 0.812 samples/sec: 19.70"
        )
    ),
    "Weights & Biases, history": Form(
        lambda s, x, g: json.dumps({"_step": s, "train/loss": x, "train/grad_norm": g, "_runtime": s * 2.5}),
        "train/loss",
        "train/grad_norm",
        nan="NaN",
    ),
    "JSON lines": Form(lambda s, x, g: f'{{"step": {s}, "loss": {x}, "gnorm": {g}}}', norm="gnorm", nan="NaN"),
    "trainer_state.json": Form(
        lambda s, x, g: (
            f'    {{\n      "epoch": 0.5,\n      "grad_norm": {g},\n      "loss": {x},\n      "step": {s}\n    }},'
        ),
        norm="grad_norm",
        head=("{", '  "global_step": 128,', '  "log_history": ['),
        tail=("  ]", "}"),
        nan="NaN",
    ),
    "llama.cpp": Form(
        lambda s, x, _: f"[{s}]{x},",
        "perplexity",
        step="chunk",
        head=("perplexity: calculating perplexity over 130 chunks, n_ctx=512",),
    ),
    "MMEngine": Form(
        lambda s, x, g: (
            f"2025/03/02 11:00:07 - mmengine - INFO - Epoch(train) [3][{s}/3000]  lr: 1.0e-03  eta: 4:11:02  "
            f"grad_norm: {g}  loss: {x}  loss_cls: 0.5120"
        ),
        norm="grad_norm",
        step=None,
    ),
    "MMDetection": Form(
        lambda s, x, g: (
            f"2025-03-02 11:00:07,120 - mmdet - INFO - Epoch [3][{s}/3000]\tlr: 1.0e-03, eta: 4:11:02, loss: {x}, "
            f"grad_norm: {g}"
        ),
        norm="grad_norm",
        step="batch",
    ),
    "Ultralytics": Form(
        lambda s, x, _: f"     {s}/200      2.51G     {x}     1.2210     0.9113         12        640: 100%|##| 10/10",
        "box_loss",
        step="epoch",
        head=("      Epoch    GPU_mem   box_loss   cls_loss   dfl_loss  Instances       Size",),
    ),
    "detectron2": Form(
        lambda s, x, _: (
            f"[03/02 11:00:07 d2.utils.events]: eta: 5:41:49  iter: {s}  total_loss: {x}  loss_cls: 1.184  lr: 0.0038"
        ),
        "total_loss",
    ),
    "fairseq": Form(
        lambda s, x, g: (
            f'2025-03-02 11:00:07 | INFO | train_inner | {{"epoch": 1, "update": 0.2, "loss": "{x}", "ppl": "9.1", '
            f'"num_updates": "{s}", "gnorm": "{g}"}}'
        ),
        norm="gnorm",
    ),
    "a progress bar": Form(lambda s, x, _: f"training:  12%|#2        | {s}/1000 [00:20<02:10,  6.70it/s, loss={x}]"),
    "a notebook": Form(lambda s, x, _: f"{s}\t{x}", "Training Loss", head=("Step\tTraining Loss",)),
    "torchtune": Form(
        lambda s, x, g: f"Step {s} | loss:{x} lr:2e-05 tokens_per_second:812 grad_norm:{g}", norm="grad_norm"
    ),
    "torchtitan": Form(
        lambda s, x, g: (
            f"[rank0]:2025-03-02 11:00:07,120 - root - INFO - step: {s}  loss: {x}  grad_norm: {g}  memory: 20.1GiB"
        ),
        norm="grad_norm",
    ),
    "loguru": Form(lambda s, x, _: f"2025-03-02 11:00:07.120 | INFO     | train:loop:81 - step {s} loss {x}"),
    "logfmt": Form(lambda s, x, g: f"ts=1741000000 level=info step={s} loss={x} grad_norm={g}", norm="grad_norm"),
    "kohya": Form(
        lambda s, x, _: f"steps:   4%|4         | {s}/3000 [01:10<28:11,  1.72it/s, avr_loss={x}]", "avr_loss"
    ),
    "a GAN": Form(lambda s, x, _: f"[Epoch 1/90] [Batch 3/400] iteration {s} [D loss: {x}] [G loss: 0.6931]", "D loss"),
    "PaddlePaddle": Form(
        lambda s, x, _: f"[2025-03-02 11:00:07,120] [    INFO] - global step {s}, batch: 7, loss: {x}"
    ),
    "JAX": Form(lambda s, x, _: f"I0302 11:00:07.120000 140 train.py:81] step={s} loss={x} tokens/s=812"),
    "a tensor": Form(lambda s, x, _: f"step {s}, loss = tensor({x}, device='cuda:0', grad_fn=<NllLossBackward0>)"),
    "in words": Form(lambda s, x, _: f"INFO:root:At step {s} the loss is {x}"),
    "Hugging Face Accelerate": Form(
        lambda s, x, _: f"03/02/2025 11:00:07 - INFO - __main__ - Step: {s}, train_loss: {x}", "train_loss"
    ),
    "a table with bars": Form(
        lambda s, x, g: f"| {s} | {x} | {g} |", norm="grad norm", head=("| step | loss | grad norm |",)
    ),
    "MaxText": Form(lambda s, x, _: f"completed step: {s}, seconds: 0.41, total_weights: 8192, loss: {x}"),
    "GPT-NeoX": Form(
        lambda s, x, _: f" iteration {s:8}/  320000 | lm_loss: {x} | loss scale: 4096.0 |",
        "lm_loss",
        nan="NaN",
    ),
    "Composer": Form(
        lambda s, x, _: f"[batch={s}/4800]:\n\t Train loss/train/total: {x}", "Train loss/train/total", step=None
    ),
    "Axolotl": Form(
        lambda s, x, g: f"{{'loss': {x}, 'grad_norm': {g}, 'ppl': 9.1, 'epoch': {s / 100}}}",
        norm="grad_norm",
        step="epoch",
    ),
    "Windows": Form(lambda s, x, _: f"step {s} loss={x}", nan="-nan(ind)"),
}


def written(form: Form, gradient_from: int = NEVER, loss_from: int = NEVER) -> str:
    """The log of a job."""
    lines = list(form.head)
    for step in STEPS:
        loss = form.nan if step >= loss_from else form.number(3.5 - step / 100)
        norm = form.nan if step >= gradient_from else form.number(1.5)
        lines.append(form.line(step, loss, norm))
    return "\n".join([*lines, *form.tail]) + "\n"


def counted(form: Form, gradient_from: int, loss_from: int) -> dict[str, int]:
    """On how many lines each name is NaN: the steps from which it is."""
    found = {form.loss: sum(step >= loss_from for step in STEPS)}
    if form.norm is not None:
        found[form.norm] = sum(step >= gradient_from for step in STEPS)
    return found
