"""When a stored answer may serve a similar question: the policies that a bench compares."""

from __future__ import annotations

from dataclasses import dataclass

from cli.errors import CommandError

FORMS = "static:SIMILARITY (as static:0.95), bounded:ERROR (as bounded:0.02), or exact"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a lookup asks for.

    Attributes:
        name: As it was given.
        similarity_min: Least cosine; None asks for none.
        error_max: Highest share of wrong hits; 1 asks for no bound. None asks for exact answers only.
    """

    name: str
    similarity_min: float | None = None
    error_max: float | None = None

    @property
    def is_bounded(self) -> bool:
        """Whether the policy promises a bound on wrong hits."""
        return self.error_max is not None and self.error_max < 1

    @property
    def is_static(self) -> bool:
        """Whether nothing but the cosine counts."""
        return self.error_max == 1


DEFAULT = ("static:0.85", "static:0.90", "static:0.95", "bounded:0.02", "bounded:0.05", "bounded:0.10")


def parse(name: str) -> Policy:
    """Reads a policy.

    Raises:
        CommandError: There is no such policy.
    """
    kind, _, value = name.partition(":")
    if name == "exact":
        return Policy(name)
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if kind == "static" and 0 <= number <= 1:
        return Policy(name, similarity_min=number, error_max=1.0)
    if kind == "bounded" and 0 < number < 1:
        return Policy(name, error_max=number)
    raise CommandError(f"--policy {name}: must be {FORMS}")
