/**
 * What the view of a run shows of the making of its environment: the steps, and how it failed.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import type { IStep, StepState } from './environmentwords';
import { environmentOf, explained, phaseDetail, phaseWord, shortId, steps, wantsPyPI } from './environmentwords';
import { stateIcon } from './icons';
import type { IRun, RunState } from './shapes';
import { hasEnded } from './shapes';
import { CommandIDs } from './tokens';

interface IShown {
  readonly run: IRun;
  readonly trans: TranslationBundle;
}

const LOOKS: Readonly<Record<StepState, readonly [RunState, string]>> = {
  done: ['succeeded', 'good'],
  now: ['running', 'busy'],
  failed: ['failed', 'bad'],
  todo: ['queued', 'quiet']
};

/** The steps in a row with the present one marked, and what it says of itself. */
export function Steps({ run, trans }: IShown): React.ReactElement | null {
  const shown = steps(run);
  if (shown === null) {
    return null;
  }
  const here = shown.find(step => step.state === 'now' || step.state === 'failed');
  const detail = phaseDetail(run.progress);
  const told = here ? `${phaseWord(here.phase, trans)} ${detail}`.trim() : '';
  return (
    <div className="jp-agent-Making">
      <ol className="jp-agent-Steps" aria-label={trans.__('Making the environment')}>
        {shown.map(step => (
          <Step key={step.phase} step={step} state={run.state} trans={trans} />
        ))}
      </ol>
      {hasEnded(run) ? null : (
        <div className="jp-agent-Making-detail" title={told}>
          {detail}
        </div>
      )}
    </div>
  );
}

function Step(props: { step: IStep; state: RunState; trans: TranslationBundle }): React.ReactElement {
  const { step, trans } = props;
  const [usual, tone] = LOOKS[step.state];
  const Icon = stateIcon(step.state === 'failed' ? props.state : usual);
  const words: Record<StepState, string> = {
    done: trans.__('done'),
    now: trans.__('under way'),
    failed: trans.__('not finished'),
    todo: trans.__('to do')
  };
  return (
    <li
      className={`jp-agent-Step jp-agent-mod-${tone}`}
      data-phase={step.phase}
      data-state={step.state}
      aria-current={step.state === 'now' ? 'step' : undefined}
    >
      <Icon.react tag="span" className={`jp-agent-Mark-icon ${tone === 'busy' ? 'jp-agent-mod-turning' : ''}`} />
      <span className="jp-agent-Step-word">{phaseWord(step.phase, trans)}</span>
      <span className="jp-agent-Spoken">{words[step.state]}</span>
    </li>
  );
}

/** Why it failed: a sentence, and below it, as it was printed, what explains it. */
export function Failure(props: {
  error: string;
  run: IRun;
  /** `null` for a run of another agent. */
  commands: CommandRegistry | null;
  trans: TranslationBundle;
}): React.ReactElement {
  const { error, run, commands, trans } = props;
  const { sentence, explanation } = explained(error);
  return (
    <div className="jp-agent-Trouble" role="alert">
      <div>{sentence}</div>
      {explanation ? (
        <pre className="jp-agent-Explanation" tabIndex={0} aria-label={trans.__('Explanation')}>
          {explanation}
        </pre>
      ) : null}
      {commands && wantsPyPI(run) ? (
        <button
          className="jp-agent-Button jp-mod-styled jp-mod-accept"
          onClick={() => void commands.execute(CommandIDs.makeFromPyPI, { id: run.id })}
        >
          {trans.__('Make it from PyPI instead')}
        </button>
      ) : null}
    </div>
  );
}

/** The environment of a run, as a button that shows its details. */
export function EnvironmentLink(props: { run: IRun; commands: CommandRegistry }): React.ReactElement | null {
  const { run, commands } = props;
  const id = environmentOf(run);
  return id ? (
    <button
      className="jp-agent-Link"
      title={id}
      onClick={() => void commands.execute(CommandIDs.showEnvironment, { id })}
    >
      {shortId(id)}
    </button>
  ) : null;
}
