import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import type { IEnvironmentsAPI } from '../src/environments';
import { EnvironmentsModel } from '../src/environments';
import {
  canBeLocked,
  environmentDetail,
  environmentOf,
  explained,
  fromWhere,
  inContents,
  grouped,
  lockBeside,
  matchingEnvironments,
  matchingInstalled,
  onMachine,
  phaseDetail,
  runsInEnvironment,
  saysEnvironment,
  shortId,
  sortedInstalled,
  steps,
  wantsPyPI
} from '../src/environmentwords';
import type {
  ICollected,
  IEnvironment,
  IEnvironmentDetails,
  IInstalled,
  IProgress,
  IRun,
  IVerified
} from '../src/shapes';
import { runElsewhere } from '../src/shapes';
import type { IWords } from '../src/words';
import { fraction } from '../src/words';

const words: IWords = {
  __: (text, ...values) =>
    values.reduce<string>((made, value, index) => made.replace(`%${index + 1}`, String(value)), text),
  _n: (one, many, n, ...values) => words.__(n === 1 ? one : many, n, ...values)
};

function environment(id: string, more: Partial<IEnvironment> = {}): IEnvironment {
  return {
    id,
    name: id,
    kind: 'conda',
    origin: 'jupyter_agent',
    path: `/home/environments/${id}`,
    state: 'ready',
    python: '3.11.7',
    packages: 52,
    bytes: 1_400_000_000,
    made: '2025-01-01T00:00:00Z',
    used: null,
    source: null,
    used_by: [],
    ...more
  };
}

function installed(name: string, more: Partial<IInstalled> = {}): IInstalled {
  return { name, version: '1.0', build: null, manager: 'conda', channel: null, bytes: null, why: [], ...more };
}

function run(more: Partial<IRun> = {}): IRun {
  return runElsewhere({ id: 'r', state: 'preparing', kind: 'environment', ...more });
}

function progress(phase: string, label = phase, done = 0, total: number | null = null): IProgress {
  return { phase, label, done, total };
}

/** Environments as the API shows them. */
class World implements IEnvironmentsAPI {
  has: IEnvironment[] = [environment('a')];
  faults: IVerified['faults'] = [];
  calls: string[] = [];
  failing: string | null = null;
  gate: Promise<void> = Promise.resolve();

  private async answer<T>(call: string, value: () => T): Promise<T> {
    this.calls.push(call);
    if (this.failing !== null) {
      throw new Error(this.failing);
    }
    const made = structuredClone(value());
    await this.gate;
    return made;
  }

  environments(): Promise<IEnvironment[]> {
    return this.answer('list', () => this.has);
  }

  environment(): Promise<IEnvironmentDetails> {
    throw new Error('not asked for here');
  }

  make(): Promise<IRun> {
    return this.answer('make', run);
  }

  lock(): Promise<IRun> {
    return this.answer('lock', run);
  }

  verify(id: string): Promise<IVerified> {
    return this.answer('verify', () => ({ id, ok: !this.faults.length, faults: this.faults }));
  }

  repair(): Promise<IRun> {
    return this.answer('repair', run);
  }

  removeEnvironment(id: string): Promise<void> {
    this.has = this.has.filter(it => it.id !== id);
    return this.answer('remove', () => undefined);
  }

  cleanUp(options: { dry_run: boolean; days?: number }): Promise<ICollected> {
    const removed = this.has.map(({ id, path }) => ({ id, path, bytes: 5 }));
    if (!options.dry_run) {
      this.has = [];
    }
    return this.answer(`gc ${JSON.stringify(options)}`, () => ({ removed, bytes: 5 * removed.length }));
  }

  runIn(): Promise<IRun> {
    return this.answer('run', run);
  }

  sentence(error: unknown): string {
    return (error as Error).message;
  }
}

function made(world: World, isRunning = () => true): EnvironmentsModel {
  return new EnvironmentsModel({ api: world, isRunning });
}

