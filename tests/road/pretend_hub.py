"""A stand-in for the HTTP interface of the Hugging Face hub, as far as huggingface_hub and transformers ask it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40
TOKEN = "hf_right"


class PretendHub:
    """What the hub holds, and how it fails.

    Attributes:
        files: the content of each file, by repository and path.
        private: whether each repository is private.
        failing: the status that is answered to a path that contains the text.
        namespaces: the owners that the token may write for.
    """

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.failing: dict[str, int] = {}
        self.namespaces = ["me"]
        self.uploaded: dict[str, bytes] = {}
        self.commits: list[str] = []
        self.asked: list[str] = []
        self.bad_metadata = ""
        self.url = ""

    @contextmanager
    def running(self) -> Iterator["PretendHub"]:
        hub = self

        class Handler(_Handler):
            pretend = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    pretend: PretendHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _ask(self) -> None:
        hub, path = self.pretend, self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.asked.append(f"{self.command} {path}")
        for part, status in hub.failing.items():
            if part in path:
                return self._answer(status, {"error": f"status {status}"})
        if path.startswith("/upload/"):
            hub.uploaded[path.rpartition("/")[2]] = body
            return self._answer(200)
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and "validate-yaml" not in path:
            return self._answer(401, {"error": "Invalid credentials"})
        words = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            return self._answer(200, {"name": "me", "type": "user", "orgs": [], "auth": {}})
        if path == "/api/validate-yaml":
            errors = [{"message": hub.bad_metadata}] if hub.bad_metadata else []
            return self._answer(400 if errors else 200, {"errors": errors, "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if words[:2] == ["api", "models"]:
            return self._repository("/".join(words[2:4]), words[4:], body)
        if words[2:4] == ["info", "lfs"]:
            return self._batch(json.loads(body))
        if "resolve" in words:
            name = "/".join(words[:2])
            content = hub.files.get(name, {}).get("/".join(words[4:]))
            if content is None:
                return self._answer(404, headers={"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
            etag = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            return self._answer(200, content, etag)
        return self._answer(404, {"error": "not known"})

    do_GET = do_POST = do_PUT = do_HEAD = _ask  # noqa: N815

    def _create(self, wanted: dict[str, Any]) -> None:
        hub, name = self.pretend, f"{wanted['organization'] or 'me'}/{wanted['name']}"
        if wanted["organization"] not in hub.namespaces:
            return self._answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        if name in hub.files:
            return self._answer(409, {"error": "You already created this model repo"})
        hub.files[name] = {}
        hub.private[name] = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        return self._answer(200, {"url": f"{hub.url}/{name}"})

    def _repository(self, name: str, rest: list[str], body: bytes) -> None:
        hub = self.pretend
        if name not in hub.files:
            return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        files = hub.files[name]
        if rest[:1] == ["auth-check"]:
            is_allowed = name.partition("/")[0] in hub.namespaces or rest[1:] != ["write"]
            return self._answer(200 if is_allowed else 403)
        if rest[:1] == ["tree"]:
            return self._answer(200, [{"type": "file", "path": path, "size": 1, "oid": "1"} for path in files])
        if rest[:1] == ["preupload"]:
            modes = [
                {"path": one["path"], "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": None}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            return self._answer(200, {"files": modes})
        if rest[:1] == ["commit"]:
            for line in map(json.loads, body.splitlines()):
                kind, value = line["key"], line["value"]
                if kind == "header":
                    hub.commits.append(value["summary"])
                elif kind == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif kind == "lfsFile":
                    files[value["path"]] = hub.uploaded[value["oid"]]
                elif kind == "deletedFile":
                    del files[value["path"]]
            return self._answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": f"{hub.url}/{name}/commit/1"})
        siblings = [{"rfilename": path} for path in files]
        return self._answer(200, {"id": name, "sha": COMMIT, "private": hub.private.get(name), "siblings": siblings})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {"oid": one["oid"], "size": one["size"],
             "actions": {"upload": {"href": f"{self.pretend.url}/upload/{one['oid']}", "header": {}}}}
            for one in wanted["objects"]
        ]  # fmt: skip
        self._answer(200, {"transfer": "basic", "objects": objects}, {"Content-Type": "application/vnd.git-lfs+json"})
