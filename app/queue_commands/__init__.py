"""Commands from a message queue: each moves money once, and is answered by an event.

`messages.py` reads a message, `service.py` runs the command in PostgreSQL, `handler.py` decides what becomes of the
message, and `consumer.py` talks to RabbitMQ.
"""
