"""Guesses how an answer goes on: as the text did where its last tokens stood before, in the prompt or in the answer.

Answers quote: documents, code that is changed, keys of JSON, names. A guess is computed beside the last token, and
counts as far as it is what is drawn anyway: no answer changes, and none has other random numbers. Guesses are compared
with what was drawn whether they were computed or not, so that how often they are right is known where it matters.

Source: prompt lookup decoding (Saxena 2023, after "Inference with Reference", Yang et al. 2023). How far to guess is
decided by what it gains, for all answers of a step together (`pace`).
"""

from __future__ import annotations

from dataclasses import dataclass

# Longest guess; beyond it hardly any is right to its end.
GUESS_MAX = 8
# Tokens that are looked through, the last ones: about two megabytes of index for each answer in the batch.
LOOKBACK_TOKENS = 8_192
# How often the next token is the one that followed earlier, by how many tokens before it are the same: at first, and
# after that as this answer shows. The last is for that many and more.
PRIOR_RATES = (0.0, 0.15, 0.3, 0.5, 0.6, 0.7, 0.8)
MATCH_MAX = len(PRIOR_RATES) - 1
LEARNING = 0.2
# What follows three tokens is looked up first: the longer the match, the likelier the guess.
LONG = 3


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that may come next, and how likely all up to each of them are right."""

    token_ids: list[int]
    likelihoods: list[float]


class Drafter:
    """Looks through one answer and its prompt.

    Attributes:
        speed: Tokens that the answer got in each step since its first guess.
    """

    def __init__(self) -> None:
        self.speed = 1.0
        self._begun_at = self._step_count = 0
        self._latest: dict[int | tuple[int, ...], int] = {}  # where a token, or some in a row, ended last
        self._entered_count = 0
        self._rates = list(PRIOR_RATES)
        self._guess: list[int] = []
        self._guessed_at = self._match = 0

    def guess(self, token_ids: list[int]) -> Guess:
        """Guesses how the tokens go on, which are those of the last time and more."""
        self._learn(token_ids)
        self._enter(token_ids)
        count = len(token_ids)
        self._begun_at = self._begun_at or count
        self._step_count += 1
        self.speed = (count - self._begun_at + 1) / self._step_count
        at = self._latest.get(tuple(token_ids[-LONG:]), self._latest.get(token_ids[-1], -1))
        self._guess = []
        if at < 0:
            return Guess([], [])
        self._guessed_at, self._match = count, _match(token_ids, at)
        likelihoods, likely = [], 1.0
        for ahead in range(GUESS_MAX):
            source = at + 1 + ahead
            # What repeats itself goes on with what has just been guessed.
            self._guess.append(token_ids[source] if source < count else self._guess[source - count])
            likely *= self._rates[min(self._match + ahead, MATCH_MAX)]
            likelihoods.append(likely)
        return Guess(self._guess, likelihoods)

    def _learn(self, token_ids: list[int]) -> None:
        """Compares the last guess with what came, up to its first error."""
        for ahead, token_id in enumerate(token_ids[self._guessed_at : self._guessed_at + len(self._guess)]):
            match, is_right = min(self._match + ahead, MATCH_MAX), self._guess[ahead] == token_id
            self._rates[match] += LEARNING * (is_right - self._rates[match])
            if not is_right:
                return

    def _enter(self, token_ids: list[int]) -> None:
        """Enters where tokens ended, but for the last: it must find those before it."""
        last = len(token_ids) - 1
        for at in range(max(self._entered_count, last - LOOKBACK_TOKENS), last):
            self._latest[token_ids[at]] = at
            self._latest[tuple(token_ids[max(0, at - LONG + 1) : at + 1])] = at
        self._entered_count = last


def _match(token_ids: list[int], at: int) -> int:
    """How many tokens up to `at` are the same as the last ones."""
    last, match = len(token_ids) - 1, 1
    while match < MATCH_MAX and match <= at and token_ids[at - match] == token_ids[last - match]:
        match += 1
    return match
