// The admin API. A token, where it asks for one, lives as long as this tab.

const PLACE = "splitproxy-token";
let token = sessionStorage.getItem(PLACE) || "";
let asking = null;

export class Problem extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

/** Have `ask` get a token from the user: it is given why, and returns a promise of it. */
let prompt = async () => "";
export const whenAskedForToken = (ask) => (prompt = ask);
export const hasToken = () => token !== "";
export const isAsking = () => asking !== null;

export function forgetToken() {
  token = "";
  sessionStorage.removeItem(PLACE);
}

async function renew(why) {
  asking = asking || prompt(why).finally(() => (asking = null));
  token = await asking;
  sessionStorage.setItem(PLACE, token);
}

/** Return an answer that is good. Raises Problem with the API's own sentence. Without credentials, so that the browser
 * does not show a window of its own. */
export async function request(path, options = {}) {
  for (;;) {
    const sent = token;
    const headers = { ...options.headers, "X-Splitproxy-Operator": "dashboard" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    const sentence = told.detail || told.error || `the proxy answered ${answer.status}`;
    if (answer.status !== 401) throw new Problem(answer.status, sentence);
    if (sent === token) await renew(sent ? sentence : "");
  }
}

export const get = async (path) => (await request(path)).json();

export async function send(method, path, body) {
  const options = { method };
  if (body !== undefined) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  return (await request(path, options)).json();
}

export const rollout = (name) => `/api/v1/rollouts/${encodeURIComponent(name)}`;
