"""The answer -> what people read: ``report.md``, ``report.html``, plots. No clock, no network.

``render`` fills REPORT_TEMPLATE.md with ``opening``'s title and statement and with the sections, each of which is one
file of ``sections/`` (``section`` says what that is). ``html`` makes a page of the report, ``pictures`` the plots.
``markdown`` and ``privacy/`` make text safe to post.
"""
