"""Fetching: a program that copies what lies at a web address into a file, and says in words why it could not.

Run by a worker as any step is, with LABMAKE_STEP naming its address, output and number of tries; its exit code is a
kind of trouble, the last line it prints the reason. Redirects are followed; proxies and certificates are those of the
environment (http_proxy, https_proxy, no_proxy, SSL_CERT_FILE, SSL_CERT_DIR).

Decision: the standard library. It streams, follows, verifies and goes through proxies; what it lacks is below: a
response that ends early is an error, and tries again. Rejected: httpx, 60 ms and ten packages for one GET; resuming
a part, since a server may have changed the file meanwhile; ETag and Last-Modified, which are no hashes.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from labmake.store.copying import write_all

TRIES = 4
"""How often an address is asked before a trouble that may pass is an error."""

TIMEOUT = 60.0
"""Seconds of silence after which a server is given up."""

LONGEST = 60.0
"""Seconds that are waited at most because a server asks for it."""

CHUNK = 1 << 20

REFUSED, BROKEN, NAME, CONNECTION, SILENT, CERTIFICATE, SHORT, ADDRESS, DISK = range(20, 29)
"""Exit codes."""

ADVICE = {
    REFUSED: "correct the address; if it asks for a password, fetch the data by hand and give their path",
    BROKEN: "the server has trouble: try again later",
    NAME: "correct the address, or see that this machine is online; behind a proxy set https_proxy",
    CONNECTION: "see that the server runs and that this machine may reach it; behind a proxy set https_proxy",
    SILENT: "try again later; behind a proxy set https_proxy",
    CERTIFICATE: "if you trust the server, have SSL_CERT_FILE name a file with its certificate",
    SHORT: "the connection breaks off: try again, or fetch the data by hand and give their path",
    ADDRESS: "correct the address",
    DISK: "make room, or correct the permissions, and build again",
}
"""What to do about each kind of trouble."""

_AGAIN = frozenset((408, 425, 429, 500, 502, 503, 504))


@dataclass
class Trouble(Exception):
    """Why an address could not be fetched: its kind (an exit code), in words, and seconds after which it may be asked
    again (None: it would be the same)."""

    kind: int
    reason: str
    wait: float | None = None


def fetch(
    address: str, out: str, tries: int = TRIES, timeout: float = TIMEOUT, say: Callable[[str], None] = lambda _: None
) -> int:
    """Copy what lies at `address` (http or https) into the file `out`; returns its size in bytes.

    Trouble that may pass is told and tried again, after 0.3 s, 1 s, 3 s and so on, or when the server says so; each try
    begins anew. Raises Trouble.
    """
    for number in range(1, tries + 1):
        try:
            return _try(address, out, timeout)
        except Trouble as trouble:
            if trouble.wait is None or number == tries:
                raise
            wait = min(max(trouble.wait, 0.3 * 3 ** (number - 1)), LONGEST)
            say(f"{trouble.reason}; again in {wait:g} s")
            time.sleep(wait)
    raise Trouble(ADDRESS, "it was not tried at all")


def _try(address: str, out: str, timeout: float) -> int:
    try:
        request = urllib.request.Request(ascii_address(address), headers={"User-Agent": "labmake"})
        with _opener().open(request, timeout=timeout) as response:
            return _copy(response, out)
    except urllib.error.HTTPError as error:
        error.close()
        raise _answered(error) from None
    except urllib.error.URLError as error:
        raise _trouble(error.reason) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _trouble(error) from None


def _opener() -> urllib.request.OpenerDirector:
    """http and https alone: a redirect must not lead to a file of this machine."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def ascii_address(address: str) -> str:
    """An address as it is sent: the host's name in ASCII, other characters and spaces as %XX, no fragment.

    Raises ValueError if it names no host.
    """
    parts = urllib.parse.urlsplit(address)
    if not parts.hostname:
        raise ValueError(f"{address} names no host")
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    if not host.isascii():
        host = host.encode("idna").decode("ascii")
    port = f":{parts.port}" if parts.port is not None else ""
    path, query = (urllib.parse.quote(part, safe="%/:=&?~+!$,;'@()*[]|") for part in (parts.path, parts.query))
    return urllib.parse.urlunsplit((parts.scheme, host + port, path or "/", query, ""))


def _copy(response: http.client.HTTPResponse, out: str) -> int:
    """Stream a response into a file. Raises Trouble if it is shorter than announced, or the disk does not take it."""
    announced = response.length  # None if it comes in chunks, whose end http.client checks
    size = 0
    try:
        descriptor = os.open(out, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
    except OSError as error:
        raise _no_room(out, error) from None
    try:
        while data := response.read(CHUNK):
            size += len(data)
            try:
                write_all(descriptor, data)
            except OSError as error:
                raise _no_room(out, error) from None
    finally:
        os.close(descriptor)
    if announced is not None and size != announced:
        raise Trouble(SHORT, f"the connection ended after {size} of {announced} bytes", 0.0)
    return size


def _no_room(out: str, error: OSError) -> Trouble:
    """The disk's trouble, kept apart from the network's, which is an OSError too."""
    return Trouble(DISK, f"{out} cannot be written: {error.strerror or error}")


def _answered(error: urllib.error.HTTPError) -> Trouble:
    """The trouble of an answer that is no data."""
    kind = BROKEN if error.code >= 500 else REFUSED
    asked = error.headers.get("Retry-After", "") if error.headers else ""
    wait = (float(asked) if asked.isdigit() else 0.0) if error.code in _AGAIN else None
    return Trouble(kind, f"HTTP {error.code} {' '.join(str(error.reason).split())}".strip(), wait)


def _trouble(error: object) -> Trouble:
    """The trouble behind an exception of urllib, http.client, ssl or socket, or a text of urllib."""
    said = " ".join(str(error).split()) or type(error).__name__
    match error:
        case ssl.SSLCertVerificationError():
            return Trouble(CERTIFICATE, f"its certificate is not trusted: {error.verify_message or said}")
        case ssl.SSLError():
            wait = 0.0 if isinstance(error, ssl.SSLEOFError) else None
            return Trouble(CONNECTION, f"no secure connection: {said}", wait)
        case socket.gaierror():
            wait = 0.0 if error.errno == socket.EAI_AGAIN else None
            return Trouble(NAME, f"no such host: {error.strerror or said}", wait)
        case TimeoutError():
            return Trouble(SILENT, "the server did not answer in time", 0.0)
        case http.client.IncompleteRead():
            return Trouble(SHORT, f"the connection ended early: {said}", 0.0)
        case OSError():
            return Trouble(CONNECTION, f"no connection: {error.strerror or said}", 0.0)
        case http.client.InvalidURL():
            return Trouble(ADDRESS, said)
        case http.client.HTTPException():
            return Trouble(CONNECTION, f"what answers there does not speak http: {said}")
        case _:
            return Trouble(ADDRESS, said)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Fetch what LABMAKE_STEP says."""
    with open(os.environ["LABMAKE_STEP"], encoding="utf-8") as file:
        step = json.load(file)
    try:
        size = fetch(step["address"], step["outputs"]["out"], step["tries"], say=_say)
    except Trouble as trouble:
        _say(trouble.reason)
        sys.exit(trouble.kind)
    _say(f"fetched {size} bytes from {step['address']}")


if __name__ == "__main__":
    main()
