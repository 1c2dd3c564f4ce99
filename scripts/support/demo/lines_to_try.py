"""What the demo prints: lines to paste into another shell."""

import json
import shlex

LINES = """
Serving {url}: the stand-in's page, and the wallet's API below {url}/api/. Ctrl-C here ends everything.
In a browser: open {url}, log in as member@example.com with {password}.
Or paste these lines into another shell.

# Log in at the main application. The wallet trusts its tokens.
TOKEN=$(curl -s {url}/login -H 'Content-Type: application/json' -d {login} | {token})
AS="Authorization: Bearer $TOKEN"

# Watch the member's wallet for 20 seconds.
curl -sN --max-time 20 {url}/api/eur/wallet/events -H "$AS" &
sleep 1

# Pay over the gateway. The payment arrives in the main application by RabbitMQ and by webhook, and in the stream.
curl -s {url}/api/eur/wallet/payments -H "$AS" -H "Idempotency-Key: $(date +%s%N)" -H 'Content-Type: application/json' \
-d '{{"amount": "1.50"}}'
sleep 3
curl -s {url}/arrived/rabbitmq -H "$AS"
curl -s {url}/arrived/webhook -H "$AS"

# Command a payment by queue, delivered twice. It is paid once.
curl -s {url}/account -H "$AS"
curl -s {url}/commands/payments -H "$AS" -H 'Content-Type: application/json' -d '{{"amount": "2.00", "times": 2}}'
sleep 3
curl -s {url}/account -H "$AS"
"""


def lines_to_try(url: str, password: str) -> str:
    login = shlex.quote(json.dumps({"email": "member@example.com", "password": password}))
    token = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"accessToken\"])'"  # noqa: S105  A command.
    return LINES.format(url=url, password=password, login=login, token=token)
