"""Run by alembic for every command; see `services.runtime.migrations`."""

from services.runtime.migrations import run_in_env

run_in_env("campaign")
