"""The figures of local models."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

from services.inference.engines.local.batch import Batch
from services.inference.engines.local.extents import EXTENT_TOKENS_MIN
from services.inference.engines.local.metrics import LocalMetrics
from services.inference.engines.local.model import load
from tests.fakes.tiny_gpt2 import END_ID, write_tiny
from tests.inference.local_batch import Bench, random_prompts


def test_figures_tell_what_was_done(tmp_path: Path) -> None:
    """Every token, place, wait and preemption is counted once, under the model's name."""
    torch.set_num_threads(1)
    registry = CollectorRegistry()
    model = load(str(write_tiny(tmp_path, "gpt2")))
    bench = Bench(model, cache_tokens=12 * EXTENT_TOKENS_MIN, growth_tokens=0)
    bench.batch = Batch(model, bench.scheduler, bench.batch._runner, LocalMetrics(registry))
    prompts = random_prompts(20, random.Random(1), END_ID)
    for prompt in prompts:
        bench.add(prompt, max_tokens=12, logit_bias={END_ID: -100.0})

    def value(name: str) -> float:
        found = registry.get_sample_value(f"millrace_local_{name}", {"model": model.name})
        assert found is not None
        return found

    for _ in range(4):
        bench.step()
    assert value("running_requests") == len(bench.scheduler.running) > 0
    assert value("waiting_requests") == len(bench.scheduler.waiting) > 0
    assert 0 < value("kv_cache_used_ratio") <= 1
    bench.finish()

    assert value("prompt_tokens_total") == sum(map(len, prompts))
    assert value("completion_tokens_total") == 12 * 20
    assert value("prefix_reused_tokens_total") == sum(job.cached_count for job in bench.jobs) > 0
    assert value("draft_tokens_total") >= value("accepted_draft_tokens_total") > 0
    assert value("preemptions_total") == bench.scheduler.preemption_count > 0
    assert value("queue_time_seconds_count") == value("time_to_first_token_seconds_count") == 20
    assert value("inter_token_latency_seconds_count") == 11 * 20
    assert value("prefill_step_seconds_count") > 0
    assert value("decode_step_seconds_count") > 0
    assert value("running_requests") == value("waiting_requests") == value("kv_cache_used_ratio") == 0
