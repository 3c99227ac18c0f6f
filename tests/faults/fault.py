"""A fault: what an upstream does, and what its callers must see of it.

Every fault is met by a call over gRPC and over REST, streamed and whole, with that upstream alone and with a healthy
one behind it. The table in docs/faults.md is made of this data, and the wall proves it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kit.errors import Code
from tests.faults.answers import TEXT
from tests.faults.upstream import End, Pause, Step

GAP = Pause(0.02)  # lets what was sent arrive before the connection ends
SECOND = Pause(1.0)
HTTP_STATUS = {
    Code.OK: 200,
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.NOT_FOUND: 404,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}
CALLS = ("gRPC stream", "gRPC", "REST stream", "REST")


class Wait(Enum):
    """How long a caller waits at most for the news, by the rule that bounds it."""

    NONE = "at once"
    CONNECT = "`connect_timeout_s` a try"
    TTFT = "`ttft_s`"
    INTER_TOKEN = "`inter_token_s`"
    ERROR = "2 s a try"


@dataclass(frozen=True)
class Seen:
    """What a caller saw of one call.

    Attributes:
        outcome: How it ended, in the words of its protocol.
        text: All text that came.
        tries: Tries that its receipt tells of, passed-over ones not counted.
        estimated: Whether the usage was; None where the protocol does not say, or there is none.
    """

    outcome: str
    text: str
    tries: int
    estimated: bool | None = None


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        name: Short, for names of models and tests.
        says: What the upstream does, for the table.
        steps: The script; empty where the upstream is of a kind of its own.
        fresh_steps: What is answered instead to the first request of a connection.
        code: How the call ends with this upstream alone.
        reason: Why, where it fails.
        begun: Text has left before it goes wrong: a stream then ends with an error within it, and nobody else is asked.
        tries: How often the upstream is asked where nobody else is there, and nothing has left.
        opens: Whether it counts against the upstream, so that enough of it opens the breaker.
        spared: Whether a healthy upstream behind it is asked.
        wait: What bounds the wait.
        retry_after_ms: What the caller is told to wait, where the upstream said so.
        estimated: Whether the usage is counted here.
        text: The answer.
        upstream: The name of an upstream of its own in the models file.
    """

    name: str
    says: str
    steps: tuple[Step, ...] = ()
    code: Code = Code.UNAVAILABLE
    reason: str = ""
    begun: bool = False
    tries: int = 2
    opens: bool = True
    spared: bool = True
    wait: Wait = Wait.NONE
    retry_after_ms: int | None = None
    estimated: bool = False
    text: str = TEXT
    upstream: str = "faulty"
    fresh_steps: tuple[Step, ...] = ()

    @property
    def is_harmless(self) -> bool:
        """Whether the caller gets the answer all the same."""
        return self.code is Code.OK

    def has_left(self, call: str) -> bool:
        """Whether the caller has read text before it goes wrong: one who waits for the whole has read nothing."""
        return self.begun and call.endswith("stream")

    def outcome(self, call: str) -> str:
        """How a call ends with this upstream alone, in the words of its protocol."""
        if call.startswith("gRPC"):
            return f"{self.code.name} {self.reason}".strip()
        word = "content_policy_violation" if self.reason == "CONTENT_BLOCKED" else self.reason.lower()
        if self.has_left(call):
            return f"200, then {word}"
        return f"{HTTP_STATUS[self.code]} {word}".strip()

    def seen_alone(self, call: str) -> Seen:
        """What a call shows with this upstream alone; the text of one that fails is a part of the answer, left out."""
        tries = 1 if self.has_left(call) else self.tries
        if not self.is_harmless:
            return Seen(self.outcome(call), "", tries)
        return Seen(self.outcome(call), self.text, tries, self.estimated if call.startswith("gRPC") else None)

    def seen_spared(self, call: str) -> Seen:
        """What a call shows with a healthy upstream behind this one."""
        if not self.spared or self.has_left(call):
            return self.seen_alone(call)
        return Seen("OK", TEXT, 2, False) if call.startswith("gRPC") else Seen("200", TEXT, 2)


def harmless(
    name: str,
    says: str,
    *steps: Step,
    estimated: bool = False,
    text: str = TEXT,
    fresh_steps: tuple[Step, ...] = (),
) -> Fault:
    """What no caller notices."""
    return Fault(
        name, says, steps, Code.OK, tries=1, opens=False, spared=False, estimated=estimated, text=text,
        fresh_steps=fresh_steps,
    )  # fmt: skip


def refusal(name: str, says: str, answer: bytes, code: Code, reason: str, *, spared: bool = False) -> Fault:
    """What the caller caused: asking again would change nothing, and it says nothing about the upstream."""
    return Fault(name, says, (answer,), code, reason, tries=1, opens=False, spared=spared)


def silence(name: str, says: str, *steps: Step) -> Fault:
    """Nothing that a caller would see: the time to the first token runs out, once for all tries."""
    return Fault(name, says, (*steps, End.SILENCE), Code.DEADLINE_EXCEEDED, "TTFT_TIMEOUT", tries=1, wait=Wait.TTFT)


def cut(name: str, says: str, *steps: Step, reason: str = "UPSTREAM_TRUNCATED", begun: bool = True) -> Fault:
    """An answer that is not complete."""
    return Fault(name, says, steps, reason=reason, begun=begun)


def broken(name: str, says: str, *steps: Step, begun: bool = False) -> Fault:
    """An answer that does not keep to the protocol."""
    return cut(name, says, *steps, reason="UPSTREAM_MALFORMED", begun=begun)
