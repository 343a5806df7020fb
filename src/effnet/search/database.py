"""A database that many workers write to: what differs between SQLite and PostgreSQL, and what goes wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)

from effnet.errors import UnreachableError, UserError
from effnet.search.network_disk import is_on_network
from effnet.search.schema import metadata, studies

_WAIT_SECONDS = 60
"""How long to wait for other writers: longer than any strategy takes to propose."""
_POSTGRESQL_DRIVER = "postgresql+psycopg"
_LOCK = 0x65_66_66_6E_65_74
"""Names the one lock of all writers in PostgreSQL: ``effnet`` in ASCII."""
_LOCK_IN_POSTGRESQL = (
    # A machine that loses its power while it holds the lock must not stop the others for the hours of TCP.
    f"SET LOCAL idle_in_transaction_session_timeout = '{_WAIT_SECONDS}s'",
    f"SET LOCAL lock_timeout = '{2 * _WAIT_SECONDS}s'",
    f"SELECT pg_advisory_xact_lock({_LOCK})",
)
_POSTGRESQL_CONNECTION = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_SQLITE_SETTINGS = ("PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON")
_STUDY_KEY = "study"
_INSUFFICIENT_PRIVILEGE = "42501"
_PASSING = ("database system is", "too many", "slots", "terminating connection")
"""How a server says that it starts, stops or is full, which will pass."""


class Database:
    """Transactions, one writer at a time, and errors in one line.

    Args:
        url: Such as ``sqlite:///studies/flowers.db`` or ``postgresql://user@host/database``; both may end in
            ``?study=NAME``, where several studies share a database.

    Raises:
        UserError: The URL is none, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        parsed, self.study = _parsed(url)
        self.shown = without_secrets(driver_url(url))
        self._is_sqlite = parsed.get_backend_name() == "sqlite"
        is_file = self._is_sqlite and parsed.database and not parsed.database.startswith("file:")
        self._path = Path(str(parsed.database)) if is_file else None
        try:
            self._engine = _engine(parsed)
        except ModuleNotFoundError as error:
            raise UserError(
                f"the study {self.shown} needs {error.name}; install effnet's extra 'postgresql'"
            ) from None

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a transaction that sees one state of the database and keeps nobody from writing.

        Raises:
            UnreachableError: The database cannot be reached at the moment.
            UserError: It is damaged, or may not be read.
        """
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a transaction that nobody else writes beside; all of it comes to pass, or nothing.

        Raises:
            UnreachableError: The database cannot be reached or written at the moment; whether the transaction
                came to pass is unknown.
            UserError: It is damaged, or may not be written.
        """
        with self._explained(), self._engine.connect() as connection:
            connection.execution_options(effnet_writes=True)
            with connection.begin():
                if not self._is_sqlite:
                    for statement in _LOCK_IN_POSTGRESQL:
                        connection.exec_driver_sql(statement)
                yield connection

    def create_tables(self) -> None:
        """Make the tables that are missing. Any number of processes may do so at once.

        Raises:
            UnreachableError, UserError: As `writing`; a file of SQLite is damaged.
        """
        with self.writing() as connection:
            self._check_whole(connection)
            metadata.create_all(connection)

    def has_tables(self) -> bool:
        """Whether there is a study of any name.

        Raises:
            UnreachableError, UserError: As `reading`.
        """
        # To connect would make a file.
        if self._path is not None and not self._path.exists():
            return False
        with self.reading() as connection:
            self._check_whole(connection)
            return inspect(connection).has_table(studies.name)

    def _check_whole(self, connection: Connection) -> None:
        if self._is_sqlite:
            problem = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
            if problem != "ok":
                raise UserError(self._damaged(str(problem).splitlines()[-1]))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.Error):
                raise self._of_sqlite(error.orig) from error
            if isinstance(error, OperationalError | InterfaceError | InternalError):
                raise self._of_postgresql(error) from error
            if getattr(error.orig, "sqlstate", None) == _INSUFFICIENT_PRIVILEGE:
                raise UserError(f"the study {self.shown} may not be written: {_line(error)}") from error
            raise

    def _of_sqlite(self, error: sqlite3.Error) -> Exception:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return UserError(self._damaged(str(error)))
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                return UserError(
                    f"the study {self.shown} is read-only; make the file and its folder writable"
                )
            case sqlite3.SQLITE_CANTOPEN:
                return UserError(
                    f"the study {self.shown} cannot be opened; its folder must exist and be writable"
                )
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_IOERR | sqlite3.SQLITE_FULL:
                return UnreachableError(f"the study {self.shown} cannot be written at the moment: {error}")
            case _:
                return error

    def _of_postgresql(self, error: DBAPIError) -> Exception:
        line = _line(error)
        # Only a server that was reached is so definite.
        if "FATAL" in line and not any(words in line for words in _PASSING):
            return UserError(f"the study {self.shown} cannot be opened: {line}")
        return UnreachableError(f"the study {self.shown} cannot be reached: {line}")

    def _damaged(self, problem: str) -> str:
        return (
            f"the study {self.shown} is damaged or not a study ({problem}); put back a copy of the file, or "
            "give another --study"
        )


