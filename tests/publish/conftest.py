"""The Hub of these tests can be written to."""

from publishing import command, hub  # noqa: F401 - fixtures
