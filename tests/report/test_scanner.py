"""The rules of the secret scanner: each can be compiled, finds what it is for, and leaves names alone."""

import random
import re
import string

import pytest

from repro.report.privacy.marks import Marks
from repro.report.privacy.scanner import FILE, adapted, entropy, is_random, masked, prefixes, scanner_rules

RULES = {rule.id: rule for rule in scanner_rules()}


def drawn(length, letters=string.ascii_letters + string.digits, seed=0):
    return "".join(random.Random(seed).choices(letters, k=length))


def test_every_rule_for_any_text_can_be_compiled():
    assert len(RULES) > 200
    assert all(rule.pattern.groups >= 0 and rule.marks for rule in RULES.values())


def test_the_licence_lies_beside_the_rules():
    assert FILE.with_name("gitleaks.LICENSE").read_text("utf-8").startswith("MIT License")


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (r"p8e-(?i)[a-z]{3}", "p8e-aBC"),
        (r"(x(?i)y|z)w", "Zw"),
        (r"(?:a(?i)b)c", "aBc"),
        (r"ab\z", "ab"),
        (r"[[:alnum:]]{2}", "a1"),
        (r"[(?i)]{4}", "(?i)"),
        (r"a\(?i", "a(i"),
    ],
)
def test_what_python_writes_otherwise_is_adapted(theirs, text):
    assert re.fullmatch(adapted(theirs), text)


@pytest.mark.parametrize(("theirs", "text"), [(r"p8e-(?i)[a-z]{3}", "P8E-abc"), (r"(?:a(?i)b)c", "aBC")])
def test_a_flag_in_the_middle_holds_to_the_end_of_its_group_only(theirs, text):
    assert re.fullmatch(adapted(theirs), text) is None


@pytest.mark.parametrize("around", ["{}", "x_{}_y", "m-{}/w.bin", "'{}',", "see {}."])
def test_a_secret_ends_where_a_name_or_a_sentence_ends(around):
    secret = "SG." + drawn(66)
    assert masked([RULES["sendgrid-api-token"]], around.format(secret), "TOKEN") == around.format("TOKEN")


def test_only_the_group_is_masked():
    line = f"datadog: {drawn(40, '0123456789abcdef')} end"
    assert masked([RULES["datadog-access-token"]], line, "TOKEN") == "datadog: TOKEN end"


def test_what_has_too_little_entropy_is_no_secret():
    line = "SK" + "ab" * 16
    assert entropy(line) < 3
    assert masked([RULES["twilio-api-key"]], line, "TOKEN") == line


def test_a_secret_in_a_long_line_is_found_once_wherever_it_stands():
    secret = "SK" + drawn(32, "0123456789abcdef")
    for at in (0, 3500, 3590, 4080, 9000):
        line = f"{'. ' * (at // 2)}{secret}{' .' * 3000}"
        assert masked([RULES["twilio-api-key"]], line, "TOKEN") == line.replace(secret, "TOKEN")


def test_prefixes_are_those_of_issuers():
    assert {"ghp_", "hf_", "glpat-", "sk-", "SG.", "npm_"} <= set(prefixes())
    assert not {"v1.0-", "A3-"} & set(prefixes())


@pytest.mark.parametrize(
    "text",
    ["model.layers.12.self_attn.q_proj.weight", "a" * 64, "68394.8671875", "2026-11-25T13", "torch.float16", "0" * 64],
)
def test_names_numbers_and_hashes_do_not_look_drawn(text):
    assert not is_random(text)


def test_marks_are_found_as_plain_search_finds_them():
    marks = ("key", "sk-", "://", "r8_", "p8e-", "api_org_", "?", "sg.", "token")
    words = (
        "model.layers",
        "key",
        "keys",
        "sk-a",
        "ftp://x",
        "r8_a",
        "sg.x",
        "api",
        "tokenizer",
        "p8e-",
        "a?b",
        "x" * 99,
    )
    finder, source = Marks(marks), random.Random(1)
    for _ in range(500):
        text = " ".join(source.choices(words, k=source.randrange(6)))
        assert finder.found(text) == {mark for mark in marks if mark in text}


@pytest.mark.parametrize("mark", sorted({mark for rule in RULES.values() for mark in rule.marks})[::7])
def test_no_line_takes_long(mark):
    line = (mark + " = ") * (60_000 // len(mark))
    assert masked(list(RULES.values()), line, "TOKEN")
