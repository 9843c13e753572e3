/**
 * What the page knows of the agent: its status, the packages, the runs.
 *
 * Changes come from Jupyter's event stream (`apply`) and from reading all of it again (`refresh`), which is done when
 * the page opens, when events may have been missed, and at a slow pace in between. Decides what is current and says
 * what changed; it refuses to know the page, and of the network only the few calls in `IAgentAPI`.
 */

import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { IAgentEvent, IPackage, IPage, IRun, IRunPage, IStatus, RunState } from './shapes';
import { hasEnded, LIVE, supersedes } from './shapes';
import type { Reach } from './words';

export interface ILaunch {
  readonly parameters_yaml?: Readonly<Record<string, string>>;
  readonly priority?: number;
  readonly retries?: number;
}

/** What is to be different when the same is run once more. */
export interface IAgain {
  readonly from_pypi?: boolean;
}

/** The calls of the API that the page makes. Each rejects with an error whose message is a sentence for the user. */
export interface IAgentAPI {
  status(): Promise<IStatus>;
  start(): Promise<IStatus>;
  packages(): Promise<readonly IPackage[]>;
  /** The newest runs, of one state where it is given. */
  runs(limit: number, state?: RunState): Promise<IRunPage>;
  run(id: string): Promise<IRun>;
  launch(packageId: string, launch: ILaunch): Promise<IRun>;
  /** Make everything ready that a package's runs need; a run whose output is the log of it. */
  prepare(packageId: string): Promise<IRun>;
  /** Cancel a package's runs and forget what was fetched and made of it. */
  reinstall(packageId: string): Promise<{ readonly cancelled: number }>;
  /** Remove a package from OpenFlow. */
  remove(packageId: string): Promise<unknown>;
  /** Pack a folder of the agent's machine and publish it. */
  publish(path: string): Promise<Pick<IPackage, 'id' | 'name' | 'version'>>;
  cancel(id: string): Promise<IRun>;
  /** Run the same once more; from PyPI where no channel can be reached, when that is asked for. */
  rerun(id: string, options?: IAgain): Promise<IRun>;
  output(id: string, offset: number): Promise<IPage>;
  /** How far away the other side is, judged by how a call failed, and a sentence for the user. */
  judge(error: unknown): { readonly reach: Reach; readonly sentence: string };
  /** Milliseconds since the epoch by the server's clock, which wrote the times of the runs. */
  now(): number;
}

/** How many runs the list holds. */
export const RUNS_SHOWN = 50;

/** Packages are asked of OpenFlow, which counts requests: without news about them they are read again this seldom. */
const PACKAGES_MS = 5 * 60_000;

/** After the first news about packages it is waited so long for more. */
const NEWS_MS = 300;

/** What changed: listeners that show something else need not look. */
export type Change = 'status' | 'packages' | 'runs';

export interface IAgentModel {
  readonly changed: ISignal<IAgentModel, Change>;
  /** A run as it is now, each time it changes. */
  readonly runChanged: ISignal<IAgentModel, IRun>;
  /** A run that was started from this page has ended. */
  readonly runEnded: ISignal<IAgentModel, IRun>;
  readonly reach: Reach;
  /** What went wrong when the agent was last asked for what it has; `null` when nothing did. */
  readonly problem: string | null;
  readonly starting: boolean;
  /** `null` until it was read, and while no agent can be asked. */
  readonly status: IStatus | null;
  /** `null` until they were read. */
  readonly packages: readonly IPackage[] | null;
  /** Newest first; `null` until they were read. */
  readonly runs: readonly IRun[] | null;
  readonly running: boolean;
  /** Whether it can be asked for what is on OpenFlow. */
  readonly usable: boolean;
  now(): number;
  find(id: string): IRun | undefined;
  refresh(): Promise<void>;
  start(): Promise<void>;
  launch(packageId: string, launch: ILaunch): Promise<IRun>;
  prepare(packageId: string): Promise<IRun>;
  reinstall(packageId: string): Promise<number>;
  remove(packageId: string): Promise<void>;
  publish(path: string): Promise<Pick<IPackage, 'id' | 'name' | 'version'>>;
  cancel(id: string): Promise<IRun>;
  cancelAll(packageId: string): Promise<number>;
  rerun(id: string, options?: IAgain): Promise<IRun>;
  /** Take in a run that was asked for from this page by another call. */
  begun(asked: Promise<IRun>): Promise<IRun>;
  /** The runs of a package that have not ended. */
  liveOf(packageId: string): readonly IRun[];
  load(id: string): Promise<IRun>;
  output(id: string, offset: number): Promise<IPage>;
}

export class AgentModel implements IAgentModel {
  constructor(options: { api: IAgentAPI }) {
    this._api = options.api;
  }

  get changed(): ISignal<this, Change> {
    return this._changed;
  }

