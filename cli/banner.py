"""What a newcomer reads when the suite is ready: where things are, and two lines that work when pasted."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

PROMPT = "What is Millrace?"
# The router picks: works with every models file.
MODEL = "auto"

# Flush left on purpose: a shell ends a here-document only at a line that is exactly its word.
BANNER = """\

Millrace is ready ({elapsed_s:.1f} s). Ctrl-C drains and stops it.

  REST     {url}   (OpenAI-compatible: base URL {url}/v1; the API: {url}/docs)
  Page     {url}/   (chat, with the receipt and the trace of each answer)
  gRPC     {target}   (millrace.inference.v1.InferenceService; reflection is on)
  Logs     {log_dir}
  Chat     {millrace} chat
  Callers  {callers}

From a shell:

curl -N {url}/v1/chat/completions {header}-H 'Content-Type: application/json' -d '{body}'

From Python, through the generated stubs:

{python} - <<'PY'
{imports}import grpc
from millrace.inference.v1 import generation_pb2 as g, inference_service_pb2 as pb, inference_service_pb2_grpc as rpc

message = g.Message(role=g.ROLE_USER, parts=[g.ContentPart(text="{prompt}")])
spec = g.GenerationSpec(model="{model}", conversation=g.Conversation(messages=[message]))
with grpc.insecure_channel("{target}") as channel:
    stub = rpc.InferenceServiceStub(channel)
    for event in stub.StreamGenerate(pb.StreamGenerateRequest(spec=spec), timeout=30{metadata}):
        print(event.delta.text, end="", flush=True)
print()
PY
"""


OPEN = "anybody; MILLRACE_INFERENCE_ACCESS_MODE=required asks for keys (docs/access.md)"
REQUIRED = "need a key: the commands take it from MILLRACE_API_KEY (docs/access.md)"
FIRST_KEY = """
  Key      {key}
           An administrator's, made because there was none yet, and shown this once. It makes others:
           MILLRACE_API_KEY=... {millrace} keys create NAME"""


class Callers(NamedTuple):
    """Who may call: whether a key is needed, and the first one, where it was just made."""

    need_key: bool
    first_key: str


def banner(url: str, target: str, log_dir: Path, elapsed_s: float, callers: Callers) -> str:
    """Returns the text; url and target are where the edge and inference answer."""
    millrace = _shown(str(Path(sys.executable).with_name("millrace")))
    told = REQUIRED if callers.need_key else OPEN
    if callers.first_key:
        told += FIRST_KEY.format(key=callers.first_key, millrace=millrace)
    body = f'{{"model": "{MODEL}", "stream": true, "messages": [{{"role": "user", "content": "{PROMPT}"}}]}}'
    return BANNER.format(
        url=url,
        target=target,
        model=MODEL,
        log_dir=log_dir,
        elapsed_s=elapsed_s,
        body=body,
        prompt=PROMPT,
        python=_shown(sys.executable),
        millrace=millrace,
        callers=told,
        header='-H "Authorization: Bearer $MILLRACE_API_KEY" ' if callers.need_key else "",
        imports="import os\n" if callers.need_key else "",
        metadata=", metadata=[('x-api-key', os.environ['MILLRACE_API_KEY'])]" if callers.need_key else "",
    )


def _shown(path: str) -> str:
    """Shortens a path to what works from here."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)
