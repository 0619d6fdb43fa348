"""The states of a registration: every cell of the table, and what belongs to no cell."""

import pytest

from signaling.node_interface import NodeInterface
from signaling.pmip.binding_update_list import NEXT, Registration, Session, Stage, Step
from signaling.pmip.uplinks import UplinkPath
from tests.signaling.pmip.pmip_world import LMA


def registration(stage: Stage) -> Registration:
    session = Session(who=NodeInterface("mn1", b""), interface="lan0", technology=3)
    return Registration(session=session, path=UplinkPath(anchor=LMA, care_of=LMA), stage=stage)


@pytest.mark.parametrize(("cell", "follows"), NEXT.items(), ids=lambda it: str(it))
def test_a_step_of_the_table_leads_where_it_says(cell: tuple[Stage, Step], follows: Stage) -> None:
    item = registration(cell[0])
    assert item.step(cell[1])
    assert item.stage is follows


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("stage", Stage)
def test_a_step_that_is_not_in_the_table_changes_nothing(stage: Stage, step: Step) -> None:
    if (stage, step) in NEXT:
        return
    item = registration(stage)
    assert not item.step(step)
    assert item.stage is stage


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.NONE])
def test_every_registration_can_be_revoked(stage: Stage) -> None:
    assert NEXT[stage, Step.REVOKED] is Stage.NONE


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_can_be_reached(stage: Stage) -> None:
    reached = {Stage.NONE}
    while more := {to for (start, _), to in NEXT.items() if start in reached} - reached:
        reached |= more
    assert stage in reached


def test_nothing_that_waits_for_an_administrator_is_asked_again() -> None:
    assert (Stage.BARRED, Step.ASKED) not in NEXT
