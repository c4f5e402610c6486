"""Addresses in a text: e-mail, IP and MAC addresses, and host names that are not public."""

import ipaddress
import re

from repro.report.privacy.ordinary import words_of_programs

PUBLIC_HOSTS = frozenset(
    {
        "github.com", "githubusercontent.com", "github.io", "gitlab.com", "bitbucket.org", "huggingface.co", "hf.co",
        "pytorch.org", "python.org", "pypi.org", "pythonhosted.org", "readthedocs.io", "readthedocs.org", "arxiv.org",
        "nvidia.com", "anaconda.org", "anaconda.com", "conda.io", "google.com", "googleapis.com", "apple.com",
        "microsoft.com", "intel.com", "amd.com", "kernel.org", "w3.org", "schema.org", "json-schema.org", "apache.org",
        "numpy.org", "scipy.org", "vllm.ai", "stackoverflow.com", "wikipedia.org", "ieee.org", "doi.org",
        "matplotlib.org", "openai.com", "tensorflow.org", "google.dev", "example.com", "example.org", "example.net",
        "plotly.com", "plot.ly", "jquery.com", "jsdelivr.net", "unpkg.com", "mozilla.org",
    }
)  # fmt: skip
"""Public hosts, with their subdomains: naming one identifies nobody."""
GENERIC = frozenset({"host", "hostname", "localhost", "server", "proxy", "example", "IP", "HOST", "TOKEN", "MAIL"})
"""Host names that are ordinary words, and this module's own placeholders."""
OWN_SCHEMES = frozenset({"hf", "file", "memory", "data", "chrome", "resource"})
"""Schemes that no host name follows."""

MAIL = re.compile(r"(?<!//)(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])")
MAC = re.compile(
    r"(?<![A-Za-z0-9:])(?<![0-9A-Fa-f]{2}-)(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}"
    r"(?![A-Za-z0-9:]|-[0-9A-Fa-f]{2}(?![A-Za-z]))"
)
BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
QUAD = rf"{BYTE}(?:\.{BYTE}){{3}}"
IPV4 = re.compile(rf"(?<![A-Za-z0-9.]){QUAD}(?![A-Za-z0-9]|\.\d|-(?:py|cp)\d)")
VERSION = re.compile(
    rf"""(?:[=~<>!]=|@
    |(?<![\w-])(?i:nvidia|nv(?:cc|jitlink|rtc|tx|ml|shmem)|nccl|cud(?:a|nn|art)|cu(?:blas|fft|rand|solver|sparse|sparselt
    |file|tensor|pti)|driver|version|build|release|ver|v)[\w.-]{{0,40}}(?:[`'"\s:=|]|</?code>){{1,4}})(?:{QUAD}[`'",\s|]{{1,4}})*$""",
    re.X,
)
"""What comes before a four-part version, such as those of CUDA's packages: ``cudnn 9.10.2.21``."""
PACKAGE = re.compile(r"[A-Za-z][\w.]{0,40}[_-]$")
OF_PACKAGE = re.compile(rf"{QUAD}[\w.+!-]*")
"""The whole version of a package."""
BEFORE = 80
"""How much of the text before four numbers is read to tell a version from an address."""
IPV6 = re.compile(r"(?<![\w:.])(?=[0-9A-Fa-f]{1,4}:|::)[0-9A-Fa-f:]{4,39}(?![\w:])")
NETWORKS = tuple(map(ipaddress.IPv6Network, ("2000::/3", "fc00::/7", "fe80::/10")))
"""Ranges that hold addresses of machines. Anything else, such as ``c10::add``, is a C++ name."""
HOST = re.compile(r"\b([a-z][a-z0-9+.-]{1,20})://(TOKEN@)?([\w-]+(?:\.[\w-]+)*)", re.I)

