"""In which release of a package the answer changed: the question, the search over its releases, and the answer.

Everything outside stands behind ``World``: the registry, what releases declare, and an environment in which the
question is put. Nothing here starts a process.

torch and transformers are bound to each other: what a release of transformers declares for torch says which of them go
together. So the one that is not searched for, the partner, is either held by the question's pins, or chosen here before
anything is built: one release of it for the whole range where there is one, else as few changes of it as possible.
"""

from repro.sweeps.releases.inquiry import investigate
from repro.sweeps.releases.question import Change, Found, Question, World

__all__ = ["Change", "Found", "Question", "World", "investigate"]
