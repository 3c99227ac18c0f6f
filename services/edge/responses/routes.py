"""The routes of responses."""

from __future__ import annotations

from services.edge.jobs.files import Deleted
from services.edge.responses.answer import Response
from services.edge.responses.endpoints import InputList, InputQuery, InputTokens, ResponseEndpoints, ResponseQuery
from services.edge.responses.request import REFUSED, ResponseRequest
from services.edge.routes import Route


def response_routes(ends: ResponseEndpoints) -> list[Route]:
    """Responses."""
    one = "/v1/responses/{response_id}"
    return [
        Route("POST", "/v1/responses", ends.create, "Answer a list of items.", "OpenAI",
              body=ResponseRequest, answer=Response, events=(Response,), refused=REFUSED),
        Route("POST", "/v1/responses/input_tokens", ends.count_input, "Count the tokens of what would be answered.",
              "OpenAI", body=ResponseRequest, answer=InputTokens, refused=REFUSED),
        Route("GET", one, ends.get, "A response that is kept.", "OpenAI",
              answer=Response, events=(Response,), query=ResponseQuery),
        Route("DELETE", one, ends.delete, "Forget a response.", "OpenAI", answer=Deleted),
        Route("POST", f"{one}/cancel", ends.cancel, "Cancel a response.", "OpenAI", answer=Response),
        Route("GET", f"{one}/input_items", ends.list_input, "What a response was asked.", "OpenAI",
              answer=InputList, query=InputQuery),
    ]  # fmt: skip
