/**
 * Everything a user can do with the agent, as commands. Panel, run view, palette and menus only execute these.
 */

import { agentIcon } from './icons';
import { told } from './asking';
import type { Command, ICommandOptions } from './commandtypes';
import { NOTHING } from './commandtypes';
import { environmentCommands, OF_ENVIRONMENTS, OF_FILES } from './environmentcommands';
import { OF_AGENTS, otherAgentCommands } from './othercommands';
import { packageCommands } from './packagecommands';
import { OF_RUNS, runCommands } from './runcommands';
import { CommandIDs } from './tokens';

export function addCommands(options: ICommandOptions): void {
  const { app, model, others, views, environments, files } = options;
  const { commands } = app;
  const all = {
    ...agentCommands(options),
    ...packageCommands(options),
    ...runCommands(options),
    ...environmentCommands(options),
    ...otherAgentCommands(options)
  };
  for (const [id, command] of Object.entries(all)) {
    commands.addCommand(id, command);
  }
  const notify = (id: string): void => commands.notifyCommandChanged(id);
  environments.changed.connect(() => OF_ENVIRONMENTS.forEach(notify));
  files.changed.connect(() => OF_FILES.forEach(notify));
  model.changed.connect((_, change) => {
    if (change !== 'packages') {
      [CommandIDs.start, CommandIDs.cancelRunsOfPackage, ...OF_RUNS, ...OF_ENVIRONMENTS].forEach(notify);
    }
  });
  const agentsChanged = (): void => OF_AGENTS.forEach(notify);
  others.changed.connect(agentsChanged);
  views.changed.connect(agentsChanged);
}

function agentCommands({ model, trans, openPanel }: ICommandOptions): Record<string, Command> {
  return {
    [CommandIDs.openPanel]: {
      label: trans.__('Show the Agent Panel'),
      icon: agentIcon,
      describedBy: NOTHING,
      execute: openPanel
    },
    [CommandIDs.start]: {
      label: trans.__('Start the Agent'),
      describedBy: NOTHING,
      isEnabled: () => !model.running && !model.starting,
      execute: () => told(() => model.start())
    }
  };
}
