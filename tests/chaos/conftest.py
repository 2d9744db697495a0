"""Fixtures of the tests that attack running processes."""

from tests.service.conftest import processes as processes
