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

/** When a run is started, and how often it is tried again. */
export interface IOrder {
  readonly priority: number;
  readonly retries: number;
}

export interface ITypedParameters {
  /** As they were typed. */
  readonly rows: readonly IRow[];
  readonly values: Readonly<Record<string, string>>;
  /** `null` where they were not asked for. */
  readonly order: IOrder | null;
}

export class ParametersForm extends Widget implements Dialog.IBodyWidget<ITypedParameters> {
  constructor(options: { trans: TranslationBundle; rows: readonly IRow[]; order: IOrder | null }) {
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
    this.node.append(heads, this._body, this._order, this._complaint);
    for (const row of [...options.rows, { name: '', value: '' }]) {
      this._add(row);
    }
    this.node.oninput = () => this._check();
    if (options.order !== null) {
      this._addOrder(options.order);
    }
  }

  getValue(): ITypedParameters {
    const rows = this._rows();
    const [priority, retries] = [...this._order.querySelectorAll('input')].map(it => it.valueAsNumber);
    return {
      rows: rows.filter(row => row.name || row.value),
      values: readParameters(rows).values,
      order: priority === undefined || retries === undefined ? null : { priority, retries }
    };
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

  private _addOrder({ priority, retries }: IOrder): void {
    this._order.className = 'jp-agent-Parameters-order';
    const fields: [string, number, number, number, string][] = [
      [this._trans.__('Priority'), priority, -1000, 1000, this._trans.__('Lower ones are started first; 2 is usual.')],
      [this._trans.__('Retries'), retries, 0, 100, this._trans.__('How often it is tried again when it fails.')]
    ];
    for (const [name, value, least, most, title] of fields) {
      const label = document.createElement('label');
      const field = input(name, String(value));
      field.type = 'number';
      field.min = String(least);
      field.max = String(most);
      field.required = true;
      label.title = title;
      label.append(text(name), field);
      this._order.append(label);
    }
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
    const complaint = this._complaintOf(rows);
    this._complaint.textContent = complaint;
    const button = this.node.closest('.jp-Dialog')?.querySelector<HTMLButtonElement>('button.jp-mod-accept');
    if (button) {
      button.disabled = complaint !== '';
    }
  }

  private _complaintOf(rows: readonly IRow[]): string {
    const [first] = readParameters(rows).wrong;
    if (first !== undefined) {
      return first
        ? this._trans.__('“%1” cannot be used as a name, or is there twice.', first)
        : this._trans.__('A value has no name.');
    }
    const wrong = [...this._order.querySelectorAll('input')].find(it => !it.checkValidity());
    return wrong
      ? this._trans.__('%1: a whole number from %2 to %3.', wrong.getAttribute('aria-label'), wrong.min, wrong.max)
      : '';
  }

  private readonly _trans: TranslationBundle;
  private readonly _order = document.createElement('div');
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
