/**
 * What can be done with packages on this agent.
 */

import { InputDialog, Notification } from '@jupyterlab/apputils';
import { buildIcon, fileUploadIcon, refreshIcon, runIcon, stopIcon } from '@jupyterlab/ui-components';

import { askParameters, choosePackage, confirmed, patiently, told } from './asking';
import type { Args, Command, ICommandOptions } from './commandtypes';
import { OF_FOLDER, OF_PACKAGE, textOf } from './commandtypes';
import { removeIcon } from './icons';
import type { IRow } from './parameters';
import type { IOrder } from './parametersform';
import type { IPackage, IRun } from './shapes';
import { USUAL_PRIORITY } from './shapes';
import { CommandIDs } from './tokens';

type IChosen = Pick<IPackage, 'id' | 'name'>;

export function packageCommands(options: ICommandOptions): Record<string, Command> {
  return { ...runningCommands(options), ...keepingCommands(options), ...publishing(options) };
}

/** Does the job with the package that is given or chosen. */
function packageChooser({ model, trans }: ICommandOptions) {
  return (args: Args, question: string, job: (item: IChosen) => Promise<void>): Promise<void> =>
    told(async () => {
      const id = textOf(args, 'id');
      const item = id === null ? await choosePackage(model, question, trans) : { id, name: textOf(args, 'name') ?? id };
      if (item) {
        await job(item);
      }
    });
}

function runningCommands(options: ICommandOptions): Record<string, Command> {
  const { model, trans, views } = options;
  const withPackage = packageChooser(options);
  /** What was typed last for each package. */
  const typed = new Map<string, { rows: readonly IRow[]; order: IOrder | null }>();

  const open = (run: IRun): Promise<void> => views.open({ id: run.id, agent: null });

  const ask = async (item: IChosen): Promise<void> => {
    const last = typed.get(item.id);
    const answer = await askParameters({
      question: trans.__('Run %1', item.name),
      rows: last?.rows ?? [],
      order: last?.order ?? { priority: USUAL_PRIORITY, retries: 0 },
      trans
    });
    if (answer) {
      typed.set(item.id, answer);
      await open(await model.launch(item.id, { parameters_yaml: answer.values, ...unusual(answer.order) }));
    }
  };

  return {
    [CommandIDs.runPackage]: {
      label: args => (args['name'] ? trans.__('Run %1', args['name']) : trans.__('Run a Package …')),
      icon: runIcon,
      describedBy: OF_PACKAGE,
      execute: args =>
        withPackage(args, trans.__('Which package is to be run?'), async item => open(await model.launch(item.id, {})))
    },
    [CommandIDs.runPackageWith]: {
      label: args =>
        args['name'] ? trans.__('Run %1 with Parameters …', args['name']) : trans.__('Run a Package with Parameters …'),
      describedBy: OF_PACKAGE,
      execute: args => withPackage(args, trans.__('Which package is to be run?'), ask)
    },
    [CommandIDs.preparePackage]: {
      label: args => (args['name'] ? trans.__('Prepare %1', args['name']) : trans.__('Prepare a Package …')),
      caption: trans.__('Fetch it and make everything ready that it needs, so that its next run starts at once'),
      icon: buildIcon,
      describedBy: OF_PACKAGE,
      execute: args =>
        withPackage(args, trans.__('Which package is to be prepared?'), async item =>
          open(await model.prepare(item.id))
        )
    },
    [CommandIDs.cancelRunsOfPackage]: {
      label: args =>
        args['name'] ? trans.__('Cancel All Runs of %1', args['name']) : trans.__('Cancel All Runs of a Package …'),
      icon: stopIcon,
      describedBy: OF_PACKAGE,
      isEnabled: args => {
        const id = textOf(args, 'id');
        return model.running && (id === null || model.liveOf(id).length > 0);
      },
      execute: args =>
        withPackage(args, trans.__('Whose runs are to be cancelled?'), async item => {
          const count = await model.cancelAll(item.id);
          Notification.info(
            count
              ? trans._n('%1 run was cancelled.', '%1 runs were cancelled.', count)
              : trans.__('Nothing runs of it.'),
            { autoClose: 3000 }
          );
        })
    }
  };
}

/** Only what differs from the usual is asked for. */
function unusual(order: IOrder | null): Partial<IOrder> {
  return {
    ...(order && order.priority !== USUAL_PRIORITY ? { priority: order.priority } : {}),
    ...(order && order.retries > 0 ? { retries: order.retries } : {})
  };
}

function keepingCommands(options: ICommandOptions): Record<string, Command> {
  const { model, trans } = options;
  const withPackage = packageChooser(options);

  /** What its end would take along. */
  const live = (item: IChosen): string => {
    const count = model.liveOf(item.id).length;
    return count ? ` ${trans._n('One run of it is cancelled.', '%1 runs of it are cancelled.', count)}` : '';
  };

  const reinstall = async (item: IChosen): Promise<void> => {
    const said = trans.__('What was fetched and prepared of it is made anew at its next run.') + live(item);
    const question = trans.__('Reinstall %1?', item.name);
    if (await confirmed(question, said, trans.__('Reinstall'), trans.__('Keep'))) {
      await patiently(trans.__('%1 is reinstalled …', item.name), model.reinstall(item.id));
      Notification.success(trans.__('%1 is fetched and prepared anew at its next run.', item.name), {
        autoClose: 4000
      });
    }
  };

  const remove = async (item: IChosen): Promise<void> => {
    const said = trans.__('It is removed from OpenFlow, for everybody and all agents. This cannot be undone.');
    const question = trans.__('Remove %1?', item.name);
    if (await confirmed(question, said, trans.__('Remove'), trans.__('Keep'))) {
      await patiently(trans.__('%1 is removed …', item.name), model.remove(item.id));
      Notification.success(trans.__('%1 was removed.', item.name), { autoClose: 4000 });
    }
  };

  return {
    [CommandIDs.reinstallPackage]: {
      label: args => (args['name'] ? trans.__('Reinstall %1 …', args['name']) : trans.__('Reinstall a Package …')),
      icon: refreshIcon,
      describedBy: OF_PACKAGE,
      execute: args => withPackage(args, trans.__('Which package is to be reinstalled?'), reinstall)
    },
    [CommandIDs.removePackage]: {
      label: args => (args['name'] ? trans.__('Remove %1 …', args['name']) : trans.__('Remove a Package …')),
      icon: removeIcon,
      describedBy: OF_PACKAGE,
      execute: args => withPackage(args, trans.__('Which package is to be removed?'), remove)
    }
  };
}

function publishing({ model, trans }: ICommandOptions): Record<string, Command> {
  const ask = async (): Promise<string | null> => {
    const answer = await InputDialog.getText({
      title: trans.__('Publish a package'),
      label: trans.__('Its folder, as a whole path on the agent’s machine'),
      placeholder: '/home/…',
      okLabel: trans.__('Publish')
    });
    return answer.button.accept ? answer.value?.trim() || null : null;
  };
  return {
    [CommandIDs.publishPackage]: {
      label: trans.__('Publish a Package …'),
      caption: trans.__('Publish a folder of the agent’s machine as a package'),
      icon: fileUploadIcon,
      describedBy: OF_FOLDER,
      execute: args =>
        told(async () => {
          const path = textOf(args, 'path') ?? (await ask());
          if (path !== null) {
            const { name, version } = await patiently(trans.__('%1 is published …', path), model.publish(path));
            Notification.success(trans.__('%1 %2 is published.', name, version), { autoClose: 4000 });
          }
        })
    }
  };
}
