import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import type { Change, IAgentAPI } from '../src/model';
import { AgentModel, RUNS_SHOWN } from '../src/model';
import type { IPackage, IRun, IStatus, RunState } from '../src/shapes';
import { agentEvent, hasEnded, supersedes } from '../src/shapes';
import type { Reach } from '../src/words';

function run(id: string, state: RunState, more: Partial<IRun> = {}): IRun {
  return {
    id,
    state,
    package: 'weather',
    package_id: 'p',
    version: '1.0.0',
    path: null,
    language: 'notebook',
    trigger: 'api',
    who: 'anna',
    parameters: {},
    created: `2025-01-01T00:00:${id.padStart(2, '0')}Z`,
    started: null,
    ended: null,
    exit_code: null,
    signal: null,
    progress: null,
    results: {},
    artifacts: [],
    error: null,
    peak_memory: null,
    cpu_s: null,
    output_size: 0,
    kind: 'run',
    priority: 2,
    retries: 0,
    attempt: 1,
    next_attempt: null,
    rerun_of: null,
    ...more
  };
}

/** An agent as its API shows it: what it has can be changed, and it can be away. */
class World implements IAgentAPI {
  pid: number | null = 1;
  reachNow: Reach = 'answering';
  has: IRun[] = [];
  published: IPackage[] = [];
  calls: string[] = [];
  clock = 1_000_000;
  /** Answers wait for this. */
  gate: Promise<void> = Promise.resolve();

  private async answer<T>(call: string, make: () => T): Promise<T> {
    this.calls.push(call);
    if (this.reachNow !== 'answering') {
      throw new Error('away');
    }
    const made = structuredClone(make());
    await this.gate;
    return made;
  }

  private count(...states: RunState[]): number {
    return this.has.filter(it => states.includes(it.state)).length;
  }

  status(): Promise<IStatus> {
    const make = (): IStatus => ({
      agent: this.pid === null ? null : { pid: this.pid, version: '0', home: '/h', started: 0 },
      hub: null,
      connected: this.pid !== null,
      slug: null,
      queue: null,
      error: null,
      warning: null,
      runs: { active: this.count('preparing', 'running'), queued: this.count('queued') }
    });
    return this.answer('status', make);
  }

  start(): Promise<IStatus> {
    this.pid ??= 2;
    return this.status();
  }

  packages(): Promise<IPackage[]> {
    return this.answer('packages', () => this.published);
  }

  runs(limit: number, state?: RunState): Promise<{ runs: IRun[]; cursor: null }> {
    const newest = (): IRun[] =>
      this.has.filter(it => state === undefined || it.state === state).sort((a, b) => (a.created < b.created ? 1 : -1));
    return this.answer('runs', () => ({ runs: newest().slice(0, limit), cursor: null }));
  }

  run(id: string): Promise<IRun> {
    return this.answer('run', () => {
      const found = this.has.find(it => it.id === id);
      if (!found) {
        throw new Error(`There is no run ${id}.`);
      }
      return found;
    });
  }

  launch(): Promise<IRun> {
    const made = run(String(this.has.length + 1), 'queued');
    this.has.push(made);
    return this.answer('launch', () => made);
  }

  cancel(id: string): Promise<IRun> {
    this.has = this.has.map(it => (it.id === id ? { ...it, state: 'cancelled' } : it));
    return this.run(id);
  }

  prepare(): Promise<IRun> {
    return this.launch();
  }

  rerun(id: string): Promise<IRun> {
    const made = run(String(this.has.length + 1), 'queued', { rerun_of: id });
    this.has.push(made);
    return this.answer('rerun', () => made);
  }

  reinstall(): Promise<{ cancelled: number }> {
    return this.answer('reinstall', () => ({ cancelled: 0 }));
  }

  remove(id: string): Promise<null> {
    this.published = this.published.filter(it => it.id !== id);
    return this.answer('remove', () => null);
  }

  publish(path: string): Promise<IPackage> {
    const made = {
      id: path,
      name: path,
      version: '1',
      language: 'python',
      description: '',
      fileid: '',
      modified: null
    };
    this.published.push(made);
    return this.answer('publish', () => made);
  }

  output(): Promise<never> {
    throw new Error('not asked for here');
  }

  judge(error: unknown): { reach: Reach; sentence: string } {
    return { reach: this.reachNow, sentence: (error as Error).message };
  }

  now(): number {
    return this.clock;
  }
}

function watched(world: World): { model: AgentModel; changes: Change[] } {
  const model = new AgentModel({ api: world });
  const changes: Change[] = [];
  model.changed.connect((_, change) => {
    changes.push(change);
  });
  return { model, changes };
}

async function until(condition: () => boolean): Promise<void> {
  const end = Date.now() + 5000;
  while (!condition()) {
    assert.ok(Date.now() < end, 'this did not come about');
    await new Promise(resolve => setTimeout(resolve, 5));
  }
}

