"""Seams: what stands where two texts of a prompt meet, which a model reads as one.

A forbidden phrase or a card number may be cut in two by the parts of a message, or by two messages of one role. Parts
are judged apart, and so that this is no way around it, what stands around each seam is judged once more, joined. A
finding inside one text is that text's matter; only one that reaches over a seam counts here.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from services.inference.events import Finding, Redacted, Verdict
from services.inference.screening.segments import TEXT, Place, Segment

REACH = 400  # code points on either side of a seam; no detector reads a longer passage at once


class Seam(msgspec.Struct, frozen=True):
    """A joined text: the segments that it is made of, and the position in it where each begins, ascending.

    The first may begin before it, at a negative position, and the last end behind it.
    """

    text: str
    segments: tuple[Segment, ...]
    starts: tuple[int, ...]

    def spans(self, finding: Finding) -> list[tuple[Segment, int, int]]:
        """What of each segment a finding covers."""
        first = bisect_right(self.starts, finding.start) - 1
        covered = []
        for segment, start in zip(self.segments[first:], self.starts[first:], strict=True):
            begin, end = max(finding.start - start, 0), min(finding.end - start, len(segment.text))
            if begin < end:
                covered.append((segment, begin, end))
        return covered

    @property
    def asked(self) -> Segment:
        """What safety is asked to judge."""
        return msgspec.structs.replace(self.segments[0], text=self.text)


def seams_of(segments: Sequence[Segment]) -> list[Seam]:
    """The seams of a prompt: joined as they are, and by a blank where no blank keeps two texts apart."""
    texts = [segment for segment in segments if segment.field == TEXT]
    found: list[Seam] = []
    for _, run in itertools.groupby(texts, key=lambda segment: segment.role):
        group = tuple(run)
        if len(group) > 1:
            found += _joined(group, "")
            if not all(_is_apart(left, right) for left, right in itertools.pairwise(group)):
                found += _joined(group, " ")
    return found


def findings_over(
    seams: Iterable[tuple[Seam, Sequence[Finding]]], own: Iterable[tuple[Segment, Finding]] = ()
) -> Iterator[list[tuple[Segment, Finding]]]:
    """The findings that reach over a seam, each as what of it stands in each segment.

    Left out is what a text's own finding at its end became by the word behind it: "a@b.com" and "Thanks".
    """
    ends = {(segment.place, one.category, one.start) for segment, one in own if one.end == len(segment.text)}
    for seam, findings in seams:
        for finding in findings:
            spans = seam.spans(finding)
            segment, start, _ = spans[0] if spans else (None, 0, 0)
            is_apart = sum(end - begin for _, begin, end in spans) < finding.end - finding.start
            if len(spans) < 2 or (segment and not is_apart and (segment.place, finding.category, start) in ends):
                continue
            yield [
                (one, msgspec.structs.replace(finding, start=begin, end=end, message_index=one.message_index))
                for one, begin, end in spans
            ]


def without(found: Iterable[Sequence[tuple[Segment, Finding]]]) -> dict[Place, str]:
    """New texts for the segments in which something is redacted: its placeholder stands where it begins."""
    spans: dict[Place, list[tuple[int, int, str]]] = {}
    texts: dict[Place, str] = {}
    for pieces in found:
        for number, (segment, finding) in enumerate(pieces):
            if finding.action is Verdict.REDACT:
                placeholder = "" if number else placeholder_of(finding)
                texts[segment.place] = segment.text
                spans.setdefault(segment.place, []).append((finding.start, finding.end, placeholder))
    return {place: _cut(text, sorted(spans[place])) for place, text in texts.items()}


def placeholder_of(finding: Finding) -> str:
    """What stands in the place of something redacted."""
    named = finding.placeholder if isinstance(finding, Redacted) else ""
    return named or f"<{finding.category.upper()}>"


def _cut(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    pieces: list[str] = []
    at = 0
    for start, end, placeholder in spans:
        if start >= at:
            pieces += [text[at:start], placeholder]
        at = max(at, end)
    return "".join([*pieces, text[at:]])


def _is_apart(left: Segment, right: Segment) -> bool:
    return left.text[-1].isspace() or right.text[0].isspace()


def _joined(group: tuple[Segment, ...], blank: str) -> Iterator[Seam]:
    starts, pieces, length = [0], [group[0].text], len(group[0].text)
    for left, right in itertools.pairwise(group):
        between = "" if _is_apart(left, right) else blank
        pieces += [between, right.text]
        starts.append(length + len(between))
        length = starts[-1] + len(right.text)
    joined = "".join(pieces)
    for low, high in _around(joined, starts[1:]):
        first, last = bisect_right(starts, low) - 1, bisect_right(starts, high - 1)
        yield Seam(joined[low:high], group[first:last], tuple(start - low for start in starts[first:last]))


def _around(joined: str, seams: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Stretches that hold every seam with what is in reach of it, cut between words where there are words."""
    held: tuple[int, int] | None = None
    for seam in seams:
        low, high = max(seam - REACH, 0), min(seam + REACH, len(joined))
        if held and low <= held[1]:
            held = held[0], high
            continue
        if held:
            yield _between_words(joined, *held)
        held = low, high
    if held:
        yield _between_words(joined, *held)


def _between_words(joined: str, low: int, high: int) -> tuple[int, int]:
    """Drops half words at both ends, as far as half the reach."""
    if low > 0:
        low = max(joined.find(" ", low, low + REACH // 2), low)
    if high < len(joined):
        cut = joined.rfind(" ", high - REACH // 2, high)
        high = cut if cut > 0 else high
    return low, high
