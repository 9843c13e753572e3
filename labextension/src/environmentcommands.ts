/**
 * What can be done with environments, and with the files that ask for one.
 */

import { Clipboard, Notification } from '@jupyterlab/apputils';
import { PageConfig } from '@jupyterlab/coreutils';
import { buildIcon, copyIcon, refreshIcon, runIcon } from '@jupyterlab/ui-components';

import { choose, chooseEnvironment, confirmed, environmentLabel, patiently, told } from './asking';
import type { Args, Command, ICommandOptions } from './commandtypes';
import { NOTHING, OF_ENVIRONMENT, OF_FILE, OF_FILE_RUN, OF_RUN, textOf } from './commandtypes';
import {
  canBeLocked,
  grouped,
  inContents,
  isOurs,
  lockBeside,
  nameOf,
  nameOfEnvironment,
  onMachine,
  runsInEnvironment,
  saysEnvironment,
  shortId,
  wantsPyPI
} from './environmentwords';
import { cleanIcon, environmentIcon, lockIcon, removeIcon, repairIcon, verifyIcon } from './icons';
import type { ICollected, IEnvironment, IRun } from './shapes';
import { CommandIDs } from './tokens';
import { size } from './words';

/** Those whose being possible depends on which file is meant. */
export const OF_FILES = [CommandIDs.makeEnvironment, CommandIDs.lockEnvironment, CommandIDs.runInEnvironment];

/** Those that need an agent that runs. */
export const OF_ENVIRONMENTS = [
  CommandIDs.showEnvironment,
  CommandIDs.verifyEnvironment,
  CommandIDs.repairEnvironment,
  CommandIDs.removeEnvironment,
  CommandIDs.cleanUpEnvironments,
  CommandIDs.refreshEnvironments
];

export function environmentCommands(options: ICommandOptions): Record<string, Command> {
  return { ...looking(options), ...keeping(options), ...cleaning(options), ...making(options), ...running(options) };
}

type IChosen = Pick<IEnvironment, 'id' | 'name' | 'path'>;

/** Finds out which environment is meant: the one that is given, the one in front, or one that the user chooses. */
function environmentChooser({ environments, environmentViews, trans }: ICommandOptions) {
  return (
    args: Args,
    question: string,
    job: (item: IChosen) => Promise<unknown>,
    suits?: (item: IEnvironment) => boolean
  ): Promise<void> =>
    told(async () => {
      const id = textOf(args, 'id') ?? environmentViews.inFront;
      const known = id === null ? undefined : environments.find(id);
      const given =
        id === null
          ? null
          : { id, name: textOf(args, 'name') ?? (known ? nameOfEnvironment(known) : shortId(id)), path: id };
      const item = known
        ? { ...known, name: nameOfEnvironment(known) }
        : (given ?? (await chooseEnvironment(environments, question, trans, suits)));
      if (item) {
        await job(item);
      }
    });
}

function looking(options: ICommandOptions): Record<string, Command> {
  const { model, environments, environmentViews, trans } = options;
  const withEnvironment = environmentChooser(options);

  const copy = async ({ id, path }: IChosen): Promise<void> => {
    const whole = path === id && !/[\\/]/.test(id) ? (await environments.api.environment(id)).path : path;
    Clipboard.copyToSystem(whole);
    Notification.info(trans.__('%1 is on the clipboard.', whole), { autoClose: 2000 });
  };

  return {
    [CommandIDs.showEnvironment]: {
      label: args => (args['id'] ? trans.__('Show Details') : trans.__('Show an Environment …')),
      icon: environmentIcon,
      describedBy: OF_ENVIRONMENT,
      isEnabled: () => model.running,
      execute: args =>
        textOf(args, 'id') === null
          ? told(async () => {
              const item = await chooseEnvironment(environments, trans.__('Which environment is to be shown?'), trans);
              await (item && environmentViews.open(item.id));
            })
          : withEnvironment(args, '', ({ id }) => environmentViews.open(id))
    },
    [CommandIDs.copyEnvironmentPath]: {
      label: args => (args['id'] ? trans.__('Copy Path') : trans.__('Copy the Path of an Environment …')),
      icon: copyIcon,
      describedBy: OF_ENVIRONMENT,
      execute: args => withEnvironment(args, trans.__('Whose path is to be copied?'), copy)
    }
  };
}

