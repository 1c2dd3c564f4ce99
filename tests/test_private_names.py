"""Private and undocumented names of other libraries that our code uses. A library may remove such a name, or change its
parameters, in any release. This test then fails and gives the library, the name and our modules that use it.

The test finds a new use if our code reads or imports a private name that none of our files defines, or if one of our
classes overrides a private name of a library's class. It does not find a name that only a string contains, nor a read
of a name that our files also define.
"""

import ast
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask

from app.config import ROOT

OURS = ("app", "migrations", "scripts", "tenant_schemas")
# Documented methods of named tuples and of SQLAlchemy's rows. The underscore keeps them apart from column names.
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace"}
# Exists for type checkers only.
STUBS = {"_typeshed.wsgi"}


@dataclass(frozen=True, slots=True)
class PrivateName:
    """`owner` is a library's "module" or "module:object". `name` includes the parameters if our code calls or overrides
    it. `used_by` lists our modules. `instance_of` makes an instance of `owner` where only an instance has the name.
    """

    owner: str
    name: str
    used_by: str
    why: str
    instance_of: Callable[[Any], Any] | None = None

    def __str__(self) -> str:
        return f"{self.owner}.{self.word}"

    @property
    def word(self) -> str:
        return self.name.partition("(")[0]


def context(_: Any) -> Any:
    """A request context of Flask."""
    return Flask("name").test_request_context()


PATH = "tenant_schemas.search_path"
SESSION = "tenant_schemas.bound_session"
DRIVER = "tenant_schemas.driver"
STATEMENTS = "tenant_schemas.prepared_statements"
POOL = "tenant_schemas.pool"
ANSWERS = "app.api.answers"
APPLICATION = "app.api.application"
BLUEPRINT = "app.api.blueprint"
WORKER = "app.gunicorn_worker"
OPENAPI = "app.api.openapi"
FIELDS = (
    "app.api.fields app.api.pagination app.auth.schemas app.ledger.bulk.schemas app.tenant_settings app.tenants.schemas"
)
ENGINE = "pool, dialect, url, logging_name, echo, query_cache_size, execution_options, hide_parameters"
CONNECTION = "engine, connection, _has_events, _allow_revalidate, _allow_autobegin"

