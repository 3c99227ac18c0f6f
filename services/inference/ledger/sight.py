"""Sight: whose rows of the ledger a caller may see."""

from __future__ import annotations

import msgspec

from kit.errors import PermissionDenied
from kit.identity import Caller
from services.inference.ledger.history import Scope


def visible(caller: Caller, asked: Scope) -> Scope:
    """What a caller gets of what it asks for: admins all, who shows no credential its tenant's, others their own.

    Raises:
        PermissionDenied: It names a tenant or a principal that is not its own (LEDGER_NOT_YOURS).
    """
    if caller.role == "admin":
        return asked
    own = {"tenant": caller.tenant}
    if caller.role != "anonymous":
        own["principal"] = caller.principal
    for name, value in own.items():
        if getattr(asked, name) not in (None, value):
            raise PermissionDenied("LEDGER_NOT_YOURS", f"only an administrator may see the usage of another {name}")
    return msgspec.structs.replace(asked, **own)
