// Requests to the service that the page came from, and to no other.

const TOKEN = "electrain-token";
const PATIENCE_MILLISECONDS = 120_000;

/** kind: dead, unauthorized, large, refused, busy, unavailable, slow or failed. */
export class ServiceError extends Error {
  constructor(kind, line = "", retrySeconds = 0) {
    super(line || kind);
    this.kind = kind;
    this.line = line;
    this.retrySeconds = retrySeconds;
  }

  /** True for a fault that goes away by itself. */
  get passes() {
    return ["dead", "busy", "unavailable"].includes(this.kind);
  }
}

const KINDS = { 401: "unauthorized", 408: "dead", 413: "large", 429: "busy", 502: "dead", 503: "unavailable", 504: "slow" };

function kindOf(status) {
  return KINDS[status] ?? (status >= 500 ? "failed" : "refused");
}

let askForToken = async () => false;

/** Args: ask: called with whether a token was refused; resolves to true once there is another one. */
export function onUnauthorized(ask) {
  askForToken = ask;
}

export function keepToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

async function once(path, options) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = { accept: "application/json" };
  if (options.body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  const timeout = AbortSignal.timeout(PATIENCE_MILLISECONDS);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  let response;
  try {
    response = await fetch(path, { method: options.body === undefined ? "GET" : "POST", headers, signal, body: options.body });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ServiceError("dead");
  }
  let content;
  try {
    content = await response.json();
  } catch (error) {
    if (options.signal?.aborted) throw error;
    // A proxy before a dead service answers with a page of its own.
    throw new ServiceError(response.ok ? "dead" : kindOf(response.status), "", retryAfter(response));
  }
  if (!response.ok) throw new ServiceError(kindOf(response.status), content.error ?? "", retryAfter(response));
  return content;
}

function retryAfter(response) {
  const seconds = Number(response.headers.get("retry-after"));
  return Number.isFinite(seconds) ? seconds : 0;
}

async function request(path, options) {
  for (;;) {
    const used = sessionStorage.getItem(TOKEN);
    try {
      return await once(path, options);
    } catch (error) {
      if (!(error instanceof ServiceError) || error.kind !== "unauthorized") throw error;
      // Another request may have brought a token meanwhile.
      if (sessionStorage.getItem(TOKEN) === used && !(await askForToken(Boolean(used)))) throw error;
    }
  }
}

export function get(path, signal) {
  return request(path, { signal });
}

export function post(path, body, signal) {
  return request(path, { body: JSON.stringify(body), signal });
}
