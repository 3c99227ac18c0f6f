"""`pytest --telemetry=FOLDER`: records the telemetry of the whole run, of every process, and fails it on any leak.

Processes that tests start send traces, metrics and logs to the collector of the run, because the environment says so,
and what they print into files of the tests is read at the end. In the tests' own process every span is kept, also where
a test has telemetry off, every log record is seen, and every registry is read at the end of each test.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import weakref
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kit import telemetry
from kit.spans import Span, SpanTracer, Take
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.leaks.collector import note
from tests.leaks.markers import markers
from tests.leaks.recorder import Recorder, entries

SERVICES = ("CACHE", "SAFETY", "INFERENCE", "EDGE")
# Many processes are killed, and what waits in them is lost.
SOON = {"OTLP_DELAY_MS": "200", "OTLP_METRICS_INTERVAL_S": "2"}
SHOWN_COUNT_MAX = 20
LEAKED = 16  # exit status; pytest has those up to 5 for itself
END_S = 60.0  # of the collector: on a machine that is busy it takes its time


class _Logs(logging.Handler):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] in ("services", "kit", "cli", "grpc"):
            self._recorder.log(record)


class WholeRun:
    """Records a run and looks through it.

    Args:
        folder: Where it is kept; emptied at first.
    """

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder.resolve()
        self.recorder = Recorder(self.folder, "tests")
        self.leaks: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.text_count = 0
        self._registries: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()
        self._patches = pytest.MonkeyPatch()
        self._record_this_process()
        command = [sys.executable, "-m", "tests.leaks.collector", str(self.folder)]
        self._collector = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._collector.stdout is not None
        self._patches.setenv(
            "OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{int(self._collector.stdout.readline())}"
        )
        for service in SERVICES:
            for field, value in SOON.items():
                self._patches.setenv(f"MILLRACE_{service}_{field}", value)

    def _record_this_process(self) -> None:
        recorder, registries = self.recorder, self._registries
        trace, made, keep = SpanTracer.__init__, CollectorRegistry.__init__, OtlpReceiver.keep

        def traced(tracer: SpanTracer, take: Take, *args: Any, **kwargs: Any) -> None:
            def seen(span: Span) -> None:
                recorder.span(span)
                take(span)

            trace(tracer, seen, *args, **kwargs)

        def registered(registry: CollectorRegistry, *args: Any, **kwargs: Any) -> None:
            made(registry, *args, **kwargs)
            registries.add(registry)

        def kept(receiver: OtlpReceiver, request: Any) -> None:
            note(recorder, request)
            keep(receiver, request)

        def off(service_name: str = "millrace") -> telemetry.Telemetry:
            return telemetry.Telemetry(service_name, SpanTracer(id), True)

        self._patches.setattr(SpanTracer, "__init__", traced)
        self._patches.setattr(CollectorRegistry, "__init__", registered)
        self._patches.setattr(OtlpReceiver, "keep", kept)
        self._patches.setattr(telemetry, "off", off)
        logging.getLogger().addHandler(_Logs(recorder))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Tells every process which test runs."""
        (self.folder / "now").write_text(item.nodeid)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        """Reads the metrics of a test before they are gone."""
        self.recorder.metrics(list(self._registries))
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Ends the collector, reads what processes have printed into files, and looks through everything."""
        assert self._collector.stdin is not None
        self._collector.stdin.close()
        self._collector.wait(END_S)
        self._patches.undo()
        factory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        for path in sorted(factory.getbasetemp().rglob("*.log")):
            (self.folder / "now").write_text(str(path))
            lines = path.read_text(errors="replace").splitlines()
            if any('"service":' in line for line in lines):  # of a Redis or a PostgreSQL it is not ours to look at
                for line in lines:
                    self.recorder.line(line)
        self.recorder.close()
        for where, text, test in entries(self.folder):
            self.text_count += 1
            self.leaks[where].update((test, leak) for leak in markers().found(text))
        self.leaks = {where: found for where, found in self.leaks.items() if found}
        if self.leaks:  # a number of its own: failed tests may be run again, and a leak stays one
            session.exitstatus = LEAKED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says what leaked, where it stood, and which test to look at."""
        write = terminalreporter.write_line
        write(f"telemetry: {self.text_count} distinct texts, {len(self.leaks)} places with leaks ({self.folder})")
        for where, found in sorted(self.leaks.items())[:SHOWN_COUNT_MAX]:
            test, leak = min(found)
            write(f"LEAKED {where}: {leak}, of {test}")
