"""The question after a release, put to a world of paper: what is asked, in which order, and what is answered."""

import itertools
import math
from types import SimpleNamespace

import pytest

from repro.core.errors import FetchError, UsageError
from repro.core.records import Kind, Outcome
from repro.core.sweep_answers import ReleaseRun
from repro.sweeps.releases import Question, investigate

GOOD, BAD, SKIP = Outcome.GOOD, Outcome.BAD, Outcome.SKIP
LETTERS = {"g": GOOD, "b": BAD, "s": SKIP}


class Paper:
    """A world of paper.

    Args:
        truth: Gives the outcome of an environment from its pins; a run, an Outcome, or an iterator of them.
        released: The releases of each package.
        requires: What each release of transformers requires; a FetchError is raised.
    """

    def __init__(self, truth, released, requires=None):
        self.truth, self.released, self.needs = truth, released, requires or {}
        self.asked, self.labels, self.read, self.held = [], [], [], []

    def releases(self, package):
        return tuple(self.released[package])

    def requirements(self, package, version):
        assert package == "transformers"
        self.read.append(version)
        lines = self.needs.get(version, ())
        if isinstance(lines, FetchError):
            raise lines
        return tuple(f'torch{line}; extra == "torch"' for line in lines)

    def hold(self, pins):
        assert not self.asked
        self.held.append(dict(pins))

    def probe(self, pins, label):
        self.asked.append(dict(pins))
        self.labels.append(label)
        found = self.truth(pins)
        if isinstance(found, ReleaseRun):
            return found
        return ReleaseRun(verdict=found, reason=f"{found.value} it is", command=f"repro {label}", folder=label)


def numbered(count):
    return [f"1.{index}.0" for index in range(count)]


def ask(truth, released, requires=None, *, good=None, bad=None, package="torch", **options):
    """The answer, the world and the lines that were said; the range is the whole list unless ends are given."""
    world = Paper(truth, released, requires)
    names = released[package]
    options.setdefault("pins", (("transformers", "4.57.3"),) if package == "torch" else (("torch", "2.4.1"),))
    said = []
    question = Question(package, good or names[0], bad or names[-1], "3.11", **options)
    return flat(investigate(question, world, said.append)), world, said


def flat(found):
    """What was found, with the fields of the oldest boundary beside it."""
    first = found.changes[0] if found.changes else None
    return SimpleNamespace(
        verdict=found.verdict.outcome,
        reason=found.verdict.reason,
        direction=first and first.direction,
        last_good=first and first.last_good.version,
        first_bad=first and first.first_bad.version,
        skipped=tuple(probe.version for probe in first.skipped) if first else (),
        moved=first and first.moved,
        changes=found.changes,
        probes=found.probes,
        pairs=found.pairs,
        environments=found.environments,
        notes=found.notes,
    )


def spelled(text, **options):
    """Torch releases that answer as the letters say, with transformers held."""
    names = numbered(len(text))
    truth = dict(zip(names, (LETTERS[letter] for letter in text), strict=True))
    return ask(lambda pins: truth[pins["torch"]], {"torch": names}, **options)


def numbers(versions):
    return tuple(int(version.split(".")[1]) for version in versions)


def expected(text):
    """Direction, last good, first bad and the skips between, of the only boundary of a text."""
    decided = [index for index, letter in enumerate(text) if letter != "s"]
    (pair,) = [(low, high) for low, high in itertools.pairwise(decided) if text[low] != text[high]]
    good, bad = pair if text[pair[0]] == "g" else pair[::-1]
    return "regression" if good < bad else "fix", good, bad, tuple(range(min(pair) + 1, max(pair)))


