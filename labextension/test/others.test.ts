import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { jsonLines, Lines } from '../src/lines';
import type { IOthersAPI, IToldRun } from '../src/others';
import { OTHERS_MS, OthersModel } from '../src/others';
import { OtherRun } from '../src/runsource';
import type { IChunk, IOtherAgent, IOtherRun } from '../src/shapes';

function agent(slug: string, more: Partial<IOtherAgent> = {}): IOtherAgent {
  return {
    id: slug,
    slug,
    name: slug,
    hostname: 'host',
    os: 'linux',
    arch: 'x64',
    languages: ['python'],
    chrome: false,
    chromium: false,
    version: '1',
    lastseen: null,
    online: true,
    self: false,
    may_invoke: true,
    ...more
  };
}

/** Other agents as the API shows them. */
class World implements IOthersAPI {
  has: IOtherAgent[] = [agent('b'), agent('me', { self: true }), agent('c', { online: false }), agent('a')];
  live: IOtherRun[] = [];
  calls: string[] = [];
  clock = 1_000_000;
  failing: string | null = null;
  /** What the streams say, one after the other; an error breaks one off. */
  streams: (object | Error)[][] = [];
  offsets: number[] = [];

  private async answer<T>(call: string, value: T): Promise<T> {
    this.calls.push(call);
    if (this.failing !== null) {
      throw new Error(this.failing);
    }
    return structuredClone(value);
  }

  agents(): Promise<IOtherAgent[]> {
    return this.answer('agents', this.has);
  }

  runsOn(slug: string): Promise<IOtherRun[]> {
    return this.answer(`runs ${slug}`, this.live);
  }

  runOn(_: string, id: string): Promise<IToldRun> {
    return this.answer('run', { id, package: 'weather', state: 'running' });
  }

  launchOn(_: string, target: string): Promise<IToldRun> {
    const id = String(this.live.length + 1);
    this.live.push({ id, package: target, package_id: target, schedule: null, output_size: 0 });
    return this.answer('launch', { id });
  }

  async cancelOn(_: string, id: string): Promise<void> {
    this.live = this.live.filter(it => it.id !== id);
    await this.answer('cancel', null);
  }

  async cancelAllOn(): Promise<void> {
    this.live = [];
    await this.answer('cancel all', null);
  }

  prepareOn(): Promise<IToldRun> {
    return this.answer('prepare', { id: 'p', kind: 'prepare' });
  }

  async reinstallOn(): Promise<void> {
    await this.answer('reinstall', null);
  }

  async *streamOn(_: string, __: string, offset: number): AsyncGenerator<object> {
    this.offsets.push(offset);
    for (const line of this.streams.shift() ?? []) {
      if (line instanceof Error) {
        throw line;
      }
      yield line;
    }
  }

  sentence(error: unknown): string {
    return (error as Error).message;
  }

  isFinal(error: unknown): boolean {
    return this.sentence(error).startsWith('There is no');
  }

  now(): number {
    return this.clock;
  }
}

