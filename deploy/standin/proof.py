"""The proof that no movement of a wallet is missing or out of order."""

from typing import Any

Head = tuple[int, str]  # The seq and the hash of the last movement that was taken.


class Incomplete(Exception):
    """A movement of this wallet is missing, or was changed."""


def proven(head: Head | None, data: dict[str, Any]) -> Head | None:
    """The wallet's next head; None for a movement that was taken before. Raises Incomplete."""
    seq, last = head or (data["seq"] - 1, data["previousHash"])  # The first one that arrives is the beginning.
    if data["seq"] <= seq:
        return None
    if data["seq"] != seq + 1 or data["previousHash"] != last:
        raise Incomplete(f"wallet {data['walletId']}: movement {data['seq']} does not follow movement {seq}")
    return data["seq"], data["hash"]
