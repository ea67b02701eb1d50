"""Sources in the web: fetched once, pinned, found by the pin alone, and faults of servers told apart."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from space import Space, wait_until
from webserver import Page, Site, in_turn

from labmake.executors.fetch import SILENT, Trouble, ascii_address, fetch

DATA = b"day,value\n1,2\n"
LONG = bytes(range(256)) * 8000


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is asked itself, whatever proxy this machine has."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")


@pytest.fixture
def site() -> Iterator[Site]:
    opened = Site()
    yield opened
    opened.close()


def hexed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def rules(space: Space, address: str, options: str = "") -> None:
    """A source at an address, and a step that takes it."""
    space.write(
        "script.py",
        f"""
        source("data/x.csv", {address!r}{options})
        rule("data/lines.txt", x="data/x.csv", run=sh("wc -l < {{x}} > {{out}}"))
        """,
    )


# Once, and then by the pin ------------------------------------------------------------------------------------------


def test_it_is_fetched_once_pinned_and_from_then_on_the_network_is_not_asked(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = DATA
    rules(space, site.address("/x.csv"))
    space.build()
    assert space.ran == ["data/lines.txt", "data/x.csv"]
    assert space.path("data/x.csv").read_bytes() == DATA
    checked = subprocess.run(
        ["sha256sum", "--check", space.path("hashes.txt")], cwd=space.root, capture_output=True, check=False
    )
    assert checked.returncode == 0, "the pin is a line that coreutils understands"
    assert "up to date" in space.build()
    shutil.rmtree(space.root / "generated")
    site.close()
    space.build()
    assert space.ran == [] and space.restored == ["data/lines.txt", "data/x.csv"]
    assert site.asked == ["/x.csv"]


def test_a_copied_experiment_and_a_moved_address_find_the_data_by_their_pin(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = LONG
    rules(space, site.address("/x.csv"))
    space.build()
    rules(space, site.address("/moved.csv"))
    assert "up to date" in space.build()
    copy = "2026-01-03-Copy"
    shutil.copytree(space.root / "scripts" / space.experiment, space.root / "scripts" / copy)
    space.build("-e", copy)
    assert space.ran == [] and (space.root / "generated" / copy / "assets/data/x.csv").read_bytes() == LONG
    assert site.asked == ["/x.csv"]


def test_without_its_pin_it_is_fetched_anew_and_what_takes_it_runs(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = DATA
    rules(space, site.address("/x.csv"))
    space.build()
    site.pages["/x.csv"] = DATA + b"2,3\n"
    assert "up to date" in space.build(), "a pin is not asked about"
    space.path("hashes.txt").unlink()
    space.build()
    assert space.ran == ["data/lines.txt", "data/x.csv"] and space.read("data/lines.txt").strip() == "3"
    assert hexed(DATA + b"2,3\n") in space.read("hashes.txt")


def test_other_data_than_pinned_stop_the_build_before_it_computes(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = b"other"
    rules(space, site.address("/x.csv"))
    pin = f"{hexed(DATA)}  generated/{space.experiment}/assets/data/x.csv\n"
    space.write("hashes.txt", pin)
    done = space.build(code=4)
    for words in ("are not what hashes.txt records", hexed(DATA), hexed(b"other"), site.address("/x.csv")):
        assert words in done
    assert not space.exists("data/x.csv") and not space.exists("data/lines.txt")
    assert space.read("hashes.txt") == pin
    space.build(code=4)
    site.pages["/x.csv"] = DATA
    space.build()
    assert space.path("data/x.csv").read_bytes() == DATA
    space.write("hashes.txt", pin.replace(hexed(DATA), hexed(b"third")))
    assert hexed(b"third") in space.build(code=4) and hexed(DATA) in space.last


def test_force_asks_again_and_compares_with_the_pin(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = DATA
    rules(space, site.address("/x.csv"))
    space.build()
    space.build("-f", "data/x.csv")
    assert site.asked == ["/x.csv"] * 2 and space.ran == ["data/x.csv"]
    site.pages["/x.csv"] = b"other"
    done = space.build("-f", "data/x.csv", code=4)
    assert hexed(b"other") in done and space.path("data/x.csv").read_bytes() == DATA
    assert "up to date" in space.build()


def test_with_the_store_lost_data_that_lie_in_their_place_are_taken_from_there(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = LONG
    rules(space, site.address("/x.csv"))
    space.build()
    shutil.rmtree(space.root / ".git" / "labmake")
    space.build("data/x.csv")
    assert space.ran == [] and site.asked == ["/x.csv"]
    space.path("data/x.csv").unlink()
    space.build("data/x.csv")
    assert space.restored == ["data/x.csv"] and site.asked == ["/x.csv"]


def test_edited_data_are_kept_and_nothing_is_fetched(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = DATA
    rules(space, site.address("/x.csv"))
    space.build()
    space.path("data/x.csv").unlink()
    space.write("data/x.csv", "mine")
    assert "was edited" in space.build(code=3) and space.read("data/x.csv") == "mine"
    space.path("hashes.txt").unlink()
    space.build(code=3)
    assert space.read("data/x.csv") == "mine" and site.asked == ["/x.csv"]
    space.run("restore", "data/x.csv", code=None)
    space.build("--discard-edits", "-y")
    assert space.path("data/x.csv").read_bytes() == DATA


def test_two_sources_of_one_address_are_one_fetch(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = DATA
    address = site.address("/x.csv")
    space.write("script.py", f"source('data/a.csv', {address!r})\nsource('data/b.csv', {address!r})\n")
    space.build("-j", "2")
    assert site.asked == ["/x.csv"] and space.files() == {"data/a.csv": DATA.decode(), "data/b.csv": DATA.decode()}
    assert len(space.read("hashes.txt").splitlines()) == 2


def test_a_dry_build_says_what_it_would_fetch_and_asks_nobody(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = DATA
    rules(space, site.address("/x.csv"))
    done = space.build("-n")
    assert "would run     data/x.csv" in done and f"fetched from {site.address('/x.csv')}" in done
    assert site.asked == [] and not space.exists("hashes.txt")
    space.build()
    shutil.rmtree(space.root / "generated")
    assert "would restore data/x.csv" in space.build("-n")


def test_two_are_fetched_at_the_same_time(space: Space, site: Site) -> None:
    both = threading.Barrier(2)

    def waits(page: Page) -> None:
        both.wait(timeout=100)  # it would never end if one was fetched after the other
        page.answer(200, page.path.encode())

    site.pages = {"/a": waits, "/b": waits}
    space.write("script.py", f"source('a', {site.address('/a')!r})\nsource('b', {site.address('/b')!r})\n")
    space.build("-j", "2")
    assert space.files() == {"a": "/a", "b": "/b"}


def test_a_killed_fetch_leaves_nothing_and_the_next_build_fetches(space: Space, site: Site) -> None:
    go_on = threading.Event()

    def half(page: Page) -> None:
        page.answer(200, LONG[:100], Content_Length=str(len(LONG)))
        page.wfile.flush()
        go_on.wait(100)

    site.pages["/x.csv"] = in_turn(half, LONG)
    rules(space, site.address("/x.csv"))
    running = space.start("build")
    wait_until(lambda: site.asked)
    running.kill()
    go_on.set()
    assert not space.exists("data/x.csv") and not space.exists("hashes.txt")
    space.build()
    assert space.path("data/x.csv").read_bytes() == LONG


def test_the_log_of_a_source_tells_where_it_came_from(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = DATA
    rules(space, site.address("/x.csv"))
    space.build()
    assert f"fetched {len(DATA)} bytes from {site.address('/x.csv')}" in space.run("logs", "data/x.csv")
    assert "up to date" in space.why("data/x.csv")


# Servers with faults ------------------------------------------------------------------------------------------------


def broken(page: Page) -> None:
    page.answer(500)


def cut(page: Page) -> None:
    page.answer(200, LONG[:100_000], Content_Length=str(len(LONG)))


def resetting(page: Page) -> None:
    cut(page)
    page.reset()


def chunked(page: Page) -> None:
    page.protocol_version = "HTTP/1.1"
    page.send_response(200)
    page.send_header("Transfer-Encoding", "chunked")
    page.end_headers()
    for start in range(0, len(LONG), 50_000):
        piece = LONG[start : start + 50_000]
        page.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    page.wfile.write(b"0\r\n\r\n")
    page.close_connection = True


def cut_chunk(page: Page) -> None:
    page.protocol_version = "HTTP/1.1"
    page.send_response(200)
    page.send_header("Transfer-Encoding", "chunked")
    page.end_headers()
    page.wfile.write(b"ffff\r\nshort")
    page.close_connection = True


@pytest.mark.parametrize(
    ("page", "asked"),
    [
        (in_turn(broken, broken, LONG), 3),
        (in_turn(resetting, LONG), 2),
        (in_turn(cut, LONG), 2),
        (in_turn(cut_chunk, chunked), 2),
    ],
    ids=["500 twice", "reset", "truncated", "chunk cut"],
)
def test_trouble_that_passes_is_tried_again_from_the_beginning(
    space: Space, site: Site, page: object, asked: int
) -> None:
    site.pages["/x.csv"] = page  # type: ignore[assignment]
    rules(space, site.address("/x.csv"))
    space.build("data/x.csv")
    assert space.path("data/x.csv").read_bytes() == LONG and len(site.asked) == asked
    assert "; again in" in space.run("logs", "data/x.csv")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (broken, ("HTTP 500", "try again later")),
        (cut, (f"ended after 100000 of {len(LONG)} bytes",)),
        (lambda page: page.answer(404), ("HTTP 404", "correct the address")),
        (lambda page: page.answer(401), ("HTTP 401", "password")),
        (lambda page: page.answer(302, Location="file:///etc/passwd"), ("HTTP 302", "not allowed")),
        (lambda page: page.answer(302, Location=page.path), ("infinite loop",)),
        (lambda page: page.wfile.write(b"SSH-2.0-OpenSSH\r\n"), ("does not speak http",)),
    ],
    ids=["500", "truncated", "404", "401", "to a file", "loop", "no http"],
)
def test_trouble_that_stays_is_told_with_its_reason_and_pins_nothing(
    space: Space, site: Site, page: object, words: tuple[str, ...]
) -> None:
    site.pages["/x.csv"] = page  # type: ignore[assignment]
    rules(space, site.address("/x.csv"), ", retries=0")
    done = space.build(code=1)
    for part in ("data/x.csv could not be fetched", site.address("/x.csv"), "script.py:3", *words):
        assert part in done, done.text
    assert not space.exists("data/x.csv") and not space.exists("hashes.txt")
    assert "could not be fetched" in space.run("failures")


def test_a_server_that_stays_broken_is_asked_as_often_as_retries_says(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = broken
    rules(space, site.address("/x.csv"), ", retries=1")
    done = space.build(code=1)
    assert site.asked == ["/x.csv"] * 2 and "tries    2" in done
    site.pages["/x.csv"] = lambda page: page.answer(404)
    rules(space, site.address("/x.csv"), ", retries=5")
    space.build(code=1)
    assert len(site.asked) == 3, "what is not there is not asked for again"


def test_what_does_not_need_a_broken_source_is_made(space: Space, site: Site) -> None:
    rules(space, site.address("/x.csv"))
    script = space.read("script.py") + "rule('data/other.txt', run=sh('echo fine > {out}'))\n"
    space.write("script.py", script)
    space.build(code=1)
    assert space.ran == ["data/other.txt"]


def test_no_such_host_and_nobody_who_listens_are_told_apart(space: Space) -> None:
    rules(space, "http://nowhere.invalid/x.csv", ", retries=0")
    assert "no such host" in space.build(code=1)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        rules(space, f"http://127.0.0.1:{bound.getsockname()[1]}/x.csv", ", retries=0")
        assert "no connection" in space.build(code=1)


def test_a_fetch_ends_when_its_time_is_over(space: Space, site: Site) -> None:
    end = threading.Event()
    site.pages["/x.csv"] = lambda _: end.wait(100) and None
    rules(space, site.address("/x.csv"), ", time='1s'")
    done = space.build(code=1)
    end.set()
    assert "was not fetched within its time" in done and "time=" in done


def test_a_server_that_says_nothing_is_given_up(site: Site, tmp_path: Path) -> None:
    end = threading.Event()
    site.pages["/x"] = lambda _: end.wait(100) and None
    with pytest.raises(Trouble) as trouble:
        fetch(site.address("/x"), str(tmp_path / "x"), tries=1, timeout=0.1)
    end.set()
    assert trouble.value.kind == SILENT


def test_redirects_are_followed(space: Space, site: Site) -> None:
    site.pages["/x.csv"] = lambda page: page.answer(302, Location="/there/y.csv")
    site.pages["/there/y.csv"] = chunked
    rules(space, site.address("/x.csv"))
    space.build()
    assert space.path("data/x.csv").read_bytes() == LONG and site.asked == ["/x.csv", "/there/y.csv"]


def test_a_proxy_of_the_environment_is_used(space: Space, site: Site) -> None:
    site.pages["http://nowhere.invalid/x.csv"] = DATA
    rules(space, "http://nowhere.invalid/x.csv")
    space.build(env={"http_proxy": site.address(""), "no_proxy": ""})
    assert space.path("data/x.csv").read_bytes() == DATA


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody trusts, with its key in the same file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("certificate")
    words = "req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=story -keyout key.pem -out cert.pem"
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", *words.split(), *names], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "key.pem").read_text() + (folder / "cert.pem").read_text())
    return both


def test_https_is_fetched_from_a_server_that_is_trusted_and_from_no_other(space: Space, certificate: Path) -> None:
    secure = Site(certificate)
    secure.pages["/x.csv"] = DATA
    rules(space, secure.address("/x.csv"))
    done = space.build(code=1)
    assert "certificate is not trusted" in done and "SSL_CERT_FILE" in done and secure.asked == []
    space.build(env={"SSL_CERT_FILE": str(certificate.parent / "cert.pem")})
    secure.close()
    assert space.path("data/x.csv").read_bytes() == DATA
    assert "up to date" in space.build()


# Addresses ----------------------------------------------------------------------------------------------------------


def test_an_address_may_have_letters_of_any_language_spaces_and_a_query(space: Space, site: Site) -> None:
    site.pages["/gr%C3%B6%C3%9Fe%20x.csv?a=1&b=%C3%A9"] = DATA
    rules(space, site.address("/größe x.csv?a=1&b=é#part"))
    space.build("data/x.csv")
    assert space.path("data/x.csv").read_bytes() == DATA


@given(st.text(), st.text())
def test_an_address_is_sent_in_ascii_and_writing_it_so_changes_nothing_more(path: str, query: str) -> None:
    written = f"https://example.org/{path}?{query}"
    try:
        sent = ascii_address(written)
    except UnicodeEncodeError:
        return  # half of a character
    assert sent.isascii() and " " not in sent and ascii_address(sent) == sent


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("source('data/x/', 'https://example.org/x/')", ("a source by https is one file",)),
        ("source('data/x.csv', 'https://me:secret@example.org/x.csv')", ("holds no password",)),
        ("source('data/x.csv', 'ftp://example.org/x.csv')", ("cannot fetch ftp://", "http(s)")),
        ("source('data/x.csv', 'http:///x.csv')", ("names no host",)),
        ("source('data/x.csv', 'http://[half/x.csv')", ("names no host",)),
    ],
)
def test_an_address_that_no_source_can_have_is_told_where_it_is_written(
    space: Space, rule: str, words: tuple[str, ...]
) -> None:
    space.write("script.py", rule + "\n")
    done = space.build(code=2)
    for part in ("script.py:3", *words):
        assert part in done, done.text
    assert "secret" not in done
