"""What a script is made smaller by: each change as text, before and after."""

import ast

import pytest

from repro.probes.listing.edits.data import options, replaced
from repro.probes.listing.edits.edit import parts
from repro.probes.listing.edits.endings import assertions, instead_of
from repro.probes.listing.edits.expressions import items, simpler
from repro.probes.listing.edits.folding import folded
from repro.probes.listing.edits.numbers import smaller_numbers
from repro.probes.listing.edits.parameters import defaults, unread
from repro.probes.listing.edits.statements import (
    called_once,
    drawn_anew,
    fewer_rounds,
    not_needed,
    not_run,
    opened,
    plain,
    removal,
    uncompiled,
)
from repro.probes.listing.edits.variables import inlined
from repro.probes.listing.text.tree import number_of, parsed, whose
from repro.probes.listing.text.written import written


def results(text, kind):
    """The texts that a kind of change makes of a text, each of the original."""
    tree = parsed(text)
    made = [edit.make(tree) for edit in kind(tree)]
    return [written(item).text.strip() for item in made if item is not None]


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (opened, "if a:\n    b\nelse:\n    c", "b"),
        (opened, "if a:\n    b\nelse:\n    c", "c"),
        (opened, "for i in range(9):\n    f(i)", "i = 0\nf(i)"),
        (opened, "for i in range(9):\n    f(i)", "f(i)"),
        (opened, "for x, y in loader:\n    f(x, y)\n    break", "(x, y) = next(iter(loader))\nf(x, y)"),
        (opened, "for i, x in enumerate((a, b)):\n    f(i, x)", "(i, x) = (1, b)\nf(i, x)"),
        (opened, "with f(a) as g:\n    b(g)", "g = f(a)\nb(g)"),
        (opened, "try:\n    a\nexcept E:\n    b\nfinally:\n    c", "a\nc"),
        (opened, "while a:\n    b()\n    continue", "b()"),
        (called_once, "def f(a, b=2):\n    return a + b\nx = f(1)", "a = 1\nb = 2\nx = a + b"),
        (
            called_once,
            "def main():\n    g()\nif __name__ == '__main__':\n    main()",
            "if __name__ == '__main__':\n    g()",
        ),
        (items, "f(1, a=2, b=3)", "f(1)"),
        (items, "f(1, a=2, b=3)", "f(1, a=2)"),
        (items, "f(1, a=2, b=3)", "f(a=2, b=3)"),
        (items, "x = [1, 2, 3, 4]", "x = [1, 2]"),
        (items, "x = {'a': 1, 'b': 2}", 'x = {"b": 2}'),
        (items, "from a import b, c", "from a import c"),
        (smaller_numbers, "f(768, 12, 3072)", "f(192, 3, 768)"),
        (smaller_numbers, "f(32, 32)", "f(1, 1)"),
        (smaller_numbers, "f(32, 32)", "f(32, 2)"),
        (simpler, "x = f(a) + b", "x = b"),
        (simpler, "x = torch.log(a.exp())", "x = torch.log(a)"),
        (inlined, "n = 4\nf(n, n)", "f(4, 4)"),
        (inlined, "n, m = 4, 5\nf(n, m)", "m = 5\nf(4, m)"),
        (inlined, "x = g(1)\nf(x)", "f(g(1))"),
        (plain, "def f(a: int) -> int:\n    return a", "def f(a):\n    return a"),
        (defaults, "def f(a, b=2):\n    return a + b", "def f(a):\n    return a + 2"),
        (defaults, "def f(a, *, b=(1, 2)):\n    return a + b", "def f(a):\n    return a + (1, 2)"),
        (inlined, "x = f(x)\nx = g(x)\nh(x)", "x = g(f(x))\nh(x)"),
        (unread, "def f(a, b):\n    return b\nf(1, 2)", "def f(b):\n    return b\nf(2)"),
        (
            unread,
            "class C:\n    def __init__(self, a=1):\n        pass\nC(a=3)",
            "class C:\n    def __init__(self):\n        pass\nC()",
        ),
        (plain, "a = 1\nif a:\n    import b\n    b.c()", "import b\na = 1\nif a:\n    b.c()"),
        (plain, "if a:\n    import b\n    b.c()", "import b\nif a:\n    b.c()"),
        (plain, "x: int = 3", "x = 3"),
        (plain, '"""doc"""\na', "a"),
        (
            folded,
            "a, b = [5, 6, 7], [8, 9, 10, 11]\nc = [1] * (len(b) - len(a)) + a",
            "a, b = [5, 6, 7], [8, 9, 10, 11]\nc = [1, 5, 6, 7]",
        ),
        (folded, "f([[0] * 2 + [1] * 3])", "f([[0, 0, 1, 1, 1]])"),
        (folded, "width = 4\nf(width * 3, 2)", "width = 4\nf(12, 2)"),
        (folded, "f(list(range(5)))", "f([0, 1, 2, 3, 4])"),
        (folded, "f(-(2 + 3) * 1.5)", "f(-7.5)"),
        (folded, "f(g(1 + 1))", "f(g(2))"),
        (plain, "@torch.no_grad()\ndef f():\n    a", "def f():\n    a"),
        (
            uncompiled,
            "@torch.compile(mode='a')\ndef f():\n    a\nn.compile()\ng = torch.compile(n, backend=b)\nre.compile(c)",
            "def f():\n    a\ng = n\nre.compile(c)",
        ),
    ],
)
def test_what_it_makes(kind, before, after):
    wanted = ast.dump(ast.parse(after))
    assert wanted in [ast.dump(ast.parse(text)) for text in results(before, kind)]


