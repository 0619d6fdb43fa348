"""Real servers of the Redis protocol on loopback: one, or a cluster of three masters, each behind a proxy of ours.

    store --- proxy (slow? shut?) --- redis-server (running? stopped? full?)

Everything lives in one directory and ends with its `Servers`. Nothing is ever skipped where CI is set.
"""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme

from tests.eventually import eventually

HERE = "127.0.0.1"
SLOTS = 16384
START_WITHIN = 20.0  # s, of a cluster on a busy machine
CHUNK = 65536


def needs_redis() -> None:
    """Skip the test where there is no server and none can be had."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("no redis-server: apt-get install redis-server")
        pytest.skip("NO REDIS-SERVER: the distributed store is not tested here: apt-get install redis-server")


@dataclass(frozen=True)
class Secrets:
    """What a server and its clients show each other: one certificate for all, of an authority of the test's own."""

    ca: Path
    cert: Path
    key: Path
    password: str

    @classmethod
    def made(cls, directory: Path, password: str) -> "Secrets":
        authority = trustme.CA()
        issued = authority.issue_cert(HERE)
        found = cls(directory / "ca.pem", directory / "cert.pem", directory / "key.pem", password)
        authority.cert_pem.write_to_path(str(found.ca))
        issued.cert_chain_pems[0].write_to_path(str(found.cert))
        issued.private_key_pem.write_to_path(str(found.key))
        return found


