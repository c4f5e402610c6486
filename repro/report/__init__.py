"""Evidence -> what people and programs read: ``verdict.json`` and ``report.md``. No clock, no network.

``document`` makes the content of verdict.json. ``view`` chooses and rounds what the report shows of it, with
``opening`` for the title and the summary, ``origin`` for the place, and ``tables`` for numbers and rows.
``markdown`` and ``redact`` make text safe to post. ``render`` fills REPORT_TEMPLATE.md.
"""