def test_every_small_range_gives_its_boundary_and_each_environment_is_built_once():
    for count, boundary in ((c, b) for c in range(2, 7) for b in range(1, c)):
        for letters, skips in itertools.product(("gb", "bg"), itertools.product((False, True), repeat=count - 2)):
            plain = letters[0] * boundary + letters[1] * (count - boundary)
            inner = ("s" if skip else letter for skip, letter in zip(skips, plain[1:-1], strict=True))
            text = plain[0] + "".join(inner) + plain[-1]
            answer, world, _ = spelled(text)
            found = (answer.direction, *numbers((answer.last_good, answer.first_bad)), numbers(answer.skipped))
            assert found == expected(text)
            assert answer.verdict is BAD
            assert answer.environments == len(world.asked) == len({pins["torch"] for pins in world.asked})
            assert [pins["torch"] for pins in world.asked][:2] == ["1.0.0", f"1.{count - 1}.0"]
            if "s" not in text:
                assert answer.environments <= math.ceil(math.log2(count)) + 2


def test_a_walk_finds_every_boundary_of_every_small_range():
    for text in ("".join(letters) for count in range(2, 7) for letters in itertools.product("gbs", repeat=count)):
        answer, world, _ = spelled(text, walk_all=True)
        decided = text.replace("s", "")
        assert len(answer.changes) == decided.count("gb") + decided.count("bg")
        assert numbers(pins["torch"] for pins in world.asked) == tuple(range(len(text)))
        outcome = BAD if answer.changes else GOOD if set(text) == {"g"} else SKIP
        assert answer.verdict is outcome


def test_a_window_is_found_by_a_walk_and_both_of_its_sides_are_told():
    answer, _, _ = spelled("ggsbbsg", walk_all=True)
    assert [(change.direction, numbers(p.version for p in change.skipped)) for change in answer.changes] == [
        ("regression", (2,)),
        ("fix", (5,)),
    ]
    assert answer.reason == (
        "torch: 1.1.0 is the last good release and 1.3.0 the first bad one, with 1.2.0 skipped (skip it is) between "
        "them; then 1.4.0 is the last bad release and 1.6.0 the first good one, with 1.5.0 skipped (skip it is) "
        "between them"
    )


TWO_GOOD_ENDS = (
    "torch 1.3.0 was said to be bad and is good, as 1.0.0 is: no boundary lies between two good ends; --all walks the "
    "whole range, for a fault that is bad only in a window"
)
TWO_BAD_ENDS = (
    "torch 1.0.0 was said to be good and is bad, as 1.3.0 is: no boundary lies between two bad ends; choose another "
    "--good, or let --all walk the whole range"
)


@pytest.mark.parametrize(
    ("text", "options", "outcome", "reason"),
    [
        (
            "gbbg",
            {},
            GOOD,
            TWO_GOOD_ENDS,
        ),
        (
            "bggb",
            {},
            SKIP,
            TWO_BAD_ENDS,
        ),
        ("sgb", {}, SKIP, "the search needs both ends, with 1.0.0 skipped (skip it is); choose another end"),
        ("sgs", {}, SKIP, "the search needs both ends, with 1.0.0, 1.2.0 skipped (skip it is); choose another end"),
        ("ggg", {"walk_all": True}, GOOD, "all 3 releases of torch are good"),
        ("gsg", {"walk_all": True}, SKIP, "2 of 3 releases of torch are good; 1.1.0 skipped (skip it is)"),
        ("bbb", {"walk_all": True}, SKIP, "3 of 3 releases of torch are bad"),
    ],
)
def test_without_a_boundary_none_is_invented(text, options, outcome, reason):
    answer, _, _ = spelled(text, **options)
    assert (answer.verdict, answer.reason) == (outcome, reason)
    assert (answer.direction, answer.last_good, answer.first_bad, answer.changes) == (None, None, None, ())
    assert len(answer.probes) == (len(text) if options else 2)


def test_good_ends_without_a_known_fault_are_not_walked():
    _, world, _ = spelled("gbbg")
    assert len(world.asked) == 2


