/**
 * The shapes of the agent's API (`<base_url>jupyter-agent/api/v1/`), as the gate answers them.
 */

/** The states of a run, in the agent's words. The first three are live, the rest are verdicts. */
export type RunState =
  | 'queued'
  | 'preparing'
  | 'running'
  | 'succeeded'
  | 'failed'
  | 'timed_out'
  | 'cancelled'
  | 'killed'
  | 'kernel_died'
  | 'lost';

export interface IProgress {
  readonly done: number;
  /** `null`: not known. */
  readonly total: number | null;
  readonly label: string;
  /** Of a run that makes an environment or waits for one: one of `PHASES`. */
  readonly phase?: string;
}

/** What making an environment goes through, in this order. */
export const PHASES = ['solve', 'download', 'link', 'pip', 'compile', 'check'] as const;
export type Phase = (typeof PHASES)[number];

export interface IArtifact {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly mimetype: string;
}

export interface IRun {
  readonly id: string;
  readonly state: RunState;
  /** The package's name, or the file's for a run of a path. */
  readonly package: string;
  readonly package_id: string | null;
  readonly version: string | null;
  readonly path: string | null;
  readonly language: string | null;
  readonly trigger: string;
  readonly who: string;
  readonly parameters: Readonly<Record<string, unknown>>;
  /** UTC, ISO 8601, as the two below. */
  readonly created: string;
  readonly started: string | null;
  readonly ended: string | null;
  readonly exit_code: number | null;
  readonly signal: string | null;
  readonly progress: IProgress | null;
  readonly results: Readonly<Record<string, unknown>>;
  readonly artifacts: readonly IArtifact[];
  readonly error: string | null;
  /** What is not well although the run may have done well, such as an environment that it changed. */
  readonly warning?: string | null;
  /** The id of the environment it ran in, or the path of one that is not the agent's. */
  readonly environment?: string | null;
  /** Bytes. */
  readonly peak_memory: number | null;
  /** Seconds. */
  readonly cpu_s: number | null;
  /** Grows with the output; only good for telling that there is more to read. */
  readonly output_size: number;
  /**
   * A preparation, and the making of an environment (or a lock, or a channel), end when everything is ready, their
   * output is the log of it; a test run is ended after a while.
   */
  readonly kind: 'run' | 'prepare' | 'testrun' | 'environment';
  /** Lower ones are started first. */
  readonly priority: number;
  /** How many further attempts may follow a first one that fails. */
  readonly retries: number;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
  /** When the next attempt begins while that is waited for; UTC, ISO 8601. */
  readonly next_attempt: string | null;
  /** The run that this one repeats because somebody asked for it. */
  readonly rerun_of: string | null;
}

/** What an answer says of a run on another agent, which does not know as much: the rest is as if nothing were known. */
export function runElsewhere(told: Partial<IRun> & Pick<IRun, 'id'>): IRun {
  return {
    state: 'running',
    package_id: null,
    version: null,
    path: null,
    language: null,
    trigger: '',
    who: '',
    created: '',
    started: null,
    ended: null,
    exit_code: null,
    signal: null,
    progress: null,
    error: null,
    peak_memory: null,
    cpu_s: null,
    output_size: 0,
    kind: 'run',
    priority: USUAL_PRIORITY,
    retries: 0,
    attempt: 1,
    next_attempt: null,
    rerun_of: null,
    ...told,
    package: told.package || told.package_id || told.id,
    parameters: told.parameters ?? {},
    results: told.results ?? {},
    // They lie on the other agent's machine.
    artifacts: []
  };
}

export const USUAL_PRIORITY = 2;

/** Another agent on the same OpenFlow (or this one, `self`). */
export interface IOtherAgent {
  readonly id: string;
  readonly slug: string;
  readonly name: string;
  readonly hostname: string;
  readonly os: string;
  readonly arch: string;
  readonly languages: readonly string[];
  readonly chrome: boolean;
  readonly chromium: boolean;
  readonly version: string;
  /** UTC, ISO 8601. */
  readonly lastseen: string | null;
  readonly online: boolean;
  readonly self: boolean;
  readonly may_invoke: boolean;
}

/** What another agent tells of a run that is under way there. */
export interface IOtherRun {
  readonly id: string;
  readonly package: string | null;
  readonly package_id: string | null;
  readonly schedule: string | null;
  /** Bytes. */
  readonly output_size: number | null;
}

export interface IPackage {
  readonly id: string;
  readonly name: string;
  readonly version: string;
  readonly language: string;
  readonly description: string;
  readonly fileid: string;
  readonly modified: string | null;
}

export interface IStatus {
  /** `null`: no agent runs on this home. */
  readonly agent: {
    readonly pid: number;
    readonly version: string;
    readonly home: string;
    readonly started: string | number;
  } | null;
  readonly hub: { readonly apiurl: string; readonly pid: number } | null;
  readonly openflow?: {
    readonly url: string;
    readonly embedded: boolean;
    readonly user: string | null;
  };
  readonly connected: boolean;
  /** Requests can be made, but OpenFlow does not let the agent listen; `error` says to what. */
  readonly deaf?: boolean;
  readonly slug: string | null;
  readonly queue: string | null;
  /** Why the agent is not connected, or hears nothing although it is. */
  readonly error: string | null;
  /** What will need attention soon, such as a token that ends. */
  readonly warning: string | null;
  readonly runs: { readonly active: number; readonly queued: number };
}

