"""Each process has its own server, copied from one that is made once; and every folder is removed."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from tenant_schemas.testing.plugin import Database, copy_of
from tenant_schemas.testing.servers import made_once, own_template, running_embedded, shared_template

EMAIL = "INSERT INTO shared.users (email, name) VALUES ('one@example.com', '')"


class Making:
    """Counts what is made and removed."""

    def __init__(self, fails: bool = False) -> None:
        self.made = self.removed = 0
        self.fails = fails

    def make(self) -> str:
        self.made += 1
        if self.fails:
            raise RuntimeError("no room")
        return f"thing {self.made}"

    def remove(self, thing: str) -> None:
        assert thing == f"thing {self.made}"
        self.removed += 1


def test_the_first_makes_it_all_use_it_and_the_last_one_out_removes_it(tmp_path: Path) -> None:
    making = Making()
    with ExitStack() as first, ExitStack() as second:
        assert first.enter_context(made_once(tmp_path, making.make, making.remove)) == "thing 1"
        assert second.enter_context(made_once(tmp_path, making.make, making.remove)) == "thing 1"
        first.close()
        assert (making.made, making.removed) == (1, 0)
        second.close()
        assert (making.made, making.removed) == (1, 1)


def test_after_it_was_removed_it_is_made_anew(tmp_path: Path) -> None:
    making = Making()
    for number in (1, 2):
        with made_once(tmp_path, making.make, making.remove) as thing:
            assert thing == f"thing {number}"
    assert (making.made, making.removed) == (2, 2)


def test_what_could_not_be_made_is_made_by_the_next(tmp_path: Path) -> None:
    failing, making = Making(fails=True), Making()
    with pytest.raises(RuntimeError, match="no room"), made_once(tmp_path, failing.make, failing.remove):
        pass
    with made_once(tmp_path, making.make, making.remove) as thing:
        assert thing == "thing 1"
    assert (failing.removed, making.removed) == (0, 1)


@contextmanager
def shared_folder(folder: Path) -> Iterator[Path]:
    """The folder of a run, in which nothing but locks is left."""
    yield folder
    assert {path.name for path in folder.iterdir()} == {"share.lock", "decision.lock"}


def registered(database: Database) -> list[str]:
    with psycopg.connect(database.url()) as superuser:
        return [slug for (slug,) in superuser.execute("SELECT slug FROM shared.tenants ORDER BY slug")]


def test_processes_have_servers_of_their_own_with_the_same_template(
    template_maker: Callable[[str], Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same passwords open them, and what happens on one does not happen on the other."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "folders"))
    (tmp_path / "folders").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    made: list[str] = []

    def make(server_url: str) -> Database:
        made.append(server_url)
        return template_maker(server_url)

    with (
        shared_folder(tmp_path / "run") as run,
        own_template(running_embedded, make, run) as one,
        own_template(running_embedded, make, run) as other,
        copy_of(one) as mine,
        copy_of(other) as theirs,
    ):
        assert len(made) == 1
        assert len({one.server_url, other.server_url, *made}) == 3
        assert one.passwords == other.passwords
        assert one.name == other.name
        assert registered(mine) == registered(theirs) == ["eur", "km"]
        mine.as_superuser().execute("ALTER ROLE tenant_km NOLOGIN")
        mine.as_tenant("eur").execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
            mine.as_tenant("km")
        theirs.as_tenant("km").execute("SELECT 1")
    assert list((tmp_path / "folders").iterdir()) == []


def test_processes_on_one_server_share_its_template_and_the_last_one_out_drops_all(
    template_maker: Callable[[str], Database], tmp_path: Path
) -> None:
    (tmp_path / "server").mkdir()
    with running_embedded(tmp_path / "server") as server_url, ExitStack() as first, ExitStack() as second:
        run = tmp_path / "run"
        one = first.enter_context(shared_template(server_url, template_maker, run))
        other = second.enter_context(shared_template(server_url, template_maker, run))
        assert one == other
        with copy_of(one) as mine, copy_of(other) as theirs:
            mine.as_superuser().execute(EMAIL)
            assert theirs.as_superuser().execute("SELECT FROM shared.users").fetchall() == []
            first.close()
            assert registered(theirs) == ["eur", "km"]
        second.close()
        with psycopg.connect(server_url) as superuser:
            databases = superuser.execute("SELECT datname FROM pg_database WHERE NOT datistemplate").fetchall()
            roles = superuser.execute("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_'").fetchall()
        assert databases == roles == [("postgres",)]
