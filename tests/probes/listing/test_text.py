"""A script as a tree and back: the author's text where nothing was changed, the same program in any case."""

import ast
from pathlib import Path

import pytest

from repro.probes.listing.text.names import ids, unbound
from repro.probes.listing.text.tree import made, number_of, own_text, parsed, put, whose
from repro.probes.listing.text.written import WIDTH, code_lines, written

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "repro" / "engine").glob("*.py")])
TEXT = '''"""What it is about."""
import torch  # comments go


def f(x, y=(1,
            2)):
    # a comment
    return {'a': x,
            "b": y}


for n in range(3):  # three
    z = f(n); w = 'it"s'
if z: print(z)
'''


def without_texts(text):
    """The tree without positions."""
    return ast.dump(ast.parse(text))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("anew", [False, True], ids=["own text", "written anew"])
def test_the_text_of_a_tree_is_the_same_program(path, anew):
    text = path.read_text("utf-8")
    tree = parsed(text)
    for node in tree.statements() if anew else ():
        put(node, own=None)
    assert without_texts(written(tree).text) == without_texts(text)


def test_what_is_not_changed_stays_as_its_author_wrote_it():
    text = written(parsed(TEXT)).text
    assert "    return {'a': x,\n            \"b\": y}\n" in text
    assert "def f(x, y=(1,\n            2)):\n" in text
    assert "comment" not in text
    assert "    w = 'it\"s'\n" in text
    assert "if z:\n    print(z)\n" in text


def test_a_changed_statement_is_written_anew_and_the_others_are_not():
    tree = parsed("a = f( 1 )\nb = f( 2 )\n")
    number = next(node for node in ast.walk(tree.module) if isinstance(node, ast.Constant) and node.value == 2)
    changed = tree.changed({number_of(number): [made("3")[0].value]})
    assert written(changed).text == "a = f( 1 )\nb = f(3)\n"
    assert written(tree).text == "a = f( 1 )\nb = f( 2 )\n"


def test_a_text_over_several_lines_is_not_moved_to_another_column():
    tree = parsed('if a:\n    b = """one\n  two"""\n')
    (statement,) = tree.module.body
    opened = tree.changed({number_of(statement): statement.body})
    assert ast.literal_eval(written(opened).text.partition(" = ")[2]) == "one\n  two"


def test_each_line_says_which_statement_of_the_original_it_stands_for():
    tree = parsed(TEXT)
    places = written(tree).places
    lines = written(tree).text.split("\n")
    call = next(node for node in tree.statements() if isinstance(node, ast.Return))
    standing = [lines[row - 1].strip() for row, numbers in places.items() if numbers == whose(call)]
    assert standing == ["return {'a': x,", '"b": y}']


def test_long_new_lines_are_wrapped_and_quoted_as_most_people_do():
    names = ", ".join(f"argument_{number}='text {number}'" for number in range(12))
    tree = parsed(f"result = function({names})\n")
    put(tree.module.body[0], own=None)
    text = written(tree).text
    assert all(len(line) <= WIDTH for line in text.split("\n"))
    assert '"text 3"' in text
    assert without_texts(text) == without_texts(f"result = function({names})")


def test_lines_of_code_are_counted_without_docstring_comments_and_blank_lines():
    assert code_lines(TEXT) == 8


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x = y", {"y"}),
        ("import a.b as c\nc + a", {"a"}),
        ("from os import *\nx = y", set()),
        ("def f(a, *b, c=1, **d):\n    return a, b, c, d, len(b), f", set()),
        ("try:\n    pass\nexcept OSError as e:\n    print(e, __file__)", set()),
        ("[k for k in range(3)], (lambda q: q)", set()),
    ],
)
def test_names_that_nothing_binds(text, names):
    assert unbound(parsed(text)) == names


def test_a_tree_is_not_written_to():
    tree = parsed("a = 1\nb = 2\n")
    before = ast.dump(tree.module)
    first, second = tree.module.body
    shorter = tree.changed({number_of(first): ()})
    assert ast.dump(tree.module) == before
    assert shorter.module.body == [second]
    assert own_text(second) is not None


PAIR = {("mask_token_id", "pad_token_id")}


@pytest.mark.parametrize(
    ("text", "alike", "unlike"),
    [
        ("A(mask_token_id=1, pad_token_id=1)", PAIR, set()),
        ("A(mask_token_id=1, pad_token_id=2)", set(), PAIR),
        ("A(mask_token_id=1)\nB(pad_token_id=1)", set(), set()),
        ("A(mask_token_id=a, pad_token_id=a, width=1, depth=1)", set(), set()),
    ],
)
def test_special_tokens_of_one_id_are_told_from_others(text, alike, unlike):
    assert ids(parsed(text)) == (alike, unlike)
