"""report.html: one file that fetches nothing, says what report.md says, and can be read by everybody."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from support.hosting import BISECT, ORIGIN, ROOT, observation
from support.injected_run import PROMPT
from support.reports import HOSTILE, PLOTTED, answer, good, much

from repro.core.answer import Reproducer, ScriptRecord
from repro.core.encoding import replace
from repro.core.errors import ReproError
from repro.core.payloads import Environment
from repro.core.records import Case, Owner
from repro.report.html import SCRIPT as COPY
from repro.report.html import STYLE, render_html
from repro.report.privacy.machine import Private
from repro.report.privacy.mask import Mask
from repro.report.render import render, scripts_of

SCRIPT = 'import torch\n\nprint("</code><script>x</script>", 1 < 2)  # é\n'
VOID = {"meta", "br", "hr", "img", "input", "link", "col"}
FETCHING = ("src", "srcset", "data", "poster", "action", "formaction", "xlink:href", "background", "ping", "manifest")
PLAIN = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "nav", "section", "div", "a", "script"),
    *("h1", "h2", "h3", "p", "ul", "ol", "li", "dl", "dt", "dd", "strong", "em", "b", "blockquote", "code", "pre"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "bdi", "span", "mark"),
    *("svg", "path"),
}
"""Every element that the page is made of: none of them runs or loads anything, but for <style>, <meta> and <script>."""
CODE = {
    "source": "m.py:3",
    "package": "transformers",
    "first": 1,
    "lines": ["", "    a = 1", "    b = f(a)  # </code><script>x</script>", ""],
}


class Page(HTMLParser):
    """The elements of a page in order, their text, and whether every tag is closed where it should be."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.text, self.sections = [], [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] not in ("style", "title", "script"):
            self.text.append(data)
        for tag, attrs in self.open:
            if tag == "section":
                self.sections.setdefault(attrs["id"], []).append(data)

    def having(self, name):
        """The attributes of every element of this name."""
        return [attrs for tag, attrs in self.elements if tag == name]

    def said(self, section=None):
        """The text without its line breaks."""
        return " ".join("".join(self.text if section is None else self.sections[section]).split())


def hostile():
    """A run in which every name that a model or a prompt brings along is hostile."""
    headroom = [{"module": name, "absmax": 1.0 + n} for n, name in enumerate(HOSTILE)]
    spread = [{"module": name, "bad_tokens": [n], "tokens": len(HOSTILE)} for n, name in enumerate(HOSTILE)]
    found = {**ORIGIN, "module": HOSTILE[0], "token": HOSTILE[1], "module_class": HOSTILE[2], "source": HOSTILE[3]}
    found |= {"op": HOSTILE[4], "excerpt": {"source": HOSTILE[0], "first": 1, "lines": HOSTILE}}
    prompt = {**PROMPT, "prompt": " ".join(HOSTILE[:4]), "tokens": HOSTILE}
    return answer(
        observation("bisect", "bad", HOSTILE[1], {**BISECT, "origin": found, "headroom": headroom, "spread": spread}),
        observation("forward", "bad", HOSTILE[0], {"logits": {}, "prompts": [prompt]}),
        observation("load", "skip", HOSTILE[1], ending="crashed", stderr_tail=("```", HOSTILE[0], "<!-- x -->")),
        *[observation(f"ablation:{name}", "bad", name) for name in HOSTILE],
    )


EVERY = {
    **PLOTTED,
    "good": good(),
    "skip": answer(observation("forward", "skip", "no kernel"), observation("bisect", "skip")),
    "hostile": hostile(),
    "large": much(300),
    "random": answer(case=Case("gpt2", weights="random:3")),
}
each = pytest.mark.parametrize("found", EVERY.values(), ids=EVERY)


@each
def test_every_tag_is_closed_and_every_element_is_plain(found):
    page = Page(render_html(found, scripts={"reproducer.py": SCRIPT}))
    assert {tag for tag, _ in page.elements} <= PLAIN
    assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]


@each
def test_nothing_is_fetched(found):
    html = render_html(found, scripts={"reproducer.py": SCRIPT})
    page = Page(html)
    assert not [name for _, attrs in page.elements for name in attrs if name in FETCHING]
    anchors = {f"#{attrs['id']}" for _, attrs in page.elements if "id" in attrs}
    assert {attrs["href"] for _, attrs in page.elements if "href" in attrs} <= anchors
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    assert not re.search(r"url\(|@import|@font-face|://", style)
    assert not [attrs for _, attrs in page.elements if "style" in attrs]
    assert policy(page).startswith("default-src 'none'; ")


def policy(page):
    return next(attrs["content"] for attrs in page.having("meta") if "http-equiv" in attrs)


@each
def test_the_one_script_is_the_one_that_the_policy_allows(found):
    """Also behind the last mask, which would take a hash for a token if it could."""
    html = Mask.of(found, Private(home="/home/wonderalice", user="wonderalice")).text(render_html(found))
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert script == (ROOT / "repro" / "report" / COPY).read_text("utf-8")
    told = re.search("script-src 'sha256-([^']+)'", policy(Page(html)))[1]
    assert base64.b64decode(told) == hashlib.sha256(script.encode()).digest()