function ids(model: AgentModel): string[] | undefined {
  return model.runs?.map(it => it.id);
}

void describe('the model', () => {
  void it('reads everything and then only tells of what changed', async () => {
    const world = new World();
    world.has = [run('1', 'succeeded'), run('2', 'running')];
    const { model, changes } = watched(world);
    await model.refresh();
    assert.deepEqual(ids(model), ['2', '1']);
    assert.deepEqual(model.packages, []);
    assert.equal(model.running, true);
    changes.length = 0;
    await model.refresh();
    assert.deepEqual(changes, []);
    world.has = world.has.filter(it => it.id !== '1');
    await model.refresh();
    assert.deepEqual(changes, ['runs']);
    assert.deepEqual(ids(model), ['2']);
  });

  void it('asks a home without an agent for nothing else, so that none is started', async () => {
    const world = new World();
    world.pid = null;
    const { model } = watched(world);
    await model.refresh();
    assert.deepEqual(world.calls, ['status']);
    assert.equal(model.runs, null);
    await model.start();
    assert.equal(model.running, true);
    assert.deepEqual(model.runs, []);
  });

  void it('keeps what an event said against an older answer', async () => {
    const world = new World();
    world.has = [run('1', 'running')];
    const { model } = watched(world);
    await model.refresh();
    let open = (): void => undefined;
    world.gate = new Promise(resolve => {
      open = resolve;
    });
    const reading = model.refresh();
    model.apply({ run: run('1', 'succeeded') });
    model.apply({ run: run('2', 'queued') });
    open();
    await reading;
    assert.deepEqual(
      model.runs?.map(it => [it.id, it.state]),
      [
        ['2', 'queued'],
        ['1', 'succeeded']
      ]
    );
  });

  void it('tells of a run each time it changes, and only then', async () => {
    const { model } = watched(new World());
    const told: string[] = [];
    model.runChanged.connect((_, it) => {
      told.push(`${it.state} ${it.output_size}`);
    });
    model.apply({ run: run('1', 'running') });
    model.apply({ run: run('1', 'running') });
    model.apply({ run: run('1', 'running', { output_size: 5 }) });
    model.apply({ run: run('1', 'preparing') });
    model.apply({ run: run('1', 'failed', { output_size: 5 }) });
    assert.deepEqual(told, ['running 0', 'running 5', 'failed 5']);
    await model.refresh();
  });

  void it('says of runs started here that they ended, once', async () => {
    const world = new World();
    const { model } = watched(world);
    const ended: string[] = [];
    model.runEnded.connect((_, it) => {
      ended.push(it.id);
    });
    const mine = await model.launch('p', {});
    model.apply({ run: run('9', 'succeeded') });
    model.apply({ run: { ...mine, state: 'running' } });
    model.apply({ run: { ...mine, state: 'succeeded' } });
    model.apply({ run: { ...mine, state: 'succeeded', output_size: 3 } });
    assert.deepEqual(ended, [mine.id]);
  });

  void it('follows a run from one attempt to the next', async () => {
    const { model } = watched(new World());
    const ended: string[] = [];
    model.runEnded.connect((_, it) => {
      ended.push(`${it.state} ${it.attempt}`);
    });
    const mine = await model.launch('p', { retries: 1 });
    const first = { ...mine, retries: 1, attempt: 1 };
    const second = { ...first, attempt: 2 };
    model.apply({ run: { ...first, state: 'running', output_size: 5 } });
    model.apply({ run: { ...second, state: 'queued', output_size: 5, error: 'Attempt 1 of 2 failed: no rain' } });
    assert.equal(model.find(mine.id)?.state, 'queued');
    model.apply({ run: { ...first, state: 'running', output_size: 4 } });
    assert.equal(model.find(mine.id)?.attempt, 2);
    model.apply({ run: { ...second, state: 'running', output_size: 5 } });
    model.apply({ run: { ...second, state: 'succeeded', output_size: 9 } });
    assert.deepEqual(ended, ['succeeded 2']);
    await model.refresh();
  });

  void it('cancels what runs of a package, and only that', async () => {
    const world = new World();
    world.has = [
      run('1', 'running'),
      run('2', 'queued'),
      run('3', 'failed'),
      run('4', 'running', { package_id: 'another' })
    ];
    const { model } = watched(world);
    assert.equal(await model.cancelAll('p'), 2);
    assert.deepEqual(
      world.has.map(it => it.state),
      ['cancelled', 'cancelled', 'failed', 'running']
    );
    assert.deepEqual(model.liveOf('p'), []);
    assert.equal(await model.cancelAll('p'), 0);
  });

  void it('knows what was published and removed here without waiting for news', async () => {
    const { model } = watched(new World());
    await model.refresh();
    await model.publish('/a');
    assert.deepEqual(
      model.packages?.map(it => it.name),
      ['/a']
    );
    await model.remove('/a');
    assert.deepEqual(model.packages, []);
  });

  void it('shows at once that a run was cancelled', async () => {
    const world = new World();
    const { model } = watched(world);
    const mine = await model.launch('p', {});
    await model.cancel(mine.id);
    assert.equal(model.find(mine.id)?.state, 'cancelled');
    assert.equal(model.runs?.[0]?.state, 'cancelled');
  });

  void it('lists what is under way even when it is older than the newest', async () => {
    const world = new World();
    world.has = Array.from({ length: RUNS_SHOWN + 9 }, (_, index) =>
      run(String(index), index === 0 ? 'running' : 'succeeded', { created: new Date(index * 1000).toISOString() })
    );
    const { model } = watched(world);
    await model.refresh();
    assert.equal(model.runs?.length, RUNS_SHOWN + 1);
    assert.equal(model.runs.at(-1)?.id, '0');
    assert.equal(model.runs.filter(it => !hasEnded(it)).length, 1);
  });

  void it('loads a run that is not in the list without putting it there', async () => {
    const world = new World();
    const { model } = watched(world);
    await model.refresh();
    world.has = [run('1', 'succeeded')];
    await model.load('1');
    assert.equal(model.find('1')?.state, 'succeeded');
    assert.deepEqual(ids(model), []);
    await assert.rejects(model.load('7'), /no run 7/);
  });

  void it('says when nothing answers, and recovers by itself', async () => {
    const world = new World();
    const { model, changes } = watched(world);
    await model.refresh();
    world.reachNow = 'unreachable';
    changes.length = 0;
    await model.refresh();
    assert.deepEqual([model.reach, model.running, model.problem], ['unreachable', false, 'away']);
    assert.deepEqual(changes, ['status']);
    world.reachNow = 'answering';
    await model.refresh();
    assert.deepEqual([model.reach, model.running, model.problem], ['answering', true, null]);
  });

  void it('reads all again when another agent runs than before', async () => {
    const world = new World();
    const { model } = watched(world);
    await model.refresh();
    world.has = [run('1', 'lost')];
    world.pid = 7;
    model.apply({ status: await world.status() });
    await model.refresh();
    assert.deepEqual(ids(model), ['1']);
  });

  void it('asks for packages seldom: when there is news of them, or of the connection', async () => {
    const world = new World();
    const { model } = watched(world);
    const asked = (): number => world.calls.filter(call => call === 'packages').length;
    await model.refresh();
    await model.refresh();
    assert.equal(asked(), 1);
    for (let n = 0; n < 100; n++) {
      model.apply({ package: { id: `p${n}`, operation: 'insert' } });
    }
    await until(() => asked() === 2);
    model.apply({ package: { id: 'p', operation: 'delete' } });
    await until(() => asked() === 3);
    const status = await world.status();
    model.apply({ status: { ...status, connected: false } });
    await model.refresh();
    assert.equal(asked(), 4);
    world.clock += 10 * 60_000;
    await model.refresh();
    assert.equal(asked(), 5);
    model.apply({ status: { ...status, connected: false, deaf: true, error: 'Refused.' } });
    assert.deepEqual([model.running, model.usable], [true, true]);
    model.apply({ status: { ...status, connected: false } });
    assert.equal(model.usable, false);
  });

  void it('shares rounds of reading, and sees what happened before the last was asked for', async () => {
    const world = new World();
    const { model } = watched(world);
    const rounds = [model.refresh(), model.refresh(), model.refresh()];
    world.has = [run('1', 'queued')];
    await Promise.all(rounds);
    assert.equal(world.calls.filter(call => call === 'status').length, 2);
    assert.deepEqual(ids(model), ['1']);
  });
});

void describe('shapes', () => {
  void it('a run only moves forward', () => {
    assert.equal(supersedes(run('1', 'running'), undefined), true);
    assert.equal(supersedes(run('1', 'running'), run('1', 'preparing', { output_size: 9 })), true);
    assert.equal(supersedes(run('1', 'running'), run('1', 'lost')), false);
    assert.equal(supersedes(run('1', 'running'), run('1', 'running', { output_size: 9 })), false);
  });

  void it('events of others are none of ours', () => {
    const schema = 'https://schema.jupyter.org/jupyter_agent/';
    assert.equal(agentEvent({ schema_id: 'https://events.jupyter.org/x/v1', run: {} }), null);
    assert.equal(agentEvent({ schema_id: `${schema}other/v1` }), null);
    assert.equal(agentEvent({}), null);
    assert.equal(agentEvent({ schema_id: `${schema}run/v1`, run: run('1', 'queued') })?.run?.id, '1');
    assert.deepEqual(agentEvent({ schema_id: `${schema}package/v1`, id: 'p', operation: 'insert' }), {
      package: { id: 'p', operation: 'insert' }
    });
  });
});
