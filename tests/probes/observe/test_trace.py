"""The rows of a trace against passes whose operators are known, and the pass left as it is."""

import math
import textwrap
import threading

import pytest
import torch
import torch.nn.modules.module as modules
from support.handmade import INF, NAN, Function, Small, as_loaded, bytes_of, hooks_of, inputs_of
from torch import nn

from repro.probes.observe.watch import OUTSIDE, Names, StopPass, Watch, watched, watched_everywhere
from repro.probes.script.run import run_plainly
from repro.probes.steps import trace
from repro.probes.steps.trace import COLUMNS, Trace, figures_of, of_model, of_script
from repro.probes.values.figures import digest


def traced(run):
    """Rows as dictionaries, and the classes, of whatever `run` does."""
    found, names = Trace(), Names()
    with watched_everywhere(Watch(found.visit, OUTSIDE), names):
        run()
    return [dict(zip(COLUMNS, row, strict=True)) for row in found.rows], names.classes


def places(rows):
    return [(row["module"], row["call_index"], row["op"], row["occurrence"]) for row in rows]


def rows_of(payload):
    return [dict(zip(payload["columns"], row, strict=True)) for row in payload["rows"]]


def scripted(tmp_path, text):
    path = tmp_path / "case.py"
    path.write_text("import torch\nfrom torch import nn\n" + textwrap.dedent(text))
    verdict, reason, payload = of_script(str(path))
    return verdict, reason, payload


class Model(Small):
    def __init__(self):
        super().__init__()
        self.inner = Function(lambda x: x * 2)

    def forward(self, input_ids):
        return self.inner(self.inner(input_ids + 1)) - 3


# --- a model -----------------------------------------------------------------------------------------------------


def test_each_operator_of_a_model_is_a_row_in_order():
    verdict, _, payload = of_model(as_loaded(Model()), inputs_of(torch.ones(2)))
    assert places(rows_of(payload)) == [
        ("", 0, "aten.add.Tensor", 0),
        ("inner", 0, "aten.mul.Tensor", 0),
        ("inner", 1, "aten.mul.Tensor", 0),
        ("", 0, "aten.sub.Tensor", 0),
    ]
    assert (verdict, payload["root"], payload["rows_left_out"]) == ("good", "Model", 0)
    assert payload["classes"] == {"": "Model", "inner": "Function"}


def test_the_figures_of_a_row():
    _, _, payload = of_model(as_loaded(Model()), inputs_of(torch.tensor([1.0, 4.0])))
    row = rows_of(payload)[0]
    assert [row[key] for key in COLUMNS[5:-1]] == ["float32", [2], 2.0, 5.0, 0, 0]
    assert row["digest"] == digest(torch.tensor([2.0, 5.0]))
    assert row["source"].startswith("test_trace.py:")


def test_a_pass_that_is_bad_says_what_is():
    model = Function(lambda x: x / 0)
    verdict, reason, payload = of_model(as_loaded(model), inputs_of(torch.tensor([0.0, 1.0])))
    row = rows_of(payload)[0]
    assert (verdict, payload["verdict_inside"]) == ("bad", "bad")
    assert "1 NaN, 1 +inf among 2 values" in reason
    assert (row["nan"], row["inf"], math.isnan(row["min"])) == (1, 1, True)


def test_a_pass_that_raises_keeps_the_rows_so_far():
    def function(x):
        x = x + 1
        raise RuntimeError("\"addmm\" not implemented for 'Half'")

    verdict, reason, payload = of_model(as_loaded(Function(function)), inputs_of(torch.ones(1)))
    assert verdict == "skip"
    assert "no kernel for it here" in reason
    assert [row["op"] for row in rows_of(payload)] == ["aten.add.Tensor"]


def test_a_traced_pass_gives_the_plain_numbers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 8))
    given, found = torch.randn(3, 8), []
    state = torch.get_rng_state()
    traced(lambda: found.append(model(given)))
    torch.set_rng_state(state)
    assert bytes_of(found[0]) == bytes_of(model(given))


def test_gradients_are_as_without_a_trace():
    model, given = nn.Linear(4, 4), torch.randn(2, 4, requires_grad=True)
    traced(lambda: model(given).square().sum().backward())
    found, given.grad = given.grad, None
    model(given).square().sum().backward()
    assert bytes_of(found) == bytes_of(given.grad)


def test_the_fused_path_of_pytorchs_layers_is_taken():
    """It is left where a module has a hook of its own."""
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True).eval()
    with torch.no_grad():
        rows, _ = traced(lambda: layer(torch.randn(1, 3, 8)))
    assert "aten._transformer_encoder_layer_fwd.default" in [row["op"] for row in rows]


# --- figures -----------------------------------------------------------------------------------------------------