TABLE = (
    PrivateName("psycopg._queries", "PostgresQuery", f"{DRIVER} {STATEMENTS}", "turns a query into PostgreSQL's form"),
    PrivateName("psycopg._queries:PostgresQuery", "convert(query, vars)", STATEMENTS, "called once for each text"),
    PrivateName("psycopg._queries:PostgresQuery", "dump(vars)", STATEMENTS, "called for the parameters of each call"),
    PrivateName(
        "psycopg:Cursor",
        "_check_results(results)",
        "tenant_schemas.roles",
        "raises the first error of a message's results",
    ),
    PrivateName(
        "psycopg:Cursor",
        "_execute_send(query, *, force_extended, binary)",
        DRIVER,
        "overridden to refuse two statements",
    ),
    PrivateName("psycopg:Column", "__init__(cursor, index)", DRIVER, "called when a column is read"),
    PrivateName("psycopg:Connection", "_start_query()", DRIVER, "overridden to send a deferred BEGIN first"),
    PrivateName("psycopg:Connection", "_deallocate(name)", DRIVER, "extended to forget our prepared statements too"),
    PrivateName(
        "psycopg:Connection", "__init__(pgconn, row_factory)", DRIVER, "extended; only `connect` is documented"
    ),
    PrivateName("psycopg.generators", "execute", f"{DRIVER} {STATEMENTS}", "waits for the results of what was sent"),
    PrivateName("psycopg.generators", "fetch_many", STATEMENTS, "waits for the results of a statement in a pipeline"),
    PrivateName("psycopg.errors", "error_from_result", f"{DRIVER} {STATEMENTS}", "makes the error of a failed result"),
    PrivateName("psycopg.adapt:Transformer", "set_pgresult", STATEMENTS, "called before rows are loaded"),
    PrivateName("psycopg.adapt:Transformer", "load_rows", STATEMENTS, "called to load them"),
    PrivateName("sqlalchemy:Pool", "_do_get()", POOL, "overridden to take from the store of all pools"),
    PrivateName("sqlalchemy:Pool", "_do_return_conn(record)", POOL, "overridden to give back to that store"),
    PrivateName("sqlalchemy.pool.base:_ConnectionRecord", "get_connection()", POOL, "called where no proxy is made"),
    PrivateName("sqlalchemy:Pool", "_create_connection()", POOL, "called to open what the store has room for"),
    PrivateName("sqlalchemy:Engine", "_option_cls", PATH, "set so that `execution_options` keeps to our engine"),
    PrivateName("sqlalchemy.engine.base", "OptionEngineMixin", PATH, "base of the engine that `_option_cls` names"),
    PrivateName(
        "sqlalchemy:Engine", "_compiled_cache", PATH, "shared by all tenants", lambda _: sa.create_engine("sqlite://")
    ),
    PrivateName("sqlalchemy:Engine", f"__init__({ENGINE})", PATH, "called; only `create_engine` is documented"),
    PrivateName(
        "sqlalchemy.orm:Session",
        "_execute_internal(statement, params, *, execution_options, bind_arguments, _parent_execute_state, _add_event,"
        " _scalar_result)",
        SESSION,
        "extended: every statement passes it",
    ),
    PrivateName(
        "sqlalchemy.orm:Session",
        "_identity_lookup(mapper, primary_key_identity, identity_token, passive, lazy_loaded_from, execution_options,"
        " bind_arguments)",
        SESSION,
        "extended: every look-up without SQL passes it",
    ),
    PrivateName(
        "sqlalchemy.orm:Session",
        "_merge(state, state_dict, *, options, load, _recursive, _resolve_conflict_map)",
        SESSION,
        "extended: also objects to which a merge cascades pass it",
    ),
    PrivateName("sqlalchemy.orm:Session", "_flush(objects)", SESSION, "extended: every flush with changes passes it"),
    PrivateName(
        "sqlalchemy.orm:Session",
        "_bulk_save_mappings(mapper, mappings, *, isupdate, isstates, return_defaults, update_changed_only,"
        " render_nulls)",
        SESSION,
        "extended: `bulk_save_objects` passes it",
    ),
    PrivateName("sqlalchemy.orm:Session", "_dirty_states", SESSION, "read: the changed objects"),
    PrivateName("sqlalchemy.orm:Session", "_new", SESSION, "read: the added objects", lambda session: session()),
    PrivateName("sqlalchemy.orm:Session", "_deleted", SESSION, "read: the deleted", lambda session: session()),
    PrivateName(
        "sqlalchemy.orm.context:QueryContext.default_load_options",
        "_identity_token",
        SESSION,
        "set and read: the token of a load",
    ),
    PrivateName(
        "sqlalchemy.orm.context:QueryContext.default_load_options",
        "_lazy_loaded_from",
        SESSION,
        "read: whose attribute is loaded",
    ),
    PrivateName("sqlalchemy:ChunkedIteratorResult", "_yield_per", SESSION, "read: whether a result is streamed"),
    PrivateName("sqlalchemy:Connection", f"__init__({CONNECTION})", PATH, "called; only `connect()` is documented"),
    *(
        PrivateName(
            "gunicorn.workers.gthread:ThreadWorker", name, WORKER, "overridden so that no thread receives slowly"
        )
        for name in (
            *(
                "accept(listener)",
                "on_client_socket_readable(conn, client)",
                "on_pending_socket_readable(conn, client)",
            ),
            *("handle(conn)", "_cap_keepalive(deadline)", "_keepalive_after(conn, keepalive)"),
            *("finish_request(conn, fs)", "murder_pending()"),
        )
    ),
    PrivateName("gunicorn.workers.gthread:ThreadWorker", "enqueue_req(conn)", WORKER, "called"),
    PrivateName("gunicorn.workers.gthread:TConn", "init()", WORKER, "overridden to give reads a deadline"),
    PrivateName(
        "gunicorn.http.unreader:SocketUnreader", "chunk(size_hint)", WORKER, "overridden to give reads a deadline"
    ),
    PrivateName("gunicorn.http.unreader:SocketUnreader", "unread(data)", WORKER, "called"),
    PrivateName(
        "flask.json.provider:JSONProvider", "_prepare_response_obj(args, kwargs)", "app.api.flask_overrides", "called"
    ),
    PrivateName(
        "flask_sqlalchemy:SQLAlchemy",
        "_make_engine(bind_key, options, app)",
        "tenant_schemas.flask",
        "overridden to return the engine of the shared side",
    ),
    PrivateName("flask_smorest:Api", "_register_error_handlers()", OPENAPI, "overridden to do nothing"),
    PrivateName("flask_smorest:Api", "_register_pagination_header()", OPENAPI, "overridden to do nothing"),
    PrivateName("flask_smorest:Api", "_register_responses()", OPENAPI, "overridden to describe errors as problems"),
    PrivateName("flask_smorest:Api", "DEFAULT_RESPONSE_CONTENT_TYPE", OPENAPI, "set while `_register_responses` runs"),
    PrivateName(
        "flask_smorest:Blueprint",
        "_prepare_doc_cbks",
        BLUEPRINT,
        "extended to describe headers and refusals",
        lambda blueprint: blueprint("name", "name"),
    ),
    PrivateName(
        "flask_smorest:Blueprint",
        "_apidoc",
        "app.api.blueprint app.api.headers app.api.refusals app.auth.access",
        "where a view keeps its description",
        lambda blueprint: blueprint("name", "name").response(204)(lambda: None),
    ),
    PrivateName(
        "marshmallow.fields:Field",
        "_deserialize(value, attr, data, **kwargs)",
        f"{FIELDS} app.api.loader app.api.money_fields app.api.text_fields app.events.schemas app.users.schemas",
        "overridden to read strictly, and called for valid data",
    ),
    PrivateName(
        "marshmallow.fields:Field",
        "_serialize(value, attr, obj, **kwargs)",
        "app.api.dumper app.api.fields app.api.money_fields app.audit.schemas",
        "overridden to write moments, amounts and states, and called for unusual values",
    ),
    PrivateName("marshmallow:Schema", "_hooks", "app.api.dumper app.api.loader", "read: what runs beside the fields"),
    PrivateName(
        "marshmallow.fields:Field", "_CHECK_ATTRIBUTE", "app.api.dumper", "read: whether a field reads one attribute"
    ),
    PrivateName("werkzeug.datastructures:Headers", "_list", ANSWERS, "set to right headers", lambda headers: headers()),
    PrivateName("werkzeug.wrappers:Response", "_status", ANSWERS, "set", lambda response: response()),
    PrivateName("werkzeug.wrappers:Response", "_status_code", ANSWERS, "set", lambda response: response()),
    PrivateName("werkzeug.wrappers:Response", "_on_close", ANSWERS, "set and read", lambda response: response()),
    PrivateName(
        "werkzeug.local:LocalProxy",
        "_get_current_object",
        APPLICATION,
        "called to look the object up once",
        lambda proxy: proxy(lambda: 1),
    ),
    PrivateName("flask.ctx:RequestContext", "_after_request_functions", APPLICATION, "read: hooks of one", context),
    PrivateName("flask.globals", "_cv_app", "app.current", "read: the current application and `g`"),
    PrivateName("flask.globals", "_cv_request", "app.current", "read: the current request"),
    PrivateName("flask.ctx", "_AppCtxGlobals", APPLICATION, "base of the class of `g`"),
    PrivateName("flask.ctx:RequestContext", "_session", APPLICATION, "read: whether there is none", context),
    PrivateName(
        "alembic.ddl.impl:DefaultImpl", "command_terminator", "tenant_schemas.migrations.render", "set for rendered SQL"
    ),
    PrivateName(
        "babel:Locale",
        "frac_prec",
        "app.statements.pdf",
        "set on a copy, to the number of digits of the currency",
        lambda locale: locale("en").currency_formats["standard"],
    ),
)


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_the_library_still_has_the_name(row: PrivateName) -> None:
    lost = f"{row.owner}.{row.name} is gone or has other parameters. Used by {row.used_by}: {row.why}"
    try:
        owner = resolve_name(row.owner)
        found = getattr(row.instance_of(owner) if row.instance_of else owner, row.word)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{lost}: {error}")
    assert "(" not in row.name or row.word + parameters(found) == row.name, lost


