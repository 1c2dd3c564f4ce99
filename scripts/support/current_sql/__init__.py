"""current.sql, step by step: `revisions` reads the revisions' SQL with its comments, `fold` keeps the objects of the
head, `layout` writes them down, `files` compares the text with the file, and `proof` runs it on a server.
"""
