"""Asking a running router, with nothing but the standard library: the command line must start fast."""

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from router.errors import NoRights, NotRunning, RouterError, TimedOut
from router.places import started_as

ANSWER_WITHIN = 5.0  # s
PIECE = 1 << 18  # octets of a stream, at most at once


class Client:
    """The control API of one router. Raises NotRunning, TimedOut, NoRights; RouterError for what it refuses."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def show(self, what: str) -> dict[str, Any]:
        """The answer to `show what`."""
        return self._ask("GET", f"/v1/show/{what}")

    def attach(self, request: Mapping[str, str]) -> dict[str, Any]:
        """Say that a node is there."""
        return self._ask("POST", "/v1/attach", request)

    def detach(self, node: str) -> dict[str, Any]:
        """Say that a node has left."""
        return self._ask("POST", "/v1/detach", {"node": node})

    def set_policy(self, name: str, text: str, file: str) -> dict[str, Any]:
        """Have these [[flow]] rules be the policy of that name."""
        return self._ask("POST", "/v1/policy/set", {"name": name, "text": text, "file": file})

    def clear_policy(self, name: str) -> dict[str, Any]:
        """Have no policy of that name any more."""
        return self._ask("POST", "/v1/policy/clear", {"name": name})

    def move(self, request: Mapping[str, str]) -> dict[str, Any]:
        """Have {"node", "prefix"} at this router, or {"to"}; with {"policy"} flows of it."""
        return self._ask("POST", "/v1/move", request)

    def revoke(self, request: Mapping[str, str]) -> dict[str, Any]:
        """Revoke the sessions of {"node": ...}, of {"peer": ...}, or all: {}."""
        return self._ask("POST", "/v1/revoke", request)

    def reload(self) -> dict[str, Any]:
        """Have it read its configuration again."""
        return self._ask("POST", "/v1/reload", {})

    def drain(self, within: str | None = None) -> dict[str, Any]:
        """Have it take no new nodes and end when nobody needs it, or after so many seconds."""
        return self._ask("POST", "/v1/drain", {} if within is None else {"within": within})

    def end_drain(self) -> dict[str, Any]:
        """Have it take nodes again."""
        return self._ask("POST", "/v1/drain/cancel", {})

    def take_over(self, identity: Mapping[str, str]) -> socket.socket:
        """Be its next process, if it agrees: what is said from here on, see `router.takeover`. Raises RouterError."""
        connection = self._connect()
        try:
            response = self._request(connection, "POST", "/v1/takeover", json.dumps(identity))
            if response.status != HTTPStatus.SWITCHING_PROTOCOLS or connection.sock is None:
                raise RouterError(_refusal(response, self._read(response)))
            return connection.sock.dup()
        finally:
            connection.close()

    def monitor(self, history: int = 0) -> Iterator[dict[str, Any]]:
        """Events as they happen, after so many past ones, until the router ends. Raises RouterError when it dies."""
        connection = self._connect()
        try:
            response = self._request(connection, "GET", f"/v1/monitor?history={history}")
            if response.status != 200:
                raise RouterError(_refusal(response, self._read(response)))
            if connection.sock is not None:
                connection.sock.settimeout(None)
            try:
                yield from _lines(response)
            except (http.client.HTTPException, ConnectionError, ValueError):
                raise RouterError(f"{self._path}: the router died, or was killed: see its log") from None
        finally:
            connection.close()

    def capture(self, tunnel: str, *, outer: bool = False, count: int | None = None) -> "Capturing":
        """Begin to capture what goes through a tunnel: a peer's name or address, or "all". count: packets, at most."""
        query = {"tunnel": tunnel, "face": "outer" if outer else "inner"} | ({"count": str(count)} if count else {})
        connection = self._connect()
        try:
            response = self._request(connection, "GET", f"/v1/capture?{urlencode(query)}")
            if response.status != 200:
                raise RouterError(_refusal(response, self._read(response)))
            if connection.sock is not None:
                connection.sock.settimeout(None)
        except BaseException:
            connection.close()
            raise
        return Capturing(self, connection, response)

    def stop_capture(self, number: str) -> dict[str, Any]:
        """Let the capture of that number end."""
        return self._ask("POST", "/v1/capture/stop", {"capture": number})

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None = None) -> dict[str, Any]:
        connection = self._connect()
        try:
            response = self._request(connection, method, path, json.dumps(body) if body is not None else None)
            answer = self._read(response)
        finally:
            connection.close()
        if response.status != 200:
            raise RouterError(_refusal(response, answer))
        return answer

    def _request(
        self, connection: "UnixConnection", method: str, path: str, body: str | None = None
    ) -> http.client.HTTPResponse:
        with self._explained():
            connection.request(method, path, body=body)
            return connection.getresponse()

    def _read(self, response: http.client.HTTPResponse) -> dict[str, Any]:
        with self._explained():
            answer = json.loads(response.read())
            if not isinstance(answer, dict):
                raise ValueError("not a JSON object")
            return answer

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise TimedOut(f"{self._path}: no answer in {ANSWER_WITHIN:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = " ".join(str(error).split()) or type(error).__name__  # it may be what a stranger answered
            raise NotRunning(f"{self._path}: no router answered there ({why})") from None

    def _connect(self) -> "UnixConnection":
        connection = UnixConnection(self._path)
        try:
            connection.connect()
        except PermissionError:
            raise NoRights(f"{self._path}: permission denied: run as the user of the router, or its group") from None
        except (TimeoutError, BlockingIOError):  # its backlog is full
            raise TimedOut(f"{self._path}: the router does not accept the connection") from None
        except OSError:
            raise NotRunning(
                f"{self._path}: no router listens there: start one with `{started_as()} --mar` (--lma, --mag), or name "
                "its socket with --socket"
            ) from None
        return connection


class Capturing:
    """A capture of a running router: a pcapng file that comes piece by piece. Close it at the end."""

    def __init__(self, client: Client, connection: "UnixConnection", response: http.client.HTTPResponse) -> None:
        self._client = client
        self._connection = connection
        self._response = response

    def pieces(self) -> Iterator[bytes]:
        """Octets as they come, until the capture or the router ends, which may cut the last block short."""
        try:
            while octets := self._response.read1(PIECE):
                yield octets
        except (http.client.HTTPException, ConnectionError, ValueError):
            return

    def stop(self) -> None:
        """Have it end: the rest and the statistics still come. Raises RouterError, e.g. when it has ended already."""
        self._client.stop_capture(self._response.headers.get("Openmar-Capture", ""))

    def close(self) -> None:
        """Hang up; the router stops capturing."""
        self._response.close()
        self._connection.close()


def _lines(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    """Events until the router ends the stream. Raises HTTPException, ConnectionError or ValueError if it breaks off."""
    rest = b""
    while octets := response.read1(PIECE):
        *lines, rest = (rest + octets).split(b"\n")
        for line in lines:
            yield json.loads(line)
    if rest:
        raise ValueError("the last line was cut short")


def _refusal(response: http.client.HTTPResponse, answer: Mapping[str, Any]) -> str:
    return str(answer.get("error", f"refused with status {response.status}"))


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_WITHIN)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # close() has it from here on
        self.sock.settimeout(ANSWER_WITHIN)
        self.sock.connect(str(self._path))
