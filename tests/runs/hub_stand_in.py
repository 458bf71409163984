"""A hub of this machine: what huggingface_hub asks for to create a repository and to upload to it.

It has no Xet storage; weights go by LFS, as to hubs that have none.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_of_the_stand_in"


class Hub:
    """
    Attributes:
        url: what HF_ENDPOINT is to be.
        repositories: files by path, of each repository by OWNER/NAME.
        private: names of the private ones.
        cards: front matter and text of every README.md that was shown for validation.
        by_lfs: paths of files that went by LFS.
        failing: the beginning of a path, with a status to answer there instead.
        requests: method and path of each.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.cards: list[str] = []
        self.by_lfs: set[str] = set()
        self.failing: tuple[str, int] | None = None
        self.requests: list[str] = []
        self._objects: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if length else self._chunked()
                path = self.path.partition("?")[0]
                hub.requests.append(f"{self.command} {path}")
                known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
                status, content = 401, {"error": "Invalid username or password."}
                if hub.failing is not None and path.startswith(hub.failing[0]):
                    status, content = hub.failing[1], {"error": "out of order"}
                elif known or self.command == "PUT":  # LFS addresses need no token
                    status, content = hub._answer(self.command, path.strip("/").split("/"), body)
                said = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST = do_PUT = answer  # noqa: N815

            def _chunked(self) -> bytes:
                parts = []
                if self.headers.get("Transfer-Encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        parts.append(self.rfile.read(size))
                        self.rfile.readline()
                    self.rfile.readline()
                return b"".join(parts)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, method: str, path: list[str], body: bytes) -> tuple[int, Any]:
        match method, path:
            case "POST", ["api", "repos", "create"]:
                return self._create(json.loads(body))
            case "POST", ["api", "validate-yaml"]:
                self.cards.append(json.loads(body)["content"])
                return 200, {"errors": [], "warnings": []}
            case "GET", ["api", "models", owner, name, *_]:
                return self._about(f"{owner}/{name}", len(path) > 4)
            case "POST", ["api", "models", _, _, "preupload", "main"]:
                return 200, {"files": [_mode(file["path"]) for file in json.loads(body)["files"]]}
            case "POST", [_, _, "info", "lfs", "objects", "batch"]:
                return 200, {"objects": [self._place(x) for x in json.loads(body)["objects"]]}
            case "PUT", ["lfs", oid]:
                assert hashlib.sha256(body).hexdigest() == oid
                self._objects[oid] = body
                return 200, {}
            case "POST", ["api", "models", owner, name, "commit", "main"]:
                return self._commit(f"{owner}/{name}", map(json.loads, body.splitlines()))
        return 404, {"error": f"{method} {'/'.join(path)}: not of the stand-in"}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.repositories:
            said = "You already created this model repo"
            return 409, {"error": said, "url": f"{self.url}/{name}"}
        self.repositories[name] = {}
        if wanted.get("visibility") == "private" or wanted.get("private"):
            self.private.add(name)
        return 200, {"url": f"{self.url}/{name}"}

    def _about(self, name: str, tree: bool) -> tuple[int, Any]:
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        files = self.repositories[name]
        if tree:
            return 200, [
                {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
                for path, content in files.items()
            ]
        return 200, {"id": name, "private": name in self.private, "sha": "0" * 40}

    def _place(self, thing: dict[str, Any]) -> dict[str, Any]:
        upload = {"href": f"{self.url}/lfs/{thing['oid']}?X-Signature=secret"}
        return {"oid": thing["oid"], "size": thing["size"], "actions": {"upload": upload}}

    def _commit(self, name: str, lines: Any) -> tuple[int, Any]:
        files = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self._objects[value["oid"]]
                self.by_lfs.add(value["path"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        return 200, {"commitUrl": f"{self.url}/{name}/commit/{'0' * 40}", "commitOid": "0" * 40}


def _mode(path: str) -> dict[str, Any]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}
