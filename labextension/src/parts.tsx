/**
 * Small pieces that panel and run view share.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';

import { stateIcon } from './icons';
import type { IRun, RunState } from './shapes';
import { fraction, stateWord, toneOf } from './words';

/** A state by icon, word and colour. Without contact to the agent a live state is not known to be true any more. */
export function StateMark(props: {
  state: RunState;
  contact: boolean;
  trans: TranslationBundle;
  iconOnly?: boolean;
  wordOnly?: boolean;
}): React.ReactElement {
  const { state, trans } = props;
  const tone = toneOf(state);
  const unsure = !props.contact && (tone === 'busy' || tone === 'quiet');
  const Icon = stateIcon(unsure ? 'lost' : state);
  return (
    <span className={`jp-agent-Mark jp-agent-mod-${unsure ? 'quiet' : tone}`}>
      {props.wordOnly ? null : (
        <Icon.react
          tag="span"
          className={`jp-agent-Mark-icon ${!unsure && tone === 'busy' ? 'jp-agent-mod-turning' : ''}`}
        />
      )}
      {props.iconOnly ? null : (
        <span className="jp-agent-Mark-word">{unsure ? trans.__('Out of contact') : stateWord(state, trans)}</span>
      )}
    </span>
  );
}

/** The progress of a live run; without figures it only shows that something goes on. */
export function LiveBar(props: { run: IRun; contact: boolean; trans: TranslationBundle }): React.ReactElement {
  const { run, trans } = props;
  const part = fraction(run.progress);
  const percent = part === null ? undefined : Math.round(part * 100);
  const moving = part === null && run.state !== 'queued' && props.contact;
  return (
    <div
      className={`jp-agent-Bar ${moving ? 'jp-agent-mod-moving' : ''}`}
      role="progressbar"
      aria-label={trans.__('Progress of %1', run.package)}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-valuenow={percent}
      aria-valuetext={run.progress?.label ?? stateWord(run.state, trans)}
    >
      <div className="jp-agent-Bar-fill" style={percent === undefined ? {} : { width: `${percent}%` }} />
    </div>
  );
}
