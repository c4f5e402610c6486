"""Credentials in a text, recognized by the formats that their issuers publish and by the names they are given.

A rule is tried only where one of its marks is in the text: most texts have none, and looking for a mark costs next to
nothing.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

WORD = "TOKEN"
"""What stands for a credential."""


@dataclass(frozen=True, slots=True)
class Rule:
    """``marks``: in lower case, one of which every match contains. ``put``: as ``re.sub`` takes it."""

    marks: tuple[str, ...]
    pattern: re.Pattern[str]
    put: str | Callable[[re.Match[str]], str] = WORD


def _basic(match: re.Match[str]) -> str:
    """``Basic`` and a name with its password in base64; "Basic configuration" stays."""
    try:
        decoded = base64.b64decode(match[2] + "=" * (-len(match[2]) % 4), validate=True)
    except binascii.Error:
        return match[0]
    return match[1] + WORD if b":" in decoded and decoded.isascii() else match[0]


# Each by the prefix that its issuer publishes, so that a scanner can find it: the Hub, AWS, Google, GitHub, GitLab,
# PyPI, OpenAI and Anthropic, Slack, npm, Docker, Stripe, Databricks, NVIDIA, Groq, Replicate, and JSON Web Tokens.
ISSUED = (
    # "hf_quantizer" and its like are names in Transformers
    ("hf_", r"hf_(?!(?:quantizer|tokenizer|processor|initialized|parallelism|transformers|generate)\b)[A-Za-z0-9]{8,}"),
    ("api_org_", r"api_org_[A-Za-z0-9]{8,}"),
    ("akia", r"AKIA[A-Z0-9]{12,}"),
    ("asia", r"ASIA[A-Z0-9]{12,}"),
    ("aiza", r"AIza[A-Za-z0-9_-]{20,}"),
    ("ya29.", r"ya29\.[A-Za-z0-9_-]{16,}"),
    ("gocspx-", r"GOCSPX-[A-Za-z0-9_-]{16,}"),
    ("gh", r"gh[pousr]_[A-Za-z0-9]{8,}"),
    ("github_pat_", r"github_pat_\w{8,}"),
    ("gl", r"gl(?:pat|ptt|dt|rt|cbt|soat|agent)-[\w.-]{8,}"),
    ("pypi-", r"pypi-(?=[a-z0-9_-]*[A-Z])[A-Za-z0-9_-]{16,}"),
    ("sk-", r"sk-(?=[a-z_-]*[A-Z0-9])[A-Za-z0-9_-]{8,}"),
    ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{8,}"),
    ("xapp-", r"xapp-[A-Za-z0-9-]{8,}"),
    ("npm_", r"npm_[A-Za-z0-9]{30,}"),
    ("dckr_pat_", r"dckr_pat_[\w-]{16,}"),
    ("k_live_", r"[rs]k_live_\w{10,}"),
    ("dapi", r"dapi[0-9a-f]{32}"),
    ("nvapi-", r"nvapi-[\w-]{16,}"),
    ("gsk_", r"gsk_[A-Za-z0-9]{20,}"),
    ("r8_", r"r8_[A-Za-z0-9]{30,}"),
    ("eyj", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
)

NAMED = (
    r"password|passwd|passphrase|api[_-]?key|access[_-]?key(?:[_-]?id)?|account[_-]?key|private[_-]?key(?:[_-]?id)?"
    r"|secret(?:[_-]?access)?(?:[_-]?key)?|shared[_-]?access[_-]?(?:key|signature)"
    r"|(?:hf|hub|access|auth|api|bearer|refresh|session|security|github|gitlab|deploy)[_-]?token"
)
"""Names whose values are secret. "pad_token" and "token" alone are a tokenizer's words."""
VALUE = (
    r"""["']?\s{0,2}[:=]\s{0,2}[bru]?["']?)(?!(?:bearer|basic|token)\b|[\w.]*\()"""
    r"""[^\s"',;&(){}<>\[\]][^\s"',;&(){}]{7,}"""
)
"""What stands behind such a name: no call, and eight characters at least, so that ``password: wrong`` stays."""
SIGNED = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|sig|signature|policy|key-pair-id|awsaccesskeyid"
    r"|(?:access_)?token|key|code|auth"
)
"""Parameters of a signed address, which opens it for everybody."""

RULES: tuple[Rule, ...] = (
    Rule(
        ("private key-----",),
        re.compile(
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:(?!-----END ).)*(?:-----END [A-Z0-9 ]*PRIVATE KEY-----)?", re.S
        ),
    ),
    # The secret key of AWS has no prefix: forty characters, which often stand behind the key's id.
    Rule(
        ("akia", "asia"),
        re.compile(r"((?:AKIA|ASIA)[A-Z0-9]{12,}[^A-Za-z0-9][\s\S]{0,60}?)(?<![\w/+])[A-Za-z0-9/+]{40}(?![\w/+])"),
        rf"\1{WORD}",
    ),
    *(Rule((mark,), re.compile(rf"(?<![A-Za-z0-9_-])(?:{form})")) for mark, form in ISSUED),
    Rule(("bearer ",), re.compile(r"(?i:(?<=bearer ))(?=[A-Za-z._~+/=-]*\d)[A-Za-z0-9._~+/=-]{8,}")),
    Rule(("basic ",), re.compile(r"\b((?i:basic) )([A-Za-z0-9+/]{8,}={0,2})"), _basic),
    Rule(
        ("authorization",),
        re.compile(r"""(?i)(authorization["']?\s{0,2}[:=]\s{0,2}["']?(?:basic|token|digest|apikey)\s+)[^\s"',]+"""),
        rf"\1{WORD}",
    ),
    Rule(("cookie",), re.compile(r"""(?i)(\bcookie["']?\s{0,2}:\s{0,2}["']?)[^\n"']+"""), rf"\1{WORD}"),
    Rule(("login ",), re.compile(r"(?i)(\blogin\s+\S+\s+password\s+)\S+"), rf"\1{WORD}"),
    Rule(("://",), re.compile(r"""(?<=://)[^\s/"'<>]+(?=@)""")),
    Rule(("?",), re.compile(rf"""(?i)([?&](?:{SIGNED})=)[^&\s"'<>]+"""), rf"\1{WORD}"),
    Rule(("pass", "key", "secret", "token", "signature"), re.compile(rf"""(?i)((?:{NAMED}){VALUE}"""), rf"\1{WORD}"),
    Rule(
        ("key", "token", "secret", "password", "credentials"),
        re.compile(rf"(\b[A-Z][A-Z0-9_]{{0,60}}(?:TOKEN|KEY|SECRET|PASSWORD|CREDENTIALS){VALUE}"),
        rf"\1{WORD}",
    ),
)

SECRET_NAME = re.compile(r"[A-Z0-9_]*(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)")
"""A variable of the environment whose value is secret, by its whole name."""


def without_credentials(text: str) -> str:
    """``text`` with ``TOKEN`` in place of every credential."""
    lower = text.lower()
    for rule in RULES:
        if any(mark in lower for mark in rule.marks):
            text = rule.pattern.sub(rule.put, text)
    return text