def test_the_answer_of_a_fix_is_put_as_one():
    answer, _, _ = spelled("bbg", good="1.2.0", bad="1.0.0")
    assert (answer.direction, answer.last_good, answer.first_bad) == ("fix", "1.2.0", "1.1.0")
    assert answer.reason == "torch: 1.1.0 is the last bad release and 1.2.0 the first good one"
    assert answer.notes == ()


def test_ends_that_were_mixed_up_are_noted():
    answer, _, _ = spelled("bbg")
    assert answer.direction == "fix"
    assert answer.notes == ("1.0.0 was said to be good and is bad; 1.2.0 was said to be bad and is good.",)


def test_the_range_is_what_lies_between_the_ends():
    answer, world, _ = spelled("ggggbb", good="1.2.0", bad="1.4.0")
    assert (len(answer.pairs), {pins["torch"] for pins in world.asked}) == (3, {"1.2.0", "1.3.0", "1.4.0"})


def test_every_environment_has_the_pins():
    _, world, _ = spelled("gb", pins=(("Transformers", "4.57.3"), ("numpy", "1.26.4")))
    assert world.asked == [{"torch": v, "transformers": "4.57.3", "numpy": "1.26.4"} for v in ("1.0.0", "1.1.0")]
    assert world.labels == ["torch-1.0.0", "torch-1.1.0"]


def test_every_probe_has_its_command_and_one_run_has_no_votes():
    answer, _, _ = spelled("gb")
    expected = [("repro torch-1.0.0", None), ("repro torch-1.1.0", None)]
    assert [(probe.command, probe.votes) for probe in answer.probes] == expected


def test_a_package_without_partner_is_searched_as_well():
    released = {"numpy": ["1.26.4", "2.0.0"]}
    answer, world, _ = ask(lambda pins: BAD if pins["numpy"] > "2" else GOOD, released, package="numpy", pins=())
    assert (answer.first_bad, answer.moved, world.asked[0]) == ("2.0.0", "numpy", {"numpy": "1.26.4"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"good": "1.0.5"}, "1.0.5 is not among the releases .* The nearest: 1.0.0 and 1.1.0"),
        ({"bad": "1.0.0"}, "both ends are 1.0.0"),
        ({"runs": 0, "bad_from": 0}, "0 of 0 runs cannot decide"),
        ({"runs": 2, "bad_from": 3}, "3 of 2 runs cannot decide"),
        ({"pins": (("torch", "2.4.1"),)}, "torch==2.4.1 is held, but torch is what is searched"),
        ({"pins": (("numpy", "<2"),)}, "numpy: '<2' is no exact version"),
    ],
)
def test_a_question_without_answer_is_refused_before_anything_is_built(options, words):
    with pytest.raises(UsageError, match=words):
        spelled("gb", **options)


def tossed(text, **options):
    """The first release is good always, the second as the letters say, run by run; what its probe is."""
    tosses = iter(text)
    truth = {"1.0.0": itertools.repeat("g"), "1.1.0": tosses}
    answer, world, _ = ask(lambda pins: LETTERS[next(truth[pins["torch"]])], {"torch": numbered(2)}, **options)
    return answer.probes[1], world, "".join(tosses)


def oracle(text, bad_from):
    """The verdict of all the votes at once."""
    return BAD if text.count("b") >= bad_from else SKIP if "s" in text else GOOD


def test_every_small_vote_is_counted_and_no_run_is_wasted():
    for runs in range(1, 5):
        for bad_from in range(1, runs + 1):
            for text in map("".join, itertools.product("gbs", repeat=runs)):
                probe, _, left = tossed(text, runs=runs, bad_from=bad_from)
                cast = text[: runs - len(left)]
                assert probe.verdict is oracle(text, bad_from)
                assert len(probe.runs) == len(cast)
                # Another run is made only where it could still change the verdict.
                before = {oracle(cast[:-1] + "".join(rest), bad_from) for rest in possible(runs - len(cast) + 1)}
                assert len(before) > 1


