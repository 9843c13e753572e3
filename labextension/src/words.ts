/**
 * Numbers, times and states in words. Pure: what it needs to know of the time is given.
 */

import type { IOtherAgent, IPackage, IProgress, IRun, IStatus, RunState } from './shapes';
import { hasEnded, USUAL_PRIORITY } from './shapes';

/** The part of Lab's translation bundle that is used; `_n` chooses by the number. */
export interface IWords {
  __(text: string, ...values: unknown[]): string;
  _n(one: string, many: string, n: number, ...values: unknown[]): string;
}

export type Tone = 'quiet' | 'busy' | 'good' | 'warn' | 'bad';

/** How a state looks: by its tone (colour); its icon is chosen by the state itself. */
const TONES: Readonly<Record<RunState, Tone>> = {
  queued: 'quiet',
  preparing: 'busy',
  running: 'busy',
  succeeded: 'good',
  failed: 'bad',
  timed_out: 'bad',
  cancelled: 'warn',
  killed: 'bad',
  kernel_died: 'bad',
  lost: 'bad'
};

export function toneOf(state: RunState): Tone {
  return TONES[state] ?? 'bad';
}

export function stateWord(state: RunState, words: IWords): string {
  switch (state) {
    case 'queued':
      return words.__('Queued');
    case 'preparing':
      return words.__('Preparing');
    case 'running':
      return words.__('Running');
    case 'succeeded':
      return words.__('Succeeded');
    case 'failed':
      return words.__('Failed');
    case 'timed_out':
      return words.__('Timed out');
    case 'cancelled':
      return words.__('Cancelled');
    case 'killed':
      return words.__('Killed');
    case 'kernel_died':
      return words.__('Kernel died');
    case 'lost':
      return words.__('Lost');
    default:
      return state;
  }
}

/** `0:07`, `12:34`, `1:02:03`, `2 d 1:02:03`. */
export function duration(milliseconds: number): string {
  const all = Math.max(0, Math.floor(milliseconds / 1000));
  const two = (n: number): string => String(n).padStart(2, '0');
  const seconds = two(all % 60);
  const minutes = Math.floor(all / 60) % 60;
  const hours = Math.floor(all / 3600);
  if (hours === 0) {
    return `${minutes}:${seconds}`;
  }
  const clock = `${hours % 24}:${two(minutes)}:${seconds}`;
  return hours < 24 ? clock : `${Math.floor(hours / 24)} d ${clock}`;
}

/** Milliseconds a run has taken (or took); before it has started, since it was asked for. `null` when not known. */
export function elapsed(run: Pick<IRun, 'state' | 'created' | 'started' | 'ended'>, now: number): number | null {
  const from = Date.parse(run.started ?? run.created);
  const to = run.ended ? Date.parse(run.ended) : hasEnded(run) ? Number.NaN : now;
  const taken = to - from;
  return Number.isFinite(taken) ? Math.max(0, taken) : null;
}

/** `just now`, `5 min ago`, `3 h ago`, then the date in the reader's way. */
export function ago(time: string, now: number, words: IWords): string {
  const then = Date.parse(time);
  if (!Number.isFinite(then)) {
    return '';
  }
  const minutes = Math.floor((now - then) / 60_000);
  if (minutes < 1) {
    return words.__('just now');
  }
  if (minutes < 60) {
    return words.__('%1 min ago', minutes);
  }
  if (minutes < 24 * 60) {
    return words.__('%1 h ago', Math.floor(minutes / 60));
  }
  return new Date(then).toLocaleDateString();
}

/** `812 B`, `1.4 kB`, `3.2 MB`: powers of 1000. */
export function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** The part done, 0 to 1; `null` where it is not known. */
export function fraction(progress: IProgress | null): number | null {
  const total = progress?.total ?? 0;
  return progress && total > 0 ? Math.min(1, Math.max(0, progress.done / total)) : null;
}

/** A value as one line: text as it is, all else as JSON. */
export function value(given: unknown): string {
  return typeof given === 'string' ? given : (JSON.stringify(given) ?? String(given));
}

/** A result value for reading: large whole numbers with their digits grouped; not those that may be years. */
export function resultValue(given: unknown): string {
  return Number.isSafeInteger(given) && Math.abs(given as number) >= 10_000
    ? (given as number).toLocaleString()
    : value(given);
}

/** Name and version of what a run runs. */
export function title(run: Pick<IRun, 'package' | 'version'>): string {
  return run.version ? `${run.package} ${run.version}` : run.package;
}

/** The number of this attempt and of all there may be; `null` for a run that has a single one. */
export function attempts(run: Pick<IRun, 'attempt' | 'retries'>): readonly [number, number] | null {
  return run.retries > 0 || run.attempt > 1 ? [run.attempt, Math.max(run.attempt, run.retries + 1)] : null;
}

