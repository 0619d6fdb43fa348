"""`--doctor`: a line for each thing that matters, a cure for each that is wrong, and a code that says which."""

import subprocess
import sys
from pathlib import Path

import pytest

from engine import Offloads
from router import doctor
from router.doctor import CHECKS, Finding, Verdict, report
from router.errors import ExitCode

PROJECT = Path(__file__).resolve().parents[2]
GOOD = Finding(Verdict.GOOD, "tun", "there")
WORSE = Finding(Verdict.WORSE, "engine", "slow")
BAD = Finding(Verdict.BAD, "clock", "set it")


def test_the_doctor_runs_here_and_every_check_has_its_line() -> None:
    command = [sys.executable, "-m", "router", "--doctor"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=20)
    lines = done.stdout.splitlines()
    assert len(lines) == len(CHECKS), done.stdout + done.stderr
    assert {line.split()[0] for line in lines} <= {verdict.value for verdict in Verdict}
    bad = any(line.startswith("FAIL") for line in lines)
    assert done.returncode == (ExitCode.NO_RIGHTS if bad else ExitCode.DONE)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("findings", "code"),
    [([GOOD], ExitCode.DONE), ([GOOD, WORSE], ExitCode.DONE), ([GOOD, BAD, WORSE], ExitCode.NO_RIGHTS)],
)
def test_only_what_is_missing_makes_it_fail(
    findings: list[Finding], code: ExitCode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", tuple(lambda found=found: found for found in findings))
    assert report() == code
    assert len(capsys.readouterr().out.splitlines()) == len(findings)


def test_a_machine_without_tun_is_told_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "TUN", tmp_path / "tun")
    found = doctor._tun()
    assert found.verdict is Verdict.BAD
    assert "no such file or directory: load the tun module" in found.text


def test_a_clock_that_was_never_set_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: 0.0)
    assert doctor._clock().verdict is Verdict.BAD


def test_an_engine_that_is_not_compiled_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.engine, "compiled", False)
    assert doctor._engine().verdict is Verdict.WORSE


def test_a_state_directory_nobody_can_write_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    found = doctor._store()
    assert found.verdict is Verdict.WORSE
    assert "--state-dir" in found.text


def test_the_offloads_of_the_kernel_are_named_and_those_that_are_missing_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.offloads, "probe", lambda: Offloads(uso=False))
    (finding,) = [check() for check in CHECKS if check.__name__ == "_offloads"]
    assert finding.verdict is Verdict.WORSE
    assert "gives tso, checksum, udp_segment, udp_gro; not uso" in finding.text
    monkeypatch.setattr(doctor.offloads, "probe", Offloads)
    (finding,) = [check() for check in CHECKS if check.__name__ == "_offloads"]
    assert finding == Finding(Verdict.GOOD, "offloads", "the kernel gives tso, uso, checksum, udp_segment, udp_gro")
