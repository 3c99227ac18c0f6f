"""What must not be in telemetry: everything that the tests say to the suite, and whatever looks like a secret.

Nobody needs to register a prompt: every text that stands in the tests' own source is one, three words of it at a time,
unless the product says these words as well. What is drawn at random, keys, tokens, addresses and cards, is known by its
shape.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote_plus

ROOT = Path(__file__).resolve().parents[2]
SHINGLE = 3
# Names of what carries a prompt or an answer; what they hold counts whole, however short.
_CARRIERS = {"content", "prompt", "input", "text"}
_LENGTH_MIN = 4
_LOGGED = {"debug", "info", "warning", "error", "exception"}
# What libraries say in the product's name, and tests expect.
_OF_LIBRARIES = (
    "must be a valid integer",
    "must be a valid dictionary",
    "must be greater than or equal to",
    "must be a coroutine function",
    "failed to connect to all addresses",  # gRPC
    "ready to accept connections",  # Redis
)
# A word stands between spaces: names such as `rpc.server.call` and FAKE_ERROR are no sentences.
_WORD = re.compile(r"(?<!\S)[^\w\s]*([^\W\d_]+(?:['’][^\W\d_]+)?)[^\w\s]*(?!\S)")
_SHAPES = {
    "key": re.compile(r"\bmr_[A-Za-z0-9_-]{20,}|\bsk-[A-Za-z0-9_-]{16,}|\bBearer [A-Za-z0-9._~+/-]{8,}"),
    "token": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"),
    "password": re.compile(r"://[^/\s:@]+:(?!\*+@)[^/\s@]+@"),
    "private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY"),
    "e-mail address": re.compile(r"\b[\w.+-]+@[\w-]+\.[a-z]{2,}\b"),
    "card": re.compile(r"(?<![\w.-])[3-6](?:[ -]?\d){12,18}(?![\w.-])"),
    "account": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}\b"),
    "social security number": re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"),
    "telephone number": re.compile(r"(?<!\w)\+\d{1,3}[ -]?(?:\d[ -]?){8,11}(?!\w)"),
}


class Markers:
    """Finds what does not belong into telemetry.

    Args:
        shingles: Three words in a row that stand in the tests alone.
        short: Contents of prompts and answers of fewer words, by their first.
    """

    def __init__(self, shingles: set[tuple[str, ...]], short: set[tuple[str, ...]]) -> None:
        self._shingles, self._short = shingles, short

    def found(self, text: str) -> Iterator[str]:
        """Yields what is wrong about a text."""
        for kind, shape in _SHAPES.items():
            for match in shape.finditer(text):
                if kind != "card" or _luhn(match[0]):
                    yield f"{kind} {match[0]!r}"
        said = words(text)
        for start in range(len(said)):
            if tuple(said[start : start + SHINGLE]) in self._shingles:
                yield f"words of a test, {' '.join(said[start : start + SHINGLE])!r}"
            for count in range(1, SHINGLE):
                if (short := tuple(said[start : start + count])) in self._short and len(short) == count:
                    yield f"content of a test, {' '.join(short)!r}"


def words(text: str) -> list[str]:
    """The words of a text, in lower case, also of one that was packed into a URL or into JSON."""
    plain = unquote_plus(text) if "%" in text or "+" in text else text
    return [word.lower() for word in _WORD.findall(plain.replace("\\n", " "))]


@cache
def markers() -> Markers:
    """Those of this repository."""
    shingles: set[tuple[str, ...]] = set()
    short: set[tuple[str, ...]] = set()
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text())
        own = _own(tree)
        for text in _texts(tree):
            shingles |= _shingles(text.value) if id(text) not in own else set()
        short |= {tuple(said) for text in _contents(tree) if 0 < len(said := words(text)) < SHINGLE}
    known, vocabulary = _product()
    short = {one for one in short if len("".join(one)) >= _LENGTH_MIN and not set(one) <= vocabulary}
    return Markers(shingles - known, short)


def _product() -> tuple[set[tuple[str, ...]], set[str]]:
    """What the product itself says: its shingles, and its words."""
    shingles = {shingle for text in _OF_LIBRARIES for shingle in _shingles(text)}
    vocabulary: set[str] = set()
    for top in ("services", "kit", "cli"):
        for path in (ROOT / top).rglob("*.py"):
            source = path.read_text()
            vocabulary.update(re.findall(r"[a-z]+", source.lower()))
            for text in _texts(ast.parse(source)):
                shingles |= _shingles(text.value)
    return shingles, vocabulary


def _shingles(text: str) -> set[tuple[str, ...]]:
    said = words(text)
    return {tuple(said[start : start + SHINGLE]) for start in range(len(said) - SHINGLE + 1)}


def _texts(tree: ast.AST) -> Iterator[ast.Constant]:
    """Every string of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


def _own(tree: ast.AST) -> set[int]:
    """The nodes of what a test says to its reader alone: docstrings, what it logs or raises itself, what it expects."""
    own: set[int] = set()
    for node in ast.walk(tree):
        is_raised = isinstance(node, ast.Raise)
        is_logged = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOGGED
        if is_raised or is_logged:
            own.update(id(within) for within in ast.walk(node))
        elif isinstance(node, ast.Expr):
            own.add(id(node.value))
        elif isinstance(node, ast.Compare):
            own.update(id(operand) for operand in (node.left, *node.comparators))
    return own


def _contents(tree: ast.AST) -> Iterator[str]:
    """Every string that is the value of a field which carries content."""
    for node in ast.walk(tree):
        pairs: list[tuple[object, ast.expr]] = []
        if isinstance(node, ast.Dict):
            pairs = [(key.value, value) for key, value in zip(node.keys, node.values, strict=True)
                     if isinstance(key, ast.Constant)]  # fmt: skip
        elif isinstance(node, ast.Call):
            pairs = [(keyword.arg, keyword.value) for keyword in node.keywords]
        for name, value in pairs:
            if name in _CARRIERS and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value.value


def _luhn(text: str) -> bool:
    digits = [int(one) for one in reversed(text) if one.isdigit()]
    return sum(digit if at % 2 == 0 else (digit * 2 - 9 * (digit > 4)) for at, digit in enumerate(digits)) % 10 == 0