function keeping(options: ICommandOptions): Record<string, Command> {
  const { model, environments, environmentViews, views, trans } = options;
  const withEnvironment = environmentChooser(options);
  const isMade = (args: Args): boolean => {
    const id = textOf(args, 'id') ?? environmentViews.inFront;
    const known = id === null ? undefined : environments.find(id);
    return model.running && (known === undefined || (isOurs(known) && known.state !== 'building'));
  };

  const verify = async ({ id, name }: IChosen): Promise<void> => {
    void environmentViews.open(id);
    const { ok, faults } = await patiently(trans.__('The files of %1 are compared …', name), environments.verify(id));
    const text = ok
      ? trans.__('%1: every file is as it was installed.', name)
      : trans._n(
          '%2: one file is not as it was installed.',
          '%2: %1 files are not as they were installed.',
          faults.length,
          name
        );
    const actions = [{ label: trans.__('Repair'), callback: () => void told(() => repair({ id, name, path: id })) }];
    Notification.emit(text, ok ? 'success' : 'warning', ok ? { autoClose: 4000 } : { autoClose: false, actions });
  };

  const repair = async ({ id }: IChosen): Promise<void> => {
    const run = await model.begun(environments.repair(id));
    await views.open({ id: run.id, agent: null });
  };

  const remove = async ({ id, name }: IChosen): Promise<void> => {
    const bytes = environments.find(id)?.bytes;
    const freed = bytes ? ` ${trans.__('It takes %1.', size(bytes))}` : '';
    const said = trans.__(
      'What runs in it next has it made anew, from the packages that are still here or fetched again.'
    );
    if (
      await confirmed(trans.__('Remove the environment %1?', name), said + freed, trans.__('Remove'), trans.__('Keep'))
    ) {
      await patiently(trans.__('%1 is removed …', name), environments.remove(id));
      environmentViews.close(id);
      Notification.success(trans.__('The environment %1 was removed.', name), { autoClose: 4000 });
    }
  };

  return {
    [CommandIDs.verifyEnvironment]: {
      label: args => (args['id'] ? trans.__('Verify') : trans.__('Verify an Environment …')),
      caption: trans.__('Compare every file with what was installed'),
      icon: verifyIcon,
      describedBy: OF_ENVIRONMENT,
      isEnabled: isMade,
      execute: args => withEnvironment(args, trans.__('Which environment is to be verified?'), verify, isOurs)
    },
    [CommandIDs.repairEnvironment]: {
      label: args => (args['id'] ? trans.__('Repair') : trans.__('Repair an Environment …')),
      caption: trans.__('Make it anew as its lock says'),
      icon: repairIcon,
      describedBy: OF_ENVIRONMENT,
      isEnabled: isMade,
      execute: args => withEnvironment(args, trans.__('Which environment is to be repaired?'), repair, isOurs)
    },
    [CommandIDs.removeEnvironment]: {
      label: args => (args['id'] ? trans.__('Remove …') : trans.__('Remove an Environment …')),
      icon: removeIcon,
      describedBy: OF_ENVIRONMENT,
      isEnabled: isMade,
      execute: args => withEnvironment(args, trans.__('Which environment is to be removed?'), remove, isOurs)
    }
  };
}

