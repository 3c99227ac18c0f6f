"""What a caller may do: which methods by its role, which endpoints, models and safety profiles by its scopes.

Pure decisions. Where credentials are required, a method that is not listed is for administrators and services: what is
added later is closed until somebody opens it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from kit.errors import PermissionDenied
from kit.identity import Caller
from services.inference.request import Request
from services.inference.routing.router import AUTO, Route

_PACKAGE = "millrace.inference.v1"
_GENERATION = "generate"
# What each method is an endpoint of, as scopes name it.
_ENDPOINTS: dict[str, str] = {
    **dict.fromkeys(("Generate", "StreamGenerate", "BatchGenerate", "CountTokens", "ReportFalseHit"), _GENERATION),
    "Embed": "embed",
    "Moderate": "moderate",
    "ListModels": "models",
    "GetModel": "models",
}
_SERVICES: dict[str, str] = {
    "UsageService": "usage",
    "JobService": "jobs",
    "FileService": "jobs",
    "KeyService": "admin",
    "AccessService": "admin",
    "LiveService": "live",
}
_ADMIN = "admin"
_LIVE = "live"
_SELF = "self"
_UNLISTED = "unlisted"
_EVERYBODY = frozenset({"admin", "service", "user", "guest", "anonymous"})
_ROLES: dict[str, frozenset[str]] = {
    **dict.fromkeys((_GENERATION, "embed", "moderate", "models", _SELF), _EVERYBODY),
    **dict.fromkeys(("usage", "jobs"), _EVERYBODY - {"guest"}),
    _UNLISTED: frozenset({"admin", "service", "anonymous"}),
    _ADMIN: frozenset({"admin"}),
    _LIVE: frozenset({"admin", "anonymous"}),
}
# What a list of endpoints is about; an administrator's key that is limited to some of them still administers.
_SCOPED = frozenset(_ROLES) - {_ADMIN, _LIVE, _SELF}
# Without a credential these can be called even where one is required: they are the way to one.
PUBLIC = frozenset({f"{_PACKAGE}.AccessService/Login", f"{_PACKAGE}.AccessService/RefreshLogin"})


def endpoint_of(method: str) -> str:
    """Returns the endpoint of a method such as `millrace.inference.v1.InferenceService/Embed`."""
    full_name, _, name = method.partition("/")
    package, _, service = full_name.rpartition(".")
    if package != _PACKAGE:
        return _UNLISTED
    if service == "InferenceService":
        return _ENDPOINTS.get(name, _UNLISTED)
    if (service, name) in (("AccessService", "GetCaller"), ("UsageService", "ListLimits")):
        return _SELF
    return _SERVICES.get(service, _UNLISTED)


def check_method(caller: Caller, endpoint: str) -> None:
    """Checks that a role and its scopes reach an endpoint.

    An anonymous caller comes this far only where none has to say who it is: it may do everything but administer.

    Raises:
        PermissionDenied: ROLE_NOT_ALLOWED or ENDPOINT_NOT_ALLOWED.
    """
    role = caller.role
    if role not in _ROLES[endpoint]:
        raise PermissionDenied("ROLE_NOT_ALLOWED", f"role {role} may not do this; an administrator may")
    if caller.endpoints and endpoint not in caller.endpoints and endpoint in _SCOPED:
        raise _out_of_scope("ENDPOINT_NOT_ALLOWED", "endpoint", endpoint, caller.endpoints)


def check_model(caller: Caller, names: Iterable[str]) -> None:
    """Checks that a caller may use models; raises PermissionDenied (MODEL_NOT_ALLOWED)."""
    if caller.models:
        for name in names:
            if not may_use(caller, name):
                raise _out_of_scope("MODEL_NOT_ALLOWED", "model", name, caller.models)


def may_use(caller: Caller, model: str) -> bool:
    """Whether a model is in a caller's scope."""
    return not caller.models or any(_covers(scope, model) for scope in caller.models)


def check_named(request: Request) -> None:
    """Checks what a request names, before it is looked up: a scope does not tell which other models there are.

    Raises:
        PermissionDenied: MODEL_NOT_ALLOWED.
    """
    if request.caller.models:
        named = [] if request.model == AUTO else [request.model]
        check_model(request.caller, [*named, *request.fallbacks])


def check_route(request: Request, route: Route) -> None:
    """Checks what was chosen for a request, not only what it names: `auto` and fallbacks obey the scopes as well.

    Raises:
        PermissionDenied: MODEL_NOT_ALLOWED, PROFILE_NOT_ALLOWED or PRIORITY_NOT_ALLOWED.
    """
    caller = request.caller
    if caller.models:
        check_model(caller, (route.model_name, *(other.model_name for other in route.fallbacks)))
    if caller.safety_profiles:
        profile = route.rules.safety.chosen(request.safety_profile)
        if profile not in caller.safety_profiles:
            raise _out_of_scope("PROFILE_NOT_ALLOWED", "safety profile", profile, caller.safety_profiles)
    if request.priority > 0 and caller.role in ("user", "guest"):
        raise PermissionDenied("PRIORITY_NOT_ALLOWED", "only services and administrators may ask for priority above 0")


def _covers(scope: str, name: str) -> bool:
    return name.startswith(scope[:-1]) if scope.endswith("*") else name == scope


def _out_of_scope(reason: str, kind: str, name: str, scopes: Collection[str]) -> PermissionDenied:
    allowed = ", ".join(sorted(scopes)[:10])
    metadata = {"scope": kind, "name": name[:256]}
    return PermissionDenied(
        reason, f"{kind} {name[:256]!r} is not in your scope, which is: {allowed}", metadata=metadata
    )
