"""Reading bodies: what is right is fast, what is wrong is named."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.edge.body import BodyReader
from services.edge.fault import Fault
from services.edge.openai.chat_request import REFUSED, ChatRequest


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a body."""

    size: int


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    """A body."""

    name: str
    inner: list[Inner] = []
    rate: float | None = None
    labels: dict[str, str] = {}
    biases: dict[Annotated[str, msgspec.Meta(pattern="^[0-9]+$")], float] = {}


READER = BodyReader(Outer, {"old": "use `name`."})


def refusal(raw: bytes) -> Fault:
    """The fault that a body is refused with."""
    with pytest.raises(Fault) as caught:
        READER.read(raw)
    return caught.value


def status(reader: BodyReader, raw: bytes) -> int:
    """200 for a body that is read, else the status that it is refused with."""
    try:
        reader.read(raw)
    except Fault as fault:
        return fault.status
    return 200


def test_a_good_body():
    """A good body becomes its struct."""
    assert READER.read(b'{"name": "x", "inner": [{"size": 1}]}') == Outer("x", [Inner(1)])


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        (b'{"name": "x", "inner": [{"size": 1}, {"size": "1"}]}', "inner[1].size", "invalid_value"),
        (b'{"name": "x", "inner": [{}]}', "inner[0].size", "missing_required_parameter"),
        (b'{"name": "x", "inner": [{"size": 1, "zz": 2}]}', "inner[0].zz", "unknown_parameter"),
        (b'{"name": "x", "zz": 1}', "zz", "unknown_parameter"),
        (b'{"name": "x", "old": 1}', "old", "unsupported_parameter"),
        (b'{"name": "x", "labels": {"a": "\\ud800"}}', "labels.a", "invalid_value"),
        (b'{"name": "x", "biases": {"a": 1}}', "biases", "invalid_value"),
        (b'{"name": "x", "biases": {"1": "a"}}', "biases", "invalid_value"),
        (b'{"name": "x", "labels": {"\\udfff": "a"}}', "labels", "invalid_value"),
        (b'{"name": "x", "inner": [{"size": Infinity}]}', "inner[0].size", "invalid_value"),
    ],
)
def test_the_field_is_named(raw, param, code):
    """Wrong, missing, unknown and unsupported fields, and what JSON cannot hold, are named by their path."""
    fault = refusal(raw)

    assert (fault.status, fault.param, fault.code) == (400, param, code)


@pytest.mark.parametrize(
    ("fields", "param", "value", "choices"),
    [
        ({"messages": [{"role": "owner"}]}, "messages[0].role", "'owner'", "assistant, developer, system, tool, user"),
        (
            {"messages": [{"role": "o" * 70_000}]},
            "messages[0].role",
            f"'{'o' * 79}...",
            "assistant, developer, system, tool, user",
        ),
        (
            {"messages": [{"role": "system", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0].type",
            "'image_url'",
            "text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "x"}]}]},
            "messages[0].content[0].type",
            "'x'",
            "file, image_url, input_audio, text",
        ),
        ({"reasoning_effort": "much"}, "reasoning_effort", "'much'", "high, low, medium, minimal, none"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "'xml'", "json_object, json_schema, text"),
        ({"tools": [{"type": "x"}]}, "tools[0].type", "'x'", "function"),
    ],
)
def test_a_wrong_choice_is_told_the_right_ones(fields, param, value, choices):
    """Those of the struct that the body chose by its tag; a value that fills pages is cut."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    with pytest.raises(Fault) as caught:
        BodyReader(ChatRequest, REFUSED).read(msgspec.json.encode(body))
    assert (caught.value.param, caught.value.code) == (param, "invalid_value")
    assert caught.value.message == f"{param}: Invalid value {value}; expected one of {choices}."


def test_refused_fields_may_be_null():
    """Null means not given; what else is wrong is still found."""
    assert READER.read(b'{"old": null, "name": "x"}') == Outer("x")
    assert refusal(b'{"old": null, "name": 1}').param == "name"


@pytest.mark.parametrize("number", ["10.0", "1e1", "1.0E+1"])
def test_an_integer_may_be_written_with_a_fraction(number):
    """JSON Schema takes 10.0 for an integer, and so does the document that describes the bodies."""
    assert READER.read(f'{{"name": "x", "inner": [{{"size": {number}}}]}}'.encode()) == Outer("x", [Inner(10)])


@pytest.mark.parametrize("number", ["10.5", "1e300", '"10"', "true"])
def test_what_is_no_integer_is_refused(number):
    """Nothing is rounded, and text is no number."""
    assert refusal(f'{{"name": "x", "inner": [{{"size": {number}}}]}}'.encode()).param == "inner[0].size"


@pytest.mark.parametrize("first", [b'"old": null', b'"inner": [{"size": 1.0}]'], ids=["refused", "fraction"])
@pytest.mark.parametrize("second", [b'"rate": NaN', b'"rate": 1e999', b'"rate": ' + b"9" * 5000, b'"name": "\\ud800"'])
def test_a_second_look_takes_nothing_that_json_cannot_hold(first, second):
    """A body that is read again is as strict as one that is not: no NaN becomes null."""
    assert refusal(b'{"name": "x", ' + first + b", " + second + b"}").status == 400


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_no_bytes_do_harm(raw):
    """Whatever the bytes are, the answer is a struct or a 400."""
    assert status(READER, raw) in (200, 400)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from([*ChatRequest.__struct_fields__, *REFUSED]), json_values, max_size=4))
def test_no_chat_body_does_harm(fields):
    """Any mixture of the chat endpoint's fields is read or refused with 400."""
    assert status(BodyReader(ChatRequest, REFUSED), msgspec.json.encode(fields)) in (200, 400)
