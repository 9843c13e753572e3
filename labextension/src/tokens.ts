/**
 * What the plugins give one another, and the names of the commands.
 */

import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';

import type { IEnvironmentsModel } from './environments';
import type { IAgentModel } from './model';
import type { IOthersModel } from './others';
import type { IRun } from './shapes';

export const IAgent = new Token<IAgentModel>(
  'jupyter-agent:IAgent',
  'What the page knows of the agent: its status, packages and runs.'
);

export const IOthers = new Token<IOthersModel>(
  'jupyter-agent:IOthers',
  'What the page knows of the other agents on this OpenFlow.'
);

export const IEnvironments = new Token<IEnvironmentsModel>(
  'jupyter-agent:IEnvironments',
  'What the page knows of the environments of the machine.'
);

/** The views of environments in the main area. */
export interface IEnvironmentViews {
  /** Show the details of an environment, by its id or path. */
  open(id: string): Promise<void>;
  /** The environment whose view is in front. */
  readonly inFront: string | null;
  /** Whether one can be seen. */
  readonly isVisible: boolean;
  close(id: string): void;
}

export const IEnvironmentViews = new Token<IEnvironmentViews>(
  'jupyter-agent:IEnvironmentViews',
  'Opens environments in the main area.'
);

/** The files of Lab that the user means, as paths of its contents. */
export interface IMeantFiles {
  /** The only file that is selected in the file browser. */
  readonly selected: string | null;
  /** The file of the document in front. */
  readonly inFront: string | null;
  /** Save what was typed into a document of the file. */
  save(path: string): Promise<void>;
  /** What is meant by a file has changed. */
  readonly changed: ISignal<IMeantFiles, void>;
}

export const IMeantFiles = new Token<IMeantFiles>('jupyter-agent:IMeantFiles', 'The files that commands are about.');

/** Which run: its id, and the slug of the other agent that it runs on (`null`: this one). */
export interface IRunAt {
  readonly id: string;
  readonly agent: string | null;
}

/** The views of runs in the main area. */
export interface IRunViews {
  /** Show the view of a run, which is made where there is none. */
  open(run: IRunAt, tab?: 'console' | 'notebook'): Promise<void>;
  /** The run whose view is in front. */
  readonly inFront: IRunAt | null;
  isVisible(run: IRunAt): boolean;
  /** What a view shows of a run of another agent; `undefined` where there is no view, or it does not know yet. */
  find(run: IRunAt): IRun | undefined;
  /** What a view knows of a run of another agent has changed. */
  readonly changed: ISignal<IRunViews, void>;
}

export const IRunViews = new Token<IRunViews>('jupyter-agent:IRunViews', 'Opens runs of the agent in the main area.');

/**
 * Commands. Those of a package take `{id, name}`, those of a run `{id}`, those of another agent `{agent}` (its slug) and
 * of a run there `{agent, id}`, those of an environment `{id, name}`, those of a file `{path}` (in Lab's contents); what is not given the user is asked for.
 */
export const CommandIDs = {
  openPanel: 'jupyter-agent:open-panel',
  start: 'jupyter-agent:start',
  runPackage: 'jupyter-agent:run-package',
  runPackageWith: 'jupyter-agent:run-package-with-parameters',
  preparePackage: 'jupyter-agent:prepare-package',
  reinstallPackage: 'jupyter-agent:reinstall-package',
  cancelRunsOfPackage: 'jupyter-agent:cancel-runs-of-package',
  removePackage: 'jupyter-agent:remove-package',
  publishPackage: 'jupyter-agent:publish-package',
  cancelRun: 'jupyter-agent:cancel-run',
  rerun: 'jupyter-agent:run-again',
  openRun: 'jupyter-agent:open-run',
  makeFromPyPI: 'jupyter-agent:make-from-pypi',
  openNotebook: 'jupyter-agent:open-output-notebook',
  openReport: 'jupyter-agent:open-html-report',
  copyRunId: 'jupyter-agent:copy-run-id',
  showEnvironment: 'jupyter-agent:show-environment',
  verifyEnvironment: 'jupyter-agent:verify-environment',
  repairEnvironment: 'jupyter-agent:repair-environment',
  removeEnvironment: 'jupyter-agent:remove-environment',
  copyEnvironmentPath: 'jupyter-agent:copy-environment-path',
  cleanUpEnvironments: 'jupyter-agent:clean-up-environments',
  refreshEnvironments: 'jupyter-agent:refresh-environments',
  makeEnvironment: 'jupyter-agent:make-environment',
  lockEnvironment: 'jupyter-agent:lock-environment',
  runInEnvironment: 'jupyter-agent:run-in-environment',
  refreshAgents: 'jupyter-agent:refresh-agents',
  runOnAgent: 'jupyter-agent:run-on-agent',
  prepareOnAgent: 'jupyter-agent:prepare-on-agent',
  reinstallOnAgent: 'jupyter-agent:reinstall-on-agent',
  openRunOnAgent: 'jupyter-agent:open-run-on-agent',
  cancelRunOnAgent: 'jupyter-agent:cancel-run-on-agent',
  cancelRunsOnAgent: 'jupyter-agent:cancel-runs-on-agent'
} as const;

export const NOTEBOOK = 'output.ipynb';
export const REPORT = 'output.html';
