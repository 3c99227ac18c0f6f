"""Texts that say the same come out alike; those that do not, do not."""

import pytest

from services.cache.semantic.words import WORDS_MAX, parse, stem


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I can't pay", "I cannot pay"),
        ("Why didn’t it arrive?", "why did not it arrive"),
        ("It costs $1,500.50", "it costs 1500.5 dollars"),
        ("two hundred thousand people", "200k people"),
        ("thirty five days", "35 days"),
        ("2.50 kg in 1.50 hours", "2.5 kg in 1.5 hours"),
        ("USB 2.0 has 0.5 A", "usb 2 has 0.5 a"),
        ("10mg twice", "10 milligram twice"),
        ("My card’s PIN", "my card PIN"),
        ("the U.S. embassy", "the USA embassy"),
        ("a top-up of 10 km", "a top up of 10 kilometers"),
    ],
)
def test_form_makes_no_difference(one, other):
    """Contractions, case, number words, currency signs, units and typography are only form."""
    assert parse(one).stems == parse(other).stems


@pytest.mark.parametrize(
    "forms",
    [
        "add adds adding added",
        "make makes making",
        "carry carries carried carrying",
        "card cards",
        "match matches matched",
        "pay paid paying pays",
        "child children",
        "save saves saved saving",
        "plan plans planned planning",
        "bus buses",
        "teach teaches taught teaching",
    ],
)
def test_inflections_share_a_stem(forms):
    """The forms of a word are compared as one."""
    assert len({stem(form) for form in forms.split()}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("legal", "illegal"),
        ("form", "from"),
        ("mass", "mast"),
        ("50", "5"),
        ("1000", "100"),
        ("plan", "plane"),
        ("not", "note"),
        ("hopping", "hoping"),
    ],
)
def test_other_words_keep_their_stems_apart(one, other):
    """Words that only look alike stay two."""
    assert stem(one) != stem(other)


def test_a_number_goes_with_what_it_counts():
    """A quantity is its value and the word behind it, if that says anything."""
    assert parse("5 mg for 2 weeks, not 3").numbers == (("2", "week"), ("3", ""), ("5", "milligram"))


def test_names_are_capitals_within_a_sentence():
    """The capital at the start of a sentence names nothing."""
    assert parse("Can Anna fly to Oslo? Does it rain there").names == {"anna", "oslo"}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I change the colour of my card?", "en"),
        ("Wie kann ich die Farbe der Karte ändern?", "de"),
        ("Comment puis-je changer la couleur de ma carte ?", "fr"),
        ("¿Cómo puedo cambiar el color de mi tarjeta?", "es"),
        ("カードの色を変えたい", "CJK"),
        ("Как изменить цвет?", "CYRILLIC"),
        ("MX-5000 manual", ""),
    ],
)
def test_languages_are_told_apart(text, language):
    """A script or the function words name the language; too little says nothing."""
    found = parse(text).language

    assert found == language or (language == "CJK" and found in {"CJK", "KATAKANA", "HIRAGANA"})


def test_long_texts_keep_both_ends():
    """Of a long text the beginning and the end are kept, for the question stands at one of them."""
    words = parse(" ".join(f"w{'x' * (n % 7)}" for n in range(2 * WORDS_MAX)) + " finally")

    assert len(words.tokens) == WORDS_MAX
    assert words.tokens[-1] == "finally"


# The longest that a lookup may bring, without a space: each pattern must read it once, not once from each character on.
LONGEST = [(unit * 32_768)[:32_768] for unit in ("a", "a.", "$1,", "`a", "ab(", "`")]


@pytest.mark.parametrize("text", ["", "   ", "?!", "🙂", "\u200b", "²", "1.2.3.4 10:30 3/4", "٣ كتب", *LONGEST])
def test_any_text_is_parsed(text):
    """No text is too strange: all parts stay side by side."""
    words = parse(text)

    assert len(words.tokens) == len(words.stems)


def test_code_is_told_from_words():
    """Backticks and signs of code make it, a semicolon where it ends a line; each piece is kept as it stands."""
    text = "run `ls -l` and foo::bar; or a.b(c) x -> y\nreturn z;\nthen; wait e.g. 5.0 `"

    assert parse(text).code == ("->", "`ls -l`", "a.b(c)", "foo::bar;", "z;")
    assert parse("call print()`a b`{x}").code == ("`a b`", "print()", "{x}")


def test_signs_that_are_no_words_are_kept_apart():
    """What is calculated, and the vowel signs of scripts that have them, are not lost; a hyphen is no minus."""
    assert parse("3 * 5 - 2").marks == ("*", "-")
    assert parse("a 5-day well-known e-mail and/or 2").marks == ()
    assert parse("कि").marks != parse("की").marks
    assert parse("is ☕ ok? ❤️").pictures == {"☕", "❤"}