function made(world: World, isConnected = () => true): OthersModel {
  return new OthersModel({ api: world, isConnected });
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 5000;
  while (!condition()) {
    assert.ok(Date.now() < end, 'this did not come about');
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

void describe('other agents', () => {
  void it('are listed without this one, those online first', async () => {
    const model = made(new World());
    await model.refresh();
    assert.deepEqual(
      model.agents?.map(it => it.slug),
      ['a', 'b', 'c']
    );
  });

  void it('are asked seldom, and their runs only while they are unfolded', async () => {
    const world = new World();
    const model = made(world);
    await model.refresh();
    await model.refresh();
    assert.deepEqual(world.calls, ['agents']);
    model.unfold('a', true);
    await until(() => model.there('a').runs !== null);
    model.unfold('c', true);
    await model.refresh();
    assert.deepEqual(world.calls, ['agents', 'runs a'], 'neither too early nor one that is offline');
    world.clock += OTHERS_MS.runs;
    await model.refresh();
    assert.deepEqual(world.calls, ['agents', 'runs a', 'runs a']);
    model.unfold('a', false);
    world.clock += OTHERS_MS.agents;
    await model.refresh();
    assert.deepEqual(world.calls, ['agents', 'runs a', 'runs a', 'agents']);
    await model.refresh(true);
    assert.equal(world.calls.length, 5);
  });

  void it('are read once for all who ask at the same time', async () => {
    const world = new World();
    const model = made(world);
    const [first, second] = [model.refresh(), model.refresh(true)];
    await second;
    assert.equal(model.agents?.length, 3);
    await first;
    assert.deepEqual(world.calls, ['agents']);
  });

  void it('are not asked for while there is no OpenFlow', async () => {
    const world = new World();
    await made(world, () => false).refresh(true);
    assert.deepEqual(world.calls, []);
  });

  void it('that do not answer are told of, keep what was known and are left in peace for a while', async () => {
    const world = new World();
    const model = made(world);
    await model.launch('a', 'p', {});
    await model.refresh();
    model.unfold('a', true);
    await until(() => model.there('a').runs !== null);
    world.failing = 'a does not answer.';
    world.clock += OTHERS_MS.agents;
    await model.refresh();
    assert.deepEqual([model.problem, model.there('a').problem], [world.failing, world.failing]);
    assert.equal(model.there('a').runs?.length, 1);
    assert.equal(model.agents?.length, 3);
    world.failing = null;
    world.clock += OTHERS_MS.agents;
    const asked = world.calls.length;
    await model.refresh();
    assert.equal(world.calls.length, asked);
    world.clock += OTHERS_MS.silent;
    await model.refresh();
    assert.deepEqual([model.problem, model.there('a').problem], [null, null]);
  });

  void it('show at once what was started and cancelled from here', async () => {
    const world = new World();
    const model = made(world);
    await model.refresh();
    model.unfold('a', true);
    await until(() => model.there('a').runs?.length === 0);
    const { id } = await model.launch('a', 'p', {});
    await until(() => model.there('a').runs?.length === 1);
    await model.cancel('a', id);
    await until(() => model.there('a').runs?.length === 0);
  });
});

void describe('a run of another agent', () => {
  const ended = { run: { id: '1', package: 'weather', state: 'succeeded', output_size: 8 } };
  const chunk = (text: string, next?: number): object => ({
    stream: 'stdout',
    time: 0,
    text,
    ...(next ? { next } : {})
  });

  function followed(world: World): { run: OtherRun; shown: string[] } {
    const run = new OtherRun({ others: made(world), slug: 'a', id: '1', now: () => 0 });
    const shown: string[] = [];
    run.follow(async (chunks: readonly IChunk[]) => {
      shown.push(...chunks.map(it => it.text));
    });
    run.setVisible(true);
    return { run, shown };
  }

  void it('is shown from its stream until it has ended', async () => {
    const world = new World();
    world.streams = [[chunk('one', 4), { run: { id: '1', state: 'running' } }, chunk('two', 8), ended]];
    const { run, shown } = followed(world);
    await until(() => run.complete);
    assert.deepEqual(shown, ['one', 'two']);
    assert.deepEqual([run.run?.state, run.run?.package, run.contact], ['succeeded', 'weather', true]);
    run.dispose();
  });

  void it('goes on where the stream broke off', async () => {
    const world = new World();
    world.streams = [
      [chunk('one', 4), chunk('tw'), new Error('broken')],
      [chunk('tw'), chunk('o', 8), ended]
    ];
    const { run, shown } = followed(world);
    await until(() => run.trouble === 'broken');
    assert.equal(run.contact, false);
    await until(() => run.complete);
    assert.deepEqual([shown, world.offsets, run.trouble], [['one', 'tw', 'o'], [0, 4], null]);
    run.dispose();
  });

  void it('has no connection while nobody sees it, and goes on where it was', async () => {
    const world = new World();
    world.streams = [
      [chunk('one', 4), chunk('not yet', 8), ended],
      [chunk('two', 8), ended]
    ];
    const run = new OtherRun({ others: made(world), slug: 'a', id: '1', now: () => 0 });
    const shown: string[] = [];
    run.follow(async (chunks: readonly IChunk[]) => {
      shown.push(...chunks.map(it => it.text));
      run.setVisible(false);
    });
    await until(() => run.run !== undefined);
    assert.deepEqual(world.offsets, [], 'nobody has seen it yet');
    run.setVisible(true);
    await until(() => shown.length === 1);
    run.setVisible(true);
    await until(() => shown.length === 2);
    run.setVisible(true);
    await until(() => run.complete || world.offsets.length === 3);
    assert.deepEqual(
      [shown, world.offsets.slice(0, 2)],
      [
        ['one', 'two'],
        [0, 4]
      ]
    );
    run.dispose();
  });

  void it('that is not there is told of once, and not asked for again', async () => {
    const world = new World();
    world.failing = 'There is no run 1.';
    world.streams = [[new Error(world.failing)]];
    const { run } = followed(world);
    await until(() => run.complete);
    assert.deepEqual([run.run, run.trouble, world.offsets], [undefined, world.failing, [0]]);
    run.dispose();
  });
});

void describe('lines', () => {
  void it('are put together from pieces', () => {
    const lines = new Lines();
    assert.deepEqual([lines.push('a'), lines.push('b\nc\n\nd'), lines.push('\n')], [[], ['ab', 'c', ''], ['d']]);
  });

  void it('of JSON come one by one, through heartbeats and letters cut in two', async () => {
    const bytes = new TextEncoder().encode('{"a":"ü"}\n\n{"a":2}\n{"a":');
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const byte of bytes) {
          controller.enqueue(Uint8Array.of(byte));
        }
        controller.close();
      }
    });
    const read: unknown[] = [];
    for await (const line of jsonLines(body)) {
      read.push(line);
    }
    assert.deepEqual(read, [{ a: 'ü' }, { a: 2 }]);
  });
});
