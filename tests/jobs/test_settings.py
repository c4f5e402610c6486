"""Settings of jobs: what differs, with types, and which file wins."""

import json

import pytest
from support.hosting import repro

from repro.core.errors import RecordError, UsageError
from repro.jobs.content import Table
from repro.jobs.settings.comparing import changes, compare, content, document
from repro.jobs.settings.layers import job_from
from repro.jobs.settings.matters import topic_of, topics
from repro.jobs.settings.reading import read

WORKS = "model:\n  name: google/gemma-3-4b-it\n  dtype: bfloat16\nsteering:\n  max_length: 512\n"
FAILS = "model:\n  name: google/gemma-3-12b-it\n  dtype: float16\nsteering:\n  max_length: 384\n"


def written(folder, **files):
    """Files by their stems as YAML; the paths as texts, in order."""
    paths = []
    for stem, text in files.items():
        path = folder / f"{stem}.yaml"
        path.write_text(text, encoding="utf-8")
        paths.append(str(path))
    return paths


def compared(folder, **files):
    """Each file as a job by itself."""
    return compare([job_from(path) for path in written(folder, **files)])


def differing(folder, **files):
    """Path, values as they are shown, and how they differ."""
    found = compared(folder, **files).differences
    return [(one.path, [leaf and leaf.shown for leaf in one.values], one.how) for one in found]


def test_the_settings_of_the_seed_differ_in_model_dtype_and_length(tmp_path):
    assert differing(tmp_path, works=WORKS, fails=FAILS) == [
        ("model.name", ['"google/gemma-3-4b-it"', '"google/gemma-3-12b-it"'], "value"),
        ("model.dtype", ['"bfloat16"', '"float16"'], "value"),
        ("steering.max_length", ["512", "384"], "value"),
    ]


def test_equal_settings_do_not_differ(tmp_path):
    found = compared(tmp_path, a=WORKS, b=WORKS)
    assert (found.differs, found.same) == (False, 3)


STEPS = "steps: [{name: load, n: 1}, {name: run, n: 2}]"


@pytest.mark.parametrize(
    ("jobs", "found"),
    [
        (["max_length: 384", 'max_length: "384"'], [("max_length", ["384", '"384"'], "type")]),
        (["x: 1", "x: 1.0"], [("x", ["1", "1.0"], "type")]),
        (["lr: 1.0e-3", "lr: 0.001"], []),
        (["d: 2026-01-01\nx: .nan", "d: 2026-01-01\nx: .nan"], []),
        (["x: 1", "x: 1\ny: {z: 2}"], [("y.z", [None, "2"], "absent")]),
        (["x: 1\ny: null", "x: 1"], [("y", ["null", None], "absent")]),
        (["x: 1", "x: 2", "x: 1"], [("x", ["1", "2", "1"], "value")]),
        ([STEPS, "steps: [{name: run, n: 3}, {name: load, n: 1}]"], [("steps[name=run].n", ["2", "3"], "value")]),
        (
            ["s: [{n: 1}, {n: 2}]", "s: [{n: 1}, {n: 3}, {n: 4}]"],
            [("s[1].n", ["2", "3"], "value"), ("s[2].n", [None, "4"], "absent")],
        ),
        (
            ["x: 1\ns: [{name: a, n: 1}]", "x: 1"],
            [("s[name=a].name", ['"a"', None], "absent"), ("s[name=a].n", ["1", None], "absent")],
        ),
        (["layers: [1, 2]", "layers: [0, 1, 2]"], [("layers", ["[1, 2]", "[0, 1, 2]"], "value")]),
        (["model: gpt2", "model: {name: gpt2}"], [("model", ['"gpt2"', '{name: "gpt2"}'], "value")]),
        (["x: 1\n---\nx: 2", "x: 1\n---\nx: 3"], [("document 2.x", ["2", "3"], "value")]),
    ],
)
def test_how_settings_differ(tmp_path, jobs, found):
    assert differing(tmp_path, **{f"job{number}": text for number, text in enumerate(jobs)}) == found


def test_what_matters_for_nan_comes_first_with_its_reason(tmp_path):
    found = compared(tmp_path, a="log: a\nmodel: {dtype: float16}", b="log: b\nmodel: {dtype: float32}").differences
    assert [(one.path, one.topic and one.topic.name) for one in found] == [("model.dtype", "dtype"), ("log", None)]
    assert "65504" in found[0].topic.why


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("model.torch_dtype", "dtype"),
        ("model.name", "model"),
        ("pretrained_model_name_or_path", "model"),
        ("data.padding_side", "padding"),
        ("trainer.per_device_train_batch_size", "batch"),
        ("attn-implementation", "attention"),
        ("quantization_config.bits", "quantisation"),
        ("steering.layer", "layer"),
        ("steps[name=dtype].every", None),
        ("output_dir", None),
    ],
)
def test_the_topic_of_a_setting(path, name):
    found = topic_of(path)
    assert (found and found.name) == name


