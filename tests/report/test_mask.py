"""The one way out: what goes through it, that a script stays a script, and that nothing goes by it."""

import ast
import re
from pathlib import Path

import pytest

import repro
from repro.core.answer import Answer, CellInfo, ModelInfo
from repro.core.payloads import Environment
from repro.core.records import Case, Outcome
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask

ALICE = Mask(Private(home="/home/alice", user="alicia", secrets=("zebra crossing",)))
KEY = "-----{} RSA PRIVATE KEY-----".format("BEGIN")
COMMIT = "cf30153c4c131c8164ee7798e5022d810682e2cb"
ROOM = Path(repro.__file__).parent


@pytest.mark.parametrize(
    "script",
    [
        'import sys\nx = "by alicia"  # alicia\nsys.exit(1)\n',
        f'"""Found in {KEY}."""\nimport sys\nsys.exit(1)\n',
        f"# {KEY}\nimport sys\nx = 'alicia'\nsys.exit(1)\n",
        f"x = '''\n{KEY}\n'''\ny = b'{KEY}'\nz = f'{KEY} {{x}}'\nassert x\n",
        "def f(cookie: str, x='alicia'):\n    return cookie\n",
    ],
)
def test_a_masked_script_is_a_script(script):
    made = ALICE.script(script)
    ast.parse(made)
    assert "alicia" not in made
    assert KEY not in made
    assert made.rstrip().splitlines()[-1] == script.rstrip().splitlines()[-1]


def test_a_script_without_anything_private_stays_byte_for_byte():
    script = 'import torch\nkey = torch.tensor([65504.0], dtype=torch.float16)\nprint(f"expected 1.0, seen {key}")\n'
    assert ALICE.script(script) == script


def test_what_is_no_script_is_masked_as_a_text():
    assert ALICE.script("by alicia (") == "by USER ("


def test_a_file_is_masked_when_it_is_written(tmp_path):
    ALICE.write(tmp_path / "report.md", "by alicia with zebra crossing")
    assert (tmp_path / "report.md").read_text("utf-8") == "by USER with SECRET"


def answer(**more):
    cell, case = CellInfo(), Case("org/model")
    return Answer(verdict=Outcome.BAD, reason="r", model=ModelInfo(id="org/model"), cell=cell, case=case, **more)


def test_a_commit_that_the_answer_names_stays_and_another_key_does_not():
    mask = Mask.of(answer(environment=Environment(torch_git=COMMIT)), Private())
    other = COMMIT[::-1]
    assert mask.text(f"torch {COMMIT}, key {other}") == f"torch {COMMIT}, key TOKEN"


def test_a_host_with_the_name_of_its_card_leaves_the_card():
    environment = Environment(accelerators=[{"name": "NVIDIA Quagga-SXM"}])
    mask = Mask.of(answer(environment=environment), Private(host="quagga"))
    assert mask.text("NVIDIA Quagga-SXM on quagga") == "NVIDIA Quagga-SXM on HOST"


def test_nothing_outside_masks_by_itself_or_writes_what_is_handed_on():
    """Other rooms know the mask and what is private, and no part of how it works."""
    own = {"machine", "mask"}
    handed = re.compile(r"(?<!\.)\bwrite\([^\n]*(?:report|reproducer|HTML|BLOCKS_TITLE|OTHER)|write_text\([^\n]*report")
    for path in ROOM.rglob("*.py"):
        if "privacy" in path.parts or "probes" in path.parts:
            continue
        text = path.read_text("utf-8")
        assert set(re.findall(r"repro\.report\.privacy\.(\w+)", text)) <= own, path
        assert not handed.search(text), path


def strings_blanked(text):
    """A script's syntax tree with every text and every bytes in it made empty, those with values in braces too."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            node.value = type(node.value)()
        elif isinstance(node, ast.JoinedStr):
            node.values = []
    return ast.dump(tree)


SCRIPTS = sorted(path for name in ("repro", "tests", "examples") for path in (ROOM.parent / name).rglob("*.py"))


@pytest.mark.slow
def test_masking_changes_no_code_of_any_script_here():
    """Some of these name passwords, users, tokens and hosts, as the masking itself does."""
    changed = 0
    for path in SCRIPTS:
        text = path.read_text("utf-8")
        masked = ALICE.script(text)
        changed += masked != text
        assert strings_blanked(masked) == strings_blanked(text), path
    assert changed > 5


@pytest.mark.parametrize(
    "line",
    [
        "password = args.password",
        "pwd=some_name",
        "user = {'user': user_name}",
        "self.api_key_value = api_key_value",
        "hf_token = os.environ['HF_TOKEN']",
        "cached = config.thing.local",
        "connect(password=password_of(user), user=user)",
    ],
)
def test_code_that_names_a_secret_is_none(line):
    assert ALICE.script(f"x = 'ghp_{'a1B2' * 9}'\n{line}\n") == f"x = 'TOKEN'\n{line}\n"


def test_what_stands_in_a_string_behind_such_a_name_is_masked_beside_code_that_stays():
    text = "password = 'hunter2222'\npassword = args.password\nprint(f'password: {password}')\n"
    assert ALICE.script(text) == text.replace("hunter2222", "TOKEN")
