"""Where the MARs of a stage keep their sessions: a file, or Redis servers that live in the core of its world."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from router.demo.lab import Host, end
from router.demo.mar_stage import MarStage
from router.demo.topology import CN_GATEWAY
from router.errors import RouterError

FIRST_PORT = 7001
MASTERS = 3  # of a cluster: the fewest there may be
WITHIN = 15.0  # s for servers to be ready


def opened(store: str, stage: MarStage) -> AbstractContextManager[str]:
    """The store of that name, ready: its URL. Raises RouterError."""
    return OPENERS[store](stage)


@contextmanager
def sqlite(stage: MarStage) -> Iterator[str]:
    """A file beside the routers."""
    yield stage.store


@contextmanager
def redis(stage: MarStage) -> Iterator[str]:
    """One server, which writes nothing down."""
    with servers(stage, 1) as ports:
        yield f"redis://[{CN_GATEWAY}]:{ports[0]}/0"


@contextmanager
def cluster(stage: MarStage) -> Iterator[str]:
    """Three masters without replicas."""
    with servers(stage, MASTERS, "--cluster-enabled", "yes") as ports:
        nodes = [f"{CN_GATEWAY}:{port}" for port in ports]
        told = (*("--cluster", "create", *nodes), *("--cluster-replicas", "0"), "--cluster-yes")
        client(stage.world["core"], ports[0], *told)
        ready(lambda: "cluster_state:ok" in client(stage.world["core"], ports[0], "cluster", "info"))
        yield f"redis+cluster://[{CN_GATEWAY}]:{ports[0]}"


@contextmanager
def servers(stage: MarStage, count: int, *arguments: str) -> Iterator[list[int]]:
    """So many Redis servers in the core: their ports."""
    core = stage.world["core"]
    ports = list(range(FIRST_PORT, FIRST_PORT + count))
    with ExitStack() as stack:
        for port in ports:
            place = stage.directory / f"redis{port}"
            place.mkdir()
            command = ["redis-server", "--port", str(port), "--bind", str(CN_GATEWAY), "--dir", str(place)]
            command += ["--save", "", "--appendonly", "no", "--protected-mode", "no", *arguments]
            stack.callback(end, [core.spawn(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)])
        for port in ports:
            ready(partial(answers, core, port))
        yield ports


def client(core: Host, port: int, *command: str) -> str:
    """What a server answers."""
    process = core.spawn(
        ["redis-cli", "-h", str(CN_GATEWAY), "-p", str(port), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return process.communicate(timeout=WITHIN)[0].decode()


def answers(core: Host, port: int) -> bool:
    """A server is there."""
    return client(core, port, "ping").strip() == "PONG"


def ready(is_so: Callable[[], bool]) -> None:
    """Wait for it. Raises RouterError."""
    deadline = time.monotonic() + WITHIN
    while not is_so():
        if time.monotonic() > deadline:
            raise RouterError(f"the Redis servers are not ready after {WITHIN:g} s")
        time.sleep(0.05)


def has_redis() -> bool:
    """Whether there is a server to start."""
    return shutil.which("redis-server") is not None and shutil.which("redis-cli") is not None


OPENERS = {"sqlite": sqlite, "redis": redis, "cluster": cluster}
STORES = {"sqlite": lambda: True, "redis": has_redis, "cluster": has_redis}  # name -> whether it is here
