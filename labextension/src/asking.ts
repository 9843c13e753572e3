/**
 * What commands ask the user, and how they tell of what went wrong.
 */

import { Dialog, InputDialog, Notification, showDialog } from '@jupyterlab/apputils';
import type { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';

import type { IEnvironmentsModel } from './environments';
import { environmentDetail, grouped, nameOfEnvironment } from './environmentwords';
import type { IAgentModel } from './model';
import type { IOthersModel } from './others';
import type { IRow } from './parameters';
import type { IOrder, ITypedParameters } from './parametersform';
import { ParametersForm } from './parametersform';
import { sentence } from './request';
import type { IEnvironment, IOtherAgent, IPackage, IRun } from './shapes';
import { stateWord, title } from './words';

/** Do it and show what went wrong. */
export async function told(job: () => Promise<unknown>): Promise<void> {
  try {
    await job();
  } catch (error) {
    Notification.error(sentence(error), { autoClose: false });
  }
}

/** Wait for something that may take its time; when it does, it is said what is waited for. */
export async function patiently<T>(message: string, job: Promise<T>): Promise<T> {
  let shown: string | null = null;
  const timer = window.setTimeout(() => {
    shown = Notification.emit(message, 'in-progress', { autoClose: false });
  }, PATIENCE_MS);
  try {
    return await job;
  } finally {
    window.clearTimeout(timer);
    if (shown !== null) {
      Notification.dismiss(shown);
    }
  }
}

const PATIENCE_MS = 1000;

/** Ask before something is done that cannot be undone; what it leads to may be several paragraphs. */
export async function confirmed(
  question: string,
  consequence: string | readonly string[],
  deed: string,
  no: string
): Promise<boolean> {
  const body = typeof consequence === 'string' ? consequence : paragraphs(consequence);
  const buttons = [Dialog.cancelButton({ label: no }), Dialog.warnButton({ label: deed })];
  // Enter does what is safe.
  const answer = await showDialog({ title: question, body, buttons, defaultButton: 0 });
  return answer.button.accept;
}

function paragraphs(texts: readonly string[]): Widget {
  const widget = new Widget();
  for (const text of texts) {
    const paragraph = document.createElement('p');
    paragraph.textContent = text;
    widget.node.append(paragraph);
  }
  widget.addClass('jp-agent-Paragraphs');
  return widget;
}

/** One of these, by what it is called; `null` when the user wants none. Two of one name are told apart by number. */
export async function choose<T>(items: readonly T[], question: string, label: (item: T) => string): Promise<T | null> {
  const labels = items.map(label);
  const shown = labels.map((text, index) => {
    const before = labels.slice(0, index).filter(it => it === text).length;
    return before ? `${text} (${before + 1})` : text;
  });
  const answer = await InputDialog.getItem({ title: question, items: shown });
  return items[answer.value === null ? -1 : shown.indexOf(answer.value)] ?? null;
}

/** One of the packages that `suits`. */
export async function choosePackage(
  model: IAgentModel,
  question: string,
  trans: TranslationBundle,
  suits: (item: IPackage) => boolean = () => true
): Promise<IPackage | null> {
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
  const suiting = packages.filter(suits);
  if (!suiting.length) {
    Notification.info(trans.__('There is no such package.'), { autoClose: 3000 });
    return null;
  }
  return choose(suiting, question, it => title({ package: it.name, version: it.version }));
}

export async function chooseRun(
  runs: readonly IRun[],
  question: string,
  trans: TranslationBundle
): Promise<string | null> {
  if (!runs.length) {
    Notification.info(trans.__('There is no such run.'), { autoClose: 3000 });
    return null;
  }
  const chosen = await choose(runs, question, run => `${title(run)} · ${stateWord(run.state, trans)} · ${run.id}`);
  return chosen?.id ?? null;
}

/** One of the environments that `suits`, those of the agent first. */
export async function chooseEnvironment(
  environments: IEnvironmentsModel,
  question: string,
  trans: TranslationBundle,
  suits: (item: IEnvironment) => boolean = () => true
): Promise<IEnvironment | null> {
  await patiently(trans.__('Reading the environments …'), environments.refresh());
  if (environments.problem !== null) {
    throw new Error(environments.problem);
  }
  const suiting = grouped(environments.environments ?? [])
    .flatMap(group => group.environments)
    .filter(suits);
  if (!suiting.length) {
    Notification.info(trans.__('There is no such environment yet.'), { autoClose: 3000 });
    return null;
  }
  return choose(suiting, question, it => environmentLabel(it, trans));
}

/** An environment in one line. */
export function environmentLabel(it: IEnvironment, trans: TranslationBundle): string {
  const python = it.python ? `Python ${it.python}` : '';
  const owner = it.origin === 'jupyter_agent' ? it.id.slice(0, 8) : it.origin;
  return [nameOfEnvironment(it), python, environmentDetail(it, 0, trans)[0] ?? '', owner].filter(Boolean).join(' · ');
}

/** One of the agents that are online and may be used. */
export async function chooseAgent(
  others: IOthersModel,
  question: string,
  trans: TranslationBundle
): Promise<IOtherAgent | null> {
  if (!others.isConnected) {
    throw new Error(trans.__('The agent is not connected to OpenFlow: other agents are reached through it.'));
  }
  await others.refresh(true);
  if (others.problem !== null) {
    throw new Error(others.problem);
  }
  const usable = (others.agents ?? []).filter(agent => agent.online && agent.may_invoke);
  if (!usable.length) {
    Notification.info(trans.__('No other agent that you may use is online.'), { autoClose: 5000 });
    return null;
  }
  return choose(usable, question, agent => `${agent.name} · ${agent.slug}`);
}

/** One of the runs under way on another agent. */
export async function chooseRunThere(
  others: IOthersModel,
  agent: IOtherAgent,
  question: string,
  trans: TranslationBundle
): Promise<string | null> {
  const runs = await others.api.runsOn(agent.slug);
  if (!runs.length) {
    Notification.info(trans.__('Nothing runs on %1.', agent.name), { autoClose: 3000 });
    return null;
  }
  const chosen = await choose(runs, question, run => `${run.package || run.schedule || ''} · ${run.id}`);
  return chosen?.id ?? null;
}

/** The parameters of a run; `null` when the user wants none of it. */
export async function askParameters(options: {
  question: string;
  rows: readonly IRow[];
  order: IOrder | null;
  trans: TranslationBundle;
}): Promise<ITypedParameters | null> {
  const { question, rows, order, trans } = options;
  const answer = await showDialog({
    title: question,
    body: new ParametersForm({ trans, rows, order }),
    focusNodeSelector: 'input',
    buttons: [Dialog.cancelButton({ label: trans.__('Cancel') }), Dialog.okButton({ label: trans.__('Run') })]
  });
  return answer.button.accept ? answer.value : null;
}
