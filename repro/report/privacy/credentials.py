"""Credentials in a text, recognized by the formats that their issuers publish and by the names they are given.

The formats are those of a secret scanner (``scanner``). Here are what it does not have: names and headers in whose
place a report may quote a value, addresses that open something, and a few more formats. A rule is tried only where one
of its marks is in the text: most texts have none, and looking for marks costs next to nothing (``marks``).
"""

import base64
import binascii
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from repro.report.privacy.marks import Marks
from repro.report.privacy.ordinary import words_of_programs
from repro.report.privacy.scanner import ScannerRule, masked, prefixes, scanner_rules

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


ISSUED = (
    ("akia", r"AKIA[A-Z0-9]{12,}"),
    ("asia", r"ASIA[A-Z0-9]{12,}"),
    ("aiza", r"AIza[A-Za-z0-9_-]{20,}"),
    ("ya29.", r"ya29\.[A-Za-z0-9_-]{16,}"),
    ("gocspx-", r"GOCSPX-[A-Za-z0-9_-]{16,}"),
    ("gh", r"gh[us]_[A-Za-z0-9]{8,}"),
    ("xox", r"xox[abeoprs]-[A-Za-z0-9-]{8,}"),
    ("dckr_pat_", r"dckr_pat_[\w-]{16,}"),
    ("k_live_", r"[rs]k_live_\w{10,}"),
    ("nvapi-", r"nvapi-[\w-]{16,}"),
    ("gsk_", r"gsk_[A-Za-z0-9]{20,}"),
    ("r8_", r"r8_[A-Za-z0-9]{30,}"),
    ("wandb_v1_", r"wandb_v1_[\w-]{16,}"),
    ("dapi", r"dapi[0-9a-f]{32}"),
    (":aa", r"\d{8,10}:AA[A-Za-z0-9_-]{33}"),
    ("hooks.slack.com", r"hooks\.slack\.com/[A-Za-z]+/[\w/-]{16,}"),
    ("eyj", r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"),
)
"""Forms that issuers publish and gitleaks does not have, or has only whole: AWS, Google, GitHub's apps, Slack, Docker,
Stripe, NVIDIA, Groq, Replicate, Weights & Biases, Databricks, Telegram, JSON Web Tokens."""

TOKENS = (
    "hf", "hub", "access", "auth", "api", "bearer", "refresh", "session", "security", "github", "gitlab", "deploy",
)  # fmt: skip
KEYS = ("api", "access", "account", "private", "secret", "sharedaccess", "shared_access", "shared-access")
NAMED = (
    "password", "passwd", "passphrase", "secret", "sharedaccesssignature", "shared_access_signature",
    *(f"{kind}{sign}key" for kind in KEYS for sign in ("", "_", "-")),
    *(f"{kind}{sign}token" for kind in TOKENS for sign in ("", "_", "-")),
    "secretaccesskey", "secret_access_key", "secret-access-key",
)  # fmt: skip
"""Names whose values are secret. "pad_token" and "token" alone are a tokenizer's words."""
SHORT_NAMES = ("pwd", "pat", "auth", "pass", "creds")
"""The same, where they are the end of a name."""
SHORTEST_VALUE = 7
"""A shorter value behind such a name is more likely a word about it: ``password: wrong``."""
VALUE = (
    r"""\\{0,3}["']?\s{0,2}(?:=>|[:=])\s{0,2}[bru]?\\{0,3}["']?)(?!(?:bearer|basic|token)\b|[\w.]*\()"""
    rf"""[^\s"',;&(){{}}<>\[\]][^\s"',;&(){{}}]{{{SHORTEST_VALUE - 1},}}"""
)
"""What stands behind such a name, and no call."""
VARIABLE = "TOKEN|KEYS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|CREDS"
SHORT_VARIABLE = "PWD|PW|PAT|AUTH|PASS|PIN|JWT|SALT|COOKIE|DSN"
"""Ends of variables' names whose values are secret; the short ones only as a word of their own."""
AFTER_NAME = "(?:_?[0-9]{1,3}|_ID|_(?:READ|WRITE|RW|RO|PROD|PRODUCTION|DEV|TEST|STAGING|BASE64|B64|VALUE|OLD|NEW))?"
"""What such a name may end with behind that. ``_FILE`` and ``_PATH`` name a place, and no secret."""
SIGNED = (
    r"x-(?:amz|goog)-(?:signature|credential|security-token)|sig|signature|policy|key-pair-id|awsaccesskeyid"
    r"|(?:access_)?token|key|code|auth"
)
"""Parameters of a signed address, which opens it for everybody."""

SPOKEN = r"(?:pass[ _-]?(?:word|wd|phrase)|pwd)"
"""Names of a password, as people write them."""
SPOKEN_MARKS = ("pwd", *(f"pass{gap}{end}" for gap in ("", " ", "_", "-") for end in ("word", "wd", "phrase")))
NO_PASSWORD = frozenset(
    {
        "wrong", "missing", "required", "incorrect", "invalid", "empty", "needed", "expired", "correct", "stored",
        "hidden", "masked", "unknown", "asked", "read", "taken", "never", "used", "okay", "fine", "token", "secret",
    }
)  # fmt: skip
"""What a sentence says of a password, and no password."""
OF_CODE = re.compile(r"(?:self|cls|os|args?|opts?|options|cfg|config|settings|env)(?:\.[A-Za-z_]\w*)+")


def _unless_said(match: re.Match[str]) -> str:
    """``the password is missing`` and ``pwd = self.pwd`` stay; a phrase of several words is one secret."""
    value = match["value"].strip()
    ordinary = value.lower().rstrip(".!?") in NO_PASSWORD or OF_CODE.fullmatch(value)
    if ordinary or (" " not in value and re.fullmatch("[A-Za-z_.]+", value) and _is_named(value)):
        return match[0]
    return match["before"] + WORD


def _user(match: re.Match[str]) -> str:
    return match[0] if _is_named(match["value"]) else match["before"] + "USER"


def _broken(match: re.Match[str]) -> str:
    """A token over two lines; the line stays, for a script counts them."""
    drawn = re.search("[0-9]", match["rest"]) and re.search("[A-Za-z]", match["rest"])
    return WORD + match["line"] if drawn else match[0]


OPTION = (
    rf"""(?i)(?P<before>(?<![\w-])--(?:[a-z0-9]+[-_]){{0,3}}?(?:{SPOKEN}|secret|auth|credentials?"""
    rf"""|(?:api|access|secret)[-_]?key"""
    rf"""|(?:(?<=--)|(?:{"|".join(TOKENS)})[-_])token)"""
)
"""An option of a command that takes a secret."""
QUOTE = r"""(?:'"'"'|\\{0,3}["'])"""
"""What begins and ends a value: a quote, one with a backslash, or one that a shell needs inside of another."""
PLAIN = r"""(?![/~.$%{<]|[A-Za-z]:[\\/])(?![\w.]*\()[^\s"',;&(){}<>\[\]\\]{4,}"""
"""A value without quotes that is no folder, variable or call."""
SAID: tuple[Rule, ...] = (
    Rule(
        ("hf_", "ghp_", "gho_", "ghs_", "ghu_", "ghr_", "github_pat_", "glpat-", "sk-", "npm_", "pypi-"),
        re.compile(
            r"(?<![A-Za-z0-9])(?:hf_|gh[oprsu]_|github_pat_|glpat-|sk-|npm_|pypi-)[A-Za-z0-9_-]{0,80}"
            r"(?P<line>(?:\\n|\r?\n)[ \t]{0,8})(?P<rest>[A-Za-z0-9_-]{8,})"
        ),
        _broken,
    ),
    Rule(
        SPOKEN_MARKS,
        re.compile(
            rf"""(?i)(?P<before>(?<![A-Za-z0-9]){SPOKEN}\\{{0,3}}["']?\s{{0,2}}(?:=>|[:=])\s{{0,2}}\\{{0,3}}(?P<quote>["']))"""
            r"""(?P<value>[^"'\n\\{}]{4,200})(?=\\{0,3}(?P=quote))"""
        ),
        _unless_said,
    ),
    Rule(
        ("pwd",),
        re.compile(rf"(?i)(?P<before>(?<![\w.-])pwd\s{{0,2}}(?:=>|[:=])\s{{0,2}})(?P<value>{PLAIN})"),
        _unless_said,
    ),
    Rule(
        SPOKEN_MARKS,
        re.compile(rf"""(?i)(?P<before>\b{SPOKEN}\s{{1,2}}(?:is|was)(?::|\s)\s{{0,2}}["']?)(?P<value>{PLAIN})"""),
        _unless_said,
    ),
    Rule(
        ("--",),
        re.compile(rf"""{OPTION}(?:["'],\s{{0,2}}|[ =]){QUOTE})(?P<value>[^"'\n\\{{}}]{{4,200}})(?={QUOTE})"""),
        _unless_said,
    ),
    Rule(
        ("--",),
        re.compile(rf"""{OPTION}(?:["'],\s{{0,2}}["']|[ =]["']?))(?!-)(?P<value>{PLAIN})"""),
        _unless_said,
    ),
    Rule(
        ("user", "login"),
        re.compile(
            r"""(?i)(?P<before>["'](?:user|user_?name|login|login_?name)\\{0,3}["']\s{0,2}:\s{0,2}\\{0,3}["'])"""
            r"""(?P<value>[^"'\n\\{}]{2,64})(?=\\{0,3}["'])"""
        ),
        _user,
    ),
)
"""Secrets as people say them: after an option, in a sentence, in quotes, over two lines."""
INVISIBLE = re.compile("(?<=[!-~])[\u200b-\u200d\u2060\ufeff\u00ad]+(?=[!-~])")
"""Signs without width inside of a word of ASCII, which hide a token from a reader of its form."""

RULES: tuple[Rule, ...] = (
    *SAID,
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
    *(Rule((mark,), re.compile(rf"(?<![A-Za-z0-9])(?:{form})")) for mark, form in ISSUED),
    Rule(("bearer ",), re.compile(r"(?i:(?<=bearer ))(?=[A-Za-z._~+/=-]*\d)[A-Za-z0-9._~+/=-]{8,}")),
    Rule(("basic ",), re.compile(r"\b((?i:basic) )([A-Za-z0-9+/]{8,}={0,2})"), _basic),
    Rule(
        ("authorization",),
        re.compile(r"""(?i)(authorization["']?\s{0,2}[:=]\s{0,2}["']?(?:basic|token|digest|apikey)\s+)[^\s"',]+"""),
        rf"\1{WORD}",
    ),
    Rule(("cookie",), re.compile(r"""(?i)(\bcookie["']?\s{0,2}:\s{0,2}["']?)[^\n"']+"""), rf"\1{WORD}"),
    Rule(
        ("curl",),
        re.compile(r"""(\bcurl\b[^\n]{0,400}?\s(?:-u|--user)[ =]?["']?)[^\s"':]+:[^\s"']+"""),
        rf"\1{WORD}",
    ),
    Rule(("login ",), re.compile(r"(?i)(\blogin\s+\S+\s+password\s+)\S+"), rf"\1{WORD}"),
    Rule(("://",), re.compile(r"""(?<=://)[^\s/"'<>]+(?=@)""")),
    Rule(("?",), re.compile(rf"""(?i)([?&](?:{SIGNED})=)[^&\s"'<>]+"""), rf"\1{WORD}"),
    Rule(
        NAMED,
        re.compile(rf"""(?i)((?:{"|".join(sorted(NAMED, key=len, reverse=True))})(?:[_-]?id)?{VALUE}"""),
        rf"\1{WORD}",
    ),
    Rule(
        tuple(sign + name for sign in "_-" for name in SHORT_NAMES),
        re.compile(rf"""(?i)([_-](?:{"|".join(SHORT_NAMES)}){VALUE}"""),
        lambda match: match[1] + (match[0][len(match[1]) :] if _is_named(match[0][len(match[1]) :]) else WORD),
    ),
    Rule(
        ("key", "token", "secret", "password", "credentials", "_pwd", "_pat", "_auth", "pass", "creds", "_dsn", "_jwt"),
        re.compile(rf"(\b[A-Z][A-Z0-9_]{{0,60}}(?:{VARIABLE}|(?<=_)(?:{SHORT_VARIABLE})){AFTER_NAME}{VALUE}"),
        rf"\1{WORD}",
    ),
)

SECRET_NAME = re.compile(
    rf"[A-Z0-9_]*(?:{VARIABLE}){AFTER_NAME}|(?!(?:OLD)?PWD)(?:[A-Z0-9_]*_)?(?:{SHORT_VARIABLE}){AFTER_NAME}"
)
"""A variable of the environment whose value is secret, by its whole name. ``PWD`` and ``OLDPWD`` are folders."""
HEXADECIMAL = re.compile(r"(?<![A-Za-z0-9])(?:[0-9a-f]{40}|[0-9a-f]{32}|[0-9A-F]{40}|[0-9A-F]{32})(?![A-Za-z0-9])")
"""A key of 40 or 32 hexadecimal digits, as many services give out; or the name of a commit. SHA-256 has 64."""
PUBLIC_COMMIT = re.compile(
    r"(?:(?:github\.com|huggingface\.co|hf\.co)/[\w./-]{1,120}/(?:commit|tree|blob|raw|resolve)/"
    r"|/models--[\w.-]{1,200}/snapshots/|git\+https://[\w./-]{1,120}@)\Z"
)
"""What stands before a commit that is public: its page, and the Hub's cache."""
BEFORE = 250
"""How much of the text before such digits is read to tell a commit from a key."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Every rule in its order, and by their marks which ones a text may concern."""

    rules: tuple[Rule | ScannerRule, ...]
    marks: Marks
    by_mark: Mapping[str, tuple[int, ...]]

    def for_text(self, lower: str) -> Iterator[Rule | ScannerRule]:
        places = {place for mark in self.marks.found(lower) for place in self.by_mark[mark]}
        return (self.rules[place] for place in sorted(places))


@functools.cache
def _rules() -> Rules:
    rules: tuple[Rule | ScannerRule, ...] = (*RULES, *_cut(), *scanner_rules())
    by_mark: dict[str, tuple[int, ...]] = {}
    for place, rule in enumerate(rules):
        for mark in rule.marks:
            by_mark[mark] = (*by_mark.get(mark, ()), place)
    return Rules(rules, Marks(by_mark), by_mark)


def _cut() -> tuple[Rule, ...]:
    """Tokens that are known by their beginning: of another length than their issuer's now, or cut short."""
    found = []
    for prefix in sorted(prefixes(), key=len, reverse=True):
        pattern = rf"(?<![A-Za-z0-9]){re.escape(prefix)}((?:[\w=+-]|\.(?=[\w-]{{16}}))" + r"{8,})"
        is_ordinary = set(re.findall("[a-z]+", prefix.lower())) <= words_of_programs()
        put = _unless_name if is_ordinary else _unless_word
        found.append(Rule((prefix.lower(),), re.compile(pattern, re.ASCII), put))
    return tuple(found)


def _unless_word(match: re.Match[str]) -> str:
    return WORD if re.search("[A-Z0-9]|[a-z]{12}", match[1]) else match[0]


def _unless_name(match: re.Match[str]) -> str:
    """``hf_quantizer`` and ``ops_float16matmul`` are names in programs."""
    return match[0] if _is_named(match[1]) else WORD


def _is_named(text: str) -> bool:
    """Whether nothing but words of programs and numbers is in a text."""
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", text)}
    return words <= words_of_programs()


def without_credentials(text: str, lower: str, commits: frozenset[str] = frozenset()) -> str:
    """``text`` with ``TOKEN`` in place of every credential.

    Args:
        text: Any.
        lower: The same in lower case.
        commits: Names of public commits, which are no keys.
    """
    if not text.isascii() and INVISIBLE.search(text):
        seen = INVISIBLE.sub("", text)
        clean = without_credentials(seen, seen.lower(), commits)
        if clean != seen:
            return clean
    of_scanner = []
    for rule in _rules().for_text(lower):
        if isinstance(rule, Rule):
            text = rule.pattern.sub(rule.put, text)
        else:
            of_scanner.append(rule)
    if of_scanner:
        text = masked(of_scanner, text, WORD)
    if len(text) >= 32:
        text = HEXADECIMAL.sub(functools.partial(_unless_commit, commits), text)
    return text


def _unless_commit(commits: frozenset[str], match: re.Match[str]) -> str:
    before = match.string[max(0, match.start() - BEFORE) : match.start()]
    return match[0] if match[0].lower() in commits or PUBLIC_COMMIT.search(before) else WORD
