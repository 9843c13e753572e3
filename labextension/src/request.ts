/**
 * The one way to the agent: requests to the gate, with Jupyter's settings (base URL, token, XSRF).
 */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { IAgentAPI } from './model';
import type { Reach } from './words';

const ROOT = 'jupyter-agent/api/v1';

/** An answer that is an error. The message is the server's own sentence. */
export class RequestFailed extends Error {
  constructor(
    message: string,
    readonly status: number,
    /** The name of the error's type at the agent; empty when somebody else answered. */
    readonly reason: string
  ) {
    super(message);
    this.name = 'RequestFailed';
  }
}

export interface IRequest {
  readonly method?: 'GET' | 'POST';
  readonly query?: Readonly<Record<string, string | number>>;
  readonly body?: unknown;
  /** Told the time of the answer by the server's clock, milliseconds since the epoch. */
  readonly onDate?: (time: number) => void;
}

/** The URL of a path of the API; each of the parts is encoded. */
export function apiUrl(settings: ServerConnection.ISettings, ...parts: readonly string[]): string {
  return URLExt.join(settings.baseUrl, ROOT, ...parts.map(encodeURIComponent));
}

/** The URL under which the browser itself can get an artifact. */
export function artifactUrl(settings: ServerConnection.ISettings, run: string, name: string): string {
  const url = apiUrl(settings, 'runs', run, 'artifacts', name);
  return settings.appendToken && settings.token ? `${url}?token=${encodeURIComponent(settings.token)}` : url;
}

/** Make a request of the API and give back the answer's JSON. Rejects with `RequestFailed` or Lab's `NetworkError`. */
export async function requestAPI<T>(
  settings: ServerConnection.ISettings,
  parts: readonly string[],
  request: IRequest = {}
): Promise<T> {
  const query = Object.entries(request.query ?? {}).map(([name, value]) => [name, String(value)]);
  const url = apiUrl(settings, ...parts) + (query.length ? `?${new URLSearchParams(query)}` : '');
  const init: RequestInit = { method: request.method ?? 'GET' };
  if (init.method === 'POST') {
    init.body = JSON.stringify(request.body ?? {});
  }
  const response = await ServerConnection.makeRequest(url, init, settings);
  const date = Date.parse(response.headers.get('Date') ?? '');
  if (Number.isFinite(date)) {
    request.onDate?.(date);
  }
  const text = await response.text();
  let answer: unknown;
  try {
    answer = JSON.parse(text);
  } catch {
    // A proxy on the way answers in its own form; its status says what there is to say.
    throw new RequestFailed(`The server answered ${response.status} ${response.statusText}.`, response.status, '');
  }
  if (!response.ok) {
    const { message, reason } = answer as { message?: string; reason?: string | null };
    const told = message || `The server answered ${response.status} ${response.statusText}.`;
    throw new RequestFailed(told, response.status, reason ?? '');
  }
  return answer as T;
}

/** A sentence for the user. */
export function sentence(error: unknown): string {
  if (error instanceof ServerConnection.NetworkError) {
    return 'The Jupyter server does not answer.';
  }
  return error instanceof Error ? error.message : String(error);
}

/** The calls the model makes, over `requestAPI`. */
export function agentAPI(settings: ServerConnection.ISettings): IAgentAPI {
  let ahead = 0;
  const onDate = (time: number): void => {
    // The header counts whole seconds, and the answer took its time: a small difference is none.
    const difference = time - Date.now();
    ahead = Math.abs(difference) < 2000 ? 0 : difference;
  };
  const get = <T>(parts: readonly string[], query: IRequest['query'] = {}): Promise<T> =>
    requestAPI<T>(settings, parts, { query, onDate });
  const post = <T>(parts: readonly string[], body: unknown = {}): Promise<T> =>
    requestAPI<T>(settings, parts, { method: 'POST', body, onDate });
  return {
    status: () => get(['status']),
    start: () => post(['start']),
    packages: () => get(['packages']),
    runs: (limit, state) => get(['runs'], state ? { limit, state } : { limit }),
    run: id => get(['runs', id]),
    launch: (id, launch) => post(['packages', id, 'runs'], launch),
    cancel: id => post(['runs', id, 'cancel']),
    output: (id, offset) => get(['runs', id, 'output'], { offset, limit: PAGE_BYTES }),
    judge: error => ({ reach: judge(error), sentence: sentence(error) }),
    now: () => Date.now() + ahead
  };
}

/** Bytes of output asked for at a time: a page is shown in less than a frame or two. */
const PAGE_BYTES = 128 * 1024;

function judge(error: unknown): Reach {
  if (error instanceof RequestFailed) {
    // Jupyter's own 404 has no reason; the agent's NotFound has one.
    if (error.status === 404 && !error.reason) {
      return 'missing';
    }
    // 502 to 504 without a reason come from a proxy in front of a server that is away.
    return error.status >= 502 && error.status <= 504 && !error.reason ? 'unreachable' : 'answering';
  }
  return 'unreachable';
}
