/**
 * Where a view of a run has it from: this agent, by its events and pages of output, or another agent, by one stream.
 * Decides when to read and when to try again; it refuses to know how a run is shown.
 */

import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';

import type { IAgentModel } from './model';
import type { IOthersModel } from './others';
import { OutputReader } from './outputreader';
import type { IChunk, IRun } from './shapes';
import { hasEnded, runElsewhere } from './shapes';

/** Milliseconds until what failed is tried again: the first time, and at most. */
const RETRY_MS = { first: 1000, most: 20_000 };

/** Takes in output; the next piece comes when it is done. */
export type Show = (chunks: readonly IChunk[]) => Promise<void>;

export interface IRunSource {
  readonly id: string;
  /** The slug of the other agent that it runs on; `null`: this one. */
  readonly agent: string | null;
  /** `undefined` until it is known. */
  readonly run: IRun | undefined;
  /** Whether what is known of a live run is known to be true. */
  readonly contact: boolean;
  /** Why the run cannot be shown; `null` when it can, or while it is not known. */
  readonly trouble: string | null;
  /** All output has been shown. */
  readonly complete: boolean;
  readonly changed: ISignal<IRunSource, void>;
  /** By the clock that wrote the run's times; milliseconds since the epoch. */
  now(): number;
  /** Begin to show the output, from its beginning; once. */
  follow(show: Show): void;
  /** Whether somebody can see it. */
  setVisible(visible: boolean): void;
  dispose(): void;
}

/** Waits that get longer from one failure to the next. */
class Retry {
  /** Do it after a while, unless it was disposed of. */
  later(job: () => void): void {
    this._delay = Math.min(RETRY_MS.most, this._delay * 2 || RETRY_MS.first);
    clearTimeout(this._timer);
    this._timer = setTimeout(job, this._delay);
  }

  /** Something went well: the next wait is short again. */
  reset(): void {
    this._delay = 0;
  }

  dispose(): void {
    clearTimeout(this._timer);
  }

  private _delay = 0;
  private _timer: ReturnType<typeof setTimeout> | undefined;
}

/** A run of this agent. */
export class OwnRun implements IRunSource {
  constructor(options: { model: IAgentModel; id: string; sentence: (error: unknown) => string }) {
    this._model = options.model;
    this._sentence = options.sentence;
    this.id = options.id;
    this._model.runChanged.connect(this._onRun, this);
    this._model.changed.connect(this._onModel, this);
    void this._load();
  }

  readonly id: string;
  readonly agent = null;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get run(): IRun | undefined {
    return this._model.find(this.id);
  }

  get contact(): boolean {
    return this._model.running;
  }

  get trouble(): string | null {
    return this._trouble;
  }

  get complete(): boolean {
    return this._reader?.complete ?? false;
  }

  now(): number {
    return this._model.now();
  }

  follow(show: Show): void {
    this._reader = new OutputReader({
      read: offset => this._model.output(this.id, offset),
      show: async chunks => {
        this._retry.reset();
        await show(chunks);
      },
      done: () => this._changed.emit(),
      failed: () => this._retry.later(() => this._poke())
    });
    this._poke();
  }

  setVisible(): void {
    // Events of this agent come anyway, and pages are asked for only when there is more.
  }

  dispose(): void {
    this._model.runChanged.disconnect(this._onRun, this);
    this._model.changed.disconnect(this._onModel, this);
    this._reader?.dispose();
    this._retry.dispose();
    Signal.clearData(this);
  }

  private _onRun(_: IAgentModel, run: IRun): void {
    if (run.id === this.id) {
      this._changed.emit();
      this._poke();
    }
  }

  private _onModel(): void {
    this._changed.emit();
    void this._load();
  }

  private _poke(): void {
    const { run } = this;
    if (run && this._reader) {
      void this._reader.poke(run).then(() => this._changed.emit());
    }
  }

  /** A run that is not in the list is read as soon as there is an agent to ask: looking at it does not start one. */
  private async _load(): Promise<void> {
    const { run, _model: model } = this;
    if (this._loading || !model.running || (run && (hasEnded(run) || model.runs?.includes(run)))) {
      return;
    }
    this._loading = true;
    try {
      await model.load(this.id);
      this._trouble = null;
    } catch (error) {
      this._trouble = this._sentence(error);
    } finally {
      this._loading = false;
      this._changed.emit();
    }
  }

