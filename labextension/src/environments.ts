/**
 * What the page knows of the environments: ours and those of other programs of the machine.
 *
 * They change when runs make, use or change them, and by what is done here; so they are read again at such news and at
 * a slow pace, both only while somebody can see them (`refresh`, `look`). It refuses to know the page.
 */

import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { ICollected, IEnvironment, IEnvironmentDetails, IRun, IVerified } from './shapes';

/** What an environment is to be made from: a file's path on the machine; from PyPI where no channel can be reached. */
export interface IMaking {
  readonly file: string;
  readonly from_pypi?: boolean;
}

/** The calls of the API about environments. Each rejects with an error whose message is a sentence for the user. */
export interface IEnvironmentsAPI {
  environments(): Promise<readonly IEnvironment[]>;
  environment(id: string): Promise<IEnvironmentDetails>;
  /** Make one; the run that does so. */
  make(making: IMaking): Promise<IRun>;
  /** Write the lock of a file beside it; the run that does so. */
  lock(making: IMaking): Promise<IRun>;
  verify(id: string): Promise<IVerified>;
  repair(id: string): Promise<IRun>;
  removeEnvironment(id: string): Promise<unknown>;
  /** Remove what nothing has used for so many days; without them, as the agent's settings say. */
  cleanUp(options: { readonly dry_run: boolean; readonly days?: number }): Promise<ICollected>;
  /** Run a file in an environment; `null`: in the one that its folder asks for. */
  runIn(path: string, environment: string | null): Promise<IRun>;
  sentence(error: unknown): string;
}

/** Milliseconds between two readings while they are shown and nothing is heard of them. */
export const ENVIRONMENTS_MS = 10_000;

/** What is known of the files of an environment. */
export type Check =
  | { readonly state: 'busy' }
  | { readonly state: 'done'; readonly verified: IVerified }
  | { readonly state: 'failed'; readonly problem: string };

export interface IEnvironmentsModel {
  readonly changed: ISignal<IEnvironmentsModel, void>;
  /** There may be news, and they are to be read by those who show them. */
  readonly news: ISignal<IEnvironmentsModel, void>;
  readonly api: IEnvironmentsAPI;
  /** `null` until they were read. */
  readonly environments: readonly IEnvironment[] | null;
  /** Why they could not be read. */
  readonly problem: string | null;
  find(id: string): IEnvironment | undefined;
  /** The last verification of an environment; `undefined`: there was none since it was made or repaired. */
  check(id: string): Check | undefined;
  /** Read them, unless there is no agent to ask. Never rejects. */
  refresh(): Promise<void>;
  /** Something may have changed. */
  look(): void;
  verify(id: string): Promise<IVerified>;
  repair(id: string): Promise<IRun>;
  remove(id: string): Promise<void>;
  cleanUp(days?: number): Promise<ICollected>;
}

export class EnvironmentsModel implements IEnvironmentsModel {
  constructor(options: { api: IEnvironmentsAPI; isRunning: () => boolean }) {
    this.api = options.api;
    this._isRunning = options.isRunning;
  }

  readonly api: IEnvironmentsAPI;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get news(): ISignal<this, void> {
    return this._news;
  }

  get environments(): readonly IEnvironment[] | null {
    return this._environments;
  }

  get problem(): string | null {
    return this._problem;
  }

  find(id: string): IEnvironment | undefined {
    return this._environments?.find(it => it.id === id || it.path === id);
  }

  check(id: string): Check | undefined {
    return this._checks.get(id);
  }

  /** Calls while one is under way share the next round, so that what they saw happen is in it. */
  refresh(): Promise<void> {
    if (!this._isRunning()) {
      return Promise.resolve();
    }
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

  look(): void {
    this._news.emit();
  }

  async verify(id: string): Promise<IVerified> {
    this._note(id, { state: 'busy' });
    try {
      const verified = await this.api.verify(id);
      this._note(id, { state: 'done', verified });
      return verified;
    } catch (error) {
      this._note(id, { state: 'failed', problem: this.api.sentence(error) });
      throw error;
    } finally {
      this.look();
    }
  }

  async repair(id: string): Promise<IRun> {
    const run = await this.api.repair(id);
    this._forget(id);
    return run;
  }

  async remove(id: string): Promise<void> {
    await this.api.removeEnvironment(id);
    this._forget(id);
    await this.refresh();
  }

  async cleanUp(days?: number): Promise<ICollected> {
    const collected = await this.api.cleanUp({ dry_run: false, ...(days === undefined ? {} : { days }) });
    await this.refresh();
    return collected;
  }

  dispose(): void {
    Signal.clearData(this);
  }

  private async _read(): Promise<void> {
    let problem: string | null = null;
    let environments = this._environments;
    try {
      environments = await this.api.environments();
    } catch (error) {
      problem = this.api.sentence(error);
    }
    if (problem !== this._problem || JSON.stringify(environments) !== JSON.stringify(this._environments)) {
      this._problem = problem;
      this._environments = environments;
      this._changed.emit();
    }
  }

  private _note(id: string, check: Check): void {
    this._checks.set(id, check);
    this._changed.emit();
  }

  /** What was found in it is not true any more. */
  private _forget(id: string): void {
    this._checks.delete(id);
    this._changed.emit();
    this.look();
  }

  private readonly _isRunning: () => boolean;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _news = new Signal<this, void>(this);
  private _environments: readonly IEnvironment[] | null = null;
  private _problem: string | null = null;
  private readonly _checks = new Map<string, Check>();
  private _round: Promise<void> | null = null;
  private _nextRound: Promise<void> | null = null;
}
