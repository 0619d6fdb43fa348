"""The doors of doors.py, searched for so many seconds by atheris, from the seeds on: `make fuzz SECONDS=60`.

Whatever ends the search early (an exception, a message that comes back changed, an input that takes too long or too
much memory), the octets that did are printed as hex, in a line of Python that does it again; the exit status is 1.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.fuzz.doors import DOORS, chosen
from tests.fuzz.seeds import SEEDS

LIMITS: Final = (
    "-max_len=2049",  # octets: the longest Mobility Header, and the octet that chooses the door
    "-timeout=5",  # s for one input
    "-rss_limit_mb=1024",
    "-print_final_stats=1",
)
TAIL: Final = 40  # lines of the log to show with a finding


def plant(corpus: Path) -> None:
    """Write each seed to a file of its own, behind the octet that chooses its door."""
    corpus.mkdir()
    for number, name in enumerate(DOORS):
        for seed, octets in enumerate(SEEDS[name]):
            (corpus / f"{name}-{seed}").write_bytes(bytes([number]) + octets)


def search(place: Path, seconds: int) -> bool:
    """Search in a process of its own; tell whether nothing was found. Leaves its log and findings in place."""
    plant(place / "corpus")
    found = place / "found"
    found.mkdir()
    options = (f"-max_total_time={seconds}", f"-artifact_prefix={found}/", *LIMITS)
    command = (sys.executable, "-m", "tests.fuzz.atheris_target", *options, place / "corpus")
    with (place / "log").open("wb") as log:
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode == 0


def again(octets: bytes) -> str:
    """Give the line of Python that shows a finding without atheris."""
    if not octets:
        return "no octets at all"
    name, rest = chosen(octets)
    return f"from tests.fuzz.doors import DOORS, come_in; come_in(DOORS[{name!r}], bytes.fromhex({rest.hex()!r}))"


def main(seconds: int) -> int:
    """Search for so many seconds and say what was found; give the exit status."""
    with TemporaryDirectory(prefix="openmar.") as directory:
        place = Path(directory)
        clean = search(place, seconds)
        log = (place / "log").read_text(errors="replace").splitlines()
        if clean:
            print(next((line for line in log if line.startswith("Done ")), "Done"), "at every door: nothing found")
            return 0
        print(*(line for line in log[-TAIL:] if not line.startswith("#")), sep="\n")
        for path in sorted((place / "found").iterdir()):
            print(f"\n{path.name}\n{again(path.read_bytes())}")
        return 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
