"""A receipt as trailing metadata: what was done for a request, told even where the request failed.

Once whole, for programs, and its main facts once more in words that any client can read. All of it stays small, for
peers cap metadata at 8 KiB as a rule: what is too long is cut, the least needed first.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from millrace.inference.v1 import event_pb2
from services.inference import translate
from services.inference.events import AttemptOutcome, Receipt
from services.inference.generation import Usage

RECEIPT_BYTES_MAX = 4096  # as Base64 it leaves 2 KiB to the other headers
_NAME_CHARS_MAX = 256  # of what others call themselves

Trailers = tuple[tuple[str, str | bytes], ...]


def trailers(receipt: Receipt, message: event_pb2.Receipt | None = None) -> Trailers:
    """The metadata that tells a receipt; what is not known is absent.

    Args:
        receipt: What was done.
        message: The same as a message, where it was made already; it is left as it is.
    """
    facts: dict[str, Any] = {
        "attempts": sum(one.outcome is not AttemptOutcome.SKIPPED for one in receipt.attempts),
        "target": quote(_target(receipt), safe=":/ @,+*()[]")[:_NAME_CHARS_MAX],
        "cost-micro-usd": receipt.cost_micro_usd,
        "cache": receipt.cache.outcome.name.lower() if receipt.cache else None,
    }
    if receipt.usage != Usage():
        facts["prompt-tokens"] = receipt.usage.prompt_token_count
        facts["completion-tokens"] = receipt.usage.completion_token_count
    words = tuple((f"x-millrace-{name}", str(fact)) for name, fact in facts.items() if fact not in (None, ""))
    return (*words, ("x-millrace-receipt-bin", _serialized(message or translate.receipt(receipt))))


def _target(receipt: Receipt) -> str:
    """Who answered, else who was asked last."""
    asked = [one.target for one in receipt.attempts if one.outcome is not AttemptOutcome.SKIPPED]
    return receipt.target or (asked[-1] if asked else "")


def _serialized(receipt: event_pb2.Receipt) -> bytes:
    """The receipt within its bounds: names clipped, then without findings, then without its oldest tries."""
    whole = receipt.SerializeToString()
    if len(whole) <= RECEIPT_BYTES_MAX and max(map(len, _names(receipt))) <= _NAME_CHARS_MAX:
        return whole
    receipt = event_pb2.Receipt.FromString(whole)
    receipt.target_model, receipt.system_fingerprint = (name[:_NAME_CHARS_MAX] for name in _names(receipt))
    if receipt.ByteSize() > RECEIPT_BYTES_MAX:
        del receipt.safety[:]
    while receipt.attempts and receipt.ByteSize() > RECEIPT_BYTES_MAX:
        del receipt.attempts[0]
    return receipt.SerializeToString()


def _names(receipt: event_pb2.Receipt) -> tuple[str, str]:
    return receipt.target_model, receipt.system_fingerprint