def possible(count):
    return itertools.product("gbs", repeat=count)


def test_the_votes_are_told():
    probe, world, _ = tossed("gbgbg", runs=5, bad_from=2)
    assert (probe.votes, probe.command) == ("bad in 2, good in 2 of 4", "repro torch-1.1.0-run2")
    assert world.labels[:2] == ["torch-1.0.0-run1", "torch-1.0.0-run2"]


def test_too_few_bad_runs_are_told_in_the_reason():
    probe, _, _ = tossed("gbg", runs=3, bad_from=2)
    assert (probe.verdict, probe.reason) == (GOOD, "bad in 1 of 3 runs, where 2 make a release bad")


def test_an_environment_that_did_not_come_into_being_is_asked_once():
    nothing = ReleaseRun(verdict=SKIP, reason="no wheel", command="repro")
    released = {"torch": numbered(3)}
    answer, _, _ = ask(lambda pins: nothing if pins["torch"] == "1.2.0" else GOOD, released, runs=4)
    assert [len(probe.runs) for probe in answer.probes] == [4, 1]
    assert answer.environments == 2
    assert (answer.probes[1].votes, answer.probes[1].reason) == (None, "no wheel")


def test_different_kinds_of_bad_are_pointed_out():
    kinds = dict(zip(numbered(4), (None, Kind.NONFINITE, Kind.NONFINITE, Kind.LOAD), strict=True))

    def truth(pins):
        kind = kinds[pins["torch"]]
        return ReleaseRun(verdict=BAD if kind else GOOD, reason="so", command="repro", kind=kind, folder="folder")

    answer, _, _ = ask(truth, {"torch": numbered(4)})
    (note,) = answer.notes
    assert note.startswith("The bad releases do not show the same kind of fault: load in 1.3.0; nonfinite in 1.1.0. ")


def other_numbers(pins):
    """A truth in which the releases from 1.3.0 on give other numbers."""
    if numbers([pins["torch"]]) < (3,):
        return GOOD
    reason = f"against the good end: the first difference is made in layers.{pins['torch'][2]}."
    return ReleaseRun(verdict=BAD, reason=reason, command="repro", kind=Kind.DIVERGENT, folder="folder")


@pytest.mark.parametrize(("good", "bad", "words"), [("1.0.0", "1.5.0", "last good"), ("1.0.0", "1.4.0", "last good")])
def test_every_release_is_held_against_the_good_end_from_the_first_probe_on(good, bad, words):
    released = {"torch": numbered(6)}
    answer, world, _ = ask(other_numbers, released, good=good, bad=bad, divergent=True)
    assert world.held == [{"torch": good, "transformers": "4.57.3"}]
    assert answer.reason == (
        f"torch: 1.2.0 is the {words} release and 1.3.0 the first bad one; 1.3.0: against the good end: the first "
        "difference is made in layers.3"
    )
    (note,) = answer.notes
    assert "was held against torch 1.0.0, transformers 4.57.3" in note


def test_the_good_end_may_be_the_newer_one():
    def truth(pins):
        return GOOD if numbers([pins["torch"]]) >= (3,) else other_numbers({"torch": "1.3.0"})

    answer, world, _ = ask(truth, {"torch": numbered(6)}, good="1.5.0", bad="1.0.0", divergent=True)
    assert world.held == [{"torch": "1.5.0", "transformers": "4.57.3"}]
    assert (answer.direction, answer.last_good, answer.first_bad) == ("fix", "1.3.0", "1.2.0")


def test_a_good_end_that_differs_from_itself_gives_no_boundary():
    answer, _, _ = ask(lambda pins: BAD, {"torch": numbered(3)}, divergent=True)
    assert (answer.verdict, answer.changes) == (SKIP, ())
    assert "was said to be good and is bad" in answer.reason


