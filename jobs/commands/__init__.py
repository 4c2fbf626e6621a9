"""The command line, ``python -m jobs``: one module per group of commands."""
