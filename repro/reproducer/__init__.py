"""From a reduction to a script that anybody can run, verified.

    verdict.json -> offer.scripts -> program, module | files, tensors, loads, running   (one file for each kind)
                                       calls, values: operators and tensors as Python; frame, words: what is around
                 -> verify -> offer -> reproducer.py, and what verdict.json says about it

A script imports nothing of this toolkit. It ends with 1 while the fault is there, with 0 when it is gone, and with 125
where it could not be asked, as ``git bisect run`` reads it.
"""
