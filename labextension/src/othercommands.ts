/**
 * What can be done on other agents of this OpenFlow.
 */

import { Notification } from '@jupyterlab/apputils';
import { buildIcon, launchIcon, refreshIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';

import { askParameters, chooseAgent, choosePackage, chooseRunThere, confirmed, patiently, told } from './asking';
import type { Args, Command, ICommandOptions } from './commandtypes';
import { NOTHING, OF_AGENT, OF_PACKAGE_THERE, OF_RUN_THERE, textOf } from './commandtypes';
import type { IRow } from './parameters';
import type { IOtherAgent, IPackage } from './shapes';
import { hasEnded } from './shapes';
import { CommandIDs } from './tokens';

/** Those whose being possible depends on the agent. */
export const OF_AGENTS = [
  CommandIDs.runOnAgent,
  CommandIDs.prepareOnAgent,
  CommandIDs.reinstallOnAgent,
  CommandIDs.cancelRunOnAgent,
  CommandIDs.cancelRunsOnAgent
];

type IThereCommands = Record<string, Command>;
type IChosen = Pick<IPackage, 'id' | 'name'>;

export function otherAgentCommands(options: ICommandOptions): IThereCommands {
  return { ...listing(options), ...running(options), ...keeping(options), ...runsThere(options) };
}

/** Finds out which agent, package and run are meant. */
class There {
  constructor(private readonly _options: ICommandOptions) {}

  /** The one that is given, or one that the user chooses. */
  async agent(args: Args, question: string): Promise<IOtherAgent | null> {
    const { others, trans } = this._options;
    const slug = textOf(args, 'agent');
    if (slug === null) {
      return chooseAgent(others, question, trans);
    }
    if (!others.find(slug)) {
      await others.refresh(true);
    }
    const found = others.find(slug);
    if (!found) {
      throw new Error(others.problem ?? trans.__('There is no other agent %1 on this OpenFlow.', slug));
    }
    return found;
  }

  /** The one that is given, or one of those whose language the agent has. */
  async package(args: Args, agent: IOtherAgent, question: string): Promise<IChosen | null> {
    const { model, trans } = this._options;
    const id = textOf(args, 'id');
    if (id !== null) {
      return { id, name: textOf(args, 'name') ?? id };
    }
    return choosePackage(model, question, trans, it => agent.languages.includes(it.language));
  }

  /** For `isEnabled`: an agent that is named is online and may be used. */
  isUsable(args: Args): boolean {
    const slug = textOf(args, 'agent');
    const agent = slug === null ? undefined : this._options.others.find(slug);
    return agent === undefined || (agent.online && agent.may_invoke);
  }
}

function listing({ others, trans }: ICommandOptions): IThereCommands {
  return {
    [CommandIDs.refreshAgents]: {
      label: trans.__('Look for Other Agents'),
      caption: trans.__('Ask OpenFlow for its agents now'),
      icon: refreshIcon,
      describedBy: NOTHING,
      execute: () =>
        told(async () => {
          await others.refresh(true);
          if (others.problem !== null) {
            throw new Error(others.problem);
          }
        })
    }
  };
}

function running(options: ICommandOptions): IThereCommands {
  const { others, trans, views } = options;
  const there = new There(options);
  /** What was typed last for each package. */
  const typed = new Map<string, readonly IRow[]>();

  const run = async (args: Args): Promise<void> => {
    const agent = await there.agent(args, trans.__('On which agent is a package to be run?'));
    const item = agent && (await there.package(args, agent, trans.__('What is to be run on %1?', agent.name)));
    if (!agent || !item) {
      return;
    }
    const answer = await askParameters({
      question: trans.__('Run %1 on %2', item.name, agent.name),
      rows: typed.get(item.id) ?? [],
      order: null,
      trans
    });
    if (answer) {
      typed.set(item.id, answer.rows);
      const asked = others.launch(agent.slug, item.id, { parameters_yaml: answer.values });
      const { id } = await patiently(trans.__('Asking %1 to run %2 …', agent.name, item.name), asked);
      others.unfold(agent.slug, true);
      await views.open({ id, agent: agent.slug });
    }
  };

  return {
    [CommandIDs.runOnAgent]: {
      label: args => {
        const [name, agent] = [textOf(args, 'name'), textOf(args, 'agentName')];
        return name
          ? trans.__('Run %1 on Another Agent …', name)
          : agent
            ? trans.__('Run a Package on %1 …', agent)
            : trans.__('Run a Package on Another Agent …');
      },
      icon: runIcon,
      describedBy: OF_PACKAGE_THERE,
      isEnabled: args => there.isUsable(args),
      execute: args => told(() => run(args))
    }
  };
}

function keeping(options: ICommandOptions): IThereCommands {
  const { others, trans, views } = options;
  const there = new There(options);

  const prepare = async (args: Args): Promise<void> => {
    const agent = await there.agent(args, trans.__('On which agent is a package to be prepared?'));
    const item = agent && (await there.package(args, agent, trans.__('What is to be prepared on %1?', agent.name)));
    if (!agent || !item) {
      return;
    }
    const asked = others.prepare(agent.slug, item.id);
    const { id } = await patiently(trans.__('Asking %1 to prepare %2 …', agent.name, item.name), asked);
    await views.open({ id, agent: agent.slug });
  };

  const reinstall = async (args: Args): Promise<void> => {
    const agent = await there.agent(args, trans.__('On which agent is a package to be reinstalled?'));
    const item = agent && (await there.package(args, agent, trans.__('What is to be reinstalled on %1?', agent.name)));
    if (!agent || !item) {
      return;
    }
    const question = trans.__('Reinstall %1 on %2?', item.name, agent.name);
    const said = trans.__('Its runs there are cancelled; what was fetched and prepared of it is made anew.');
    if (await confirmed(question, said, trans.__('Reinstall'), trans.__('Keep'))) {
      const asked = others.reinstall(agent.slug, item.id);
      await patiently(trans.__('%1 reinstalls %2 …', agent.name, item.name), asked);
      Notification.success(trans.__('%1 is reinstalled on %2.', item.name, agent.name), { autoClose: 4000 });
    }
  };

  const label =
    (named: string, unnamed: string) =>
    (args: Args): string =>
      textOf(args, 'agentName') === null ? unnamed : trans.__(named, textOf(args, 'agentName'));

  return {
    [CommandIDs.prepareOnAgent]: {
      label: label('Prepare a Package on %1 …', trans.__('Prepare a Package on Another Agent …')),
      icon: buildIcon,
      describedBy: OF_PACKAGE_THERE,
      isEnabled: args => there.isUsable(args),
      execute: args => told(() => prepare(args))
    },
    [CommandIDs.reinstallOnAgent]: {
      label: label('Reinstall a Package on %1 …', trans.__('Reinstall a Package on Another Agent …')),
      icon: refreshIcon,
      describedBy: OF_PACKAGE_THERE,
      isEnabled: args => there.isUsable(args),
      execute: args => told(() => reinstall(args))
    }
  };
}

function runsThere(options: ICommandOptions): IThereCommands {
  const { others, trans, views } = options;
  const there = new There(options);

  /** The run that is given, the one in front, or one that the user chooses. */
  const withRun = async (
    args: Args,
    question: string,
    job: (slug: string, id: string) => Promise<void>
  ): Promise<void> => {
    const { inFront } = views;
    const given = { agent: textOf(args, 'agent'), id: textOf(args, 'id') };
    const meant = given.agent === null && given.id === null && inFront?.agent != null ? inFront : given;
    if (meant.agent !== null && meant.id !== null) {
      return job(meant.agent, meant.id);
    }
    const agent = await there.agent(args, trans.__('On which agent is the run?'));
    const id = agent && (await chooseRunThere(others, agent, question, trans));
    if (agent && id) {
      await job(agent.slug, id);
    }
  };

  const cancelAll = async (args: Args): Promise<void> => {
    const agent = await there.agent(args, trans.__('On which agent are all runs to be cancelled?'));
    if (!agent) {
      return;
    }
    const question = trans.__('Cancel all runs on %1?', agent.name);
    const said = trans.__('Everything that runs there ends, whoever started it.');
    if (await confirmed(question, said, trans.__('Cancel All Runs'), trans.__('Keep'))) {
      await patiently(trans.__('Asking %1 to cancel …', agent.name), others.cancelAll(agent.slug));
    }
  };

  return {
    [CommandIDs.openRunOnAgent]: {
      label: args => (args['id'] ? trans.__('Open') : trans.__('Open a Run of Another Agent …')),
      icon: launchIcon,
      describedBy: OF_RUN_THERE,
      execute: args =>
        told(() => withRun(args, trans.__('Which run is to be opened?'), (agent, id) => views.open({ id, agent })))
    },
    [CommandIDs.cancelRunOnAgent]: {
      label: args => (args['id'] ? trans.__('Cancel the Run') : trans.__('Cancel a Run of Another Agent …')),
      icon: stopIcon,
      describedBy: OF_RUN_THERE,
      isEnabled: args => {
        const run = views.find({ id: textOf(args, 'id') ?? '', agent: textOf(args, 'agent') });
        return there.isUsable(args) && !(run && hasEnded(run));
      },
      execute: args =>
        told(() =>
          withRun(args, trans.__('Which run is to be cancelled?'), (slug, id) =>
            patiently(trans.__('Asking %1 to cancel …', others.find(slug)?.name ?? slug), others.cancel(slug, id))
          )
        )
    },
    [CommandIDs.cancelRunsOnAgent]: {
      label: args => {
        const agent = textOf(args, 'agentName');
        return agent ? trans.__('Cancel All Runs on %1 …', agent) : trans.__('Cancel All Runs on Another Agent …');
      },
      icon: stopIcon,
      describedBy: OF_AGENT,
      isEnabled: args => there.isUsable(args),
      execute: args => told(() => cancelAll(args))
    }
  };
}
