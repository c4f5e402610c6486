"""What is installed and what of it a package requires: held against importlib.metadata and the packaging library."""

import json
import platform
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from repro.probes.machine import environment
from repro.probes.machine.environment import accelerate_config, gpu_driver, measure
from repro.probes.machine.packages import canonical, closure, holds, installed, wanted
from repro.probes.protocol.wire import jsonable


class Injected:
    """A distribution with requirements of its own."""

    def __init__(self, *requires):
        self.requires = list(requires)


def closure_by_packaging(package):
    """Breadth first over importlib.metadata, with the registry's own reader of requirements."""
    seen, waiting = set(), [(package, "")]
    while waiting:
        name, extra = waiting.pop(0)
        if (name, extra) in seen:
            continue
        try:
            requires = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, requires):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found = canonicalize_name(requirement.name)
                waiting += [(found, ""), *((found, item) for item in requirement.extras)]
    return sorted({name for name, _ in seen} - {package})


def test_every_distribution_is_there_with_its_version():
    names = {canonicalize_name(found.metadata["Name"]) for found in metadata.distributions()}
    assert measure()["distributions"] == {name: metadata.version(name) for name in sorted(names)}


def test_a_module_of_another_name_leads_to_its_distribution():
    found, expected = measure()["modules"], metadata.packages_distributions()
    assert (found["yaml"], found["PIL"]) == ("pyyaml", "pillow")
    for module, name in found.items():
        assert {canonicalize_name(other) for other in expected[module]} == {name}
        assert canonicalize_name(module) != name


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_the_closure_is_the_one_that_packaging_gives(package):
    expected = closure_by_packaging(package)
    assert len(expected) > 5
    assert measure()["closures"][package] == expected


def test_the_payload_is_plain_data():
    found = measure()
    assert json.loads(json.dumps(jsonable(found))) == jsonable(found)


def test_a_package_that_is_not_installed_has_no_closure():
    assert closure("a-package-that-is-not-there", installed()) == []


# --- injected requirements ------------------------------------------------------------------------------------------


def test_a_closure_goes_through_others_and_around_a_circle():
    found = {"a": Injected("B_x>=1"), "b-x": Injected("c", "not-installed"), "c": Injected("a"), "d": Injected()}
    assert closure("a", found) == ["b-x", "c"]


def test_an_extra_counts_only_where_it_is_asked_for():
    found = {"a": Injected("b"), "b": Injected("c; extra == 'more'"), "c": Injected()}
    assert closure("a", found) == ["b"]
    assert closure("a", {**found, "a": Injected("b[More]")}) == ["b", "c"]


def test_an_extra_may_ask_for_itself():
    found = {"a": Injected("b[all]"), "b": Injected("b[one]; extra == 'all'", "c; extra == 'one'"), "c": Injected()}
    assert closure("a", found) == ["b", "c"]


@pytest.mark.parametrize("name", ["Typing_Extensions", "a.b-_c", "PyYAML", "numpy"])
def test_names_are_compared_as_registries_do(name):
    assert canonical(name) == canonicalize_name(name)


@pytest.mark.parametrize(
    "text",
    [
        "numpy",
        "numpy>=1.17,<2",
        "numpy (>=1.17)",
        "Pkg_Name[one,two] >= 2 ; python_version >= '3'",
        "pkg @ https://example.org/a;b.zip",
        "pkg @ https://example.org/a;b.zip ; python_version < '3'",
        "pkg; python_version < '3'",
    ],
)
def test_a_requirement_asks_for_what_packaging_reads(text):
    requirement = Requirement(text)
    name = canonicalize_name(requirement.name)
    here = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    assert set(wanted(text)) == ({(name, ""), *((name, item) for item in requirement.extras)} if here else set())


