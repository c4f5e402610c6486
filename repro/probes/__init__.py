"""The probe kit: small scripts that ask one question each of a model, in the environment where it hurts.

The kit is the only part of repro that imports torch. It imports nothing of the host, parses on Python 3.9, and is
packed into one file, ``probes.pyz``, that any interpreter with torch and transformers runs by itself::

    python probes.pyz bisect MODEL --dtype float16

Read it in this order::

    main      arguments or a plan -> steps, one process, events as JSON lines on standard output
    session   what the steps share: the model is found once, loaded once
    resolve -> files -> weights -> load -> inputs -> forward -> bisect -> ablations          the steps
    header, convert, build, loadcheck, precision                                        what the steps stand on
    screen -> tape -> blame -> mechanism -> reference, element, origin                  how bisect finds the origin
    nest, summary, watch, wire                                                          what several of them need
"""
