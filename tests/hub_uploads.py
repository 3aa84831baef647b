"""A stand-in for the Hugging Face Hub: the few endpoints that an upload asks, and all that it was given."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_stand_in"


@dataclass
class Hub:
    """What the server knows.

    Attributes:
        address: of its root.
        repos: visibility by name.
        files: content by path, of all repositories.
        requested: method and path of every request.
        refuses: answer all requests that change something with this status.
    """

    address: str = ""
    repos: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    refuses: int | None = None
    _objects: dict[str, bytes] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        """For a process that is to upload here."""
        return {"HF_ENDPOINT": self.address, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        """Status and JSON."""
        if path.startswith("/objects/"):  # by an address that only its owner knows
            self._objects[path.rpartition("/")[2]] = body
            return 200, {}
        if self.refuses is not None:
            return self.refuses, {"error": "no"}
        if token != f"Bearer {TOKEN}" and path != "/api/validate-yaml":
            return 401, {"error": "Invalid username or password."}
        return self._answer(method, path.partition("?")[0], body)

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        match [method, *parts]:
            case ["POST", "api", "repos", "create"]:
                return self._create(json.loads(body))
            case ["POST", "api", "validate-yaml"]:
                return validate(json.loads(body)["content"])
            case ["GET", "api", "models", owner, name]:
                return 200, {"id": f"{owner}/{name}", "private": self.repos[f"{owner}/{name}"] == "private"}
            case ["GET", "api", "models", owner, name, "tree", *_]:
                return 200, [
                    {"type": "file", "path": place, "size": len(content), "oid": "0" * 40}
                    for place, content in self.files.items()
                ]
            case ["POST", "api", "models", owner, name, "preupload", _]:
                return 200, {"files": [_upload_mode(file) for file in json.loads(body)["files"]]}
            case ["POST", owner, name, "info", "lfs", "objects", "batch"]:
                return 200, {"transfer": "basic", "objects": [self._place(o) for o in json.loads(body)["objects"]]}
            case ["POST", "api", "models", owner, name, "commit", _]:
                return self._commit(f"{owner}/{name}", body)
        return 404, {"error": path}

    def _create(self, requested: dict[str, Any]) -> tuple[int, Any]:
        name = f"{requested['organization']}/{requested['name']}"
        if name in self.repos:
            return 409, {"error": "You already created this model repo", "url": f"{self.address}/{name}"}
        self.repos[name] = requested.get("visibility", "public")
        return 200, {"url": f"{self.address}/{name}", "name": name}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {**wanted, "actions": {"upload": {"href": f"{self.address}/objects/{wanted['oid']}"}}}

    def _commit(self, repo: str, body: bytes) -> tuple[int, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            match line["key"]:
                case "file":
                    self.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    content = self._objects[value["oid"]]
                    assert hashlib.sha256(content).hexdigest() == value["oid"]
                    self.files[value["path"]] = content
                case "deletedFile":
                    del self.files[value["path"]]
        return 200, {"commitUrl": f"{self.address}/{repo}/commit/{'1' * 40}", "commitOid": "1" * 40}


def validate(card: str) -> tuple[int, Any]:
    """What the Hub holds against a card's front matter, as far as its documentation tells.

    huggingface.co/docs/hub/model-cards#model-card-metadata
    """
    errors = []
    try:
        matter = yaml.safe_load(card.split("---\n")[1])
    except (IndexError, yaml.YAMLError) as error:
        return 400, {"errors": [{"message": str(error)}]}
    for key in ("license", "library_name", "pipeline_tag"):
        if not isinstance(matter.get(key), str):
            errors.append({"message": f'"{key}" must be a string'})
    for key in ("tags", "datasets", "language"):
        values = matter.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            errors.append({"message": f'"{key}" must be an array of strings'})
    if "base_model" in matter and matter["base_model"].count("/") != 1:
        errors.append({"message": '"base_model" must be a model of the Hub'})
    return (400, {"errors": errors}) if errors else (200, {"errors": [], "warnings": []})


def _upload_mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(".safetensors") else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


@contextmanager
def running() -> Iterator[Hub]:
    """The stand-in on a port of 127.0.0.1."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.requested.append(f"{self.command} {self.path}")
            status, content = hub.answer(self.command, self.path, body, self.headers.get("Authorization"))
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