  get runChanged(): ISignal<this, IRun> {
    return this._runChanged;
  }

  get runEnded(): ISignal<this, IRun> {
    return this._runEnded;
  }

  get reach(): Reach {
    return this._reach;
  }

  get problem(): string | null {
    return this._problem;
  }

  get starting(): boolean {
    return this._starting;
  }

  get status(): IStatus | null {
    return this._status;
  }

  get packages(): readonly IPackage[] | null {
    return this._packages;
  }

  get runs(): readonly IRun[] | null {
    return this._runs;
  }

  /** Whether an agent answers. */
  get running(): boolean {
    return this._reach === 'answering' && this._status?.agent != null;
  }

  get usable(): boolean {
    return this.running && this._status !== null && isUsable(this._status);
  }

  now(): number {
    return this._api.now();
  }

  find(id: string): IRun | undefined {
    return this._known.get(id);
  }

  /** Take in an event of the agent. */
  apply(event: IAgentEvent): void {
    if (event.status && this._take(event.status)) {
      void this.refresh();
    }
    if (event.run) {
      this._hear(event.run);
    }
    if (event.package) {
      this._hearOfPackages();
    }
  }

  /**
   * Read everything again. Never rejects: what is wrong shows in `reach`. Calls while one is under way share the next
   * round, so that what they saw happen is in it.
   */
  refresh(): Promise<void> {
    if (this._round === null) {
      this._round = this._read().finally(() => {
        this._round = null;
      });
      return this._round;
    }
    this._nextRound ??= this._round.then(() => {
      this._nextRound = null;
      return this.refresh();
    });
    return this._nextRound;
  }

  /** Start the agent; rejects with the sentence that says why it did not start. */
  async start(): Promise<void> {
    if (this._starting) {
      return;
    }
    this._starting = true;
    this._changed.emit('status');
    try {
      this._take(await this._api.start());
    } finally {
      this._starting = false;
      this._changed.emit('status');
    }
    await this.refresh();
  }

  /** Run a package (by its id or name). */
  launch(packageId: string, launch: ILaunch): Promise<IRun> {
    return this.begun(this._api.launch(packageId, launch));
  }

  prepare(packageId: string): Promise<IRun> {
    return this.begun(this._api.prepare(packageId));
  }

  rerun(id: string, options?: IAgain): Promise<IRun> {
    return this.begun(this._api.rerun(id, options));
  }

  /** How many runs were cancelled for it. */
  async reinstall(packageId: string): Promise<number> {
    const { cancelled } = await this._api.reinstall(packageId);
    void this.refresh();
    return cancelled;
  }

  async remove(packageId: string): Promise<void> {
    await this._api.remove(packageId);
    await this._quietly(() => this._readPackages());
  }

  async publish(path: string): Promise<Pick<IPackage, 'id' | 'name' | 'version'>> {
    const published = await this._api.publish(path);
    await this._quietly(() => this._readPackages());
    return published;
  }

  liveOf(packageId: string): readonly IRun[] {
    return (this._runs ?? []).filter(run => run.package_id === packageId && !hasEnded(run));
  }

  /** Cancel what runs of a package; how many that were. Rejects with the first failure, after all were tried. */
  async cancelAll(packageId: string): Promise<number> {
    await this.refresh();
    const outcomes = await Promise.allSettled(this.liveOf(packageId).map(run => this.cancel(run.id)));
    const failed = outcomes.find(it => it.status === 'rejected');
    if (failed) {
      throw failed.reason;
    }
    return outcomes.length;
  }

  async begun(asked: Promise<IRun>): Promise<IRun> {
    const run = await asked;
    this._mine.add(run.id);
    this._hear(run);
    if (!this.running) {
      void this.refresh();
    }
    return this._known.get(run.id) ?? run;
  }

  async cancel(id: string): Promise<IRun> {
    const run = await this._api.cancel(id);
    this._put(run);
    this._list();
    return this._known.get(id) ?? run;
  }

  /** A run that may not be in the list, read from the agent; from then on its changes are followed. */
  async load(id: string): Promise<IRun> {
    const run = await this._api.run(id);
    this._put(run);
    return this._known.get(id) ?? run;
  }

  output(id: string, offset: number): Promise<IPage> {
    return this._api.output(id, offset);
  }

  dispose(): void {
    Signal.clearData(this);
  }

  private async _read(): Promise<void> {
    this._touched.clear();
    await this._quietly(async () => {
      this._take(await this._api.status());
      if (this._status?.agent) {
        await this._readRuns();
        if (isUsable(this._status) && this.now() >= this._packagesDue) {
          await this._readPackages();
        }
      }
    });
  }

