/**
 * The output notebook of a run, to be read: cells and outputs by Lab's renderers, in the user's theme.
 *
 * It is shown as untrusted, as Lab shows a notebook from elsewhere: no scripts run, HTML is cleaned. Written on
 * rendermime and the output area instead of Lab's notebook widget: that one is made for editing, and building against
 * it more than doubles the size and the time of the build.
 */

import type * as nbformat from '@jupyterlab/nbformat';
import { OutputArea, OutputAreaModel } from '@jupyterlab/outputarea';
import type { IRenderMime, IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { MimeModel } from '@jupyterlab/rendermime';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Panel, Widget } from '@lumino/widgets';

import type { ICell, INotebook } from './ipynb';
import { fenced, readNotebook } from './ipynb';

/** Cells put into the page between two breaths. */
const CELLS_AT_ONCE = 20;

export interface INotebookViewOptions {
  readonly rendermime: IRenderMimeRegistry;
  readonly trans: TranslationBundle;
}

export class NotebookView extends Panel {
  constructor(options: INotebookViewOptions) {
    super();
    this._options = options;
    this.addClass('jp-agent-Notebook');
    this.node.tabIndex = 0;
    this.note(options.trans.__('The output notebook is written when the run ends.'));
  }

  /** Show a sentence in place of the notebook. */
  note(text: string): void {
    this._clear();
    const note = new Widget();
    note.addClass('jp-agent-Empty');
    note.node.textContent = text;
    this.addWidget(note);
  }

  /** Show the contents of a notebook file. */
  async display(file: unknown): Promise<void> {
    const notebook = readNotebook(file);
    if (notebook === null) {
      this.note(this._options.trans.__('The file is not a notebook that can be shown here; it can be downloaded.'));
      return;
    }
    this._clear();
    const round = ++this._round;
    for (const [index, cell] of notebook.cells.entries()) {
      if (index % CELLS_AT_ONCE === CELLS_AT_ONCE - 1) {
        await new Promise(resolve => window.setTimeout(resolve, 0));
      }
      if (this.isDisposed || round !== this._round) {
        return;
      }
      this.addWidget(await this._cell(cell, notebook));
    }
  }

  private _clear(): void {
    for (const widget of [...this.widgets]) {
      widget.dispose();
    }
  }

  private async _cell(cell: ICell, notebook: INotebook): Promise<Widget> {
    const panel = new Panel();
    panel.addClass('jp-agent-Cell');
    panel.addClass(`jp-agent-mod-${cell.kind}`);
    panel.toggleClass('jp-agent-mod-failed', cell.failed);
    if (cell.kind === 'code') {
      if (cell.source.trim()) {
        panel.addWidget(await this._input(cell, notebook.language));
      }
      if (cell.outputs.length) {
        panel.addWidget(this._outputs(cell));
      }
    } else if (cell.kind === 'markdown') {
      panel.addWidget(await this._markdown(cell.source, cell));
    } else {
      panel.addWidget(await this._text(cell.source));
    }
    return panel;
  }

  private async _input(cell: ICell, language: string): Promise<Widget> {
    const { trans } = this._options;
    const row = new Panel();
    row.addClass('jp-agent-Cell-input');
    const prompt = new Widget();
    prompt.addClass('jp-agent-Cell-prompt');
    prompt.node.textContent = `[${cell.count ?? ' '}]:`;
    row.addWidget(prompt);
    const code = await this._markdown(fenced(cell.source, language), cell);
    code.addClass('jp-agent-Cell-code');
    row.addWidget(code);
    if (cell.tags.includes('injected-parameters')) {
      row.addClass('jp-agent-mod-parameters');
      row.node.title = trans.__('The parameters of this run');
    }
    return row;
  }

  private _outputs(cell: ICell): Widget {
    const model = new OutputAreaModel({ trusted: false, values: cell.outputs as unknown as nbformat.IOutput[] });
    return new OutputArea({
      model,
      rendermime: this._options.rendermime,
      contentFactory: new OutputArea.ContentFactory()
    });
  }

  private async _markdown(source: string, cell: ICell): Promise<Widget> {
    const resolver = new Attachments(cell.attachments);
    const rendermime = this._options.rendermime.clone({ resolver });
    return render(rendermime, 'text/markdown', source);
  }

  private _text(source: string): Promise<Widget> {
    return render(this._options.rendermime, 'text/plain', source);
  }

  private readonly _options: INotebookViewOptions;
  private _round = 0;
}

async function render(rendermime: IRenderMimeRegistry, type: string, source: string): Promise<Widget> {
  const renderer = rendermime.createRenderer(type);
  await renderer.renderModel(new MimeModel({ data: { [type]: source }, trusted: false }));
  return renderer;
}

/** Finds the images that Markdown cells carry; every other URL stays as it is written. */
class Attachments implements IRenderMime.IResolver {
  constructor(private readonly _attachments: ICell['attachments']) {}

  isLocal(url: string): boolean {
    return url.startsWith('attachment:');
  }

  async resolveUrl(url: string): Promise<string> {
    return url;
  }

  async getDownloadUrl(url: string): Promise<string> {
    const bundle = this._attachments[decodeURIComponent(url.slice('attachment:'.length))] ?? {};
    const [type, data] = Object.entries(bundle)[0] ?? [];
    return type?.startsWith('image/') && typeof data === 'string' ? `data:${type};base64,${data}` : '';
  }
}
