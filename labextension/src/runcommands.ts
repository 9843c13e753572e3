/**
 * What can be done with runs of this agent.
 */

import { Clipboard, Notification } from '@jupyterlab/apputils';
import { copyIcon, launchIcon, notebookIcon, refreshIcon, stopIcon } from '@jupyterlab/ui-components';

import { chooseRun, told } from './asking';
import type { Args, Command, ICommandOptions } from './commandtypes';
import { OF_RUN, textOf } from './commandtypes';
import { artifactUrl } from './request';
import type { IRun } from './shapes';
import { hasEnded } from './shapes';
import { CommandIDs, NOTEBOOK, REPORT } from './tokens';

/** Those whose being possible depends on a run's state. */
export const OF_RUNS = [
  CommandIDs.cancelRun,
  CommandIDs.rerun,
  CommandIDs.makeFromPyPI,
  CommandIDs.openNotebook,
  CommandIDs.openReport
];

export function runCommands(options: ICommandOptions): Record<string, Command> {
  return { ...changing(options), ...looking(options) };
}

/** Finds out which run is meant: the one that is given, the one in front, or one that the user chooses. */
class Meant {
  constructor(private readonly _options: ICommandOptions) {}

  id(args: Args): string | null {
    const { inFront } = this._options.views;
    return textOf(args, 'id') ?? (inFront && inFront.agent === null ? inFront.id : null);
  }

  /** For `isEnabled`: the run that is meant suits; where none is, there is one to choose. */
  isPossible(args: Args, suits: (run: IRun) => boolean): boolean {
    const { model } = this._options;
    const id = this.id(args);
    const run = id === null ? undefined : model.find(id);
    return run ? suits(run) : id === null && (model.runs ?? []).some(suits);
  }

  with(
    id: string | null,
    suits: (run: IRun) => boolean,
    question: string,
    job: (id: string) => Promise<unknown>
  ): Promise<void> {
    const { model, trans } = this._options;
    return told(async () => {
      const chosen = id ?? (await chooseRun((model.runs ?? []).filter(suits), question, trans));
      if (chosen !== null) {
        await job(chosen);
      }
    });
  }
}

function changing(options: ICommandOptions): Record<string, Command> {
  const { model, trans, views } = options;
  const meant = new Meant(options);
  const again = async (id: string): Promise<void> => views.open({ id: (await model.rerun(id)).id, agent: null });
  return {
    [CommandIDs.cancelRun]: {
      label: trans.__('Cancel the Run'),
      icon: stopIcon,
      describedBy: OF_RUN,
      isEnabled: args => model.running && meant.isPossible(args, isLive),
      execute: args =>
        meant.with(meant.id(args), isLive, trans.__('Which run is to be cancelled?'), id => model.cancel(id))
    },
    [CommandIDs.rerun]: {
      label: trans.__('Run Again'),
      caption: trans.__('Run the same once more, with the same parameters'),
      icon: refreshIcon,
      describedBy: OF_RUN,
      isEnabled: args => meant.isPossible(args, hasEnded),
      execute: args => meant.with(meant.id(args), hasEnded, trans.__('Which run is to be run again?'), again)
    }
  };
}

function looking(options: ICommandOptions): Record<string, Command> {
  const { app, trans, views } = options;
  const meant = new Meant(options);

  const openReport = async (id: string): Promise<void> => {
    window.open(artifactUrl(app.serviceManager.serverSettings, id, REPORT), '_blank', 'noopener');
  };

  const copyId = async (id: string): Promise<void> => {
    Clipboard.copyToSystem(id);
    Notification.info(trans.__('The ID %1 is on the clipboard.', id), { autoClose: 2000 });
  };

  return {
    [CommandIDs.openRun]: {
      label: args => (args['id'] ? trans.__('Open') : trans.__('Open a Run …')),
      describedBy: OF_RUN,
      execute: args =>
        meant.with(textOf(args, 'id'), any, trans.__('Which run is to be opened?'), id =>
          views.open({ id, agent: textOf(args, 'agent') })
        )
    },
    [CommandIDs.openNotebook]: {
      label: trans.__('Open the Output Notebook of a Run'),
      icon: notebookIcon,
      describedBy: OF_RUN,
      isEnabled: args => meant.isPossible(args, hasNotebook),
      execute: args =>
        meant.with(meant.id(args), hasNotebook, trans.__('Whose output notebook is to be opened?'), id =>
          views.open({ id, agent: null }, 'notebook')
        )
    },
    [CommandIDs.openReport]: {
      label: trans.__('Open the HTML Report of a Run'),
      icon: launchIcon,
      describedBy: OF_RUN,
      isEnabled: args => meant.isPossible(args, hasNotebook),
      execute: args => meant.with(meant.id(args), hasNotebook, trans.__('Whose report is to be opened?'), openReport)
    },
    [CommandIDs.copyRunId]: {
      label: trans.__('Copy the ID of a Run'),
      icon: copyIcon,
      describedBy: OF_RUN,
      execute: args => {
        // A run of another agent has an id that can be copied, too.
        const id = textOf(args, 'id') ?? views.inFront?.id ?? null;
        return meant.with(id, any, trans.__('Whose ID is to be copied?'), copyId);
      }
    }
  };
}

function any(): boolean {
  return true;
}

function isLive(run: IRun): boolean {
  return !hasEnded(run);
}

function hasNotebook(run: IRun): boolean {
  return run.artifacts.some(artifact => artifact.name === NOTEBOOK);
}
