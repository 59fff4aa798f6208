"""A mock of the Weights & Biases server on loopback, which keeps in memory what `wandb sync` uploads.

It implements the protocol of client 0.31: GraphQL for the run and for addresses to upload files to, the file stream for rows
of history, the summary and system metrics, and PUT for the files.

    with Server() as server:
        subprocess.run([...], env=server.environment(home))
        server.history, server.files, ...
"""

import collections
import gzip
import http.server
import json
import os
import re
import threading
import urllib.parse

USER = {"id": "VXNlcjox", "name": "tester", "username": "tester", "email": "tester@example.org", "admin": False,
        "flags": "{}", "entity": "tester", "deletedAt": None, "teams": {"edges": []}, "apiKeys": {"edges": []}}


class QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """Ignores connections that the client closes when it exits."""


class Server:
    """What was uploaded, by run ID."""

    def __init__(self):
        self.runs = collections.defaultdict(Run)
        self.unknown = []  # requests that it does not support
        self.lock = threading.Lock()
        handler = type("BoundHandler", (Handler,), {"server_state": self})
        self.http = QuietServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def environment(self, home):
        """The environment of a client that uses only this server."""
        kept = {key: value for key, value in os.environ.items()
                if not key.startswith("WANDB_") and key.lower() not in ("http_proxy", "https_proxy", "all_proxy")}
        return {**kept, "HOME": str(home), "WANDB_BASE_URL": self.url, "WANDB_API_KEY": "0" * 40,
                "WANDB_ERROR_REPORTING": "false", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


class Run:
    """The uploaded state of one run."""

    def __init__(self):
        self.variables = {}  # of the last mutation that set any
        self.config = {}
        self.streams = collections.defaultdict(dict)  # file -> line number -> text
        self.overwritten = []  # (file, line) that was sent again with other contents
        self.repeated = []  # (file, line) that was sent more than once
        self.files = {}  # name -> bytes
        self.uploads = collections.Counter()  # name -> times
        self.exit_code = None
        self.is_complete = False
        self.is_preempting = False

    def rows(self):
        """The rows of history, in order of lines."""
        lines = self.streams["wandb-history.jsonl"]
        return [json.loads(lines[number]) for number in sorted(lines)]

    def summary(self):
        lines = self.streams["wandb-summary.json"]
        return json.loads(lines[max(lines)]) if lines else {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state = None

    def do_POST(self):
        body = self.body()
        with self.server_state.lock:
            path = urllib.parse.urlparse(self.path).path
            stream = re.fullmatch(r"/files/(?:[^/]+/)?([^/]+)/([^/]+)/file_stream", path)
            if path == "/graphql":
                request = json.loads(body)
                self.answer({"data": self.graphql(request["query"], request.get("variables") or {})})
            elif stream:
                self.take_stream(self.server_state.runs[stream[2]], json.loads(body))
                self.answer({"limits": {}})
            else:
                self.server_state.unknown.append(f"POST {self.path}")
                self.answer({})

    def do_PUT(self):
        body = self.body()
        with self.server_state.lock:
            _, _, run, name = urllib.parse.unquote(self.path).split("/", 3)
            self.server_state.runs[run].files[name] = body
            self.server_state.runs[run].uploads[name] += 1
        self.answer({})

    def do_GET(self):
        with self.server_state.lock:
            self.server_state.unknown.append(f"GET {self.path}")
        self.answer({})

    def graphql(self, query, variables):
        field = re.search(r"\{\s*(?:\w+\s*:\s*)?(\w+)", query[query.index("{"):])[1]
        name = variables.get("name") or variables.get("run") or ""
        run = self.server_state.runs[name] if name else None
        project = {"id": "UHJvamVjdDox", "name": variables.get("project") or "uncategorized",
                   "entity": {"id": "RW50aXR5OjE=", "name": "tester"}}
        bucket = {"id": "UnVuOjE=", "name": name, "displayName": variables.get("displayName"), "description": None,
                  "config": "{}", "sweepName": None, "project": project,
                  "historyLineCount": len(run.streams["wandb-history.jsonl"]) if run else 0}
        if field == "upsertBucket":
            run.variables.update({key: value for key, value in variables.items() if value is not None})
            if variables.get("config"):
                run.config = json.loads(variables["config"])
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if field == "createRunFiles":
            files = [{"name": file, "displayName": file, "uploadUrl": f"{self.server_state.url}/upload/{name}/{file}"}
                     for file in variables["files"]]
            return {"createRunFiles": {"runID": "UnVuOjE=", "uploadHeaders": [], "files": files}}
        if field == "viewer":
            return {"viewer": USER}
        if field == "serverInfo":
            return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None,
                                   "features": []}}
        if field == "__type":
            return {"__type": None}
        if field == "model":
            return {"model": None}
        if field == "project":
            return {"project": None}
        self.server_state.unknown.append(f"GraphQL {field}: {' '.join(query.split())[:200]}")
        return {}

    @staticmethod
    def take_stream(run, body):
        for file, part in (body.get("files") or {}).items():
            lines = run.streams[file]
            for number, text in enumerate(part["content"], part.get("offset", 0)):
                if number in lines and file != "wandb-summary.json":
                    run.repeated.append((file, number))
                    if lines[number] != text:
                        run.overwritten.append((file, number))
                lines[number] = text
        if "exitcode" in body and body["exitcode"] is not None:
            run.exit_code = body["exitcode"]
        run.is_complete = run.is_complete or bool(body.get("complete"))
        run.is_preempting = run.is_preempting or bool(body.get("preempting"))

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                data += self.rfile.read(size)
                self.rfile.readline()
                if size == 0:
                    break
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(data) if self.headers.get("Content-Encoding") == "gzip" else data

    def answer(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass
