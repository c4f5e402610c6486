"""What changes numbers: versions, processor, BLAS, threads, precision switches, and the variables that steer them.

Built in the process that fails, from importlib.metadata: command-line tools that print such a list look at another
process, and some of them crash in an environment without optional packages.
"""

import importlib.metadata
import json
import os
import platform
import re
import sys
from typing import Any, Optional

import torch

from .packages import closure, installed, modules

PACKAGES = (
    "torch", "transformers", "safetensors", "tokenizers", "accelerate", "huggingface-hub", "numpy", "gguf",
    "bitsandbytes", "peft", "diffusers", "timm", "flash-attn", "kernels", "triton", "deepspeed",
)  # fmt: skip

# Each is documented to change kernels, threads, precision or memory of PyTorch, of a BLAS beneath it, or of
# Transformers.
VARIABLES = re.compile(
    r"^(OMP_|MKL_|OPENBLAS_|BLIS_|VECLIB_|GOMP_|KMP_|DNNL_|ONEDNN_|ATEN_|TORCH_|PYTORCH_|CUDA_|CUBLAS_|CUDNN_|NVIDIA_TF32|NCCL_|"
    r"HIP_|ROCBLAS_|MPS_|ACCELERATE_|TRANSFORMERS_|HF_HUB_OFFLINE|MALLOC_|LD_PRELOAD|DYLD_INSERT)"
)
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|API_?KEY", re.IGNORECASE)
OF_NO_ONE_ELSE = re.compile(r"(^|_)(ip|host|hosts|hostfile|role|profile|name|zone|env|image|uri|file|commands?)(_|$)")
"""Settings of Accelerate's configuration that name machines, accounts and files, not how numbers are computed."""
DRIVER_FILE = "/proc/driver/nvidia/version"
DRIVER = re.compile(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)")


def cpu_model() -> Optional[str]:
    """The processor's name as the system gives it, or None."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.lower().startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or None


def blas() -> Optional[str]:
    """The BLAS that this PyTorch was built with, from its build settings; "accelerate" is Apple's."""
    found = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return found.group(1) if found else None


def cpu_capability() -> Optional[str]:
    """The vector instructions that PyTorch's CPU kernels picked (AVX2, AVX512, DEFAULT, ...); None before torch 2.0's
    call.
    """
    ask = getattr(getattr(torch.backends, "cpu", None), "get_cpu_capability", None)
    return str(ask()) if ask else None


def accelerators() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            found.append(
                {
                    "type": "cuda",
                    "name": card.name,
                    "memory_bytes": card.total_memory,
                    "capability": f"{card.major}.{card.minor}",
                    "runtime": torch.version.cuda or torch.version.hip,
                    "cudnn": torch.backends.cudnn.version(),
                }
            )
    if has_mps():
        found.append({"type": "mps", "name": cpu_model(), "os": platform.mac_ver()[0]})
    return found


def has_mps() -> bool:
    mps = getattr(torch.backends, "mps", None)
    return bool(mps is not None and mps.is_available())


def accelerator() -> Optional[str]:
    """The kind of accelerator that PyTorch can use here, as Transformers and Accelerate name it; None without one."""
    if torch.cuda.is_available():
        return "CUDA"
    for name in ("xpu", "npu", "hpu"):
        ask = getattr(getattr(torch, name, None), "is_available", None)
        if ask is not None and ask():
            return name.upper()
    return "MPS" if has_mps() else None


def gpu_driver() -> Optional[str]:
    """The version of Nvidia's driver as its kernel module tells it; None where there is no such module."""
    try:
        with open(DRIVER_FILE, encoding="utf-8", errors="replace") as lines:
            found = DRIVER.search(lines.read())
    except OSError:
        return None
    return found.group(1) if found else None


def system() -> Optional[str]:
    """The operating system by its own name, such as "Debian GNU/Linux 12 (bookworm)"; None where it has none."""
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if sys.platform == "win32":
        return f"Windows {platform.version()}"
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.startswith("PRETTY_NAME="):
                        return line.partition("=")[2].strip().strip("\"'")
        except OSError:
            continue
    return None


