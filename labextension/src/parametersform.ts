/**
 * The body of the dialog in which the parameters of a run are typed.
 */

import type { Dialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { parseParameters } from './parameters';

export interface ITypedParameters {
  /** As it was typed. */
  readonly text: string;
  readonly values: Readonly<Record<string, string>>;
}

export class ParametersForm extends Widget implements Dialog.IBodyWidget<ITypedParameters> {
  constructor(options: { trans: TranslationBundle; text: string }) {
    super();
    const { trans } = options;
    this._trans = trans;
    this.addClass('jp-agent-Parameters');
    const label = document.createElement('label');
    label.textContent = trans.__('Parameters, one a line: name = value (Ctrl+Enter runs)');
    this._area.className = 'jp-mod-styled';
    this._area.value = options.text;
    this._area.rows = 6;
    this._area.spellcheck = false;
    this._area.placeholder = 'year = 2014\nregion = "north"\nverbose = true';
    label.append(this._area);
    this._complaint.className = 'jp-agent-Parameters-complaint';
    this._complaint.setAttribute('role', 'alert');
    this.node.append(label, this._complaint);
    this._area.oninput = () => this._check();
  }

  getValue(): ITypedParameters {
    return { text: this._area.value, values: parseParameters(this._area.value).values };
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._area.onkeydown = event => this._onKey(event);
    this._check();
  }

  /** Enter begins a line; with Ctrl or Cmd it runs. */
  private _onKey(event: KeyboardEvent): void {
    if (event.key === 'Enter') {
      event.stopPropagation();
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        this._okButton()?.click();
      }
    }
  }

  private _okButton(): HTMLButtonElement | null | undefined {
    return this.node.closest('.jp-Dialog')?.querySelector<HTMLButtonElement>('button.jp-mod-accept');
  }

  private _check(): void {
    const { wrong } = parseParameters(this._area.value);
    this._complaint.textContent = wrong.length
      ? this._trans.__('Line %1 is not of the form name = value.', wrong.join(', '))
      : '';
    const button = this._okButton();
    if (button) {
      button.disabled = wrong.length > 0;
    }
  }

  private readonly _trans: TranslationBundle;
  private readonly _area = document.createElement('textarea');
  private readonly _complaint = document.createElement('div');
}
