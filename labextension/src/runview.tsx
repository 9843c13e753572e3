/**
 * The view of one run: what is known about it, its console, its output notebook.
 */

import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import { Panel } from '@lumino/widgets';
import * as React from 'react';

import { ConsoleView } from './consoleview';
import { useModel, useNow, useRun } from './hooks';
import { agentIcon, stateIcon } from './icons';
import type { IAgentModel } from './model';
import { NotebookView } from './notebookview';
import { LiveBar, StateMark } from './parts';
import { artifactUrl, requestAPI, sentence } from './request';
import type { IArtifact, IRun } from './shapes';
import { hasEnded } from './shapes';
import { NOTEBOOK } from './tokens';
import { duration, elapsed, resultValue, size, title, toneOf, value } from './words';

export type Tab = 'console' | 'notebook';

export interface IRunViewOptions {
  readonly runId: string;
  readonly model: IAgentModel;
  readonly settings: ServerConnection.ISettings;
  readonly rendermime: IRenderMimeRegistry;
  /** The name under which Jupyter knows the user. */
  readonly me: () => string | undefined;
  readonly trans: TranslationBundle;
}

export class RunView extends Panel {
  constructor(options: IRunViewOptions) {
    super();
    this._options = options;
    const { model, runId, trans, rendermime } = options;
    this.addClass('jp-agent-RunView');
    this.title.icon = agentIcon;
    this.title.label = trans.__('Run');
    this.title.closable = true;
    this.node.dataset['run'] = runId;
    this._console = new ConsoleView({ model, runId, trans });
    this._notebook = new NotebookView({ rendermime, trans });
    this.addWidget(ReactWidget.create(<Header view={this} {...options} />));
    this.addWidget(ReactWidget.create(<Tabs view={this} trans={trans} />));
    for (const [tab, widget] of [
      ['notebook', this._notebook],
      ['console', this._console]
    ] as const) {
      widget.addClass('jp-agent-TabPanel');
      widget.id = `${tabId(runId, tab)}-panel`;
      widget.node.setAttribute('role', 'tabpanel');
      widget.node.setAttribute('aria-labelledby', tabId(runId, tab));
      widget.setHidden(tab !== this._tab);
      this.addWidget(widget);
    }
    model.runChanged.connect(this._onRun, this);
    model.changed.connect(this._onChanged, this);
    const run = model.find(runId);
    if (run) {
      this._onRun(model, run);
    }
    void this._load();
  }

  /** Why the run cannot be shown; `null` when it can, or while it is not known. */
  get trouble(): string | null {
    return this._trouble;
  }

  get runId(): string {
    return this._options.runId;
  }

  get tab(): Tab {
    return this._tab;
  }

  /** What the view itself knows has changed: the tab, whether there is a notebook, trouble. */
  readonly changed = new Signal<this, void>(this);

  /** Whether the run has, or will have, an output notebook. */
  get hasNotebook(): boolean {
    const run = this._options.model.find(this.runId);
    return run !== undefined && (run.language === 'notebook' || run.artifacts.some(it => it.name === NOTEBOOK));
  }

  /** Show a tab because the user asked for it; from then on it is not changed by itself. */
  choose(tab: Tab): void {
    this._chosen = true;
    this._select(tab);
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this._options.model.runChanged.disconnect(this._onRun, this);
    this._options.model.changed.disconnect(this._onChanged, this);
    Signal.clearData(this);
    super.dispose();
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    (this._tab === 'console' ? this._console : this._notebook).activate();
  }

  private _onChanged(): void {
    void this._load();
  }

  /** A run that is not in the list is read as soon as there is an agent to ask: looking at it does not start one. */
  private async _load(): Promise<void> {
    const { model } = this._options;
    const known = model.find(this.runId);
    if (this._loading || !model.running || (known && (hasEnded(known) || model.runs?.includes(known)))) {
      return;
    }
    this._loading = true;
    try {
      await model.load(this.runId);
      this._trouble = null;
    } catch (error) {
      this._trouble = sentence(error);
    } finally {
      this.changed.emit();
      this._loading = false;
    }
  }

