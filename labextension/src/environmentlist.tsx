/**
 * The panel's section of environments: those of the agent, then those of other programs of the machine.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import type { IEnvironmentsModel } from './environments';
import {
  environmentDetail,
  environmentWords,
  grouped,
  isOurs,
  nameOfEnvironment,
  matchingEnvironments,
  originWord,
  shortId
} from './environmentwords';
import { useModel, useNow, useSignal } from './hooks';
import { foreignIcon, toneIcon } from './icons';
import type { IAgentModel } from './model';
import type { Entries } from './rowmenu';
import { openMenu } from './rowmenu';
import { act, Empty, List, MenuButton, Trouble } from './rows';
import type { IEnvironment } from './shapes';
import { CommandIDs } from './tokens';

interface IShared {
  readonly model: IAgentModel;
  readonly environments: IEnvironmentsModel;
  readonly commands: CommandRegistry;
  readonly trans: TranslationBundle;
}

/** Up to so many are found without typing. */
const AT_A_GLANCE = 8;

/** A page with thousands of rows would be slow; nobody reads them. */
const SHOWN = 100;

export function EnvironmentList(props: IShared): React.ReactElement {
  const { model, environments, trans } = props;
  useSignal(environments.changed);
  const running = useModel(model, 'status', it => it.running);
  const now = useNow(model, false);
  const [wanted, setWanted] = React.useState('');
  const { environments: all, problem } = environments;
  const trouble = running && problem !== null ? <Trouble>{problem}</Trouble> : null;
  if (all === null) {
    return trouble ?? <Empty>{running ? trans.__('Reading …') : trans.__('Shown when the agent runs.')}</Empty>;
  }
  if (all.length === 0) {
    return (
      trouble ?? (
        <Empty>
          <p>{trans.__('No environments yet. They are made for packages that need one, or from a file:')}</p>
          <p>{trans.__('right-click an environment.yml or requirements.txt in the file browser.')}</p>
        </Empty>
      )
    );
  }
  const found = matchingEnvironments(all, wanted);
  const groups = grouped(found.length > SHOWN ? found.slice(0, SHOWN) : found);
  const isMixed = grouped(all).length > 1;
  return (
    <>
      {trouble}
      {all.length > AT_A_GLANCE ? (
        <input
          type="search"
          className="jp-agent-Filter jp-mod-styled"
          placeholder={trans.__('Find an environment')}
          aria-label={trans.__('Find an environment')}
          value={wanted}
          onChange={event => setWanted(event.target.value)}
        />
      ) : null}
      {groups.map(group => (
        <React.Fragment key={group.origin}>
          {isMixed ? (
            <div className="jp-agent-GroupName" aria-hidden="true">
              {originWord(group.origin, trans)}
            </div>
          ) : null}
          <List label={trans.__('Environments: %1', originWord(group.origin, trans))}>
            {group.environments.map(item => (
              <EnvironmentItem key={`${item.origin} ${item.path}`} item={item} now={now} {...props} />
            ))}
          </List>
        </React.Fragment>
      ))}
      {found.length === 0 ? <Empty>{trans.__('No environment is called so.')}</Empty> : null}
      {found.length > SHOWN ? (
        <Empty>{trans.__('%1 more: type a part of the name above.', (found.length - SHOWN).toLocaleString())}</Empty>
      ) : null}
    </>
  );
}

function entriesOf(item: IEnvironment): Entries {
  const args = { id: item.id, name: nameOfEnvironment(item) };
  const look = { command: CommandIDs.showEnvironment, args };
  const copy = { command: CommandIDs.copyEnvironmentPath, args };
  if (!isOurs(item)) {
    return [look, copy];
  }
  return [
    look,
    { command: CommandIDs.verifyEnvironment, args },
    { command: CommandIDs.repairEnvironment, args },
    copy,
    null,
    { command: CommandIDs.removeEnvironment, args },
    { command: CommandIDs.cleanUpEnvironments, args: {} }
  ];
}

function EnvironmentItem(props: IShared & { item: IEnvironment; now: number }): React.ReactElement {
  const { item, now, environments, commands, trans } = props;
  const state = environmentWords(item.state, trans);
  const busy = environments.check(item.id)?.state === 'busy';
  const tone = busy ? 'busy' : state.tone;
  const word = busy ? trans.__('Verifying') : state.word;
  const Icon = isOurs(item) || tone !== 'good' ? toneIcon(tone) : foreignIcon;
  const name = nameOfEnvironment(item);
  const args = { id: item.id, name };
  const entries = entriesOf(item);
  const id = isOurs(item) ? shortId(item.id) : '';
  const detail = environmentDetail(item, now, trans);
  const about = [name, id, state.sentence, detail.join(' · '), item.source ?? '', item.path].filter(Boolean);
  return (
    <li
      className="jp-agent-Item jp-agent-Environment"
      data-environment={item.id}
      data-state={item.state}
      onContextMenu={event => openMenu(commands, entries, event)}
    >
      <button
        className="jp-agent-Item-open"
        data-main=""
        title={about.join('\n')}
        onClick={() => act(commands, CommandIDs.showEnvironment, args)}
      >
        <span className={`jp-agent-Item-line jp-agent-mod-${tone}`}>
          <Icon.react tag="span" className={`jp-agent-Mark-icon ${tone === 'busy' ? 'jp-agent-mod-turning' : ''}`} />
          <span className="jp-agent-Item-name">{name}</span>
          <span className="jp-agent-Item-aside">{item.python ? `Python ${item.python}` : ''}</span>
        </span>
        <span className="jp-agent-Item-detail">
          <span className={`jp-agent-Mark jp-agent-mod-${tone}`}>{word}</span>
          {detail.map((text, index) => (
            <React.Fragment key={index}> · {text}</React.Fragment>
          ))}
        </span>
      </button>
      <MenuButton commands={commands} entries={entries} name={name} trans={trans} />
    </li>
  );
}