@pytest.mark.parametrize(
    ("kind", "before"),
    [
        (smaller_numbers, "torch.manual_seed(42)"),
        (items, "shutil.rmtree(folder, ignore_errors=True)"),
        (simpler, "os.remove(os.path.join(a, b))"),
        (items, "x = float(y)"),
        (simpler, "x = f('text')"),
        (called_once, "def f(a):\n    if a:\n        return 1\n    return 2\nx = f(1)"),
        (called_once, "def f(a):\n    return a\nx = f(1) + f(2)"),
        (inlined, "x = g()\nf(x, x)"),
        (defaults, "def f(a, b=g()):\n    return b"),
        (defaults, "def f(a=1):\n    a = 2"),
        (inlined, "x = 1\nx = 2\nf(x, x)"),
        (folded, "f([1] * 64)"),
        (folded, "f([1] * 10 ** 12)"),
        (folded, "f([1] * 999999999999)"),
        (folded, "n = 1\nn += 1\nf(n * 3)"),
        (folded, "a = [1]\na.append(2)\nf(a + a)"),
        (folded, "def f(n):\n    return n * 3"),
        (folded, "f(1 / 0, 1 // 3, x + 1, 'a' * 3, 1e308 * 10)".replace("1 // 3, ", "")),
        (folded, "x = [1, 2]\nf(-1, x)"),
    ],
)
def test_what_it_leaves_alone(kind, before):
    assert results(before, kind) == []


@pytest.mark.parametrize(("loop", "counts"), [("range(40)", (3, 5)), ("range(steps)", (7,)), ("range(4)", (9,))])
def test_a_loop_has_the_rounds_until_values_go_bad(loop, counts):
    text = f"for i in {loop}:\n    f(i)"
    made = results(text, lambda tree: fewer_rounds(tree, {whose(tree.module.body[0]): counts}))
    assert made == [f"for i in range({count}):\n    f(i)" for count in counts if loop != "range(4)"]


def test_an_empty_block_gets_a_pass():
    tree = parsed("def f():\n    a\n    b\n")
    inner = [number_of(node) for node in tree.module.body[0].body]
    assert written(removal(inner).make(tree)).text == "def f():\n    pass\n"


def test_what_does_not_run_goes_at_once():
    text = "def f():\n    a()\ndef g():\n    b()\nif c:\n    d()\nelse:\n    e()\ng()\n"
    tree = parsed(text)
    ran = [node for node in tree.statements() if ast.unparse(node) not in ("a()", "d()")]
    edit = not_run(tree, frozenset().union(*(whose(node) for node in ran)))
    assert written(edit.make(tree)).text.split() == ["def", "g():", "b()", "if", "c:", "pass", "else:", "e()", "g()"]


def test_what_feeds_nothing_goes_by_name():
    tree = parsed("import a\nx = a.one()\ny = a.two()\ny.change(x)\nz = 3\nprint(z)\nexit(y)\n")
    edit = not_needed(tree, whose(tree.module.body[-1]))
    assert written(edit.make(tree)).text == "import a\nx = a.one()\ny = a.two()\ny.change(x)\nexit(y)\n"


def test_parts_come_the_largest_first_and_from_the_end():
    assert list(parts([1, 2, 3], True)) == [(1, 2, 3), (2, 3), (1,), (3,), (2,), (1,)]
    assert list(parts([1], False)) == []


def test_an_assertion_stands_behind_what_binds_the_bad_value():
    tree = parsed("a = f()\nb = g(a)\nprint(b)\nsys.exit(1)\n")
    made = [edit.make(tree) for edit in assertions(tree, [(whose(tree.module.body[1]), "b", "NaN or Inf")])]
    texts = [written(item).text for item in made if item is not None]
    assert texts == ['a = f()\nb = g(a)\nassert b.isfinite().all(), "b has NaN or Inf"\n']


def test_an_assertion_in_a_function_ends_what_called_it():
    text = "def main():\n    for x in a:\n        y = f(x)\n        n += 1\n    return n\n"
    text += "if b:\n    z = main()\nprint(z)\n"
    tree = parsed(text)
    (inner,) = [node for node in tree.statements() if ast.unparse(node) == "y = f(x)"]
    first = next(iter(assertions(tree, [(whose(inner), "y", "NaN or Inf")])))
    shown = '        assert y.isfinite().all(), "y has NaN or Inf"\n'
    assert written(first.make(tree)).text == (
        f"def main():\n    for x in a:\n        y = f(x)\n{shown}\n\nif b:\n    z = main()\n"
    )


