"""The ledger's tables, the same in SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Column, Float, ForeignKey, Integer, MetaData, String, Table, UniqueConstraint
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

FORMAT = 1
"""Of the tables; a study of a higher one was written by a later version of this package."""

metadata = MetaData()

studies = Table(
    "search_study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("format", Integer, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("space", JSON, nullable=False),
    Column("created_at", Float(53), nullable=False),
)

trials = Table(
    "search_trial",
    metadata,
    Column("study", ForeignKey("search_study.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("point", String, nullable=False),
    Column("spec", String, nullable=False),
    Column("state", String, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("owner", String, nullable=False),
    Column("claim", String, nullable=False),
    Column("lease_until", Float(53)),
    Column("measures", JSON(none_as_null=True)),
    Column("reason", String, nullable=False),
    Column("rungs", JSON, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("asked_at", Float(53), nullable=False),
    Column("started_at", Float(53)),
    Column("ended_at", Float(53)),
    UniqueConstraint("study", "point"),
)

late_outcomes = Table(
    "search_late_outcome",
    metadata,
    Column("study", ForeignKey("search_study.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("claim", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("state", String, nullable=False),
    Column("measures", JSON(none_as_null=True)),
    Column("reason", String, nullable=False),
    Column("received_at", Float(53), nullable=False),
)


class database_now(GenericFunction[float]):  # noqa: N801
    """Seconds since 1970 by the clock of the database: the only one that all workers share."""

    type = Float(53)
    inherit_cache = True


@compiles(database_now, "sqlite")
def _sqlite_now(element: database_now, compiler: Any, **options: Any) -> str:  # noqa: ANN401
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _postgresql_now(element: database_now, compiler: Any, **options: Any) -> str:  # noqa: ANN401
    return "(extract(epoch FROM clock_timestamp())::float8)"
