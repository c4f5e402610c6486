"""The commands ``scan`` and ``config-diff``: output, JSON and exit status."""

import json
import sys

import click
import pytest
import torch
from click.testing import CliRunner

from repro.cli.files import config_diff, scan
from repro.core.errors import UsageError


def run(command, *arguments):
    """The result of a command; an error of our own is raised, for ``cli`` prints it."""
    result = CliRunner().invoke(command, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, (SystemExit, click.ClickException)):
        raise result.exception
    return result


def written(folder, **texts):
    """Files by their stems, .json for a scan and .yaml for settings."""
    paths = []
    for stem, text in texts.items():
        path = folder / f"{stem}.{'json' if text[:1] in '[{' else 'yaml'}"
        path.write_text(text)
        paths.append(path)
    return paths


@pytest.mark.parametrize(("text", "status"), [("[1]", 0), ("[NaN]", 1), ("[", 125)])
def test_the_status_of_a_scan(tmp_path, text, status):
    assert run(scan, *written(tmp_path, a=text)).exit_code == status


def test_a_scan_of_a_path_that_is_not_there_is_wrong_usage(tmp_path):
    assert run(scan, tmp_path / "none").exit_code == 2


def test_a_scan_without_a_path_is_wrong_usage():
    assert run(scan).exit_code == 2


def test_a_scan_lists_what_is_bad_or_was_not_read_and_sums_up(tmp_path):
    bad, broken, _ = written(tmp_path, bad='{"loss": [1, NaN]}', broken="[", sound="[1]")
    (tmp_path / "notes.md").write_text("")
    told = run(scan, tmp_path).output.splitlines()
    assert told[:4] == [
        f"bad  {bad}: 1 of 2 numbers is NaN or Inf",
        "       loss[]: 1 NaN of 2 (50 %), first at loss[1]",
        f"skip {broken}: it ends where value or end must be: it was cut, or is still being written",
        "not looked at, for their kind: 1 file (1 .md)",
    ]
    assert told[4].startswith("bad: 1 of 3 files holds a NaN or Inf; 1 could not be read (")


def test_a_scan_lists_sound_files_too_where_asked(tmp_path):
    (sound,) = written(tmp_path, sound="[1]")
    assert f"good {sound}: none of 1 number is NaN or Inf" in run(scan, "--all", tmp_path).output


def test_a_scan_as_json_is_json_alone_on_stdout(tmp_path):
    (bad,) = written(tmp_path, bad='{"loss": [1, NaN, "inf"]}')
    result = run(scan, "--json", tmp_path)
    found = json.loads(result.stdout)
    assert (found["verdict"], found["files"][0]["path"]) == ("bad", str(bad))
    assert found["files"][0]["places"] == [
        {
            "place": "loss[]", "dtype": None, "shape": None, "count": 3, "nan": 1, "posinf": 1, "neginf": 0,
            "as_text": 1, "share": 2 / 3, "first": "loss[1]",
        }
    ]  # fmt: skip
    assert "loss[]: 1 NaN, 1 +inf of 3" in result.stderr


def test_a_file_of_tensors_is_read_by_the_python_that_is_named(tmp_path):
    torch.save({"x": torch.tensor([float("nan")])}, tmp_path / "a.pt")
    result = run(scan, "--python", sys.executable, tmp_path)
    assert (result.exit_code, "x (float32): 1 NaN of 1" in result.output) == (1, True)


def test_a_python_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no such program"):
        run(scan, "--python", tmp_path / "none", *written(tmp_path, a="[1]"))


def test_a_scan_with_patterns(tmp_path):
    written(tmp_path, bad="[NaN]", sound="[1]")
    assert run(scan, tmp_path, "--exclude", "bad*").exit_code == 0
    assert run(scan, tmp_path, "--include", "bad*").exit_code == 1


def test_a_key_cannot_steer_the_terminal(tmp_path):
    written(tmp_path, a='{"\\u001b[2J\\nx": NaN}')
    assert "\n       \\x1b[2J\\nx: 1 NaN" in run(scan, tmp_path).output


def test_many_places_are_thinned_out_for_the_terminal_only(tmp_path):
    written(tmp_path, a=json.dumps({f"k{n}": float("nan") for n in range(15)}))
    assert "and 5 further places (--json has all)" in run(scan, tmp_path).output
    assert len(json.loads(run(scan, "--json", tmp_path).stdout)["files"][0]["places"]) == 15


@pytest.mark.parametrize(("other", "status"), [("x: 1", 0), ("x: 2", 1)])
def test_the_status_of_a_comparison(tmp_path, other, status):
    assert run(config_diff, *written(tmp_path, a="x: 1", b=other)).exit_code == status


def test_one_job_alone_has_a_difference_where_a_value_is_overridden(tmp_path):
    base, own = written(tmp_path, base="x: 1", own="x: 2")
    assert run(config_diff, own).exit_code == 0
    result = run(config_diff, own, "--base", base)
    assert (result.exit_code, "x: 2 (own.yaml:1) overrides 1 (base.yaml:1)" in result.output) == (1, True)


def test_an_override_that_changes_nothing_is_listed_where_asked(tmp_path):
    base, own = written(tmp_path, base="x: 1", own="x: 1")
    assert "x: 1 (own.yaml:1)" not in run(config_diff, own, "--base", base).output
    assert "x: 1 (own.yaml:1)" in run(config_diff, own, "--base", base, "--all").output


def test_a_comparison_as_json_is_json_alone(tmp_path):
    found = json.loads(run(config_diff, "--json", *written(tmp_path, a="dtype: float16", b="dtype: float32")).stdout)
    assert (found["differs"], found["differences"][0]["topic"]) == (True, "dtype")


def test_a_file_of_settings_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        run(config_diff, tmp_path / "none.yaml")


def test_a_comparison_without_a_file_is_wrong_usage():
    assert run(config_diff).exit_code == 2
