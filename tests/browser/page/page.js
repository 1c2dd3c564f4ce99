// A member's page of one origin with the API, with the generated client and the tokens in cookies.
import { walletClient } from "/client/client.js";

const csrfToken = document.cookie.match(/__Host-csrf=([^;]+)/)?.[1];
const api = walletClient("", "eur", { csrfToken });
const status = document.querySelector("[role=status]");
const say = (text) => (status.textContent = text);

document.querySelector("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = Object.fromEntries(new FormData(event.target));
  const { response } = await api.POST("/api/auth/login", { body: { ...told, cookie: true } });
  if (response.ok) location.reload();
  else say(`log-in ${response.status}`);
});

document.querySelector("#load").addEventListener("click", async () => {
  say("loading");
  const paths = ["/api/me", "/api/wallet/transactions", "/api/products"];
  const asked = Array.from({ length: 12 }, (_, index) => api.GET(paths[index % paths.length]));
  const answers = await Promise.all(asked);
  say(`loaded ${answers.map(({ response }) => response.status).join(" ")}`);
});

document.querySelector("#logout").addEventListener("click", async () => {
  const { response } = await api.POST("/api/auth/logout");
  say(`logged out ${response.status}`);
});
