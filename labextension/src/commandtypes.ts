/**
 * What the modules of commands share: what they are given, and the arguments that commands take.
 */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import type { ReadonlyJSONObject, ReadonlyPartialJSONObject } from '@lumino/coreutils';

import type { IEnvironmentsModel } from './environments';
import type { IAgentModel } from './model';
import type { IOthersModel } from './others';
import type { IEnvironmentViews, IMeantFiles, IRunViews } from './tokens';

export interface ICommandOptions {
  readonly app: JupyterFrontEnd;
  readonly model: IAgentModel;
  readonly others: IOthersModel;
  readonly environments: IEnvironmentsModel;
  readonly environmentViews: IEnvironmentViews;
  readonly files: IMeantFiles;
  readonly views: IRunViews;
  readonly trans: TranslationBundle;
  readonly openPanel: () => void;
}

export type Args = ReadonlyPartialJSONObject;
export type Command = CommandRegistry.ICommandOptions;

/** An argument that is a text; `null` where it is none or empty. */
export function textOf(args: Args, name: string): string | null {
  const given = args[name];
  return typeof given === 'string' && given ? given : null;
}

function texts(descriptions: Readonly<Record<string, string>>): { args: ReadonlyJSONObject } {
  const properties = Object.entries(descriptions).map(([name, description]) => [name, { type: 'string', description }]);
  return { args: { type: 'object', properties: Object.fromEntries(properties) as ReadonlyJSONObject } };
}

const PACKAGE = { id: 'The ID of the package; without it the user is asked', name: 'Its name, for labels' };
const AGENT = { agent: 'The slug of the agent; without it the user is asked', agentName: 'Its name, for labels' };

/** Descriptions of arguments, for `describedBy`. */
export const NOTHING = texts({});
export const OF_PACKAGE = texts(PACKAGE);
export const OF_RUN = texts({ id: 'The ID of the run; without it the run in front, else the user is asked' });
export const OF_FOLDER = texts({ path: 'The package’s folder on the agent’s machine; without it the user is asked' });
export const OF_ENVIRONMENT = texts({
  id: 'The ID or path of the environment; without it the one in front, else the user is asked',
  name: 'Its name, for labels'
});
export const OF_FILE = texts({
  path: 'The file, as a path of Lab’s contents; without it the one that is selected or in front'
});
export const OF_FILE_RUN = texts({
  path: 'The file, as a path of Lab’s contents; without it the one that is selected or in front',
  environment: 'The ID or path of the environment; without it the user is asked'
});
export const OF_AGENT = texts(AGENT);
export const OF_PACKAGE_THERE = texts({ ...AGENT, ...PACKAGE });
export const OF_RUN_THERE = texts({ ...AGENT, id: 'The ID of the run; without it the user is asked' });