def test_no_pattern_stands_in_two_topics():
    patterns = [pattern for topic in topics() for pattern in topic.keys]
    assert len(patterns) == len(set(patterns))


def test_json_and_toml_are_compared_with_yaml(tmp_path):
    (tmp_path / "a.json").write_text('{"model": {"dtype": "float16"}, "n": 1}')
    (tmp_path / "b.toml").write_text('n = 1\n[model]\ndtype = "float32"\n')
    found = compare([job_from(str(tmp_path / name)) for name in ("a.json", "b.toml")])
    assert [one.path for one in found.differences] == ["model.dtype"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr: 1e-3", "1e-3 is text in YAML 1.1"),
        ("x: yes", "yes is a boolean in YAML 1.1"),
        ("x: 0123", "0123 is 83 in YAML 1.1 (PyYAML, octal) and 123 in YAML 1.2"),
        ("x: 1:30", "1:30 is 90 in YAML 1.1"),
        ("x: 0o17", "0o17 is text in YAML 1.1"),
    ],
)
def test_words_that_yaml_1_1_and_1_2_read_differently_are_pointed_out(tmp_path, text, said):
    (note,) = compared(tmp_path, a=text).notes
    assert note.startswith("a.yaml:1: ")
    assert said in note


@pytest.mark.parametrize("text", ["lr: 1.0e-3", 'lr: "1e-3"', "x: true", 'x: "yes"', "x: 0"])
def test_words_that_both_read_alike_are_not(tmp_path, text):
    assert compared(tmp_path, a=text).notes == ()


def test_a_key_that_stands_there_twice_is_pointed_out(tmp_path):
    found = compared(tmp_path, a="m: {dtype: float16,\n  dtype: float32}")
    assert found.jobs[0].settings["m"]["dtype"].value == "float32"
    assert found.notes == ("a.yaml: m.dtype is set twice, on lines 1 and 2; the later one wins",)


def test_a_key_that_stands_there_twice_in_json_is_pointed_out(tmp_path):
    (tmp_path / "a.json").write_text('{"m": {"x": 1, "x": 2}}')
    assert read(tmp_path / "a.json").notes == ("a.json: m.x is set twice; the later one wins",)


def test_merge_keys_are_merged_and_the_mappings_own_win(tmp_path):
    text = "d: &d {dtype: float16, n: 1}\nm:\n  <<: *d\n  n: 2\n"
    settings = job_from(*written(tmp_path, a=text)).settings
    assert {key: leaf.value for key, leaf in settings["m"].items()} == {"dtype": "float16", "n": 2}


def test_a_tag_is_kept_as_text_and_never_executed(tmp_path):
    marker = tmp_path / "executed"
    (path,) = written(tmp_path, a=f"x: !!python/object/apply:pathlib.Path.touch [{marker}]\ny: !mine 3")
    settings = job_from(path).settings
    assert (settings["x"].kind, settings["y"].shown) == ("tagged", "!mine 3")
    assert "python/object/apply" in settings["x"].shown
    assert not marker.exists()


@pytest.mark.parametrize("word", ["!!bool maybe", "!!timestamp soon", "!!int x", "!!float x", "!!binary é", "9" * 5000])
def test_a_word_that_is_not_what_its_tag_says_is_kept_as_text(tmp_path, word):
    assert job_from(*written(tmp_path, a=f"x: {word}")).settings["x"].kind == "tagged"


def test_an_empty_list_is_a_value(tmp_path):
    base, own = written(tmp_path, base="s: [1]", own="s: []")
    told = list(content(compare([job_from(f"{base}+{own}")]), everything=False))
    assert "s: [] overrides [1] (base.yaml:1)" in told[1]


def test_an_empty_file_lacks_every_setting(tmp_path):
    found = differing(tmp_path, a="x: 1\nm: {y: 2}", b="")
    assert found == [("x", ["1", None], "absent"), ("m.y", ["2", None], "absent")]
    assert differing(tmp_path, a="", b="") == []


def test_anchors_that_stand_for_billions_of_values_are_refused(tmp_path):
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
    with pytest.raises(RecordError, match="anchors expand to more than 200,000 values"):
        job_from(*written(tmp_path, a=text))


