"""A stand-in for Google Cloud Storage on this machine: its JSON API over HTTP, objects in memory.

gcsfs, google-cloud-storage, tensorstore and array_record speak to it when the environment says so.
It knows what these ask for: objects with generations, preconditions and CRC-32C, ranges, listings
by prefix and delimiter, uploads in all three ways, copies.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import re
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c

BUCKET = "bucket"
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)")
_COPY = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/(?:rewriteTo|copyTo)/b/([^/]+)/o/([^/]+)")


@dataclass
class Blob:
    """One object."""

    name: str
    data: bytes
    generation: int
    updated: str = field(
        default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    )

    def resource(self):
        crc = google_crc32c.value(self.data).to_bytes(4, "big")
        return {
            "kind": "storage#object",
            "bucket": BUCKET,
            "name": self.name,
            "size": str(len(self.data)),
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": "application/octet-stream",
            "timeCreated": self.updated,
            "updated": self.updated,
            "crc32c": base64.b64encode(crc).decode(),
            "md5Hash": base64.b64encode(hashlib.md5(self.data).digest()).decode(),
        }


class Refusal(Exception):
    """Answers a request with a status."""


class Server:
    """Serves one bucket, called "bucket", while it is a context.

    Attributes:
      blobs: name -> object.
      before: called with (method, name of the object; "/" of the bucket, or "" of a listing)
        before each request is done; it may wait, or raise :class:`Refusal` with a status. What an
        upload brings is there just after ("UPLOAD", name).
      requests: (method, name) of each.
    """

    def __init__(self):
        self.blobs: dict[str, Blob] = {}
        self.lock = threading.RLock()
        self.uploads: dict[str, tuple[str, dict, bytearray]] = {}
        self.before = lambda method, name: None
        self.requests: list[tuple[str, str]] = []
        self._numbers = itertools.count(1)
        handler = type("Handler", (_Handler,), {"store": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._http.shutdown()
        self._http.server_close()

    @property
    def environment(self):
        """Directs the clients of this process, or of another one, here."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,  # that of C++, in array_record
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",  # tensorstore's; else it looks for a key
            "GOOGLE_CLOUD_PROJECT": "none",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks by gRPC, which is not here
        }

    def names(self, prefix=""):
        with self.lock:
            return sorted(name for name in self.blobs if name.startswith(prefix))

    def put(self, name, data, query=None):
        with self.lock:
            self.check(name, query or {})
            self.blobs[name] = Blob(name, bytes(data), next(self._numbers))
            return self.blobs[name].resource()

    def check(self, name, query):
        """Preconditions: a generation of 0 is that of what is not there."""
        blob = self.blobs.get(name)
        generation = 0 if blob is None else blob.generation
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            raise Refusal(412)
        if "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == generation:
            raise Refusal(304)

    def get(self, name, query):
        with self.lock:
            if name not in self.blobs:
                raise Refusal(404)
            self.check(name, query)
            return self.blobs[name]

    def list(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        after, most = query.get("pageToken", ""), int(query.get("maxResults", 1000))
        items, prefixes, last = [], [], None
        for name in self.names(prefix):
            if name < start or (end and name >= end):
                continue
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            key = name if cut < 0 else name[: cut + len(delimiter)]
            if key <= after or key in prefixes:
                continue
            if len(items) + len(prefixes) == most:
                return {"items": items, "prefixes": prefixes, "nextPageToken": last}
            last = key
            if cut < 0:
                items.append(self.blobs[name].resource())
            else:
                prefixes.append(key)
        return {"items": items, "prefixes": prefixes}

    def begin(self, name, query):
        number = str(next(self._numbers))
        self.uploads[number] = (name, query, bytearray())
        return number


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that went away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for 40 ms
    wbufsize = -1
    store: Server

    def log_message(self, *_):
        pass

    def do(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        body = self._body()
        try:
            self._answer(url.path, query, body)
        except Refusal as refusal:
            self._send(refusal.args[0], b"" if refusal.args[0] == 304 else b"{}")
        except ConnectionError:
            pass  # a client that was killed

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().strip() or b"0", 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, path, query, body):
        store, unquote = self.store, urllib.parse.unquote
        copied, one = _COPY.fullmatch(path), _OBJECT.fullmatch(path)
        name = unquote((copied or one)[2]) if copied or one else query.get("name", "")
        if path == f"/storage/v1/b/{BUCKET}":
            name = "/"
        store.requests.append((self.command, name))
        if (bucket := re.search(r"/b/([^/]+)", path)) and bucket[1] != BUCKET:
            raise Refusal(404)
        store.before(self.command, name)
        if path.startswith("/upload/") or path.startswith("/resumable/"):
            self._upload(path, query, body)
        elif copied:
            new = store.put(unquote(copied[4]), store.get(name, {}).data, query)
            size = new["size"]
            self._json({"done": True, "resource": new, "objectSize": size,
                        "totalBytesRewritten": size})  # fmt: skip
        elif one and self.command == "DELETE":
            with store.lock:
                store.get(name, query)
                del store.blobs[name]
            self._send(204, b"")
        elif one and (query.get("alt") == "media" or path.startswith("/download")):
            self._media(store.get(name, query))
        elif one:
            self._json(store.get(name, query).resource())
        elif path.endswith("/o"):
            self._json({"kind": "storage#objects", **store.list(query)})
        elif path == f"/storage/v1/b/{BUCKET}":
            self._json({"kind": "storage#bucket", "name": BUCKET, "id": BUCKET})
        else:
            raise Refusal(404)

    def _media(self, blob):
        data, status, headers = blob.data, 200, {"x-goog-generation": str(blob.generation)}
        headers["x-goog-hash"] = f"crc32c={blob.resource()['crc32c']}"
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if found:
            first = int(found[1]) if found[1] else max(len(data) - int(found[2]), 0)
            last = int(found[2]) if found[1] and found[2] else len(data) - 1
            last = min(last, len(data) - 1)
            if first > last:
                raise Refusal(416)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        self._send(status, data, headers)

    def _upload(self, path, query, body):
        store, kind = self.store, query.get("uploadType")
        if path.startswith("/resumable/"):
            self._continue(path.rpartition("/")[2], body)
        elif kind == "media":
            self._json(store.put(query["name"], body, query))
        elif kind == "multipart":
            boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, first, second, _ = body.split(b"--" + boundary)
            meta = json.loads(re.split(rb"\r?\n\r?\n", first, maxsplit=1)[1])
            data = re.split(rb"\r?\n\r?\n", second, maxsplit=1)[1]
            # Some clients end lines with one byte, and what they send may end with the other.
            data = data[: -2 if second.startswith(b"\r\n") else -1]
            store.before("UPLOAD", meta["name"])
            self._json(store.put(meta["name"], data, query))
        else:
            name = query.get("name") or json.loads(body)["name"]
            location = f"{store.url}/resumable/{store.begin(name, query)}"
            self._send(200, b"", {"Location": location})

    def _continue(self, number, body):
        name, query, data = self.store.uploads[number]
        data += body
        if self.headers.get("Content-Range", "").endswith("/*"):
            self._send(308, b"", {"Range": f"bytes=0-{len(data) - 1}"})
        else:
            self.store.before("UPLOAD", name)
            self._json(self.store.put(name, data, query))

    def _json(self, document):
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _send(self, status, data, headers=None):
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
