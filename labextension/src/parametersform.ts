/**
 * The body of the dialog in which the parameters of a run are typed: rows of a name and a value, always an empty one
 * more. Single lines, because Enter belongs to the dialog: it runs.
 */

import type { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import type { IRow } from './parameters';
import { readParameters } from './parameters';

export interface ITypedParameters {
  /** As they were typed. */
  readonly rows: readonly IRow[];
  readonly values: Readonly<Record<string, string>>;
}

export class ParametersForm extends Widget implements Dialog.IBodyWidget<ITypedParameters> {
  constructor(options: { trans: TranslationBundle; rows: readonly IRow[] }) {
    super();
    const { trans } = options;
    this._trans = trans;
    this.addClass('jp-agent-Parameters');
    this._complaint.className = 'jp-agent-Parameters-complaint';
    this._complaint.setAttribute('role', 'alert');
    const heads = document.createElement('div');
    heads.className = 'jp-agent-Parameters-heads';
    heads.append(text(trans.__('Parameter')), text(trans.__('Value')));
    this._body.className = 'jp-agent-Parameters-rows';
    this.node.append(heads, this._body, this._complaint);
    for (const row of [...options.rows, { name: '', value: '' }]) {
      this._add(row);
    }
    this._body.oninput = () => this._check();
  }

  getValue(): ITypedParameters {
    const rows = this._rows();
    return { rows: rows.filter(row => row.name || row.value), values: readParameters(rows).values };
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._check();
  }

  private _add(row: IRow): void {
    const element = document.createElement('div');
    element.append(input(this._trans.__('Parameter'), row.name), input(this._trans.__('Value'), row.value));
    this._body.append(element);
  }

  private _rows(): IRow[] {
    return [...this._body.children].map(row => {
      const [name, value] = [...row.querySelectorAll('input')].map(it => it.value);
      return { name: name ?? '', value: value ?? '' };
    });
  }

  private _check(): void {
    const rows = this._rows();
    if (rows.at(-1)?.name) {
      this._add({ name: '', value: '' });
    }
    const [first] = readParameters(rows).wrong;
    this._complaint.textContent =
      first === undefined
        ? ''
        : first
          ? this._trans.__('“%1” cannot be used as a name, or is there twice.', first)
          : this._trans.__('A value has no name.');
    const button = this.node.closest('.jp-Dialog')?.querySelector<HTMLButtonElement>('button.jp-mod-accept');
    if (button) {
      button.disabled = first !== undefined;
    }
  }

  private readonly _trans: TranslationBundle;
  private readonly _body = document.createElement('div');
  private readonly _complaint = document.createElement('div');
}

function text(content: string): HTMLElement {
  const element = document.createElement('span');
  element.textContent = content;
  return element;
}

function input(label: string, value: string): HTMLInputElement {
  const element = document.createElement('input');
  element.className = 'jp-mod-styled';
  element.setAttribute('aria-label', label);
  element.spellcheck = false;
  element.autocomplete = 'off';
  element.value = value;
  return element;
}
