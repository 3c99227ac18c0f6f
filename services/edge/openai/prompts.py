"""The frames of a stream that answers several prompts: one id, one usage and one end for all of them.

Each prompt's generation has frames of its own, which share what the client sees as one answer. They never wait, write
or decide what to send.
"""

from __future__ import annotations

from millrace.inference.v1 import event_pb2 as pb
from services.edge.fault import Fault
from services.edge.openai.answer import add_usage
from services.edge.openai.frames import CompletionFrames


class CommonFrames:
    """What the answers to all prompts have in common.

    Args:
        frames: Of the one answer that the client sees.
    """

    def __init__(self, frames: CompletionFrames) -> None:
        self._frames, self._is_open, self._usage = frames, False, pb.Usage()

    def of_prompt(self, first_index: int) -> PromptFrames:
        """The frames of one prompt, whose choices are numbered from an index on."""
        return PromptFrames(self, self._frames, first_index)

    def open(self, started: pb.Started) -> None:
        """Takes what every chunk repeats, from whichever prompt is first."""
        if not self._is_open:
            self._is_open = True
            self._frames.open(started)

    def add_usage(self, used: pb.Usage) -> None:
        """Counts the tokens of a prompt that is answered."""
        add_usage(self._usage, used)

    def end(self) -> bytes:
        """The usage of all, where asked for, and the terminal event; a receipt is one answer's, so there is none."""
        return self._frames.completed(pb.Completed(usage=self._usage))

    def failed(self, fault: Fault) -> bytes:
        """The last event of a stream that broke."""
        return self._frames.failed(fault)


class PromptFrames:
    """The events of one prompt's answer among those of the others."""

    def __init__(self, common: CommonFrames, frames: CompletionFrames, first_index: int) -> None:
        self._common, self._frames, self._first_index = common, frames, first_index

    def open(self, started: pb.Started) -> None:
        """Takes what every chunk repeats."""
        self._common.open(started)

    def delta(self, delta: pb.Delta) -> bytes:
        """One chunk."""
        delta.choice_index += self._first_index
        return self._frames.delta(delta)

    def finished(self, finished: pb.ChoiceFinished) -> bytes:
        """The finish chunk of a choice."""
        finished.choice_index += self._first_index
        return self._frames.finished(finished)

    def judged(self, judged: pb.SafetyEvent) -> bytes:
        """Nothing; what was cut shows in the text and in its end."""
        return b""

    def completed(self, completed: pb.Completed) -> bytes:
        """Nothing as yet: others may have more to say."""
        self._common.add_usage(completed.usage)
        return b""

    def failed(self, fault: Fault) -> bytes:
        """The last event of a stream that broke."""
        return self._common.failed(fault)
