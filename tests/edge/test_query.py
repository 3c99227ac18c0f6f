"""Reading queries of URLs, and keys in them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest

from services.edge import query
from services.edge.credentials import metadata_of, refuse_in_url
from services.edge.exchange import Exchange
from services.edge.fault import Fault


class Asked(msgspec.Struct, forbid_unknown_fields=True):
    """A query."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    after: str = ""
    deep: bool = False
    order: Literal["asc", "desc"] = "desc"


def exchange(url_query: bytes = b"", headers: tuple[tuple[bytes, bytes], ...] = (), **scope: Any) -> Exchange:
    """A request with this query and these headers."""

    async def nothing(*_: object) -> Any:
        raise AssertionError("nothing is read or sent")

    given = {"method": "GET", "path": "/", "scheme": "http", "query_string": url_query, "headers": list(headers)}
    return Exchange({**given, **scope}, nothing, nothing)


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (b"", Asked()),
        (b"limit=7&after=a%20b", Asked(7, "a b")),
        (b"after=&deep=true", Asked(after="", deep=True)),
        (b"after=%C3%A9", Asked(after="é")),
    ],
)
def test_a_query_is_read_into_its_struct(text: bytes, asked: Asked) -> None:
    """Numbers and truths come as text."""
    assert query.read(exchange(text), Asked) == asked


@pytest.mark.parametrize(
    ("text", "param"),
    [
        (b"limit=0", "limit"),
        (b"limit=x", "limit"),
        (b"limit=1.5", "limit"),
        (b"unknown=1", "unknown"),
        (b"order=up", "order"),
        (b"limit=1&limit=2", None),
        (b"after=%FF", None),
        (b"\xff=1", None),
        (b"&".join(b"a%d=1" % number for number in range(40)), None),
    ],
)
def test_a_query_that_is_wrong_is_refused(text: bytes, param: str | None) -> None:
    """By its parameter, where there is one."""
    with pytest.raises(Fault) as caught:
        query.read(exchange(text), Asked)

    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_wrong_choice_in_a_query_is_told_the_right_ones() -> None:
    """As in a body."""
    with pytest.raises(Fault, match="order: Invalid value 'up'; expected one of asc, desc") as caught:
        query.read(exchange(b"order=up"), Asked)
    assert caught.value.code == "invalid_value"


@pytest.mark.parametrize("text", [b"api_key=x", b"a=1&apikey=", b"Access-Token=x", b"q=mr_" + b"x" * 49])
def test_a_key_in_a_query_is_told_by_its_name_or_its_look(text: bytes) -> None:
    """Before anything else is read."""
    with pytest.raises(Fault) as caught:
        refuse_in_url(exchange(text))

    assert caught.value.code == "key_in_url"


@pytest.mark.parametrize("text", [b"", b"limit=1", b"key_id=key_0a1b", b"my_api_keys=1", b"after=mr_short"])
def test_other_queries_are_no_keys(text: bytes) -> None:
    """An id of a key may stand in a URL."""
    refuse_in_url(exchange(text))


def test_credentials_travel_as_they_came_with_the_client_beside_them() -> None:
    """Both headers, twice where they came twice; the client's own id before its address."""
    key = ((b"authorization", b"Bearer a"), (b"x-api-key", b"b"), (b"x-api-key", b"c"), (b"cookie", b"d"))
    own_id = (*key, (b"x-client-id", b"tab-7"))

    assert metadata_of(exchange(headers=key, client=("1.2.3.4", 5))) == [
        ("x-client-id", "1.2.3.4"),
        ("authorization", "Bearer a"),
        ("x-api-key", "b"),
        ("x-api-key", "c"),
    ]
    assert metadata_of(exchange(headers=own_id))[0] == ("x-client-id", "tab-7")
    assert metadata_of(exchange()) == [("x-client-id", "unknown")]


@pytest.mark.parametrize("value", [b"", b"a b", b"\xc3\xa9", b"x" * 129, b"a\nb"])
def test_a_clients_id_that_is_none_is_refused(value: bytes) -> None:
    """It would become a limit's name and a label of logs."""
    with pytest.raises(Fault) as caught:
        metadata_of(exchange(headers=((b"x-client-id", value),)))

    assert (caught.value.status, caught.value.param) == (400, "X-Client-Id")