/** What a run is for; empty for the usual kind. */
export function kindWord(kind: IRun['kind'], words: IWords): string {
  const kinds = {
    run: '',
    prepare: words.__('preparation'),
    testrun: words.__('test run'),
    environment: words.__('environment')
  };
  return kinds[kind] ?? '';
}

/** How long a failed attempt's next one is still waited for; empty when there is nothing to wait for. */
export function waiting(run: Pick<IRun, 'state' | 'next_attempt'>, now: number, words: IWords): string {
  const begins = Date.parse(run.next_attempt ?? '');
  if (run.state !== 'queued' || !Number.isFinite(begins)) {
    return '';
  }
  return words.__('begins in %1', duration(begins - now));
}

/** What is unusual about a run, in words: that it only prepares, which attempt it is, its place in the queue. */
export function peculiarities(
  run: Pick<IRun, 'kind' | 'attempt' | 'retries' | 'priority' | 'state'>,
  words: IWords
): string[] {
  const tried = attempts(run);
  return [
    kindWord(run.kind, words),
    tried ? words.__('attempt %1 of %2', ...tried) : '',
    run.state === 'queued' && run.priority !== USUAL_PRIORITY ? words.__('priority %1', run.priority) : ''
  ].filter(Boolean);
}

/** Whether another agent can be reached, and asked by this user. */
export function agentWords(
  agent: Pick<IOtherAgent, 'online' | 'may_invoke'>,
  words: IWords
): { readonly tone: Tone; readonly word: string } {
  if (!agent.online) {
    return { tone: 'quiet', word: words.__('Offline') };
  }
  return agent.may_invoke
    ? { tone: 'good', word: words.__('Online') }
    : { tone: 'warn', word: words.__('Online, not yours to use') };
}

/** The packages in whose name, language or description all these words are. */
export function matching(packages: readonly IPackage[], typed: string): readonly IPackage[] {
  const wanted = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const has = (item: IPackage): boolean => {
    const text = `${item.name} ${item.language} ${item.description}`.toLowerCase();
    return wanted.every(word => text.includes(word));
  };
  return wanted.length ? packages.filter(has) : packages;
}

/** The state of the agent as one word and one sentence, and what should be done before it is too late. */
export interface IConnectionWords {
  readonly tone: Tone;
  readonly word: string;
  readonly sentence: string;
  readonly warning: string | null;
}

/** What the page knows about the agent: how far it can be reached, and what it said last. */
export type Reach = 'unknown' | 'missing' | 'unreachable' | 'answering';

export function connectionWords(
  reach: Reach,
  starting: boolean,
  status: IStatus | null,
  words: IWords
): IConnectionWords {
  const said = stateOfConnection(reach, starting, status, words);
  const warning = (reach === 'answering' && status?.warning) || null;
  return { ...said, tone: warning && said.tone === 'good' ? 'warn' : said.tone, warning };
}

function stateOfConnection(
  reach: Reach,
  starting: boolean,
  status: IStatus | null,
  words: IWords
): Omit<IConnectionWords, 'warning'> {
  if (reach === 'unreachable') {
    return {
      tone: 'bad',
      word: words.__('No connection'),
      sentence: words.__('The Jupyter server does not answer; this is tried again by itself.')
    };
  }
  if (reach === 'missing') {
    return {
      tone: 'bad',
      word: words.__('Not installed'),
      sentence: words.__(
        'The server extension is not enabled: run “jupyter server extension enable jupyter_agent” and restart Jupyter.'
      )
    };
  }
  if (starting) {
    return { tone: 'busy', word: words.__('Starting'), sentence: words.__('The agent is being started.') };
  }
  if (status === null) {
    return { tone: 'quiet', word: words.__('Looking'), sentence: words.__('Asking for the state of the agent.') };
  }
  if (status.agent === null) {
    return {
      tone: 'quiet',
      word: words.__('Not running'),
      sentence: status.error ?? words.__('Packages can be run when it is started.')
    };
  }
  if (status.error && (status.deaf || status.connected)) {
    return { tone: 'bad', word: words.__('Hears nothing'), sentence: status.error };
  }
  if (!status.connected) {
    return {
      tone: status.error ? 'bad' : 'busy',
      word: status.error ? words.__('Not connected') : words.__('Connecting'),
      sentence: status.error ?? words.__('The agent is connecting to OpenFlow.')
    };
  }
  return {
    tone: 'good',
    word: words.__('Connected'),
    sentence: status.openflow?.embedded ? words.__('Embedded hub') : words.__('OpenFlow')
  };
}
