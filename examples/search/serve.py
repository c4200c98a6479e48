"""Searches lines of text over HTTP, with a folder that bge-export wrote.

python serve.py FOLDER documents.txt PORT
curl 'localhost:PORT/search?q=how+far+is+the+moon&most=3'
"""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import bge_export

MOST_TEXT = 10_000
"""Characters that a query may have."""


class Index:
    """Documents and their vectors."""

    def __init__(self, folder: str, documents: list[str]) -> None:
        """Open the folder's int8 file and embed the documents, [N, D]."""
        self.model = bge_export.load(folder, precision="int8", threads=1)
        self.documents = documents
        self.vectors = self.model.encode(documents, prompt="document")
        self.turn = threading.Lock()  # a model belongs to one thread at a time

    def search(self, text: str, most: int) -> list[dict[str, object]]:
        """Return the nearest documents, best first, with their cosines."""
        with self.turn:
            query = self.model.encode(text, prompt="query")

        scores = self.vectors @ query
        nearest = (-scores).argsort(kind="stable")[:most]
        return [{"text": self.documents[row], "score": round(float(scores[row]), 4)} for row in nearest]


class Service(BaseHTTPRequestHandler):
    """Answers `GET /search?q=TEXT&most=N`."""

    index: Index

    def do_GET(self) -> None:
        """Answer with JSON: 200 and the documents found, or 400 and what is wrong."""
        address = urlsplit(self.path)
        asked = parse_qs(address.query)
        text, most = asked.get("q", [""])[0], asked.get("most", ["3"])[0]

        if address.path != "/search" or not text.strip() or len(text) > MOST_TEXT or not most.isdecimal():
            self.answer(400, {"error": "Ask for /search?q=TEXT&most=NUMBER."})
            return
        self.answer(200, {"found": self.index.search(text, int(most))})

    def answer(self, status: int, content: dict[str, object]) -> None:
        """Send a JSON object."""
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Embed the documents, then serve until the process is ended."""
    folder, documents, port = sys.argv[1:]
    lines = [line for line in Path(documents).read_text("utf-8").splitlines() if line.strip()]

    Service.index = Index(folder, lines)
    with ThreadingHTTPServer(("127.0.0.1", int(port)), Service) as server:
        print(f"{len(lines)} documents, http://127.0.0.1:{server.server_port}/search?q=…", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
