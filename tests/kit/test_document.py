from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from kit.document import Document, load_yaml, parse_yaml, place
from kit.errors import ConfigError


class Target(Document):
    """A leaf."""

    engine: Literal["local", "openai"]
    weight: int = Field(default=1, ge=1)


class Http(Document):
    """One of two, told apart by its kind."""

    kind: Literal["http"]
    url: str


class Disk(Document):
    """The other one."""

    kind: Literal["disk"]
    path: str


class Model(Document):
    """A node."""

    id: str
    targets: list[Target] = Field(default_factory=list)
    source: Annotated[Http | Disk, Field(discriminator="kind")] | None = None
    prices: dict[str, Target] = Field(default_factory=dict)


class Models(Document):
    """The whole file."""

    models: list[Model]
    default: Model | None = None


GOOD = """\
# A comment.
models:
  - id: tiny
    targets:
      - {engine: local}
      - engine: openai
        weight: 3
"""


def _complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, Models, "models.yaml")
    return caught.value.message


def test_a_good_file_becomes_its_model(tmp_path: Path) -> None:
    """The file's values are the model's."""
    path = tmp_path / "models.yaml"
    path.write_text(GOOD)

    models = load_yaml(path, Models)

    assert [target.engine for target in models.models[0].targets] == ["local", "openai"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            GOOD.replace("engine: openai", "engine: opnai"),
            "models.yaml:6: models[0].targets[1].engine: must be 'local' or 'openai'",
        ),
        (
            GOOD.replace("weight: 3", "wieght: 3"),
            "models.yaml:7: models[0].targets[1].wieght: there is no such field (allowed: engine, weight)",
        ),
        (GOOD.replace("weight: 3", "weight: 0"), "models.yaml:7: models[0].targets[1].weight: must be greater than or"),
        (GOOD.replace("- id: tiny", "- name: tiny"), "models.yaml:3: models[0].id: is required"),
        (GOOD + "extra: 1\n", "models.yaml:8: extra: there is no such field (allowed: default, models)"),
        (
            GOOD + "default: {id: x, targts: []}\n",
            "models.yaml:8: default.targts: there is no such field (allowed: id,",
        ),
        (
            "models:\n  - id: x\n    prices:\n      a:\n        engine: local\n        wight: 1\n",
            "models.yaml:6: models[0].prices.a.wight: there is no such field (allowed: engine, weight)",
        ),
        (
            "models:\n  - id: x\n    source:\n      kind: http\n      url: 5\n",
            "models.yaml:5: models[0].source.url: must be a valid string",
        ),
        (
            "models:\n  - id: x\n    source:\n      kind: tape\n",
            "models.yaml:3: models[0].source: ",
        ),
        (GOOD + "models: []\n", "models.yaml:8: models: repeated"),
        (GOOD.replace("- {engine: local}", "- {engine: local, engine: openai}"), "models.yaml:5: models[0].targets[0]"),
        ("models: [\n  - x", "models.yaml:2: not valid YAML:"),
        ("models: !!python/object:os.system x\n", "models.yaml:1: not valid YAML: could not determine a constructor"),
        ("", "models.yaml:1: models: is required"),
        ("- a\n", "models.yaml:1: the document: must be a valid dictionary or instance of Models"),
    ],
)
def test_a_bad_file_names_line_and_field(text: str, complaint: str) -> None:
    """Every way to be wrong says where."""
    assert _complaint(text).startswith(complaint)


def test_all_faults_are_named_at_once() -> None:
    """Two mistakes take one look."""
    message = _complaint(GOOD.replace("openai", "opnai").replace("local", "lcal"))

    assert "models.yaml:5:" in message
    assert "models.yaml:6:" in message


class Pairs(Document):
    """A file with lists that must not be short."""

    pairs: tuple[Target, ...] = Field(min_length=2)


def test_a_bad_item_does_not_make_its_list_short() -> None:
    """An item that is there and wrong is the only fault, although no good one is left."""
    with pytest.raises(ConfigError) as caught:
        parse_yaml("pairs: [{engine: lcal}, {engine: lcal}]\n", Pairs, "pairs.yaml")

    assert str(caught.value).count("pairs.yaml:1: ") == 2
    assert "at least 2" not in str(caught.value)


@pytest.mark.parametrize("items", ["", "{engine: local}", "{engine: lcal}"])
def test_a_list_that_is_short_is_named(items: str) -> None:
    """Too few items are a fault, whether those that are there are good or bad."""
    with pytest.raises(ConfigError, match=r"pairs\.yaml:1: pairs: .*at least 2 items"):
        parse_yaml(f"pairs: [{items}]\n", Pairs, "pairs.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path is in the complaint."""
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_yaml(tmp_path / "absent.yaml", Models)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """A binary file is a complaint, not a traceback."""
    path = tmp_path / "models.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(path, Models)


def test_a_place_is_told_as_complaints_tell_it(tmp_path: Path) -> None:
    """Line and field of what is there; of what is not there, those of what would hold it."""
    path = tmp_path / "models.yaml"
    path.write_text("a: 1\nmodels:\n  - name: x\n")

    assert place(path, ("models", 0, "name")) == "models.yaml:3: models[0].name"
    assert place(path, ("models", 0, "cost", "input")) == "models.yaml:3: models[0].input"
    with pytest.raises(ConfigError):
        place(tmp_path / "gone.yaml", ())


def test_aliases_of_aliases_are_read_once() -> None:
    """A file that names itself over and over is refused at once: what its aliases name is not looked at 9**40 times."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 41))]

    with pytest.raises(ConfigError, match="a40: there is no such field"):
        parse_yaml("\n".join(lines), Models, "models.yaml")


def test_a_file_without_a_bottom_is_a_complaint() -> None:
    """Brackets within brackets, or a list that holds itself, are refused; no traceback, and no end of the process."""
    for text in ("[" * 5_000 + "]" * 5_000, "models: &all [*all]"):
        with pytest.raises(ConfigError):
            parse_yaml(text, Models, "models.yaml")
