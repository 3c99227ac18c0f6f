"""The models file: what it may say, what stops start-up, and how a name is found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from kit.document import Document, load_yaml, parse_yaml
from kit.errors import Code, ConfigError, InvalidArgument, NotFound
from services.inference.config import EMBEDDED_MODELS_FILE
from services.inference.routing.catalog import Auto, Catalog, Defaults, Model, Price, Target, Upstream
from services.inference.routing.rules import BreakerRule, CacheRule, DeadlineRule, QueueRule, RetryRule, SafetyRule

ROOT = Path(__file__).parents[2]
MODELS = """
version: 1
upstreams:
  here: {base_url: "http://127.0.0.1:8000/v1"}
models:
  - {name: "gpt-*", targets: [{engine: openai, upstream: here}]}
  - {name: "gpt-5*", targets: [{engine: openai, upstream: here, model: five}]}
  - {name: gpt-5-mini, targets: [{engine: openai, upstream: here, model: mini, name: the mini}]}
  - {name: alone, targets: [{engine: local, model: embedded}], cache: {ttl_s: 5}}
  - {name: vectors, kind: embedding, targets: [{engine: local, model: minilm}]}
defaults: {safety: {profile: strict}}
"""


def read(text: str) -> Catalog:
    return parse_yaml(text, Catalog, "models.yaml")


def test_the_embedded_file_is_whole() -> None:
    """The file that comes with the service passes its own checks and has a model of each kind."""
    catalog = load_yaml(EMBEDDED_MODELS_FILE, Catalog)

    assert catalog.listed_names() == ["all-minilm-l6-v2", "millrace-embedded"]
    assert {model.kind for model in catalog.models} == {"chat", "embedding"}
    assert catalog.auto


def test_the_commented_examples_are_right(tmp_path: Path) -> None:
    """Every example in the embedded file's comments can be switched on by taking the `# ` away."""
    lines = EMBEDDED_MODELS_FILE.read_text(encoding="utf-8").splitlines()
    prose = (
        "  # The small",
        "  # Any other",
        "  # An upstream's",
        "  # A pattern",
        "# The models",
        "# MILLRACE",
        "# What",
        "# takes effect",
    )
    bare = [line if line.startswith(prose) else line.replace("# ", "", 1) for line in lines]
    (tmp_path / "models.yaml").write_text("\n".join(bare), encoding="utf-8")

    catalog = load_yaml(tmp_path / "models.yaml", Catalog)

    assert set(catalog.upstreams) == {"openai", "vllm", "ollama"}
    assert {"smol", "gpt"} <= set(catalog.listed_names())


