"""The control socket is open before what answers there is loaded, which is after packets move."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from router.control.claim import claim
from router.errors import InUse

SLOW = {"aiohttp", "router.control.server", "router.control.commands", "router.links.address_socket"}


@pytest.mark.parametrize("part", ["mar_part"])
def test_what_moves_packets_is_loaded_without_what_answers_questions(part: str) -> None:
    program = f"import sys, router.daemon, router.{part}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not SLOW & set(loaded.split())


def test_whoever_connects_before_there_is_a_server_waits(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with claim(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(3) == b"GET"
        with pytest.raises(InUse, match="another router listens there"):
            claim(path)


def test_only_the_owner_and_the_group_may_open_it(tmp_path: Path) -> None:
    with claim(tmp_path / "control.sock"):
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o660
