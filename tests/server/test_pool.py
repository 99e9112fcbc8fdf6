"""The pool of workers: bounded, in order, and alive after any job."""

import asyncio
import os
import signal
import time

import pytest
from fakecoder import FakeCoder, Unfit
from standin import pool

import sempic
from sempic import progress
from sempic.server import pool as pools


def with_pool(test, **options):
    """Runs the coroutine function `test` with a started pool."""

    async def run():
        p = pool(**options)
        await p.start()
        try:
            return await test(p)
        finally:
            p.kill()

    return asyncio.run(run())


def test_jobs_are_done_in_order_and_the_queue_is_bounded():
    async def test(p):
        order = []

        async def job(i):
            done = await p.run("echo", i, 0.05)
            order.append(done.value)

        jobs = [asyncio.create_task(job(i)) for i in range(4)]
        await asyncio.sleep(0)
        assert p.accepted == 4
        with pytest.raises(pools.QueueFull, match="4 requests run or wait") as full:
            await p.run("echo", 4)
        assert 1 <= full.value.retry_after <= 60
        await asyncio.gather(*jobs)
        assert order == [0, 1, 2, 3]
        assert (await p.run("echo", 5)).value == 5
        assert p.accepted == p.running == 0

    with_pool(test, queue=3)


def test_a_pool_survives_slow_dying_failing_and_refused_jobs():
    async def test(p):
        with pytest.raises(pools.TooSlow, match=r"0\.5 s"):
            await p.run("echo", 0, 30)
        p.seconds = 30  # for the rest
        with pytest.raises(pools.InternalError, match="died"):
            await p.run("die")
        assert p.replaced == 2
        with pytest.raises(pools.InternalError, match="internal"):
            await p.run("fail")
        with pytest.raises(sempic.InputError, match="not this"):
            await p.run("refuse")
        done = await p.run("echo", "still here")
        assert done.value == "still here"
        assert p.replaced == 2
        assert p.accepted == p.running == 0

    with_pool(test, seconds=0.5)


def test_a_job_that_a_worker_does_not_even_take_has_a_limit():
    """A pipe holds small jobs only; of a large one, the sender waits."""

    async def test(p):
        (idle,) = p.workers
        os.kill(idle.process.pid, signal.SIGSTOP)
        with pytest.raises(pools.TooSlow):
            await asyncio.wait_for(p.run("echo", bytes(1 << 22)), 30)
        p.seconds = 30
        assert (await p.run("echo", 1)).value == 1
        assert p.replaced == 1

    with_pool(test, seconds=0.1)


def test_a_worker_that_dies_idle_costs_no_request():
    async def test(p):
        (idle,) = p.workers
        os.kill(idle.process.pid, signal.SIGKILL)
        idle.process.join(60)
        assert (await p.run("echo", 1)).value == 1
        assert p.replaced == 1

    with_pool(test)


def test_a_pool_whose_workers_have_died_says_so_and_replaces_them():
    async def test(p):
        assert p.is_alive()
        (idle,) = p.workers
        os.kill(idle.process.pid, signal.SIGKILL)
        idle.process.join(60)
        assert not p.is_alive()
        assert p.replaced == 1
        await asyncio.sleep(0.01)  # the new one starts
        assert p.is_alive()
        assert (await p.run("echo", 1)).value == 1
        assert p.replaced == 1

    with_pool(test)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_starting_worker_ignores_signals_of_the_group(number):
    worker = pools.Worker(FakeCoder)
    os.kill(worker.process.pid, number)
    try:
        assert worker.wait_until_ready() is None
    finally:
        worker.kill()


def test_a_worker_that_dies_while_starting_is_replaced(monkeypatch):
    async def test(p):
        began, ready = [], pools.Worker.wait_until_ready

        def dies_once(worker):
            began.append(worker)
            if len(began) == 1:
                worker.process.kill()
            return ready(worker)

        monkeypatch.setattr(pools.Worker, "wait_until_ready", dies_once)
        with pytest.raises(pools.InternalError, match="died"):
            await p.run("die")
        assert (await p.run("echo", 1)).value == 1
        assert len(began) == 2
        assert len(p.workers) == 1

    with_pool(test)


def test_a_job_whose_client_has_disconnected_is_not_run():
    async def test(p):
        async def disconnected():
            return True

        with pytest.raises(pools.Disconnected):
            await p.run("die", disconnected=disconnected)
        assert (await p.run("echo", 1)).value == 1
        assert p.replaced == 0

    with_pool(test)


def test_jobs_of_disconnected_clients_leave_the_queue_while_a_job_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(pools, "POLL", 0.05)
    end = tmp_path / "end"

    async def test(p):
        left = []

        async def disconnected():
            return bool(left)

        long = asyncio.create_task(p.run("wait", end, "long"))
        while not p.running:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(p.run("die", disconnected=disconnected)) for _ in range(2)]
        last = asyncio.create_task(p.run("echo", "last"))
        await asyncio.sleep(0.2)
        assert p.accepted == 4
        left.append(True)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(end) for end in ends] == [pools.Disconnected] * 2
        assert not long.done()
        assert p.accepted == 2
        end.touch()
        assert (await long).value == "long"
        assert (await last).value == "last"
        assert p.replaced == 0

    with_pool(test, queue=3)


def test_waiting_for_a_worker_has_a_limit(tmp_path):
    end = tmp_path / "end"

    async def test(p):
        slow = asyncio.create_task(p.run("wait", end, 0))
        while not p.running:
            await asyncio.sleep(0.01)
        p.seconds = 0.1
        with pytest.raises(pools.Busy, match="no worker"):
            await p.run("echo", 1)
        end.touch()
        assert (await slow).value == 0

    with_pool(test)


def test_a_pool_that_cannot_start_raises_the_cause():
    with pytest.raises(sempic.ModelError, match="no such model"):
        with_pool(None, make=Unfit)


class Slow(FakeCoder):
    """Waits at its start, as for numba to compile."""

    def __init__(self) -> None:
        super().__init__()
        progress.PATIENCE = 0.0
        with progress.waiting("compiling"):
            time.sleep(0.2)


def test_waiting_at_the_start_of_a_worker_is_logged(caplog):
    async def test(p):
        assert (await p.run("echo", 1)).value == 1

    with caplog.at_level("INFO", logger="sempic.server"):
        with_pool(test, make=Slow)
    assert "compiling" in [record.message for record in caplog.records]
