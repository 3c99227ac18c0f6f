"""The files of the pages: found under the release's own URL, packed, kept for good, and guarded."""

from __future__ import annotations

import gzip
import re
from importlib.resources import files

import pytest

SIZE_MAX = 100_000


@pytest.fixture(scope="module")
def shipped() -> dict[str, bytes]:
    """Every file that the pages may load."""
    kinds = (".js", ".css", ".svg", ".html")
    return {
        item.name: item.read_bytes() for item in files("services.edge.static").iterdir() if item.name.endswith(kinds)
    }


async def test_the_playground_loads_files_of_its_own_release_alone(edge, shipped):
    """Whatever `/` names is there, under one digest, to be kept for good; modules import by relative paths."""
    page = (await edge.get("/")).text
    loaded = re.findall(r'(?:src|href)="(/[^"#]*)"', page)
    answers = {path: await edge.get(path) for path in loaded if path.startswith("/assets/")}

    assert len(answers) >= 6
    assert len({path.split("/")[2] for path in answers}) == 1
    assert {answer.status_code for answer in answers.values()} == {200}
    assert {answer.headers["cache-control"] for answer in answers.values()} == {"public, max-age=31536000, immutable"}
    imported = {name for text in shipped.values() for name in re.findall(rb'(?:from|import) "([^"]+)"', text)}
    assert all(name.startswith(b"./") and name[2:].decode() in shipped for name in imported)


async def test_a_file_is_packed_for_those_who_take_it(edge):
    """gzip where it is accepted, plain where not, and the same content both ways."""
    packed = await edge.get("/assets/any/base.css", headers={"accept-encoding": "gzip"})
    plain = await edge.get("/assets/any/base.css", headers={"accept-encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content


async def test_what_a_browser_has_is_not_sent_again(edge):
    """A page that did not change is 304 without a body, guarded like the page itself."""
    first = await edge.get("/")
    again = await edge.get("/", headers={"if-none-match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == first.headers["content-security-policy"]


async def test_another_release_is_not_kept(edge):
    """Under the URL of another release a file may be had, while replicas differ, and is asked for each time."""
    answer = await edge.get("/assets/0000/app.js")

    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["nothing.js", "__init__.py", "..%2fpage.py"])
async def test_nothing_else_is_served(edge, name):
    """A name that is no file of the pages is 404."""
    assert (await edge.get(f"/assets/any/{name}")).status_code == 404


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_ask_for_nothing_that_is_not_there(edge, path):
    """What a page names is served, and it names its icon: browsers ask for /favicon.ico otherwise, and log a 404."""
    page = (await edge.get(path)).text
    named = re.findall(r'(?:href|src)="(/assets/[^"]+)"', page)

    assert re.search(r'<link rel="icon" href="/assets/', page)
    assert [(await edge.get(one)).status_code for one in named] == [200] * len(named)


@pytest.mark.parametrize("path", ["/", "/docs", "/assets/any/app.js"])
async def test_pages_run_nothing_from_elsewhere(edge, path):
    """The policy allows this origin alone, nothing inline, and no text as markup."""
    policy = (await edge.get(path)).headers["content-security-policy"]

    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy


async def test_the_playground_is_small(shipped):
    """All files together are less than 100 kB when packed."""
    assert sum(len(gzip.compress(content)) for content in shipped.values()) < SIZE_MAX