def test_without_that_question_nothing_is_held_against_anything():
    answer, world, _ = ask(other_numbers, {"torch": numbered(6)})
    assert (world.held, answer.notes) == ([], ())
    assert answer.reason == "torch: 1.2.0 is the last good release and 1.3.0 the first bad one"


# Two axes. In the tables below "good" or "bad" follows from both versions.

TORCHES = ["2.0.0", "2.1.0", "2.2.0"]
MODELS = ["4.0.0", "4.1.0", "4.2.0", "4.3.0"]


def two(truth, requires, package="transformers", pins=(), **options):
    released = {"torch": TORCHES, "transformers": MODELS}
    return ask(
        lambda pins: truth(pins["torch"], pins["transformers"]),
        released,
        requires,
        package=package,
        pins=pins,
        **options,
    )


def from_(limit):
    return lambda torch, transformers: BAD if transformers >= limit else GOOD


def test_a_release_that_excludes_the_pinned_torch_is_skipped_without_building():
    requires = {"4.1.0": [">=2.2"]}
    answer, world, _ = two(from_("4.2.0"), requires, pins=(("torch", "2.1.0"),))
    assert (answer.last_good, answer.first_bad, answer.skipped) == ("4.0.0", "4.2.0", ("4.1.0",))
    (skipped,) = answer.changes[0].skipped
    assert skipped.reason == "transformers 4.1.0 requires torch>=2.2, which excludes torch 2.1.0"
    assert (skipped.runs, skipped.command) == ((), None)
    assert "4.1.0" not in {pins["transformers"] for pins in world.asked}
    assert answer.environments == 3


def test_only_the_releases_whose_turn_comes_are_read():
    released = {"transformers": numbered(40), "torch": TORCHES}
    for pins in ((("torch", "2.1.0"),), ()):
        answer, world, _ = ask(
            lambda pins: GOOD if numbers([pins["transformers"]]) < (7,) else BAD,
            released,
            package="transformers",
            pins=pins,
        )
        assert answer.first_bad == "1.7.0"
        assert sorted(world.read) == sorted({pins["transformers"] for pins in world.asked})
        assert len(world.read) <= 8


def test_bisecting_torch_reads_the_held_transformers_once():
    requires = {"4.3.0": [">=2.1"]}
    answer, world, _ = two(lambda torch, _: BAD, requires, package="torch", pins=(("transformers", "4.3.0"),))
    assert world.read == ["4.3.0"]
    assert answer.probes[0].reason == "transformers 4.3.0 requires torch>=2.1, which excludes torch 2.0.0"
    assert answer.verdict is SKIP


def test_what_cannot_be_read_is_skipped_with_the_error_and_not_read_again():
    requires = {"4.1.0": FetchError("the registry is down")}
    for pins in ((("torch", "2.1.0"),), ()):
        answer, world, _ = two(from_("4.2.0"), requires, pins=pins)
        (skipped,) = answer.changes[0].skipped
        assert (skipped.verdict, skipped.reason) == (SKIP, "the registry is down")
        assert world.read.count("4.1.0") == 1


def test_an_end_that_cannot_be_read_is_skipped_with_the_error():
    answer, world, _ = two(from_("4.2.0"), {"4.0.0": FetchError("the registry is down")})
    assert answer.verdict is SKIP
    assert "the registry is down" in answer.reason
    assert [pins["transformers"] for pins in world.asked] == ["4.3.0"]


def test_a_partner_that_cannot_be_read_is_not_chosen():
    answer, _, _ = two(lambda torch, _: GOOD, {"4.3.0": FetchError("damaged")}, package="torch")
    assert answer.pairs[0] == ("2.0.0", "4.2.0")


def test_a_package_that_is_searched_alone_gets_no_partner():
    answer, world, _ = ask(lambda pins: GOOD, {"torch": TORCHES}, pins=(), alone=True)
    assert world.asked == [{"torch": "2.0.0"}, {"torch": "2.2.0"}]
    assert answer.pairs[0] == ("2.0.0", None)


