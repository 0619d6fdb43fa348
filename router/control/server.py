"""The control API: HTTP on a Unix socket, for `python -m router show ...` and for `curl --unix-socket`.

    GET  /v1/show/{what}            {"schema": 1, "what": ..., "rows": [...]}
    GET  /v1/monitor[?history=N]    a line of JSON for each event, for as long as you listen
    GET  /v1/capture?tunnel=PEER    a pcapng file, for as long as you read; also [&face=outer] [&count=N]
    POST /v1/capture/stop           {"capture"}, the number from the header Openmar-Capture: it ends as it should
    POST /v1/attach                 {"interface", "link_layer", "node"?, "link_local"?}
    POST /v1/detach                 {"node"}
    POST /v1/policy/set             {"name", "text", "file"?}: TOML, and what problems call it
    POST /v1/policy/clear           {"name"}
    POST /v1/move                   {"node", "prefix", "to"?: name of a router, "policy"?: of the flows that are meant}
    POST /v1/revoke                 {"node"} or {"peer"} or {}: all
    POST /v1/reload                 {}
    POST /v1/drain                  {"within"?}: seconds
    POST /v1/drain/cancel           {}
    POST /v1/takeover               what identifies the next process; 101, and then as `router.takeover` says

Whoever may open the socket may do all of it: its file permissions (0660) are the access control.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from router import values
from router.access_links import AccessLinks
from router.control import orders
from router.control.capture import Captures
from router.control.claim import claim
from router.control.commands import VIEWS
from router.control.moves import Move
from router.driver import Line
from router.errors import RouterError
from router.takeover import TAKEN_OVER, hand_over, identity, refuse_another
from signaling.events import LinkDetached

if TYPE_CHECKING:
    from router.daemon import Router

log = logging.getLogger("openmar")

SCHEMA = 1
SHUTDOWN_WITHIN = 0.2  # s: listeners of `monitor` do not hold up the end
GATHER = 0.02  # s: lines of one handover go out together, and after it
LONGEST_ECHO = 100  # characters of a path that is not there
QUEUE = 10_000  # lines a slow listener may be behind; then it misses some


class ControlServer:
    """The control socket of one router."""

    def __init__(self, router: "Router") -> None:
        self._router = router
        self._captures = Captures(router)
        self._path: Path | None = None
        self._handing_over = False
        self._listening: set[asyncio.Queue[Line | None]] = set()  # of `monitor`; None: it is over
        application = web.Application(middlewares=[_errors_as_json, self._refuse_while_paused])
        for method, place, answer in ROUTES:
            application.router.add_route(method, place, partial(answer, self))
        application.on_shutdown.extend((self._captures.end, self._farewell))
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_WITHIN)

    async def start(self, path: Path, claimed: socket.socket | None = None) -> None:
        """Answer. claimed: the socket from claim(), None: it is claimed now. Raises InUse, NoRights."""
        await self._runner.setup()
        listener = claim(path) if claimed is None else claimed
        self._path = path
        await web.SockSite(self._runner, listener).start()

    async def stop(self, *, keep: bool = False) -> None:
        """Stop listening and take the socket away; keep: it is another process's now."""
        await self._runner.cleanup()
        if keep:
            return
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _show(self, request: web.Request) -> web.Response:
        what = request.match_info["what"]
        known = VIEWS[self._router.config.role]
        if what not in known:
            raise RouterError(f"show {what}: unknown: expected one of {', '.join(known)}")
        return _json({"schema": SCHEMA, "what": what, "rows": known[what](self._router)})

    async def _monitor(self, request: web.Request) -> web.StreamResponse:
        history = _history(request.query.get("history", ""))
        response = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
        await response.prepare(request)
        lines: asyncio.Queue[Line | None] = asyncio.Queue(QUEUE)
        journalist = self._router.driver.journalist
        for line in list(journalist.history)[-history:] if history else ():
            lines.put_nowait(line)

        def listen(line: Line) -> None:
            if not lines.full():
                lines.put_nowait(line)

        journalist.listeners.add(listen)
        self._listening.add(lines)
        try:
            news: list[Line | None] = []
            while None not in news:
                news = [await lines.get()]
                await asyncio.sleep(GATHER)
                while not lines.empty():
                    news.append(lines.get_nowait())
                told = (json.dumps(plain_line(line)).encode() + b"\n" for line in news if line is not None)
                await response.write(b"".join(told))
        except (ConnectionResetError, asyncio.CancelledError):
            pass  # it has gone, or is too slow for a router that stops
        finally:
            journalist.listeners.discard(listen)
            self._listening.discard(lines)
        return response

    async def _farewell(self, _: web.Application) -> None:
        """The router stops: whoever listens hears the stream end, and not break off."""
        for lines in self._listening:
            if lines.full():
                lines.get_nowait()
            lines.put_nowait(None)

    async def _capture(self, request: web.Request) -> web.StreamResponse:
        return await self._captures.stream(request)

    async def _stop_capture(self, request: web.Request) -> web.Response:
        number = (await _body(request, required=("capture",)))["capture"]
        self._captures.stop(number)
        return _json({"schema": SCHEMA, "capture": number})

    async def _attach(self, request: web.Request) -> web.Response:
        asked = await _body(request, required=("interface", "link_layer"), optional=("node", "link_local"))
        try:
            link_layer = values.link_layer(asked["link_layer"])
            node = values.node_id(asked["node"]) if asked.get("node") else None
            link_local = values.link_local(asked["link_local"]) if asked.get("link_local") else None
        except ValueError as expected:
            raise RouterError(f"attach: expected {expected}") from None
        node = self._access("attach").attach(
            asked["interface"], link_layer, node, link_local, with_carrier=self._router.role.access.links
        )
        if node not in self._attached():
            raise RouterError(f"attach {node}: refused: this router drains: attach it elsewhere, or cancel the drain")
        return _json({"schema": SCHEMA, "node": node})

    async def _detach(self, request: web.Request) -> web.Response:
        node = (await _body(request, required=("node",)))["node"]
        self._access("detach")
        attached = self._attached()
        if node not in attached:
            here = ", ".join(sorted(attached)) or "nobody"
            raise RouterError(f"detach {node}: not attached here: attached: {here}")
        self._router.driver.feed(LinkDetached(node=node, reason="command"))
        return _json({"schema": SCHEMA, "node": node})

    def _attached(self) -> dict[str, None]:
        """Nodes that are here, by any of their interfaces."""
        return dict.fromkeys(item.node for item in self._router.role.access.attached.values())

    def _access(self, what: str) -> AccessLinks:
        """The access links. Raises RouterError where there can be none."""
        if self._router.access is None:
            called = orders.CALLED[self._router.config.role]
            raise RouterError(f"{what}: {called} has no access links: ask the router where the node is")
        return self._router.access

    async def _set_policy(self, request: web.Request) -> web.Response:
        asked = await _body(request, required=("name", "text"), optional=("file",))
        name = _policy_name(asked["name"])
        count = orders.set_policy(self._router, name, asked.get("file") or "policy", asked["text"])
        return _json({"schema": SCHEMA, "policy": name, "rules": count})

    async def _clear_policy(self, request: web.Request) -> web.Response:
        name = _policy_name((await _body(request, required=("name",)))["name"])
        orders.clear_policy(self._router, name)
        return _json({"schema": SCHEMA, "policy": name, "rules": 0})

    async def _move(self, request: web.Request) -> web.Response:
        asked = await _body(request, required=("node", "prefix"), optional=("to", "policy"))
        wanted = Move(**{key: value for key, value in asked.items() if value})
        to = await orders.move(self._router, wanted)
        return _json({"schema": SCHEMA, "node": wanted.node, "prefix": wanted.prefix, "to": to})

    async def _revoke(self, request: web.Request) -> web.Response:
        asked = await _body(request, required=(), optional=("node", "peer"))
        if len(asked) > 1:
            raise RouterError("revoke: expected a node or a peer, not both")
        orders.revoke(self._router, node=asked.get("node"), peer=asked.get("peer"))
        return _json({"schema": SCHEMA, "revoked": asked.get("node") or asked.get("peer") or "all"})

    async def _reload(self, request: web.Request) -> web.Response:
        await _body(request, required=())
        return _json({"schema": SCHEMA, "done": orders.reload(self._router)})


    async def _drain(self, request: web.Request) -> web.Response:
        within = (await _body(request, required=(), optional=("within",))).get("within")
        return _json({"schema": SCHEMA, "done": orders.drain(self._router, within)})

    async def _take_over(self, request: web.Request) -> web.StreamResponse:
        running = identity(self._router.config, self._router.underlay)
        asked = await _body(request, required=("version",), optional=None)
        if self._handing_over:
            raise RouterError("takeover: nothing was changed: another process is taking over")
        if self._router.config.role not in TAKEN_OVER:
            raise RouterError("takeover: nothing was changed: only a MAR can be taken over: stop this router first")
        refuse_another(running, asked)
        response = web.StreamResponse(status=101, headers={"Connection": "Upgrade", "Upgrade": "openmar"})
        await response.prepare(request)
        assert request.transport is not None
        request.transport.pause_reading()
        opened = request.transport.get_extra_info("socket").fileno()
        self._handing_over = True
        try:
            await hand_over(self._router, socket.socket(fileno=os.dup(opened)))
        except RouterError as error:
            log.warning("%s: going on as before", error)
        finally:
            self._handing_over = False
        response.force_close()
        return response

    @web.middleware
    async def _refuse_while_paused(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.method == "POST" and self._handing_over and self._router.driver.paused:
            raise RouterError(f"{request.path}: another process is taking over this router: ask again in a moment")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _end_drain(self, request: web.Request) -> web.Response:
        await _body(request, required=())
        return _json({"schema": SCHEMA, "done": orders.end_drain(self._router)})


ROUTES: tuple[tuple[str, str, Callable[[ControlServer, web.Request], Awaitable[web.StreamResponse]]], ...] = (
    ("GET", "/v1/show/{what}", ControlServer._show),
    ("GET", "/v1/monitor", ControlServer._monitor),
    ("GET", "/v1/capture", ControlServer._capture),
    ("POST", "/v1/capture/stop", ControlServer._stop_capture),
    ("POST", "/v1/attach", ControlServer._attach),
    ("POST", "/v1/detach", ControlServer._detach),
    ("POST", "/v1/policy/set", ControlServer._set_policy),
    ("POST", "/v1/policy/clear", ControlServer._clear_policy),
    ("POST", "/v1/move", ControlServer._move),
    ("POST", "/v1/revoke", ControlServer._revoke),
    ("POST", "/v1/reload", ControlServer._reload),
    ("POST", "/v1/drain", ControlServer._drain),
    ("POST", "/v1/drain/cancel", ControlServer._end_drain),
    ("POST", "/v1/takeover", ControlServer._take_over),
)


def _policy_name(text: str) -> str:
    try:
        return values.name(text)
    except ValueError as expected:
        raise RouterError(f"policy: expected {expected}") from None


def plain_line(line: Line) -> dict[str, Any]:
    """A line of the monitor as JSON has it."""
    return {"time": round(line.time, 6), "event": line.event} | {
        key: _plain(value) for key, value in line.fields.items()
    }


def _plain(value: object) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) or value is None else str(value)


