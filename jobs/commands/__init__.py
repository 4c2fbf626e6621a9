"""The command line ``catalog``: one module per group of commands."""