@pytest.mark.parametrize(
    "marker",
    [
        "python_version >= '3.9'",
        "python_version < '3.10'",  # as versions: as text, 3.9 would be the larger
        "python_full_version >= '3.9.0'",
        "python_version == '3.*'",
        "python_version != '3.*'",
        "python_version ~= '3.1'",
        "python_version in '2.6 2.7'",
        "platform_system == 'Linux'",
        "sys_platform == 'linux' and platform_machine == 'x86_64'",
        "sys_platform != 'linux' and platform_machine == 'x86_64' or os_name == 'posix'",
        "sys_platform != 'linux' and (platform_machine == 'x86_64' or os_name == 'posix')",
        "'linux' in sys_platform",
        "'win' not in sys_platform",
        "platform_python_implementation == 'PyPy' or implementation_name == 'cpython'",
        "extra == 'Dev_Tools'",
        "extra != 'dev-tools'",
        "'3.8' < python_version",
    ],
)
@pytest.mark.parametrize("extra", ["", "dev-tools"])
def test_a_marker_holds_where_packaging_says_so(marker, extra):
    assert holds(marker, extra) == Marker(marker).evaluate({"extra": extra})


@pytest.mark.parametrize(
    "marker", ["no marker at all", "python_version >=", "(os_name == 'x'", "a == 'b'", "os_name ? 'x'"]
)
def test_a_marker_that_cannot_be_read_leaves_nothing_out(marker):
    assert holds(marker)


@pytest.mark.parametrize("version", ["3.15.0a1", "3.14.0rc2", "3.14.0", "3.13.1+"])
@pytest.mark.parametrize("operator", ["<", "<=", "==", "!=", ">=", ">", "~="])
@pytest.mark.parametrize("other", ["3.14", "3.15", "3.15.0", "3.13.1"])
def test_a_python_before_its_release_is_compared_as_packaging_does(monkeypatch, version, operator, other):
    monkeypatch.setattr(platform, "python_version", lambda: version)
    marker = f"python_full_version {operator} '{other}'"
    assert holds(marker) == Marker(marker).evaluate({"python_full_version": version})


VERSIONS = st.sampled_from(["3", "3.9", "3.10", "3.11", "3.11.7", "3.12", "99", "3.1.0"])
SIMPLE = st.one_of(
    st.builds(
        lambda name, operator, version: f"{name} {operator} '{version}'",
        st.sampled_from(["python_version", "python_full_version", "implementation_version"]),
        st.sampled_from(["<", "<=", "==", "!=", ">=", ">"]),
        VERSIONS,
    ),
    st.builds(lambda version: f"python_version ~= '{version}'", VERSIONS.filter(lambda text: "." in text)),
    st.builds(lambda v, operator: f"python_version {operator} '{v}.*'", VERSIONS, st.sampled_from(["==", "!="])),
    st.builds(
        lambda name, operator, value: f"{name} {operator} '{value}'",
        st.sampled_from(["sys_platform", "platform_machine", "platform_system", "os_name", "implementation_name"]),
        st.sampled_from(["==", "!=", "in", "not in"]),
        st.sampled_from(["linux", "darwin", "x86_64", "arm64", "Linux", "posix", "cpython", "linux darwin"]),
    ),
    st.builds(lambda name: f'extra == "{name}"', st.sampled_from(["a", "B_c", "d"])),
)
MARKERS = st.recursive(
    SIMPLE,
    lambda inner: st.builds(lambda a, word, b: f"({a}) {word} {b}", inner, st.sampled_from(["and", "or"]), inner),
    max_leaves=5,
)


@given(MARKERS, st.sampled_from(["", "a", "b-c"]))
def test_markers_of_any_depth_hold_where_packaging_says_so(text, extra):
    assert holds(text, extra) == Marker(text).evaluate({"extra": extra})


def test_every_requirement_installed_here_is_read_as_packaging_reads_it():
    found = [(item, text) for item in metadata.distributions() for text in item.requires or []]
    assert len(found) > 100
    for item, text in found:
        marker = Requirement(text).marker
        for extra in ["", *(item.metadata.get_all("Provides-Extra") or [])]:
            expected = marker is None or marker.evaluate({"extra": extra})
            assert bool(wanted(text, canonical(extra))) == expected, text


