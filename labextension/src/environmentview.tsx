/**
 * The view of one environment: what it is, what is in it and why, and whether its files are as they were installed.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { Message } from '@lumino/messaging';
import { Signal } from '@lumino/signaling';
import * as React from 'react';

import type { Check, IEnvironmentsModel } from './environments';
import type { Sort } from './environmentwords';
import {
  environmentWords,
  fromWhere,
  isOurs,
  matchingInstalled,
  nameOfEnvironment,
  originWord,
  shortId,
  sortedInstalled
} from './environmentwords';
import { useNow, useSignal } from './hooks';
import { environmentIcon, toneIcon } from './icons';
import type { Change, IAgentModel } from './model';
import { Trouble } from './rows';
import type { IEnvironmentDetails, IFault, IInstalled } from './shapes';
import { CommandIDs } from './tokens';
import { ago, size, title } from './words';

export interface IEnvironmentViewOptions {
  readonly id: string;
  readonly model: IAgentModel;
  readonly environments: IEnvironmentsModel;
  readonly commands: CommandRegistry;
  readonly trans: TranslationBundle;
}

/** Rows of packages, or of faults, that are shown at once. */
const SHOWN = 1000;

export class EnvironmentView extends ReactWidget {
  constructor(options: IEnvironmentViewOptions) {
    super();
    this._options = options;
    this.addClass('jp-agent-EnvironmentView');
    this.title.label = shortId(options.id);
    this.title.icon = environmentIcon;
    this.title.closable = true;
    this.node.dataset['environment'] = options.id;
    this.node.tabIndex = -1;
    options.environments.changed.connect(this._onList, this);
    options.environments.news.connect(this._onNews, this);
    options.model.changed.connect(this._onModel, this);
    void this._read();
  }

  get environmentId(): string {
    return this._options.id;
  }

  /** `null` until they were read. */
  get details(): IEnvironmentDetails | null {
    return this._details;
  }

  /** Why they cannot be read now. */
  get problem(): string | null {
    return this._problem;
  }

  readonly changed = new Signal<this, void>(this);

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    const { environments, model } = this._options;
    environments.changed.disconnect(this._onList, this);
    environments.news.disconnect(this._onNews, this);
    model.changed.disconnect(this._onModel, this);
    Signal.clearData(this);
    super.dispose();
  }

  protected override render(): React.ReactElement {
    return <View view={this} {...this._options} />;
  }

  protected override onAfterShow(message: Message): void {
    super.onAfterShow(message);
    this._onNews();
  }

  protected override onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this.node.focus();
  }

  /** The list says that it is not as it was: its details are not either. */
  private _onList(): void {
    const listed = JSON.stringify(this._options.environments.find(this._options.id));
    if (listed !== this._listed) {
      this._listed = listed;
      this._due = true;
      void this._read();
    }
  }

  private _onNews(): void {
    this._due = true;
    void this._read();
  }

  private _onModel(_: IAgentModel, change: Change): void {
    if (change === 'status') {
      this._due ||= this._problem !== null;
      void this._read();
    }
  }

  /** Details may take a moment to be gathered: they are read when they may have changed and somebody can see them. */
  private async _read(): Promise<void> {
    const { environments, model, id } = this._options;
    if (!this._due || this._reading || !model.running || (this.isAttached && !this.isVisible)) {
      return;
    }
    this._due = false;
    this._reading = true;
    try {
      this._details = await environments.api.environment(id);
      this._problem = null;
      this.title.label = nameOfEnvironment(this._details);
      this.title.caption = `${nameOfEnvironment(this._details)}\n${this._details.path}`;
    } catch (error) {
      this._problem = environments.api.sentence(error);
    } finally {
      this._reading = false;
      this.changed.emit();
    }
    if (this._due && !this.isDisposed) {
      void this._read();
    }
  }

  private readonly _options: IEnvironmentViewOptions;
  private _details: IEnvironmentDetails | null = null;
  private _problem: string | null = null;
  private _reading = false;
  private _due = true;
  private _listed: string | undefined;
}

type IShown = IEnvironmentViewOptions & { readonly view: EnvironmentView };

