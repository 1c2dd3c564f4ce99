"""The publisher of a broker's URL."""

from importlib import import_module
from typing import Final, cast
from urllib.parse import urlsplit

from app.brokers.publisher import BrokerMisconfigured, Publisher

_RABBITMQ: Final = ("app.brokers.rabbitmq", "RabbitPublisher", "rabbitmq")
_REDIS: Final = ("app.brokers.redis_streams", "RedisPublisher", "")
_NATS: Final = ("app.brokers.nats_jetstream", "NatsPublisher", "nats")
# By the URL's scheme: the module, its class, and the extra of setup.cfg that its library needs.
_BROKERS: Final = {
    **{"amqp": _RABBITMQ, "amqps": _RABBITMQ},
    **{"redis": _REDIS, "rediss": _REDIS},
    **{"nats": _NATS, "tls": _NATS},
}
SCHEMES: Final = tuple(_BROKERS)


def publisher_for(url: str) -> Publisher:
    """The publisher for the broker of this URL. Connects to nothing yet. Raises BrokerMisconfigured."""
    scheme = urlsplit(url).scheme
    if scheme not in _BROKERS:
        raise BrokerMisconfigured(f"The scheme of a broker's URL is one of {', '.join(SCHEMES)}, not {scheme!r}.")
    module, name, extra = _BROKERS[scheme]
    try:
        # An installation needs the library of its own broker only.
        kind = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        wanted = f"pip install 'schema-wallet[{extra}]'"
        raise BrokerMisconfigured(f"The library of this broker is not installed: {wanted}.") from error
    return cast(Publisher, kind(url))
