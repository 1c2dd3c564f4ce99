"""Static checks of a revision's SQL: its statements, the locks that they take, and the rules that they must obey."""