function View(props: IShown): React.ReactElement {
  const { view, model, environments, trans } = props;
  useSignal(view.changed);
  useSignal(environments.changed);
  useSignal(model.changed);
  const { details, problem } = view;
  if (details === null) {
    const waiting = model.running ? trans.__('Reading …') : trans.__('The environment is shown when the agent runs.');
    return <header className="jp-agent-Header">{problem ? <Trouble>{problem}</Trouble> : waiting}</header>;
  }
  const check = environments.check(view.environmentId) ?? environments.check(details.id);
  return (
    <>
      <header className="jp-agent-Header">
        <Heading details={details} trans={trans} />
        {problem ? <Trouble>{problem}</Trouble> : null}
        <Facts details={details} {...props} />
        {check ? <Verified check={check} details={details} {...props} /> : null}
      </header>
      <Packages details={details} trans={trans} />
    </>
  );
}

function Heading({ details, trans }: { details: IEnvironmentDetails; trans: TranslationBundle }): React.ReactElement {
  const { tone, word, sentence } = environmentWords(details.state, trans);
  const Icon = toneIcon(tone);
  return (
    <>
      <div className="jp-agent-Header-line">
        <span role="status" aria-live="polite">
          <span className={`jp-agent-Mark jp-agent-mod-${tone}`}>
            <Icon.react tag="span" className={`jp-agent-Mark-icon ${tone === 'busy' ? 'jp-agent-mod-turning' : ''}`} />
            <span className="jp-agent-Mark-word">{word}</span>
          </span>
        </span>
        <h2 className="jp-agent-Header-title">{nameOfEnvironment(details)}</h2>
        <span className="jp-agent-Header-time">{details.bytes === null ? '' : size(details.bytes)}</span>
      </div>
      {tone === 'warn' ? <div className="jp-agent-Warning">{sentence}</div> : null}
    </>
  );
}

function Facts(props: IShown & { details: IEnvironmentDetails }): React.ReactElement {
  const { details, model, commands, trans } = props;
  const now = useNow(model, false);
  const date = (time: string | null): string => (time ? new Date(time).toLocaleString() : '');
  const kind = details.kind === 'venv' ? trans.__('venv (Python packages only)') : trans.__('conda');
  const facts: [string, string][] = [
    [trans.__('Python'), details.python ?? ''],
    [trans.__('Kind'), kind],
    [trans.__('From'), originWord(details.origin, trans)],
    [trans.__('Platform'), details.platform ?? ''],
    [trans.__('Made'), date(details.made)],
    [trans.__('Last used'), details.used ? ago(details.used, now, trans) : ''],
    [trans.__('Made for'), details.source ?? ''],
    [trans.__('Channels'), details.channels.join(', ')],
    [trans.__('Sets'), details.variables.join(', ')],
    [trans.__('ID'), isOurs(details) ? details.id : '']
  ];
  return (
    <>
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
      <Asked details={details} trans={trans} />
      <div className="jp-agent-Path">
        <span className="jp-agent-Path-name">{trans.__('Path')}</span>
        <code>{details.path}</code>
        <button
          className="jp-agent-Link"
          onClick={() =>
            void commands.execute(CommandIDs.copyEnvironmentPath, {
              id: details.path,
              name: nameOfEnvironment(details)
            })
          }
        >
          {trans.__('Copy')}
        </button>
      </div>
      {details.used_by.length ? <Users {...props} /> : null}
    </>
  );
}

/** What was asked for, which can be much. */
function Asked({
  details,
  trans
}: {
  details: IEnvironmentDetails;
  trans: TranslationBundle;
}): React.ReactElement | null {
  if (!details.asked.length) {
    return null;
  }
  return (
    <div className="jp-agent-Asked">
      <span className="jp-agent-Path-name">{trans.__('Asked for')}</span>
      <ul aria-label={trans.__('What was asked for')}>
        {details.asked.map(text => (
          <li key={text}>
            <code>{text}</code>
          </li>
        ))}
      </ul>
    </div>
  );
}

/** The runs that use it, as buttons that open them. */
function Users({ details, model, commands, trans }: IShown & { details: IEnvironmentDetails }): React.ReactElement {
  const shown = details.used_by.slice(0, 12);
  const more = details.used_by.length - shown.length;
  return (
    <div className="jp-agent-Asked">
      <span className="jp-agent-Path-name">{trans.__('Used by')}</span>
      <ul aria-label={trans.__('Runs that use it')}>
        {shown.map(id => {
          const run = model.find(id);
          return (
            <li key={id}>
              <button
                className="jp-agent-Link"
                title={id}
                onClick={() => void commands.execute(CommandIDs.openRun, { id })}
              >
                {run ? title(run) : shortId(id)}
              </button>
            </li>
          );
        })}
        {more > 0 ? <li>{trans._n('and one more', 'and %1 more', more)}</li> : null}
      </ul>
    </div>
  );
}

