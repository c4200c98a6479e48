"""A built folder, and the Hub of the tests of publishing, for builds that publish."""

from building import built, cold, forked  # noqa: F401 - fixtures
from publishing import command, hub  # noqa: F401 - fixtures
