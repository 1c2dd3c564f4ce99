"""Message brokers to which the relay publishes events: RabbitMQ, Redis streams and NATS JetStream, by one protocol."""
