"""What the door costs: CPU per call to find out who calls, and per second to stay current.

    python -m bench.access [--keys N]

Every figure is this process's CPU time; the lowest of several rounds counts, since on a shared machine a disturbance
only adds. The keyring holds N keys (10,000 unless said otherwise) from a real SQLite database.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import insert

from kit.errors import Unauthenticated
from kit.identity import CallContext
from services.inference.access import secret, tables
from services.inference.access.authenticator import Authenticator
from services.inference.access.key import KeyDraft
from services.inference.access.key_store import KeyStore
from services.inference.access.keyring import Keyring
from services.inference.access.tokens import Minter, Tokens
from services.inference.database import migrating
from services.inference.database.database import Database
from services.inference.database.settings import DatabaseSettings

METHOD = "millrace.inference.v1.InferenceService/StreamGenerate"
PEPPER = b"a pepper for the bench, nobody's"
ROUNDS, CALLS = 7, 5_000
HEADERS = (
    ("user-agent", "grpc-python-asyncio/1.85"),
    ("x-request-id", "0af7651916cd43dd8448eb211c80319c"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-client-id", "127.0.0.1"),
)


class Call:
    """A call as grpc shows it."""

    def __init__(self, *shown: tuple[str, str]) -> None:
        self._metadata = (*HEADERS, *shown)

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """Returns the headers."""
        return self._metadata


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=10_000, metavar="N", help="keys in the database, 2 or more")
    asyncio.run(measure(parser.parse_args().keys))


async def measure(key_count: int) -> None:
    """Prints the CPU time of each way in."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{Path(folder)}/bench.sqlite3")))
        await migrating.prepare(database, True)
        text = await fill(database, key_count)
        keyring = Keyring(KeyStore(database), PEPPER, 900.0)
        begun = time.process_time()
        await keyring.refresh()
        print(f"reading {key_count} keys at start: {(time.process_time() - begun) * 1e3:.0f} ms")
        minter = Minter(b"s" * 32, 900)
        door = Authenticator(keyring, Tokens(minter.issuer), is_required=True)
        context = CallContext("r")
        for name, call in (
            ("a known key", Call(("authorization", f"Bearer {text}"))),
            ("a known token", Call(("authorization", f"Bearer {minter.mint('ada', 'acme', 'user', '')}"))),
        ):
            print(f"{name}: {await lowest(lambda call=call: door.identify(METHOD, context, call)):.1f} us")  # type: ignore[misc]
        guesses_us = await lowest(lambda: asyncio.gather(*(refused(keyring) for _ in range(1_000))), 1)
        print(f"a guess, of a thousand at once: {guesses_us / 1e3:.1f} us")
        poll_us = await lowest(keyring.refresh, 200)
        print(f"a look for changes: {poll_us:.0f} us, so {poll_us * 2 / 1e4:.2f} % of a core at two a second")
        await database.close()


async def fill(database: Database, key_count: int) -> str:
    """Makes keys; returns the secret of one."""
    text = secret.new_secret()
    await KeyStore(database).create(KeyDraft("bench"), secret.prefix(text), secret.digest(text, PEPPER))
    async with database.reading() as connection:
        like = dict((await connection.execute(tables.keys.select())).one()._mapping)
    more = [{**like, "key_id": f"key_{number}"} for number in range(key_count - 1)]
    kept = [{"digest": secret.digest(one["key_id"], PEPPER), "key_id": one["key_id"]} for one in more]
    async with database.writing(60) as connection:
        await connection.execute(insert(tables.keys), more)
        await connection.execute(insert(tables.secrets), kept)
    return text


async def refused(keyring: Keyring) -> None:
    """Tries a key that nobody made."""
    try:
        await keyring.caller_of(secret.new_secret())
    except Unauthenticated:
        return


async def lowest(act: Callable[[], Awaitable[Any]], count: int = CALLS) -> float:
    """Returns the CPU microseconds of one act, of the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        begun = time.process_time()
        for _ in range(count):
            await act()
        best = min(best, (time.process_time() - begun) / count)
    return best * 1e6


if __name__ == "__main__":
    main()
