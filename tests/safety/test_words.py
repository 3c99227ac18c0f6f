"""Words: where they are, what the encoder said of them, and how they are written."""

import numpy as np
import pytest

from kit.encoder import Encoded
from services.safety.learned.words import NEIGHBOURS, SHAPE_COUNT, read_words

WIDTH = 2


def encoded(*tokens: tuple[int, int, float]) -> Encoded:
    """Tokens as (begin, end, value): each state holds the value twice; a special token stands before them."""
    states = np.array([[9.0] * WIDTH, *([value] * WIDTH for _, _, value in tokens)], np.float32)
    offsets = np.array([(0, 0), *((begin, end) for begin, end, _ in tokens)], np.int32)
    return Encoded(np.zeros(WIDTH, np.float32), states, offsets)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ann O'Brien-Lee's dog", ["Ann", "O'Brien-Lee", "s", "dog"]),
        ("write to ann.lee@mail.org, Ann", ["write", "to", "Ann"]),
        ("see https://ann.example/lee or www.lee.org #ann", ["see", "or"]),
        ("Łukasz и 山田", ["Łukasz", "и"]),
        ("@ann, hello", ["hello"]),
        (" \n", []),
    ],
)
def test_words_are_cut_out_of_prose_and_not_out_of_addresses(text, words):
    """Letters of scripts with spaces make words; what is part of an address, a link or a tag is none."""
    read = read_words(text)

    assert [text[start:end] for start, end in read.spans] == words
    assert read.features(encoded()).shape == (len(words), WIDTH + SHAPE_COUNT * (2 * NEIGHBOURS + 1))


def test_a_word_has_the_mean_of_its_tokens():
    """Tokens inside a word are averaged; special ones and those between words belong to none."""
    tokens = encoded((0, 3, 1.0), (3, 6, 3.0), (6, 7, 50.0), (8, 11, 5.0))

    assert read_words("Annika, yes").features(tokens)[:, 0].tolist() == [2.0, 5.0]


def test_a_word_knows_how_its_neighbours_are_written():
    """The shape of the word behind is seen from a word, and nothing beyond the end."""
    features = read_words("ann Lee").shapes.reshape(2, 2 * NEIGHBOURS + 1, SHAPE_COUNT)

    assert features[0, NEIGHBOURS + 1].tolist() == features[1, NEIGHBOURS].tolist()
    assert not features[1, NEIGHBOURS + 1 :].any()
    assert features[1, NEIGHBOURS, 0] == 1
    assert features[0, NEIGHBOURS, 0] == 0
