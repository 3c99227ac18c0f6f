"""The rules of the house that no linter knows: who may touch the wire, and how long things may grow.

The wider rules (cli above services above kit; no service imports another) are import-linter's, in pyproject.toml.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for top in ("kit", "services", "cli", "tools", "bench") for path in (ROOT / top).rglob("*.py"))
SERVICES = [path for path in SOURCES if path.is_relative_to(ROOT / "services")]
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# Where a service meets the outside world. Everything else in it is a noun; the edge has none, it only translates.
ADAPTERS = {"servicer", "clients", "wiring", "__main__"}
# In inference the servicer's work fills several modules: reading, checking, and others' health.
ADAPTERS |= {"translate", "limits", "dependencies"}
ADAPTER_SUFFIXES = ("_servicer", "_client", "_clients", "_store", "_engine", "_codec", "_wire")
WIRE = ("grpc.", "grpc_status.", "grpc_health.", "grpc_reflection.", "google.protobuf.", "google.rpc.", "millrace.")
# Joining a service's parts is the business of these alone.
TOP = {"wiring", "__main__"}


def is_adapter(path: Path) -> bool:
    """Tells whether a module may know the wire."""
    in_edge = path.is_relative_to(ROOT / "services" / "edge")
    return in_edge or path.stem in ADAPTERS or path.stem.endswith(ADAPTER_SUFFIXES)


def imports(path: Path) -> Iterator[str]:
    """Yields the full name of everything that a module imports when it is loaded or run."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def relative(path: Path) -> str:
    """The path as a test id."""
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yields every function of a module, methods and inner ones included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


@pytest.mark.parametrize("path", SERVICES, ids=relative)
def test_nouns_do_not_know_the_wire(path):
    """In a service only servicers, clients, stores, engines and the wiring import grpc or a generated stub."""
    wire = [name for name in imports(path) if f"{name}.".startswith(WIRE)]

    assert is_adapter(path) or not wire


@pytest.mark.parametrize("path", SERVICES, ids=relative)
def test_nothing_imports_the_wiring(path):
    """Parts meet in wiring alone, so nothing but the entry point imports it."""
    assert path.stem in TOP or not [name for name in imports(path) if "wiring" in name.split(".")]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_stay_short(path):
    """No file is longer than 400 lines and no function longer than 60: past that it is a design question."""
    line_count = len(path.read_text().splitlines())
    long = {node.name: node.end_lineno - node.lineno + 1 for node in functions(path) if node.end_lineno}

    assert line_count <= FILE_LINES_MAX
    assert {name: count for name, count in long.items() if count > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("path", SERVICES, ids=relative)
def test_the_environment_is_read_in_one_place(path):
    """Services read the environment through kit.config; only keys that the models or policy file names come past it."""
    readers = {"services/inference/wiring.py", "services/safety/wiring.py"}
    used = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ast.unparse(node.value) == "os"
    ]

    assert relative(path) in readers or not used


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_every_test_says_what_it_proves(path):
    """Each test has a docstring."""
    silent = [node.name for node in functions(path) if node.name.startswith("test_") and not ast.get_docstring(node)]

    assert silent == []


def test_millrace_is_a_namespace():
    """There is no `millrace/__init__.py`: one would hide the generated stubs, or those of other wheels."""
    assert list(ROOT.glob("millrace/__init__.py")) + list(ROOT.glob("gen/millrace/**/__init__.py")) == []


def test_contracts_import_nothing_of_each_other():
    """A service's protos import only their own package and protobuf's well-known types."""
    for proto in (ROOT / "protos").rglob("*.proto"):
        own = proto.parent.relative_to(ROOT / "protos")
        for line in proto.read_text().splitlines():
            if line.startswith("import "):
                assert line.split('"')[1].startswith((f"{own}/", "google/protobuf/")), f"{proto}: {line}"
