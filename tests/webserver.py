"""A web server on loopback for stories: pages are bytes or functions, and it notes what it was asked for."""

from __future__ import annotations

import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


class _Server(http.server.ThreadingHTTPServer):
    """Closes connections without a polite end, so that a page can break one off."""

    daemon_threads = True
    site: Site

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that hangs up is no news."""


class Page(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: _Server

    def do_GET(self) -> None:
        self.server.site.asked.append(self.path)
        page = self.server.site.pages.get(self.path, b"")
        if self.path not in self.server.site.pages:
            self.answer(404)
        elif callable(page):
            page(self)
        else:
            self.answer(200, page)

    def answer(self, code: int, data: bytes = b"", **headers: str) -> None:
        """Send an answer; `Content_Length="9"` overrides the true one, which is b""'s for a missing page too."""
        self.send_response(code)
        for name, value in {"Content_Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def reset(self) -> None:
        """Break the connection off: what was not read yet is lost."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *arguments: Any) -> None: ...


class Site:
    """A server: `pages` by path, `asked` in order. With a certificate (a PEM file with its key) it speaks https."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.pages: dict[str, bytes | Callable[[Page], None]] = {}
        self.asked: list[str] = []
        self._server = _Server(("127.0.0.1", 0), Page)
        self._server.site = self
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.scheme = "https" if certificate else "http"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def address(self, path: str) -> str:
        """The address of a page."""
        return f"{self.scheme}://127.0.0.1:{self._server.server_address[1]}{path}"

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def in_turn(*pages: bytes | Callable[[Page], None]) -> Callable[[Page], None]:
    """A page that is another one each time, the last one for ever."""
    left = list(pages)

    def answer(page: Page) -> None:
        now = left.pop(0) if len(left) > 1 else left[0]
        if callable(now):
            now(page)
        else:
            page.answer(200, now)

    return answer
