"""current.sql contains each object once, as the last revision left it, with its comments."""

from collections.abc import Sequence

import pytest

from scripts.support.current_sql.fold import NotFolded, fold
from scripts.support.current_sql.layout import Layout
from scripts.support.current_sql.revisions import Revision, read_revision
from tenant_schemas.migrations.render import Step

TABLE = "CREATE TABLE a (id uuid, b text DEFAULT 'x', CONSTRAINT a_pkey PRIMARY KEY (id));"


def read(texts: Sequence[str]) -> list[Revision]:
    return [
        read_revision(Step(f"{number:04d}", "A title.", None, None, text, (), None))
        for number, text in enumerate(texts, start=1)
    ]


def written(*texts: str) -> str:
    """The sections without their banners."""
    sections = Layout(fold(read(texts))).sections()
    return "\n\n".join(section.split("\n", maxsplit=4)[4] for section in sections)


def test_columns_are_laid_out_anew_with_those_of_later_revisions() -> None:
    made = """
        -- Things.
        CREATE TABLE things (
            id uuid NOT NULL,   -- given
            -- Its name, as people
            -- say it.
            name  text,
            CONSTRAINT things_pkey PRIMARY KEY (id)
        ) WITH (fillfactor = 50)"""
    changed = """
        -- Since when.
        ALTER TABLE things ADD COLUMN since timestamptz;
        ALTER TABLE things ALTER COLUMN since SET NOT NULL;
        ALTER TABLE things ALTER COLUMN since SET DEFAULT now();
        -- Never nothing.
        ALTER TABLE things ADD CONSTRAINT things_name_known
            CHECK (name <> '');"""
    assert (
        written(made, changed)
        == """\
-- Things.
CREATE TABLE things (
    id    uuid        NOT NULL,   -- given
    -- Its name, as people
    -- say it.
    name  text,
    -- Since when.
    since timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT things_pkey PRIMARY KEY (id),
    -- Never nothing.
    CONSTRAINT things_name_known CHECK (name <> '')
) WITH (fillfactor = 50);"""
    )


def test_a_constraint_made_anew_keeps_its_place_and_the_comment_above_its_drop() -> None:
    made = "CREATE TABLE a (b text, CONSTRAINT a_b_known CHECK (b IN ('x')), CONSTRAINT a_pkey PRIMARY KEY (b));"
    changed = """
        -- A y is an x too.
        ALTER TABLE a DROP CONSTRAINT a_b_known;
        ALTER TABLE a ADD CONSTRAINT a_b_known CHECK (b IN ('x', 'y'));"""
    known, key = "    CONSTRAINT a_b_known CHECK (b IN ('x', 'y'))", "    CONSTRAINT a_pkey PRIMARY KEY (b)"
    together = written(made, changed).splitlines()
    assert together[2:5] == ["    -- A y is an x too.", f"{known},", key]
    apart = written(made, *changed.split(";\n")).splitlines()
    assert apart[2:4] == [f"{key},", known]


def test_what_belongs_to_a_table_stands_below_it_and_a_triggers_function_above_the_trigger() -> None:
    function = "FUNCTION f_v1() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$BEGIN RETURN; END$$"
    text = written(
        TABLE,
        "CREATE TABLE other (id uuid, CONSTRAINT other_pkey PRIMARY KEY (id));",
        f"GRANT SELECT ON a, other TO r; CREATE POLICY a_seen ON a USING (true); CREATE {function};"
        "CREATE TRIGGER a_kept BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION f_v1();"
        "ALTER TABLE a ENABLE ROW LEVEL SECURITY; CREATE INDEX a_b_idx ON a (b);",
    )
    below = text.partition(");\n")[2].partition("CREATE TABLE other")[0]
    assert below.split("\n") == [
        "CREATE INDEX a_b_idx ON a (b);",
        "",
        f"CREATE {function};",
        "",
        "CREATE TRIGGER a_kept BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION f_v1();",
        "ALTER TABLE a ENABLE ROW LEVEL SECURITY;",
        "CREATE POLICY a_seen ON a USING (true);",
        "GRANT SELECT ON a TO r;",
        "",
        "",
    ]


def test_a_table_stands_below_those_that_it_refers_to() -> None:
    made = TABLE + "CREATE TABLE c (id uuid, CONSTRAINT c_pkey PRIMARY KEY (id));"
    changed = "ALTER TABLE a ADD CONSTRAINT a_c_fkey FOREIGN KEY (b) REFERENCES c (id);"
    text = written(made, changed)
    assert text.index("CREATE TABLE c") < text.index("CREATE TABLE a")
    assert "    CONSTRAINT a_c_fkey FOREIGN KEY (b) REFERENCES c (id)\n);" in text