def parameters(function: Callable[..., Any]) -> str:
    """All but `self`, without annotations and defaults."""
    _, *others = inspect.signature(function).parameters.values()
    return str(inspect.Signature([each.replace(annotation=each.empty, default=each.empty) for each in others]))


@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_row_names_only_modules_that_use_the_name(row: PrivateName) -> None:
    spelled = row.owner.partition(":")[2] if row.word == "__init__" else row.word
    assert not [module for module in row.used_by.split() if spelled not in words(module)]


def test_every_private_name_is_in_the_table() -> None:
    told = {(module, row.word) for row in TABLE for module in row.used_by.split()}
    found = {use for module in sources() for use in (*private_reads(module), *private_overrides(module))}
    assert found
    assert sorted(found - told) == []


@cache
def sources() -> dict[str, ast.Module]:
    """Our modules by name."""
    paths = [path for folder in OURS for path in sorted(ROOT.glob(f"{folder}/**/*.py"))]
    names = {path: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths}
    return {name.removesuffix(".__init__"): ast.parse(path.read_bytes()) for path, name in names.items()}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def words(module: str) -> set[str]:
    """Every name and every string in a module."""
    return {word for node in ast.walk(sources()[module]) for word in words_of(node)}


def words_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word) | ast.FunctionDef(name=word) | ast.alias(name=word):
            yield word
        case ast.AsyncFunctionDef(name=word):
            yield word
        case ast.Constant(value=str(word)):
            yield word