def test_an_anchor_that_holds_itself_is_refused(tmp_path):
    with pytest.raises(RecordError, match="line 1 contains itself"):
        job_from(*written(tmp_path, a="x: &x [*x]"))


@pytest.mark.parametrize(("name", "text"), [("a.json", '{"a":' * 5000 + "1" + "}" * 5000), ("a.yaml", "[" * 5000)])
def test_deep_files_are_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(RecordError, match="nested deeper than 100 levels"):
        job_from(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        ("a.yaml", "a: [1", RecordError, "cannot be read"),
        ("a.json", "{", RecordError, "cannot be read"),
        ("a.toml", "a = ", RecordError, "cannot be read"),
        ("a.yaml", "- 1", RecordError, "expected settings by key, found a list"),
        ("a.ini", "a=1", UsageError, "expected a settings file"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path, name, text, error, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=said):
        job_from(str(tmp_path / name))


def test_a_missing_file_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match=r"none\.yaml cannot be read: No such file"):
        job_from(str(tmp_path / "none.yaml"))


def won(job):
    """Path, the value that won and its place, and what it won over."""
    return [(one.path, one.won.shown, one.won.place, one.lost.shown) for one in job.overrides if changes(one)]


def test_the_bug_of_the_seed_is_pointed_out(tmp_path):
    """A base file laid over the job's own: it loads another model than its name says."""
    own, base = written(tmp_path, gemma3_12b_it=FAILS, base=WORKS)
    job = job_from(f"{own}+{base}")
    expected = ("model.name", '"google/gemma-3-4b-it"', "base.yaml:2", '"google/gemma-3-12b-it"')
    assert won(job)[0] == expected
    (note,) = compare([job]).notes
    assert 'named for 12b, but model.name is "google/gemma-3-4b-it" (base.yaml:2)' in note


def test_a_job_that_loads_the_model_of_its_name_is_not_noted(tmp_path):
    assert compared(tmp_path, gemma3_12b_it=FAILS).notes == ()


@pytest.mark.parametrize("key", ["base", "_base_", "extends"])
def test_a_file_wins_over_the_one_that_it_names(tmp_path, key):
    _, own = written(tmp_path, common="x: 1\ny: 1\n", own=f"{key}: common.yaml\nx: 2\n")
    job = job_from(own)
    assert job.files == ("common.yaml", "own.yaml")
    assert won(job) == [("x", "2", "own.yaml:2", "1")]
    assert set(job.settings) == {"x", "y"}


def test_a_base_that_is_no_file_is_a_setting(tmp_path):
    assert set(job_from(*written(tmp_path, a="base: ten\nx: 1")).settings) == {"base", "x"}


def test_a_base_that_is_not_there_is_noted(tmp_path):
    (note,) = job_from(*written(tmp_path, a="base: gone.yaml\nx: 1")).notes
    assert note == "a.yaml: base names gone.yaml, which does not exist: its settings are unknown"


def test_a_file_that_stands_on_itself_is_refused(tmp_path):
    path, _ = written(tmp_path, a="base: b.yaml", b="base: a.yaml")
    with pytest.raises(RecordError, match=r"includes itself: a\.yaml -> b\.yaml -> a\.yaml"):
        job_from(path)


@pytest.mark.parametrize(("order", "value"), [("[_self_, common]", 1), ("[common, _self_]", 2)])
def test_the_place_of_self_decides_who_wins(tmp_path, order, value):
    _, own = written(tmp_path, common="x: 1", own=f"defaults: {order}\nx: 2\n")
    assert job_from(own).settings["x"].value == value


def test_a_group_of_defaults_is_put_under_its_key(tmp_path):
    (tmp_path / "model").mkdir()
    written(tmp_path / "model", gemma="dtype: float16")
    job = job_from(*written(tmp_path, own="defaults:\n  - model: gemma\n  - _self_\nx: 1"))
    assert job.settings["model"]["dtype"].value == "float16"


def test_defaults_without_self_are_noted(tmp_path):
    _, own = written(tmp_path, common="x: 1", own="defaults: [common]\nx: 2\n")
    (note,) = job_from(own).notes
    assert "in Hydra 1.0 they override the file" in note


def test_base_files_of_the_command_line_lie_below_every_job(tmp_path):
    _, own = written(tmp_path, base="x: 1\ny: 1", own="x: 2")
    job = job_from(own, [tmp_path / "base.yaml"])
    assert won(job) == [("x", "2", "own.yaml:1", "1")]
    assert job.settings["y"].place == "base.yaml:2"


