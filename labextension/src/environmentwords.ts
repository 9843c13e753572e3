/**
 * Environments in words: how one is, how far its making is, which file can be made into one. Pure.
 */

import type { EnvironmentState, IEnvironment, IInstalled, IRun, Origin, Phase } from './shapes';
import { hasEnded, PHASES } from './shapes';
import type { IWords, Tone } from './words';
import { ago, size } from './words';

/** How the state of an environment looks and what it is called. */
export function environmentWords(
  state: EnvironmentState,
  words: IWords
): { readonly tone: Tone; readonly word: string; readonly sentence: string } {
  switch (state) {
    case 'ready':
      return { tone: 'good', word: words.__('Ready'), sentence: words.__('It can be used at once.') };
    case 'building':
      return { tone: 'busy', word: words.__('Being made'), sentence: words.__('It is being made.') };
    case 'half-made':
      return {
        tone: 'warn',
        word: words.__('Half made'),
        sentence: words.__('Its making was broken off: it is made anew at its next use, or now by Repair.')
      };
    case 'changed':
      return {
        tone: 'warn',
        word: words.__('Changed'),
        sentence: words.__('Files in it were changed: it is made anew at its next use, or now by Repair.')
      };
    default:
      return { tone: 'quiet', word: String(state), sentence: '' };
  }
}

const ORIGINS: readonly Origin[] = ['jupyter_agent', 'conda', 'mamba', 'micromamba', 'pixi'];

/** Whose environments they are. */
export function originWord(origin: Origin, words: IWords): string {
  return origin === 'jupyter_agent' ? words.__('Made by the agent') : words.__('Of %1', origin);
}

export function isOurs(environment: Pick<IEnvironment, 'origin'>): boolean {
  return environment.origin === 'jupyter_agent';
}

export interface IGroup {
  readonly origin: Origin;
  readonly environments: readonly IEnvironment[];
}

/** Ours first, the one used last at the top; then those of other programs by name. */
export function grouped(environments: readonly IEnvironment[]): readonly IGroup[] {
  const known = [...new Set([...ORIGINS, ...environments.map(it => it.origin)])];
  return known
    .map(origin => ({ origin, environments: environments.filter(it => it.origin === origin).sort(inOrder) }))
    .filter(group => group.environments.length > 0);
}

function inOrder(a: IEnvironment, b: IEnvironment): number {
  return (isOurs(a) ? newness(b) - newness(a) : 0) || a.name.localeCompare(b.name) || (a.path < b.path ? -1 : 1);
}

function newness(environment: IEnvironment): number {
  return Date.parse(environment.used ?? environment.made ?? '') || 0;
}

/** Whether all the typed words are in the text. */
function fits(text: string, typed: string): boolean {
  const lower = text.toLowerCase();
  return typed
    .toLowerCase()
    .split(/\s+/)
    .every(word => lower.includes(word));
}

/** The environments in whose name, program, file, Python or path all these words are. */
export function matchingEnvironments(all: readonly IEnvironment[], typed: string): readonly IEnvironment[] {
  return all.filter(it =>
    fits([it.name, it.origin, it.kind, it.source, it.python && `python ${it.python}`, it.path, it.id].join(' '), typed)
  );
}

/** The packages in whose name, version or reason all these words are. */
export function matchingInstalled(all: readonly IInstalled[], typed: string): readonly IInstalled[] {
  return all.filter(it => fits([it.name, it.version, it.manager, it.channel, ...it.why].join(' '), typed));
}

export const SORTS = ['name', 'version', 'from', 'bytes'] as const;
export type Sort = (typeof SORTS)[number];

/** The packages in the order of one column; sizes begin with the largest. */
export function sortedInstalled(all: readonly IInstalled[], sort: Sort): readonly IInstalled[] {
  const first: Record<Sort, (a: IInstalled, b: IInstalled) => number> = {
    name: () => 0,
    version: (a, b) => a.version.localeCompare(b.version, undefined, { numeric: true }),
    from: (a, b) => fromWhere(a).localeCompare(fromWhere(b)),
    bytes: (a, b) => (b.bytes ?? -1) - (a.bytes ?? -1)
  };
  return [...all].sort((a, b) => first[sort](a, b) || a.name.localeCompare(b.name));
}

/** Where a package is from, in a word or two: its channel's last part, PyPI, or the program that installed it. */
export function fromWhere(item: Pick<IInstalled, 'channel' | 'manager'>): string {
  const channel = (item.channel ?? '').replace(/\/+$/, '');
  if (item.manager === 'pip' && (!channel || /\bpypi\.org\b/.test(channel))) {
    return 'PyPI';
  }
  return channel.slice(channel.lastIndexOf('/') + 1) || item.manager;
}

/** The second line of an environment's row, after its state. */
export function environmentDetail(it: IEnvironment, now: number, words: IWords): string[] {
  return [
    it.packages === null ? '' : words._n('%1 package', '%1 packages', it.packages),
    it.bytes === null ? '' : size(it.bytes),
    it.used ? words.__('used %1', ago(it.used, now, words)) : '',
    it.used_by.length ? words._n('%1 run', '%1 runs', it.used_by.length) : ''
  ].filter(Boolean);
}