def test_of_two_tables_that_refer_to_each_other_the_first_gets_its_key_below_the_second() -> None:
    made = TABLE + "CREATE TABLE c (id uuid, CONSTRAINT c_a_fkey FOREIGN KEY (id) REFERENCES a (id));"
    changed = "-- Round.\nALTER TABLE a ADD CONSTRAINT a_c_fkey FOREIGN KEY (b) REFERENCES c (id);"
    assert written(made, changed).endswith(
        "CONSTRAINT c_a_fkey FOREIGN KEY (id) REFERENCES a (id)\n);\n\n"
        "-- Round.\nALTER TABLE a ADD CONSTRAINT a_c_fkey FOREIGN KEY (b) REFERENCES c (id);"
    )


def test_a_function_that_became_a_pointer_stands_last_with_the_pointers_comment() -> None:
    made = "-- Pay.\nCREATE FUNCTION pay_v1(a int) RETURNS int LANGUAGE sql RETURN a;"
    changed = """
        -- Pay better.
        CREATE FUNCTION pay_v2(a int) RETURNS int LANGUAGE sql RETURN a + 1;
        -- For code of before.
        CREATE OR REPLACE FUNCTION pay_v1(a int) RETURNS int LANGUAGE sql RETURN pay_v2(a);
        CREATE FUNCTION spend_v1(a int) RETURNS int LANGUAGE sql RETURN a;"""
    schema = fold(read([made, changed]))
    layout = Layout(schema)
    assert layout.contents() == "-- Functions: pay_v2, spend_v1.\n-- Superseded: pay_v1 by pay_v2."
    assert (
        list(layout.sections())[1].split("\n", maxsplit=4)[4]
        == """\
-- Superseded by pay_v2.
--
-- For code of before.
CREATE FUNCTION pay_v1(a int) RETURNS int LANGUAGE sql RETURN pay_v2(a);"""
    )


@pytest.mark.parametrize(
    "use",
    [
        "CREATE VIEW v AS SELECT pay_v1(1);",
        "CREATE FUNCTION spend_v1() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN pay_v1(1); END';",
        "CREATE FUNCTION more_v1() RETURNS int LANGUAGE sql RETURN 1;"
        "CREATE OR REPLACE FUNCTION more_v2() RETURNS int LANGUAGE sql RETURN pay_v1(1);",
    ],
)
def test_an_old_version_that_others_still_use_is_not_superseded(use: str) -> None:
    made = "CREATE FUNCTION pay_v1(a int) RETURNS int LANGUAGE sql RETURN a;"
    layout = Layout(fold(read([made + made.replace("v1", "v2") + use])))
    assert "pay_v1 by" not in layout.contents()


def test_a_function_that_was_replaced_as_a_whole_has_both_comments_and_the_last_body() -> None:
    made = "-- Pay.\nCREATE FUNCTION pay_v1() RETURNS int LANGUAGE sql RETURN 1;"
    changed = "-- Two are better.\nCREATE OR REPLACE FUNCTION pay_v1() RETURNS int LANGUAGE sql RETURN 2;"
    assert written(made, changed) == (
        "-- Pay.\n--\n-- Two are better.\nCREATE FUNCTION pay_v1() RETURNS int LANGUAGE sql RETURN 2;"
    )


def test_the_comment_above_an_index_belongs_to_the_view_in_its_paragraph() -> None:
    index = "CREATE INDEX a_b_idx ON a (b);"
    together = written(TABLE, f"-- Both.\n{index}\nCREATE VIEW v AS SELECT 1;")
    assert "-- Both.\nCREATE VIEW v" in together
    assert f"-- Both.\n{index}" in written(TABLE, f"-- Both.\n{index}\n\nCREATE VIEW v AS SELECT 1;")


def test_a_comment_on_the_line_of_a_statement_belongs_to_it() -> None:
    table = TABLE.replace("(id));", "(id)\n-- No more.\n);")
    assert written(table + " -- Things.").startswith("-- Things.\n--\n-- No more.\nCREATE TABLE")
    text = written(TABLE + " -- Things.\nCREATE INDEX a_b_idx ON a (b);   -- Fast.\nCREATE INDEX a_id_idx ON a (id);")
    assert text.startswith("-- Things.\nCREATE TABLE")
    assert text.endswith("-- Fast.\nCREATE INDEX a_b_idx ON a (b);\nCREATE INDEX a_id_idx ON a (id);")


