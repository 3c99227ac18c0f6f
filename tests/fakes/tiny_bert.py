"""Tiny BERTs whose weights are set by hand, written as Hugging Face directories: they know a few words.

A classifier gives a label where one of its words stands anywhere in a text, a token classifier marks the words
themselves. Nothing is learned and nothing is random, so that a test can say what must be found.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WIDTH = 16
TOKENS_MAX = 48


def write_classifier(directory: Path, words: Mapping[str, str]) -> Path:
    """Writes a text classifier; `words` gives the label of each word."""
    labels = sorted(set(words.values()))
    with torch.no_grad():
        model = BertForSequenceClassification(_config(words, labels, problem_type="multi_label_classification"))
        _know(model.bert, words, labels)
        torch.nn.init.eye_(model.bert.pooler.dense.weight)
        torch.nn.init.zeros_(model.bert.pooler.dense.bias)
        _tell(model.classifier, labels, first=0)
    return _write(directory, model, words)


def write_token_classifier(directory: Path, words: Mapping[str, str]) -> Path:
    """Writes a token classifier; `words` gives what each word is, without the B- and I- of its labels."""
    kinds = sorted(set(words.values()))
    with torch.no_grad():
        model = BertForTokenClassification(_config(words, ["O", *(f"I-{kind}" for kind in kinds)]))
        _know(model.bert, words, kinds, attends=False)
        _tell(model.classifier, kinds, first=1)
        model.classifier.bias[0] = 0.0
    return _write(directory, model, words)


def _config(words: Mapping[str, str], labels: list[str], **more: object) -> BertConfig:
    return BertConfig(
        vocab_size=len(SPECIAL) + len(words),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=WIDTH,
        max_position_embeddings=TOKENS_MAX,
        id2label=dict(enumerate(labels)),
        label2id={label: column for column, label in enumerate(labels)},
        **more,
    )


def _know(bert: torch.nn.Module, words: Mapping[str, str], labels: list[str], attends: bool = True) -> None:
    """Gives each label two numbers of a word's vector; one layer hands the mean of all words to each."""
    for parameter in bert.parameters():
        torch.nn.init.zeros_(parameter)
    for norm in (each for each in bert.modules() if isinstance(each, torch.nn.LayerNorm)):
        torch.nn.init.ones_(norm.weight)
    for row, label in enumerate(words.values(), len(SPECIAL)):
        at = 2 * labels.index(label)
        bert.embeddings.word_embeddings.weight[row, at : at + 2] = torch.tensor([1.0, -1.0])
    attention = bert.encoder.layer[0].attention
    if attends:  # with queries and keys of zero everything is looked at alike
        torch.nn.init.eye_(attention.self.value.weight)
        torch.nn.init.eye_(attention.output.dense.weight)


def _tell(head: torch.nn.Linear, labels: list[str], first: int) -> None:
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.constant_(head.bias, -4.0)
    for at in range(len(labels)):
        head.weight[first + at, 2 * at : 2 * at + 2] = torch.tensor([6.0, -6.0])


def _write(directory: Path, model: torch.nn.Module, words: Mapping[str, str]) -> Path:
    vocabulary = {word: at for at, word in enumerate([*SPECIAL, *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=TOKENS_MAX, **names).save_pretrained(directory)
    model.save_pretrained(directory)
    return directory
