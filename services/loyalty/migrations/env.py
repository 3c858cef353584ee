"""Runs the loyalty schema's revisions."""

from services.runtime.migrations import run_in_env

run_in_env("loyalty")
