"""As much of W&B's server as a run talks to, on this machine: what it was sent, in order, by run."""

import gzip
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Received:
    """What the server has of one run.

    Attributes:
        history, events: lines of figures, and of the machine's, each at the offset that its sender gave.
        files: names of all that were uploaded.
        finishes: exit codes, one for each time it ended.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    summary: str = "{}"
    config: dict[str, Any] = field(default_factory=dict)
    display_name: str = ""
    artifacts: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    preempting: int = 0
    finishes: list[int] = field(default_factory=list)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Senders are killed, and their connections break."""


class WandbServer:
    """Attributes:
    runs: by id.
    drops: take rows without keeping them, as a server that fails behind a good answer.
    is_down: break every connection, as a network that is gone.
    lost_answers: of so many requests with rows, keep these and break the connection.
    errors: answer so many requests with rows with an error, and do not keep these.
    answer_seconds: how long each answer takes.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Received] = defaultdict(Received)
        self.drops = self.is_down = False
        self.lost_answers = self.errors = 0
        self.answer_seconds = 0.0
        self._lock = threading.Lock()
        self._http = _Quiet(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that is to log here; W&B sends every second instead of every quarter of a minute."""
        haste = {"WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1", "WANDB__FILE_STREAM_RETRY_WAIT_MIN_SECONDS": "0.5"}
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY, "WANDB_MODE": "online", **haste}

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if path.startswith("/graphql"):
                return {"data": self._query(body["query"], body.get("variables") or {})}
            if path.endswith("/file_stream"):
                self._stream(self.runs[path.split("/")[-2]], body)
        return {}

    def put(self, path: str) -> None:
        _, _, run, name = path.split("/", 3)
        with self._lock:
            self.runs[run].files.append(name)

    def _query(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)
        act = getattr(self, f"_on_{name.group(1)}", None) if name else None
        return act(given) if act else {}

    def _on_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - as W&B calls it; so are the others
        return {"viewer": {"id": "v", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": _NONE}}

    def _on_ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def _on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        known = given["name"] in self.runs
        return {"model": {**_PROJECT, "bucket": self._bucket(given["name"]) if known else None}}

    def _on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.runs[given["name"]]
        if given.get("config"):
            run.config = {key: one["value"] for key, one in json.loads(given["config"]).items()}
        run.display_name = given.get("displayName") or run.display_name
        return {"upsertBucket": {"bucket": self._bucket(given["name"]), "inserted": True}}

    def _on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.url}/put/{given['run']}/{name}"} for name in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def _on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"project": {"artifact": None}}

    def _on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        requested = given["input"]
        self.runs[requested["runName"]].artifacts.append(requested["artifactCollectionName"])
        artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}  # it is there already: no files are requested

    def _on_NotifyScriptableRunAlert(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self.runs[given["runName"]].alerts.append(f"{given['title']}: {given['text']}")
        return {"notifyScriptableRunAlert": {"success": True}}

    def _bucket(self, name: str) -> dict[str, Any]:
        run = self.runs[name]
        return {
            "id": f"id-{name}",
            "name": name,
            "displayName": run.display_name,
            "sweepName": None,
            "notes": None,
            "tags": [],
            "config": json.dumps({key: {"value": value} for key, value in run.config.items()}),
            "summaryMetrics": run.summary,
            "wandbConfig": json.dumps({"t": 1}),
            "historyLineCount": len(run.history),
            "eventsLineCount": len(run.events),
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(one) for one in run.history[-1:]]),
            "eventsTail": json.dumps([json.dumps(one) for one in run.events[-1:]]),
            "project": _PROJECT,
        }

    def _stream(self, run: Received, body: dict[str, Any]) -> None:
        files = {} if self.drops else body.get("files") or {}
        for name, kept in (("wandb-history.jsonl", run.history), ("wandb-events.jsonl", run.events)):
            if name in files:
                at, lines = files[name]["offset"], [json.loads(text) for text in files[name]["content"]]
                assert at <= len(kept), "lines are missing"
                kept[at : at + len(lines)] = lines
        if "wandb-summary.json" in files:
            run.summary = files["wandb-summary.json"]["content"][0]
        run.preempting += bool(body.get("preempting"))
        if body.get("complete"):
            run.finishes.append(body["exitcode"])


_NONE: dict[str, Any] = {"edges": []}
_PROJECT = {"id": "p", "name": "galpaca", "entity": {"id": "e", "name": "me"}, "organization": {"name": "o"}}


def _handler(server: WandbServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self._is_answered():
                self._send({})

        def do_PUT(self) -> None:
            self._body()
            if not self._is_answered():
                return
            server.put(self.path)
            self._send({})

        def do_POST(self) -> None:
            body = self._body()
            if not self._is_answered():
                return
            if KEY not in self._key():
                self._send({"errors": [{"message": "invalid API key"}]}, 401)
                return
            has_rows = b"wandb-history.jsonl" in body and self.path.endswith("/file_stream")
            if has_rows and server.errors:
                server.errors -= 1
                self._send({"errors": [{"message": "internal error"}]}, 500)
                return
            answer = server.answer(self.path, json.loads(body))
            if has_rows and server.lost_answers:
                server.lost_answers -= 1
                self.close_connection = True
                return
            self._send(answer)

        def _is_answered(self) -> bool:
            time.sleep(server.answer_seconds)
            self.close_connection = server.is_down
            return not server.is_down

        def _key(self) -> str:
            import base64

            _, _, word = self.headers.get("Authorization", "").partition(" ")
            return base64.b64decode(word).decode() if word else ""

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def _send(self, answer: dict[str, Any], status: int = 200) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def serving() -> Iterator[WandbServer]:
    server = WandbServer()
    try:
        yield server
    finally:
        server.close()
