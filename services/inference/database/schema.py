"""The schema's registry: packages declare their tables on `metadata`, migrations make them.

Tables are SQLAlchemy Core; there are no mapped classes and no sessions. Instants are whole milliseconds since the
epoch, so that both databases compare and group them alike.
"""

from __future__ import annotations

from sqlalchemy import MetaData

# Names are given, so that a migration can drop on both databases what another one made.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
