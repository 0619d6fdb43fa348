"""An act is played when a real one is about to come: at once, at a bounded rate, and again when it has been wound."""

import asyncio

from router import readiness
from router.readiness import Ready
from router.rehearsal import Act
from tests.eventually import until
from tests.on_loop import sync


class Play:
    """Counts its acts; waits before the first of two."""

    def __init__(self, act: Act) -> None:
        self.acts = 0

    @property
    def ready(self) -> bool:
        return self.acts % 2 == 0

    def play(self) -> None:
        self.acts += 1

    def wind(self) -> None:
        self.acts = 0


class Bench:
    def __init__(self, plays: int, *, prepared: bool = True) -> None:
        self.made: list[Play] = []
        self.ready = Ready(self._make, Act.UPDATE, plays=plays)  # type: ignore[arg-type]
        if prepared:
            self.ready.prepare()

    def _make(self, act: Act) -> Play:
        self.made.append(Play(act))
        return self.made[-1]

    @property
    def played(self) -> int:
        return sum(each.acts > 0 for each in self.made)


@sync
async def test_it_is_played_at_once_and_not_again_and_again() -> None:
    bench = Bench(plays=2)
    assert [bench.ready.play() for _ in range(4)] == [True, True, False, False]
    assert [each.acts for each in bench.made] == [1, 1]


@sync
async def test_before_it_is_prepared_nothing_is_played() -> None:
    bench = Bench(plays=2, prepared=False)
    assert not bench.ready.play()
    assert bench.made == []


@sync
async def test_it_can_be_prepared_while_the_router_serves() -> None:
    bench = Bench(plays=2, prepared=False)
    bench.ready.prepare_later()
    await until(lambda: bench.ready._rounds == readiness.ROUNDS)
    assert [bench.ready.play() for _ in range(3)] == [True, True, False]


@sync
async def test_what_was_played_is_wound_and_played_again() -> None:
    bench = Bench(plays=1)
    bench.ready.play()
    await until(lambda: bench.made[0].ready)
    await until(bench.ready.play)
    assert bench.made[0].acts == 3


@sync
async def test_a_vigil_plays_as_often_as_can_be() -> None:
    bench = Bench(plays=3)
    bench.ready.watch()
    assert bench.played == 1
    await until(lambda: bench.played == 3)


@sync
async def test_a_vigil_that_is_called_off_plays_no_more() -> None:
    bench = Bench(plays=3)
    bench.ready.watch()
    bench.ready.call_off()
    await asyncio.sleep(3 * readiness.VIGIL_STEP)
    assert bench.played == 1
