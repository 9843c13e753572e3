/**
 * The left panel: the connection, the packages, the runs, the environments, other agents. It only shows; everything it does is a command.
 */

import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { nullTranslator } from '@jupyterlab/translation';
import type { LabIcon } from '@jupyterlab/ui-components';
import {
  CommandToolbarButton,
  consoleIcon,
  notebookIcon,
  PanelWithToolbar,
  pythonIcon,
  ReactWidget,
  runIcon,
  settingsIcon,
  SidePanel,
  stopIcon,
  textEditorIcon
} from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import { MessageLoop } from '@lumino/messaging';
import type { ISignal } from '@lumino/signaling';
import { Signal } from '@lumino/signaling';
import { AccordionPanel, Widget } from '@lumino/widgets';
import * as React from 'react';

import { Agents } from './agentlist';
import { EnvironmentList } from './environmentlist';
import type { IEnvironmentsModel } from './environments';
import { explained } from './environmentwords';
import { useModel, useNow } from './hooks';
import { agentIcon, toneIcon } from './icons';
import type { IAgentModel } from './model';
import type { IOthersModel } from './others';
import { LiveBar, StateMark } from './parts';
import type { Entries } from './rowmenu';
import { openMenu } from './rowmenu';
import { act, Empty, IconButton, List, MenuButton, Trouble } from './rows';
import type { IPackage, IRun } from './shapes';
import { hasEnded } from './shapes';
import { CommandIDs } from './tokens';
import { ago, connectionWords, duration, elapsed, matching, peculiarities, title, waiting } from './words';

interface IShared {
  readonly model: IAgentModel;
  readonly commands: CommandRegistry;
  readonly trans: TranslationBundle;
}

export interface IAgentPanelOptions {
  readonly model: IAgentModel;
  readonly others: IOthersModel;
  readonly environments: IEnvironmentsModel;
  readonly commands: CommandRegistry;
  readonly translator?: ITranslator;
  /** Called each time the panel comes into view. */
  readonly onShown: () => void;
}

export class AgentPanel extends SidePanel {
  constructor(options: IAgentPanelOptions) {
    const translator = options.translator ?? nullTranslator;
    super({ translator });
    const trans = translator.load('jupyter_agent');
    const shared: IShared = { model: options.model, commands: options.commands, trans };
    this._options = options;
    this.id = 'jupyter-agent-panel';
    this.addClass('jp-agent-Panel');
    this.title.icon = agentIcon;
    this.title.caption = trans.__('Agent: packages, runs, environments and other agents');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Agent'));
    this.header.addWidget(ReactWidget.create(<Connection {...shared} />));
    this._section(trans.__('Packages'), new PanelWithToolbar(), <Packages {...shared} />, CommandIDs.publishPackage);
    this._section(trans.__('Runs'), new PanelWithToolbar(), <Runs {...shared} />);
    this._section(
      trans.__('Environments'),
      this._environments,
      <EnvironmentList {...shared} environments={options.environments} />,
      CommandIDs.cleanUpEnvironments
    );
    this._section(
      trans.__('Agents'),
      this._agents,
      <Agents {...shared} others={options.others} />,
      CommandIDs.refreshAgents
    );
    this._heights.observe(this.header.node);
    if (this.content instanceof AccordionPanel) {
      this.content.setRelativeSizes([3, 4, 3, 3]);
    }
  }

  override dispose(): void {
    this._heights.disconnect();
    super.dispose();
  }

  /** Whether the section of other agents is in view. */
  get showsAgents(): boolean {
    return this._agents.isVisible;
  }

  /** It has come into view. */
  get agentsShown(): ISignal<unknown, void> {
    return this._agents.shown;
  }

  /** Whether the section of environments is in view. */
  get showsEnvironments(): boolean {
    return this._environments.isVisible;
  }

  /** It has come into view. */
  get environmentsShown(): ISignal<unknown, void> {
    return this._environments.shown;
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._options.onShown();
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.node.querySelector<HTMLElement>('button:not([disabled])')?.focus();
  }

  private _section(label: string, section: PanelWithToolbar, element: React.ReactElement, command?: string): void {
    section.title.label = label;
    section.addClass('jp-agent-Section');
    section.addWidget(ReactWidget.create(element));
    if (command !== undefined) {
      const { commands } = this._options;
      section.toolbar.addItem(command, new CommandToolbarButton({ commands, id: command, label: '' }));
    }
    this.addWidget(section);
  }

  /** What is said at the top gets longer and shorter without Lumino's knowledge: the sections are to fit below it. */
  private readonly _heights = new ResizeObserver(() =>
    MessageLoop.postMessage(this.content, Widget.ResizeMessage.UnknownSize)
  );
  private readonly _options: IAgentPanelOptions;
  private readonly _agents = new WatchedSection();
  private readonly _environments = new WatchedSection();
}

