from pathlib import Path

from bench.cache_kill import VICTIMS, run


async def test_kills_tear_nothing_and_lose_nothing(tmp_path: Path):
    """Services and Redis that are killed under load come back; no answer is torn, none acknowledged is lost."""
    result = await run(rounds=len(VICTIMS), seed=7, folder=tmp_path)

    assert result.kills == dict.fromkeys(VICTIMS, 1)
    assert result.hits > result.acknowledged > 100
    assert (result.torn, result.lost) == (0, 0)