/** What an environment is called: its name, else the file it was made for, else a part of its id. */
export function nameOfEnvironment(it: Pick<IEnvironment, 'name' | 'source' | 'id'>): string {
  return it.name || nameOf((it.source ?? '').replaceAll('\\', '/')) || shortId(it.id);
}

/** A short name for an environment of which only the id, or the path, is known. */
export function shortId(id: string): string {
  if (/^[0-9a-f]{16,}(\.\d+)?$/.test(id)) {
    return id.slice(0, 10);
  }
  const parts = id.split(/[\\/]/).filter(Boolean);
  return parts[parts.length - 1] ?? id;
}

/** The id (or path) of the environment that a run used or made; `null` where there is none. */
export function environmentOf(run: Pick<IRun, 'environment' | 'kind' | 'results'>): string | null {
  const made = run.kind === 'environment' ? run.results['environment'] : null;
  return run.environment || (typeof made === 'string' && made ? made : null);
}

// ---- making

export type StepState = 'done' | 'now' | 'failed' | 'todo';

export interface IStep {
  readonly phase: Phase;
  readonly state: StepState;
}

/**
 * How far the making of a run's environment is; `null` where there is nothing to show: it has not begun, it is over and
 * went well, or the run is one that makes none.
 */
export function steps(run: Pick<IRun, 'state' | 'progress' | 'language' | 'kind'>): readonly IStep[] | null {
  const phases: readonly Phase[] = run.kind === 'environment' && run.language === 'lock' ? ['solve'] : PHASES;
  const here = phases.findIndex(phase => phase === run.progress?.phase);
  if (here < 0 || run.state === 'running' || run.state === 'succeeded') {
    return null;
  }
  const now: StepState = hasEnded(run) ? 'failed' : 'now';
  return phases.map((phase, index) => ({ phase, state: index < here ? 'done' : index === here ? now : 'todo' }));
}

export function phaseWord(phase: Phase, words: IWords): string {
  return {
    solve: words.__('Solve'),
    download: words.__('Download'),
    link: words.__('Link'),
    pip: words.__('pip'),
    compile: words.__('Compile'),
    check: words.__('Check')
  }[phase];
}

/** What the present phase says of itself, without its name, which stands beside. */
export function phaseDetail(progress: IRun['progress']): string {
  const { label = '', phase = '' } = progress ?? {};
  const detail = label.startsWith(phase) ? label.slice(phase.length).replace(/^:\s*/, '') : label;
  const { done = 0, total = null } = progress ?? {};
  return detail || (total ? `${Math.round(done)} / ${Math.round(total)}` : '');
}

/** What offers a stand-in from PyPI: the agent's own words for it. */
const OFFER = '--channel-from-pypi';

/** Whether a run failed because no channel can be reached, so that the same may be made from PyPI. */
export function wantsPyPI(run: Pick<IRun, 'state' | 'error'>): boolean {
  return run.state === 'failed' && (run.error ?? '').includes(OFFER);
}

/** A sentence, and what stands below it as it was printed (a solver's explanation); `null` where there is nothing. */
export function explained(error: string): { readonly sentence: string; readonly explanation: string | null } {
  const text = error.trim();
  const end = text.indexOf('\n');
  return end < 0
    ? { sentence: text, explanation: null }
    : { sentence: text.slice(0, end).trim(), explanation: text.slice(end + 1).replace(/^\n+|\s+$/g, '') };
}

// ---- files

const ENVIRONMENT_FILES = [
  /^(environment|conda)\.ya?ml$/i,
  /^(.*[-_.])?environment([-_.].*)?\.ya?ml$/i,
  /^(.*[-_.])?requirements([-_.].*)?\.txt$/i,
  /^(.*\.)?conda-lock\.ya?ml$/i,
  /^pyproject\.toml$/i,
  /^(explicit|spec-file)\.txt$/i,
  /^conda-.*\.lock$/i
];

/** Whether an environment can be made from a file of this name. */
export function saysEnvironment(path: string): boolean {
  const name = nameOf(path);
  return ENVIRONMENT_FILES.some(pattern => pattern.test(name));
}

/** Whether the file asks for packages that are yet to be locked. */
export function canBeLocked(path: string): boolean {
  return saysEnvironment(path) && !/((conda-lock\.ya?ml|\.lock)|(^|\/)(explicit|spec-file)\.txt)$/i.test(path);
}

/** Whether the file can be run in an environment. */
export function runsInEnvironment(path: string): boolean {
  return /\.(ipynb|py)$/i.test(path);
}

export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1);
}

/** Where the lock of a file is written: beside it. */
export function lockBeside(path: string): string {
  return `${path.slice(0, path.lastIndexOf('/') + 1)}conda-lock.yml`;
}

/** The path in Lab's file browser of a file of the machine; `null` where it is not known to be in there. */
export function inContents(root: string, path: string): string | null {
  const folder = `${root.replace(/[\\/]+$/, '')}/`;
  const file = path.replaceAll('\\', '/');
  return root && !root.startsWith('~') && file.startsWith(folder) ? file.slice(folder.length) : null;
}

/**
 * The path of a file of Lab's file browser on the machine; `root` is the folder that Jupyter serves, `~` for the home
 * directory where it lies below that. `null` where Jupyter's files are no files of the machine.
 */
export function onMachine(root: string, path: string): string | null {
  return root ? `${root.replace(/[\\/]+$/, '')}/${path.replace(/^\/+/, '')}` : null;
}