void describe('the model of environments', () => {
  void it('reads nothing while no agent runs, so that looking starts none', async () => {
    const world = new World();
    const model = made(world, () => false);
    await model.refresh();
    assert.deepEqual(world.calls, []);
    assert.equal(model.environments, null);
  });

  void it('tells of changes only', async () => {
    const world = new World();
    const model = made(world);
    let changes = 0;
    model.changed.connect(() => changes++);
    await model.refresh();
    await model.refresh();
    assert.equal(changes, 1);
    world.has = [environment('a', { state: 'changed' })];
    await model.refresh();
    assert.equal(changes, 2);
    assert.equal(model.find('/home/environments/a')?.state, 'changed');
  });

  void it('reads once more for those who ask while it reads, and not more often', async () => {
    const world = new World();
    const model = made(world);
    let open = (): void => undefined;
    world.gate = new Promise(resolve => (open = resolve));
    const first = model.refresh();
    world.has = [];
    const others = [model.refresh(), model.refresh(), model.refresh()];
    open();
    await Promise.all([first, ...others]);
    assert.deepEqual(world.calls, ['list', 'list']);
    assert.deepEqual(model.environments, []);
  });

  void it('keeps what it knew when it cannot read, and says why', async () => {
    const world = new World();
    const model = made(world);
    await model.refresh();
    world.failing = 'The disk is full.';
    await model.refresh();
    assert.equal(model.problem, 'The disk is full.');
    assert.equal(model.environments?.length, 1);
    world.failing = null;
    await model.refresh();
    assert.equal(model.problem, null);
  });

  void it('keeps what was found in an environment until it is repaired', async () => {
    const world = new World();
    world.faults = [{ path: 'lib/x.py', package: 'x', what: 'changed' }];
    const model = made(world);
    const asked = model.verify('a');
    assert.equal(model.check('a')?.state, 'busy');
    assert.equal((await asked).ok, false);
    assert.equal(model.check('a')?.state, 'done');
    await model.repair('a');
    assert.equal(model.check('a'), undefined);
    world.failing = 'It is being made.';
    await assert.rejects(model.verify('a'), /being made/);
    assert.deepEqual(model.check('a'), { state: 'failed', problem: 'It is being made.' });
  });

  void it('reads again after something was removed', async () => {
    const world = new World();
    const model = made(world);
    await model.refresh();
    await model.remove('a');
    assert.deepEqual(model.environments, []);
    world.has = [environment('b')];
    const { bytes } = await model.cleanUp(0);
    assert.equal(bytes, 5);
    assert.deepEqual(model.environments, []);
    assert.ok(world.calls.includes('gc {"dry_run":false,"days":0}'));
  });
});

void describe('environments in words', () => {
  void it('shows ours first, the one used last at the top, then those of others by name', () => {
    const all = [
      environment('z', { origin: 'pixi' }),
      environment('b', { origin: 'conda' }),
      environment('a', { origin: 'conda' }),
      environment('old', { used: '2025-01-02T00:00:00Z' }),
      environment('new', { used: '2025-02-02T00:00:00Z' }),
      environment('other', { origin: 'poetry' as never })
    ];
    const shown = grouped(all).map(group => [group.origin, ...group.environments.map(it => it.id)].join(' '));
    assert.deepEqual(shown, ['jupyter_agent new old', 'conda a b', 'pixi z', 'poetry other']);
  });

  void it('finds environments and packages by words', () => {
    const all = [environment('weather', { source: 'environment.yml' }), environment('base', { origin: 'mamba' })];
    const names = (typed: string): string[] => matchingEnvironments(all, typed).map(it => it.id);
    assert.deepEqual(names('MAMBA'), ['base']);
    assert.deepEqual(names('environment.yml 3.11'), ['weather']);
    assert.deepEqual(names(' '), ['weather', 'base']);
    const packages = [installed('numpy', { why: ['pandas'] }), installed('pandas')];
    assert.deepEqual(
      matchingInstalled(packages, 'pandas').map(it => it.name),
      ['numpy', 'pandas']
    );
  });

  void it('sorts packages by what they say, the largest first', () => {
    const all = [
      installed('b', { version: '1.10', bytes: 5 }),
      installed('a', { version: '1.9', bytes: null }),
      installed('c', { version: '1.9', bytes: 50, channel: 'https://x.org/conda-forge/' })
    ];
    assert.equal(
      sortedInstalled(all, 'name')
        .map(it => it.name)
        .join(''),
      'abc'
    );
    assert.equal(
      sortedInstalled(all, 'version')
        .map(it => it.name)
        .join(''),
      'acb'
    );
    assert.equal(
      sortedInstalled(all, 'bytes')
        .map(it => it.name)
        .join(''),
      'cba'
    );
    assert.equal(all[0]?.name, 'b', 'what was given is left as it is');
    assert.deepEqual(all.map(fromWhere), ['conda', 'conda', 'conda-forge']);
    assert.equal(fromWhere({ manager: 'pip', channel: 'https://pypi.org/simple' }), 'PyPI');
  });

  void it('leaves out what is not known', () => {
    const now = Date.parse('2025-01-01T00:10:00Z');
    const known = environment('a', { used: '2025-01-01T00:05:00Z', used_by: ['1'] });
    assert.deepEqual(environmentDetail(known, now, words), ['52 packages', '1.4 GB', 'used 5 min ago', '1 run']);
    assert.deepEqual(environmentDetail(environment('b', { packages: null, bytes: null }), now, words), []);
  });

  void it('shortens ids and paths', () => {
    assert.equal(shortId('0123456789abcdef0123456789abcdef'), '0123456789');
    assert.equal(shortId('0123456789abcdef0123456789abcdef.2'), '0123456789');
    assert.equal(shortId('/opt/conda/envs/weather/'), 'weather');
    assert.equal(shortId('C:\\conda\\envs\\weather'), 'weather');
  });
});

