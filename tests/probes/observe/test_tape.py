"""The recording gives back every value as it was, and leaves the process as it was."""

import contextlib
import sysconfig
from pathlib import Path

import pytest
import torch
from support.handmade import ROOT, Function, Small, bytes_of, hooks_of, tape_of
from torch import nn

from repro import probes
from repro.probes.observe.source import source_line
from repro.probes.observe.tape import Tape, record
from repro.probes.observe.watch import Address, StopPass, Watch, watched


def taped(function, *values):
    return tape_of(Function(function), torch.tensor(values))


def op_named(tape, name, occurrence=0):
    return [op for op in tape.ops if op.base_name == name][occurrence]


def values(ref):
    return ref.tensor().tolist()


def written_by(tape, ref, index):
    """(operator, place in its output) of an element; None where it came from outside."""
    found = tape.writer(ref, index)
    return None if found is None else (found[0].address.op, found[2])


# --- values as they were -----------------------------------------------------------------------------------------


def test_values_before_and_after_a_write_in_place():
    tape = taped(lambda x: (x * 2).add_(1.0).mul_(3.0), 1.0, 2.0)
    add, multiply = op_named(tape, "add"), op_named(tape, "mul", 1)
    assert (values(add.inputs()[0]), values(add.outputs[0])) == ([2.0, 4.0], [3.0, 5.0])
    assert (values(multiply.inputs()[0]), values(multiply.outputs[0])) == ([3.0, 5.0], [9.0, 15.0])


def test_the_state_before_is_in_mutates():
    tape = taped(lambda x: (x * 2).add_(1.0), 1.0)
    assert [values(ref) for ref in op_named(tape, "add").mutates] == [[2.0]]


def test_a_write_through_a_slice():
    def function(x):
        y = x * 1
        y[1:] = 7.0
        return y + 0

    tape = taped(function, 1.0, 2.0, 3.0)
    assert values(op_named(tape, "mul").outputs[0]) == [1.0, 2.0, 3.0]
    assert values(op_named(tape, "add").inputs()[0]) == [1.0, 7.0, 7.0]


def test_a_view_taken_before_the_write_shows_the_write():
    def function(x):
        y = x * 1
        view = y[::2]
        y.neg_()
        return view + 0

    assert values(op_named(taped(function, 1.0, 2.0, 3.0), "add").inputs()[0]) == [-1.0, -3.0]


def test_a_transposed_view_keeps_its_strides():
    tape = tape_of(Function(lambda x: x.T + 0), torch.arange(6.0).reshape(2, 3))
    assert values(op_named(tape, "add").inputs()[0]) == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_an_expanded_view_is_not_copied_out():
    tape = taped(lambda x: x.expand(3, 2) + 0, 1.0, 2.0)
    ref = op_named(tape, "add").inputs()[0]
    assert ref.stride == (0, 1)
    assert values(ref) == [[1.0, 2.0]] * 3


def test_the_input_of_the_pass_is_had_as_it_was():
    given = torch.tensor([1.0, 2.0])
    tape = tape_of(Function(lambda x: x.mul_(10.0) + 0), given)
    assert given.tolist() == [10.0, 20.0]
    assert values(op_named(tape, "mul").inputs()[0]) == [1.0, 2.0]


def test_memory_that_is_let_go_is_not_taken_for_new_memory():
    """The allocator gives the same address again; the recording still has each value."""

    def function(x):
        for _ in range(50):
            y = x * 2
            del y
            x = x + 1
        return x

    tape = taped(function, 0.0)
    found = [values(op.outputs[0]) for op in tape.ops if op.base_name == "mul"]
    assert found == [[2.0 * n] for n in range(50)]


def test_three_writes_give_four_states():
    def function(x):
        y = torch.zeros(1)
        for n in range(3):
            y += n + 1
        return y

    tape = taped(function, 0.0)
    states = [values(op.inputs()[0]) for op in tape.ops if op.base_name == "add"]
    assert states == [[0.0], [1.0], [3.0]]
    assert values(tape.exit_refs[0]) == [6.0]


def test_an_output_argument_is_a_write():
    def function(x):
        y = torch.zeros(2)
        torch.mul(x, 3.0, out=y)
        return y + 0

    tape = taped(function, 1.0, 2.0)
    assert values(op_named(tape, "mul").mutates[0]) == [0.0, 0.0]
    assert tape.writer(op_named(tape, "add").inputs()[0], [1])[0].base_name == "mul"


# --- who wrote it ------------------------------------------------------------------------------------------------


def test_the_writer_of_an_element_of_a_view():
    tape = tape_of(Function(lambda x: (x * 1).T[1:] + 0), torch.arange(6.0).reshape(2, 3))
    assert written_by(tape, op_named(tape, "add").inputs()[0], [0, 1]) == ("aten.mul.Tensor", [1, 1])