function cleaning({ model, environments, trans }: ICommandOptions): Record<string, Command> {
  /** What may go: as the settings say, else what nothing uses however long. */
  const find = async (): Promise<{ found: ICollected; days: number | null }> => {
    const found = await environments.api.cleanUp({ dry_run: true });
    return found.removed.length
      ? { found, days: null }
      : { found: await environments.api.cleanUp({ dry_run: true, days: 0 }), days: 0 };
  };

  /** What is no environment: a channel made from PyPI, or what a making left. */
  const leftover = (id: string, path: string): string =>
    /[\\/]channels[\\/]/.test(path) ? trans.__('a channel made from PyPI') : shortId(id || path);

  const named = (id: string, path: string, bytes: number): string => {
    const known = environments.find(id);
    return `${known ? nameOfEnvironment(known) : leftover(id, path)} (${size(bytes)})`;
  };

  const cleanUp = async (): Promise<void> => {
    const looking = Promise.all([find(), environments.refresh()]);
    const [{ found, days }] = await patiently(trans.__('Looking for what nothing uses …'), looking);
    if (!found.removed.length) {
      Notification.info(trans.__('There is nothing to clean up.'), { autoClose: 4000 });
      return;
    }
    const said = [
      days === 0 ? trans.__('Nothing has been unused for long. These were used, but nothing runs in them now:') : '',
      `${found.removed.map(it => named(it.id, it.path, it.bytes)).join(', ')}.`,
      trans.__('What needs one of them later has it made anew.')
    ];
    const question = trans.__('Remove what nothing uses, which frees %1?', size(found.bytes));
    if (await confirmed(question, said.filter(Boolean), trans.__('Remove'), trans.__('Keep'))) {
      const job = environments.cleanUp(days ?? undefined);
      const { bytes } = await patiently(trans.__('Cleaning up …'), job);
      Notification.success(trans.__('%1 are free again.', size(bytes)), { autoClose: 4000 });
    }
  };

  return {
    [CommandIDs.cleanUpEnvironments]: {
      label: trans.__('Clean Up Environments …'),
      caption: trans.__('Remove what nothing has used for long; what that frees is said first'),
      icon: cleanIcon,
      describedBy: NOTHING,
      isEnabled: () => model.running,
      execute: () => told(cleanUp)
    },
    [CommandIDs.refreshEnvironments]: {
      label: trans.__('Look at the Environments Again'),
      icon: refreshIcon,
      describedBy: NOTHING,
      isEnabled: () => model.running,
      execute: () => environments.refresh()
    }
  };
}

/**
 * The file that is meant, where it is one that suits: the given one, the one selected in the file browser (`selected`),
 * else the document in front or the one selected.
 */
function meantFile({ files }: ICommandOptions, args: Args, suits: (path: string) => boolean): string | null {
  const given = textOf(args, 'path');
  const inBrowser = args['selected'] === true ? [files.selected] : [files.inFront, files.selected];
  return (given === null ? inBrowser : [given]).find(path => path !== null && suits(path)) ?? null;
}

/** Where it lies on the machine. Throws for a file of a drive that is no folder of the machine. */
function placeOf({ app, trans }: ICommandOptions, path: string): string {
  const { contents } = app.serviceManager;
  const drive = contents.driveName(path);
  const place =
    drive && drive !== 'RTC' ? null : onMachine(PageConfig.getOption('serverRoot'), contents.localPath(path));
  if (place === null) {
    throw new Error(trans.__('%1 is not a file of the machine that Jupyter runs on.', nameOf(path)));
  }
  return place;
}