def test_the_comment_at_the_head_of_a_revision_is_its_note() -> None:
    first, second, third, fourth = read(
        [
            "-- Money. Frozen once merged: a change is new.\n--\n-- More.\n\n-- squawk-ignore x\n-- A.\nCREATE VIEW a;",
            "-- A.\nCREATE VIEW a;",
            "-- Rows.\n\nINSERT INTO a VALUES (1);\n-- The end.\n",
            "",
        ]
    )
    assert (first.note, first.statements[0].comments) == (["-- Money.", "--", "-- More."], ["-- A."])
    assert (second.note, second.statements[0].comments) == (["-- A title."], ["-- A."])
    assert third.note == ["-- Rows.", "--", "-- The end."]
    assert (fourth.note, fourth.statements) == (["-- A title."], [])


def test_rights_of_the_tenants_role_stand_in_one_do_and_those_taken_away_in_none() -> None:
    role = "current_setting('tenant_schemas.tenant_role')"
    grant = f"""
        -- It reads.
        DO $$ BEGIN
            EXECUTE format('GRANT SELECT, INSERT ON a,'
                ' b TO %I', {role});
        END $$;"""
    revoke = f"DO $$ BEGIN EXECUTE format('REVOKE INSERT ON b FROM %I', {role}); END $$;"
    assert (
        written(TABLE + TABLE.replace("a", "b"), grant, revoke).partition("-- It reads.")[2]
        == """
DO $$
DECLARE
    tenant_role text := current_setting('tenant_schemas.tenant_role');
BEGIN
    EXECUTE format('GRANT SELECT, INSERT ON a TO %I', tenant_role);
    EXECUTE format('GRANT SELECT ON b TO %I', tenant_role);
END $$;"""
    )


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ("REVOKE UPDATE ON a FROM r, s", ["GRANT SELECT ON a TO s, r;"]),
        ("REVOKE SELECT, UPDATE ON a FROM s", ["GRANT SELECT, UPDATE ON a TO r;"]),
        ("REVOKE SELECT ON a FROM r", ["GRANT SELECT, UPDATE ON a TO s;", "GRANT UPDATE ON a TO r;"]),
        ("REVOKE ALL ON TABLE a FROM r, s", []),
        ("REVOKE ALL PRIVILEGES ON a FROM r", ["GRANT SELECT, UPDATE ON a TO s;"]),
        ("REVOKE SELECT ON a FROM PUBLIC", ["GRANT SELECT, UPDATE ON a TO s, r;", "REVOKE SELECT ON a FROM PUBLIC;"]),
    ],
)
def test_a_revoke_takes_out_of_the_grants_what_it_takes(changes: str, left: list[str]) -> None:
    text = written(TABLE, "GRANT SELECT, UPDATE ON a TO s, r", changes)
    assert text.partition(");\n")[2].splitlines() == left


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE a RENAME COLUMN b TO c",
        "ALTER TABLE a RENAME TO c",
        "ALTER TABLE unknown ADD COLUMN c text",
        "ALTER TABLE a ALTER COLUMN unknown SET NOT NULL",
        "ALTER TABLE a DROP CONSTRAINT unknown",
        "ALTER TABLE a DROP COLUMN b CASCADE",
        "DROP TABLE a CASCADE",
        "CREATE TABLE a (id uuid)",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "ALTER FUNCTION f_v1 RENAME TO f_v2",
        "ALTER POLICY a_seen ON a USING (false)",
        "GRANT r TO s",
        "GRANT SELECT ON ALL TABLES IN SCHEMA shared TO r",
        "REVOKE GRANT OPTION FOR SELECT ON a FROM r",
        "VACUUM a",
    ],
)
def test_what_can_not_be_folded_is_refused_with_its_revision_and_statement(statement: str) -> None:
    with pytest.raises(NotFolded) as refused:
        written(TABLE, f"SELECT 1; {statement};")
    assert str(refused.value).startswith("Revision 0002: current.sql can't be generated")
    assert str(refused.value).endswith(f"\n    {statement}")


def test_an_extension_stands_before_all_objects() -> None:
    made = "CREATE TABLE a (id uuid PRIMARY KEY); CREATE EXTENSION citext SCHEMA shared; CREATE EXTENSION hstore;"
    text = written(made, "DROP EXTENSION hstore;")
    assert text.startswith("CREATE EXTENSION citext SCHEMA shared;\n\nCREATE TABLE a")
    assert "hstore" not in text
