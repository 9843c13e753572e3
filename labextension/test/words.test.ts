import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import type { IParameters } from '../src/parameters';
import { readParameters } from '../src/parameters';
import type { IPackage, IStatus } from '../src/shapes';
import {
  ago,
  agentWords,
  connectionWords,
  duration,
  elapsed,
  fraction,
  matching,
  peculiarities,
  resultValue,
  size,
  waiting
} from '../src/words';

const words = {
  __: (text: string, ...values: unknown[]) => text.replace(/%(\d)/g, (_, n: string) => String(values[Number(n) - 1])),
  _n: (one: string, many: string, n: number) => (n === 1 ? one : many)
};

const STATUS: IStatus = {
  agent: { pid: 1, version: '0', home: '/h', started: 0 },
  hub: null,
  openflow: { url: 'wss://flow', embedded: false, user: 'anna' },
  connected: true,
  slug: 'anna',
  queue: 'annaagent',
  error: null,
  warning: null,
  runs: { active: 0, queued: 0 }
};

void describe('words', () => {
  void it('says durations', () => {
    assert.deepEqual([0, 7_900, 754_000, 3_723_000, 176_523_000].map(duration), [
      '0:00',
      '0:07',
      '12:34',
      '1:02:03',
      '2 d 1:02:03'
    ]);
    assert.equal(duration(-5), '0:00');
  });

  void it('counts from the start, before it from the request, to the end', () => {
    const run = { state: 'running', created: '2025-01-01T00:00:00Z', started: null, ended: null } as const;
    const at = (seconds: number): string => new Date(Date.parse(run.created) + seconds * 1000).toISOString();
    assert.equal(elapsed(run, Date.parse(at(5))), 5000);
    assert.equal(elapsed({ ...run, started: at(2) }, Date.parse(at(5))), 3000);
    assert.equal(elapsed({ ...run, state: 'failed', started: at(2), ended: at(4) }, Date.parse(at(99))), 2000);
    assert.equal(elapsed({ ...run, state: 'lost' }, Date.parse(at(5))), null);
  });

  void it('says how long ago', () => {
    const now = Date.parse('2025-01-02T00:00:00Z');
    assert.equal(ago('2025-01-01T23:59:30Z', now, words), 'just now');
    assert.equal(ago('2025-01-01T23:50:00Z', now, words), '10 min ago');
    assert.equal(ago('2025-01-01T20:00:00Z', now, words), '4 h ago');
    assert.equal(ago('nonsense', now, words), '');
  });

  void it('says sizes', () => {
    assert.deepEqual([0, 812, 1400, 99_300, 152_340, 999_600, 3.2e9].map(size), [
      '0 B',
      '812 B',
      '1.4 kB',
      '99.3 kB',
      '152 kB',
      '1.0 MB',
      '3.2 GB'
    ]);
  });

  void it('knows which progress has figures', () => {
    assert.equal(fraction({ done: 3, total: 9, label: '' }), 1 / 3);
    assert.equal(fraction({ done: 12, total: 9, label: '' }), 1);
    assert.equal(fraction({ done: 3, total: 0, label: '' }), null);
    assert.equal(fraction(null), null);
  });

  void it('shows values without changing them', () => {
    assert.equal(resultValue('text'), 'text');
    assert.equal(resultValue(2.4187), '2.4187');
    assert.equal(resultValue(2015), '2015');
    assert.match(resultValue(1234567), /^1.?234.?567$/);
    assert.equal(resultValue({ a: [1, null] }), '{"a":[1,null]}');
    assert.equal(resultValue(null), 'null');
  });

  void it('says what is with the agent', () => {
    const say = (status: IStatus | null, starting = false): string =>
      connectionWords('answering', starting, status, words).word;
    assert.equal(say(null), 'Looking');
    assert.equal(say({ ...STATUS, agent: null, connected: false }), 'Not running');
    assert.equal(say({ ...STATUS, agent: null, connected: false }, true), 'Starting');
    assert.equal(say({ ...STATUS, connected: false }), 'Connecting');
    assert.equal(say({ ...STATUS, connected: false, error: 'Refused.' }), 'Not connected');
    assert.equal(say(STATUS), 'Connected');
    assert.equal(say({ ...STATUS, connected: false, deaf: true, error: 'The queue was refused.' }), 'Hears nothing');
    assert.equal(connectionWords('unreachable', false, STATUS, words).word, 'No connection');
    assert.equal(connectionWords('missing', false, null, words).tone, 'bad');
    assert.equal(connectionWords('answering', false, STATUS, words).sentence, 'OpenFlow');
  });

  void it('warns in time, whatever else is to be said', () => {
    const ending = { ...STATUS, warning: 'The token ends in 3 days.' };
    const { tone, word, warning } = connectionWords('answering', false, ending, words);
    assert.deepEqual([tone, word, warning], ['warn', 'Connected', ending.warning]);
    const away = connectionWords('answering', false, { ...ending, connected: false, error: 'Refused.' }, words);
    assert.deepEqual([away.tone, away.warning], ['bad', ending.warning]);
    assert.equal(connectionWords('unreachable', false, ending, words).warning, null);
    assert.equal(connectionWords('answering', false, STATUS, words).warning, null);
  });

  void it('finds packages by parts of what they are', () => {
    const item = (name: string, language: string, description: string): IPackage => ({
      ...{ id: name, version: '1', fileid: '', modified: null },
      ...{ name, language, description }
    });
    const all = [item('weather', 'notebook', 'Rain in Seattle'), item('bills', 'python', '')];
    const names = (typed: string): string[] => matching(all, typed).map(it => it.name);
    assert.deepEqual(
      [names(''), names('rain NOTE'), names('y'), names('rain python')],
      [['weather', 'bills'], ['weather'], ['bills'], []]
    );
  });

  void it('says what is unusual about a run', () => {
    const usual = { kind: 'run', attempt: 1, retries: 0, priority: 2, state: 'queued' } as const;
    assert.deepEqual(peculiarities(usual, words), []);
    assert.deepEqual(peculiarities({ ...usual, attempt: 2, retries: 2 }, words), ['attempt 2 of 3']);
    assert.deepEqual(peculiarities({ ...usual, kind: 'prepare', priority: 0 }, words), ['preparation', 'priority 0']);
    assert.deepEqual(peculiarities({ ...usual, priority: 0, state: 'running' }, words), []);
  });

  void it('says how long the next attempt is waited for', () => {
    const now = Date.parse('2025-01-02T00:00:00Z');
    const run = { state: 'queued', next_attempt: '2025-01-02T00:00:07.500Z' } as const;
    assert.equal(waiting(run, now, words), 'begins in 0:07');
    assert.equal(waiting({ ...run, state: 'running' }, now, words), '');
    assert.equal(waiting({ ...run, next_attempt: null }, now, words), '');
  });

  void it('says whether another agent can be reached', () => {
    const say = (online: boolean, may_invoke: boolean): string[] =>
      Object.values(agentWords({ online, may_invoke }, words));
    assert.deepEqual(say(true, true), ['good', 'Online']);
    assert.deepEqual(say(false, true), ['quiet', 'Offline']);
    assert.equal(say(true, false)[0], 'warn');
  });
});

void describe('parameters', () => {
  const read = (...rows: [string, string][]): IParameters =>
    readParameters(rows.map(([name, value]) => ({ name, value })));

  void it('are read from rows, empty ones passed over', () => {
    const { values, wrong } = read(['year', ' 2014 '], ['', ''], ['region', '"a = b"'], ['Größe', '']);
    assert.deepEqual(values, { year: '2014', region: '"a = b"', Größe: '' });
    assert.deepEqual(wrong, []);
  });

  void it('that cannot be used are named', () => {
    assert.deepEqual(read(['a', '1'], ['a', '2'], ['9b', '3'], ['', '4'], ['c d', '']).wrong, ['a', '9b', '', 'c d']);
    assert.deepEqual(Object.keys(read(['__proto__', '1']).values), ['__proto__']);
  });
});
