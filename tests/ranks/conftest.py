"""Fixtures of the tests with several trainer ranks."""

from tests.service.conftest import processes as processes
