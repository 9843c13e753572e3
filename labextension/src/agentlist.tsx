/**
 * The panel's section of other agents: whether they are online, and unfolded what they are and what runs there.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import { caretDownIcon, caretRightIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import { useModel, useNow, useSignal } from './hooks';
import { toneIcon } from './icons';
import type { IAgentModel } from './model';
import type { IOthersModel } from './others';
import { StateMark } from './parts';
import type { Entries } from './rowmenu';
import { openMenu } from './rowmenu';
import { act, Empty, IconButton, List, MenuButton, Trouble } from './rows';
import type { IOtherAgent, IOtherRun } from './shapes';
import { CommandIDs } from './tokens';
import { ago, agentWords, size } from './words';

interface IShared {
  readonly model: IAgentModel;
  readonly others: IOthersModel;
  readonly commands: CommandRegistry;
  readonly trans: TranslationBundle;
}

export function Agents(props: IShared): React.ReactElement {
  const { model, others, trans } = props;
  useSignal(others.changed);
  const connected = useModel(model, 'status', it => it.usable);
  const now = useNow(model, false);
  const { agents, problem } = others;
  const trouble = connected && problem !== null ? <Trouble>{problem}</Trouble> : null;
  if (!connected || agents === null) {
    return (
      trouble ?? <Empty>{connected ? trans.__('Reading …') : trans.__('Shown when the agent is connected.')}</Empty>
    );
  }
  if (agents.length === 0) {
    return trouble ?? <Empty>{trans.__('There are no other agents on this OpenFlow.')}</Empty>;
  }
  return (
    <>
      {trouble}
      <List label={trans.__('Other agents')}>
        {agents.map(agent => (
          <AgentItem key={agent.id} agent={agent} now={now} {...props} />
        ))}
      </List>
    </>
  );
}

function entriesOf(agent: IOtherAgent): Entries {
  const args = { agent: agent.slug, agentName: agent.name };
  return [
    { command: CommandIDs.runOnAgent, args },
    { command: CommandIDs.prepareOnAgent, args },
    { command: CommandIDs.reinstallOnAgent, args },
    null,
    { command: CommandIDs.cancelRunsOnAgent, args },
    { command: CommandIDs.refreshAgents, args: {} }
  ];
}

function AgentItem(props: IShared & { agent: IOtherAgent; now: number }): React.ReactElement {
  const { agent, others, commands, trans, now } = props;
  const unfolded = others.unfolded.has(agent.slug);
  const { tone, word } = agentWords(agent, trans);
  const Icon = toneIcon(tone);
  const Caret = unfolded ? caretDownIcon : caretRightIcon;
  const entries = entriesOf(agent);
  const bodyId = `jupyter-agent-there-${agent.slug}`;
  const seen = !agent.online && agent.lastseen ? trans.__('seen %1', ago(agent.lastseen, now, trans)) : '';
  const host = agent.name.includes(agent.hostname) ? '' : agent.hostname;
  const detail = [seen, host, agent.languages.join(', ')].filter(Boolean);
  return (
    <li className="jp-agent-Other" data-agent={agent.slug} data-online={agent.online}>
      <div className="jp-agent-Item" onContextMenu={event => openMenu(commands, entries, event)}>
        <button
          className="jp-agent-Item-open"
          data-main=""
          title={[agent.name, word, ...detail].join('\n')}
          aria-expanded={unfolded}
          aria-controls={unfolded ? bodyId : undefined}
          onClick={() => others.unfold(agent.slug, !unfolded)}
        >
          <span className={`jp-agent-Item-line jp-agent-mod-${tone}`}>
            <Caret.react tag="span" className="jp-agent-Caret" />
            <Icon.react tag="span" className="jp-agent-Mark-icon" />
            <span className="jp-agent-Item-name">{agent.name}</span>
          </span>
          <span className="jp-agent-Item-detail">
            <span className={`jp-agent-Mark jp-agent-mod-${tone}`}>{word}</span>
            {detail.map((text, index) => (
              <React.Fragment key={index}> · {text}</React.Fragment>
            ))}
          </span>
        </button>
        <MenuButton commands={commands} entries={entries} name={agent.name} trans={trans} />
        <IconButton
          icon={runIcon}
          label={trans.__('Run a package on %1 …', agent.name)}
          disabled={!agent.online || !agent.may_invoke}
          onClick={() => act(commands, CommandIDs.runOnAgent, { agent: agent.slug, agentName: agent.name })}
        />
      </div>
      {unfolded ? <There id={bodyId} {...props} /> : null}
    </li>
  );
}

function There(props: IShared & { id: string; agent: IOtherAgent }): React.ReactElement {
  const { id, agent, others, commands, trans } = props;
  const { runs, problem } = others.there(agent.slug);
  const facts: [string, string][] = [
    [trans.__('Name'), agent.name],
    [trans.__('Slug'), agent.slug],
    [trans.__('Host'), agent.hostname],
    [trans.__('System'), [agent.os, agent.arch].filter(Boolean).join(' ')],
    [trans.__('Version'), agent.version],
    [trans.__('Languages'), agent.languages.join(', ')],
    [trans.__('Last seen'), agent.lastseen ? new Date(agent.lastseen).toLocaleString() : '']
  ];
  return (
    <div className="jp-agent-There" id={id}>
      {agent.online && problem !== null ? <Trouble>{problem}</Trouble> : null}
      <RunsThere
        agent={agent}
        runs={agent.online ? runs : []}
        troubled={problem !== null}
        commands={commands}
        trans={trans}
      />
      <dl className="jp-agent-Facts">
        {facts.map(([name, text]) =>
          text ? (
            <React.Fragment key={name}>
              <dt>{name}</dt>
              <dd title={text}>{text}</dd>
            </React.Fragment>
          ) : null
        )}
      </dl>
    </div>
  );
}

function RunsThere(props: {
  agent: IOtherAgent;
  runs: readonly IOtherRun[] | null;
  troubled: boolean;
  commands: CommandRegistry;
  trans: TranslationBundle;
}): React.ReactElement | null {
  const { agent, runs, troubled, commands, trans } = props;
  if (!agent.online) {
    return <Empty>{trans.__('What runs there can be seen when it is online.')}</Empty>;
  }
  if (runs === null) {
    return troubled ? null : <Empty>{trans.__('Reading …')}</Empty>;
  }
  if (runs.length === 0) {
    return <Empty>{trans.__('Nothing runs there.')}</Empty>;
  }
  return (
    <ul className="jp-agent-List" aria-label={trans.__('Runs on %1', agent.name)}>
      {runs.map(run => (
        <RunThere key={run.id} agent={agent} run={run} commands={commands} trans={trans} />
      ))}
    </ul>
  );
}

function RunThere(props: {
  agent: IOtherAgent;
  run: IOtherRun;
  commands: CommandRegistry;
  trans: TranslationBundle;
}): React.ReactElement {
  const { agent, run, commands, trans } = props;
  const name = run.package || run.schedule || run.id;
  const args = { agent: agent.slug, id: run.id };
  const entries: Entries = [
    { command: CommandIDs.openRunOnAgent, args },
    { command: CommandIDs.cancelRunOnAgent, args },
    null,
    { command: CommandIDs.copyRunId, args: { id: run.id } }
  ];
  const detail = [
    run.schedule && run.schedule !== name ? run.schedule : '',
    run.output_size ? size(run.output_size) : ''
  ];
  return (
    <li
      className="jp-agent-Item jp-agent-Run"
      data-state="running"
      data-run={run.id}
      onContextMenu={event => openMenu(commands, entries, event)}
    >
      <button
        className="jp-agent-Item-open"
        data-main=""
        title={`${name}\n${run.id}`}
        onClick={() => act(commands, CommandIDs.openRunOnAgent, args)}
      >
        <span className="jp-agent-Item-line">
          <StateMark state="running" contact trans={trans} iconOnly />
          <span className="jp-agent-Item-name">{name}</span>
        </span>
        <span className="jp-agent-Item-detail">
          <StateMark state="running" contact trans={trans} wordOnly />
          {detail.filter(Boolean).map((text, index) => (
            <React.Fragment key={index}> · {text}</React.Fragment>
          ))}
        </span>
      </button>
      <IconButton
        icon={stopIcon}
        label={trans.__('Cancel %1 on %2', name, agent.name)}
        onClick={() => act(commands, CommandIDs.cancelRunOnAgent, args)}
      />
    </li>
  );
}