def test_each_part_of_a_buffer_has_its_writer():
    def function(x):
        y = torch.empty(4)
        y[:2] = x * 2
        y[2:] = x + 5
        return y + 0

    tape = taped(function, 1.0, 2.0)
    ref = op_named(tape, "add", 1).inputs()[0]
    writers = [tape.writer(ref, [n]) for n in range(4)]
    assert [op.base_name for op, _, _ in writers] == ["copy"] * 4
    assert [place for _, _, place in writers] == [[0], [1], [0], [1]]
    assert len({op.index for op, _, _ in writers}) == 2


def test_a_strided_write_writes_only_its_elements():
    def function(x):
        y = x * 1
        y[1::2] = 0.5
        return y + 0

    tape = taped(function, 1.0, 2.0, 3.0, 4.0)
    ref = op_named(tape, "add").inputs()[0]
    assert [written_by(tape, ref, [n])[0].split(".")[1] for n in range(4)] == ["mul", "fill_", "mul", "fill_"]


def test_a_later_write_is_not_an_earlier_readers_writer():
    def function(x):
        y = x * 1
        early = y + 0
        y.zero_()
        return early + y

    tape = taped(function, 1.0)
    early = op_named(tape, "add").inputs()[0]
    late = op_named(tape, "add", 1).inputs()[1]
    assert written_by(tape, early, [0])[0] == "aten.mul.Tensor"
    assert written_by(tape, late, [0])[0] == "aten.zero_.default"


def test_what_was_there_before_has_no_writer():
    tape = taped(lambda x: x + 1, 1.0)
    assert written_by(tape, op_named(tape, "add").inputs()[0], [0]) is None


def test_an_expanded_elements_writer_is_that_of_its_memory():
    tape = tape_of(Function(lambda x: (x * 1).expand(2, 3) + 0), torch.ones(2, 1))
    assert written_by(tape, op_named(tape, "add").inputs()[0], [1, 2]) == ("aten.mul.Tensor", [1, 0])


def test_the_imaginary_part_of_a_complex_product_has_a_writer():
    def function(x):
        turned = torch.view_as_complex(x * 1) * torch.tensor(1j)
        return torch.view_as_real(turned) + 0

    tape = tape_of(Function(function), torch.tensor([[1.0, 2.0]]))
    ref = op_named(tape, "add").inputs()[0]
    assert [written_by(tape, ref, [0, part])[0] for part in (0, 1)] == ["aten.mul.Tensor"] * 2


