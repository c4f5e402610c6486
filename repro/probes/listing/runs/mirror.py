"""A folder in which a script finds the files that it finds in its own, and can write without harm.

Its own folder, the one in which it was started, and what is above them are made anew; everything else in these folders
is a link. So relative paths, ``__file__`` and modules beside the script lead to the same files. What is written goes
into the copy and is gone before the next run.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

ABOVE = 2  # levels above a folder whose other entries can be reached as well: "../../data"
MANY = 5000  # entries of one folder; more are not linked one by one
LARGE = 1 << 26  # bytes of a file that the script writes over, which is copied


class TooMany(Exception):
    """A folder has more entries than are linked. The message says so."""


class Mirror:
    """The copy below ``root`` of ``folders`` and what is above them.

    written: files that the script itself writes. They are copied, not linked.
    """

    def __init__(self, root: str, folders: Iterable[str], written: Iterable[str] = ()) -> None:
        self.root = root
        self.temporary = os.path.join(root, "temporary")
        self._expected: dict[Path, dict[str, Path]] = {}
        self._written = {Path(path) for path in written}
        wanted = {Path(folder) for folder in folders} | {path.parent for path in self._written}
        for folder in sorted(wanted):
            self._add(folder, {child for other in wanted for child in (other, *other.parents)})

    def path(self, original: str) -> str:
        """Where a file or folder of the original lies here."""
        return os.path.join(self.root, "files", os.path.relpath(original, Path(original).anchor))

    def _add(self, folder: Path, made: "set[Path]") -> None:
        for level, here in enumerate((folder, *folder.parents)):
            known = self._expected.setdefault(Path(self.path(str(here))), {})
            if level > ABOVE:
                continue
            with contextlib.suppress(OSError):
                names = os.listdir(here)
                if len(names) > MANY:
                    raise TooMany(f"the script's folders have more than {MANY:,} entries")
                known.update({name: here / name for name in names if here / name not in made})

    def restore(self) -> None:
        """As it was made: without what a run wrote, and with what it removed."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        os.makedirs(self.temporary)
        for folder, expected in self._expected.items():
            folder.mkdir(parents=True, exist_ok=True)
            there = set(os.listdir(folder))
            own = {here.name for here in self._expected if here.parent == folder}
            for name in there - own:
                path = folder / name
                if path.is_symlink() and name in expected and os.readlink(path) == str(expected[name]):
                    continue
                _remove(path)
                there.discard(name)
            for name in sorted(set(expected) - there - own):
                self._make(folder / name, expected[name])

    def _make(self, path: Path, original: Path) -> None:
        if original not in self._written:
            path.symlink_to(original)
        elif original.is_file() and original.stat().st_size <= LARGE:
            shutil.copyfile(original, path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
