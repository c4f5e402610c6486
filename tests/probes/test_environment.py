"""What is installed and what of it a package requires: held against importlib.metadata and the packaging library."""

import json
from importlib import metadata

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from repro.probes.environment import measure
from repro.probes.packages import canonical, closure, holds, installed, wanted
from repro.probes.wire import jsonable


class Planted:
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


# --- planted requirements ------------------------------------------------------------------------------------------


def test_a_closure_goes_through_others_and_around_a_circle():
    found = {"a": Planted("B_x>=1"), "b-x": Planted("c", "not-installed"), "c": Planted("a"), "d": Planted()}
    assert closure("a", found) == ["b-x", "c"]


def test_an_extra_counts_only_where_it_is_asked_for():
    found = {"a": Planted("b"), "b": Planted("c; extra == 'more'"), "c": Planted()}
    assert closure("a", found) == ["b"]
    assert closure("a", {**found, "a": Planted("b[More]")}) == ["b", "c"]


def test_an_extra_may_ask_for_itself():
    found = {"a": Planted("b[all]"), "b": Planted("b[one]; extra == 'all'", "c; extra == 'one'"), "c": Planted()}
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
