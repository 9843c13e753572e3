/**
 * The console of a run: its output as lines, as they come. Plain DOM, only ever appended to: React would compare
 * thousands of lines at each new one.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import type { IRunSource } from './runsource';
import type { ILine } from './screen';
import { Screen } from './screen';
import type { IChunk } from './shapes';
import { hasEnded } from './shapes';

/** Lines kept in the page; the agent keeps more, and the command line shows all of them. */
const LINES_SHOWN = 5000;

/** Lines are taken away so many at a time. */
const LINES_STEP = 500;

/** So close to the end (pixels) counts as being there. */
const NEAR_END = 24;

export interface IConsoleOptions {
  readonly source: IRunSource;
  readonly trans: TranslationBundle;
}

export class ConsoleView extends Widget {
  constructor(options: IConsoleOptions) {
    super();
    this._options = options;
    const { trans, source } = options;
    this.addClass('jp-agent-Console');
    this._scroller.className = 'jp-agent-Console-scroller jp-RenderedText';
    this._scroller.tabIndex = 0;
    this._scroller.setAttribute('role', 'log');
    // A log is announced line by line otherwise; the state of the run is announced by the header.
    this._scroller.setAttribute('aria-live', 'off');
    this._scroller.setAttribute('aria-label', trans.__('Console output'));
    this._note.className = 'jp-agent-Console-note';
    this._lines.className = 'jp-agent-Console-lines';
    this._scroller.append(this._note, this._lines);
    this._toEnd.className = 'jp-agent-Console-toEnd jp-mod-styled';
    this._toEnd.textContent = trans.__('Follow the end ↓');
    this._toEnd.hidden = true;
    this._toEnd.onclick = () => this._follow(true);
    this.node.append(this._scroller, this._toEnd);
    this._scroller.onscroll = () => this._scrolled();
    this._lines.onmouseover = event => this._tell(event.target);
    source.changed.connect(this._describe, this);
    this._describe();
    source.follow(chunks => this._show(chunks));
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._options.source.changed.disconnect(this._describe, this);
    super.dispose();
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._stick();
  }

  protected override onResize(message: Widget.ResizeMessage): void {
    super.onResize(message);
    this._stick();
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this._scroller.focus();
  }

  private async _show(chunks: readonly IChunk[]): Promise<void> {
    const fragment = document.createDocumentFragment();
    for (const chunk of chunks) {
      for (const line of this._screen.write(chunk)) {
        this._place(line, fragment);
      }
    }
    this._lines.append(fragment);
    this._trim();
    this._stick();
    this._describe();
    // Let the page live between two pages of a long log.
    await new Promise(resolve => window.setTimeout(resolve, 0));
  }

  private _place(line: ILine, fragment: DocumentFragment): void {
    let element = this._elements.get(line.key);
    if (element === undefined) {
      if (line.key < this._firstKey) {
        return;
      }
      element = document.createElement('pre');
      element.className = 'jp-agent-Console-line';
      element.dataset['stream'] = line.gap === null ? line.stream : 'gap';
      element.dataset['time'] = String(line.time);
      this._elements.set(line.key, element);
      fragment.append(element);
    }
    element.replaceChildren(...line.spans.map(spanElement));
  }

  private _trim(): void {
    const count = this._elements.size;
    if (count <= LINES_SHOWN + LINES_STEP) {
      return;
    }
    let surplus = count - LINES_SHOWN;
    for (const [key, element] of this._elements) {
      if (surplus-- === 0) {
        break;
      }
      element.remove();
      this._elements.delete(key);
      this._firstKey = Math.max(this._firstKey, key + 1);
      this._removed++;
    }
  }

  private _describe(): void {
    const { trans, source } = this._options;
    const { id, run, agent } = source;
    if (this._removed > 0) {
      this._note.textContent = trans.__(
        '%1 earlier lines are not shown here; “jupyter agent runs logs %2” shows all that were kept.',
        this._removed.toLocaleString(),
        agent === null ? id : `${id} --agent ${agent}`
      );
    } else if (this._elements.size > 0) {
      this._note.textContent = '';
    } else if (source.complete) {
      this._note.textContent = trans.__('The run wrote nothing.');
    } else {
      this._note.textContent = run && hasEnded(run) ? trans.__('Reading …') : trans.__('Nothing was written yet.');
    }
  }

  private _scrolled(): void {
    const { scrollTop, scrollHeight, clientHeight } = this._scroller;
    if (clientHeight > 0) {
      this._follow(scrollHeight - scrollTop - clientHeight <= NEAR_END);
    }
  }

  private _follow(following: boolean): void {
    this._following = following;
    this._toEnd.hidden = following;
    this._stick();
  }

  private _stick(): void {
    if (this._following) {
      this._scroller.scrollTop = this._scroller.scrollHeight;
    }
  }

  /** The time of a line is told when the pointer rests on it; to write it into thousands of lines would cost. */
  private _tell(target: EventTarget | null): void {
    const line = target instanceof Element ? target.closest<HTMLElement>('[data-time]') : null;
    if (line && !line.title) {
      const { time, stream } = line.dataset;
      line.title = `${new Date(Number(time) * 1000).toLocaleString()} · ${stream}`;
    }
  }

  private readonly _options: IConsoleOptions;
  private readonly _screen = new Screen();
  private readonly _scroller = document.createElement('div');
  private readonly _note = document.createElement('div');
  private readonly _lines = document.createElement('div');
  private readonly _toEnd = document.createElement('button');
  /** By the lines' keys, oldest first. */
  private readonly _elements = new Map<number, HTMLElement>();
  private _firstKey = 0;
  private _removed = 0;
  private _following = true;
}

function spanElement(span: ILine['spans'][number]): Node {
  const { classes, color, background } = span.style;
  if (!classes && !color && !background) {
    return document.createTextNode(span.text);
  }
  const element = document.createElement('span');
  element.className = classes;
  element.style.color = color ?? '';
  element.style.backgroundColor = background ?? '';
  element.textContent = span.text;
  return element;
}
