/**
 * Reads a run's output as it grows: page after page until there is nothing new, then again when it is told that there
 * is more. One reader for one view of one run; it refuses to know how the output is shown.
 */

import type { IChunk, IPage, IRun } from './shapes';
import { hasEnded } from './shapes';

export interface IOutputReaderOptions {
  readonly read: (offset: number) => Promise<IPage>;
  /** Takes in a page; the next one is read when it is done. */
  readonly show: (chunks: readonly IChunk[]) => Promise<void> | void;
  /** The output is there to its end. */
  readonly done?: () => void;
  /** Reading failed; it is tried again at the next `poke`. */
  readonly failed?: (error: unknown) => void;
}

export class OutputReader {
  constructor(options: IOutputReaderOptions) {
    this._options = options;
  }

  /** Everything was read. */
  get complete(): boolean {
    return this._complete;
  }

  /** Tell the run's present state: reads on when there may be more. Never rejects. */
  async poke(run: Pick<IRun, 'state' | 'output_size'>): Promise<void> {
    this._news ||= run.output_size !== this._seenSize || hasEnded(run);
    this._seenSize = run.output_size;
    if (!this._news || this._reading || this._complete || this._disposed) {
      return;
    }
    this._reading = true;
    try {
      await this._readOn();
    } catch (error) {
      this._seenSize = -1;
      this._options.failed?.(error);
    } finally {
      this._reading = false;
    }
  }

  dispose(): void {
    this._disposed = true;
  }

  private async _readOn(): Promise<void> {
    while (!this._complete && !this._disposed) {
      this._news = false;
      const page = await this._options.read(this._offset);
      if (this._disposed) {
        return;
      }
      this._offset = page.next;
      if (page.chunks.length) {
        await this._options.show(page.chunks);
      }
      if (page.complete) {
        this._complete = true;
        this._options.done?.();
      } else if (!page.chunks.length && !this._news) {
        return;
      }
    }
  }

  private readonly _options: IOutputReaderOptions;
  private _offset = 0;
  private _seenSize = -1;
  private _news = false;
  private _reading = false;
  private _complete = false;
  private _disposed = false;
}