# --- what counts as installed --------------------------------------------------------------------------------------


def fault(folder, text):
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\n{text}")


def test_of_two_the_first_on_the_path_is_installed(tmp_path, monkeypatch):
    for place, version in (("a", "1.0"), ("b", "2.0")):
        fault(tmp_path / place / f"torch-{version}.dist-info", f"Name: torch\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "a"), str(tmp_path / "b")])
    assert installed()["torch"].version == "1.0"


def test_a_folder_without_a_name_is_not_installed(tmp_path, monkeypatch):
    """An interrupted installation leaves such."""
    fault(tmp_path / "broken-1.0.dist-info", "")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert installed() == {}


# --- what the forms of other projects ask for ------------------------------------------------------------------------


def test_how_torch_was_built_is_what_torch_says():
    found = measure()["build"]
    assert found["debug"] is torch.version.debug
    assert (found["cuda"], found["hip"]) == (torch.version.cuda, torch.version.hip)


def test_the_python_build_is_that_of_this_interpreter():
    said = measure()["python_build"]
    assert said == f"{sys.version} (64-bit runtime)".replace("\n", " ")


@pytest.mark.skipif(not Path("/etc/os-release").exists(), reason="there is no os-release file here")
def test_the_system_is_named_as_it_names_itself():
    assert measure()["system"] == platform.freedesktop_os_release()["PRETTY_NAME"]


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="there is no /proc here")
def test_the_memory_is_that_of_the_machine():
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:"))
    assert measure()["memory_bytes"] == int(total.split()[1]) * 1024


def test_without_an_accelerator_none_is_named():
    if torch.cuda.is_available() or environment.has_mps():
        pytest.skip("there is an accelerator here")
    found = measure()
    assert (found["accelerator"], found["accelerators"]) == (None, [])


def injected_config(folder, monkeypatch, text):
    (folder / "accelerate").mkdir()
    (folder / "accelerate" / "default_config.yaml").write_text(text)
    monkeypatch.setenv("HF_HOME", str(folder))
    return accelerate_config()


YAML = """\
# a comment
compute_environment: LOCAL_MACHINE
debug: false
fsdp_config:
  fsdp_offload_params: true
mixed_precision: 'bf16'
num_processes: 1
main_process_ip: 10.0.0.5
same_network: null
"""


def test_the_default_configuration_of_accelerate_is_read_as_yaml(tmp_path, monkeypatch):
    found = injected_config(tmp_path, monkeypatch, YAML)
    assert found == {
        "compute_environment": "LOCAL_MACHINE",
        "debug": "False",
        "mixed_precision": "bf16",
        "num_processes": "1",
    }


def test_the_default_configuration_of_accelerate_may_be_json(tmp_path, monkeypatch):
    """Accelerate writes that into the same file."""
    text = json.dumps({"debug": True, "mixed_precision": "no", "num_machines": 2, "fsdp_config": {}, "a": None})
    found = injected_config(tmp_path, monkeypatch, text)
    assert found == {"debug": "True", "mixed_precision": "no", "num_machines": "2"}


@pytest.mark.parametrize(
    "key", ["main_process_ip", "deepspeed_hostfile", "iam_role_name", "profile", "tpu_zone", "image_uri", "hub_token"]
)
def test_a_setting_that_names_machines_or_accounts_is_not_read(tmp_path, monkeypatch, key):
    assert injected_config(tmp_path, monkeypatch, f"{key}: something\nuse_cpu: true\n") == {"use_cpu": "True"}


def test_without_a_configuration_of_accelerate_it_is_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert accelerate_config() == {}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n", "570.86.10"),
        ("something else\n", None),
    ],
)
def test_the_driver_is_the_one_that_its_kernel_module_tells(tmp_path, monkeypatch, text, version):
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(environment, "DRIVER_FILE", str(tmp_path / "version"))
    assert gpu_driver() == version


def test_without_the_kernel_module_there_is_no_driver(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "DRIVER_FILE", str(tmp_path / "version"))
    assert gpu_driver() is None
