/**
 * What the page knows of the other agents on this OpenFlow: who they are, and what runs on those that somebody looks at.
 *
 * Nothing tells of changes there, so it is asked, by whoever shows them and only while they are shown (`refresh`). Each
 * answer costs OpenFlow requests and the other agent a message: the agents are asked for seldom, the runs only of agents
 * that are unfolded, and one that did not answer is left in peace for a while.
 */

import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { ILaunch } from './model';
import type { IOtherAgent, IOtherRun, IRun } from './shapes';

/** What an answer says of a run: at least its id. */
export type IToldRun = Partial<IRun> & Pick<IRun, 'id'>;

/** The calls of the API about other agents. Each rejects with an error whose message is a sentence for the user. */
export interface IOthersAPI {
  agents(): Promise<readonly IOtherAgent[]>;
  runsOn(slug: string): Promise<readonly IOtherRun[]>;
  runOn(slug: string, id: string): Promise<IToldRun>;
  launchOn(slug: string, target: string, launch: ILaunch): Promise<IToldRun>;
  cancelOn(slug: string, id: string): Promise<unknown>;
  cancelAllOn(slug: string): Promise<unknown>;
  prepareOn(slug: string, packageId: string): Promise<IToldRun>;
  reinstallOn(slug: string, packageId: string): Promise<unknown>;
  /** Lines of output and `{run}` as they come, until the run has ended. */
  streamOn(slug: string, id: string, offset: number, signal: AbortSignal): AsyncIterable<unknown>;
  sentence(error: unknown): string;
  /** Whether asking again would be answered the same. */
  isFinal(error: unknown): boolean;
  /** Milliseconds since the epoch. */
  now(): number;
}

/** Milliseconds between two readings: of the agents, of the runs of one, of one that did not answer. */
export const OTHERS_MS = { agents: 10_000, runs: 5_000, silent: 30_000 };

/** What is known of the runs of an agent. */
export interface IThere {
  /** `null` until they were read. */
  readonly runs: readonly IOtherRun[] | null;
  readonly problem: string | null;
}

const UNKNOWN: IThere = { runs: null, problem: null };

export interface IOthersModel {
  readonly changed: ISignal<IOthersModel, void>;
  readonly api: IOthersAPI;
  /** Those other than this one, those that are online first, then by name; `null` until they were read. */
  readonly agents: readonly IOtherAgent[] | null;
  /** Why they could not be read. */
  readonly problem: string | null;
  /** Whether there is an OpenFlow to ask. */
  readonly isConnected: boolean;
  /** The agents whose runs are shown. */
  readonly unfolded: ReadonlySet<string>;
  find(slug: string): IOtherAgent | undefined;
  there(slug: string): IThere;
  unfold(slug: string, unfolded: boolean): void;
  /** Read what is due, or everything now. Never rejects. */
  refresh(now?: boolean): Promise<void>;
  launch(slug: string, target: string, launch: ILaunch): Promise<IToldRun>;
  prepare(slug: string, packageId: string): Promise<IToldRun>;
  reinstall(slug: string, packageId: string): Promise<void>;
  cancel(slug: string, id: string): Promise<void>;
  cancelAll(slug: string): Promise<void>;
  /** What runs there has changed: read it at once if it is shown. */
  look(slug: string): void;
}

export class OthersModel implements IOthersModel {
  constructor(options: { api: IOthersAPI; isConnected: () => boolean }) {
    this.api = options.api;
    this._isConnected = options.isConnected;
  }

  readonly api: IOthersAPI;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get agents(): readonly IOtherAgent[] | null {
    return this._agents;
  }

  get problem(): string | null {
    return this._problem;
  }

  get isConnected(): boolean {
    return this._isConnected();
  }

  get unfolded(): ReadonlySet<string> {
    return this._unfolded;
  }

  find(slug: string): IOtherAgent | undefined {
    return this._agents?.find(agent => agent.slug === slug);
  }

  there(slug: string): IThere {
    return this._there.get(slug) ?? UNKNOWN;
  }

