"""`millrace models`: the catalogue, as the edge shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from cli import proxies
from cli.answers import AnswerError, error_message, headers_of


def print_models(url: str, api_key: str = "") -> int:
    """Prints the models that `GET /v1/models` lists, one to a line."""
    try:
        response = httpx.get(
            f"{url.rstrip('/')}/v1/models", headers=headers_of(api_key), timeout=10.0, trust_env=proxies.are_for(url)
        )
    except httpx.HTTPError as error:
        raise AnswerError(f"Nothing answers at {url}: is `millrace up` running?") from error
    if response.status_code != httpx.codes.OK:
        raise AnswerError(error_message(response.content, response.status_code))
    models = response.json()["data"]
    width = max((len(model["id"]) for model in models), default=0)
    for model in models:
        print(f"{model['id']:<{width}}  {model.get('owned_by', '')}{_state(model)}")
    return 0


def _state(model: Mapping[str, Any]) -> str:
    """How a model is that does not answer yet, and how far it is."""
    state = model.get("state", "ready")
    if state == "ready":
        return ""
    share = model.get("loaded_share")
    return f" ({state})" if share is None else f" ({state}, {share:.0%})"