def example(page: str) -> str:
    """The models file in a page of the documentation."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if block.startswith("version: 1\n"))


def test_the_documented_examples_are_right() -> None:
    """The files in the README and in the page on routing can be used as they stand."""
    assert read(example("README.md")).listed_names() == ["large", "small"]
    assert read(example("docs/routing.md")).listed_names() == ["all-minilm-l6-v2", "chat", "small", "spread"]


def test_the_documented_defaults_are_the_defaults() -> None:
    """The page on routing shows every rule with its default, and none that does not exist."""
    shown = yaml.safe_load(example("docs/routing.md"))
    defaults = Defaults()

    assert shown["defaults"] == {name: _plain(getattr(defaults, name)) for name in Defaults.model_fields}
    assert {**shown["auto"], "simple": "", "complex": ""} == Auto(simple="", complex="").model_dump()


def _plain(value: object) -> object:
    return json.loads(value.model_dump_json()) if isinstance(value, Document) else value


def test_every_field_is_documented() -> None:
    """The page on routing shows, or names in a comment, whatever an upstream, a target or a model may say."""
    text = example("docs/routing.md")
    fields = [name for kind in (Upstream, Target, Price, Model) for name in kind.model_fields]

    assert [name for name in fields if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize(
    ("name", "target_model"), [("gpt-5-mini", "mini"), ("gpt-4", "*"), ("gpt-5", "*"), ("alone", "embedded")]
)
def test_names_are_found(name: str, target_model: str) -> None:
    """An exact name comes before a pattern, and patterns in the order of the file."""
    assert read(MODELS).find(name).targets[0].model == target_model


@pytest.mark.parametrize("name", ["GPT-5-MINI", "", "gpt", "*", "auto"])
def test_an_unknown_name_is_not_found(name: str) -> None:
    """Names are exact to the letter; the refusal tells what there is."""
    with pytest.raises(NotFound) as caught:
        read(MODELS).find(name)

    assert (caught.value.code, caught.value.reason) == (Code.NOT_FOUND, "MODEL_NOT_FOUND")
    assert "ListModels" in caught.value.message


def test_a_long_name_is_not_echoed_whole() -> None:
    """A refusal stays small, whatever was asked for."""
    with pytest.raises(NotFound) as caught:
        read(MODELS).find("x" * 100_000)

    assert len(caught.value.message) < 1_000


def test_only_plain_names_are_listed() -> None:
    """A pattern is nothing that a caller could ask for."""
    assert read(MODELS).listed_names() == ["alone", "gpt-5-mini", "vectors"]


def test_a_models_own_rules_come_first() -> None:
    """What a model says about one part leaves the defaults of the others."""
    catalog = read(MODELS)
    own, other = catalog.rules_of(catalog.find("alone")), catalog.rules_of(catalog.find("gpt-4"))

    assert own.cache == CacheRule(ttl_s=5)
    assert other.cache == CacheRule()
    assert own.safety == other.safety == SafetyRule(profile="strict")


RULED = """
version: 1
upstreams: {up: {base_url: "http://127.0.0.1:1/v1", extensions: [top_k, regex]}}
models:
  - name: plain
    targets:
      - {engine: openai, upstream: up, model: a}
      - {engine: openai, upstream: up, model: b, breaker: {open_s: 5}, queue: {wait_s_max: 1}, capabilities: [tools]}
  - name: own
    policy: cheapest
    on_refusal: next
    retries: {retries_max: 0}
    degrade: {stale: true}
    targets: [{engine: local, model: m}]
  - {name: seeing, targets: [{engine: local, model: m, capabilities: [vision, logprobs]}]}
defaults:
  policy: weighted
  retries: {backoff_s: 1}
  deadlines: {ttft_s: 3}
  breaker: {failures_in_a_row: 2}
  queue: {running_count_max: 8}
"""


def test_defaults_hold_field_by_field() -> None:
    """A section of a model, or of a target, says what differs; the rest is as under `defaults`."""
    catalog = read(RULED)
    plain, own = (catalog.rules_of(catalog.find(name)) for name in ("plain", "own"))

    assert (plain.policy, own.policy) == ("weighted", "cheapest")
    assert (plain.on_refusal, own.on_refusal) == ("return", "next")
    assert (plain.degrade.stale, own.degrade.stale) == (False, True)
    assert plain.retries == RetryRule(backoff_s=1)
    assert own.retries == RetryRule(backoff_s=1, retries_max=0)
    assert plain.deadlines == own.deadlines == DeadlineRule(ttft_s=3)
    first, second = catalog.find("plain").targets
    assert (first.breaker, first.queue) == (BreakerRule(failures_in_a_row=2), QueueRule(running_count_max=8))
    assert second.breaker == BreakerRule(failures_in_a_row=2, open_s=5)
    assert second.queue == QueueRule(running_count_max=8, wait_s_max=1)


def test_what_targets_are_able_to() -> None:
    """What they declare, or everything; of parameters beyond OpenAI's what the upstream takes or the engine has."""
    catalog = read(RULED)
    anything, declared = (target.abilities for target in catalog.find("plain").targets)
    local, seeing = (catalog.find(name).targets[0].abilities for name in ("own", "seeing"))

    assert anything == {
        "tools", "vision", "audio", "files", "json_object", "json_schema", "logprobs", "top_k", "regex",
    }  # fmt: skip
    assert declared == {"tools", "top_k", "regex"}
    sampling = {"logprobs", "top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids"}
    assert local == sampling | {"tools", "json_object", "json_schema", "regex", "choice"}
    assert seeing == sampling | {"regex", "choice"}
    assert catalog.find("plain").abilities == {"tools"}


