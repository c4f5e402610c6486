"""Checks each fault of the corpus with plain, slow torch: what the corpus says of a model is what the model does.

Nothing here uses the code under test. The oracle sees every module call and, inside the module that is to blame, every
operator; it knows where to look, which the code under test does not.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from corpus import families, files
from corpus.faults import BY_NAME, CHANNEL, FAULTS, FAULTY, FUSED, MARKER, POSITION, TOKEN, InjectedFault
from corpus.plain import finite, tensors
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers import logging as transformers_logging

RELEASE = int(transformers.__version__.split(".")[0])
Built = Callable[[InjectedFault], Path]

VIEWS = ("aten.t.", "aten.view.", "aten.detach.", "aten.transpose.", "aten.unsqueeze.", "aten.alias.")
LITERAL = ("aten.full", "aten.empty", "aten.new_empty", "aten.new_full", "aten.masked_fill", "aten.where", "aten.fill",
           "aten.scalar_tensor", "aten.triu", "aten.lift_fresh")  # fmt: skip
"""Operators that pass on a literal of the source, or memory that nobody wrote yet."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """No chatter."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    yield
    transformers_logging.set_verbosity(before)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Writes a fault's folder once for all tests, which leave it as it is."""
    root = tmp_path_factory.mktemp("corpus")

    def folder(fault: InjectedFault) -> Path:
        if not (root / fault.name).exists():
            fault.build(root / fault.name)
        return root / fault.name

    return folder


def load(folder: Path, fault: InjectedFault) -> PreTrainedModel:
    """The ordinary way: the class that the configuration names, or the custom code of the folder."""
    options: dict[str, Any] = {"dtype": getattr(torch, fault.dtype), "trust_remote_code": fault.trust_remote_code}
    if fault.attn:
        options["attn_implementation"] = fault.attn
    if fault.trust_remote_code:
        return AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    config = AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder, **options).eval()


def run(model: PreTrainedModel, ids: tuple[int, ...], **more: torch.Tensor) -> torch.Tensor:
    """The logits, or the last hidden state of a model without a head."""
    inputs = {"input_ids": torch.tensor([ids]), **more}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        return model(**inputs)[0]


def no_more_than_masked(value: object) -> bool:
    return not any(bool(tensor.isnan().any() or (tensor == math.inf).any()) for tensor in tensors(value))


@dataclasses.dataclass
class Call:
    """One operator call that turned finite inputs, or inputs with bad weights, into a bad output."""

    op: str
    finite_inputs: bool
    inputs: list[torch.Tensor]
    output: torch.Tensor
    wide: torch.Tensor
    """What float64 makes of the same inputs."""


class Operators(TorchDispatchMode):
    """Keeps the operator calls with a bad output, in order, while `running` ends with the module that is to blame.

    What its children compute is their own: where their output is sound, a bad value inside did no harm. GELU by tanh
    does so: x ** 3 overflows, and tanh of infinity is 1.
    """

    def __init__(self, running: list[str]) -> None:
        super().__init__()
        self.running, self.blamed = running, running[-1]
        self.bad: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [tensor.clone() for tensor in tensors((args, kwargs or {}))]
        widened = [arg.double() if isinstance(arg, torch.Tensor) and arg.is_floating_point() else arg for arg in args]
        output = func(*args, **(kwargs or {}))
        own = self.running[-1] == self.blamed
        if own and not str(func).startswith((*LITERAL, *VIEWS)) and not finite(output):
            options = {**(kwargs or {}), **({"dtype": torch.float64} if "dtype" in (kwargs or {}) else {})}
            wide = next(tensors(func(*widened, **options)))
            worst = next(tensor for tensor in tensors(output) if not finite(tensor))
            self.bad.append(Call(str(func), finite(inputs), inputs, worst.clone(), wide))
        return output


@dataclasses.dataclass
class Sight:
    """What a run under watch showed."""

    output: torch.Tensor
    first_bad_module: str | None = None
    bad_modules: list[str] = dataclasses.field(default_factory=list)
    calls: list[Call] = dataclasses.field(default_factory=list)


