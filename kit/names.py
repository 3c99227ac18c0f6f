"""Every name that telemetry uses: spans' attributes, metrics and their labels.

Semantic conventions come first (RPC and GenAI as of OpenTelemetry semantic conventions 1.4x); `millrace.` is for what
they do not know. One place, so that a dashboard and the code cannot drift apart. None of these ever holds content.
"""

from __future__ import annotations

from typing import Final

# RPC. https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
EXCEPTION_TYPE: Final = "exception.type"

# HTTP. https://opentelemetry.io/docs/specs/semconv/http/
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"

# Generative AI. https://opentelemetry.io/docs/specs/semconv/gen-ai/
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_REQUEST_TOP_P: Final = "gen_ai.request.top_p"
GEN_AI_REQUEST_SEED: Final = "gen_ai.request.seed"
GEN_AI_REQUEST_CHOICE_COUNT: Final = "gen_ai.request.choice.count"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"

# Ours.
REQUEST_ID: Final = "millrace.request_id"
TENANT: Final = "millrace.tenant"
ERROR_REASON: Final = "millrace.error.reason"
CANCELLED_BY: Final = "millrace.cancelled_by"
CACHE_OUTCOME: Final = "millrace.cache.outcome"
SAFETY_VERDICT: Final = "millrace.safety.verdict"
ROUTE: Final = "millrace.route"
ATTEMPT: Final = "millrace.attempt"

# Metrics, and their labels as Prometheus spells them.
RPC_SERVER_CALL_DURATION: Final = "rpc_server_call_duration_seconds"
RPC_CLIENT_CALL_DURATION: Final = "rpc_client_call_duration_seconds"
RPC_SERVER_ACTIVE_CALLS: Final = "rpc_server_active_calls"
LABEL_METHOD: Final = "rpc_method"
LABEL_STATUS_CODE: Final = "rpc_response_status_code"
LABEL_MODEL: Final = "model"
LOCAL_RUNNING: Final = "millrace_local_running_requests"
LOCAL_WAITING: Final = "millrace_local_waiting_requests"
LOCAL_KV_CACHE_USED: Final = "millrace_local_kv_cache_used_ratio"
LOCAL_PROMPT_TOKENS: Final = "millrace_local_prompt_tokens_total"
LOCAL_REUSED_TOKENS: Final = "millrace_local_prefix_reused_tokens_total"
LOCAL_COMPLETION_TOKENS: Final = "millrace_local_completion_tokens_total"
LOCAL_PREEMPTIONS: Final = "millrace_local_preemptions_total"
LOCAL_QUEUE_TIME: Final = "millrace_local_queue_time_seconds"
LOCAL_TTFT: Final = "millrace_local_time_to_first_token_seconds"
LOCAL_INTER_TOKEN: Final = "millrace_local_inter_token_latency_seconds"
LOCAL_PREFILL_STEP: Final = "millrace_local_prefill_step_seconds"
LOCAL_DECODE_STEP: Final = "millrace_local_decode_step_seconds"
CACHE_LOOKUPS: Final = "millrace_cache_lookups_total"
CACHE_SHARED_HITS: Final = "millrace_cache_shared_hits_total"
CACHE_REFRESHES: Final = "millrace_cache_refreshes_total"
CACHE_STORES: Final = "millrace_cache_stores_total"
CACHE_FALSE_HITS: Final = "millrace_cache_false_hits_total"
CACHE_EVICTIONS: Final = "millrace_cache_evictions_total"
CACHE_SAVED_TOKENS: Final = "millrace_cache_saved_tokens_total"
CACHE_SAVED_USD: Final = "millrace_cache_saved_usd_total"
CACHE_SAVED_SECONDS: Final = "millrace_cache_saved_seconds_total"
CACHE_LEASES: Final = "millrace_cache_leases"
CACHE_STORE_UP: Final = "millrace_cache_store_up"
CACHE_ENTRIES: Final = "millrace_cache_entries"
CACHE_BYTES: Final = "millrace_cache_bytes"
CACHE_SEMANTIC_ENTRIES: Final = "millrace_cache_semantic_entries"
CACHE_SEMANTIC_ERROR: Final = "millrace_cache_semantic_error_ratio"
CACHE_SEMANTIC_ALARMS: Final = "millrace_cache_semantic_drift_alarms_total"
LEDGER_WAITING_BYTES: Final = "millrace_ledger_waiting_bytes"
LEDGER_LAG: Final = "millrace_ledger_lag_seconds"
LABEL_OUTCOME: Final = "outcome"
LABEL_REASON: Final = "reason"
LABEL_TOKEN_KIND: Final = "kind"
# Of an estimate: `share`, or an end of its interval, `low` or `high`.
LABEL_END: Final = "end"
