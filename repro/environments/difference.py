"""Everything that differs between two cells, sorted by whether it can be held apart from the axis that differs. Pure.

Two cells differ in one axis **alone** where no other axis differs; where every package that differs besides is required
by that axis, directly or not, wherever it is installed, and not by the other axis that is a package; and where no
setting differs but those which the axis itself determines (``DETERMINED``). Python, platform and device bring no
packages, so there none may differ.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from repro.core.payloads import Environment
from repro.core.sweep_answers import CellRow, Difference

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
class Gap:
    """All that differs between two cells.

    ``in_the_way`` is what keeps the two from differing in an axis alone, ``carried`` what comes along with the axis.
    """

    axes: tuple[Difference, ...]
    packages: tuple[Difference, ...]
    settings: tuple[Difference, ...]
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


def between(bad: CellRow, good: CellRow) -> Gap:
    """The gap between two cells whose environments were recorded."""
    axes = _differences(_axes(bad), _axes(good))
    if any(change.name == "platform" for change in axes):
        # The local label of a version names the build, and a wheel of another platform is another build.
        axes = tuple(change for change in axes if change.name != "torch" or _public(change.bad) != _public(change.good))
    here, there = _environment(bad), _environment(good)
    packages = _differences(_distributions(here), _distributions(there))
    settings = _differences(_settings(bad), _settings(good))
    axis = axes[0].name if len(axes) == 1 else ""
    on_cpu = bad.device == good.device == "cpu"
    sorted_out = [(change, _brought(change.name, axis, (here, there))) for change in packages]
    sorted_out += [(change, _determined(change.name, axis, on_cpu=on_cpu)) for change in settings]
    in_the_way = [_shown(change) for change, excused in sorted_out if not excused]
    if not here.distributions or not there.distributions:
        in_the_way.append(NOT_RECORDED)
    carried = tuple(change.name for change, excused in sorted_out if excused)
    return Gap(axes, packages, settings, tuple(in_the_way), carried)


def _environment(row: CellRow) -> Environment:
    return row.environment or Environment()


def _differences(bad: Mapping[str, object], good: Mapping[str, object]) -> tuple[Difference, ...]:
    """In the order of ``bad``'s names, then of those that only ``good`` has."""
    names = dict.fromkeys([*bad, *good])
    pairs = ((name, bad.get(name), good.get(name)) for name in names)
    return tuple(Difference(name=name, bad=one, good=other) for name, one, other in pairs if one != other)


def _axes(row: CellRow) -> dict[str, object]:
    environment = _environment(row)
    # From 3.13 on, Python on macOS adds the executable's format to the platform's name; the platform is the same.
    platform = str(row.platform or environment.platform).removesuffix("-Mach-O")
    machine = row.machine or environment.machine
    return {
        "torch": row.torch or environment.torch,
        "transformers": row.transformers or environment.transformers,
        "python": row.python or environment.python,
        "platform": platform if machine is None or machine in platform else f"{platform} {machine}",
        "device": row.device,
    }


def _public(version: object) -> str:
    return str(version).partition("+")[0]


def _distributions(environment: Environment) -> dict[str, object]:
    """What is installed besides the axes; of an environment without that list, the packages it names.

    The many parts of CUDA come last, so that a list cut short shows the others.
    """
    found = environment.distributions or environment.packages
    return {name: found[name] for name in sorted(found, key=_parts_of_cuda_last) if name not in PACKAGES}


def _parts_of_cuda_last(name: str) -> tuple[bool, str]:
    return name.startswith("nvidia-"), name


def _settings(row: CellRow) -> dict[str, object]:
    """What changes numbers, flat: ``cpu.model``, ``tf32.matmul``, ``variables.OMP_NUM_THREADS``."""
    environment = _environment(row)
    found: dict[str, object] = {"dtype": row.dtype, "attn": row.attn}
    found |= {name: getattr(environment, name) for name in PLAIN_SETTINGS}
    found |= {f"cpu.{name}": environment.cpu.get(name) for name in ("model", "capability")}
    found |= {f"tf32.{name}": value for name, value in sorted(environment.tf32.items())}
    found |= {f"variables.{name}": value for name, value in sorted(environment.variables.items())}
    cards = environment.accelerators or ()
    own = [", ".join(f"{k} {v}" for k, v in card.items() if k not in BUILT_IN) for card in cards]
    found["accelerators"] = "; ".join(own) or None
    for name in BUILT_IN:
        found[f"accelerators.{name}"] = ", ".join(str(card[name]) for card in cards if card.get(name)) or None
    return found


def _brought(package: str, axis: str, environments: Iterable[Environment]) -> bool:
    """Whether, wherever the package is installed, the axis requires it and the other axis does not."""
    if axis not in PACKAGES:
        return False
    for environment in environments:
        required_by = {name for name in PACKAGES if package in environment.closures.get(name, ())}
        if package in _distributions(environment) and required_by != {axis}:
            return False
    return True


def _determined(setting: str, axis: str, *, on_cpu: bool) -> bool:
    return setting in DETERMINED.get(axis, ()) or (on_cpu and setting.partition(".")[0] in UNUSED_ON_CPU)


def _shown(change: Difference) -> str:
    """``numpy (1.26.4, 2.1.0)``; a package or setting that is not there is "none"."""
    values = ("none" if value is None else str(value) for value in (change.bad, change.good))
    return f"{change.name} ({', '.join(values)})"