def test_a_picture_in_the_report_is_not_loaded(monkeypatch):
    monkeypatch.setattr("repro.report.html.render", lambda *_: "# t\n\n![x](http://example.com/x.png)\n")
    page = Page(render_html(EVERY["good"]))
    assert page.having("img") == []
    assert "!x" in page.said()


def test_hostile_names_are_shown_as_they_are():
    page = Page(render_html(hostile()))
    assert "overflow in <script>x</script>" in page.said()
    for name in ("<script>x</script>", "</svg><b>", "a & b", '"on', "\\x00\\x1b[31m", "\\u202eabc", "\\ud800"):
        assert name in page.said("ablations")
    assert "<!-- x -->" in page.said("steps")


def test_anchors_are_unique_and_lead_somewhere():
    page = Page(render_html(EVERY["run"]))
    anchors = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(anchors) == len(set(anchors))
    assert [attrs["href"] for attrs in page.having("a")][1:] == [f"#{attrs['id']}" for attrs in page.having("section")]


@each
def test_headings_are_in_order_and_landmarks_are_there(found):
    page = Page(render_html(found))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [len(page.having(tag)) for tag in ("header", "main", "nav")] == [1, 1, 1]
    assert page.having("nav")[0]["aria-label"]


@each
def test_the_first_link_leads_to_the_answer(found):
    page = Page(render_html(found))
    assert page.having("a")[0] == {"class": "jump", "href": "#at-short"}
    assert page.having("section")[0]["id"] == "at-short"


@each
def test_heads_of_tables_say_what_they_are_heads_of(found):
    page = Page(render_html(found))
    assert {attrs["scope"] for attrs in page.having("th")} <= {"col", "row"}


@each
def test_a_drawing_has_words_or_stands_beside_them(found):
    page = Page(render_html(found))
    for attrs in page.having("svg"):
        assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"])


@pytest.mark.parametrize(
    ("found", "words"),
    [(EVERY["run"], "✖ bad"), (EVERY["good"], "✔ good"), (EVERY["skip"], "? skip: could not tell")],
)
def test_the_verdict_is_a_word_and_a_sign(found, words):
    assert Page(render_html(found)).said().startswith(f"Skip to the answer {words}")


def test_the_owner_stands_beside_the_verdict():
    page = Page(render_html(replace(EVERY["run"], owner=Owner("transformers", "the residual grows"))))
    assert page.said().startswith("Skip to the answer ✖ bad owner: transformers")
    assert page.said("owner").startswith("Owner Transformers. the residual grows")
    page = Page(render_html(replace(EVERY["run"], owner=Owner(None, "the residual grows"))))
    assert page.said().startswith("Skip to the answer ✖ bad owner: not known")


@each
def test_the_page_has_every_section_of_the_report(found):
    page = Page(render_html(found))
    headings = re.findall(r"^## (.*)$", re.sub(r"^(`{3,}).*?^\1$", "", render(found), flags=re.S | re.M), re.M)
    assert [heading for heading in headings if heading not in page.said()] == []
    own = [anchor for anchor in page.sections if anchor.startswith("at-")]
    assert len(page.having("h2")) == len(headings) + len(own)


def test_tables_say_what_those_of_the_report_say():
    """Against a reading of the report's rows that knows nothing but bars and back-quotes."""
    page = Page(render_html(EVERY["run"]))
    rows = [line.strip("| ") for line in render(EVERY["run"]).splitlines() if re.match(r"\| [^|]", line)]
    cells = [re.sub(r"[`*\\]", "", cell).strip() for row in rows for cell in row.split(" | ")]
    assert len(cells) > 60
    assert [cell for cell in cells if " ".join(cell.split()) not in page.said()] == []


def test_the_words_for_the_one_who_posts_are_left_out():
    assert "Before you post this" in render(EVERY["run"])
    assert "Before you post this" not in render_html(EVERY["run"])


def test_every_table_scrolls_in_a_box_that_the_keyboard_reaches():
    page = Page(render_html(EVERY["matrix"]))
    boxes = [after for (_, before), (after, _) in pairwise(page.elements) if before.get("tabindex") == "0"]
    assert boxes == ["table"] * len(page.having("table"))
    named = [attrs["aria-label"] for attrs in page.having("div") if attrs.get("role") == "region"]
    assert {"Cells: table 1", "Cells: table 2", "Verdict of each cell, by version"} <= set(named)
    assert len(named) == len(set(named))
    assert "td" in {tag for tag, _ in page.elements}


def test_heads_without_words_are_left_out():
    html = render_html(EVERY["run"])
    assert "<th></th>" not in html
    assert html.count("<thead>") < html.count("<table>")


def test_what_folds_a_part_on_github_is_shown_whole(monkeypatch):
    folded = "# t\n\n<details>\n<summary>All else</summary>\n\nwords\n\n</details>\n"
    monkeypatch.setattr("repro.report.html.render", lambda *_: folded)
    assert Page(render_html(EVERY["good"])).said("at-report") == "The report words"


