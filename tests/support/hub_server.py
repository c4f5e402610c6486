"""A small server on this machine that speaks as much of the Hub's API as huggingface_hub needs to fetch a model.

``HF_ENDPOINT`` set to its address makes it the Hub. It serves folders, and can do what real networks do: cut a
connection, answer with other bytes than were promised, ask for a login, go away.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")
"""What the Hub keeps by SHA-256; the rest is by git's SHA-1."""


@dataclass
class Repository:
    """One model: its files by commit, and the names of commits."""

    commits: dict[str, dict[str, bytes]]
    names: dict[str, str]
    gated: bool = False

    def commit(self, revision: str) -> str | None:
        return self.names.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """The repositories, what goes wrong, and what was asked.

    ``cut``: of a file, after how many bytes its next answer ends. ``wrong``: of a file, what is sent in its place.
    ``down``: every connection is closed without an answer. ``served``: how many bytes of each file went out, and
    ``ranges`` what was asked for by a range.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, bytes] = field(default_factory=dict)
    down: bool = False
    down_after_cut: bool = False
    asked: Counter[str] = field(default_factory=Counter)
    ranges: list[str] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)
    address: str = ""

    def add(self, identifier: str, folder: Path, revision: str = "main", **more: Any) -> str:
        """Serve a folder's files under a name; its commit's hash."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        sha = hashlib.sha1(f"{identifier}@{revision}".encode()).hexdigest()
        held = self.repositories.setdefault(identifier, Repository({}, {}, **more))
        held.commits[sha], held.names[revision] = files, sha
        return sha


def etag(name: str, data: bytes) -> str:
    """The hash that names a file's blob."""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked[f"{self.command} {path}"] += 1
        if self.hub.down:
            self.close_connection = True
            return
        if path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"))
        elif "/resolve/" in path:
            identifier, rest = path[1:].split("/resolve/", 1)
            revision, _, name = rest.partition("/")
            self._file(identifier, revision, name)
        else:
            self._error(404, "", "Not found")

    def _repository(self, identifier: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        found = self.hub.repositories.get(identifier)
        if found is None:
            self._error(401, "RepoNotFound", "Repository not found")  # as the Hub answers who is not logged in
            return None
        sha = found.commit(revision)
        if sha is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return sha, found.commits[sha]

    def _api(self, path: str) -> None:
        parts = path.split("/")
        at = next((place for place, part in enumerate(parts) if part in ("revision", "tree")), len(parts))
        what, revision = (parts[at], parts[at + 1]) if at < len(parts) else ("revision", "main")
        identifier = "/".join(parts[:at])
        found = self._repository(identifier, revision)
        if found is None:
            return
        sha, files = found
        if what == "tree":
            said: Any = [self._entry(name, data) for name, data in files.items()]
        else:
            gated = "manual" if self.hub.repositories[identifier].gated else False
            siblings = [{"rfilename": name} for name in files]
            said = {"id": identifier, "sha": sha, "private": False, "gated": gated, "disabled": False}
            said |= {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
        self._send(200, json.dumps(said).encode(), {"Content-Type": "application/json", "X-Repo-Commit": sha})

    def _entry(self, name: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": etag("", data)}
        if name.endswith(LARGE):
            entry["lfs"] = {"oid": etag(name, data), "size": len(data), "pointerSize": 130}
        return entry

    def _file(self, identifier: str, revision: str, name: str) -> None:
        found = self._repository(identifier, revision)
        if found is None:
            return
        sha, files = found
        if self.hub.repositories[identifier].gated:
            self._error(401, "GatedRepo", f"Access to model {identifier} is restricted.", sha)
            return
        if name not in files:
            self._error(404, "EntryNotFound", "Entry not found", sha)
            return
        data = files[name]
        tag = f'"{etag(name, data)}"'
        heads = {"ETag": tag, "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        if name.endswith(LARGE):
            heads |= {"X-Linked-ETag": tag, "X-Linked-Size": str(len(data))}
        data = self.hub.wrong.get(name, data)
        status, start = 200, 0
        if (wanted := self.headers.get("Range")) is not None and wanted != "bytes=0-":
            self.hub.ranges.append(f"{name} {wanted}")
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            heads["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = self.hub.cut.pop(name, None) if self.command == "GET" else None
        if self.command == "GET":
            self.hub.served[name] += len(data[start:] if cut is None else data[start:][:cut])
        self._send(status, data[start:], heads, cut)

    def _error(self, status: int, code: str, said: str, sha: str | None = None) -> None:
        heads = {"X-Error-Code": code, "X-Error-Message": said} | ({"X-Repo-Commit": sha} if sha else {})
        self._send(status, json.dumps({"error": said}).encode(), heads)

    def _send(self, status: int, data: bytes, heads: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**heads, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True
            self.hub.down = self.hub.down or self.hub.down_after_cut


class Serving:
    """A hub while it is open."""

    def __init__(self, hub: Hub) -> None:
        handler = type("Handler", (_Handler,), {"hub": hub})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._hub = hub

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._hub.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        return self._hub

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
