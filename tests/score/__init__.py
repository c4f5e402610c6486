"""The score: several hundred injected faults with their sound twins, and what the tool says of each.

    table.toml x architectures.toml -> folders   a model folder with one change in its weights
    programs/*.toml                 -> programs  a script with one line changed, or one that loads such a folder
                                         |
                                         v      one process for each case (pool)
                     oracle, lines: is the table's truth true?      drive: what does the tool answer?
                     beside: what do other tools say?               mark: what is the answer worth?
                                         |
                                         v
                                  page -> docs/score.md

``python -m score`` (with ``tests`` on the path) runs it; ``nox -s score`` does so in an environment of its own. The
truth of a case comes from what was changed in it and from plain arithmetic, never from the tool.
"""