def watch(model: PreTrainedModel, fault: InjectedFault) -> Sight:
    """One run: the modules with a bad output in the order in which they end, and the blamed module's operators.

    The first module to blame is the first to end that makes a bad output of sound inputs: its own children have either
    a sound output or a bad input. Where the fault has a mask that is -inf on purpose, -inf alone makes no input bad.
    """
    sight = Sight(torch.empty(0))
    sound_input = no_more_than_masked if fault.truth.ruled_out_modules else finite
    modes: list[Operators] = []
    handles = []

    running: list[str] = []

    def before(name: str) -> Any:
        return lambda module, args: running.append(name)

    def after(name: str) -> Any:
        def hook(module: object, args: object, kwargs: object, output: object) -> None:
            running.pop()
            if finite(output):
                return
            sight.bad_modules.append(name)
            if sight.first_bad_module is None and name not in fault.truth.ruled_out_modules:
                sight.first_bad_module = name if sound_input((args, kwargs)) else None

        return hook

    def enter(module: object, args: object) -> None:
        modes.append(Operators(running))
        modes[-1].__enter__()

    def leave(module: object, args: object, output: object) -> None:
        modes[-1].__exit__(None, None, None)

    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(before(name)))
        if name in (fault.truth.module, *fault.truth.also_module):
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        handles.append(module.register_forward_hook(after(name), with_kwargs=True))
    try:
        sight.output = run(model, fault.ids)
    finally:
        for handle in handles:
            handle.remove()
    sight.calls = [call for mode in modes for call in mode.bad]
    return sight


def saturates(call: Call, dtype: torch.dtype) -> bool:
    """Overflow: exactly where float64 is finite and beyond the dtype's limit, the output is infinite, and never NaN."""
    beyond = call.wide.isfinite() & (call.wide.abs() > torch.finfo(dtype).max)
    return call.output.dtype == dtype and torch.equal(beyond, call.output.isinf()) and not call.output.isnan().any()


def check_operator(fault: InjectedFault, sight: Sight) -> None:
    truth = fault.truth
    assert sight.calls, "no operator of the blamed module has a bad output"
    if truth.mechanism == "bad_weights":
        call = sight.calls[0]
        assert not call.finite_inputs
    elif truth.mechanism == "masked_row":
        call = next(c for c in sight.calls if c.op.startswith("aten._softmax"))
        rows = (call.inputs[0] == -math.inf).all(-1)
        assert torch.equal(rows, call.output.isnan().all(-1))
        assert rows[..., truth.token_index].all()
        assert rows.sum() == rows[..., truth.token_index].sum()
        return
    else:
        call = next(c for c in sight.calls if c.finite_inputs)
        assert call is sight.calls[0] or truth.ruled_out_modules
    assert truth.op is not None
    assert call.op.startswith(truth.op + "."), call.op
    if truth.mechanism == "overflow":
        assert saturates(call, getattr(torch, fault.dtype))
    if truth.mechanism == "divide_by_zero":
        assert (call.output == math.inf).any()
        assert (call.inputs[0] == 0).any()
    if truth.mechanism == "invalid":
        assert call.output.isnan().any()
    places = (~call.output.isfinite()).nonzero()
    width = len(families.DEFAULT_IDS) if fault.prompt is None else len(fault.ids)
    if truth.token_index is not None:
        axis = call.output.dim() - 2
        assert call.output.shape[axis] == width
        assert set(places[:, axis].tolist()) == {truth.token_index}
    if truth.channel_index is not None:
        assert set(places[:, -1].tolist()) == {truth.channel_index}


RUNS = [p for p in FAULTS if p.truth.loads and p.truth.kind != "crash" and p.truth.mechanism != "unset_memory"]


