/** The proof that no movement of a wallet is missing or out of order. */

export type Head = readonly [seq: number, hash: string]; // Of the last movement that was taken.
export type Movement = { walletId: string; seq: number; hash: string; previousHash: string };

/** A movement of this wallet is missing, or was changed. */
export class Incomplete extends Error {}

/** The wallet's next head; null for one that is not after it, as a replay brings them. Throws Incomplete. */
export function proven(head: Head | null, data: Movement): Head | null {
  const [seq, last] = head ?? [data.seq - 1, data.previousHash]; // The first one that arrives is the beginning.
  if (data.seq <= seq) return null;
  if (data.seq !== seq + 1 || data.previousHash !== last)
    throw new Incomplete(`wallet ${data.walletId}: movement ${data.seq} does not follow movement ${seq}`);
  return [data.seq, data.hash];
}

/** The head of each wallet by its feed and its id, after all events of now. Throws Incomplete. */
export async function proveFeed(url: string, token: string): Promise<Map<string, Head>> {
  const heads = new Map<string, Head>();
  for (let after = ""; ; ) {
    const headers = { Authorization: `Bearer ${token}` };
    const answer = await fetch(`${url}/admin/events?limit=200${after}`, { headers });
    if (!answer.ok) throw new Error(`${answer.url}: ${answer.status}`);
    const { items, nextCursor } = await answer.json();
    for (const { feedid, data } of items) {
      if (!("previousHash" in data)) continue; // It is no movement.
      const wallet = `${feedid} ${data.walletId}`;
      const following = proven(heads.get(wallet) ?? null, data);
      if (following) heads.set(wallet, following);
    }
    if (!items.length) return heads;
    after = `&after=${encodeURIComponent(nextCursor)}`;
  }
}