def test_the_newest_partner_that_goes_with_all_is_taken():
    answer, world, said = two(from_("4.2.0"), {"4.0.0": ["<2.2"], "4.3.0": [">=2.1"]})
    assert {pins["torch"] for pins in world.asked} == {"2.1.0"}
    assert answer.pairs == tuple((version, "2.1.0") for version in MODELS)
    assert said[0] == "transformers 4.0.0 to 4.3.0 with torch 2.1.0."
    assert world.labels[0] == "transformers-4.0.0-torch-2.1.0"
    assert answer.reason == (
        "transformers: 4.1.0 (with torch 2.1.0) is the last good release and 4.2.0 (with torch 2.1.0) the first bad one"
    )


def test_bisecting_torch_takes_the_newest_transformers_that_goes_with_all():
    requires = {"4.2.0": [">=2.1"], "4.3.0": [">=2.2"]}
    answer, world, _ = two(lambda torch, _: BAD if torch >= "2.1" else GOOD, requires, package="torch")
    assert {pins["transformers"] for pins in world.asked} == {"4.1.0"}
    assert (answer.last_good, answer.first_bad, answer.moved) == ("2.0.0", "2.1.0", "torch")


def test_bisecting_torch_looks_for_the_transformers_by_halving():
    released = {"torch": TORCHES, "transformers": numbered(200)}
    requires = {version: [">=2.1"] for version in numbered(200)[57:]}
    answer, world, _ = ask(lambda pins: GOOD, released, requires, package="torch", pins=())
    assert answer.pairs[0] == ("2.0.0", "1.56.0")
    assert len(world.read) <= 10


def test_bisecting_torch_finds_a_transformers_that_halving_misses():
    requires = {"4.0.0": [">=2.1"], "4.2.0": [">=2.1"], "4.3.0": [">=2.2"]}
    answer, _, _ = two(lambda torch, _: GOOD, requires, package="torch")
    assert answer.pairs[0] == ("2.0.0", "4.1.0")


def test_the_search_begins_again_where_a_release_in_between_excludes_the_partner():
    requires = {"4.1.0": ["<2.2"], "4.2.0": ["<2.2"]}
    answer, world, said = two(from_("4.2.0"), requires)
    assert (answer.last_good, answer.first_bad) == ("4.1.0", "4.2.0")
    assert {partner for _, partner in answer.pairs} == {"2.1.0"}
    note = (
        "transformers 4.1.0 requires torch<2.2, which excludes torch 2.2.0: the search began again, with partners that "
        "go with every release."
    )
    assert answer.notes == (note,)
    assert note in said
    assert [pins["torch"] for pins in world.asked][:3] == ["2.2.0", "2.2.0", "2.1.0"]


def test_what_is_held_against_stays_where_the_search_begins_again():
    requires = {"4.1.0": ["<2.2"], "4.2.0": ["<2.2"]}
    answer, world, _ = two(from_("4.2.0"), requires, divergent=True)
    assert world.held == [{"transformers": "4.0.0", "torch": "2.2.0"}]
    assert (answer.last_good, answer.first_bad) == ("4.1.0", "4.2.0")
    assert len(answer.notes) == 2


def test_a_walk_reads_all_first_and_never_begins_again():
    answer, world, _ = two(from_("4.2.0"), {"4.1.0": ["<2.2"]}, walk_all=True)
    assert [pins["torch"] for pins in world.asked] == ["2.1.0"] * 4
    assert answer.notes == ()