function Verified(props: IShown & { check: Check; details: IEnvironmentDetails }): React.ReactElement {
  const { check, details, commands, trans } = props;
  if (check.state === 'busy') {
    return <div role="status">{trans.__('Every file is compared with what was installed …')}</div>;
  }
  if (check.state === 'failed') {
    return <Trouble>{check.problem}</Trouble>;
  }
  const { ok, faults } = check.verified;
  const tone = ok ? 'good' : 'warn';
  const Icon = toneIcon(tone);
  const args = { id: details.id, name: nameOfEnvironment(details) };
  return (
    <section className="jp-agent-Verified" aria-label={trans.__('Verification')}>
      <div className={`jp-agent-Mark jp-agent-mod-${tone}`} role="status">
        <Icon.react tag="span" className="jp-agent-Mark-icon" />
        <span>
          {ok
            ? trans.__('Every file is as it was installed.')
            : trans._n(
                'One file is not as it was installed.',
                '%1 files are not as they were installed.',
                faults.length
              )}
        </span>
        {ok ? null : (
          <button
            className="jp-agent-Button jp-mod-styled jp-mod-accept"
            onClick={() => void commands.execute(CommandIDs.repairEnvironment, args)}
          >
            {trans.__('Repair')}
          </button>
        )}
      </div>
      {faults.length ? <Faults faults={faults} trans={trans} /> : null}
    </section>
  );
}

function Faults({ faults, trans }: { faults: readonly IFault[]; trans: TranslationBundle }): React.ReactElement {
  return (
    <div className="jp-agent-Faults">
      <table className="jp-agent-Table" aria-label={trans.__('Files that are not as they were installed')}>
        <thead>
          <tr>
            <th scope="col">{trans.__('File')}</th>
            <th scope="col">{trans.__('What')}</th>
            <th scope="col">{trans.__('Package')}</th>
          </tr>
        </thead>
        <tbody>
          {faults.slice(0, SHOWN).map((fault, index) => (
            <tr key={index}>
              <td>
                <code>{fault.path}</code>
              </td>
              <td>{fault.what}</td>
              <td>{fault.package}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Packages({ details, trans }: { details: IEnvironmentDetails; trans: TranslationBundle }): React.ReactElement {
  const [wanted, setWanted] = React.useState('');
  const [sort, setSort] = React.useState<Sort>('name');
  const all = details.packages_list;
  const found = React.useMemo(
    () => sortedInstalled(matchingInstalled(all, wanted), sort).slice(0, SHOWN),
    [all, wanted, sort]
  );
  const columns: [Sort | null, string][] = [
    ['name', trans.__('Package')],
    ['version', trans.__('Version')],
    ['from', trans.__('From')],
    ['bytes', trans.__('Size')],
    [null, trans.__('Why')]
  ];
  return (
    <section className="jp-agent-Packages" aria-label={trans.__('Packages in it')}>
      <div className="jp-agent-Packages-head">
        <h3>{trans._n('%1 package', '%1 packages', all.length)}</h3>
        <input
          type="search"
          className="jp-mod-styled"
          placeholder={trans.__('Find a package')}
          aria-label={trans.__('Find a package')}
          value={wanted}
          onChange={event => setWanted(event.target.value)}
        />
      </div>
      <table className="jp-agent-Table" aria-label={trans.__('Packages')}>
        <thead>
          <tr>
            {columns.map(([key, label]) => (
              <th
                key={label}
                scope="col"
                className={key === 'bytes' ? 'jp-agent-mod-number' : ''}
                aria-sort={key !== null && key === sort ? (key === 'bytes' ? 'descending' : 'ascending') : undefined}
              >
                {key === null ? label : <button onClick={() => setSort(key)}>{label}</button>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {found.map(item => (
            <PackageRow key={`${item.manager} ${item.name}`} item={item} />
          ))}
        </tbody>
      </table>
      {found.length === 0 ? <div className="jp-agent-Empty">{trans.__('There is no such package in it.')}</div> : null}
    </section>
  );
}

function PackageRow({ item }: { item: IInstalled }): React.ReactElement {
  const why = item.why.join(', ');
  return (
    <tr data-installed={item.name}>
      <th scope="row">{item.name}</th>
      <td title={item.build ?? undefined}>{item.version}</td>
      <td title={item.channel ?? undefined}>{fromWhere(item)}</td>
      <td className="jp-agent-mod-number">{item.bytes === null ? '' : size(item.bytes)}</td>
      <td className="jp-agent-Table-why" title={why}>
        {why}
      </td>
    </tr>
  );
}
