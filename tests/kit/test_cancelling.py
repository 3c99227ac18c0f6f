import asyncio

from kit.cancelling import cancel_all


async def test_stubborn_task_is_ended():
    """A task that takes its first cancels for something else is cancelled until it ends."""
    refused_count = 0

    async def work() -> None:
        nonlocal refused_count
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                refused_count += 1
                if refused_count > 2:
                    raise

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_all({task})

    assert task.cancelled()


async def test_ended_tasks_are_left_alone():
    """Tasks that have ended are waited for no more."""
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    async with asyncio.timeout(5):
        await cancel_all({task})

    assert not task.cancelled()