def _history(text: str) -> int:
    """How many past lines a listener wants. Raises RouterError."""
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise RouterError(f"monitor: history {text}: expected a whole number")
    return int(text or 0)


def _json(answer: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.json_response(answer, status=status)


async def _body(
    request: web.Request, *, required: tuple[str, ...], optional: tuple[str, ...] | None = ()
) -> dict[str, str]:
    """optional: None: whatever there is."""
    try:
        asked = json.loads(await request.text())
    except (ValueError, LookupError, RecursionError):  # not JSON, an unknown character set, a tower of brackets
        raise RouterError(f"{request.path}: expected a JSON object") from None
    if not isinstance(asked, dict) or not all(isinstance(value, str | None) for value in asked.values()):
        raise RouterError(f"{request.path}: expected a JSON object of strings")
    if missing := [key for key in required if not asked.get(key)]:
        raise RouterError(f"{request.path}: missing {', '.join(missing)}")
    known = None if optional is None else required + optional
    if unknown := [key for key in asked if known is not None and key not in known]:
        expected = ", ".join(known or ()) or "nothing"
        raise RouterError(f"{request.path}: unknown {', '.join(unknown)}: expected {expected}")
    return asked


@web.middleware
async def _errors_as_json(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
        return answer
    except RouterError as error:
        return _json({"schema": SCHEMA, "error": str(error)}, status=409)
    except web.HTTPException as error:
        why = f"{request.method} {request.path[:LONGEST_ECHO]}: {error.reason}{_what_there_is(error)}"
        return _json({"schema": SCHEMA, "error": why}, status=error.status)
    except Exception:
        if request.writer.output_size:  # a stream that breaks off says enough
            raise
        log.exception("control socket: %s %s", request.method, request.path[:LONGEST_ECHO])
        why = f"{request.path[:LONGEST_ECHO]}: internal error of the router: see its log"
        return _json({"schema": SCHEMA, "error": why}, status=500)


def _what_there_is(error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f": expected {' or '.join(sorted(error.allowed_methods - {'HEAD'}))}"
    if not isinstance(error, web.HTTPNotFound):
        return ""
    return f": expected one of {', '.join(f'{method} {path}' for method, path, _ in ROUTES)}"