def test_a_new_beginning_with_ends_that_then_agree_speaks_of_the_ends_alone():
    """The middle was asked before with the partner that one stretch has again; it is no end."""
    requires = {"4.0.0": [], "4.1.0": ["==2.0"], "4.2.0": ["==2.2"], "4.3.0": ["==2.2"]}
    answer, _, _ = two(
        lambda torch, transformers: BAD if (torch, transformers) != ("2.2.0", "4.0.0") else GOOD, requires
    )
    assert answer.verdict is SKIP
    assert "4.0.0 (with torch 2.0.0) was said to be good and is bad" in answer.reason


STRETCHES = {"4.0.0": ["<2.1"], "4.1.0": ["<2.2"], "4.2.0": [">=2.1"], "4.3.0": [">=2.2"]}


def test_without_a_common_partner_the_pairs_are_listed_before_anything_is_built():
    answer, _, said = two(from_("4.1.0"), STRETCHES)
    assert said[:4] == [
        "Reading what the releases of transformers declare.",
        "transformers 4.0.0 to 4.1.0 with torch 2.0.0.",
        "transformers 4.2.0 to 4.3.0 with torch 2.2.0.",
        "transformers: 4 releases from 4.0.0 to 4.3.0; at most 4 to ask, where none is skipped.",
    ]
    assert (answer.last_good, answer.first_bad, answer.moved) == ("4.0.0", "4.1.0", "transformers")
    assert answer.changes[0].crossed == ()


def test_a_release_with_no_partner_at_all_is_skipped_and_says_so():
    answer, _, said = two(from_("4.2.0"), {"4.1.0": [">=3"], "4.0.0": ["<2.1"], "4.3.0": [">=2.1"]})
    assert answer.changes[0].skipped[0].reason == (
        "no release of torch for this Python goes with it: transformers 4.1.0 requires torch>=3, which excludes torch "
        "2.2.0"
    )
    assert "transformers 4.1.0: no torch fits." in said


# A walk, so that all is read. 4.1.0 goes with 2.0.0 as 4.0.0 does, and 4.3.0 with 2.2.0 as 4.2.0 does; each of the two
# would go with the other's torch as well.
CROSSING = {"4.0.0": ["<2.1"], "4.2.0": [">=2.2"]}


@pytest.mark.parametrize("direction", ["regression", "fix"])
@pytest.mark.parametrize(
    ("wrong", "moved", "mirrored"),
    [
        (lambda torch, transformers: transformers > "4.2", "transformers", "transformers"),
        (lambda torch, transformers: torch > "2.1", "torch", "torch"),
        (lambda torch, transformers: transformers > "4.2" and torch > "2.1", "both needed", "either alone"),
        (lambda torch, transformers: transformers > "4.2" or torch > "2.1", "either alone", "both needed"),
    ],
)
def test_crossed_pairs_tell_what_the_fault_follows(wrong, moved, mirrored, direction):
    yes, no = (BAD, GOOD) if direction == "regression" else (GOOD, BAD)

    def truth(torch, transformers):
        return SKIP if transformers == "4.2.0" else yes if wrong(torch, transformers) else no

    answer, world, said = two(truth, CROSSING, walk_all=True)
    (change,) = answer.changes
    assert (answer.direction, answer.moved) == (direction, moved if direction == "regression" else mirrored)
    assert [pins["torch"] for pins in world.asked[:4]] == ["2.0.0", "2.0.0", "2.2.0", "2.2.0"]
    assert {(probe.version, probe.pins["torch"]) for probe in change.crossed} == {
        ("4.1.0", "2.2.0"),
        ("4.3.0", "2.0.0"),
    }
    assert (answer.environments, len(answer.probes)) == (6, 6)
    assert f"they differ in both packages, and the fault follows: {answer.moved} (" in answer.reason
    assert "The two sides differ in torch as well: each transformers with the torch of the other." in said


