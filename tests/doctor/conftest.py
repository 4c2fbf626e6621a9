"""Share the shop with live champions and the query service of the tests in ``tests/serve``."""

from tests.serve.conftest import live_shop, service

__all__ = ["live_shop", "service"]