INTERNAL_ENDS = (".internal", ".corp", ".local", ".lan", ".intranet", ".home.arpa", ".localdomain")
INTERNAL = re.compile(
    r"(?<![\w.-])(?:[a-z0-9][\w-]{0,62}\.){1,8}(?:"
    + "|".join(re.escape(end[1:]) for end in INTERNAL_ENDS)
    + r")(?![\w(-]|\.(?!(?:safetensors|bin|gguf|pt|json|log|txt)\b)\w)",
    re.I,
)
"""A host by the ends of names that no public network has."""
REMOTE = re.compile(r"(?<![\w.+-])[\w-]{1,32}@((?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}):(?!\d+/)([\w.~-]+(?:/[\w.-]+)+)")
PUBLIC_REPOSITORIES = ("huggingface/", "pytorch/")
OF_PROGRAMS = frozenset({"torch", "threading", "self", "cls", "asyncio", "transformers"})
LOGIN = re.compile(r"(?i)(\b(?:ssh|scp|sftp|rsync|mosh)\s(?:-\S+\s){0,4})[\w.-]{1,32}@[\w-]{1,63}(?![\w@]|\.\w)")
"""A login at a host without a domain, where a command says that it is one."""


def without_addresses(text: str, *, versions: bool = False) -> str:
    """``text`` with ``MAIL``, ``MAC``, ``IP`` and ``HOST`` in their place.

    Args:
        text: Any.
        versions: Whether four numbers by themselves are the version of a package.
    """
    if "@" in text:
        text = LOGIN.sub(r"\1USER@HOST", REMOTE.sub(_remote, text))
        text = MAIL.sub(_mail, text)
    if text.count(":") >= 5 or text.count("-") >= 5:
        text = MAC.sub("MAC", text)
    if text.count(".") >= 3 and not (versions and OF_PACKAGE.fullmatch(text)):
        text = IPV4.sub(_ipv4, text)
    if text.count(":") >= 2:
        text = IPV6.sub(_ipv6, text)
    if "://" in text:
        text = HOST.sub(_host, text)
    lower = text.lower()
    return INTERNAL.sub(_internal, text) if any(end in lower for end in INTERNAL_ENDS) else text


def _internal(match: re.Match[str]) -> str:
    """``threading.local`` and ``model.config.local`` are names in programs."""
    labels = match[0].lower().split(".")[:-1]
    return match[0] if all(label in OF_PROGRAMS or label in words_of_programs() for label in labels) else "HOST"


def _mail(match: re.Match[str]) -> str:
    behind = match.string[match.end() :][:20]
    name, _, host = match[0].partition("@")
    if not re.search(r"\w", name) or host.split(".")[0] in OF_PROGRAMS:
        return match[0]  # a decorator in a difference, and a product of matrices
    return match[0] if name == "git" and is_public(host) and behind[1:].startswith(PUBLIC_REPOSITORIES) else "MAIL"


def _remote(match: re.Match[str]) -> str:
    public = is_public(match[1]) and match[2].startswith(PUBLIC_REPOSITORIES)
    return match[0] if public else "MAIL:REPO"


def is_public(host: str) -> bool:
    """Whether a host name identifies nobody."""
    labels = host.lower().rstrip(".").split(".")
    return host in GENERIC or any(".".join(labels[start:]) in PUBLIC_HOSTS for start in range(len(labels)))


def _ipv4(match: re.Match[str]) -> str:
    address = ipaddress.IPv4Address(".".join(part.lstrip("0") or "0" for part in match[0].split(".")))
    if address.is_loopback or address.is_unspecified or match[0].startswith("255."):
        return match[0]
    before = match.string[max(0, match.start() - BEFORE) : match.start()]
    if VERSION.search(before) or (PACKAGE.search(before) and not address.is_private):
        return match[0]
    return "IP"


def _ipv6(match: re.Match[str]) -> str:
    try:
        address = ipaddress.IPv6Address(match[0])
    except ValueError:
        return match[0]
    return "IP" if any(address in network for network in NETWORKS) else match[0]


def _host(match: re.Match[str]) -> str:
    scheme, login, host = match.groups()
    if scheme.lower() in OWN_SCHEMES or is_public(host) or IPV4.fullmatch(host):
        return match[0]
    return f"{scheme}://{login or ''}HOST"
