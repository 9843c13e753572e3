/**
 * The one way to the agent: requests to the gate, with Jupyter's settings (base URL, token, XSRF).
 */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { IEnvironmentsAPI } from './environments';
import { jsonLines } from './lines';
import type { IAgentAPI } from './model';
import type { IOthersAPI } from './others';
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
  readonly method?: 'GET' | 'POST' | 'DELETE';
  readonly query?: Readonly<Record<string, string | number>>;
  readonly body?: unknown;
  /** Told the time of the answer by the server's clock, milliseconds since the epoch. */
  readonly onDate?: (time: number) => void;
  /** Gives the request up when it is aborted. */
  readonly signal?: AbortSignal;
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
  const response = await send(settings, parts, request);
  const date = Date.parse(response.headers.get('Date') ?? '');
  if (Number.isFinite(date)) {
    request.onDate?.(date);
  }
  return (await answerOf(response)) as T;
}

/** The objects of an answer that comes as JSON lines. Rejects as `requestAPI` does, and when the connection breaks. */
export async function* streamAPI(
  settings: ServerConnection.ISettings,
  parts: readonly string[],
  request: IRequest = {}
): AsyncGenerator<unknown, void> {
  const response = await send(settings, parts, request);
  if (response.ok && response.body) {
    yield* jsonLines(response.body);
  } else {
    await answerOf(response);
  }
}

async function send(
  settings: ServerConnection.ISettings,
  parts: readonly string[],
  request: IRequest
): Promise<Response> {
  const query = Object.entries(request.query ?? {}).map(([name, value]) => [name, String(value)]);
  const url = apiUrl(settings, ...parts) + (query.length ? `?${new URLSearchParams(query)}` : '');
  const init: RequestInit = { method: request.method ?? 'GET', signal: request.signal ?? null };
  if (init.method === 'POST') {
    init.body = JSON.stringify(request.body ?? {});
  }
  return ServerConnection.makeRequest(url, init, settings);
}

/** The JSON of an answer, `null` for an empty one. Rejects with what it says when it is an error. */
async function answerOf(response: Response): Promise<unknown> {
  const text = await response.text();
  let answer: unknown;
  try {
    answer = text || !response.ok ? JSON.parse(text) : null;
  } catch {
    // A proxy on the way answers in its own form; its status says what there is to say.
    throw new RequestFailed(`The server answered ${response.status} ${response.statusText}.`, response.status, '');
  }
  if (!response.ok) {
    const { message, reason } = answer as { message?: string; reason?: string | null };
    const told = message || `The server answered ${response.status} ${response.statusText}.`;
    throw new RequestFailed(told, response.status, reason ?? '');
  }
  return answer;
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
    prepare: id => post(['packages', id, 'prepare']),
    reinstall: id => post(['packages', id, 'reinstall']),
    remove: id => requestAPI(settings, ['packages', id], { method: 'DELETE', onDate }),
    publish: path => post(['packages'], { path }),
    cancel: id => post(['runs', id, 'cancel']),
    rerun: (id, options) => post(['runs', id, 'rerun'], options ?? {}),
    output: (id, offset) => get(['runs', id, 'output'], { offset, limit: PAGE_BYTES }),
    judge: error => ({ reach: judge(error), sentence: sentence(error) }),
    now: () => Date.now() + ahead
  };
}

/** The calls about other agents, over the same. */
export function othersAPI(settings: ServerConnection.ISettings): IOthersAPI {
  const get = <T>(...parts: string[]): Promise<T> => requestAPI<T>(settings, ['agents', ...parts]);
  const post = <T>(parts: readonly string[], body: unknown = {}): Promise<T> =>
    requestAPI<T>(settings, ['agents', ...parts], { method: 'POST', body });
  return {
    agents: () => get(),
    runsOn: slug => get(slug, 'runs'),
    runOn: (slug, id) => get(slug, 'runs', id),
    launchOn: (slug, target, launch) => post([slug, 'runs'], { target, ...launch }),
    cancelOn: (slug, id) => post([slug, 'runs', id, 'cancel']),
    cancelAllOn: slug => post([slug, 'cancel']),
    prepareOn: (slug, id) => post([slug, 'packages', id, 'prepare']),
    reinstallOn: (slug, id) => post([slug, 'packages', id, 'reinstall']),
    streamOn: (slug, id, offset, signal) =>
      streamAPI(settings, ['agents', slug, 'runs', id, 'stream'], { query: { offset }, signal }),
    sentence,
    isFinal: error => error instanceof RequestFailed && error.status >= 400 && error.status < 500,
    now: () => Date.now()
  };
}

/** The calls about environments, over the same. */
export function environmentsAPI(settings: ServerConnection.ISettings): IEnvironmentsAPI {
  const post = <T>(parts: readonly string[], body: unknown = {}): Promise<T> =>
    requestAPI<T>(settings, parts, { method: 'POST', body });
  return {
    environments: () => requestAPI(settings, ['environments']),
    environment: id => requestAPI(settings, ['environments', id]),
    make: making => post(['environments'], making),
    lock: making => post(['environments', 'lock'], making),
    verify: id => post(['environments', id, 'verify']),
    repair: id => post(['environments', id, 'repair']),
    removeEnvironment: id => requestAPI(settings, ['environments', id], { method: 'DELETE' }),
    cleanUp: options => post(['environments', 'gc'], options),
    runIn: (target, environment) => post(['runs'], environment === null ? { target } : { target, environment }),
    sentence
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