  /** Packages have changed. News come in crowds, and each reading is one of all packages: one serves those that came. */
  private _hearOfPackages(): void {
    if (this._packagesNews !== null) {
      return;
    }
    const soon = this._packages === null ? 0 : NEWS_MS;
    this._packagesNews = new Promise(resolve => setTimeout(resolve, soon)).then(() => {
      this._packagesNews = null;
      return this._quietly(() => this._readPackages());
    });
  }

  private async _readRuns(): Promise<void> {
    const runs = [...(await this._api.runs(RUNS_SHOWN)).runs];
    const counts = this._status?.runs;
    if (counts && counts.active + counts.queued > runs.filter(run => !hasEnded(run)).length) {
      // Some that are under way are older than the newest that are listed.
      const pages = await Promise.all(LIVE.map(state => this._api.runs(RUNS_SHOWN, state)));
      runs.push(...pages.flatMap(page => page.runs));
    }
    // What is not in the answers is older or gone, unless it came by event while they were on their way. A run that
    // left the list stays known: somebody may be looking at it.
    this._listed = new Set([...runs.map(run => run.id), ...this._touched]);
    for (const run of runs) {
      this._put(run);
    }
    this._list();
  }

  private async _readPackages(): Promise<void> {
    const packages = await this._api.packages();
    this._packagesDue = this.now() + PACKAGES_MS;
    if (JSON.stringify(packages) !== JSON.stringify(this._packages)) {
      this._packages = packages;
      this._changed.emit('packages');
    }
  }

  /** Keep a status; whether it is of another agent than before, or of one that has now found its OpenFlow. */
  private _take(status: IStatus): boolean {
    const before = this._status;
    const changed = this._reach !== 'answering' || JSON.stringify(before) !== JSON.stringify(status);
    this._reach = 'answering';
    this._status = status;
    if (changed) {
      this._changed.emit('status');
    }
    const other = status.agent !== null && status.agent.pid !== before?.agent?.pid;
    const connected = isUsable(status) && !(before && isUsable(before));
    if (other || connected) {
      this._packagesDue = 0;
    }
    return other || connected;
  }

  /** A run with news about itself: it belongs in the list. */
  private _hear(run: IRun): void {
    this._touched.add(run.id);
    this._listed.add(run.id);
    this._put(run);
    this._list();
  }

  /** Keep a run unless what is known of it is newer, and tell. */
  private _put(run: IRun): void {
    const known = this._known.get(run.id);
    if (!supersedes(run, known) || (known && JSON.stringify(known) === JSON.stringify(run))) {
      return;
    }
    this._known.set(run.id, run);
    this._runChanged.emit(run);
    if (hasEnded(run) && this._mine.delete(run.id)) {
      this._runEnded.emit(run);
    }
  }

  /** Make the list of what is known: newest first, ended ones up to a number. */
  private _list(): void {
    const all = [...this._known.values()].filter(run => this._listed.has(run.id));
    all.sort((a, b) => Date.parse(b.created) - Date.parse(a.created) || (a.id < b.id ? 1 : -1));
    const runs = all.filter((run, index) => index < RUNS_SHOWN || !hasEnded(run));
    const before = this._runs;
    if (before === null || before.length !== runs.length || runs.some((run, index) => run !== before[index])) {
      this._runs = runs;
      this._changed.emit('runs');
    }
  }

  /** Do it; of a failure is kept what it says and how far away the other side is. */
  private async _quietly(job: () => Promise<void>): Promise<void> {
    let reach: Reach = 'answering';
    let problem: string | null = null;
    try {
      await job();
    } catch (error) {
      ({ reach, sentence: problem } = this._api.judge(error));
    }
    if (reach !== this._reach || problem !== this._problem) {
      this._reach = reach;
      this._problem = problem;
      this._changed.emit('status');
    }
  }

  private readonly _api: IAgentAPI;
  private readonly _changed = new Signal<this, Change>(this);
  private readonly _runChanged = new Signal<this, IRun>(this);
  private readonly _runEnded = new Signal<this, IRun>(this);
  private _reach: Reach = 'unknown';
  private _problem: string | null = null;
  private _starting = false;
  private _status: IStatus | null = null;
  private _packages: readonly IPackage[] | null = null;
  /** When the packages are to be read again: by the server's clock, milliseconds since the epoch. */
  private _packagesDue = 0;
  private _packagesNews: Promise<void> | null = null;
  private _runs: readonly IRun[] | null = null;
  private readonly _known = new Map<string, IRun>();
  private _listed = new Set<string>();
  /** Runs that came by event since the present round of reading began. */
  private readonly _touched = new Set<string>();
  /** Runs started from this page that have not ended yet. */
  private readonly _mine = new Set<string>();
  private _round: Promise<void> | null = null;
  private _nextRound: Promise<void> | null = null;
}

/** Also an agent that is not let listen can ask. */
function isUsable(status: IStatus): boolean {
  return status.connected || status.deaf === true;
}
