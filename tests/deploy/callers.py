"""Calls a suite from outside as its users do: `python -m tests.deploy.callers URL`; exits 0 if all was answered.

OpenAI's SDK asks for a whole answer, a stream and an embedding; whatever else runs behind the URL is not known here.
"""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request

from openai import OpenAI

READY_S = 300.0


def main(url: str) -> int:
    """Waits until the suite is ready, asks, and prints what came."""
    _until_ready(url)
    client = OpenAI(base_url=f"{url}/v1", api_key="none", timeout=60, max_retries=0)
    models = [model.id for model in client.models.list()]
    print("models:", ", ".join(models))
    asked = [{"role": "user", "content": "Which port does the edge listen on?"}]
    whole = client.chat.completions.create(model="auto", messages=asked)  # type: ignore[arg-type]
    print("whole:", whole.choices[0].message.content)
    stream = client.chat.completions.create(model="auto", messages=asked, stream=True)  # type: ignore[arg-type]
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    print("streamed:", streamed)
    vectors = client.embeddings.create(model="all-minilm-l6-v2", input="a text").data
    print("embedded:", len(vectors[0].embedding))
    return 0 if whole.choices[0].message.content and streamed and len(vectors[0].embedding) == 384 else 1


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5):
                return
        except (OSError, urllib.error.HTTPError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