void describe('the making of an environment', () => {
  const states = (of: IRun): string | undefined =>
    steps(of)
      ?.map(step => `${step.phase} ${step.state}`)
      .join(', ');

  void it('shows which step is under way, and where it failed', () => {
    assert.equal(
      states(run({ progress: progress('link') })),
      'solve done, download done, link now, pip todo, compile todo, check todo'
    );
    assert.equal(
      states(run({ state: 'failed', progress: progress('download') })),
      'solve done, download failed, link todo, pip todo, compile todo, check todo'
    );
  });

  void it('shows it for a package that waits for its environment, and not once that runs', () => {
    const preparing = run({ kind: 'run', progress: progress('solve') });
    assert.ok(states(preparing)?.startsWith('solve now'));
    assert.equal(states({ ...preparing, state: 'running' }), undefined);
    assert.equal(states(run({ kind: 'run', progress: { done: 1, total: 2, label: 'cell 1' } })), undefined);
  });

  void it('of a lock shows only what it goes through', () => {
    assert.equal(states(run({ language: 'lock', progress: progress('solve') })), 'solve now');
  });

  void it('says how far a step is without saying its name again', () => {
    assert.equal(phaseDetail(progress('download', 'download: 3 of 52, 1 MB', 3, 52)), '3 of 52, 1 MB');
    assert.equal(phaseDetail(progress('link', 'link', 3, 52)), '3 / 52');
    assert.equal(phaseDetail(progress('solve')), '');
    assert.equal(fraction(progress('solve', 'solve', 3, null)), null);
  });

  void it('keeps a solver’s explanation apart, with its lines as they were', () => {
    assert.deepEqual(explained('It cannot be solved:\n\n├─ a 1\n│  └─ b 2\n'), {
      sentence: 'It cannot be solved:',
      explanation: '├─ a 1\n│  └─ b 2'
    });
    assert.deepEqual(explained('One sentence.'), { sentence: 'One sentence.', explanation: null });
  });

  void it('offers PyPI where the agent does', () => {
    const error = 'The channel conda-forge cannot be reached. --channel-from-pypi makes it from PyPI.';
    assert.equal(wantsPyPI(run({ state: 'failed', error })), true);
    assert.equal(wantsPyPI(run({ state: 'failed', error: 'The disk is full.' })), false);
    assert.equal(wantsPyPI(run({ state: 'preparing', error })), false);
  });

  void it('knows the environment that a run used or made', () => {
    assert.equal(environmentOf(run({ kind: 'run', environment: 'abc' })), 'abc');
    assert.equal(environmentOf(run({ results: { environment: 'abc' } })), 'abc');
    assert.equal(environmentOf(run({ kind: 'run', results: { environment: 'a result of the package' } })), null);
  });
});

void describe('files', () => {
  void it('knows those that ask for an environment', () => {
    const say = ['environment.yml', 'a b/environment.yaml', 'conda.yml', 'conda-lock.yml', 'pyproject.toml'];
    const more = ['x/requirements.txt', 'requirements-dev.txt', 'environment-gpu.yml', 'dev.conda-lock.yml'];
    for (const path of [...say, ...more]) {
      assert.ok(saysEnvironment(path), path);
    }
    for (const path of ['environment.txt', 'requirements.md', 'my-conda.yml', 'a.ipynb', 'environment.yml/x.py']) {
      assert.ok(!saysEnvironment(path), path);
    }
    assert.ok(!canBeLocked('conda-lock.yml'));
    assert.ok(!canBeLocked('a/explicit.txt'));
    assert.ok(canBeLocked('requirements.txt'));
    assert.ok(runsInEnvironment('a/b.ipynb') && runsInEnvironment('b.py') && !runsInEnvironment('b.pyc'));
  });

  void it('knows where they lie', () => {
    assert.equal(onMachine('/srv/work/', 'a/environment.yml'), '/srv/work/a/environment.yml');
    assert.equal(onMachine('~', 'environment.yml'), '~/environment.yml');
    assert.equal(onMachine('', 'environment.yml'), null);
    assert.equal(inContents('/srv/work', '/srv/work/a/conda-lock.yml'), 'a/conda-lock.yml');
    assert.equal(inContents('/', '/srv/conda-lock.yml'), 'srv/conda-lock.yml');
    assert.equal(inContents('/srv/work', '/srv/workshop/conda-lock.yml'), null);
    assert.equal(inContents('~', '/home/ann/conda-lock.yml'), null);
    assert.equal(lockBeside('a/environment.yml'), 'a/conda-lock.yml');
    assert.equal(lockBeside('environment.yml'), 'conda-lock.yml');
  });
});
