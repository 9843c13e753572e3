/**
 * What the plugins give one another, and the names of the commands.
 */

import { Token } from '@lumino/coreutils';

import type { IAgentModel } from './model';

export const IAgent = new Token<IAgentModel>(
  'jupyter-agent:IAgent',
  'What the page knows of the agent: its status, packages and runs.'
);

/** The views of runs in the main area. */
export interface IRunViews {
  /** Show the view of a run, which is made where there is none. */
  open(runId: string, tab?: 'console' | 'notebook'): Promise<void>;
  /** The run whose view is in front. */
  readonly inFront: string | null;
  isVisible(runId: string): boolean;
}

export const IRunViews = new Token<IRunViews>('jupyter-agent:IRunViews', 'Opens runs of the agent in the main area.');

/** Commands. Those of a run take `{id}`, those of a package `{id, name}`; without it the user is asked. */
export const CommandIDs = {
  openPanel: 'jupyter-agent:open-panel',
  start: 'jupyter-agent:start',
  runPackage: 'jupyter-agent:run-package',
  runPackageWith: 'jupyter-agent:run-package-with-parameters',
  cancelRun: 'jupyter-agent:cancel-run',
  openRun: 'jupyter-agent:open-run',
  openNotebook: 'jupyter-agent:open-output-notebook',
  openReport: 'jupyter-agent:open-html-report',
  copyRunId: 'jupyter-agent:copy-run-id'
} as const;

export const NOTEBOOK = 'output.ipynb';
export const REPORT = 'output.html';