def memory_bytes() -> Optional[int]:
    """The machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def build() -> dict[str, Any]:
    """How this PyTorch was built. ``cuda`` and ``hip`` are None for a build without them."""
    return {
        "debug": bool(torch.version.debug),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "xnnpack": bool(getattr(getattr(torch.backends, "xnnpack", None), "enabled", False)),
    }


def accelerate_config() -> dict[str, str]:
    """The user's default configuration of Accelerate: its settings of one value each, as Accelerate shows them; empty
    where there is no such file.

    Read without a YAML library, which the kit may not count on: ``key: value`` lines at the margin, or the JSON that
    Accelerate itself also writes into that file.
    """
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    home = os.path.expanduser(os.environ.get("HF_HOME") or os.path.join(caches, "huggingface"))
    try:
        with open(os.path.join(home, "accelerate", "default_config.yaml"), encoding="utf-8", errors="replace") as file:
            pairs = _settings(file.read())
    except OSError:
        return {}
    shown = {"true": "True", "false": "False"}
    return {
        key: shown.get(value, value)
        for key, value in pairs
        if value != "null" and not OF_NO_ONE_ELSE.search(key) and not SECRET.search(key)
    }


def _settings(text: str) -> list[tuple[str, str]]:
    """The pairs of a JSON object, or of the lines of a YAML mapping that have a value beside their key."""
    try:
        data = json.loads(text)
    except ValueError:
        found = [re.match(r"([A-Za-z_]\w*): +(\S.*)$", line) for line in text.splitlines()]
        return [(match.group(1), match.group(2).strip().strip("'\"")) for match in found if match]
    plain = data.items() if isinstance(data, dict) else ()
    return [
        (str(key), value if isinstance(value, str) else json.dumps(value))
        for key, value in plain
        if not isinstance(value, (dict, list))
    ]


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measure() -> dict[str, Any]:
    """The environment as plain data. Sizes in bytes; a setting that this PyTorch does not know is None."""
    packages = versions()
    cuda = getattr(torch.backends, "cuda", None)
    found = installed()
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "torch": torch.__version__,
        "torch_git": torch.version.git_version,
        "transformers": packages.get("transformers"),
        "packages": packages,
        "distributions": {name: distribution.version for name, distribution in found.items()},
        "modules": modules(found),
        "closures": {name: closure(name, found) for name in ("torch", "transformers")},
        "python_build": f"{sys.version} ({sys.maxsize.bit_length() + 1}-bit runtime)".replace("\n", " "),
        "build": build(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "system": system(),
        "libc": "-".join(filter(None, platform.libc_ver())) or None,
        "memory_bytes": memory_bytes(),
        "cpu": {"model": cpu_model(), "capability": cpu_capability(), "count": os.cpu_count()},
        "blas": blas(),
        "mkldnn": bool(torch.backends.mkldnn.is_available()),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": {
            "matmul": bool(cuda.matmul.allow_tf32) if torch.cuda.is_available() and cuda else None,
            "cudnn": bool(torch.backends.cudnn.allow_tf32) if torch.cuda.is_available() else None,
        },
        "deterministic": bool(torch.are_deterministic_algorithms_enabled()),
        "flush_denormal": flushes_denormals(),
        "accelerator": accelerator(),
        "accelerators": accelerators(),
        "gpu_driver": gpu_driver(),
        "accelerate_config": accelerate_config(),
        "allocator": {
            name: os.environ[name]
            for name in (
                "PYTORCH_CUDA_ALLOC_CONF",
                "PYTORCH_ALLOC_CONF",
                "PYTORCH_NO_CUDA_MEMORY_CACHING",
                "LD_PRELOAD",
            )
            if name in os.environ
        },
        "variables": {
            name: "(set, not shown)" if SECRET.search(name) else value
            for name, value in sorted(os.environ.items())
            if VARIABLES.match(name)
        },
    }


def flushes_denormals() -> bool:
    """Whether subnormal numbers are rounded to zero in this process: 1e-40 * 0.5 is 5e-41 where they are not."""
    return bool((torch.tensor([1e-40]) * 0.5).item() == 0.0)