@pytest.mark.parametrize("fault", RUNS, ids=lambda fault: fault.name)
def test_the_model_does_what_its_truth_says(fault: InjectedFault, built: Built) -> None:
    model = load(built(fault), fault)
    sight = watch(model, fault)
    numbers_go_wrong = fault.truth.module is not None
    assert finite(sight.output) != numbers_go_wrong
    assert set(fault.truth.ruled_out_modules) <= set(sight.bad_modules)
    assert sight.first_bad_module in (fault.truth.module, *fault.truth.also_module)
    if numbers_go_wrong:
        check_operator(fault, sight)


@pytest.mark.parametrize(
    "fault", [p for p in FAULTS if p.truth.workarounds and p.truth.loads], ids=lambda fault: fault.name
)
def test_the_workarounds_work(fault: InjectedFault, built: Built) -> None:
    workarounds = [name for name in fault.truth.workarounds if RELEASE >= 5 or fault.family != "t5" or name != FUSED]
    for change in workarounds:  # release 4 has no fused attention for T5
        name, _, value = change.partition("=")
        changed = dataclasses.replace(fault, **{name: value}) if value else fault
        ids = fault.ids[1:] if change == "no_first_special_token" else fault.ids
        assert finite(run(load(built(fault), changed), ids)), change


@pytest.mark.parametrize("fault", [p for p in FAULTS if p.sound_prompt], ids=lambda fault: fault.name)
def test_another_prompt_is_good(fault: InjectedFault, built: Built) -> None:
    assert fault.sound_prompt is not None
    assert finite(run(load(built(fault), fault), families.prompt_ids(fault.sound_prompt)))


@pytest.mark.parametrize("fault", [p for p in FAULTS if p.truth.tensor_index is not None], ids=lambda fault: fault.name)
def test_the_bad_weight_is_in_the_file(fault: InjectedFault, built: Built) -> None:
    stored = {name: (~t.isfinite()).nonzero().tolist() for name, t in files.read(built(fault) / files.WEIGHTS).items()}
    bad = {name: places for name, places in stored.items() if places}
    assert fault.truth.tensor_index is not None
    assert len(bad) == 1
    (name, places) = bad.popitem()
    assert name in (fault.truth.tensor, *fault.truth.also_tensor)
    assert places == [list(fault.truth.tensor_index)]


@pytest.mark.parametrize("fault", [p for p in FAULTS if p.truth.kind != "weights"], ids=lambda fault: fault.name)
def test_no_other_file_has_a_bad_weight(fault: InjectedFault, built: Built) -> None:
    """And none has a weight that float16 cannot hold: what overflows is computed, never stored."""
    for path in built(fault).glob("*.safetensors"):
        if fault.fault != "truncated":
            for name, tensor in files.read(path).items():
                assert tensor.abs().max() < 65504, name


def test_every_fault_has_a_sound_twin() -> None:
    for fault in FAULTY:
        twin = BY_NAME[str(fault.twin)]
        assert twin.truth.verdict == "good"
        assert twin.twin is None
        assert (twin.family, twin.trust_remote_code) == (fault.family, fault.trust_remote_code)
        if fault.truth.kind == "nonfinite" or fault.truth.tensor_index:
            assert (twin.dtype, twin.attn, twin.prompt) == (fault.dtype, fault.attn, fault.prompt)


def test_names_are_unique_and_every_truth_is_whole() -> None:
    assert len(BY_NAME) == len(FAULTS)
    for fault in FAULTY:
        if fault.truth.kind in ("nonfinite", "weights"):
            assert None not in (fault.truth.module, fault.truth.op, fault.truth.mechanism)


