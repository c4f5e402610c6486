"""From what a run found to a script that anybody can run: the reproducer.

    answer -> offer.scripts -> scripts/    one file for each kind: operators, module, files, weights, load, model
                                 |-> code/     the reduced case as Python text: operators, tensors, names
                                 |-> frame     what every script has around its code; words: its docstring
           -> offer.offer -> verify -> reproducer.py, and the record of it in verdict.json

A script imports nothing of this toolkit. Its exit status is 1 while the fault is there, 0 when it is gone, and 125
where it could not tell, as ``git bisect run`` reads it.
"""
