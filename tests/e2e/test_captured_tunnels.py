"""`python -m router capture` on routers that work: what it writes is what went through the tunnel, says tshark.

    cn --- core --+-- mar1        the node's prefix is mar1's; it is tunneled to mar2, where the node goes
                  +-- mar2 --:-- mn
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from router.control.save import Blocks
from router.demo.topology import CN_ADDRESS, underlay_address
from router.errors import ExitCode
from tests.e2e.domain import Domain, finished, flowing
from tests.eventually import eventually
from tests.router.capturing import capturing

TUNNEL_PORT = 5437
WITHIN = 60.0  # s


def ended(process: "subprocess.Popen[str]", number: int = signal.SIGINT) -> tuple[int, int]:
    """Interrupt it: how many packets were written and lost, as it says."""
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (ExitCode.DONE, "")
    words = out.split()
    return int(words[0]), int(words[-2])


def fields(file: Path, *names: str, options: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """What tshark makes of a file: those fields of each packet. It finds nothing malformed."""
    tshark = shutil.which("tshark")
    if tshark is None:
        assert not os.environ.get("CI"), "tshark is the oracle of this test: apt install tshark"
        pytest.skip("no tshark here: apt install tshark")
    asked = [part for name in ("_ws.malformed", *names) for part in ("-e", name)]
    command = [tshark, "-r", str(file), *options, "-T", "fields", *asked]
    found = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN)
    assert found.returncode == 0, found.stderr
    rows = [line.split("\t") for line in found.stdout.splitlines()]
    assert not [row for row in rows if row[0]]
    return [tuple(row[1:]) for row in rows]


def packets_in(file: Path) -> int:
    """Packets in the whole blocks of a file."""
    blocks = Blocks()
    blocks.whole(file.read_bytes())
    return blocks.packets


@pytest.fixture(scope="module", params=[0, 2], ids=["in the loop", "two workers"])
def away(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """A node of mar1 that is at mar2, in the middle of a download; a capture ran on mar1 when it moved."""
    settings = {"engine": {"workers": request.param}}
    with Domain(tmp_path_factory.mktemp("away"), settings=settings) as away:
        away.mn.no_duplicate_detection()
        away.start().serve()
        away.mn.attach("mar1")
        address = away.mn.address(away["mar1"].pool)
        download = away.download()
        with capturing(away.directory / "mar1.sock", "mar2", str(away.directory / "move.pcapng")) as process:
            assert away["mar1"].show("tunnels") == []
            away.mn.attach("mar2")
            away.mn.address(away["mar2"].pool)
            flowing(download)
            packets, _ = ended(process)
        assert packets > 10  # segments travel in bundles
        yield away
        assert finished(download)["source"] == str(address)


@pytest.fixture
def address(away: Domain) -> IPv6Address:
    return away.mn.address(away["mar1"].pool)


def test_a_capture_that_began_before_the_move_has_the_first_packet_of_the_tunnel(
    away: Domain, address: IPv6Address
) -> None:
    rows = fields(away.directory / "move.pcapng", "frame.packet_flags_direction", "ipv6.src", "ipv6.dst")
    down = [(source, destination) for way, source, destination in rows if way in ("2", "0x00000002")]
    up = [(source, destination) for way, source, destination in rows if way in ("1", "0x00000001")]
    assert set(down) == {(str(CN_ADDRESS), str(address))}
    assert set(up) == {(str(address), str(CN_ADDRESS))}
    assert len(down) + len(up) == len(rows)


@pytest.mark.parametrize("name", ["mar2", "all", str(underlay_address(2))])
def test_inner_packets_are_what_correspondent_and_node_said(
    away: Domain, address: IPv6Address, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "inner.pcapng"
    with capturing(away.directory / "mar1.sock", name, str(file)) as process:
        eventually(lambda: packets_in(file) > 50, 10.0, "packets")
        packets, lost = ended(process, signal.SIGTERM)
    rows = fields(file, "ipv6.src", "ipv6.dst", "tcp.port", "frame.interface_name")
    assert (len(rows), lost) == (packets, 0)
    assert {frozenset(row[:2]) for row in rows} == {frozenset((str(CN_ADDRESS), str(address)))}
    assert all(port for _, _, port, _ in rows)
    assert {interface for *_, interface in rows} == {name}


@pytest.mark.parametrize("at", ["mar1", "mar2"])
def test_outer_packets_are_what_the_underlay_carries(
    away: Domain, address: IPv6Address, tmp_path: Path, at: str
) -> None:
    file = tmp_path / "outer.pcapng"
    other = {"mar1": "mar2", "mar2": "mar1"}[at]
    with capturing(away.directory / f"{at}.sock", other, str(file), "--outer", "--count", "60") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (ExitCode.DONE, f"60 packets written to {file}, 0 lost\n", "")
    options = ("-d", f"udp.port=={TUNNEL_PORT},ipv6", "-o", "udp.check_checksum:TRUE", "-o", "ipv6.defragment:FALSE")
    rows = fields(file, "ipv6.src", "ipv6.dst", "udp.port", "udp.checksum.status", options=options)
    assert len(rows) == 60
    outer = frozenset((str(underlay_address(1)), str(underlay_address(2))))
    inner = frozenset((str(CN_ADDRESS), str(address)))
    for sources, destinations, ports, checksum in rows:
        seen = zip(sources.split(","), destinations.split(","), strict=True)
        assert [frozenset(pair) for pair in seen] == [outer, inner]
        assert set(ports.split(",")) == {str(TUNNEL_PORT)}
        assert checksum == "1"


def test_the_node_goes_on_when_who_captured_was_killed(away: Domain, tmp_path: Path) -> None:
    log = away["mar1"].log
    for _ in range(2):  # the second may begin
        with capturing(away.directory / "mar1.sock", "mar2", str(tmp_path / "t")) as process:
            eventually(lambda: packets_in(tmp_path / "t"), 10.0, "packets")
            process.kill()
            process.wait(5)
        eventually(lambda: log().count("capture of mar2: ended") == log().count("capture of mar2: begins"), 5.0)


def test_a_router_that_dies_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    with Domain(tmp_path, mars=1) as it:
        it.start()
        for number, said in ((signal.SIGTERM, "0 lost"), (signal.SIGKILL, "cut off")):
            file = tmp_path / f"{number}.pcapng"
            with capturing(tmp_path / "mar1.sock", "all", str(file)) as process:
                it["mar1"].stop(number)
                out, _ = process.communicate(timeout=10)
            assert (process.returncode, said in out) == (ExitCode.DONE, True)
            assert fields(file, "frame.number") == []
            if number == signal.SIGTERM:
                it["mar1"].start()
