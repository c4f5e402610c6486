"""A script and the modules beside it as one text do what they do apart."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from repro.probes.listing.text.joined import CannotJoin, joined

PACKAGE = {
    "pkg": "from .a import f\n__all__ = ['f']\n",
    "pkg.a": '"""Words."""\nfrom __future__ import annotations\nfrom . import consts\nfrom .b import g as h\n\n\n'
    "def f(x: Foo) -> int:\n    return h(x) + consts.ONE\n",
    "pkg.b": "import math\nfrom pkg.consts import *\n\n\ndef g(x):\n    return math.floor(x) * TWO\n\n\n"
    'if __name__ == "__main__":\n    print("never")\n',
    "pkg.consts": "ONE, TWO = 1, 2\n",
}


def texts(script: str, modules: dict[str, str], folder: Path) -> tuple[str, str]:
    """What the script prints beside its modules, and what the joined one prints alone."""
    packages = {name for name in modules if any(other.startswith(name + ".") for other in modules)}
    for name, text in modules.items():
        path = folder / "there" / name.replace(".", "/")
        path = path / "__init__.py" if name in packages else path.with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "there" / "run.py").write_text(script)
    lines = joined(script, modules, frozenset(packages))
    (folder / "alone.py").write_text("\n".join(line for line, _ in lines))
    ran = [
        subprocess.run([sys.executable, *given], capture_output=True, text=True, check=False, cwd=folder)
        for given in (["there/run.py"], ["-I", "alone.py"])
    ]
    assert not ran[0].stderr, ran[0].stderr
    return ran[0].stdout, ran[1].stdout + ran[1].stderr


@pytest.mark.parametrize(
    "script",
    [
        "import pkg\nprint(pkg.f(2.5))\n",
        "from pkg import f\nprint(f(2.5))\n",
        "import pkg.a as a\nprint(a.f(2.5), a.consts.ONE)\n",
        "from pkg import a, b\nprint(a.f(1) + b.g(3))\n",
        "from pkg.b import g as other\nprint(other(4))\n",
        "import pkg.b\nimport math\nprint(pkg.b.g(4), math.pi)\n",
        "from pkg.consts import *\nprint(ONE + TWO)\n",
    ],
)
def test_it_prints_the_same(script: str, tmp_path: Path) -> None:
    apart, alone = texts(script, PACKAGE, tmp_path)
    assert apart == alone != ""


def test_each_line_knows_where_it_comes_from() -> None:
    lines = joined("from m import f\nprint(f())\n", {"m": "def f():\n    return 1\n"}, frozenset())
    assert ("    return 1", ("m", 2)) in lines
    assert ("print(f())", ("", 2)) in lines


@pytest.mark.parametrize(
    ("script", "modules", "says"),
    [
        ("import a, b\nprint(a.f())\n", {"a": "def f(): pass\n", "b": "def f(): return 1\n"}, "have the name f"),
        ("def m():\n    import a\n", {"a": "X = 1\n"}, "inside of a function"),
        ("import a\nprint(vars(a))\n", {"a": "X = 1\n"}, "used as an object"),
        ("import a\na.X = 2\n", {"a": "X = 1\n"}, "cannot be told"),
        ("import a\ndef f(X):\n    return X + a.X\n", {"a": "X = 1\n"}, "cannot be told"),
        ("import a\n", {"a": "X = __file__\n"}, "where it lies"),
        ("import a\n", {"a": "X = (\n"}, "no Python"),
        ("import a; print(a.X)\n", {"a": "X = 1\n"}, "several statements"),
        ("import a\n", {"a": "X = 1\n" * 5000}, "more than"),
    ],
)
def test_what_one_text_cannot_have_is_refused(script: str, modules: dict[str, str], says: str) -> None:
    with pytest.raises(CannotJoin, match=says):
        joined(script, modules, frozenset())