  private readonly _model: IAgentModel;
  private readonly _sentence: (error: unknown) => string;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _retry = new Retry();
  private _reader: OutputReader | null = null;
  private _loading = false;
  private _trouble: string | null = null;
}

/**
 * A run of another agent. Its output and its state come by one stream, which is opened again where it broke off. It is
 * open only while somebody can see the run: a browser opens few connections to one server, and the page needs some.
 */
export class OtherRun implements IRunSource {
  constructor(options: { others: IOthersModel; slug: string; id: string; now: () => number }) {
    this._others = options.others;
    this.agent = options.slug;
    this.id = options.id;
    this.now = options.now;
    void this._load();
  }

  readonly id: string;
  readonly agent: string;
  readonly now: () => number;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get run(): IRun | undefined {
    return this._run;
  }

  get contact(): boolean {
    return this._contact;
  }

  get trouble(): string | null {
    return this._trouble;
  }

  get complete(): boolean {
    return this._complete;
  }

  follow(show: Show): void {
    this._show = show;
    this.setVisible(this._visible);
  }

  setVisible(visible: boolean): void {
    this._visible = visible;
    if (visible) {
      this._go();
    } else {
      this._connection.abort();
    }
  }

  dispose(): void {
    this.setVisible(false);
    this._retry.dispose();
    Signal.clearData(this);
  }

  /** What is known before the stream says it. */
  private async _load(): Promise<void> {
    try {
      const told = await this._others.api.runOn(this.agent, this.id);
      if (this._run === undefined) {
        this._tell({ run: runElsewhere(told) });
      }
    } catch (error) {
      if (this._run === undefined) {
        this._tell({ trouble: this._others.api.sentence(error) });
      }
    }
  }

  /** Stream, unless that is done already: after the stream before has taken in its last line, so that none comes twice. */
  private _go(): void {
    if (this._isStreaming && !this._connection.signal.aborted) {
      return;
    }
    this._isStreaming = true;
    this._connection = new AbortController();
    const { signal } = this._connection;
    this._streaming = this._streaming.then(async () => {
      if (this._show && this._visible && !this._complete && !signal.aborted) {
        await this._stream(this._show, signal);
      }
      if (signal === this._connection.signal) {
        this._isStreaming = false;
      }
    });
  }

  private async _stream(show: Show, signal: AbortSignal): Promise<void> {
    const { api } = this._others;
    this._piece.length = 0;
    try {
      for await (const line of api.streamOn(this.agent, this.id, this._offset, signal)) {
        this._retry.reset();
        await this._take(line, show);
        if (signal.aborted) {
          return;
        }
      }
    } catch (error) {
      if (signal.aborted) {
        return;
      }
      this._tell({ trouble: api.sentence(error), contact: false, complete: api.isFinal(error) });
    }
    if (this._run && hasEnded(this._run)) {
      this._tell({ complete: true });
      this._others.look(this.agent);
    } else if (!this._complete) {
      this._tell({ contact: false });
      this._retry.later(() => this._go());
    }
  }

  /** Output is shown as far as it is told where to go on after it: what came without that comes again. */
  private async _take(line: unknown, show: Show): Promise<void> {
    const told = line as Partial<IChunk> & { run?: IRun; next?: number };
    if (told.run) {
      this._tell({ run: runElsewhere({ ...this._run, ...told.run }), trouble: null, contact: true });
      return;
    }
    this._piece.push(told as IChunk);
    if (told.next !== undefined) {
      await show(this._piece.splice(0));
      this._offset = told.next;
    }
    if (!this._contact) {
      this._tell({ trouble: null, contact: true });
    }
  }

  private _tell(news: { run?: IRun; trouble?: string | null; contact?: boolean; complete?: boolean }): void {
    this._run = news.run ?? this._run;
    this._trouble = news.trouble === undefined ? this._trouble : news.trouble;
    this._contact = news.contact ?? this._contact;
    this._complete = news.complete ?? this._complete;
    this._changed.emit();
  }

  private readonly _others: IOthersModel;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _retry = new Retry();
  private _connection = new AbortController();
  private _streaming: Promise<void> = Promise.resolve();
  private _show: Show | null = null;
  private _visible = false;
  private _isStreaming = false;
  private _run: IRun | undefined;
  private _contact = true;
  private _trouble: string | null = null;
  private _complete = false;
  private _offset = 0;
  private readonly _piece: IChunk[] = [];
}
