"""Everything that differs between two cells, sorted by whether it can be held apart from the axis that differs. Pure.

Two cells differ in one axis **alone** where no other axis differs; where every package that differs besides is required
by that axis, directly or not, wherever it is installed, and not by the other axis that is a package; and where no
setting differs but those which the axis itself determines (``DETERMINED``). Python, platform and device bring no
packages, so there none may differ.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]

AXES = {
    "torch": "torch",
    "transformers": "Transformers",
    "python": "Python",
    "platform": "the platform",
    "device": "the device",
}
"""What a cell is chosen by, and its name in a sentence."""
PACKAGES = ("torch", "transformers")
"""The axes that are packages, and so bring others with them."""
DETERMINED = {
    # A wheel of torch has its BLAS, oneDNN, CUDA runtime and cuDNN built in or required exactly, and each release picks
    # the vector instructions for a processor by a list of its own.
    "torch": frozenset({"blas", "mkldnn", "cpu.capability", "accelerators.runtime", "accelerators.cudnn"}),
    # Another platform is another machine, with another build of the same release. Its number of threads can be made
    # equal, so that is not excused.
    "platform": frozenset({"blas", "mkldnn", "cpu.model", "cpu.capability"}),
}
"""The settings that an axis determines, so that they cannot be held equal while it changes."""
UNUSED_ON_CPU = ("accelerators", "tf32")
"""Settings without effect where both cells compute on the CPU; whether they are seen depends on the wheel."""
PLAIN_SETTINGS = ("threads", "interop_threads", "blas", "mkldnn", "matmul_precision", "deterministic", "flush_denormal")
"""The settings of the environment that are one value each."""
BUILT_IN = ("runtime", "cudnn")
"""What of an accelerator's description comes from the wheel of torch, not from the machine."""
NOT_RECORDED = "the list of installed packages (not recorded)"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that has another value in each of two cells; None where a cell does not have it.

    Where the two cells are both bad, ``bad`` is the first one's value and ``good`` the second one's.
    """

    name: str
    bad: Any
    good: Any


@dataclass(frozen=True, slots=True)
class Gap:
    """All that differs between two cells.

    ``in_the_way`` is what keeps the two from differing in an axis alone, ``carried`` what comes along with the axis.
    """

    axes: tuple[Change, ...]
    packages: tuple[Change, ...]
    settings: tuple[Change, ...]
    in_the_way: tuple[str, ...]
    carried: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """How far apart the two cells are: the smaller, the nearer."""
        return len(self.axes), len(self.packages), len(self.settings)

    @property
    def alone(self) -> str | None:
        """The axis in which the two cells differ alone."""
        return self.axes[0].name if len(self.axes) == 1 and not self.in_the_way else None


def between(bad: Row, good: Row) -> Gap:
    """The gap between two cells whose environments were recorded."""
    axes = _changes(_axes(bad), _axes(good))
    if any(change.name == "platform" for change in axes):
        # The local label of a version names the build, and a wheel of another platform is another build.
        axes = tuple(change for change in axes if change.name != "torch" or _public(change.bad) != _public(change.good))
    packages = _changes(_distributions(bad), _distributions(good))
    settings = _changes(_settings(bad), _settings(good))
    axis = axes[0].name if len(axes) == 1 else ""
    on_cpu = bad.get("device") == good.get("device") == "cpu"
    sorted_out = [(change, _brought(change.name, axis, (bad, good))) for change in packages]
    sorted_out += [(change, _determined(change.name, axis, on_cpu=on_cpu)) for change in settings]
    in_the_way = [_shown(change) for change, excused in sorted_out if not excused]
    if any(not row["environment"].get("distributions") for row in (bad, good)):
        in_the_way.append(NOT_RECORDED)
    carried = tuple(change.name for change, excused in sorted_out if excused)
    return Gap(axes, packages, settings, tuple(in_the_way), carried)


def _changes(bad: Mapping[str, Any], good: Mapping[str, Any]) -> tuple[Change, ...]:
    """In the order of ``bad``'s names, then of those that only ``good`` has."""
    names = dict.fromkeys([*bad, *good])
    return tuple(Change(n, bad.get(n), good.get(n)) for n in names if bad.get(n) != good.get(n))


def _axes(row: Row) -> dict[str, Any]:
    found = {name: row.get(name) or row["environment"].get(name) for name in AXES}
    # From 3.13 on, Python on macOS adds the executable's format to the platform's name; the platform is the same.
    platform = str(found["platform"]).removesuffix("-Mach-O")
    machine = row.get("machine") or row["environment"].get("machine")
    found["platform"] = platform if machine is None or str(machine) in platform else f"{platform} {machine}"
    return found


def _public(version: object) -> str:
    return str(version).partition("+")[0]


def _distributions(row: Row) -> dict[str, Any]:
    """What is installed besides the axes; of an environment without that list, the packages it names.

    The many parts of CUDA come last, so that a list cut short shows the others.
    """
    found = row["environment"].get("distributions") or row["environment"].get("packages") or {}
    return {name: found[name] for name in sorted(found, key=_parts_of_cuda_last) if name not in PACKAGES}


def _parts_of_cuda_last(name: str) -> tuple[bool, str]:
    return name.startswith("nvidia-"), name


def _settings(row: Row) -> dict[str, Any]:
    """What changes numbers, flat: ``cpu.model``, ``tf32.matmul``, ``variables.OMP_NUM_THREADS``."""
    environment = row["environment"]
    found = {name: row.get(name) for name in ("dtype", "attn")}
    found |= {name: environment.get(name) for name in PLAIN_SETTINGS}
    cpu = environment.get("cpu") or {}
    found |= {f"cpu.{name}": cpu.get(name) for name in ("model", "capability")}
    for group in ("tf32", "variables"):
        found |= {f"{group}.{name}": value for name, value in sorted((environment.get(group) or {}).items())}
    cards = environment.get("accelerators") or []
    own = [", ".join(f"{k} {v}" for k, v in card.items() if k not in BUILT_IN) for card in cards]
    found["accelerators"] = "; ".join(own) or None
    for name in BUILT_IN:
        found[f"accelerators.{name}"] = ", ".join(str(card[name]) for card in cards if card.get(name)) or None
    return found


def _brought(package: str, axis: str, rows: Iterable[Row]) -> bool:
    """Whether, wherever the package is installed, the axis requires it and the other axis does not."""
    if axis not in PACKAGES:
        return False
    for row in rows:
        closures = row["environment"].get("closures") or {}
        required_by = {name for name in PACKAGES if package in (closures.get(name) or ())}
        if package in _distributions(row) and required_by != {axis}:
            return False
    return True


def _determined(setting: str, axis: str, *, on_cpu: bool) -> bool:
    return setting in DETERMINED.get(axis, ()) or (on_cpu and setting.partition(".")[0] in UNUSED_ON_CPU)


def _shown(change: Change) -> str:
    """``numpy (1.26.4, 2.1.0)``; a package or setting that is not there is "none"."""
    values = ("none" if value is None else str(value) for value in (change.bad, change.good))
    return f"{change.name} ({', '.join(values)})"