  unfold(slug: string, unfolded: boolean): void {
    if (unfolded === this._unfolded.has(slug)) {
      return;
    }
    this._unfolded = new Set(this._unfolded);
    if (unfolded) {
      this._unfolded.add(slug);
      this._runsDue.delete(slug);
      void this._readRuns(slug);
    } else {
      this._unfolded.delete(slug);
    }
    this._changed.emit();
  }

  async refresh(now = false): Promise<void> {
    if (!this._isConnected()) {
      return;
    }
    if (now) {
      this._agentsDue = 0;
      this._runsDue.clear();
    }
    await this._readAgents();
    await Promise.all([...this._unfolded].map(slug => this._readRuns(slug)));
  }

  async launch(slug: string, target: string, launch: ILaunch): Promise<IToldRun> {
    const run = await this.api.launchOn(slug, target, launch);
    this.look(slug);
    return run;
  }

  async prepare(slug: string, packageId: string): Promise<IToldRun> {
    const run = await this.api.prepareOn(slug, packageId);
    this.look(slug);
    return run;
  }

  async reinstall(slug: string, packageId: string): Promise<void> {
    await this.api.reinstallOn(slug, packageId);
    this.look(slug);
  }

  async cancel(slug: string, id: string): Promise<void> {
    await this.api.cancelOn(slug, id);
    this.look(slug);
  }

  async cancelAll(slug: string): Promise<void> {
    await this.api.cancelAllOn(slug);
    this.look(slug);
  }

  look(slug: string): void {
    this._runsDue.delete(slug);
    if (this._unfolded.has(slug)) {
      void this._readRuns(slug);
    }
  }

  /** Read the agents when it is time; who asks meanwhile waits for the same answer. */
  private _readAgents(): Promise<void> {
    if (this._reading === null && this.api.now() >= this._agentsDue) {
      this._reading = this._readAgentsNow().finally(() => {
        this._reading = null;
      });
    }
    return this._reading ?? Promise.resolve();
  }

  private async _readAgentsNow(): Promise<void> {
    const { api } = this;
    let problem: string | null = null;
    let agents = this._agents;
    try {
      agents = (await api.agents()).filter(agent => !agent.self).sort(byName);
    } catch (error) {
      problem = api.sentence(error);
    }
    this._agentsDue = api.now() + (problem === null ? OTHERS_MS.agents : OTHERS_MS.silent);
    if (problem !== this._problem || JSON.stringify(agents) !== JSON.stringify(this._agents)) {
      this._problem = problem;
      this._agents = agents;
      this._changed.emit();
    }
  }

  /** Read the runs of an agent when it is time; one that is offline is not asked. */
  private async _readRuns(slug: string): Promise<void> {
    const { api } = this;
    const agent = this.find(slug);
    if (!agent?.online || this._readingRuns.has(slug) || api.now() < (this._runsDue.get(slug) ?? 0)) {
      return;
    }
    this._readingRuns.add(slug);
    let there: IThere;
    try {
      there = { runs: await api.runsOn(slug), problem: null };
    } catch (error) {
      there = { runs: this.there(slug).runs, problem: api.sentence(error) };
    } finally {
      this._readingRuns.delete(slug);
    }
    this._runsDue.set(slug, api.now() + (there.problem === null ? OTHERS_MS.runs : OTHERS_MS.silent));
    if (JSON.stringify(there) !== JSON.stringify(this.there(slug))) {
      this._there.set(slug, there);
      this._changed.emit();
    }
  }

  private readonly _isConnected: () => boolean;
  private readonly _changed = new Signal<this, void>(this);
  private _agents: readonly IOtherAgent[] | null = null;
  private _problem: string | null = null;
  private _unfolded = new Set<string>();
  private readonly _there = new Map<string, IThere>();
  private _agentsDue = 0;
  private readonly _runsDue = new Map<string, number>();
  private _reading: Promise<void> | null = null;
  private readonly _readingRuns = new Set<string>();
}

function byName(a: IOtherAgent, b: IOtherAgent): number {
  return Number(b.online) - Number(a.online) || a.name.localeCompare(b.name) || a.slug.localeCompare(b.slug);
}
