"""An S3 store in memory that knows what MLflow's server asks of one: buckets, and objects written, read and listed."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class FakeS3:
    """Serves on a free loopback port while it is entered.

    Attributes:
        address: for `MLFLOW_S3_ENDPOINT_URL`.
        key: the access key without which it answers 403. Signatures are not checked.
        objects: what was written, by `BUCKET/KEY`.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self.buckets: set[str] = set()
        self.objects: dict[str, bytes] = {}
        store = self

        class Handler(_Handler):
            s3 = store

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def listed(self, bucket: str, prefix: str, delimiter: str) -> str:
        """The answer to ListObjectsV2; all on one page."""
        keys = [name.partition("/")[2] for name in sorted(self.objects) if name.startswith(f"{bucket}/{prefix}")]
        below = {key: key[len(prefix) :].partition(delimiter) for key in keys} if delimiter else {}
        folders = sorted({prefix + first + cut for first, cut, _ in below.values() if cut})
        held = [key for key in keys if not (delimiter and below[key][1])]
        sizes = {key: len(self.objects[f"{bucket}/{key}"]) for key in held}
        contents = "".join(
            f"<Contents><Key>{escape(k)}</Key><Size>{size}</Size></Contents>" for k, size in sizes.items()
        )
        common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{contents}{common}</ListBucketResult>"


class _Handler(BaseHTTPRequestHandler):
    s3: FakeS3
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_HEAD(self) -> None:
        bucket, key, _ = self._asked()
        self._answer(200 if (f"{bucket}/{key}" in self.s3.objects if key else bucket in self.s3.buckets) else 404)

    def do_PUT(self) -> None:
        bucket, key, _ = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self._known():
            return self._answer(403)
        if key:
            self.s3.objects[f"{bucket}/{key}"] = body
        else:
            self.s3.buckets.add(bucket)
        return self._answer(200, tag=hashlib.md5(body).hexdigest())

    def do_GET(self) -> None:
        bucket, key, query = self._asked()
        if not self._known():
            return self._answer(403)
        if not key:
            prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
            return self._answer(200, self.s3.listed(bucket, prefix, delimiter).encode())
        found = self.s3.objects.get(f"{bucket}/{key}")
        return self._answer(404) if found is None else self._answer(200, found)

    def log_message(self, *_: object) -> None:
        return

    def _asked(self) -> tuple[str, str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        return bucket, key, parse_qs(parts.query)

    def _known(self) -> bool:
        return f"Credential={self.s3.key}/" in self.headers.get("Authorization", "")

    def _answer(self, status: int, body: bytes = b"", tag: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
