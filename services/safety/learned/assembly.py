"""Puts the learned detectors together: one encoder and one reader, and the heads that share them."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import threadpoolctl

from kit.encoder import Encoder, load
from services.safety.detectors.detector import Detector
from services.safety.learned.classifier import Classifier
from services.safety.learned.features import Hints
from services.safety.learned.heads import PRECISION, load_heads
from services.safety.learned.marking import NamesHead
from services.safety.learned.names import Names
from services.safety.learned.reading import Reader

# What the heads are called in findings. Moderation has OpenAI's names, of which no data that may be learned from knows
# harassment/threatening, illicit, the kinds of self-harm and sexual/minors.
MODERATION_NAMES = MappingProxyType(
    {name: name for name in (
        "sexual", "hate", "violence", "harassment", "self-harm", "hate/threatening", "violence/graphic"
    )}
)  # fmt: skip
INJECTION_NAMES = MappingProxyType({"direct": "injection/direct", "planted": "injection/indirect"})
# How long a thread of the encoder waits for the interpreter while the loop reads patterns. Python's 5 ms may be due at
# each of a few steps before and after the model's own work: beside other processes longer than the work itself.
SWITCH_S = 0.0001


@dataclass(frozen=True, slots=True)
class Learned:
    """The learned detectors by name, and the encoder that must be warm before they judge."""

    encoder: Encoder
    detectors: dict[str, Detector]


def assemble(encoder_threads: int) -> Learned:
    """Loads the heads; the encoder loads when it is warmed.

    Raises:
        FailedPrecondition: HEADS_NOT_GENUINE.
    """
    # The products of the heads are small: two threads spin longer on one than it takes, 14 ms a passage instead of 0.7.
    threadpoolctl.threadpool_limits(1, "blas")
    sys.setswitchinterval(SWITCH_S)
    encoder = Encoder(threads=encoder_threads, load=partial(load, precision=PRECISION))
    reader = Reader(encoder, Hints.load(), NamesHead.load())
    heads = load_heads()
    moderation = Classifier("moderation", heads["moderation"], MODERATION_NAMES, reader)
    # An attack is a sentence, however long the text around it: each passage is judged by itself. Among long benign
    # texts that found 0.92 of the attacks at 5 % of false alarms, the window 0.71.
    injection = Classifier(
        "injection", heads["injection"], INJECTION_NAMES, reader, window_passages=1, suspicion=math.inf
    )
    return Learned(encoder, {each.name: each for each in (moderation, injection, Names(reader))})