  private _onRun(_: IAgentModel, run: IRun): void {
    if (run.id !== this.runId) {
      return;
    }
    this.title.label = title(run);
    this.title.caption = `${title(run)}\n${run.id}`;
    this.title.icon = stateIcon(run.state);
    this.title.iconClass = `jp-agent-TabIcon jp-agent-mod-${toneOf(run.state)}`;
    this.changed.emit();
    if (!hasEnded(run) || this._shown) {
      return;
    }
    if (run.artifacts.some(artifact => artifact.name === NOTEBOOK)) {
      void this._read();
    } else {
      this._notebook.note(this._options.trans.__('This run left no output notebook; the console has what it wrote.'));
    }
  }

  private async _read(): Promise<void> {
    this._shown = true;
    if (!this._chosen) {
      this._select('notebook');
    }
    this._notebook.note(this._options.trans.__('Reading …'));
    try {
      const file = await requestAPI<unknown>(this._options.settings, ['runs', this.runId, 'artifacts', NOTEBOOK]);
      await this._notebook.display(file);
    } catch (error) {
      this._shown = false;
      this._notebook.note(sentence(error));
    }
  }

  private _select(tab: Tab): void {
    this._tab = tab;
    this._console.setHidden(tab !== 'console');
    this._notebook.setHidden(tab !== 'notebook');
    this.changed.emit();
  }

  private readonly _options: IRunViewOptions;
  private readonly _console: ConsoleView;
  private readonly _notebook: NotebookView;
  private _tab: Tab = 'console';
  private _chosen = false;
  private _shown = false;
  private _loading = false;
  private _trouble: string | null = null;
}

function tabId(runId: string, tab: Tab): string {
  return `jupyter-agent-${runId}-${tab}`;
}

/** Render again when the view's own state changes. */
function useView(view: RunView): void {
  const [, render] = React.useReducer((count: number) => count + 1, 0);
  React.useEffect(() => {
    view.changed.connect(render);
    return () => {
      view.changed.disconnect(render);
    };
  }, [view]);
}

function Tabs({ view, trans }: { view: RunView; trans: TranslationBundle }): React.ReactElement {
  useView(view);
  const tabs: [Tab, string][] = [['console', trans.__('Console')]];
  if (view.hasNotebook) {
    tabs.unshift(['notebook', trans.__('Output notebook')]);
  }
  const move = (event: React.KeyboardEvent): void => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step !== undefined) {
      const here = tabs.findIndex(([tab]) => tab === view.tab);
      const [next] = tabs[(here + step + tabs.length) % tabs.length] ?? [view.tab];
      view.choose(next);
      document.getElementById(tabId(view.runId, next))?.focus();
    }
  };
  return (
    <div className="jp-agent-Tabs" role="tablist" aria-label={trans.__('Parts of the run')} onKeyDown={move}>
      {tabs.map(([tab, label]) => (
        <button
          key={tab}
          id={tabId(view.runId, tab)}
          className="jp-agent-Tab"
          role="tab"
          aria-selected={tab === view.tab}
          aria-controls={`${tabId(view.runId, tab)}-panel`}
          tabIndex={tab === view.tab ? 0 : -1}
          onClick={() => view.choose(tab)}
        >
          {label}
        </button>
      ))}
    </div>
  );
}