def test_settings_tell_engines_apart() -> None:
    """An engine is another where its upstream's settings are, whatever else the file says of the target."""
    first, other = read(RULED), read(RULED.replace("policy: weighted", "policy: ordered"))
    moved = read(RULED.replace("127.0.0.1:1", "127.0.0.1:2"))
    here, there, elsewhere = (one.find("plain").targets for one in (first, other, moved))

    assert {one.engine_key for one in (*here, *there)} == {here[0].engine_key}
    assert elsewhere[0].engine_key != here[0].engine_key
    assert elsewhere[0] != here[0] == there[0]
    assert first.find("own").targets[0].engine_key == moved.find("own").targets[0].engine_key


def test_targets_have_labels() -> None:
    """Receipts name a target as the file does, else by where it is and what it is called there."""
    catalog = read(MODELS)

    assert catalog.find("gpt-5-mini").targets[0].label == "the mini"
    assert catalog.find("gpt-4").targets[0].label == "here:*"
    assert catalog.find("alone").targets[0].label == "local:embedded"


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("version: 1", "version: 2", "version"),
        ("name: alone", "name: auto", "`auto` is the router's"),
        ("name: alone", "name: vectors", "models named twice: vectors"),
        ("engine: local, model: embedded", "engine: openai, model: x", "engine openai needs an upstream"),
        ("engine: local, model: embedded", "engine: local, upstream: here", "engine local takes no upstream"),
        ("engine: local, model: embedded", "engine: local, model: '*'", "engine local needs a model"),
        ("upstream: here, model: mini", "upstream: there, model: mini", "'there' is not under `upstreams`"),
        ("engine: local, model: embedded", "engine: vllm, model: x", "models[3].targets[0].engine"),
        ("ttl_s: 5", "ttl: 5", "models[3].cache.ttl"),
        ("ttl_s: 5", "ttl_s: 0", "models[3].cache.ttl_s"),
        ("cache: {ttl_s: 5}", "policy: random", "models[3].policy"),
        ("cache: {ttl_s: 5}", "retries: {retries_max: 11}", "models[3].retries.retries_max"),
        ("model: mini,", "model: mini, weight: -1,", "models[2].targets[0].weight"),
        ("model: mini,", "model: mini, capabilities: [magic],", "models[2].targets[0].capabilities"),
        ("model: mini,", "model: mini, queue: {running_count_max: 0},", "models[2].targets[0].queue.running_count_max"),
        ("{safety:", "{breaker: {open_s: 0}, safety:", "defaults.breaker.open_s"),
        ("defaults:", "auto: {simple: alone, complex: nobody}\ndefaults:", "auto: model 'nobody'"),
        ("defaults:", "auto: {simple: alone, complex: vectors}\ndefaults:", "auto: model 'vectors' does not chat"),
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000", "upstreams.here.base_url"),
        ('8000/v1"', '8000/v1", api_key_env: A, api_key_file: b', "give api_key_env or api_key_file, not both"),
    ],
)
def test_a_bad_file_stops_start_up(old: str, new: str, complaint: str) -> None:
    """The complaint names the place and what is wrong."""
    assert old in MODELS

    with pytest.raises(ConfigError) as caught:
        read(MODELS.replace(old, new, 1))

    assert complaint in caught.value.message


@pytest.mark.parametrize(
    ("own", "offered", "refused"),
    [
        ("default", ["default", "strict", ""], ["off", "moderation", "nonsense"]),
        ("strict", ["strict", ""], ["default", "off"]),
        ("off", ["off", "default", "strict"], ["moderation"]),
        ("ours", ["ours", "strict"], ["default", "off"]),
    ],
)
def test_a_caller_may_only_be_stricter(own: str, offered: list[str], refused: list[str]) -> None:
    """The rule's own profile or a stricter one; anything else is refused by name."""
    rule = SafetyRule(profile=own)
    assert [rule.chosen(asked) for asked in offered] == [asked or own for asked in offered]
    for asked in refused:
        with pytest.raises(InvalidArgument) as caught:
            rule.chosen(asked)
        assert caught.value.field_violations[0].field == "spec.safety.profile"
