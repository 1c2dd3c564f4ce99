"""The metrics of a process's connections are the differences between what the pool told before and tells now."""

from app.metrics.pool import PoolSampler
from tenant_schemas.connections import Connections
from tenant_schemas.testing.plugin import Database
from tests.factories.metrics import Growth, figure

OPENED = ("wallet_pool_opened_total", {"kind": "tenants"})


def test_two_samples_count_a_connection_once(database: Database) -> None:
    connections = Connections(database.app_url, database.tenant_secret)
    sampler = PoolSampler(connections)
    growth = Growth(OPENED, ("wallet_pool_opened_total", {"kind": "shared"}), ("wallet_pool_closed_total", {}))
    engine = connections.engine(database.tenant("eur"))
    with engine.begin():
        sampler.sample()
        assert figure("wallet_pool_in_use", kind="tenants") == 1
    sampler.sample()
    assert figure("wallet_pool_in_use", kind="tenants") == 0
    assert figure("wallet_pool_open") == 1
    assert growth() == [1, 0, 0]
    connections.close()
    sampler.sample()
    assert growth() == [1, 0, 1]