def test_an_assertion_stands_in_place_of_the_end_on_what_the_script_asks():
    tree = parsed("loss.backward()\nsys.exit(0 if torch.isfinite(net.weight.grad).all() else 1)\n")
    made = [edit.make(tree) for edit in assertions(tree, [])]
    texts = [written(item).text for item in made if item is not None]
    assert 'loss.backward()\nassert net.weight.grad.isfinite().all(), "net.weight.grad has NaN or Inf"\n' in texts


def test_what_a_mask_selects_from_is_not_asserted_on_nor_put_in_its_place():
    tree = parsed("y = f(x)\nkept = y[mask.bool()]\nlast = y[:, -1]\nsys.exit(int(kept.isnan().any()))\n")
    values = [(whose(tree.module.body[row]), name, "NaN") for row, name in ((0, "y"), (1, "kept"))]
    texts = [written(item).text for edit in assertions(tree, values) if (item := edit.make(tree)) is not None]
    assert any('assert not kept.isnan().any(), "kept has NaN"' in text for text in texts)
    assert not any("assert not y.isnan().any()" in text or "assert y." in text for text in texts)
    parts_of = [written(item).text for edit in simpler(tree) if (item := edit.make(tree)) is not None]
    assert any("last = y\n" in text for text in parts_of)
    assert not any("kept = y\n" in text for text in parts_of)


def test_the_end_may_ask_of_a_part():
    tree = parsed("y = f(x)\nsys.exit(int(torch.isnan(y[mask.bool()]).any()))\n")
    texts = [written(item).text for edit in assertions(tree, []) if (item := edit.make(tree)) is not None]
    assert 'y = f(x)\nassert y[mask.bool()].isfinite().all(), "y[mask.bool()] has NaN or Inf"\n' in texts


def test_data_become_tensors_of_their_shape_and_results_of_a_module_do_not():
    tree = parsed("import pandas\nframe = pandas.read_csv('a')\nx = torch.tensor(frame.values)\ny = net(x)\n")
    shapes = {(whose(tree.module.body[row]), name): ((3, 2), "torch.float64") for row, name in ((2, "x"), (3, "y"))}
    texts = [written(edit.make(tree)).text for edit in replaced(tree, shapes, frozenset(["net"]))]
    assert [text.split("\n")[2] for text in texts] == [
        f"x = torch.{fill}(3, 2, dtype=torch.float64)" for fill in ("randn", "ones", "zeros")
    ]


def test_what_is_made_of_a_tensor_is_no_data_any_more():
    tree = parsed("import numpy\nx = torch.tensor(numpy.load('a'))\ny = x.std()\n")
    shapes = {(whose(tree.module.body[row]), name): ((3,), "torch.float32") for row, name in ((1, "x"), (2, "y"))}
    texts = [written(edit.make(tree)).text for edit in replaced(tree, shapes, frozenset())]
    assert all("y = x.std()" in text for text in texts)
    assert len(texts) == 3


def test_parsed_arguments_become_their_values():
    tree = parsed("args = parse()\nf(args.width, args.name, args.other)\ndef g(args):\n    return args.width\n")
    (edit,) = options(tree, {"args": {"width": 4, "name": "a"}})
    assert ast.dump(ast.parse(written(edit.make(tree)).text)) == ast.dump(
        ast.parse("args = parse()\nf(4, 'a', args.other)\ndef g(args):\n    return 4\n")
    )


def test_an_exception_becomes_an_assertion():
    made = instead_of("RuntimeError").make(parsed("import torch\nx = f( 1 )\n"))
    assert written(made).text == (
        "import torch\ntry:\n    x = f( 1 )\nexcept RuntimeError as error:\n    assert False, error\n"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import torch\ntorch.manual_seed(7)\nn = torch.randn(2)\nx = torch.randn(1)\nf(x)\n",
         "import torch\ntorch.manual_seed(3)\nx = torch.randn(1)\nf(x)\n"),
        ("import torch\nn = torch.randn(2)\nx = torch.randn(1)\nf(x)\n",
         "import torch\ntorch.manual_seed(3)\nx = torch.randn(1)\nf(x)\n"),
    ],
)  # fmt: skip
def test_what_only_draws_goes_with_another_seed(before, after):
    tree = parsed(before)
    edit = drawn_anew(not_needed(tree, whose(tree.module.body[-1])), 3)
    assert ast.dump(ast.parse(written(edit.make(tree)).text)) == ast.dump(ast.parse(after))


def test_where_nothing_is_needless_nothing_is_drawn_anew():
    tree = parsed("import torch\nx = torch.randn(1)\nf(x)\n")
    assert drawn_anew(not_needed(tree, whose(tree.module.body[-1])), 3).make(tree) is None
