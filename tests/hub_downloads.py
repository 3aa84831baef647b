"""The Hugging Face Hub without a network: its cache laid out by hand, and a server that gives a folder's files."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay_out(cache: Path, hub_id: str, folder: Path, commit: str = COMMIT) -> Path:
    """Puts a folder's files into a cache as a download would.

    Args:
        cache: ``HF_HUB_CACHE``.

    Returns:
        The folder of the snapshot, where each file is a link to a blob: one that the Hub keeps outside of git is named
        by its SHA-256, others by git's.
    """
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / commit
    for place in (blobs, snapshot, repository / "refs"):
        place.mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text(commit)
    for path in sorted(folder.iterdir()):
        blob, link = blobs / etag(path), snapshot / path.name
        for old in (blob, link):
            old.unlink(missing_ok=True)  # never written into: it may have other names
        shutil.copyfile(path, blob)
        link.symlink_to(Path("..", "..", "blobs", blob.name))
    return snapshot


def etag(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix in (".safetensors", ".bin"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def hub(repositories: dict[str, Path], port: int = 0) -> Iterator[tuple[str, list[str]]]:
    """A server on this machine.

    Args:
        repositories: folders by Hub id.
        port: for those who must know its address before there is one; by default a free one.

    Yields:
        Its address, for ``HF_ENDPOINT``, and the requests so far.
    """
    requests: list[str] = []
    handler = type("Handler", (_Handler,), {"repositories": repositories, "requests": requests})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    repositories: dict[str, Path]
    requests: list[str]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.requests.append(f"{self.command} {path}")
        for hub_id, folder in self.repositories.items():
            if path.startswith(f"/api/models/{hub_id}/tree/"):
                return self._json([_entry(file) for file in sorted(folder.iterdir())])
            if path.startswith(f"/api/models/{hub_id}"):
                files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
                return self._json({"id": hub_id, "sha": COMMIT, "siblings": files})
            if path.startswith(f"/{hub_id}/resolve/"):
                return self._file(folder / path.rpartition("/")[2], body=body)
        return self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"}, body=True)

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"}, body=True)

    def _file(self, path: Path, *, body: bool) -> None:
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, body=body)
        headers = {"ETag": f'"{etag(path)}"', "X-Repo-Commit": COMMIT}
        return self._send(200, path.read_bytes(), headers, body=body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)


def _entry(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    entry: dict[str, Any] = {"type": "file", "path": path.name, "size": size, "oid": etag(path)[:40]}
    if path.suffix in (".safetensors", ".bin"):
        entry["lfs"] = {"oid": etag(path), "size": size, "pointerSize": 134}
    return entry


def lay_out_data_set(cache: Path, hub_id: str, records: Path) -> None:
    """Puts a file of records into a cache as the library ``datasets`` would after a download.

    Args:
        cache: ``HF_DATASETS_CACHE``.
    """
    import datasets

    owner, _, name = hub_id.partition("/")
    made = cache / "made"
    datasets.load_dataset("json", data_files=str(records), split="train", cache_dir=str(made))
    (info,) = made.glob("json/*/*/*/dataset_info.json")
    place = cache / f"{owner}___{name}" / "default" / "0.0.0" / COMMIT
    shutil.copytree(info.parent, place)
    (place / "json-train.arrow").rename(place / f"{name}-train.arrow")
    content = json.loads(info.read_text())
    content.update(builder_name="parquet", dataset_name=name, config_name="default")
    content["splits"]["train"]["dataset_name"] = name
    (place / "dataset_info.json").write_text(json.dumps(content))
    shutil.rmtree(made)
