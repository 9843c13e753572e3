/**
 * The left panel: the connection, the packages, the runs. It only shows; everything it does is a command.
 */

import type { ITranslator, TranslationBundle } from '@jupyterlab/translation';
import { nullTranslator } from '@jupyterlab/translation';
import type { LabIcon } from '@jupyterlab/ui-components';
import {
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
import { AccordionPanel } from '@lumino/widgets';
import * as React from 'react';

import { useModel, useNow } from './hooks';
import { agentIcon, toneIcon } from './icons';
import type { IAgentModel } from './model';
import { LiveBar, StateMark } from './parts';
import type { IPackage, IRun } from './shapes';
import { hasEnded } from './shapes';
import { CommandIDs } from './tokens';
import { ago, connectionWords, duration, elapsed, title } from './words';

interface IShared {
  readonly model: IAgentModel;
  readonly commands: CommandRegistry;
  readonly trans: TranslationBundle;
}

export interface IAgentPanelOptions {
  readonly model: IAgentModel;
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
    this._onShown = options.onShown;
    this.id = 'jupyter-agent-panel';
    this.addClass('jp-agent-Panel');
    this.title.icon = agentIcon;
    this.title.caption = trans.__('Agent: packages and runs');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', trans.__('Agent'));
    this.header.addWidget(ReactWidget.create(<Connection {...shared} />));
    this._section(trans.__('Packages'), <Packages {...shared} />);
    this._section(trans.__('Runs'), <Runs {...shared} />);
    if (this.content instanceof AccordionPanel) {
      this.content.setRelativeSizes([1, 2]);
    }
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._onShown();
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.node.querySelector<HTMLElement>('button:not([disabled])')?.focus();
  }

  private _section(label: string, element: React.ReactElement): void {
    const section = new PanelWithToolbar();
    section.title.label = label;
    section.addClass('jp-agent-Section');
    section.addWidget(ReactWidget.create(element));
    this.addWidget(section);
  }

  private readonly _onShown: () => void;
}

function Connection({ model, commands, trans }: IShared): React.ReactElement {
  const status = useModel(model, 'status', it => it.status);
  const reach = useModel(model, 'status', it => it.reach);
  const problem = useModel(model, 'status', it => it.problem);
  const starting = useModel(model, 'status', it => it.starting);
  const { tone, word, sentence } = connectionWords(reach, starting, status, trans);
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
      {problem && reach === 'answering' ? (
        <div className="jp-agent-Trouble" role="alert">
          {problem}
        </div>
      ) : null}
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
  const connected = useModel(model, 'status', it => it.running && it.status?.connected === true);
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
  return (
    <List label={trans.__('Packages')}>
      {packages.map(item => (
        <PackageItem key={item.id} item={item} commands={commands} trans={trans} />
      ))}
    </List>
  );
}

const LANGUAGE_ICONS: Readonly<Record<string, LabIcon>> = { notebook: notebookIcon, python: pythonIcon };

function PackageItem(props: {
  item: IPackage;
  commands: CommandRegistry;
  trans: TranslationBundle;
}): React.ReactElement {
  const { item, commands, trans } = props;
  const Icon = LANGUAGE_ICONS[item.language] ?? textEditorIcon;
  const args = { id: item.id, name: item.name };
  const named = title({ package: item.name, version: item.version });
  return (
    <li className="jp-agent-Item" title={[named, item.language, item.description].filter(Boolean).join('\n')}>
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
      <IconButton
        icon={runIcon}
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
  const detail = ended
    ? [ago(run.ended ?? run.created, now, trans), run.error ?? '']
    : [run.progress?.label ?? (run.state === 'preparing' ? trans.__('its environment') : '')];
  return (
    <li className="jp-agent-Item jp-agent-Run" data-state={run.state} data-run={run.id}>
      <button
        className="jp-agent-Item-open"
        title={run.error ?? title(run)}
        onClick={() => act(commands, CommandIDs.openRun, { id: run.id })}
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
      {ended ? null : (
        <>
          <IconButton
            icon={stopIcon}
            label={trans.__('Cancel %1', run.package)}
            disabled={!contact}
            onClick={() => act(commands, CommandIDs.cancelRun, { id: run.id })}
          />
          <LiveBar run={run} contact={contact} trans={trans} />
        </>
      )}
    </li>
  );
}

/** A list in which the arrow keys move between the rows' first buttons. */
function List(props: { label: string; children: React.ReactNode }): React.ReactElement {
  return (
    <ul className="jp-agent-List" aria-label={props.label} onKeyDown={moveFocus}>
      {props.children}
    </ul>
  );
}

function moveFocus(event: React.KeyboardEvent<HTMLUListElement>): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step === undefined) {
    return;
  }
  const rows = [...event.currentTarget.children];
  const here = rows.findIndex(row => row.contains(document.activeElement));
  const next = rows[here + step]?.querySelector<HTMLElement>('.jp-agent-Item-open, button:last-of-type');
  if (next) {
    next.focus();
    event.preventDefault();
  }
}

function IconButton(props: {
  icon: LabIcon;
  label: string;
  onClick: () => void;
  className?: string;
  disabled?: boolean;
}): React.ReactElement {
  return (
    <button
      className={`jp-agent-IconButton ${props.className ?? ''}`}
      title={props.label}
      aria-label={props.label}
      disabled={props.disabled ?? false}
      onClick={props.onClick}
    >
      <props.icon.react tag="span" />
    </button>
  );
}

function Empty(props: { children: React.ReactNode }): React.ReactElement {
  return <div className="jp-agent-Empty">{props.children}</div>;
}

function act(commands: CommandRegistry, id: string, args: Record<string, string> = {}): void {
  void commands.execute(id, args);
}