/** A section that tells when it comes into view. */
class WatchedSection extends PanelWithToolbar {
  readonly shown = new Signal<this, void>(this);

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this.shown.emit();
  }
}

function Connection({ model, commands, trans }: IShared): React.ReactElement {
  const status = useModel(model, 'status', it => it.status);
  const reach = useModel(model, 'status', it => it.reach);
  const problem = useModel(model, 'status', it => it.problem);
  const starting = useModel(model, 'status', it => it.starting);
  const { tone, word, sentence, warning } = connectionWords(reach, starting, status, trans);
  const Icon = toneIcon(tone);
  const url = status?.openflow?.url ?? status?.hub?.apiurl;
  const stopped = reach === 'answering' && status?.agent === null && !starting;
  return (
    <section className="jp-agent-Connection" aria-label={trans.__('Connection')}>
      <div className={`jp-agent-Connection-state jp-agent-mod-${tone}`} role="status" aria-live="polite">
        <Icon.react tag="span" className="jp-agent-Mark-icon" />
        <span className="jp-agent-Connection-word">{word}</span>
        <span className="jp-agent-Connection-sentence">{sentence}</span>
      </div>
      {status?.agent && url ? (
        <dl className="jp-agent-Facts">
          <dt>{trans.__('Server')}</dt>
          <dd title={url}>{url}</dd>
          {status.slug ? (
            <>
              <dt>{trans.__('Agent')}</dt>
              <dd title={status.slug}>{status.slug}</dd>
            </>
          ) : null}
        </dl>
      ) : null}
      {warning ? (
        <div className="jp-agent-Warning" role="status">
          {warning}
        </div>
      ) : null}
      {problem && reach === 'answering' ? <Trouble>{problem}</Trouble> : null}
      {stopped ? (
        <button className="jp-agent-Button jp-mod-styled jp-mod-accept" onClick={() => act(commands, CommandIDs.start)}>
          {trans.__('Start agent')}
        </button>
      ) : null}
    </section>
  );
}

function Packages({ model, commands, trans }: IShared): React.ReactElement {
  const packages = useModel(model, 'packages', it => it.packages);
  const connected = useModel(model, 'status', it => it.usable);
  const [wanted, setWanted] = React.useState('');
  if (packages === null) {
    return <Empty>{connected ? trans.__('Reading …') : trans.__('Shown when the agent is connected.')}</Empty>;
  }
  if (packages.length === 0) {
    return (
      <Empty>
        <p>{trans.__('No packages yet. In a terminal, try one with real data:')}</p>
        <code>jupyter agent demo</code>
        <p>{trans.__('or publish a folder of yours:')}</p>
        <code>{'jupyter agent package publish FOLDER'}</code>
      </Empty>
    );
  }
  const found = matching(packages, wanted);
  const shown = found.slice(0, PACKAGES_SHOWN);
  return (
    <>
      {packages.length > PACKAGES_AT_A_GLANCE ? (
        <input
          type="search"
          className="jp-agent-Filter jp-mod-styled"
          placeholder={trans.__('Find a package')}
          aria-label={trans.__('Find a package')}
          value={wanted}
          onChange={event => setWanted(event.target.value)}
        />
      ) : null}
      <List label={trans.__('Packages')}>
        {shown.map(item => (
          <PackageItem key={item.id} item={item} commands={commands} trans={trans} />
        ))}
      </List>
      {found.length === 0 ? <Empty>{trans.__('No package is called so.')}</Empty> : null}
      {found.length > shown.length ? (
        <Empty>
          {trans.__('%1 more: type a part of the name above.', (found.length - shown.length).toLocaleString())}
        </Empty>
      ) : null}
    </>
  );
}

/** Up to so many are found without typing. */
const PACKAGES_AT_A_GLANCE = 12;

/** A page with thousands of rows would be slow; nobody reads them. */
const PACKAGES_SHOWN = 100;

const LANGUAGE_ICONS: Readonly<Record<string, LabIcon>> = {
  notebook: notebookIcon,
  python: pythonIcon,
  shell: consoleIcon,
  powershell: consoleIcon
};

