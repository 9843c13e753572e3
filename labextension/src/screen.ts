/**
 * From the text of a process to lines with styles, as a terminal would show them.
 *
 * Knows newlines, carriage returns and backspaces (progress bars), colours and weights (SGR), and erasing in the line;
 * drops every other control sequence. It refuses to know the page. Written by hand because what Lab has (rendermime's
 * ANSI renderer) renders a whole text at once, so that following a log costs its length squared, and a terminal
 * emulator would be larger than everything else here together.
 */

import { PLAIN, restyled, styleOf } from './sgr';
import type { IStyle, IStyleState } from './sgr';
import type { IChunk, Stream } from './shapes';

export interface ISpan {
  readonly text: string;
  readonly style: IStyle;
}

export interface ILine {
  /** Consecutive numbers from 0 in the order in which the lines began. */
  readonly key: number;
  readonly stream: Stream;
  /** Seconds since the epoch: when the line began. */
  readonly time: number;
  /** Bytes that were dropped here, for a line that stands for a gap. */
  readonly gap: number | null;
  spans: readonly ISpan[];
}

/** Characters of one line that are kept; what is beyond is counted and told. */
export const LINE_LIMIT = 10_000;

/** Control characters, and control sequences that are complete (CSI, OSC, two-character ones). */
const CONTROL =
  // eslint-disable-next-line no-control-regex
  /\r\n|[\n\r\b\x07]|\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[ -/]*[0-Z\\^-~]/g;

/** The beginning of a control sequence whose end is still to come. */
const UNFINISHED =
  // eslint-disable-next-line no-control-regex
  /(?:\r|\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[ -/]*)?)$/;

/** So many characters a sequence may have; one that is longer is text. */
const UNFINISHED_LIMIT = 4096;

/** What one stream has open: its last line, which may still be overwritten. */
interface ICursor {
  line: ILine | null;
  column: number;
  /** Characters of the line that were not kept. */
  cut: number;
  state: IStyleState;
  style: IStyle;
  rest: string;
}

/**
 * Writes chunks into lines. Each stream has an open line of its own, so that a progress bar on stderr goes on in its
 * place while stdout prints.
 */
export class Screen {
  /** Take in a chunk. The lines it began or changed are returned, in their order. */
  write(chunk: IChunk): ILine[] {
    const changed = new Map<number, ILine>();
    if (chunk.gap !== undefined) {
      this._cursors.clear();
      const line = this._begin(chunk, chunk.gap);
      line.spans = [{ text: chunk.text, style: PLAIN }];
      return [line];
    }
    const cursor = this._cursor(chunk.stream);
    let text = cursor.rest + chunk.text;
    cursor.rest = '';
    const unfinished = UNFINISHED.exec(text.slice(-UNFINISHED_LIMIT));
    if (unfinished) {
      cursor.rest = unfinished[0];
      text = text.slice(0, text.length - cursor.rest.length);
    }
    let position = 0;
    for (const match of text.matchAll(CONTROL)) {
      this._print(cursor, chunk, text.slice(position, match.index), changed);
      position = match.index + match[0].length;
      this._control(cursor, chunk, match[0], changed);
    }
    this._print(cursor, chunk, text.slice(position), changed);
    return [...changed.values()].sort((a, b) => a.key - b.key);
  }

  private _cursor(stream: Stream): ICursor {
    let cursor = this._cursors.get(stream);
    if (cursor === undefined) {
      cursor = { line: null, column: 0, cut: 0, state: {}, style: PLAIN, rest: '' };
      this._cursors.set(stream, cursor);
    }
    return cursor;
  }

  private _begin(chunk: IChunk, gap: number | null): ILine {
    return { key: this._keys++, stream: chunk.stream, time: chunk.time, gap, spans: [] };
  }

  private _open(cursor: ICursor, chunk: IChunk, changed: Map<number, ILine>): ILine {
    cursor.line ??= this._begin(chunk, null);
    changed.set(cursor.line.key, cursor.line);
    return cursor.line;
  }

  private _print(cursor: ICursor, chunk: IChunk, text: string, changed: Map<number, ILine>): void {
    if (!text) {
      return;
    }
    const line = this._open(cursor, chunk, changed);
    const room = Math.max(0, LINE_LIMIT - cursor.column);
    cursor.cut += Math.max(0, text.length - room);
    const kept = text.slice(0, room);
    if (kept) {
      line.spans = overwrite(line.spans, cursor.column, { text: kept, style: cursor.style });
      cursor.column += kept.length;
    }
  }

  private _control(cursor: ICursor, chunk: IChunk, control: string, changed: Map<number, ILine>): void {
    if (control === '\n' || control === '\r\n') {
      const line = this._open(cursor, chunk, changed);
      if (cursor.cut > 0) {
        line.spans = [...line.spans, { text: ` … ${cursor.cut} more characters`, style: { classes: 'ansi-bold' } }];
      }
      cursor.line = null;
      cursor.column = 0;
      cursor.cut = 0;
    } else if (control === '\r') {
      cursor.column = 0;
      cursor.cut = 0;
    } else if (control === '\b') {
      cursor.column = Math.max(0, cursor.column - 1);
    } else if (control.startsWith('\x1b[') && control.endsWith('m')) {
      cursor.state = restyled(cursor.state, control.slice(2, -1));
      cursor.style = styleOf(cursor.state);
    } else if (control.startsWith('\x1b[') && control.endsWith('K') && cursor.line) {
      const line = this._open(cursor, chunk, changed);
      line.spans = erased(line.spans, cursor.column, control.slice(2, -1));
    }
  }

  private readonly _cursors = new Map<Stream, ICursor>();
  private _keys = 0;
}

/** `spans` with `span` written over them from `column` on. */
function overwrite(spans: readonly ISpan[], column: number, span: ISpan): readonly ISpan[] {
  const length = textLength(spans);
  const before = column < length ? cut(spans, 0, column) : [...spans];
  if (column > length) {
    before.push({ text: ' '.repeat(column - length), style: PLAIN });
  }
  const last = before[before.length - 1];
  if (last && last.style === span.style) {
    before[before.length - 1] = { text: last.text + span.text, style: last.style };
  } else {
    before.push(span);
  }
  const end = column + span.text.length;
  return end < length ? [...before, ...cut(spans, end, length)] : before;
}

/** Erase in line: 0 (or nothing) to its end, 1 to its beginning, 2 all of it. */
function erased(spans: readonly ISpan[], column: number, mode: string): readonly ISpan[] {
  if (mode === '2') {
    return [];
  }
  if (mode === '1') {
    return [{ text: ' '.repeat(column), style: PLAIN }, ...cut(spans, column, textLength(spans))];
  }
  return cut(spans, 0, column);
}

function textLength(spans: readonly ISpan[]): number {
  return spans.reduce((length, span) => length + span.text.length, 0);
}

function cut(spans: readonly ISpan[], from: number, to: number): ISpan[] {
  const kept: ISpan[] = [];
  let start = 0;
  for (const span of spans) {
    const text = span.text.slice(Math.max(0, from - start), Math.max(0, to - start));
    if (text) {
      kept.push({ text, style: span.style });
    }
    start += span.text.length;
  }
  return kept;
}