@cache
def our_names() -> frozenset[str]:
    """Every name that one of our files defines."""
    return frozenset(name for tree in sources().values() for node in ast.walk(tree) for name in defined_by(node))


def defined_by(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.Attribute(attr=name, value=ast.Name(id="self"), ctx=ast.Store()):
            yield name


def private_reads(module: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each private name that the module imports, or reads and none of our files defines."""
    for node in ast.walk(sources()[module]):
        match node:
            case ast.Attribute(attr=name) if is_private(name) and name not in our_names():
                yield module, name
            case ast.ImportFrom(module=str(origin), names=names) if is_foreign(origin) and origin not in STUBS:
                is_hidden = any(map(is_private, origin.split(".")))
                yield from ((module, each.name) for each in names if is_hidden or is_private(each.name))
            case ast.Import(names=names):
                hidden = (each.name for each in names if any(map(is_private, each.name.split("."))))
                yield from ((module, name) for name in hidden if is_foreign(name))


def private_overrides(module: str) -> Iterator[tuple[str, str]]:
    """(module, name) of each private name of a library's class that a class of the module overrides."""
    for written in sources()[module].body:
        if isinstance(written, ast.ClassDef) and written.bases:
            # migrations/env.py can't be imported outside Alembic; it has no class.
            one = getattr(importlib.import_module(module), written.name)
            names = {name for node in ast.walk(written) for name in defined_by(node) if is_private(name)}
            foreign = {name for base in one.__mro__ if is_foreign(base.__module__) for name in vars(base)}
            yield from ((module, name) for name in names & foreign)


def is_foreign(module: str) -> bool:
    """Whether the module belongs neither to us nor to Python."""
    top = module.partition(".")[0]
    return top not in OURS and top not in sys.stdlib_module_names