function PackageItem(props: {
  item: IPackage;
  commands: CommandRegistry;
  trans: TranslationBundle;
}): React.ReactElement {
  const { item, commands, trans } = props;
  const Icon = LANGUAGE_ICONS[item.language] ?? textEditorIcon;
  const args = { id: item.id, name: item.name };
  const named = title({ package: item.name, version: item.version });
  const entries: Entries = [
    { command: CommandIDs.runPackage, args },
    { command: CommandIDs.runPackageWith, args },
    { command: CommandIDs.runOnAgent, args },
    null,
    { command: CommandIDs.preparePackage, args },
    { command: CommandIDs.reinstallPackage, args },
    { command: CommandIDs.cancelRunsOfPackage, args },
    null,
    { command: CommandIDs.removePackage, args }
  ];
  return (
    <li
      className="jp-agent-Item"
      data-package={item.id}
      title={[named, item.language, item.description].filter(Boolean).join('\n')}
      onContextMenu={event => openMenu(commands, entries, event)}
    >
      <Icon.react tag="span" className="jp-agent-Item-icon" />
      <div className="jp-agent-Item-body">
        <div className="jp-agent-Item-line">
          <span className="jp-agent-Item-name">{item.name}</span>
          <span className="jp-agent-Item-aside">{item.version}</span>
        </div>
        <div className="jp-agent-Item-detail">{item.description || item.language}</div>
      </div>
      <IconButton
        icon={settingsIcon}
        label={trans.__('Run %1 with parameters …', item.name)}
        className="jp-agent-mod-onHover"
        onClick={() => act(commands, CommandIDs.runPackageWith, args)}
      />
      <MenuButton commands={commands} entries={entries} name={item.name} trans={trans} />
      <IconButton
        icon={runIcon}
        main
        label={trans.__('Run %1', item.name)}
        onClick={() => act(commands, CommandIDs.runPackage, args)}
      />
    </li>
  );
}

function Runs({ model, commands, trans }: IShared): React.ReactElement {
  const runs = useModel(model, 'runs', it => it.runs);
  const running = useModel(model, 'status', it => it.running);
  const live = (runs ?? []).filter(run => !hasEnded(run));
  const now = useNow(model, running && live.length > 0);
  if (runs === null) {
    return <Empty>{running ? trans.__('Reading …') : trans.__('Shown when the agent runs.')}</Empty>;
  }
  if (runs.length === 0) {
    return <Empty>{trans.__('Nothing has run yet. Start a package with the button beside its name.')}</Empty>;
  }
  const ended = runs.filter(hasEnded);
  return (
    <List label={trans.__('Runs')}>
      {[...live, ...ended].map(run => (
        <RunItem key={run.id} run={run} now={now} contact={running} commands={commands} trans={trans} />
      ))}
    </List>
  );
}

function RunItem(props: {
  run: IRun;
  now: number;
  contact: boolean;
  commands: CommandRegistry;
  trans: TranslationBundle;
}): React.ReactElement {
  const { run, now, contact, commands, trans } = props;
  const ended = hasEnded(run);
  const taken = ended || contact ? elapsed(run, now) : null;
  const detail = [
    waiting(run, now, trans),
    ...peculiarities(run, trans),
    ...(ended
      ? [ago(run.ended ?? run.created, now, trans), explained(run.error ?? '').sentence]
      : [run.progress?.label ?? (run.state === 'preparing' ? trans.__('what it needs') : '')])
  ];
  const args = { id: run.id };
  const entries: Entries = [
    { command: CommandIDs.openRun, args },
    { command: CommandIDs.cancelRun, args },
    { command: CommandIDs.rerun, args },
    null,
    { command: CommandIDs.openNotebook, args },
    { command: CommandIDs.openReport, args },
    { command: CommandIDs.copyRunId, args }
  ];
  return (
    <li
      className="jp-agent-Item jp-agent-Run"
      data-state={run.state}
      data-run={run.id}
      onContextMenu={event => openMenu(commands, entries, event)}
    >
      <button
        className="jp-agent-Item-open"
        data-main=""
        title={run.error ?? title(run)}
        onClick={() => act(commands, CommandIDs.openRun, args)}
      >
        <span className="jp-agent-Item-line">
          <StateMark state={run.state} contact={contact} trans={trans} iconOnly />
          <span className="jp-agent-Item-name">{run.package}</span>
          <span className="jp-agent-Item-aside">{taken === null ? '' : duration(taken)}</span>
        </span>
        <span className="jp-agent-Item-detail">
          <StateMark state={run.state} contact={contact} trans={trans} wordOnly />
          {detail.filter(Boolean).map((text, index) => (
            <React.Fragment key={index}> · {text}</React.Fragment>
          ))}
        </span>
      </button>
      <span className="jp-agent-Item-buttons">
        <MenuButton commands={commands} entries={entries} name={run.package} trans={trans} />
        {ended ? null : (
          <IconButton
            icon={stopIcon}
            label={trans.__('Cancel %1', run.package)}
            disabled={!contact}
            onClick={() => act(commands, CommandIDs.cancelRun, args)}
          />
        )}
      </span>
      {ended ? null : <LiveBar run={run} contact={contact} trans={trans} />}
    </li>
  );
}
