"""The commands of ``python -m jobs``, a module for each part of the work; heavy modules are imported by the command."""
