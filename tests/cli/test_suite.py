"""The suite runs real child processes: fakes of the services that speak gRPC health."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.ports import free_port
from cli.child import Child, Part
from cli.errors import CommandError
from cli.preflight import PortInUse, check
from cli.readiness import until_serving
from cli.restarts import Restarts
from cli.suite import Suite
from tests.fakes.proxy import name_a_proxy

DEADLINE_S = 30.0
SOON_S = (0.0,) * 3  # as many tries, without pauses


class Recorder:
    """A report that remembers."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str, str]] = []
        self.deaths: list[tuple[str, int, list[str]]] = []
        self.said: list[str] = []
        self._changed = asyncio.Event()

    def show(self, name: str, state: str, detail: str = "") -> None:
        self.shown.append((name, state, detail))
        self._changed.set()

    async def until_shown(self, *row: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while row not in self.shown:
                self._changed.clear()
                await self._changed.wait()

    def died(self, name: str, code: int, log: Path, tail: Sequence[str]) -> None:
        self.deaths.append((name, code, list(tail)))

    def say(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None: ...


def part(name: str, *options: str, grace_s: float = 5.0, port: int | None = None) -> Part:
    port = port or free_port()
    command = ("tests.fakes.service", "--name", name, "--port", str(port), *options)
    return Part(name, command, "127.0.0.1", port, grace_s)


async def never() -> None:
    pytest.fail("announced as ready")


class Run:
    """A suite under way, with its orders and its readiness as events."""

    def __init__(self, parts: list[Part], log_dir: Path | None, restarts: Restarts | None = None) -> None:
        self.report = Recorder()
        self.stop, self.kill, self.ready = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.suite = Suite(parts, until_serving, self.report, log_dir, restarts or Restarts(SOON_S))
        self._task: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Run:
        async def on_ready() -> None:
            self.ready.set()

        self._task = asyncio.create_task(self.suite.run(self.stop, self.kill, on_ready))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill.set()
        self.stop.set()
        await self.exit_code()

    async def exit_code(self) -> int:
        assert self._task
        async with asyncio.timeout(DEADLINE_S):
            return await self._task

    async def until_ready(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.ready.wait()


async def test_services_stop_callers_first(tmp_path):
    """An order to stop drains the services one after the other, in the order given, and the exit code is 0."""
    journal = tmp_path / "journal"
    names = ["edge", "inference", "cache"]
    async with Run([part(name, "--journal", str(journal)) for name in names], tmp_path) as run:
        await run.until_ready()
        run.stop.set()

        assert await run.exit_code() == 0
        assert journal.read_text().split() == names
        assert [name for name, state, _ in run.report.shown if state == "stopped"] == names


async def test_a_dead_service_is_named_with_its_last_words(tmp_path):
    """A service that dies while the others load ends the suite with 1 and a report of its last lines."""
    journal = tmp_path / "journal"
    parts = [part("edge", "--journal", str(journal)), part("cache", "--die-with", "3")]
    async with Run(parts, tmp_path) as run:
        assert await run.exit_code() == 1
        assert run.report.deaths == [("cache", 3, ["cache is loading", "the disk is made of cheese"])]
        assert not run.ready.is_set()
        ending = f"cache died (exit code 3) before it was ever ready. Its log: {tmp_path / 'cache.log'}"
        assert run.report.said == [f"The suite has ended: {ending}"]


def kill(run: Run, name: str) -> Child:
    """Kills a service and returns it."""
    child = next(child for child in run.suite.children if child.part.name == name)
    os.kill(child.pid, signal.SIGKILL)
    return child


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what happens in other processes."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def until_back(run: Run, dead: Child) -> None:
    """Waits until another process is ready in the place of one that has died."""
    await until(
        lambda: dead not in run.suite.children and all(child in run.suite._ready_at for child in run.suite.children)
    )


async def test_a_suite_is_found_ready_past_a_proxy(tmp_path, monkeypatch):
    """The proxy that the environment names, as many a company's does, is not asked for services of this machine."""
    name_a_proxy(monkeypatch)
    async with Run([part("cache")], tmp_path) as run:
        await run.until_ready()
        run.stop.set()

        assert await run.exit_code() == 0


async def test_a_service_killed_later_comes_back(tmp_path):
    """It is named by its signal and started again with its settings and its log; the others are left alone."""
    async with Run([part("edge"), part("cache")], tmp_path) as run:
        await run.until_ready()
        edge = run.suite.children[0]
        await until_back(run, kill(run, "cache"))

        assert [death[:2] for death in run.report.deaths] == [("cache", -signal.SIGKILL)]
        assert run.suite.children[0] is edge
        assert not edge.exited.done()
        assert (tmp_path / "cache.log").read_text().count("cache is loading") == 2
        run.stop.set()
        assert await run.exit_code() == 0


async def test_a_service_that_does_not_come_back_ends_the_suite(tmp_path):
    """One that fails as often as it is started is given up: the others are drained, and the last line names it."""
    journal, broken = tmp_path / "journal", tmp_path / "broken"
    parts = [part("edge", "--journal", str(journal)), part("cache", "--die-if", str(broken))]
    async with Run(parts, tmp_path) as run:
        await run.until_ready()
        broken.touch()
        kill(run, "cache")

        assert await run.exit_code() == 1
        assert [death[1] for death in run.report.deaths] == [-signal.SIGKILL, 1, 1, 1]
        ending = "cache died (exit code 1) 4 times without 60 s of being ready in between. Its log:"
        assert run.report.said == [f"The suite has ended: {ending} {tmp_path / 'cache.log'}"]
        assert journal.read_text().split() == ["edge"]


async def test_a_service_that_cannot_be_started_again_ends_the_suite(tmp_path):
    """Where the system does not let it, as without the folder for logs, the others are drained, and it says why."""
    journal, logs = tmp_path / "journal", tmp_path / "logs"
    async with Run([part("edge", "--journal", str(journal)), part("cache")], logs) as run:
        await run.until_ready()
        shutil.rmtree(logs)
        kill(run, "cache")

        assert await run.exit_code() == 1
        assert "cache cannot be started again" in run.report.said[0]
        assert journal.read_text().split() == ["edge"]


async def test_the_last_words_are_a_services_own(tmp_path):
    """One that is started again does not repeat what the one before it said."""
    async with Run([part("edge"), part("cache", "--die-if", str(tmp_path / "broken"))], tmp_path) as run:
        await run.until_ready()
        (tmp_path / "broken").touch()
        kill(run, "cache")
        await run.exit_code()

        assert [words for _, _, words in run.report.deaths] == [["cache is loading"]] * 4


async def test_a_service_that_dies_again_and_again_ends_the_suite(tmp_path):
    """That it is ready for a moment in between does not help: after so many tries it is not started any more."""
    async with Run([part("edge"), part("cache")], tmp_path) as run:
        await run.until_ready()
        for _ in SOON_S:
            await until_back(run, kill(run, "cache"))
        kill(run, "cache")

        assert await run.exit_code() == 1
        assert len(run.report.deaths) == len(SOON_S) + 1


async def test_a_service_that_was_well_for_long_has_all_its_tries_again(tmp_path):
    """Deaths that lie apart are no series, however many they are."""
    async with Run([part("edge"), part("cache")], tmp_path, Restarts((0.0,), steady_s=0.0)) as run:
        await run.until_ready()
        for _ in range(3):
            await until_back(run, kill(run, "cache"))
        run.stop.set()

        assert await run.exit_code() == 0


async def test_a_service_that_fails_to_start_again_once_is_tried_again(tmp_path):
    """What it lacked may have come back meanwhile."""
    async with Run([part("edge"), part("cache", "--die-if", str(tmp_path / "broken"))], tmp_path) as run:
        await run.until_ready()
        (tmp_path / "broken").touch()
        dead = kill(run, "cache")
        await until(lambda: len(run.report.deaths) == 2)
        (tmp_path / "broken").unlink()
        await until_back(run, dead)
        run.stop.set()

        assert await run.exit_code() == 0


async def test_a_service_that_dies_while_others_load_comes_back(tmp_path):
    """It was ready itself: how far the others are does not matter."""
    slow = tmp_path / "slow"
    slow.touch()
    parts = [part("cache"), part("inference", "--no-handlers-if", str(slow))]
    async with Run(parts, tmp_path) as run:
        await until(lambda: any(row[:2] == ("cache", "ready") for row in run.report.shown))
        dead = kill(run, "cache")
        await until(lambda: dead not in run.suite.children and run.suite.children[0] in run.suite._ready_at)

        assert [death[:2] for death in run.report.deaths] == [("cache", -signal.SIGKILL)]
        assert not run.ready.is_set()


async def test_stop_while_a_service_waits_to_be_started_again(tmp_path):
    """The pause is said, and an order to stop does not wait for its end."""
    async with Run([part("edge"), part("cache")], tmp_path, Restarts((600.0,))) as run:
        await run.until_ready()
        kill(run, "cache")
        await run.report.until_shown("cache", "waiting", "starts again in 600 s, try 1 of 1")
        run.stop.set()

        assert await run.exit_code() == 0


async def test_stop_while_a_service_comes_back(tmp_path):
    """What is being started again is stopped with the others, and had nothing to drain."""
    async with Run([part("edge"), part("cache", "--no-handlers-if", str(tmp_path / "slow"))], tmp_path) as run:
        await run.until_ready()
        (tmp_path / "slow").touch()
        kill(run, "cache")
        await until(lambda: (tmp_path / "cache.log").read_text().count("cache is loading") == 2)
        run.stop.set()

        assert await run.exit_code() == 0


async def test_logs_go_to_standard_output_where_hosts_read_them(tmp_path, capfd):
    """Without a folder what services log is our own output, and a death is told all the same."""
    journal = tmp_path / "journal"
    parts = [part("edge", "--journal", str(journal)), part("cache", "--die-with", "3")]
    async with Run(parts, None) as run:
        assert await run.exit_code() == 1
        assert run.report.deaths[0][:2] == ("cache", 3)

    assert "the disk is made of cheese" in capfd.readouterr().out


async def test_stop_while_loading(tmp_path):
    """A suite that is not ready yet shows what its services say, and stops as well."""
    async with Run([part("edge"), part("inference", "--never-ready")], tmp_path) as run:
        await run.report.until_shown("inference", "loading", "inference is loading")
        run.stop.set()

        assert await run.exit_code() == 0


async def test_stop_before_a_service_handles_signals(tmp_path):
    """A service that SIGTERM ends while it loads had nothing to drain: the suite still ends well."""
    async with Run([part("edge"), part("inference", "--no-handlers")], tmp_path) as run:
        await run.report.until_shown("inference", "loading", "inference is loading")
        run.stop.set()

        assert await run.exit_code() == 0
        assert run.report.shown[-1] == ("inference", "stopped", "")


async def test_a_service_that_does_not_drain_is_killed(tmp_path):
    """A service that ignores SIGTERM is killed when its grace is over, and the exit code says that it was."""
    async with Run([part("edge", "--ignore-sigterm", grace_s=0.2)], tmp_path) as run:
        await run.until_ready()
        run.stop.set()

        assert await run.exit_code() == 1
        assert run.report.shown[-1] == ("edge", "stopped", f"exit code {-signal.SIGKILL}")


async def test_second_order_kills_at_once(tmp_path):
    """An order to kill ends a long grace."""
    async with Run([part("edge", "--ignore-sigterm", grace_s=600.0)], tmp_path) as run:
        await run.until_ready()
        run.stop.set()
        run.kill.set()

        assert await run.exit_code() == 1


async def test_a_taken_port_is_refused_before_anything_starts(tmp_path):
    """A port in use is named together with the variable that moves it, and nothing is started."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        report = Recorder()
        suite = Suite([part("cache"), part("edge", port=port)], until_serving, report, tmp_path)
        with pytest.raises(PortInUse, match=rf"{port}.*edge.*MILLRACE_EDGE_PORT="):
            await suite.run(asyncio.Event(), asyncio.Event(), never)
    assert not report.shown


async def refusal(tmp_path: Path, *parts: Part) -> str:
    """What the suite says when it does not start, having started nothing."""
    report = Recorder()
    with pytest.raises(CommandError) as caught:
        await Suite(parts, until_serving, report, tmp_path / "logs").run(asyncio.Event(), asyncio.Event(), never)
    assert not report.shown
    return str(caught.value)


@pytest.mark.parametrize(("host", "other"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::", "127.0.0.1")])
async def test_two_services_on_one_port_are_refused(tmp_path, host, other):
    """A port that two services are given is named with both variables: the kernel would let them share it."""
    cache = part("cache")
    said = await refusal(tmp_path, replace(cache, host=host), replace(part("safety", port=cache.port), host=other))

    assert f"cache and safety cannot share port {cache.port}" in said
    assert "MILLRACE_CACHE_PORT or MILLRACE_SAFETY_PORT" in said


async def test_one_port_on_two_addresses_is_fine(tmp_path):
    """Services that listen on different addresses do not meet."""
    cache = part("cache")
    check([cache, replace(part("safety", port=cache.port), host="127.0.0.2")], tmp_path)


async def test_an_address_of_another_machine_is_explained(tmp_path):
    """An address that this machine does not have is named with the variable that sets it."""
    said = await refusal(tmp_path, replace(part("cache"), host="192.0.2.1"))

    assert "cache cannot listen on 192.0.2.1" in said
    assert "MILLRACE_CACHE_HOST" in said


async def test_a_port_that_needs_rights_is_explained(tmp_path, monkeypatch):
    """A port of the system's is refused with the variable that moves the service to one that is free for all."""

    def refuse(_: socket.socket, address: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    edge = part("edge", port=80)
    monkeypatch.setattr(socket.socket, "bind", refuse)
    said = await refusal(tmp_path, edge)

    assert "edge may not listen on port 80: Permission denied" in said
    assert "MILLRACE_EDGE_PORT=1080 millrace up" in said


async def test_logs_that_cannot_be_written_are_explained(tmp_path):
    """A file where the folder should be is named, before anything starts."""
    (tmp_path / "logs").write_text("")
    said = await refusal(tmp_path, part("cache"))

    assert f"{tmp_path / 'logs' / 'cache.log'} cannot be written" in said


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_children_die_with_their_parent(tmp_path):
    """A parent that is killed leaves no service behind."""
    port = free_port()
    program = (
        "import asyncio; from pathlib import Path; from cli.child import *\n"
        f"part = Part('edge', ('tests.fakes.service', '--port', '{port}'), '127.0.0.1', {port}, 1.0)\n"
        "async def main():\n"
        f"    child = await Child.start(part, Path({str(tmp_path)!r}))\n"
        "    print(child.pid, flush=True)\n"
        "    await child.exited\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=subprocess.PIPE)
    assert parent.stdout
    pid = int(await parent.stdout.readline())
    async with asyncio.timeout(DEADLINE_S):
        await until_serving(part("edge", port=port))
    descriptor = os.pidfd_open(pid)
    parent.kill()
    await parent.wait()

    exited = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, exited.set)
    async with asyncio.timeout(DEADLINE_S):
        await exited.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)


async def test_the_logs_of_a_suite_that_runs_are_left_alone(tmp_path):
    """A second suite in the same folder is refused before it empties a file, and starts when the first is over."""
    one = part("cache")
    async with Run([one], tmp_path / "logs") as run:
        await run.until_ready()
        before = (tmp_path / "logs" / "cache.log").read_bytes()
        said = await refusal(tmp_path, part("cache"))

        assert "cache.log is written by a suite that runs. Stop it, or start this one in another folder" in said
        assert (tmp_path / "logs" / "cache.log").read_bytes() == before
        run.stop.set()
        assert await run.exit_code() == 0
    async with Run([one], tmp_path / "logs") as run:
        await run.until_ready()