function making(options: ICommandOptions): Record<string, Command> {
  const { app, model, environments, files, views, trans } = options;
  /** Where in Lab's contents the lock lies that a run writes. */
  const toOpen = new Map<string, string>();

  model.runEnded.connect((_, run) => {
    const written = run.kind === 'environment' ? run.results['lock'] : undefined;
    if (typeof written === 'string') {
      const path = toOpen.get(run.id) ?? inContents(PageConfig.getOption('serverRoot'), written);
      if (path !== null) {
        void app.commands.execute('docmanager:open', { path });
      }
    }
  });

  const follow = async (asked: Promise<IRun>): Promise<IRun> => {
    const run = await model.begun(asked);
    await views.open({ id: run.id, agent: null });
    return run;
  };

  const lock = async (path: string): Promise<void> => {
    const asked = environments.api.lock({ file: placeOf(options, path) });
    void asked.then(
      run => toOpen.set(run.id, lockBeside(path)),
      () => undefined
    );
    await follow(asked);
  };

  const again = async (id: string): Promise<void> => {
    const lockOf = toOpen.get(id);
    const run = await follow(model.rerun(id, { from_pypi: true }));
    if (lockOf !== undefined) {
      toOpen.set(run.id, lockOf);
    }
  };

  const command = (label: string, suits: (path: string) => boolean, job: (path: string) => Promise<unknown>) => ({
    label,
    describedBy: OF_FILE,
    isEnabled: (args: Args) => meantFile(options, args, suits) !== null,
    isVisible: (args: Args) => meantFile(options, args, suits) !== null,
    execute: (args: Args) =>
      told(async () => {
        const path = meantFile(options, args, suits);
        if (path !== null) {
          await files.save(path);
          await job(path);
        }
      })
  });

  return {
    [CommandIDs.makeEnvironment]: {
      ...command(trans.__('Make This Environment'), saysEnvironment, path =>
        follow(environments.api.make({ file: placeOf(options, path) }))
      ),
      caption: trans.__('Make the environment that this file asks for'),
      icon: buildIcon
    },
    [CommandIDs.lockEnvironment]: {
      ...command(trans.__('Lock This Environment'), canBeLocked, lock),
      caption: trans.__('Write conda-lock.yml beside: exactly which packages, for the same environment anywhere'),
      icon: lockIcon
    },
    [CommandIDs.makeFromPyPI]: {
      label: trans.__('Make It from PyPI Instead'),
      caption: trans.__('Do the same with a channel made from PyPI, because none of the channels can be reached'),
      describedBy: OF_RUN,
      isEnabled: args => {
        const run = model.find(textOf(args, 'id') ?? views.inFront?.id ?? '');
        return run !== undefined && wantsPyPI(run);
      },
      execute: args =>
        told(async () => {
          const id = textOf(args, 'id') ?? views.inFront?.id;
          await (id === undefined ? undefined : again(id));
        })
    }
  };
}

function running(options: ICommandOptions): Record<string, Command> {
  const { model, environments, files, views, trans } = options;

  /** The id of an environment; `null`: none in particular; `undefined`: the user wants none of it. */
  const ask = async (path: string): Promise<string | null | undefined> => {
    await patiently(trans.__('Reading the environments …'), environments.refresh());
    if (environments.problem !== null) {
      throw new Error(environments.problem);
    }
    const all = grouped(environments.environments ?? []).flatMap(group => group.environments);
    const usable = all.filter(it => it.python !== null && it.state !== 'building');
    const none = { id: null, label: trans.__('The one its folder asks for, else Jupyter’s own Python') };
    const items = [none, ...usable.map(it => ({ id: it.id, label: environmentLabel(it, trans) }))];
    const chosen = await choose(items, trans.__('Run %1 in which environment?', nameOf(path)), it => it.label);
    return chosen === null ? undefined : chosen.id;
  };

  const run = async (path: string, given: string | null): Promise<void> => {
    const place = placeOf(options, path);
    await files.save(path);
    if (!model.running) {
      await model.start();
    }
    const environment = given ?? (await ask(path));
    if (environment !== undefined) {
      const { id } = await model.begun(environments.api.runIn(place, environment));
      await views.open({ id, agent: null });
    }
  };

  return {
    [CommandIDs.runInEnvironment]: {
      label: trans.__('Run in Environment …'),
      caption: trans.__('Run this file as a run of the agent, in an environment of your choice'),
      icon: runIcon,
      describedBy: OF_FILE_RUN,
      isEnabled: args => meantFile(options, args, runsInEnvironment) !== null,
      isVisible: args => meantFile(options, args, runsInEnvironment) !== null,
      execute: args =>
        told(async () => {
          const path = meantFile(options, args, runsInEnvironment);
          await (path === null ? undefined : run(path, textOf(args, 'environment')));
        })
    }
  };
}
