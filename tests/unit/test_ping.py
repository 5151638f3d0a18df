"""A ping is sent or its failure is told; the run it tells of never waits for it nor fails with it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from storekeeper.outcomes import Severity
from storekeeper.watch.ping import ping

TOKEN = "hunter2-token"


@dataclass
class Service:
    """A dead-man service on the loopback; `answer` is what it does with each request."""

    url: str = ""
    answer: Callable[[BaseHTTPRequestHandler], None] = field(default=lambda handler: reply(handler, 200))
    received: list[tuple[str, str, str]] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)


def reply(handler: BaseHTTPRequestHandler, code: int, **headers: str) -> None:
    handler.send_response(code)
    for name, value in {"Content-Length": "0", **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = Service()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            found.received.append((self.command, self.path, body))
            found.answer(self)

        do_GET = do_POST = _serve  # noqa: N815 the names that http.server calls

        def log_message(self, *words: object) -> None:
            """Nothing: the test asks `received`."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that went away is what these tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}/{TOKEN}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.let_go.set()
    server.shutdown()
    thread.join()
    server.server_close()


def warning(url: str, **options: float) -> str:
    problem = ping(url, True, "backup of maestro is verified", **options)
    assert problem is not None
    assert problem.severity is Severity.WARNING
    assert TOKEN not in f"{problem}"
    return problem.message


def test_a_good_run_is_told_with_its_sentence(service: Service) -> None:
    assert ping(service.url, True, "maestro: verified in 12 s, 50 % of it Ж") is None
    assert service.received == [("POST", f"/{TOKEN}", "maestro: verified in 12 s, 50 % of it Ж")]


@pytest.mark.parametrize(
    ("ending", "path"),
    [("", f"/{TOKEN}/fail"), ("/", f"/{TOKEN}/fail"), ("?create=1", f"/{TOKEN}/fail?create=1"), ("/a?x=/", f"/{TOKEN}/a/fail?x=/")],
)
def test_a_bad_run_is_told_as_a_failure(service: Service, ending: str, path: str) -> None:
    assert ping(service.url + ending, False, "maestro: nothing was published") is None
    assert service.received == [("POST", path, "maestro: nothing was published")]


@pytest.mark.parametrize("code", [400, 404, 429, 500, 503])
def test_an_answer_that_is_no_success_is_a_warning(service: Service, code: int) -> None:
    service.answer = lambda handler: reply(handler, code)
    assert warning(service.url) == f"the ping to 127.0.0.1 was not delivered: it answered {code}"


def test_a_service_that_hangs_is_given_up(service: Service) -> None:
    service.answer = lambda handler: service.let_go.wait(60) and None
    assert "no answer" in warning(service.url, patience=0.3)


def test_an_answer_that_never_ends_is_given_up(service: Service) -> None:
    """Each byte comes in time for the socket, so that only the limit over everything ends it."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        while not service.let_go.wait(0.05):
            handler.wfile.write(b"H")
            handler.wfile.flush()

    service.answer = drip
    assert "no answer within 0.4 s" in warning(service.url, patience=0.4)


def test_a_connection_that_is_dropped_is_a_warning(service: Service) -> None:
    service.answer = lambda handler: handler.connection.shutdown(socket.SHUT_RDWR)
    assert "was not delivered" in warning(service.url)


def test_an_answer_that_is_no_http_is_a_warning(service: Service) -> None:
    service.answer = lambda handler: handler.wfile.write(f"{TOKEN} nonsense\r\n\r\n".encode()) and None
    assert "was not delivered" in warning(service.url)


def test_nobody_listening_is_a_warning() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{TOKEN}"
        assert "Connection refused" in warning(url)


@pytest.mark.parametrize(
    "url",
    [
        f"file:///{TOKEN}",
        f"ftp://127.0.0.1/{TOKEN}",
        f"/{TOKEN}",
        "",
        f"http:///{TOKEN}",
        f"http://[::1/{TOKEN}",
        f"http://127.0.0.1:x/{TOKEN}",
    ],
)
def test_what_is_no_web_address_is_a_warning_and_no_crash(url: str) -> None:
    assert "was not delivered" in warning(url)


def test_a_redirect_within_http_is_followed(service: Service) -> None:
    service.answer = lambda handler: reply(handler, 200 if handler.path == "/new" else 302, Location="/new")
    assert ping(service.url, True, "x") is None
    assert [path for _, path, _ in service.received] == [f"/{TOKEN}", "/new"]


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_a_redirect_to_another_kind_of_address_is_not_followed(service: Service, target: str) -> None:
    service.answer = lambda handler: reply(handler, 302, Location=target)
    assert "it answered 302" in warning(service.url)


def test_redirects_without_end_are_given_up(service: Service) -> None:
    service.answer = lambda handler: reply(handler, 302, Location=handler.path + "x")
    assert "it answered 302" in warning(service.url)
    assert len(service.received) < 10