class Named:
    def __init__(self, name):
        self.name = name

    def __str__(self):
        return self.name


def figures(tensor, name="aten.add.Tensor"):
    return dict(zip(COLUMNS[5:], figures_of(tensor, Named(name)), strict=True))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, -2.0], [-2.0, 1.0, 0, 0]),
        ([1.0, NAN, INF, -INF], [1.0, 1.0, 1, 2]),
        ([], [None, None, 0, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_extremes_are_of_what_is_finite_and_the_rest_is_counted(values, expected, dtype):
    found = figures(torch.tensor(values, dtype=dtype))
    assert [found[key] for key in ("min", "max", "nan", "inf")] == expected


def test_whole_numbers_have_a_digest_and_no_extremes():
    found = figures(torch.tensor([1, 2]))
    assert (found["dtype"], found["min"], found["nan"]) == ("int64", None, None)
    assert found["digest"] == digest(torch.tensor([1, 2]))


def test_memory_that_nobody_wrote_has_no_figures():
    """What lies in it differs from run to run and means nothing."""
    found = figures(torch.empty(2), "aten.empty.memory_format")
    assert (found["shape"], found["digest"], found["nan"]) == ([2], None, None)


@pytest.mark.parametrize("tensor", [torch.empty(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"])
def test_what_cannot_be_read_has_no_figures(tensor):
    assert figures(tensor)["digest"] is None


def test_a_conjugate_is_read_as_it_stands():
    assert figures(torch.tensor([1 + 2j]).conj())["max"] == 1.0
    assert figures(torch.tensor([1 + 2j]).conj())["min"] == -2.0


def test_an_operator_without_tensors_is_a_row():
    rows, _ = traced(lambda: torch.ones(1).item())
    assert rows[-1]["op"] == "aten._local_scalar_dense.default"
    assert [rows[-1][key] for key in COLUMNS[5:]] == [None] * 7


def test_an_operator_that_only_writes_has_the_figures_of_what_it_wrote():
    values = [torch.ones(2), torch.ones(2)]
    rows, _ = traced(lambda: torch._foreach_add_(values, 3.0))
    assert (rows[-1]["op"], rows[-1]["min"]) == ("aten._foreach_add_.Scalar", 4.0)


def test_figures_are_no_rows_of_their_own():
    rows, _ = traced(lambda: torch.ones(2, dtype=torch.float16) + NAN)
    assert [row["op"] for row in rows] == ["aten.ones.default", "aten.add.Tensor"]


# --- names -------------------------------------------------------------------------------------------------------


def test_roots_are_counted_by_their_first_calls():
    first, second = Model(), Function(lambda x: x + 1)

    def run():
        for model in (first, second, first):
            model(torch.ones(1))

    rows, classes = traced(run)
    assert [place[:2] for place in places(rows) if place[2] == "aten.add.Tensor"] == [("", 0), ("root1", 0), ("", 1)]
    assert classes == {"": "Model", "inner": "Function", "root1": "Function"}


def test_a_child_of_a_later_root_is_named_below_it():
    _, classes = traced(lambda: (Function(lambda x: x)(torch.ones(1)), Model()(torch.ones(1))))
    assert classes == {"": "Function", "root1": "Model", "root1.inner": "Function"}


def test_operators_between_calls_are_no_modules():
    rows, _ = traced(lambda: Model()(torch.ones(1)))
    assert places(rows)[0] == ("", -1, "aten.ones.default", 0)


def test_a_module_made_during_a_call_is_named_by_caller_and_class():
    _, classes = traced(lambda: Function(lambda x: nn.ReLU()(x))(torch.ones(1)))
    assert classes == {"": "Function", "<ReLU>": "ReLU"}


def test_a_module_that_raised_does_not_own_what_follows():
    def fall(x):
        try:
            Function(lambda y: 1 // 0)(x)
        except ZeroDivisionError:
            return x + 1

    rows, _ = traced(lambda: Function(fall)(torch.ones(1)))
    assert places(rows)[-1] == ("", 0, "aten.add.Tensor", 0)


def test_without_a_hook_for_calls_that_raise_the_next_end_sets_it_right(monkeypatch):
    """So it is in torch 2.0."""
    monkeypatch.setattr("repro.probes.observe.watch.ALWAYS", {})

    def fall(x):
        try:
            Function(Function(lambda y: 1 // 0))(x)
        except ZeroDivisionError:
            return x

    falls = Function(fall)
    rows, _ = traced(lambda: Function(lambda x: falls(x) + 1)(torch.ones(1)))
    assert places(rows)[-1] == ("", 0, "aten.add.Tensor", 0)


def test_another_thread_does_not_disturb():
    import threading

    def run():
        other = threading.Thread(target=lambda: Model()(torch.ones(1)))
        other.start()
        other.join()
        Function(lambda x: x + 1)(torch.ones(1))

    rows, classes = traced(run)
    assert classes == {"": "Function"}
    assert [place[2] for place in places(rows)] == ["aten.ones.default", "aten.add.Tensor"]


# --- a script ----------------------------------------------------------------------------------------------------


def test_a_script_is_traced_whole(tmp_path):
    verdict, reason, payload = scripted(tmp_path, "x = torch.ones(2)\nnn.ReLU()(x)\nprint('done')\n")
    assert (verdict, reason) == ("good", "2 operators; done")
    assert places(rows_of(payload)) == [("", -1, "aten.ones.default", 0), ("", 0, "aten.relu.default", 0)]
    assert [row["source"] for row in rows_of(payload)] == ["case.py:3", "case.py:4"]
    assert (payload["root"], payload["classes"], payload["verdict_inside"]) == ("case.py", {"": "ReLU"}, "good")


@pytest.mark.parametrize(
    ("ending", "verdict"), [("raise SystemExit(1)", "bad"), ("raise ValueError('x')", "skip"), ("assert 0", "bad")]
)
def test_a_script_that_ends_otherwise_keeps_its_rows(tmp_path, ending, verdict):
    found, _, payload = scripted(tmp_path, f"x = torch.ones(2) + 1\n{ending}\n")
    assert (found, payload["verdict_inside"]) == (verdict, verdict)
    assert [row["op"] for row in rows_of(payload)] == ["aten.ones.default", "aten.add.Tensor"]


def test_a_default_device_of_the_script_does_not_move_the_figures(tmp_path):
    x = torch.ones(2)
    _, _, payload = scripted(tmp_path, "x = torch.ones(2)\ntorch.set_default_device('meta')\nx + 1\n")
    assert rows_of(payload)[-1]["digest"] == digest(x + 1)


def test_a_mode_of_the_script_does_not_see_the_figures(tmp_path):
    text = """
    from torch.overrides import TorchFunctionMode
    class Seen(TorchFunctionMode):
        names = []
        def __torch_function__(self, func, types, args=(), kwargs=None):
            self.names.append(func.__name__)
            return func(*args, **(kwargs or {}))
    x = torch.ones(2, requires_grad=True)
    y = x.sin().sum()
    with Seen():
        torch.autograd.backward(y)
    print(Seen.names)
    """
    path = tmp_path / "plain.py"
    path.write_text("import torch\n" + textwrap.dedent(text))
    assert scripted(tmp_path, text)[1].split("; ")[1] == run_plainly(str(path)).reason


def test_inference_mode_and_transforms_are_traced_too(tmp_path):
    text = """
    with torch.inference_mode():
        torch.ones(2) + 1
    torch.func.vmap(lambda x: x * 2)(torch.ones(3))
    """
    verdict, _, payload = scripted(tmp_path, text)
    assert verdict == "good"
    assert {"aten.add.Tensor", "aten.mul.Tensor"} <= {row["op"] for row in rows_of(payload)}


def test_a_long_trace_is_cut_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "ROWS", 3)
    _, reason, payload = scripted(tmp_path, "x = torch.ones(1)\nfor _ in range(9): x = x + 1\n")
    assert (len(payload["rows"]), payload["rows_left_out"]) == (3, 7)
    assert reason.startswith("3 operators, 7 more not recorded")


# --- what is left behind -----------------------------------------------------------------------------------------


def hooks():
    return [
        len(held)
        for name, held in sorted(vars(modules).items())
        if name.startswith("_global") and hasattr(held, "values")
    ]


@pytest.mark.parametrize("function", [lambda x: x, lambda x: 1 // 0])
def test_no_hook_is_left(function):
    before, model = hooks(), Function(function)
    of_model(as_loaded(model), inputs_of(torch.ones(1)))
    assert (hooks(), hooks_of(model)) == (before, [0])


def test_operators_afterwards_are_not_seen():
    found, names = Trace(), Names()
    with watched_everywhere(Watch(found.visit, OUTSIDE), names):
        pass
    Model()(torch.ones(1))
    assert (found.rows, names.classes) == ([], {})


def test_a_call_in_another_thread_is_none_of_the_pass_that_is_watched():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    watch, heard, ended = Watch(lambda call: call.run()), [], []

    def left(name, index, output):
        heard.append((name, index, threading.get_ident()))
        if name == "0":
            worker.start()
            worker.join()
        if name == "":
            raise StopPass

    def elsewhere():
        ended.append(tuple(model(torch.ones(1, 4)).shape))

    worker = threading.Thread(target=elsewhere)
    watch.left = left
    with watched(model, watch):
        model(torch.ones(2, 4))
    assert ended == [(1, 4)]
    assert heard == [(name, 0, threading.get_ident()) for name in ("0", "1", "")]
