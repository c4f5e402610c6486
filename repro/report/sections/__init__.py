"""The sections of the report, one file each: a function that fills it, its template, and the record ``SECTION``.

To add one: a file here, its line in REPORT_TEMPLATE.md, a test.
"""
