"""What a newcomer reads when the suite is ready: where things are, and two lines that work when pasted."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROMPT = "What is Millrace?"
# The router picks: works with every models file.
MODEL = "auto"

# Flush left on purpose: a shell ends a here-document only at a line that is exactly its word.
BANNER = """\

Millrace is ready ({elapsed_s:.1f} s). Ctrl-C drains and stops it.

  REST     {url}   (OpenAI-compatible: base URL {url}/v1; pages at {url}/docs)
  gRPC     {target}   (millrace.inference.v1.InferenceService; reflection is on)
  Logs     {log_dir}
  Chat     {millrace} chat

From a shell:

curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'

From Python, through the generated stubs:

{python} - <<'PY'
import grpc
from millrace.inference.v1 import generation_pb2 as g, inference_service_pb2 as pb, inference_service_pb2_grpc as rpc

message = g.Message(role=g.ROLE_USER, parts=[g.ContentPart(text="{prompt}")])
spec = g.GenerationSpec(model="{model}", conversation=g.Conversation(messages=[message]))
with grpc.insecure_channel("{target}") as channel:
    for event in rpc.InferenceServiceStub(channel).StreamGenerate(pb.StreamGenerateRequest(spec=spec), timeout=30):
        print(event.delta.text, end="", flush=True)
print()
PY
"""


def banner(url: str, target: str, log_dir: Path, elapsed_s: float) -> str:
    """Returns the text; url and target are where the edge and inference answer."""
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
        millrace=_shown(str(Path(sys.executable).with_name("millrace"))),
    )


def _shown(path: str) -> str:
    """Shortens a path to what works from here."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)
