/**
 * Files of Lab that environments are made from, or that run in one: in the menu of the file browser and in the toolbar
 * of an editor. What is done with them are commands.
 */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { IFileBrowserFactory } from '@jupyterlab/filebrowser';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { LabIcon, Toolbar } from '@jupyterlab/ui-components';
import { buildIcon, ToolbarButton } from '@jupyterlab/ui-components';
import type { IDisposable } from '@lumino/disposable';
import { DisposableDelegate } from '@lumino/disposable';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';
import type { Widget } from '@lumino/widgets';

import { canBeLocked, saysEnvironment } from './environmentwords';
import { lockIcon } from './icons';
import type { IMeantFiles } from './tokens';
import { CommandIDs } from './tokens';

export class MeantFiles implements IMeantFiles {
  constructor(app: JupyterFrontEnd, factory: IFileBrowserFactory | null) {
    this._app = app;
    this._factory = factory;
    const changed = (): void => this.changed.emit();
    app.shell.currentChanged?.connect(changed);
    factory?.tracker.forEach(browser => browser.selectionChanged?.connect(changed));
    factory?.tracker.widgetAdded.connect((_, browser) => void browser.selectionChanged?.connect(changed));
  }

  readonly changed: Signal<IMeantFiles, void> = new Signal<IMeantFiles, void>(this);

  get selected(): string | null {
    const [item, second] = this._factory?.tracker.currentWidget?.selectedItems() ?? [];
    return item && !second && item.type !== 'directory' ? item.path : null;
  }

  get inFront(): string | null {
    return documentOf(this._app.shell.currentWidget)?.path ?? null;
  }

  async save(path: string): Promise<void> {
    for (const widget of this._app.shell.widgets('main')) {
      const document = documentOf(widget);
      if (document?.path === path && document.model.dirty) {
        await document.save();
      }
    }
  }

  private readonly _app: JupyterFrontEnd;
  private readonly _factory: IFileBrowserFactory | null;
}

/** What a document has that is needed here. */
interface IDocument {
  readonly path: string;
  readonly pathChanged: ISignal<unknown, string>;
  readonly model: { readonly dirty: boolean };
  save(): Promise<void>;
}

/** The document that a widget shows; `null` for one that shows none. */
function documentOf(widget: Widget | null): IDocument | null {
  const { context } = (widget ?? {}) as { context?: Partial<IDocument> };
  return typeof context?.path === 'string' && context.model ? (context as IDocument) : null;
}

const IN_MENU = [CommandIDs.makeEnvironment, CommandIDs.lockEnvironment, CommandIDs.runInEnvironment];

/**
 * The menu of a file. A button in the browser's toolbar, there while such a file is selected, was tried: in a narrow
 * browser it begins a second row, and the files move away under the pointer.
 */
export function offerInFileBrowser({ contextMenu }: JupyterFrontEnd): void {
  const selector = '.jp-DirListing-item[data-isdir="false"]';
  // A group of its own, between those of opening and of renaming, which begin at 1 and 5.
  IN_MENU.forEach((command, index) => {
    contextMenu.addItem({ command, selector, rank: 4.1 + index / 10, args: { selected: true } });
  });
  contextMenu.addItem({ type: 'separator', selector, rank: 4.9 });
}

/** Buttons above a file that asks for an environment; other files are left as they are. */
export function offerInEditors(app: JupyterFrontEnd, trans: TranslationBundle): void {
  const { commands, docRegistry } = app;
  const button = (document: IDocument, command: string, label: string, icon: LabIcon): ToolbarButton =>
    new ToolbarButton({
      label,
      icon,
      className: 'jp-agent-EditorButton',
      tooltip: commands.caption(command),
      onClick: () => void commands.execute(command, { path: document.path })
    });
  docRegistry.addWidgetExtension('Editor', {
    createNew: (panel, context): IDisposable => {
      const { toolbar } = panel as unknown as { readonly toolbar: Toolbar };
      const make = button(context, CommandIDs.makeEnvironment, trans.__('Make this environment'), buildIcon);
      const lock = button(context, CommandIDs.lockEnvironment, trans.__('Lock this environment'), lockIcon);
      const show = (): void => {
        make.setHidden(!saysEnvironment(context.path));
        lock.setHidden(!canBeLocked(context.path));
        if (!make.isHidden && make.parent === null) {
          toolbar.addItem('jupyter-agent-make', make);
          toolbar.addItem('jupyter-agent-lock', lock);
        }
      };
      show();
      context.pathChanged.connect(show);
      return new DisposableDelegate(() => {
        context.pathChanged.disconnect(show);
        make.dispose();
        lock.dispose();
      });
    }
  });
}
