import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { OutputReader } from '../src/outputreader';
import type { IPage, RunState } from '../src/shapes';

/** A log that grows: a page holds at most two chunks. */
class Log {
  texts: string[] = [];
  ended = false;
  reads = 0;
  broken = false;

  async read(offset: number): Promise<IPage> {
    this.reads++;
    await Promise.resolve();
    if (this.broken) {
      throw new Error('away');
    }
    const texts = this.texts.slice(offset, offset + 2);
    const next = offset + texts.length;
    return {
      chunks: texts.map(text => ({ stream: 'stdout', time: 0, text })),
      next,
      complete: this.ended && next === this.texts.length
    };
  }

  get now(): { state: RunState; output_size: number } {
    return { state: this.ended ? 'succeeded' : 'running', output_size: this.texts.join('').length };
  }
}

function follow(log: Log): { reader: OutputReader; shown: string[]; failures: unknown[]; done: () => number } {
  const shown: string[] = [];
  const failures: unknown[] = [];
  let done = 0;
  const reader = new OutputReader({
    read: offset => log.read(offset),
    show: chunks => {
      shown.push(...chunks.map(chunk => chunk.text));
    },
    done: () => {
      done++;
    },
    failed: error => {
      failures.push(error);
    }
  });
  return { reader, shown, failures, done: () => done };
}

void describe('reading output', () => {
  void it('reads all there is, then waits to be told of more', async () => {
    const log = new Log();
    const { reader, shown, done } = follow(log);
    log.texts = ['a', 'b', 'c', 'd', 'e'];
    await reader.poke(log.now);
    assert.deepEqual(shown, ['a', 'b', 'c', 'd', 'e']);
    const reads = log.reads;
    await reader.poke(log.now);
    assert.equal(log.reads, reads, 'nothing new: nothing is read');
    log.texts.push('f');
    await reader.poke(log.now);
    assert.equal(shown.at(-1), 'f');
    assert.equal(done(), 0);
    log.ended = true;
    await reader.poke(log.now);
    assert.equal(done(), 1);
    assert.equal(reader.complete, true);
    await reader.poke(log.now);
    assert.equal(done(), 1);
  });

  void it('does not miss what comes while it reads', async () => {
    const log = new Log();
    const { reader, shown } = follow(log);
    log.texts = ['a'];
    const first = reader.poke(log.now);
    log.texts.push('b');
    await reader.poke(log.now);
    await first;
    assert.deepEqual(shown, ['a', 'b']);
  });

  void it('goes on after a failure, each text once', async () => {
    const log = new Log();
    const { reader, shown, failures } = follow(log);
    log.texts = ['a'];
    await reader.poke(log.now);
    log.texts.push('b');
    log.broken = true;
    await reader.poke(log.now);
    assert.equal(failures.length, 1);
    log.broken = false;
    await reader.poke(log.now);
    assert.deepEqual(shown, ['a', 'b']);
  });

  void it('shows nothing any more once it is disposed', async () => {
    const log = new Log();
    const { reader, shown } = follow(log);
    log.texts = ['a'];
    const reading = reader.poke(log.now);
    reader.dispose();
    await reading;
    assert.deepEqual(shown, []);
  });
});
