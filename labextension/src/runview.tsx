/**
 * The view of one run: what is known about it, its console, its output notebook.
 */

import type { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import type { ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import { Panel } from '@lumino/widgets';
import * as React from 'react';

import { ConsoleView } from './consoleview';
import { environmentOf, steps } from './environmentwords';
import { useNow, useSignal } from './hooks';
import { agentIcon, stateIcon } from './icons';
import { EnvironmentLink, Failure, Steps } from './making';
import { NotebookView } from './notebookview';
import { LiveBar, StateMark } from './parts';
import { artifactUrl, requestAPI, sentence } from './request';
import type { IRunSource } from './runsource';
import type { IArtifact, IRun, RunState } from './shapes';
import { hasEnded, USUAL_PRIORITY } from './shapes';
import { NOTEBOOK } from './tokens';
import { attempts, duration, elapsed, kindWord, resultValue, size, title, toneOf, value, waiting } from './words';

/** Kinds of runs that start no program. */
const MAKING: readonly IRun['kind'][] = ['prepare', 'environment'];

export type Tab = 'console' | 'notebook';

export interface IRunViewOptions {
  /** Disposed of with the view. */
  readonly source: IRunSource;
  readonly settings: ServerConnection.ISettings;
  readonly rendermime: IRenderMimeRegistry;
  readonly commands: CommandRegistry;
  /** The name under which Jupyter knows the user. */
  readonly me: () => string | undefined;
  readonly trans: TranslationBundle;
}

export class RunView extends Panel {
  constructor(options: IRunViewOptions) {
    super();
    this._options = options;
    const { source, trans, rendermime } = options;
    const runId = source.id;
    this.addClass('jp-agent-RunView');
    this.title.icon = agentIcon;
    this.title.label = trans.__('Run');
    this.title.closable = true;
    this.node.dataset['run'] = runId;
    this._console = new ConsoleView({ source, trans });
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
    source.changed.connect(this._onSource, this);
    this._onSource();
  }

  get runId(): string {
    return this._options.source.id;
  }

  /** The slug of the other agent that it runs on; `null`: this one. */
  get agent(): string | null {
    return this._options.source.agent;
  }

  /** What is known of it. */
  get run(): IRun | undefined {
    return this._options.source.run;
  }

  get tab(): Tab {
    return this._tab;
  }

  /** What the view itself knows has changed: the tab, whether there is a notebook. */
  readonly changed = new Signal<this, void>(this);

  /** Whether the run has, or will have, an output notebook. */
  get hasNotebook(): boolean {
    const { run, agent } = this._options.source;
    if (agent !== null || run === undefined || MAKING.includes(run.kind)) {
      return false;
    }
    return run.language === 'notebook' || run.artifacts.some(it => it.name === NOTEBOOK);
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
    this._options.source.changed.disconnect(this._onSource, this);
    this._options.source.dispose();
    Signal.clearData(this);
    super.dispose();
  }

  protected override onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    this._options.source.setVisible(this.isVisible);
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._options.source.setVisible(true);
  }

  protected override onAfterHide(message: Message): void {
    super.onAfterHide(message);
    this._options.source.setVisible(false);
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    (this._tab === 'console' ? this._console : this._notebook).activate();
  }

  private _onSource(): void {
    const { run, agent } = this._options.source;
    if (run === undefined) {
      return;
    }
    const where = agent === null ? '' : `\n${agent}`;
    this.title.label = title(run);
    this.title.caption = `${title(run)}\n${run.id}${where}`;
    this.title.icon = stateIcon(run.state);
    this.title.iconClass = `jp-agent-TabIcon jp-agent-mod-${toneOf(run.state)}`;
    if (run.state !== this._state) {
      this._state = run.state;
      this.changed.emit();
    }
    if (!hasEnded(run) || this._shown || agent !== null) {
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
  private _state: RunState | null = null;
}

function tabId(runId: string, tab: Tab): string {
  return `jupyter-agent-${runId}-${tab}`;
}

function Tabs({ view, trans }: { view: RunView; trans: TranslationBundle }): React.ReactElement {
  useSignal(view.changed);
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
  const { source, settings, commands, me, trans } = props;
  useSignal(source.changed);
  const { run, contact, trouble, agent } = source;
  const now = useNow(source, run !== undefined && !hasEnded(run) && contact);
  if (run === undefined) {
    const waiting = contact ? trans.__('Reading …') : trans.__('The run is shown when the agent runs.');
    return (
      <header className="jp-agent-Header" role={trouble ? 'alert' : undefined}>
        {trouble ?? waiting}
      </header>
    );
  }
  const ended = hasEnded(run);
  const making = steps(run) !== null;
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
          <span>{making ? '' : (run.progress?.label ?? waiting(run, now, trans))}</span>
        </div>
      )}
      {making ? <Steps run={run} trans={trans} /> : null}
      {(run.error ?? trouble) ? (
        <Failure
          error={run.error ?? trouble ?? ''}
          run={run}
          commands={agent === null ? commands : null}
          trans={trans}
        />
      ) : null}
      {run.warning ? <div className="jp-agent-Warning">{run.warning}</div> : null}
      <Facts run={run} agent={agent} commands={commands} me={me} trans={trans} />
      <Results results={run.results} trans={trans} />
      <Artifacts run={run} settings={settings} trans={trans} />
    </header>
  );
}

function Facts({
  run,
  agent,
  commands,
  me,
  trans
}: {
  run: IRun;
  agent: string | null;
  commands: CommandRegistry;
  me: IRunViewOptions['me'];
  trans: TranslationBundle;
}): React.ReactElement {
  const parameters = Object.entries(run.parameters).map(([name, given]) => `${name} = ${value(given)}`);
  const tried = attempts(run);
  const facts: [string, string | null][] = [
    [trans.__('Agent'), agent],
    [trans.__('Kind'), kindWord(run.kind, trans)],
    [trans.__('File'), run.path],
    [trans.__('Attempt'), tried ? trans.__('%1 of %2', ...tried) : null],
    [trans.__('Priority'), run.priority === USUAL_PRIORITY ? null : String(run.priority)],
    [trans.__('Repeats'), run.rerun_of],
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
      {agent === null && environmentOf(run) !== null ? (
        <div>
          <dt>{trans.__('Environment')}</dt>
          <dd>
            <EnvironmentLink run={run} commands={commands} />
          </dd>
        </div>
      ) : null}
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