function Header(props: IRunViewOptions & { view: RunView }): React.ReactElement {
  const { view, runId, model, settings, me, trans } = props;
  useView(view);
  const run = useRun(model, runId);
  const contact = useModel(model, 'status', it => it.running);
  const now = useNow(model, run !== undefined && !hasEnded(run) && contact);
  if (run === undefined) {
    const waiting = contact ? trans.__('Reading …') : trans.__('The run is shown when the agent runs.');
    return (
      <header className="jp-agent-Header" role={view.trouble ? 'alert' : undefined}>
        {view.trouble ?? waiting}
      </header>
    );
  }
  const ended = hasEnded(run);
  const taken = ended || contact ? elapsed(run, now) : null;
  return (
    <header className="jp-agent-Header">
      <div className="jp-agent-Header-line">
        <span role="status" aria-live="polite">
          <StateMark state={run.state} contact={contact} trans={trans} />
        </span>
        <h2 className="jp-agent-Header-title">{title(run)}</h2>
        <span className="jp-agent-Header-time">{taken === null ? '' : duration(taken)}</span>
      </div>
      {ended ? null : (
        <div className="jp-agent-Header-progress">
          <LiveBar run={run} contact={contact} trans={trans} />
          <span>{run.progress?.label ?? ''}</span>
        </div>
      )}
      {(run.error ?? view.trouble) ? (
        <div className="jp-agent-Trouble" role="alert">
          {run.error ?? view.trouble}
        </div>
      ) : null}
      <Facts run={run} me={me} trans={trans} />
      <Results results={run.results} trans={trans} />
      <Artifacts run={run} settings={settings} trans={trans} />
    </header>
  );
}

function Facts({
  run,
  me,
  trans
}: {
  run: IRun;
  me: IRunViewOptions['me'];
  trans: TranslationBundle;
}): React.ReactElement {
  const parameters = Object.entries(run.parameters).map(([name, given]) => `${name} = ${value(given)}`);
  const facts: [string, string | null][] = [
    [trans.__('Started'), run.started ? new Date(run.started).toLocaleString() : null],
    [trans.__('By'), [run.who === me() ? trans.__('you') : run.who, run.trigger].filter(Boolean).join(' · ')],
    [trans.__('Parameters'), parameters.join(', ')],
    [trans.__('Peak memory'), run.peak_memory ? size(run.peak_memory) : null],
    [trans.__('CPU time'), run.cpu_s ? `${run.cpu_s.toFixed(1)} s` : null],
    [trans.__('Signal'), run.signal],
    [trans.__('Exit code'), run.exit_code ? String(run.exit_code) : null]
  ];
  return (
    <dl className="jp-agent-Facts jp-agent-mod-inline">
      {facts.map(([name, text]) =>
        text ? (
          <div key={name}>
            <dt>{name}</dt>
            <dd title={text}>{text}</dd>
          </div>
        ) : null
      )}
    </dl>
  );
}

function Results(props: { results: IRun['results']; trans: TranslationBundle }): React.ReactElement | null {
  const results = Object.entries(props.results);
  if (!results.length) {
    return null;
  }
  // The roles are named because the rows are laid out as a grid, which takes a table's meaning away in some browsers.
  return (
    <table className="jp-agent-Results" role="table" aria-label={props.trans.__('Results')}>
      <tbody role="rowgroup">
        {results.map(([name, given]) => {
          const text = resultValue(given);
          return (
            <tr key={name} role="row" className={name.length + text.length > WIDE ? 'jp-agent-mod-wide' : ''}>
              <th scope="row" role="rowheader">
                {name}
              </th>
              <td role="cell">{text}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** Characters of a result, with its name, that still share a row with others. */
const WIDE = 32;

function Artifacts(props: {
  run: IRun;
  settings: ServerConnection.ISettings;
  trans: TranslationBundle;
}): React.ReactElement | null {
  const { run, settings, trans } = props;
  if (!run.artifacts.length) {
    return null;
  }
  const link = (artifact: IArtifact): React.ReactElement => (
    <li key={artifact.name}>
      <a href={artifactUrl(settings, run.id, artifact.name)} download={artifact.name}>
        {artifact.name}
      </a>{' '}
      <span className="jp-agent-Item-aside">{size(artifact.size)}</span>
    </li>
  );
  return (
    <div className="jp-agent-Artifacts">
      <span>{trans.__('Files')}</span>
      <ul aria-label={trans.__('Files of the run')}>{run.artifacts.map(link)}</ul>
    </div>
  );
}