# --- places of elements ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x[1:, ::2],
        lambda x: x.T,
        lambda x: x.permute(1, 0)[2:],
        lambda x: x[:, 3],
        lambda x: x[2, 3],
        lambda x: x.unfold(1, 2, 2),
        lambda x: x.double()[1:],
    ],
)
def test_bytes_and_indices_are_each_others_inverse(view):
    tensor = view(torch.arange(24.0).reshape(4, 6))
    ref = Tape().ref(tensor)
    memory = torch.tensor([], dtype=tensor.dtype).set_(tensor.untyped_storage())
    for flat in range(tensor.numel()):
        index = list(torch.unravel_index(torch.tensor(flat), tensor.shape)) if tensor.dim() else []
        index = [int(at) for at in index]
        byte = ref.byte_of(index)
        assert memory[byte // tensor.element_size()] == tensor[tuple(index)]
        assert ref.index_of(byte) == index


def test_a_byte_beside_the_view_is_in_no_element():
    whole = torch.arange(6.0).reshape(2, 3)
    ref = Tape().ref(whole[:, 1])
    assert [ref.index_of(4 * n) for n in range(6)] == [None, [0], None, None, [1], None]
    assert ref.index_of(5) is None


def test_an_empty_tensor_holds_no_byte():
    assert Tape().ref(torch.ones(3)[1:1]).index_of(4) is None


# --- source lines ------------------------------------------------------------------------------------------------


class Lines(Small):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(1, 1)

    def forward(self, input_ids):
        doubled = input_ids * 2
        return self.inner(doubled) + 1


def line_of(text):
    (number,) = (i for i, line in enumerate(Path(__file__).read_text().splitlines(), 1) if line.strip() == text)
    return f"{Path(__file__).name}:{number}"


def test_each_operator_names_this_files_line():
    tape = tape_of(Lines(), torch.ones(1, 1))
    assert op_named(tape, "mul").source == line_of("doubled = input_ids * 2")
    assert op_named(tape, "add").source == line_of("return self.inner(doubled) + 1")


def test_an_operator_of_pytorchs_module_names_the_line_that_called_it():
    assert op_named(tape_of(Lines(), torch.ones(1, 1)), "addmm").source == line_of("return self.inner(doubled) + 1")


def test_a_model_that_is_pytorchs_own_names_pytorchs_line():
    """The kit starts the pass, and no line of a model stands between it and PyTorch."""
    model = nn.Sequential(nn.Linear(1, 1))
    scope = {"model": model, "given": torch.ones(1, 1)}
    exec(compile("def run():\n    model(given)\n", str(Path(probes.__file__).with_name("any.py")), "exec"), scope)
    (source,) = {op.source for op in record(model, scope["run"], ROOT, ROOT).ops}
    assert source.startswith("linear.py:")


def test_a_library_whose_folder_begins_with_torch_is_not_pytorch():
    """torchvision and torchtune stand beside torch: their lines are the model's own."""
    path = str(Path(torch.__file__).parent) + "vision/layers.py"
    scope = {"source_line": source_line}
    exec(compile("def layer():\n    return source_line()\n", path, "exec"), scope)
    assert scope["layer"]() == "layers.py:2"


def test_a_library_beside_pytorch_is_the_models_own_code():
    path = str(Path(sysconfig.get_path("purelib")) / "somebody" / "layers.py")
    scope = {"source_line": source_line}
    exec(compile("def layer():\n    return source_line()\n", path, "exec"), scope)
    assert scope["layer"]() == "layers.py:2"


# --- the block that is recorded ----------------------------------------------------------------------------------


class Nested(Small):
    def __init__(self):
        super().__init__()
        self.first, self.second = Function(lambda x: x + 1), Function(lambda x: x * 2)

    def forward(self, input_ids):
        x = self.second(self.first(input_ids))
        return self.second(x).sqrt()


def test_only_the_wanted_call_is_recorded():
    model = Nested()
    tape = record(model, lambda: model(torch.ones(1)), ("second", 1), ("second", 1))
    assert [(op.address, values(op.outputs[0])) for op in tape.ops] == [
        (Address("second", 1, "aten.mul.Tensor", 0), [8.0])
    ]


def test_the_rest_of_the_pass_does_not_run():
    model, ran = Nested(), []
    model.register_forward_hook(lambda *_: ran.append(True))
    record(model, lambda: model(torch.ones(1)), ("first", 0), ("first", 0))
    assert ran == []


def test_operators_are_counted_by_module_and_call():
    tape = tape_of(Function(lambda x: x + 1 + 1 + 1), torch.ones(1))
    assert [op.address for op in tape.ops] == [Address("", 0, "aten.add.Tensor", n) for n in range(3)]


def test_a_call_that_never_comes_records_nothing():
    model = Nested()
    assert record(model, lambda: model(torch.ones(1)), ("second", 7), ("second", 7)).ops == []


class Falls(Small):
    """Its fast path raises, and the model goes on with another."""

    def __init__(self):
        super().__init__()
        self.fast, self.slow = Function(self.fail), Function(lambda x: x * 2)

    def fail(self, x):
        raise RuntimeError("no such kernel")

    def forward(self, input_ids):
        try:
            x = self.fast(input_ids)
        except RuntimeError:
            x = self.slow(input_ids)
        return x + 1


def test_a_child_that_raised_does_not_own_what_follows():
    tape = tape_of(Falls(), torch.ones(1))
    assert [(op.base_name, op.address.module) for op in tape.ops] == [("mul", "slow"), ("add", "")]


# --- what is left behind -----------------------------------------------------------------------------------------


def process_state():
    return (
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        dict(vars(nn.init)),
        nn.Module.register_parameter,
        nn.Module.__call__,
        torch.random.get_rng_state().tolist(),
    )


class Raises(Nested):
    def forward(self, input_ids):
        self.first(input_ids)
        raise ValueError("the model's own fault")


def test_hooks_are_gone_after_a_recording():
    model = Nested()
    before = hooks_of(model)
    tape_of(model, torch.ones(1))
    assert hooks_of(model) == before == [0, 0, 0]


def test_hooks_are_gone_when_the_forward_raises():
    model = Raises()
    with pytest.raises(ValueError, match="own fault"):
        tape_of(model, torch.ones(1))
    assert hooks_of(model) == [0, 0, 0]


def test_the_models_own_hooks_stay():
    model = Nested()
    model.first.register_forward_hook(lambda *_: None)
    tape_of(model, torch.ones(1))
    assert hooks_of(model) == [0, 1, 0]


def test_a_stop_ends_the_pass_quietly():
    model = Nested()

    def visit(call):
        raise StopPass

    with watched(model, Watch(visit)):
        model(torch.ones(1))
        pytest.fail("the pass went on")
    assert hooks_of(model) == [0, 0, 0]


def test_a_stop_is_not_swallowed_by_a_handler_of_the_model():
    class Swallows(Small):
        def forward(self, input_ids):
            try:
                return input_ids + 1
            except Exception:  # noqa: BLE001 - as broad as a model's handler may be
                pytest.fail("the model saw the stop")

    def visit(call):
        raise StopPass

    model = Swallows()
    with watched(model, Watch(visit)):
        model(torch.ones(1))


@pytest.mark.parametrize("model", [Nested(), Raises()], ids=["good", "raises"])
def test_nothing_else_of_the_process_changes(model):
    before = process_state()
    with contextlib.suppress(ValueError):
        tape_of(model, torch.ones(1))
    assert process_state() == before


def test_operators_after_the_recording_are_not_seen():
    model = Nested()
    tape = tape_of(model, torch.ones(1))
    seen = len(tape.ops)
    model(torch.ones(1))
    assert len(tape.ops) == seen


def test_the_recorded_pass_gives_the_plain_pass_numbers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
    given, found = torch.randn(3, 8), []
    record(model, lambda: found.append(model(given)), ROOT, ("no such module", 0))
    assert bytes_of(found[0]) == bytes_of(model(given))