@pytest.mark.parametrize(
    ("one_way", "moved"),
    [
        ({"2.2.0 4.1.0": BAD, "2.0.0 4.3.0": SKIP}, "torch"),
        ({"2.2.0 4.1.0": SKIP, "2.0.0 4.3.0": BAD}, "transformers"),
        ({"2.2.0 4.1.0": GOOD, "2.0.0 4.3.0": SKIP}, "could not tell"),
        ({"2.2.0 4.1.0": SKIP, "2.0.0 4.3.0": GOOD}, "could not tell"),
        ({"2.2.0 4.1.0": SKIP, "2.0.0 4.3.0": SKIP}, "could not tell"),
    ],
)
def test_a_crossed_pair_that_cannot_tell_leaves_what_the_other_shows(one_way, moved):
    plain = {"4.0.0": GOOD, "4.1.0": GOOD, "4.2.0": SKIP, "4.3.0": BAD}
    answer, _, _ = two(lambda torch, models: one_way.get(f"{torch} {models}", plain[models]), CROSSING, walk_all=True)
    assert answer.moved == moved


def test_a_crossed_pair_that_is_declared_to_exclude_each_other_is_not_built():
    requires = {"4.0.0": ["<2.1"], "4.2.0": [">=2.1"], "4.3.0": [">=2.1"]}
    answer, world, _ = two(lambda torch, _: BAD if torch > "2.1" else GOOD, requires)
    assert (answer.last_good, answer.first_bad, answer.moved) == ("4.1.0", "4.2.0", "torch")
    assert {"torch": "2.0.0", "transformers": "4.2.0"} not in world.asked
    assert answer.changes[0].why == (
        "torch 2.2.0 with transformers 4.1.0: bad (bad it is); torch 2.0.0 with transformers 4.2.0: skip (transformers "
        "4.2.0 requires torch>=2.1, which excludes torch 2.0.0)"
    )


def specifiers(subset):
    """A requirement that leaves these releases of torch."""
    return [",".join(f"!={torch}" for index, torch in enumerate(TORCHES) if index not in subset)]


def test_every_small_set_of_declarations_is_kept_to():
    """Of three releases and three partners: what is built goes together, and changes as seldom as can be."""
    subsets = [subset for size in (1, 2, 3) for subset in itertools.combinations(range(3), size)]
    models = MODELS[:3]
    for sets in itertools.product(subsets, repeat=3):
        requires = {version: specifiers(subset) for version, subset in zip(models, sets, strict=True)}
        released = {"torch": TORCHES, "transformers": models}
        for walk_all, package in ((False, "transformers"), (True, "transformers"), (True, "torch")):
            answer, world, _ = ask(
                lambda pins: BAD if pins["torch"] > "2.1" and pins["transformers"] > "4.1" else GOOD,
                released,
                requires,
                package=package,
                pins=(),
                walk_all=walk_all,
            )
            for pins in world.asked:
                assert TORCHES.index(pins["torch"]) in sets[models.index(pins["transformers"])]
            if walk_all:
                own = sets if package == "transformers" else transposed(sets)
                chosen = [partner for _, partner in answer.pairs if partner is not None]
                assert stretches(chosen) == min(map(stretches, ways(own)), default=0)


def transposed(sets):
    """For each of three partners, the releases that take it."""
    return [tuple(index for index, own in enumerate(sets) if partner in own) for partner in range(3)]


def ways(sets):
    """Every way to give each release that has a partner one of its own."""
    return itertools.product(*(own for own in sets if own))


def stretches(way):
    return len(list(itertools.groupby(way)))


def test_progress_says_how_many_are_left_and_what_each_answered():
    _, _, said = spelled("ggbbb")
    assert said == [
        "torch: 5 releases from 1.0.0 to 1.4.0; at most 4 to ask, where none is skipped.",
        "At most 4 left, where none is skipped.",
        "1.0.0: good. good it is",
        "At most 3 left, where none is skipped.",
        "1.4.0: bad. bad it is",
        "At most 2 left, where none is skipped.",
        "1.2.0: bad. bad it is",
        "At most 1 left, where none is skipped.",
        "1.1.0: good. good it is",
    ]