def with_code(**changed):
    return answer(
        observation("bisect", "bad", payload={**BISECT, "origin": {**ORIGIN, "excerpt": {**CODE, **changed}}})
    )


def test_the_origins_lines_are_shown_and_its_line_is_marked():
    html = render_html(replace(with_code(), environment=Environment(packages={"transformers": "5.23.0"})))
    page = Page(html)
    assert "m.py:3 of transformers 5.23.0 a = 1 b = f(a) # </code><script>x</script>" in page.said("at-short")
    marked = [attrs["data-n"] for attrs in page.having("mark")]
    numbers = [attrs["data-n"] for tag, attrs in page.elements if tag in ("mark", "span") and "data-n" in attrs]
    assert (marked, numbers) == (["3"], ["2", "3"])  # blank lines at the ends are not
    assert '<span class="c"># &lt;/code&gt;' in html


def test_a_secret_in_the_origins_lines_is_masked():
    lines = ["password = 'hunter2-correct-horse'", "x = '/home/wonderalice/m'"]
    html = render_html(with_code(lines=lines, first=3), Private(home="/home/wonderalice", user="wonderalice"))
    assert "hunter2" not in html
    assert "wonderalice" not in html
    assert "password" in html


def test_scripts_are_shown_whole_and_first():
    record = {"level": "operator", "needs": ("torch",), "verified": True, "runs": 3, "exit_statuses": (1, 1, 1)}
    second = ScriptRecord(path="reproducer_module.py", **record)
    first = Reproducer(path="reproducer.py", output="seen nan", reason="x + y alone.", others=(second,), **record)
    scripts = {"reproducer.py": SCRIPT, "reproducer_module.py": "pass"}
    page = Page(render_html(replace(EVERY["run"], reproducer=first), scripts=scripts))
    assert "".join(page.sections["reproducer"]).count(SCRIPT.strip()) == 1
    assert next(anchor for anchor in page.sections if not anchor.startswith("at-")) == "reproducer"
    assert "Run 3 times in a clean interpreter (exit statuses 1, 1, 1). Output of the last run: seen nan" in page.said()


def test_the_scripts_are_those_of_the_answer_that_lie_in_the_folder(tmp_path):
    (tmp_path / "reproducer.py").write_text("a", encoding="utf-8")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "reproducer.py").write_text("b", encoding="utf-8")
    (tmp_path / "run" / "unnamed.py").write_text("c", encoding="utf-8")
    paths = ("../reproducer.py", "missing.py", str(tmp_path / "reproducer.py"))
    others = tuple(ScriptRecord(level="module", path=path) for path in paths)
    found = replace(answer(), reproducer=Reproducer(level="operator", path="reproducer.py", others=others))
    assert scripts_of(tmp_path / "run", found) == {"reproducer.py": "b"}
    assert scripts_of(tmp_path, answer()) == {}


def test_what_is_private_is_in_no_part_of_the_page():
    case = Case("/home/wonderalice/secrets/my-model", prompts=("a",))
    name = "/home/wonderalice/x"
    found = {**BISECT, "headroom": [{"module": name, "absmax": 1.0}]}
    run = answer(observation("ablation:" + name, "bad", name), observation("bisect", "bad", payload=found), case=case)
    html = render_html(run, Private(home="/home/wonderalice", user="wonderalice"), {"reproducer.py": f"# {name}"})
    assert "~/x" in html
    assert "wonderalice" not in html


def test_a_template_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr("repro.report.html.STYLE", "missing.css")
    with pytest.raises(ReproError, match=r"missing\.css is missing from the installation"):
        render_html(EVERY["good"])


def style():
    return (ROOT / "repro" / "report" / STYLE).read_text("utf-8")


def variables(text):
    return dict(re.findall(r"(--\w+): (#[0-9a-f]{6});", text))


def luminance(colour):
    """WCAG 2.2's relative luminance."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_and_marks_have_contrast_in_light_and_in_dark():
    """4.5 to 1 for words (WCAG 2.2, 1.4.3), which is more than marks need; on each ground that they stand on."""
    light, dark = style().split("prefers-color-scheme: dark", 1)
    schemes = [variables(light), variables(dark.split("@media", 1)[0])]
    assert set(schemes[0]) == set(schemes[1])
    for scheme in schemes:
        for ground in ("--page", "--panel", "--mark"):
            for name in ("--ink", "--muted", "--good", "--bad", "--skip", "--line", "--limit", "--word"):
                low, high = sorted((luminance(scheme[ground]), luminance(scheme[name])))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, name, scheme[name])


def test_paper_is_never_dark_and_cuts_nothing_off():
    assert re.findall(r"@media ([^{]*dark[^{]*)", style()) == ["screen and (prefers-color-scheme: dark) "]
    assert ".table, pre { overflow: visible; }" in style().split("@media print")[1]


def test_nothing_moves_for_those_who_do_not_want_it():
    found = style()
    still = found[: found.index("@media (prefers-reduced-motion")] + found.split("scroll-behavior: smooth; } }", 1)[1]
    assert not re.search("scroll-behavior|animation|transition", still)
