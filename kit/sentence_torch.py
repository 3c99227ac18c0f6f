"""Any model of sentence-transformers, run by torch: slower than `kit.bert_onnx`, for what that cannot express.

Models bring weights and settings, never code: one that needs its own code is refused by the library. Prompts that a
model wants before a query or a passage are not added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from kit import openmp
from kit.sentence_model import SentenceModel

Floats = npt.NDArray[np.float32]


class SentenceTorch:
    """A loaded model. Not safe for two threads at once."""

    def __init__(self, model: SentenceModel, threads: int) -> None:
        """Loads the model; torch's threads are those of the whole process."""
        openmp.wait_asleep()
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.token_max = model.token_max
        self._model = SentenceTransformer(str(model.folder), device="cpu", trust_remote_code=False).eval()
        tokenizer: Any = self._model.tokenizer
        self.tokenizer = cast(Tokenizer, tokenizer.backend_tokenizer)
        self._padding = int(tokenizer.pad_token_id or 0)
        self.dimension = int(self._model.get_embedding_dimension() or 0)

    def run(self, token_ids: Sequence[Sequence[int]]) -> tuple[Floats, list[Floats]]:
        """Computes the vector of each text, shape (texts, dimension), and the states of its tokens."""
        import torch

        lengths = [len(ids) for ids in token_ids]
        padded = torch.full((len(lengths), max(lengths)), self._padding)
        mask = torch.zeros_like(padded)
        for row, ids in enumerate(token_ids):
            padded[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
        with torch.inference_mode():
            result = self._model({"input_ids": padded, "attention_mask": mask})
        states = result["token_embeddings"].float().numpy()
        return result["sentence_embedding"].float().numpy(), [states[row, :n] for row, n in enumerate(lengths)]
