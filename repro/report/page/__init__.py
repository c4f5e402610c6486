"""What report.html has beside the report's own sections, each as plain records that the template draws: the answer in
short (``glance``), the layers with the magnitude (``network``), the way of the bad value (``way``), verdicts as marks
(``marks``) and as a grid (``grid``), and code in colours (``highlight``).
"""
