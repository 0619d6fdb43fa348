"""Domains of an LMA and MAGs for tests: the stages of the demos, started, watched, and ended without a trace."""

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from router.demo.branch import ACCESSES, GATEWAY, Access
from router.demo.branch_stage import BranchStage, Rule
from router.demo.proxy_stage import ProxyStage
from router.demo.stage import Stage
from router.demo.traffic import Program
from tests.e2e.domain import usable_at_once
from tests.eventually import eventually

BOTH_UP = {access.name: "up" for access in ACCESSES}


@contextmanager
def proxy_domain(directory: Path, **about: Any) -> Iterator[ProxyStage]:
    """An LMA and two MAGs that run."""
    with ProxyStage(directory, **about) as stage, watched(stage):
        for node in stage.world.nodes:  # these tests are not about duplicate address detection
            usable_at_once(stage.world[node])
        stage.start_routers()
        stage.program("server", "cn", "tcp-serve").wait_for("ready")
        yield stage


@contextmanager
def branch_domain(
    directory: Path, rules: Sequence[Rule] = (), *, without: Sequence[Access] = (), **about: Any
) -> Iterator[BranchStage]:
    """An LMA, a MAG with two uplinks that are up but for those it is without, and hosts that have addresses."""
    with BranchStage(directory, rules=rules, **about) as stage, watched(stage):
        for node in stage.world.nodes:
            usable_at_once(stage.world[node])
        for access in without:
            stage.world["wires"].link_down(access.toward(GATEWAY))
        stage.start_routers()
        stage.serve()
        stage.attach_hosts([access for access in ACCESSES if access not in without])
        yield stage


@contextmanager
def watched(stage: Stage[Any]) -> Iterator[None]:
    """No router may meet anything it was not written for; what they said is shown when a test fails."""
    try:
        yield
    except BaseException:
        for name in stage.routers.processes:
            print(f"--- {name}\n{stage.log_file(name).read_text()}")  # pytest shows it with the failure
        raise
    for name in stage.routers.processes:
        log = stage.log_file(name).read_text()
        assert "Traceback" not in log, f"{name}: {log}"
        assert "ERROR" not in log, f"{name}: {log}"


def reload(stage: BranchStage) -> None:
    """Have the MAG read its configuration again, as it should be now."""
    stage.tell(GATEWAY, stage.gateway_text())
    stage.routers.processes[GATEWAY].send_signal(signal.SIGHUP)


def carries(stage: BranchStage, more: int, count: Callable[[], int], what: str) -> None:
    """Wait until something has been counted so many times more."""
    begin = count()
    eventually(lambda: count() >= begin + more, 10.0, what)


def octets(program: Program) -> int:
    """That a download has received so far."""
    reports = program.reports("progress")
    return int(reports[-1]["octets"]) if reports else 0