/** How an environment is: `changed` by somebody, `half-made` because its making was broken off. */
export type EnvironmentState = 'ready' | 'building' | 'half-made' | 'changed';

/** Who keeps an environment: the agent, or another program of the machine. */
export type Origin = 'jupyter_agent' | 'conda' | 'mamba' | 'micromamba' | 'pixi';

export interface IEnvironment {
  readonly id: string;
  readonly name: string;
  readonly kind: 'conda' | 'venv';
  readonly origin: Origin;
  readonly path: string;
  readonly state: EnvironmentState;
  /** Its version; `null`: it has none, or that is not known. */
  readonly python: string | null;
  /** How many there are; `null`: not counted. */
  readonly packages: number | null;
  /** `null`: not measured. */
  readonly bytes: number | null;
  /** UTC, ISO 8601, as the one below. */
  readonly made: string | null;
  readonly used: string | null;
  /** The file, or the package, that it was made for. */
  readonly source: string | null;
  /** IDs of runs. */
  readonly used_by: readonly string[];
}

export interface IInstalled {
  readonly name: string;
  readonly version: string;
  readonly build: string | null;
  readonly manager: string;
  readonly channel: string | null;
  readonly bytes: number | null;
  /** The packages that need it, or what was asked for. */
  readonly why: readonly string[];
}

export interface IEnvironmentDetails extends IEnvironment {
  readonly platform: string | null;
  readonly channels: readonly string[];
  /** What was asked for, as the file says it. */
  readonly asked: readonly string[];
  /** Names of the variables that it sets. */
  readonly variables: readonly string[];
  readonly packages_list: readonly IInstalled[];
}

/** A file that is not as it was installed. */
export interface IFault {
  readonly path: string;
  readonly package: string | null;
  readonly what: string;
}

export interface IVerified {
  readonly id: string;
  readonly ok: boolean;
  readonly faults: readonly IFault[];
}

/** What was, or would be, removed because nothing uses it. */
export interface ICollected {
  readonly removed: readonly { readonly id: string; readonly path: string; readonly bytes: number }[];
  readonly bytes: number;
}

export type Stream = 'stdout' | 'stderr' | 'agent';

export interface IChunk {
  readonly stream: Stream;
  /** Seconds since the epoch. */
  readonly time: number;
  readonly text: string;
  /** Bytes that the bounded log dropped here. */
  readonly gap?: number;
}

export interface IPage {
  readonly chunks: readonly IChunk[];
  /** The offset to read from next; opaque. */
  readonly next: number;
  /** The run has ended and there is nothing after `next`. */
  readonly complete: boolean;
}

export interface IRunPage {
  readonly runs: readonly IRun[];
  readonly cursor: string | null;
}

/** What the agent's events carry: exactly one of them. */
export interface IAgentEvent {
  readonly run?: IRun;
  readonly status?: IStatus;
  readonly package?: { readonly id: string; readonly operation: string };
  /** One was removed otherwise than by a run. */
  readonly environment?: { readonly id: string; readonly operation: string };
}

const SCHEMAS = 'https://schema.jupyter.org/jupyter_agent/';

/** The agent's event in an emission of Jupyter's event stream; `null` for those of others. */
export function agentEvent(emission: Readonly<Record<string, unknown>>): IAgentEvent | null {
  const schema = emission['schema_id'];
  if (typeof schema !== 'string' || !schema.startsWith(SCHEMAS)) {
    return null;
  }
  const payload = emission as unknown as IAgentEvent & { id: string; operation: string };
  switch (schema.slice(SCHEMAS.length)) {
    case 'run/v1':
      return payload.run ? { run: payload.run } : null;
    case 'status/v1':
      return payload.status ? { status: payload.status } : null;
    case 'package/v1':
      return { package: { id: payload.id, operation: payload.operation } };
    case 'environment/v1':
      return { environment: { id: payload.id, operation: payload.operation } };
    default:
      return null;
  }
}

/** The states before the verdict, in their order. */
export const LIVE: readonly RunState[] = ['queued', 'preparing', 'running'];

export function hasEnded(run: Pick<IRun, 'state'>): boolean {
  return !LIVE.includes(run.state);
}

/**
 * Whether `incoming` is to replace `known`, both of one run.
 *
 * Events and REST answers travel apart and may overtake one another. A run only moves forward, so the attempt decides,
 * then the state, then the output; of two that say the same the one that came last is taken.
 */
export function supersedes(incoming: IRun, known: IRun | undefined): boolean {
  if (known === undefined) {
    return true;
  }
  const difference = incoming.attempt - known.attempt || rank(incoming) - rank(known);
  return difference > 0 || (difference === 0 && incoming.output_size >= known.output_size);
}

function rank(run: IRun): number {
  const index = LIVE.indexOf(run.state);
  return index < 0 ? LIVE.length : index;
}
