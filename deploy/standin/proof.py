"""The proof that no movement of a wallet is missing or out of order."""

from typing import Any

import httpx

Head = tuple[int, str]  # The seq and the hash of the last movement that was taken.


class Incomplete(Exception):
    """A movement of this wallet is missing, or was changed."""


def proven(head: Head | None, data: dict[str, Any]) -> Head | None:
    """The wallet's next head; None for one that is not after it, as a replay brings them. Raises Incomplete."""
    seq, last = head or (data["seq"] - 1, data["previousHash"])  # The first one that arrives is the beginning.
    if data["seq"] <= seq:
        return None
    if data["seq"] != seq + 1 or data["previousHash"] != last:
        raise Incomplete(f"wallet {data['walletId']}: movement {data['seq']} does not follow movement {seq}")
    return data["seq"], data["hash"]


def prove_feed(url: str, token: str) -> dict[tuple[str, str], Head]:
    """The head of each wallet by its feed and its id, after all events of now. Raises Incomplete."""
    heads: dict[tuple[str, str], Head] = {}
    query = {"limit": "200"}
    while True:
        answer = httpx.get(f"{url}/admin/events", params=query, headers={"Authorization": f"Bearer {token}"})
        page = answer.raise_for_status().json()
        for event in page["items"]:
            if "previousHash" in event["data"]:  # It is a movement.
                wallet = (event["feedid"], event["data"]["walletId"])
                heads[wallet] = proven(heads.get(wallet), event["data"]) or heads[wallet]
        if not page["items"]:
            return heads
        query["after"] = page["nextCursor"]
