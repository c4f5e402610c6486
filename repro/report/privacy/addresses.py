"""Addresses in a text: e-mail, IP and MAC addresses, and host names that are not public."""

import ipaddress
import re

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


def without_addresses(text: str, *, versions: bool = False) -> str:
    """``text`` with ``MAIL``, ``MAC``, ``IP`` and ``HOST`` in their place.

    Args:
        text: Any.
        versions: Whether four numbers by themselves are the version of a package.
    """
    if "@" in text:
        text = MAIL.sub("MAIL", text)
    if text.count(":") >= 5 or text.count("-") >= 5:
        text = MAC.sub("MAC", text)
    if text.count(".") >= 3 and not (versions and OF_PACKAGE.fullmatch(text)):
        text = IPV4.sub(_ipv4, text)
    if text.count(":") >= 2:
        text = IPV6.sub(_ipv6, text)
    return HOST.sub(_host, text) if "://" in text else text


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
