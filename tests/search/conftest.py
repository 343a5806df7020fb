"""A few lines in place of each training, and a PostgreSQL server of one's own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from effnet.search import study as study_module
from effnet.search.worker import Assignment

from .studies import process

_SERVER_USERS = ("postgres", "nobody")
"""PostgreSQL refuses to run as root."""


class PostgreSQL:
    """A server of the distribution's that listens in a folder of its own, and can be stopped and started."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs, self._folder, self._user = programs, folder, user
        self._run("initdb", "--auth=trust", "--username=effnet", "--no-sync", "--locale=C", "--encoding=UTF8")
        self.start()

    def start(self) -> None:
        # Nothing here must outlive a loss of power, so nothing is flushed.
        options = f"-F -c listen_addresses= -c unix_socket_directories={self._folder} -c shared_buffers=4MB"
        log = str(self._folder / "log")
        self._run("pg_ctl", "start", "--wait", "--silent", f"--options={options}", f"--log={log}")

    def stop(self) -> None:
        """As if it had crashed: connections are cut, and what is not committed is lost."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate")

    def new_database(self) -> str:
        """Return the URL of a database that is empty."""
        name = f"study{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return self.url(name)

    def url(self, database: str) -> str:
        return f"postgresql://effnet@/{database}?host={self._folder}"

    def execute(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            f"host={self._folder} user=effnet dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    def _run(self, program: str, *arguments: str) -> None:
        account = (
            {}
            if self._user is None
            else {"user": self._user, "group": _group(self._user), "extra_groups": []}
        )
        # The server would hold a pipe open for as long as it runs.
        said = self._folder / f"{program}.out"
        with said.open("w") as file:
            done = subprocess.run(
                [str(self._programs / program), "--pgdata", str(self._folder / "data"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                check=False,
                **account,
            )
        if done.returncode:
            raise RuntimeError(said.read_text())


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid


@pytest.fixture(scope="session")
def postgresql():
    """A server for all tests; skips where PostgreSQL is not installed."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (extra postgresql)")
    programs = _programs()
    if programs is None:
        pytest.skip(
            "PostgreSQL's server is not installed (initdb and pg_ctl; on Debian: apt install postgresql)"
        )
    user = None
    if os.geteuid() == 0:
        accounts = {account.pw_name for account in pwd.getpwall()}
        user = next((name for name in _SERVER_USERS if name in accounts), None)
        if user is None:
            pytest.skip("PostgreSQL does not run as root, and there is no account postgres or nobody")
    # pytest's own folders are closed to other accounts, and their names too long for a socket.
    folder = Path(tempfile.mkdtemp(prefix="effnet-postgresql-"))
    if user is not None:
        os.chown(folder, pwd.getpwnam(user).pw_uid, _group(user))
        folder.chmod(0o755)
    try:
        server = PostgreSQL(programs, folder, user)
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """Return the newest server's programs: Debian keeps them off the path."""
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    return next((folder for folder in [*found, *reversed(debian)] if (folder / "pg_ctl").is_file()), None)


@pytest.fixture
def train_by(monkeypatch):
    """Let every trial run a script."""

    def use(script):
        def with_command(**values):
            return Assignment(**values, command=process(script))

        monkeypatch.setattr(study_module, "Assignment", with_command)

    return use


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    return request.getfixturevalue("postgresql").new_database()
