"""A token's span is exact in the original text, and a comment inside a string is not a comment."""

from tenant_schemas.sql_lint.lexer import comments_of, tokens_of

SQL = """
-- above; 'it''s a comment'
CREATE FUNCTION "F"() RETURNS text AS $$ -- in the body
SELECT 'x' $$ /* one /* in */ the other */ LANGUAGE sql; -- beside
SELECT E'--\\'no', '-- no' AS "-- no"
"""


def test_each_token_spans_its_own_text() -> None:
    written = [SQL[token.start : token.end] for token in tokens_of(SQL)]
    assert written == [
        *("CREATE", "FUNCTION", '"F"', "(", ")", "RETURNS", "text", "AS"),
        "$$ -- in the body\nSELECT 'x' $$",
        *("LANGUAGE", "sql", ";", "SELECT", "E'--\\'no'", ",", "'-- no'", "AS", '"-- no"'),
    ]


def test_comments_are_whole_and_those_in_strings_are_none() -> None:
    found = [(comment.text, SQL[comment.start : comment.end]) for comment in comments_of(SQL)]
    texts = ["-- above; 'it''s a comment'", "/* one /* in */ the other */", "-- beside"]
    assert found == [(text, text) for text in texts]
