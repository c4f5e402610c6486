"""Log patterns are data: each example is read as it says, and wrong data is refused by file and key."""

import pytest

from repro.core.errors import RecordError
from repro.jobs.logs.heads import Fronts
from repro.jobs.logs.patterns import heads, patterns
from repro.jobs.logs.scanning import Scanner

EXAMPLES = [(pattern, example) for pattern in patterns() for example in pattern.examples]
SEARCHED = [
    (pattern, example) for pattern, example in EXAMPLES if pattern.role not in ("sound", "place") and not pattern.ends
]
ALONE = ("harmless", "quantity", "place", "sound", "about")
"""Roles of which a line may have several: each of them looks by itself."""
HEADS = [(head, example) for head in heads() for example in head.examples]
PATTERN = """
what = "w"
source = "s"
[[pattern]]
name = "n"
role = "failure"
hints = ["nan"]
regex = 'found (?P<value>nan)'
[[pattern.examples]]
line = "found nan"
fields = { value = "nan" }
"""


@pytest.mark.parametrize(("pattern", "example"), EXAMPLES, ids=[f"{one.id}-{two.line[:30]}" for one, two in EXAMPLES])
def test_an_example_is_read_by_its_own_pattern_first(pattern, example):
    lowered = example.line.lower()
    among = [one for one in patterns() if one.role not in ALONE] if pattern.role not in ALONE else [pattern]
    fitting = [
        one
        for one in among
        if (one.role == "place" or any(hint in lowered for hint in one.hints)) and one.regex.search(example.line)
    ]
    taken = fitting[0].regex.search(example.line).groupdict()
    assert (fitting[0].id, {name: value for name, value in taken.items() if value is not None}) == (
        pattern.id,
        example.fields,
    )


@pytest.mark.parametrize(("pattern", "example"), SEARCHED, ids=[f"{one.id}-{two.line[:30]}" for one, two in SEARCHED])
def test_the_search_for_words_meets_every_example(pattern, example):
    scanner = Scanner(
        [hint for one in patterns() if one.role not in ("sound", "place") and not one.ends for hint in one.hints]
    )
    block = f"first line of all\n{example.line}\nlast line of all\n".encode()
    assert [(line.number, line.data.decode()) for line in scanner.read([block])] == [(2, example.line)]


@pytest.mark.parametrize(("head", "example"), HEADS, ids=[f"{one.name}-{two.line[:30]}" for one, two in HEADS])
def test_a_head_is_read(head, example):
    front = Fronts([example.line] * 3).read(example.line)
    wanted = {name: value for name, value in example.fields.items() if name != "level"}
    assert {name: getattr(front, name) for name in wanted} == wanted
    assert "level" not in example.fields or "a level" in front.kinds


def test_a_number_is_a_rank_only_where_every_line_has_one():
    assert Fronts(["3: a", "0: b", "1: c"]).read("2: Paris").rank == "2"
    assert Fronts(["a", "2: Paris", "c"]).read("2: Paris").rank is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('what = "w"', 'what = "w"\nwhy = "w"', "object contains unknown field why"),
        ('source = "s"', "", "object missing required field source"),
        ('role = "failure"', 'role = "fail"', "pattern[0].role: expected one of harmless, example"),
        ('hints = ["nan"]', 'hints = ["NaN"]', "pattern[0].hints: expected texts of three or more"),
        ('hints = ["nan"]', "hints = []", "pattern[0].hints: expected texts of three or more"),
        ("(?P<value>nan)", "(?P<worth>nan)", "pattern[0].regex: group: expected one of example"),
        ("(?P<value>nan)", "(nan", "pattern[0].regex: not a regular expression"),
        ('line = "found nan"', "line = 3", "pattern[0].examples[0].line: expected str, got int"),
        ("what", "what what", "it cannot be read as TOML"),
    ],
)
def test_wrong_data_is_refused_with_file_and_key(tmp_path, old, new, message):
    (tmp_path / "own.toml").write_text(PATTERN.replace(old, new, 1))
    with pytest.raises(RecordError) as error:
        patterns(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'own.toml'}: ")
    assert message in str(error.value)


def test_a_file_of_ones_own_is_read(tmp_path):
    (tmp_path / "own.toml").write_text(PATTERN)
    assert [one.id for one in patterns(tmp_path / "own.toml")] == ["own/n"]
