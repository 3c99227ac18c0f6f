"""Writes what the service found into messages of the contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.duration_pb2 import Duration

from millrace.safety.v1 import policy_pb2, verdict_pb2
from millrace.safety.v1 import safety_service_pb2 as pb
from services.safety.anonymising import Placeholder
from services.safety.checking import Screened
from services.safety.detectors.detector import Detector
from services.safety.policy import Backend, Direction, Profile, Rule
from services.safety.run import Run
from services.safety.screening import Finding, Screening
from services.safety.stream import Awaited, ChoiceDone, Event, Judged, PartKey, Released

# The contract lists at most this many findings and counts the rest.
FINDINGS_MAX = 1000


def assessment(screening: Screening, findings: Iterable[verdict_pb2.Finding] = ()) -> verdict_pb2.Assessment:
    """The judgement of a whole call."""
    return verdict_pb2.Assessment(
        verdict=int(screening.verdict),  # type: ignore[arg-type]  # Numbered as in the contract.
        findings=findings,
        finding_count=screening.finding_count,
        scores=_scores(screening.runs),
        runs=[_run(run) for run in screening.runs],
        profile=screening.profile.name,
        policy_version=screening.policy_version,
    )


def segment_findings(screened: Sequence[Screened]) -> Iterator[verdict_pb2.Finding]:
    """The findings of a prompt, as many as the contract lists."""
    found = ((index, finding) for index, text in enumerate(screened) for finding in text.source_findings)
    for _, (index, each) in zip(range(FINDINGS_MAX), found, strict=False):
        message = _finding(each, Direction.INPUT)
        message.segment_index = index
        yield message


def part_findings(keys: Sequence[PartKey], screened: Sequence[Screened]) -> Iterator[verdict_pb2.Finding]:
    """The findings of an answer, as many as the contract lists."""
    found = ((key, finding) for key, text in zip(keys, screened, strict=True) for finding in text.source_findings)
    for _, (key, each) in zip(range(FINDINGS_MAX), found, strict=False):
        yield _part_finding(key, each)


def screened_text(text: Screened) -> pb.ScreenedText:
    """The judgement of one text."""
    return pb.ScreenedText(verdict=int(text.verdict), replacement=text.replacement)  # type: ignore[arg-type]


def stream_response(found: Sequence[Event], last: Sequence[pb.OutputEvent] = ()) -> pb.StreamCheckOutputResponse:
    """What a stream has to say."""
    return pb.StreamCheckOutputResponse(
        events=[*(_event(each) for each in found if not isinstance(each, Awaited)), *last],
        awaited=[_awaited(each) for each in found if isinstance(each, Awaited)],
    )


def placeholder(each: Placeholder) -> pb.Placeholder:
    """A placeholder and the way back."""
    return pb.Placeholder(token=each.token, original=each.original, category=each.category)


def policy(profile: Profile, version: str, hold: int) -> policy_pb2.Policy:
    """A profile of the policy file."""
    rules = [_rule(direction, rule) for direction, rules in profile.rules.items() for rule in rules]
    return policy_pb2.Policy(
        profile=profile.name,
        description=profile.description,
        version=version,
        rules=rules,
        hold_code_point_max=hold,
        strictness=profile.strictness,
        hold_max=_duration(profile.hold_s),
    )


def detector(each: Detector, backend: Backend | None) -> policy_pb2.Detector:
    """A detector that rules may name; `backend` is what the policy file says of it."""
    return policy_pb2.Detector(
        name=each.name,
        backend=backend.spec.backend if backend else "embedded",
        model=backend.spec.model if backend else "",
        categories=sorted(each.categories),
        optional_categories=sorted(each.optional_categories),
    )


def _event(event: Event) -> pb.OutputEvent:
    if isinstance(event, Released):
        key = event.part
        return pb.OutputEvent(
            released=pb.ReleasedText(
                choice_index=key.choice_index,
                kind=int(key.kind),  # type: ignore[arg-type]
                tool_call_index=key.tool_call_index,
                text=event.text,
                released_through=event.through,
            )
        )
    if isinstance(event, Judged):
        return pb.OutputEvent(judgement=pb.Judgement(finding=_part_finding(event.part, event.finding)))
    assert isinstance(event, ChoiceDone)
    done = pb.ChoiceDone(choice_index=event.choice_index, verdict=int(event.verdict))  # type: ignore[arg-type]
    return pb.OutputEvent(choice_done=done)


def _awaited(event: Awaited) -> pb.Awaited:
    return pb.Awaited(
        choice_index=event.part.choice_index,
        kind=int(event.part.kind),  # type: ignore[arg-type]
        least_through=event.wakes.at,
        most_through=event.wakes.surely_at,
        stops=event.wakes.stops,
        gather_max=_duration(event.gather_s),
    )


def _finding(finding: Finding, direction: Direction) -> verdict_pb2.Finding:
    redacts = finding.action.name == "REDACT"
    return verdict_pb2.Finding(
        category=finding.category,
        score=finding.score,
        detector=finding.detector,
        direction=int(direction),  # type: ignore[arg-type]
        action=int(finding.action),  # type: ignore[arg-type]
        span=verdict_pb2.Span(start=finding.start, end=finding.end),
        placeholder=finding.placeholder if redacts else "",
    )


def _part_finding(key: PartKey, finding: Finding) -> verdict_pb2.Finding:
    message = _finding(finding, Direction.OUTPUT)
    message.choice_index = key.choice_index
    message.kind = int(key.kind)  # type: ignore[assignment]
    if key.tool_call_index is not None:
        message.tool_call_index = key.tool_call_index
    return message


def _duration(seconds: float) -> Duration:
    """A length of time. Written from a timedelta it takes 10 us, which each call has several times."""
    whole, nanos = divmod(round(seconds * 1e9), 10**9)
    return Duration(seconds=whole, nanos=nanos)


def _run(run: Run) -> verdict_pb2.DetectorRun:
    return verdict_pb2.DetectorRun(
        detector=run.detector.name,
        state=int(run.state),  # type: ignore[arg-type]
        duration=_duration(run.spent_s),
        failed_open=run.failed_open,
    )


def _scores(runs: Iterable[Run]) -> list[verdict_pb2.CategoryScore]:
    return [
        verdict_pb2.CategoryScore(category=category, score=score, flagged=score > 0 and score >= run.rule.threshold)
        for run in runs
        if run.rule is not None
        for category in run.duty.categories
        for score in (run.scores.get(category, 0.0),)
    ]


def _rule(direction: Direction, rule: Rule) -> policy_pb2.PolicyRule:
    open_or_closed = policy_pb2.FAILURE_MODE_OPEN if rule.fails_open else policy_pb2.FAILURE_MODE_CLOSED
    return policy_pb2.PolicyRule(
        direction=int(direction),  # type: ignore[arg-type]
        detector=rule.detector,
        threshold=rule.threshold,
        action=int(rule.action),  # type: ignore[arg-type]
        category_actions=_category_actions(rule),
        on_failure=open_or_closed,
        deadline=_duration(rule.deadline_s),
        anonymise=rule.anonymises,
        retrieved=_retrieved(rule.retrieved) if rule.retrieved else None,
    )


def _retrieved(rule: Rule) -> policy_pb2.RetrievedRule:
    return policy_pb2.RetrievedRule(
        threshold=rule.threshold,
        action=int(rule.action),  # type: ignore[arg-type]
        category_actions=_category_actions(rule),
        anonymise=rule.anonymises,
    )


def _category_actions(rule: Rule) -> list[policy_pb2.CategoryAction]:
    return [
        policy_pb2.CategoryAction(
            category=category,
            action=int(action),  # type: ignore[arg-type]
            anonymise=category in rule.anonymised,
        )
        for category, action in rule.actions.items()
    ]