def _parsed(url: str) -> tuple[URL, str]:
    scheme, separator, _ = url.partition("://")
    if scheme.partition("+")[0] not in {"sqlite", "postgresql", "postgres"} or not separator:
        raise UserError(f"a study's URL begins with sqlite:/// or postgresql://, got {scheme}{separator}")
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://"))
    except (ArgumentError, ValueError) as error:
        raise UserError(f"a study's URL cannot be read: {error}") from None
    study = parsed.query.get(_STUDY_KEY, "study")
    parsed = parsed.difference_update_query([_STUDY_KEY])
    if parsed.get_backend_name() == "sqlite":
        if not parsed.database or ":memory:" in parsed.database:
            raise UserError(f"a study's URL names a file, such as sqlite:///study.db, got {url!r}")
        return parsed, str(study)
    return parsed.set(drivername=_POSTGRESQL_DRIVER), str(study)


def driver_url(url: str) -> str:
    """Return the URL that SQLAlchemy takes, with our driver and without the name of a study.

    Raises:
        UserError: The URL is of neither SQLite nor PostgreSQL.
    """
    return _parsed(url)[0].render_as_string(hide_password=False)


def without_secrets(text: str) -> str:
    """Return a URL for messages."""
    url = make_url(text)
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.render_as_string(hide_password=True).replace(_POSTGRESQL_DRIVER, "postgresql")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _WAIT_SECONDS})
        # The log is shared memory, which machines have not in common; the older journal needs locks alone.
        path = Path(str(url.database).removeprefix("file:"))
        journal = "DELETE" if is_on_network(path) else "WAL"
        event.listen(engine, "connect", partial(_set_up_sqlite, journal))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    url = url.set(query={**_POSTGRESQL_CONNECTION, **url.query})
    # Poolers between us and the server know nothing of statements that were prepared.
    return create_engine(url, pool_pre_ping=True, connect_args={"prepare_threshold": None})


def _set_up_sqlite(journal: str, connection: sqlite3.Connection, _record: object) -> None:
    # Python's own idea of when a transaction begins is too late for BEGIN IMMEDIATE.
    connection.isolation_level = None
    for setting in (f"PRAGMA journal_mode = {journal}", *_SQLITE_SETTINGS):
        connection.execute(setting)


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later could fail in between, because others wrote.
    writes = connection.get_execution_options().get("effnet_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _line(error: DBAPIError) -> str:
    """Return the line of a driver's message that says most."""
    lines = [line.strip() for line in str(error.orig).splitlines() if line.strip()]
    return next((line for line in lines if "FATAL" in line), lines[0] if lines else type(error.orig).__name__)