def test_a_file_laid_over_another_does_not_change_its_anchors(tmp_path):
    base, own = written(tmp_path, base="a: &a {x: 1}\nb: *a\n", own="a: {x: 2}")
    job = job_from(f"{base}+{own}")
    assert (job.settings["a"]["x"].value, job.settings["b"]["x"].value) == (2, 1)


def test_the_table_has_a_column_for_each_job_and_long_values_are_a_block(tmp_path):
    long = "x" * 100
    found = compared(tmp_path, works=f"{WORKS}k: 1\n", fails=f"{FAILS}k: {long}\n")
    table, *told = content(found, everything=False)
    assert isinstance(table, Table)
    assert table.head == ("setting", "works.yaml", "fails.yaml", "matters for")
    assert table.rows[1] == ("model.dtype", '"bfloat16"', '"float16"', "dtype")
    assert told[:3] == ["k", "  works.yaml: 1", f'  fails.yaml: "{long}"']
    assert told[-1] == "4 settings differ, 0 the same."


def test_the_document_is_json_with_types(tmp_path):
    found = json.loads(json.dumps(document(compared(tmp_path, a="n: 384", b='n: "384"'))))
    (difference,) = found["differences"]
    assert difference["values"][0] == {"value": 384, "kind": "whole number", "file": "a.yaml", "line": 1}
    assert difference["values"][1]["kind"] == "text"


def bases_that_win(tmp_path):
    """Two jobs whose base is laid over them."""
    own = "defaults:\n  - _self_\n  - base\nmodel: {}\ndtype: float16\nlength: 64\nseed: 1\n"
    (tmp_path / "base.yaml").write_text("model: small-4b\ndtype: bfloat16\nlength: 128\nbatch: 8\n")
    for size in ("12b", "27b"):
        (tmp_path / f"{size}.yaml").write_text(own.format(f"big-{size}"))
    return [job_from(str(tmp_path / f"{size}.yaml")) for size in ("12b", "27b")]


def test_settings_of_a_job_that_its_base_overrides_are_told_before_anything_else(tmp_path):
    compared = compare(bases_that_win(tmp_path))
    told = [line for line in content(compared, everything=False) if isinstance(line, str)]
    assert told[2:4] == [
        f"{size}.yaml: 3 settings of the job are overridden by base.yaml: model, dtype, length"
        for size in ("12b", "27b")
    ]
    assert compared.differences == ()
    assert compared.differs  # neither job runs with what its own file says
    assert document(compared)["jobs"][0]["overruled"] == ["model", "dtype", "length"]


def test_a_setting_of_three_files_is_counted_and_told_once(tmp_path):
    for name, value in (("a", 1), ("b", 2), ("c", 3)):
        (tmp_path / f"{name}.yaml").write_text(f"x: {value}\ny: 1\n")
    job = job_from("+".join(str(tmp_path / f"{name}.yaml") for name in "abc"))
    told = list(content(compare([job]), everything=False))
    assert told[1].endswith("x: 3 (c.yaml:1) overrides 2 (b.yaml:1), 1 (a.yaml:1)")
    assert told[-1] == "1 of 2 settings is set to different values in more than one file."


def test_a_base_that_is_named_twice_is_laid_once(tmp_path):
    (tmp_path / "base.yaml").write_text("x: 1\n")
    (tmp_path / "job.yaml").write_text("base: base.yaml\nx: 2\n")
    job = job_from(str(tmp_path / "job.yaml"), [tmp_path / "base.yaml"])
    assert job.files == ("base.yaml", "job.yaml")
    assert not compare([job_from(str(tmp_path / "base.yaml"), [tmp_path / "base.yaml"])]).differs


def test_what_stands_in_the_table_is_not_told_again(tmp_path):
    (tmp_path / "base.yaml").write_text("x: 1\nz: 1\n")
    for name, value in (("a", 2), ("b", 3)):
        (tmp_path / f"{name}.yaml").write_text(f"base: base.yaml\nx: {value}\nz: 2\n")
    compared = compare([job_from(str(tmp_path / f"{name}.yaml")) for name in "ab"])
    told = [line for line in content(compared, everything=False) if isinstance(line, str) and "overrides" in line]
    assert told == [f"{name}.yaml: z: 2 ({name}.yaml:3) overrides 1 (base.yaml:2)" for name in "ab"]


def test_a_base_that_is_not_there_may_hold_a_difference(tmp_path):
    (tmp_path / "a.yaml").write_text("base: none.yaml\nx: 1\n")
    job = job_from(str(tmp_path / "a.yaml"))
    assert job.missing
    done = repro("config-diff", "a.yaml", cwd=tmp_path)
    assert (done.returncode, "its settings are unknown" in done.stdout) == (125, True)
