"""What a system says where it has no more of something for this process, and what a person can do."""

import errno

REMEDIES = {
    errno.EMFILE: "This process may have no more open files: raise the limit (ulimit -n 1024).",
    errno.ENFILE: "This machine has no more open files to give: close programs, or raise its limit (fs.file-max).",
    errno.EAGAIN: "This user may start no more processes: end some, or raise the limit (ulimit -u).",
    errno.ENOMEM: "There is no memory for it: end other programs, or raise the limit (ulimit -v).",
}


def exhausted(error: OSError) -> str | None:
    """What to do; None for an error of another kind."""
    return REMEDIES.get(error.errno or 0)
