"""Personal data: what is found, and that any cutting of a text gives the same."""

import itertools
import random
import socket
import subprocess
import sys

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.safety.detectors.detector import Detector, Match, is_awaited
from services.safety.detectors.folding import Folder
from services.safety.detectors.lexicon import Lexicon
from services.safety.detectors.pii import PersonalData
from services.safety.detectors.recognisers import load_recognisers
from services.safety.detectors.terms import ForbiddenTerms
from services.safety.policy_file import load_policies
from tests.safety.test_stream import TEXTS

PII = PersonalData(load_recognisers())
DEFAULT = frozenset(PII.categories) - PII.optional_categories


@pytest.fixture(scope="module")
def terms() -> ForbiddenTerms:
    return ForbiddenTerms(Lexicon(Folder(), load_policies().terms))


def found(text: str) -> list[tuple[str, str]]:
    return [(m.category, text[m.start : m.end]) for m in PII.cursor(DEFAULT).scan(text, 0, True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to john.doe+x@mail.example.co.uk.", [("EMAIL_ADDRESS", "john.doe+x@mail.example.co.uk")]),
        ("call (212) 555-0147 x1 today", [("PHONE_NUMBER", "(212) 555-0147")]),
        ("call +44 20 7946 0958", [("PHONE_NUMBER", "+44 20 7946 0958")]),
        ("4111111111111111", [("CREDIT_CARD", "4111111111111111")]),
        ("order 1234 4111-1111-1111-1111", [("CREDIT_CARD", "4111-1111-1111-1111")]),
        ("DE89 3704 0044 0532 0130 00 is mine", [("IBAN_CODE", "DE89 3704 0044 0532 0130 00")]),
        ("SSN 212-45-6789", [("US_SSN", "212-45-6789")]),
        ("at 192.168.10.25 or fe80::1ff:fe23:4567:890a", [
            ("IP_ADDRESS", "192.168.10.25"), ("IP_ADDRESS", "fe80::1ff:fe23:4567:890a")]),
        ("::ffff:1.2.3.4", [("IP_ADDRESS", "::ffff:1.2.3.4")]),
        ("card 2623322164608847, 4131034282458809939, 3782 822463 10005", [
            ("CREDIT_CARD", "2623322164608847"), ("CREDIT_CARD", "4131034282458809939"),
            ("CREDIT_CARD", "3782 822463 10005")]),
        ("Phone:\n60-56-85-91", [("PHONE_NUMBER", "60-56-85-91")]),
        ("they are not answering at 374 780 163", [("PHONE_NUMBER", "374 780 163")]),
        ("pay 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2 or bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", [
            ("CRYPTO", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
            ("CRYPTO", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq")]),
        ("DNI 12345678Z, NIE X1234567L", [("ES_NIF", "12345678Z"), ("ES_NIE", "X1234567L")]),
        ("S1234567D and RSSMRA85T10A562S", [("SG_NRIC_FIN", "S1234567D"), ("IT_FISCAL_CODE", "RSSMRA85T10A562S")]),
        ("PAN ABCPE1234F, NINO AB123456C", [("IN_PAN", "ABCPE1234F"), ("UK_NINO", "AB123456C")]),
        ("aadhaar 234567890124 or 2345 6789 0124", [
            ("IN_AADHAAR", "234567890124"), ("IN_AADHAAR", "2345 6789 0124")]),
        ("cpf 529.982.247-25", [("BR_CPF", "529.982.247-25")]),
        ("PESEL: 44051401359", [("PL_PESEL", "44051401359")]),
        ("my passport number is C01X00T47", [("PASSPORT", "C01X00T47")]),
        ("key AKIAIOSFODNN7EXAMPLE.", [("SECRET", "AKIAIOSFODNN7EXAMPLE")]),
        ("my name is Ann J. O'Neil, and I am happy", [("PERSON", "Ann J. O'Neil")]),
        *((f"card {card}, thanks", [("CREDIT_CARD", card)]) for card in (
            "4111\u00a01111\u00a01111\u00a01111", "4111.1111.1111.1111", "4111_1111_1111_1111",
            "4111\n1111\n1111\n1111",
            "4111\r\n1111\r\n1111\r\n1111", "\uff14" + "\uff11" * 15, "4111\u20111111\u20111111\u20111111",
            "4111\u200b 1111\u200b 1111\u200b 1111", "3782_822463_10005")),
        ("my ssn is 536221234", [("US_SSN", "536221234")]),
        ("Social Security number: 536221234.", [("US_SSN", "536221234")]),
        ("gb29nwbk60161331926819", [("IBAN_CODE", "gb29nwbk60161331926819")]),
        ("pay de89 3704 0044 0532 0130 00 now please", [("IBAN_CODE", "de89 3704 0044 0532 0130 00")]),
        ("Gb29NWBK60161331926819", [("IBAN_CODE", "Gb29NWBK60161331926819")]),
        *((f"mail {address}, please", [("EMAIL_ADDRESS", address)]) for address in (
            "jo@corp.local", "jo@mail.internal", "root@db01.lan", "jo@x.corp", "jo@x.test", "alice@corp.example",
            "root@localhost", "jo\uff20example.com")),
        ("I'm José María Öztürk.", [("PERSON", "José María Öztürk")]),
    ],
)  # fmt: skip
def test_personal_data_is_found(text: str, expected: list[tuple[str, str]]) -> None:
    """Each kind is found once, with its exact span."""
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "4111\n1111\n1111\n1111\n1234",  # A column of numbers.
        "1234\n4111\n1111\n1111\n1111",
        "4111_1111_1111_1112, gb29nwbk60161331926818, gb29nwbk601613319268190",
        "ssn 000221234, ssn 666221234, ssn 536000000",
        "number 536221234",
        "4111111111111112",  # Fails the Luhn check.
        "DE89 3704 0044 0532 0130 01",  # Fails modulo 97.
        "on 2024-01-15 at 10:30, chapter 3.1.4, 1,234,567 people",
        "root@host, @handle, a @ b.co",
        "version 1.2.3, 3.14159265358979, 50%",
        "std::vector, 12:30:45",
        "see example.com",
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3, bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdp",  # Wrong checksums.
        "12345678A, X1234567A, S1234567A, RSSMRA85T10A562A, 2234 5678 9013, 529.982.247-26",
        "order 123456789, item C01X00T47, 44051401359 units",  # Nobody says what they are.
        "ask-anything-about-everything-we-ever-did, risk-free, AKIA, eyJ, ghp_short, sk-",
        "-----BEGIN RSA PRIVATE KEY----- is how it begins",
        "I am German. I'm Not Sure. my name is on the list, This is New York",
        "licence U62928788557186",
    ],
)
def test_look_alikes_are_not(text: str) -> None:
    """Checksums, dates, decimals and handles are told apart from personal data."""
    assert found(text) == []


def read(detector: Detector, text: str, cuts: list[int]) -> list[Match]:
    """Reads a text in pieces through a window of no more than a cursor asks for."""
    cursor = detector.cursor(detector.categories)
    assert not is_awaited(cursor)
    matches: list[Match] = []
    base = 0
    for cut in cuts:
        matches += cursor.scan(text[base:cut], base, cut == len(text))
        assert cut - cursor.safe <= detector.hold
        base = max(base, cursor.safe - detector.context)
    assert cursor.safe == len(text)
    return matches


@settings(max_examples=400, deadline=None)
@example(text="my ssn is 212-555-0147 536221234 a@b.co", seed=0)  # one number by two layers
@given(text=TEXTS.filter(bool), seed=st.integers(0, 2**32))
def test_cursors_do_not_depend_on_cuts(terms: ForbiddenTerms, text: str, seed: int) -> None:
    """Both detectors report the same matches for a text in one piece, in code points, and in random pieces."""
    cuts = sorted({*random.Random(seed).choices(range(1, len(text) + 1), k=5), len(text)})
    for detector in (PII, terms):
        whole = read(detector, text, [len(text)])
        assert read(detector, text, list(range(1, len(text) + 1))) == whole
        assert read(detector, text, cuts) == whole


KEYS = {
    "sk-ant-api03-0123456789abcdefghijABCDEFGHIJ0123456789-abcdefghijklmnopqrstuvwxyz0123456789_-AA",
    "sk-proj-" + "aB3" * 50,
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "github_pat_11ABCDEFG0123456789abc_" + "aB3" * 19,
    "glpat-abcdefghij0123456789",
    "xoxb-123456789012-1234567890123-abcdefghijABCDEFGHIJ1234",
    "sk_live_0123456789abcdefghijABCD",
    "AIzaSyA1234567890abcdefghijklmnopqrstuv",
    "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N" * 30,
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + ("MIIEowIBAAKCAQEAz4eT0aJrBbCk" * 2 + "\n") * 20
    + "aB3=\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\\n" + ("MIIEowIBAAKCAQEAz4eT0aJrBbCk" * 2 + "\\n") * 5 + "-----END PRIVATE KEY-----",
}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_a_secret_is_found_from_its_first_letter_to_its_last(key: str) -> None:
    """However long it is: it comes in stretches that touch, and what stands around it is no part of it."""
    text = f'token="{key}"\nThis is mine'
    matches = PII.cursor(DEFAULT).scan(text, 0, True)

    assert {match.category for match in matches} == {"SECRET"}
    assert all(before.end == after.start for before, after in itertools.pairwise(matches))
    assert text[matches[0].start : matches[-1].end] == key
    assert read(PII, text, list(range(1, len(text) + 1))) == read(PII, text, [len(text)])


def test_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognisers are built and used without a connection: the suffix list is the one that tldextract ships."""

    def refuse(*args: object) -> None:
        raise AssertionError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    fresh = PersonalData(load_recognisers())

    assert [m.category for m in fresh.cursor(DEFAULT).scan("a@b.co", 0, True)] == ["EMAIL_ADDRESS"]


def test_loading_leaves_heavy_packages_out() -> None:
    """Presidio is loaded without torch and transformers, which can still be imported afterwards."""
    code = (
        "import sys; from services.safety.detectors.recognisers import load_recognisers; load_recognisers(); "
        "assert 'torch' not in sys.modules; import importlib.util; assert importlib.util.find_spec('torch')"
    )
    pytest.importorskip("torch")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
