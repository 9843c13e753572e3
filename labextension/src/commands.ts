/**
 * Everything a user can do with the agent, as commands. Panel, run view, palette and menus only execute these.
 */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { copyIcon, launchIcon, notebookIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { agentIcon } from './icons';
import type { IAgentModel, ILaunch } from './model';
import type { IRow } from './parameters';
import { ParametersForm } from './parametersform';
import { artifactUrl, sentence } from './request';
import type { IPackage, IRun } from './shapes';
import { hasEnded } from './shapes';
import { CommandIDs, NOTEBOOK, REPORT } from './tokens';
import { stateWord, title } from './words';

export interface ICommandOptions {
  readonly app: JupyterFrontEnd;
  readonly model: IAgentModel;
  readonly trans: TranslationBundle;
  readonly openPanel: () => void;
  readonly openRun: (id: string, notebook: boolean) => Promise<void>;
  /** The run whose view is in front, `null` when none is. */
  readonly runInFront: () => string | null;
}

type Args = ReadonlyPartialJSONObject;
type Command = CommandRegistry.ICommandOptions;

export function addCommands(options: ICommandOptions): void {
  const { app, model } = options;
  const { commands } = app;
  const all = { ...agentCommands(options), ...packageCommands(options), ...runCommands(options) };
  for (const [id, command] of Object.entries(all)) {
    commands.addCommand(id, command);
  }
  model.changed.connect((_, change) => {
    if (change !== 'packages') {
      [CommandIDs.start, ...OF_A_RUN].forEach(id => commands.notifyCommandChanged(id));
    }
  });
}

/** Those whose being possible depends on a run's state. */
const OF_A_RUN = [CommandIDs.cancelRun, CommandIDs.openNotebook, CommandIDs.openReport];

function agentCommands({ model, trans, openPanel }: ICommandOptions): Record<string, Command> {
  return {
    [CommandIDs.openPanel]: {
      label: trans.__('Show the Agent Panel'),
      icon: agentIcon,
      describedBy: { args: NO_ARGUMENTS },
      execute: openPanel
    },
    [CommandIDs.start]: {
      label: trans.__('Start the Agent'),
      describedBy: { args: NO_ARGUMENTS },
      isEnabled: () => !model.running && !model.starting,
      execute: () => told(() => model.start())
    }
  };
}

function packageCommands({ model, trans, openRun }: ICommandOptions): Record<string, Command> {
  /** What was typed last for each package. */
  const typed = new Map<string, readonly IRow[]>();

  const launch = async (item: IChosen, given: ILaunch): Promise<void> => {
    const run = await model.launch(item.id, given);
    await openRun(run.id, false);
  };

  const ask = async (item: IChosen): Promise<void> => {
    const answer = await showDialog({
      title: trans.__('Run %1', item.name),
      body: new ParametersForm({ trans, rows: typed.get(item.id) ?? [] }),
      focusNodeSelector: 'input',
      buttons: [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.okButton({ label: trans.__('Run') })]
    });
    if (answer.button.accept && answer.value) {
      typed.set(item.id, answer.value.rows);
      await launch(item, { parameters_yaml: answer.value.values });
    }
  };

  const withPackage = (args: Args, job: (item: IChosen) => Promise<void>): Promise<void> =>
    told(async () => {
      const item = given(args) ?? (await choosePackage(model, trans));
      if (item) {
        await job(item);
      }
    });

  return {
    [CommandIDs.runPackage]: {
      label: args => (args['name'] ? trans.__('Run %1', args['name']) : trans.__('Run a Package …')),
      icon: runIcon,
      describedBy: { args: PACKAGE_ARGUMENT },
      execute: args => withPackage(args, item => launch(item, {}))
    },
    [CommandIDs.runPackageWith]: {
      label: args =>
        args['name'] ? trans.__('Run %1 with Parameters …', args['name']) : trans.__('Run a Package with Parameters …'),
      describedBy: { args: PACKAGE_ARGUMENT },
      execute: args => withPackage(args, ask)
    }
  };
}

function runCommands({ app, model, trans, openRun, runInFront }: ICommandOptions): Record<string, Command> {
  const meant = (args: Args): string | null => (typeof args['id'] === 'string' ? args['id'] : runInFront());

  /** For `isEnabled`: the run that is meant suits; where none is, there is one to choose. */
  const possible = (args: Args, suits: (run: IRun) => boolean): boolean => {
    const id = meant(args);
    const run = id === null ? undefined : model.find(id);
    return run ? suits(run) : id === null && (model.runs ?? []).some(suits);
  };

  const withRun = (
    id: string | null,
    suits: (run: IRun) => boolean,
    question: string,
    job: (id: string) => Promise<unknown>
  ): Promise<void> =>
    told(async () => {
      const chosen = id ?? (await chooseRun((model.runs ?? []).filter(suits), question, trans));
      if (chosen !== null) {
        await job(chosen);
      }
    });

  const openReport = async (id: string): Promise<void> => {
    window.open(artifactUrl(app.serviceManager.serverSettings, id, REPORT), '_blank', 'noopener');
  };

  const copyId = async (id: string): Promise<void> => {
    Clipboard.copyToSystem(id);
    Notification.info(trans.__('The ID %1 is on the clipboard.', id), { autoClose: 2000 });
  };

  return {
    [CommandIDs.cancelRun]: {
      label: trans.__('Cancel the Run'),
      icon: stopIcon,
      describedBy: { args: RUN_ARGUMENT },
      isEnabled: args => model.running && possible(args, isLive),
      execute: args => withRun(meant(args), isLive, trans.__('Which run is to be cancelled?'), id => model.cancel(id))
    },
    [CommandIDs.openRun]: {
      label: trans.__('Open a Run …'),
      describedBy: { args: RUN_ARGUMENT },
      execute: args => {
        const id = typeof args['id'] === 'string' ? args['id'] : null;
        return withRun(
          id,
          () => true,
          trans.__('Which run is to be opened?'),
          it => openRun(it, false)
        );
      }
    },
    [CommandIDs.openNotebook]: {
      label: trans.__('Open the Output Notebook of a Run'),
      icon: notebookIcon,
      describedBy: { args: RUN_ARGUMENT },
      isEnabled: args => possible(args, hasNotebook),
      execute: args =>
        withRun(meant(args), hasNotebook, trans.__('Whose output notebook is to be opened?'), id => openRun(id, true))
    },
    [CommandIDs.openReport]: {
      label: trans.__('Open the HTML Report of a Run'),
      icon: launchIcon,
      describedBy: { args: RUN_ARGUMENT },
      isEnabled: args => possible(args, hasNotebook),
      execute: args => withRun(meant(args), hasNotebook, trans.__('Whose report is to be opened?'), openReport)
    },
    [CommandIDs.copyRunId]: {
      label: trans.__('Copy the ID of a Run'),
      icon: copyIcon,
      describedBy: { args: RUN_ARGUMENT },
      execute: args => withRun(meant(args), () => true, trans.__('Whose ID is to be copied?'), copyId)
    }
  };
}

/** Do it and show what went wrong. */
async function told(job: () => Promise<unknown>): Promise<void> {
  try {
    await job();
  } catch (error) {
    Notification.error(sentence(error), { autoClose: false });
  }
}

function isLive(run: IRun): boolean {
  return !hasEnded(run);
}

function hasNotebook(run: IRun): boolean {
  return run.artifacts.some(artifact => artifact.name === NOTEBOOK);
}

type IChosen = Pick<IPackage, 'id' | 'name'>;

function given(args: Args): IChosen | null {
  const { id, name } = args;
  return typeof id === 'string' ? { id, name: typeof name === 'string' ? name : id } : null;
}

async function choosePackage(model: IAgentModel, trans: TranslationBundle): Promise<IPackage | null> {
  if (!model.running) {
    await model.start();
  }
  if (model.packages === null) {
    await model.refresh();
  }
  const packages = model.packages ?? [];
  if (!packages.length) {
    Notification.info(trans.__('No packages are published yet: try “jupyter agent demo” in a terminal.'));
    return null;
  }
  const labels = packages.map(it => title({ package: it.name, version: it.version }));
  const answer = await InputDialog.getItem({ title: trans.__('Which package is to be run?'), items: labels });
  return packages[answer.value === null ? -1 : labels.indexOf(answer.value)] ?? null;
}

async function chooseRun(runs: readonly IRun[], question: string, trans: TranslationBundle): Promise<string | null> {
  if (!runs.length) {
    Notification.info(trans.__('There is no such run.'), { autoClose: 3000 });
    return null;
  }
  const labels = runs.map(run => `${title(run)} · ${stateWord(run.state, trans)} · ${run.id}`);
  const answer = await InputDialog.getItem({ title: question, items: labels });
  return runs[answer.value === null ? -1 : labels.indexOf(answer.value)]?.id ?? null;
}

const NO_ARGUMENTS = { type: 'object', properties: {} } as const;

const RUN_ARGUMENT = {
  type: 'object',
  properties: {
    id: { type: 'string', description: 'The ID of the run; without it the run in front, else the user is asked' }
  }
} as const;

const PACKAGE_ARGUMENT = {
  type: 'object',
  properties: {
    id: { type: 'string', description: 'The ID of the package; without it the user is asked' },
    name: { type: 'string', description: 'Its name, for labels' }
  }
} as const;
