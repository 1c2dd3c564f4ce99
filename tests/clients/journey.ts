/**
 * The journeys of a member and of an admin with the TypeScript client, against a served application. Run with the URL,
 * the addresses of admin and member, and their password.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type Problem, type Session, walletClient } from "./client.js";

const [url = "", adminAddress = "", memberAddress = "", password = ""] = process.argv.slice(2);
const once = () => ({ "Idempotency-Key": randomUUID() });

/** The data of an answer that must be a success. */
function given<Data>(answer: { data?: Data; error?: unknown; response: Response }): Data {
  assert.ok(answer.response.ok, `${answer.response.url}: ${JSON.stringify(answer.error)}`);
  return answer.data as Data;
}

async function logIn(email: string) {
  const session: Session = {};
  const api = walletClient(url, "eur", session);
  Object.assign(session, given(await api.POST("/api/auth/login", { body: { email, password } })));
  return { api, session };
}

const admin = (await logIn(adminAddress)).api;
const { api: member, session } = await logIn(memberAddress);
const me = given(await member.GET("/api/me"));
assert.equal(me.email, memberAddress);

// The admin finds the member, opens the wallet, and pays in.
const found = given(await admin.GET("/api/admin/members", { params: { query: { q: memberAddress } } }));
assert.deepEqual(found.items.map(({ role }) => role), ["member"]);
const opened = await admin.POST("/api/admin/wallets", { body: { userId: me.id } });
const walletId = given(opened).id;
const wallet = { path: { walletId } };
const deposit = given(
  await admin.POST("/api/admin/wallets/{walletId}/deposits", {
    params: { ...wallet, header: once() },
    body: { amount: "100.00", reference: "transfer 17" },
  }),
);
assert.equal(deposit.balanceAfter, "100.00");

// A limit needs the version that the admin has seen.
const seen = await admin.GET("/api/admin/wallets/{walletId}", { params: wallet });
const version = { "If-Match": seen.response.headers.get("ETag") ?? "" };
const change = { params: { ...wallet, header: version }, body: { creditLimit: "20.00" } };
assert.equal(given(await admin.PATCH("/api/admin/wallets/{walletId}", change)).creditLimit, "20.00");
assert.equal((await admin.PATCH("/api/admin/wallets/{walletId}", change)).response.status, 412);

// The member pays, repeats the payment without paying twice, and is told why too much is refused.
const paying = { params: { header: once() }, body: { amount: "30.00", description: "books" } };
const payment = given(await member.POST("/api/wallet/payments", paying));
assert.equal(given(await member.POST("/api/wallet/payments", paying)).id, payment.id);
const refused = await member.POST("/api/wallet/payments", { params: { header: once() }, body: { amount: "900.00" } });
const problem: Problem | undefined = refused.error;
assert.equal(problem?.code, "insufficient_funds");
assert.equal(problem?.available, "90.00");
assert.equal(problem?.shortfall, "810.00");

// A hold is captured in part, an order is placed and cancelled.
const hold = given(
  await member.POST("/api/wallet/holds", { params: { header: once() }, body: { amount: "15.00" } }),
);
given(
  await member.POST("/api/wallet/holds/{holdId}/capture", {
    params: { path: { holdId: hold.id }, header: once() },
    body: { amount: "10.00" },
  }),
);
const products = given(await member.GET("/api/products"));
const [product] = products.items;
if (product) {
  const items = [{ productId: product.id, quantity: 1 }];
  const order = given(await member.POST("/api/orders", { params: { header: once() }, body: { items } }));
  const place = { params: { path: { orderId: order.id }, header: once() } };
  assert.equal(given(await member.POST("/api/orders/{orderId}/cancel", place)).status, "cancelled");
}

// The admin refunds, and finds who did what.
const refund = { paymentId: payment.id, amount: "5.00" };
given(
  await admin.POST("/api/admin/wallets/{walletId}/refunds", { params: { ...wallet, header: once() }, body: refund }),
);
const noted = given(await admin.GET("/api/admin/audit-log", { params: { query: { walletId } } }));
assert.ok(noted.items.some(({ action }) => action === "wallet.configure"));
assert.equal(given(await member.GET("/api/wallet")).balance, "65.00");

// The list, page by page, adds up to the balance.
let sum = 0;
let cursor: string | null | undefined;
do {
  const query = { limit: 2, ...(cursor ? { cursor } : {}) };
  const page = given(await member.GET("/api/wallet/transactions", { params: { query } }));
  sum = page.items.reduce((total, { amount }) => total + Math.round(Number(amount) * 100), sum);
  cursor = page.nextCursor;
} while (cursor);
assert.equal(sum, 6500);

const { refreshToken = "" } = session;
Object.assign(session, given(await member.POST("/api/auth/refresh", { body: { refreshToken } })));
assert.notEqual(session.refreshToken, refreshToken);
assert.equal((await member.POST("/api/auth/logout")).response.status, 204);
const over = await member.GET("/api/wallet");
assert.equal(over.error?.code, "session_over");

// A 401 of a proxy has no problem in it: the client hands it on, and so it does if the refresh meets a page.
const expired = JSON.stringify({ code: "token_expired" });
const bodies = ["<html>proxy</html>", "null", ""];
const proxy = createServer((request, response) => {
  const isRefresh = request.url === "/api/auth/refresh";
  response.writeHead(isRefresh ? 200 : 401, { "Content-Type": "application/json" });
  response.end(isRefresh ? "<html>proxy</html>" : (bodies.shift() ?? expired));
});
await new Promise<void>((listening) => proxy.listen(0, "127.0.0.1", listening));
const { port } = proxy.address() as AddressInfo;
const behindProxy = walletClient(`http://127.0.0.1:${port}`, "eur", { accessToken: "a", refreshToken: "r" });
for (let sent = 0; sent < 4; sent++) {
  const answer = await behindProxy.GET("/api/wallet", { parseAs: "text" });
  assert.equal(answer.response.status, 401);
}
proxy.closeAllConnections();
proxy.close();
console.log("ok");
