/**
 * What the plugins give one another, and the names of the commands.
 */

import { Token } from '@lumino/coreutils';
import type { ISignal } from '@lumino/signaling';

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
 * of a run there `{agent, id}`; what is not given the user is asked for.
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
  openNotebook: 'jupyter-agent:open-output-notebook',
  openReport: 'jupyter-agent:open-html-report',
  copyRunId: 'jupyter-agent:copy-run-id',
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