@pytest.mark.parametrize("family", [*families.FAMILIES, "bert_plain", "t5_gated"])
def test_a_build_is_repeatable_and_leaves_the_generator_alone(family: str) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = (families.build(family).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_token_with_the_fault_is_in_the_default_ids_once() -> None:
    drawn = torch.randint(0, families.VOCAB, (1, families.LENGTH), generator=torch.Generator().manual_seed(0))
    assert drawn.tolist() == [list(families.DEFAULT_IDS)]
    assert [i for i, token in enumerate(families.DEFAULT_IDS) if token == TOKEN] == [POSITION]
    assert 0 <= CHANNEL < families.HIDDEN


@pytest.mark.parametrize("fault", [p for p in FAULTS if p.prompt], ids=lambda fault: fault.name)
def test_the_tokenizer_gives_the_ids(fault: InjectedFault, built: Built) -> None:
    tokenizer = AutoTokenizer.from_pretrained(built(fault))
    ids = tokenizer(fault.prompt)["input_ids"]
    assert tuple(ids) == fault.ids
    assert tokenizer.bos_token_id == ids[0]
    assert tokenizer.convert_ids_to_tokens(ids)[0] == "<bos>"


@pytest.mark.parametrize("family", families.FAMILIES)
def test_no_family_squares_in_float16(family: str) -> None:
    """Why an overflow in a norm's square is injected in custom code only: every norm keeps its squares in float32."""
    model = families.build(family).half()
    norms = [module for _, module in model.named_modules() if "Norm" in type(module).__name__]
    loud = torch.linspace(-60000, 60000, families.HIDDEN).half()[None]
    assert norms
    assert not (loud * loud).isfinite().all()
    with torch.no_grad():
        assert all(finite(norm(loud[:, : norm.weight.shape[0]])) for norm in norms)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("family", families.FAMILIES)
def test_no_family_makes_nan_of_a_masked_row(family: str, attention: str) -> None:
    """Why a fully masked row is injected in custom code only. The padding is on the left; its own rows see nothing."""
    if RELEASE < 5 and family == "t5" and attention == "sdpa":
        pytest.skip("transformers 4 has no fused attention for T5")
    model = families.build(family)
    model.set_attn_implementation(attention)
    mask = torch.tensor([[0, 0, 0, *([1] * (len(families.DEFAULT_IDS) - 3))]])
    assert finite(run(model, families.DEFAULT_IDS, attention_mask=mask))


def test_the_readme_names_every_fault() -> None:
    text = (Path(__file__).parents[1] / "corpus" / "README.md").read_text(encoding="utf-8")
    assert [fault for fault in sorted({fault.fault for fault in FAULTS}) if f"`{fault}`" not in text] == []


# --- files -------------------------------------------------------------------------------------------------------

BROKEN = [p for p in FAULTS if not p.truth.loads and p.truth.kind != "crash"]


@pytest.mark.parametrize("fault", BROKEN, ids=lambda fault: fault.name)
def test_a_broken_folder_does_not_load(fault: InjectedFault, built: Built) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - each release of each library has its own type
        load(built(fault), fault)
    assert not isinstance(caught.value, (TypeError, AttributeError)), "the test's own mistake"
    assert not (built(fault) / MARKER).exists()


def test_the_pickle_would_run_code(tmp_path: Path) -> None:
    """The injected pickle is a real one: an unpickler that trusts it runs the code."""
    BY_NAME["gpt2-pickle-runs-code"].build(tmp_path)
    assert not (tmp_path / MARKER).exists()
    torch.load(tmp_path / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / MARKER).exists()


@pytest.mark.parametrize("fault", [p for p in FAULTS if p.truth.missing_keys], ids=lambda fault: fault.name)
def test_the_key_is_missing_from_the_file(fault: InjectedFault, built: Built) -> None:
    whole, stored = (set(files.read(built(p) / files.WEIGHTS)) for p in (BY_NAME[str(fault.twin)], fault))
    assert whole - stored == set(fault.truth.missing_keys)
    assert stored - whole == set(fault.truth.unexpected_keys)


@pytest.mark.parametrize("fault", [p for p in FAULTS if p.truth.misaligned], ids=lambda fault: fault.name)
def test_the_file_is_misaligned_and_its_values_are_the_same(fault: InjectedFault, built: Built) -> None:
    folders = built(BY_NAME[str(fault.twin)]), built(fault)
    assert [files.data_start(folder / files.WEIGHTS) % 4 for folder in folders] == [0, 2]
    twin, model = (load(folder, fault) for folder in folders)
    assert all(p.data_ptr() % 4 == 2 for p in model.parameters())
    assert all(p.data_ptr() % 4 == 0 for p in twin.parameters())
    torch.testing.assert_close(run(model, fault.ids), run(twin, fault.ids))


def test_hand_written_files_are_what_the_library_reads(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    given = {"a": torch.randn(3, 5), "b": torch.ones(2).bfloat16(), "c": torch.arange(4), "d": torch.ones(())}
    for start in (0, 2, 6):
        files.write(tmp_path / "x.safetensors", given, data_start_mod_8=start)
        assert files.data_start(tmp_path / "x.safetensors") % 8 == start
        for read in (load_file(tmp_path / "x.safetensors"), files.read(tmp_path / "x.safetensors")):
            assert read.keys() == given.keys()
            assert all(torch.equal(read[name], given[name]) for name in given)


def test_a_change_of_a_tensor_that_is_not_there_is_refused(tmp_path: Path) -> None:
    families.build("gpt2").save_pretrained(tmp_path)
    with pytest.raises(KeyError, match="nonsense is not in"):
        files.change(tmp_path, drop=("nonsense",))


# --- unset memory, uninitialised memory, crashes -----------------------------------------------------------------


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Memory that nobody wrote yet is NaN. Source: torch.utils.deterministic.fill_uninitialized_memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = torch.utils.deterministic.fill_uninitialized_memory
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        yield
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before


@pytest.mark.parametrize(("name", "unset"), [
    ("custom-unset-buffer", True), ("custom-restored-buffer", False), ("custom-persistent-buffer", False),
])  # fmt: skip
def test_only_the_injected_buffer_is_unset(name: str, unset: bool, built: Built, poisoned_memory: None) -> None:
    from corpus.custom.modeling_injected import position_table

    fault = BY_NAME[name]
    assert (fault.truth.mechanism == "unset_memory") == unset
    unset &= RELEASE >= 5
    model = load(built(fault), fault)
    assert bool(model.positions.table.isnan().all()) == unset
    if not unset:
        torch.testing.assert_close(model.positions.table, position_table(model.config))
    assert finite(run(model, fault.ids)) != unset


def test_overwritten_memory_does_no_harm(built: Built, poisoned_memory: None) -> None:
    fault = BY_NAME["custom-empty-overwritten"]
    model = load(built(fault), fault)
    seen: list[bool] = []

    class Empty(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            if str(func).startswith("aten.empty.memory_format"):
                seen.append(bool(output.isnan().all()))
            return output

    with Empty():
        output = run(model, fault.ids)
    assert seen
    assert all(seen)
    assert finite(output)


@pytest.mark.parametrize("fault", [p for p in FAULTS if p.truth.kind == "crash"], ids=lambda fault: fault.name)
def test_the_process_dies_of_the_signal(fault: InjectedFault, built: Built) -> None:
    model = load(built(fault), fault) if fault.truth.loads else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of a fork beside threads; the child dies at once
        child = os.fork()
    if child == 0:  # faulthandler's lines would only clutter the test's output
        import faulthandler

        faulthandler.disable()
        try:
            run(model or load(built(fault), fault), fault.ids)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert signal.Signals(os.WTERMSIG(status)).name == fault.truth.signal


@pytest.mark.parametrize("name", ["gpt2-mlp-overflow", "t5_gated-mlp-overflow"])
def test_the_cube_in_a_gelu_is_an_ruled_out_overflow(name: str, built: Built) -> None:
    twin = BY_NAME[str(BY_NAME[name].twin)]
    seen: list[str] = []

    class Cubes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            output = func(*args, **(kwargs or {}))
            if not finite(output) and finite(args):
                seen.append(str(func))
            return output

    model = load(built(twin), twin)
    with Cubes():
        output = run(model, twin.ids)
    assert "aten.pow.Tensor_Scalar" in seen
    assert finite(output)


def test_the_corpus_needs_no_kit() -> None:
    """The truth must not come from the code under test."""
    for path in [Path(__file__), *(Path(__file__).parents[1] / "corpus").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not [name for name in names if name.split(".")[0] == "repro"], path