@dataclass
class Proxy:
    """Passes octets on, each time after `delay` s and while `open` is set; what was held back follows."""

    port: int
    target: int
    delay: float = 0.0
    open: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        self.open.set()
        server = await asyncio.start_server(self._accept, HERE, self.port)
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(OSError, asyncio.CancelledError):
            try:
                await self.open.wait()
                far_reader, far_writer = await asyncio.open_connection(HERE, self.target)
                try:
                    async with asyncio.TaskGroup() as both:
                        both.create_task(self._pump(reader, far_writer))
                        both.create_task(self._pump(far_reader, writer))
                except* OSError:
                    pass
                finally:
                    far_writer.close()
            finally:
                writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while octets := await reader.read(CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self.open.wait()
            writer.write(octets)
            await writer.drain()
        raise ConnectionResetError  # the other direction ends with this one


class Server:
    """One redis-server. port: its own; announced: where clients are sent, of a cluster."""

    def __init__(
        self, directory: Path, port: int, announced: int, bus: int | None, secrets: Secrets | None = None
    ) -> None:
        self.directory, self.port, self.announced, self.bus = directory, port, announced, bus
        self._secrets = secrets
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir()

    @property
    def admin(self) -> redis.Redis:
        secured: dict[str, Any] = {}
        if self._secrets is not None:
            ca, cert, key = (str(file) for file in (self._secrets.ca, self._secrets.cert, self._secrets.key))
            secured = {"ssl": True, "ssl_ca_certs": ca, "ssl_certfile": cert, "ssl_keyfile": key}
            secured["password"] = self._secrets.password
        return redis.Redis(HERE, self.port, decode_responses=True, socket_timeout=5, **secured)

    def start(self) -> None:
        """Unless it runs."""
        if self._process is not None:
            return
        command = ["redis-server", "--port", str(self.port), "--bind", HERE, "--dir", str(self.directory)]
        if self._secrets is not None:
            command = ["redis-server", "--port", "0", "--tls-port", str(self.port), *command[3:]]
            command += ["--tls-ca-cert-file", str(self._secrets.ca), "--tls-cert-file", str(self._secrets.cert)]
            command += ["--tls-key-file", str(self._secrets.key), "--tls-cluster", "yes"]
            command += ["--requirepass", self._secrets.password]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "no", "--loglevel", "warning"]
        if self.bus is not None:
            command += ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"]
            command += ["--cluster-require-full-coverage", "no", "--cluster-port", str(self.bus)]
            kind = "" if self._secrets is None else "tls-"
            command += ["--cluster-announce-ip", HERE, f"--cluster-announce-{kind}port", str(self.announced)]
            command += ["--cluster-announce-bus-port", str(self.bus)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        eventually(self._is_up, START_WITHIN, f"redis-server on port {self.port}")

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "redis-server ended"
        with suppress(redis.RedisError), self.admin as admin:
            return bool(admin.ping())
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def lose_data(self) -> None:
        shutil.rmtree(self.directory / "appendonlydir")


class Servers:
    """All servers of one store, and what can go wrong with them."""

    def __init__(self, directory: Path, count: int, *, proxied: bool, secrets: Secrets | None = None) -> None:
        with ExitStack() as stack:
            ports = [_free_port(stack) for _ in range(3 * count)]
        trios = list(zip(ports[::3], ports[1::3], ports[2::3], strict=True))
        self.cluster = count > 1
        self.servers = [
            Server(directory / str(port), port, front if proxied else port, bus if self.cluster else None, secrets)
            for port, front, bus in trios
        ]
        self.proxies = [Proxy(front, port) for port, front, _ in trios] if proxied else []
        first = self.servers[0]
        self.url = f"redis{'+cluster' * self.cluster}://{HERE}:{first.announced}"

    def start(self, *, new: bool = False) -> None:
        """Until all of them serve. new: they have to become a cluster first."""
        for server in self.servers:
            server.start()
        if self.cluster:
            if new:
                self._join()
            eventually(self._is_joined, START_WITHIN, "the cluster")

    def _join(self) -> None:
        share = -(-SLOTS // len(self.servers))
        for at, server in enumerate(self.servers):
            with server.admin as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", at * share, min(SLOTS, (at + 1) * share) - 1)
                first = self.servers[0]
                if at:
                    admin.execute_command("CLUSTER", "MEET", HERE, first.port, first.bus)

    def _is_joined(self) -> bool:
        for server in self.servers:
            with server.admin as admin:
                found = admin.execute_command("CLUSTER", "INFO")
                text = found if isinstance(found, str) else "\n".join(f"{k}:{v}" for k, v in found.items())
                if "cluster_state:ok" not in text or f"cluster_slots_ok:{SLOTS}" not in text:
                    return False
        return True

    # --- what can go wrong ---

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def lose_data(self) -> None:
        for server in self.servers:
            server.lose_data()

    def pause(self) -> None:
        for server in self.servers:
            server.signal(signal.SIGSTOP)

    def resume(self) -> None:
        for server in self.servers:
            server.signal(signal.SIGCONT)

    def fill(self) -> None:
        """No room for anything new."""
        self.tell("CONFIG", "SET", "maxmemory", "1")

    def empty(self) -> None:
        self.tell("CONFIG", "SET", "maxmemory", "0")

    def tell(self, *command: str) -> None:
        for server in self.servers:
            with server.admin as admin:
                admin.execute_command(*command)

    @asynccontextmanager
    async def reachable(self) -> AsyncIterator[None]:
        """As long as the proxies serve, which are of the loop that runs."""
        async with AsyncExitStack() as stack:
            for proxy in self.proxies:
                proxy.delay, proxy.open = 0.0, asyncio.Event()
                await stack.enter_async_context(proxy.serving())
            yield

    def slow(self, delay: float) -> None:
        for proxy in self.proxies:
            proxy.delay = delay

    def cut(self) -> None:
        for proxy in self.proxies:
            proxy.open.clear()

    def heal(self) -> None:
        for proxy in self.proxies:
            proxy.open.set()


def _free_port(stack: ExitStack) -> int:
    one = stack.enter_context(socket.socket())
    one.bind((HERE, 0))
    port: int = one.getsockname()[1]
    return port


@contextmanager
def running(
    directory: Path, count: int, *, proxied: bool = False, secrets: Secrets | None = None
) -> Iterator[Servers]:
    """Servers that run until the end of the context."""
    needs_redis()
    servers = Servers(directory, count, proxied=proxied, secrets=secrets)
    try:
        servers.start(new=True)
        yield servers
    finally:
        servers.kill()
