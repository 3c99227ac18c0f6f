"""Models of any shape: what is read of their files, and that both ways to run them give the reference's vectors."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, PreTrainedModel

from kit import bert_onnx, minilm
from kit.encoder import Encoder, load
from kit.sentence_model import find

TEXTS = ["one two three", "x", "a longer text of some more words, with an end"]


def save(folder: Path, network: PreTrainedModel, pooling: str, *, normalises: bool = False) -> SentenceTransformer:
    """Writes a small model with random weights as sentence-transformers does, and returns it."""
    inner = folder / "inner"
    network.save_pretrained(inner)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(Path(minilm.find()) / name, inner)
    transformer = Transformer(str(inner), max_seq_length=32)
    steps = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)]
    model = SentenceTransformer(modules=[*steps, Normalize()] if normalises else steps, device="cpu")
    model.save(str(folder / "model"))
    return model


def bert() -> BertModel:
    """A BERT whose numbers differ from those of MiniLM in every respect."""
    torch.manual_seed(5)
    return BertModel(
        BertConfig(
            vocab_size=30522,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=40,
            max_position_embeddings=64,
            layer_norm_eps=1e-6,
            initializer_range=0.3,
        )
    )


def distilbert() -> DistilBertModel:
    """An architecture that is not BERT's."""
    torch.manual_seed(5)
    return DistilBertModel(DistilBertConfig(dim=24, n_layers=2, n_heads=4, hidden_dim=40, max_position_embeddings=64))


@pytest.mark.parametrize(
    ("network", "pooling", "fused"),
    [(bert, "mean", True), (bert, "cls", True), (bert, "max", False), (distilbert, "mean", False)],
    ids=["bert-mean", "bert-cls", "bert-max", "distilbert"],
)
async def test_vectors_are_those_of_the_reference(tmp_path: Path, network, pooling: str, fused: bool) -> None:
    """A BERT with a known pooling runs as a fused graph, all else in torch, and both agree with the reference."""
    reference = save(tmp_path, network(), pooling, normalises=fused)
    encoder = Encoder(str(tmp_path / "model"))
    await encoder.warm()
    wanted = reference.encode(TEXTS, convert_to_numpy=True, normalize_embeddings=True)
    encoded = await encoder.token_states(TEXTS)

    assert bert_onnx.runs(find(str(tmp_path / "model"))) is fused
    assert (encoder.dimension, encoder.token_max) == (24, 32)
    assert np.abs(np.stack([each.vector for each in encoded]) - wanted).max() < 1e-5
    assert [each.states.shape for each in encoded] == [(len(each.offsets), 24) for each in encoded]
    await encoder.close()


async def test_what_is_not_computed_in_blocks_is_in_float32(tmp_path: Path) -> None:
    """A model whose kind or widths allow no blocks of 8 bits has the vectors and the version of float32."""
    save(tmp_path, bert(), "mean", normalises=True)
    name = str(tmp_path / "model")
    encoders = [Encoder(name), Encoder(name, load=partial(load, precision="int8_blocks"))]
    for encoder in encoders:
        await encoder.warm()
    wanted, found = [await encoder.encode(TEXTS) for encoder in encoders]

    assert np.array_equal(wanted, found)
    assert encoders[0].version == encoders[1].version
    for encoder in encoders:
        await encoder.close()


def test_the_version_is_that_of_the_files(tmp_path: Path) -> None:
    """A change of any file that a model is read from is another version; its name alone or a note beside it is not."""
    shutil.copytree(minilm.find(), tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere" / "here")
    before, moved = find(str(tmp_path / "here")).version, find(str(tmp_path / "elsewhere" / "here")).version
    (tmp_path / "here" / "NOTES.md").write_text("mine")
    noted = find(str(tmp_path / "here")).version
    (tmp_path / "here" / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    changed = find(str(tmp_path / "here"))

    assert before == moved == noted != changed.version
    assert changed.pooling == "cls"


def test_the_default_model_is_read_as_it_is() -> None:
    """The installed model's files say what its authors say of it."""
    model = find(minilm.NAME)

    assert (model.pooling, model.token_max, model.config["hidden_size"]) == ("mean", 256, 384)
    assert model.steps == ("Transformer", "Pooling", "Normalize")
    assert model.version.startswith("all-minilm-l6-v2@")
