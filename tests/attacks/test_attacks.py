"""The tables, the frame that makes the attacks, and the quick part of them, really made."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import forked

from attacks import drive, makers, page, session
from attacks.attack import Attack, every

QUICK = [attack for attack in every() if attack.suite]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The models that the quick attacks ask for."""
    forked.start(drive.environment(Path()))
    wanted = {name for attack in QUICK for name in attack.models.values()}
    makers.prepare_models(tmp_path_factory.mktemp("models"), wanted)


@pytest.mark.parametrize("attack", QUICK, ids=lambda attack: attack.name)
def test_it_holds(attack: Attack, models: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPRO_CACHE_DIR", str(tmp_path / ".cache"))
    place = tmp_path / "place"
    place.mkdir()
    assert drive.hold(attack, place) == []


def test_the_tables_are_as_broad_as_they_say() -> None:
    assert len(every()) >= 300


def test_every_maker_that_a_row_names_exists_and_every_maker_is_used() -> None:
    rows = every()
    made = {str(file["make"]) for attack in rows for file in attack.files if "make" in file}
    done = {attack.do for attack in rows if attack.do}
    assert made == set(makers.files())
    assert done == set(makers.deeds())


# The frame: what does not hold is told.


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"shell": "exit 1", "status": (0,)}, "exit status 1"),
        ({"shell": "sleep 9", "status": (0,), "seconds": 0.2}, "did not end within"),
        ({"shell": "echo yes", "status": (0,), "says": ("no",)}, "nothing printed matches"),
        ({"shell": "echo 'Traceback (most recent call last):'", "status": (0,)}, "was printed"),
        ({"shell": r"printf '\033[31mred'", "status": (0,)}, "was printed as it is"),
        ({"shell": "echo secret", "status": (0,), "never": ("secret",)}, "stands in what was printed"),
        ({"shell": "echo secret > a.md", "status": (0,), "never": ("secret",), "handed": ("*",)}, "stands in a.md"),
        ({"shell": "touch CANARY", "status": (0,)}, "foreign code ran"),
        ({"shell": "echo 'repro: '$(printf 'x%.0s' {1..2000}) >&2", "status": (0,)}, "characters"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_hold_is_told(row: dict[str, object], told: str, tmp_path: Path) -> None:
    (broken,) = drive.hold(Attack("frame", "a test", **row), tmp_path)  # type: ignore[arg-type]
    assert told in broken


def test_more_memory_than_holds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    greatest = iter((70.0, 5000.0))
    monkeypatch.setattr(drive, "_greatest", lambda: next(greatest))
    (broken,) = drive.hold(Attack("frame", "a test", shell="true", status=(0,)), tmp_path)
    assert "a process took 5000 MB" in broken


def test_the_summary_counts_what_held_and_names_what_did_not(tmp_path: Path) -> None:
    results = [
        session.Result(Attack("streams", "one", shell="true", status=(0,)), (), 0.1),
        session.Result(Attack("streams", "two", shell="true", status=(0,)), ("exit status 1",), 0.1),
    ]
    made = page.Page(tuple(results), 12.0, 2)
    assert page.summary(made) == "did not hold: streams/two\n1 of 2 attacks held, 12 s"
    text = page.written(f"before\n{page.BEGIN}\nearlier\n{page.END}\nafter\n", made)
    assert "| **all** | **2** | **1** |" in text
    assert "- did not hold: streams/two" in text
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "earlier" not in text
