/**
 * A client of the wallet API, typed by its description.
 *
 * It names the tenant, proves who calls, and goes on when the access token has expired: the first request that is
 * refused with `token_expired` refreshes the session, the others wait for it, and each is sent again once.
 */
import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type Problem = components["schemas"]["Problem"];

/** What a client knows of its session. A page with cookies has only the `csrfToken`. */
export interface Session {
  accessToken?: string | undefined;
  refreshToken?: string | undefined;
  csrfToken?: string | undefined;
}

const SAFE_METHODS = new Set(["GET", "HEAD", "OPTIONS"]);

/** The JSON object in an answer; undefined if there is none, as in the HTML page of a proxy. */
async function objectIn(answer: Response): Promise<object | undefined> {
  const found: unknown = await answer.json().catch(() => undefined);
  return typeof found === "object" && found !== null ? found : undefined;
}

/** A client for one tenant. It keeps `session` up to date, so that the caller may store it. */
export function walletClient(baseUrl: string, tenant: string, session: Session = {}) {
  const prove = (request: Request): Request => {
    request.headers.set("X-Tenant", tenant);
    if (session.accessToken) request.headers.set("Authorization", `Bearer ${session.accessToken}`);
    if (session.csrfToken && !SAFE_METHODS.has(request.method)) request.headers.set("X-CSRF-Token", session.csrfToken);
    return request;
  };
  const unsent = new Map<string, Request>();
  let refreshing: Promise<boolean> | undefined;

  const refresh = async (): Promise<boolean> => {
    const body = session.refreshToken ? { refreshToken: session.refreshToken } : {};
    const headers = new Headers({ "Content-Type": "application/json" });
    if (session.csrfToken) headers.set("X-CSRF-Token", session.csrfToken);
    const options = { method: "POST", headers, body: JSON.stringify(body) };
    const answer = await fetch(`${baseUrl}/api/auth/refresh`, options);
    const renewed = answer.ok ? await objectIn(answer) : undefined;
    if (renewed) Object.assign(session, renewed);
    return renewed !== undefined;
  };

  const goesOn: Middleware = {
    onRequest({ request, id }) {
      const proven = prove(request);
      unsent.set(id, proven.clone());
      return proven;
    },
    async onResponse({ response, id }) {
      const again = unsent.get(id);
      unsent.delete(id);
      if (response.status !== 401 || !again) return undefined;
      const problem: Partial<Problem> | undefined = await objectIn(response.clone());
      if (problem?.code !== "token_expired") return undefined;
      refreshing ??= refresh().finally(() => (refreshing = undefined));
      return (await refreshing) ? fetch(prove(again)) : undefined;
    },
    onError({ id }) {
      unsent.delete(id);
    },
  };

  const client = createClient<paths>({ baseUrl });
  client.use(goesOn);
  return client;
}
