/**
 * The item in the status bar: the agent's state and how much is under way.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import * as React from 'react';

import { useModel } from './hooks';
import { toneIcon } from './icons';
import type { IAgentModel } from './model';
import { hasEnded } from './shapes';
import { CommandIDs } from './tokens';
import { connectionWords } from './words';

interface IStatusItemOptions {
  readonly model: IAgentModel;
  readonly commands: CommandRegistry;
  readonly trans: TranslationBundle;
}

export function statusItem(options: IStatusItemOptions): ReactWidget {
  const widget = ReactWidget.create(<StatusItem {...options} />);
  widget.addClass('jp-agent-StatusItem');
  widget.addClass('jp-mod-highlighted');
  return widget;
}

function StatusItem({ model, commands, trans }: IStatusItemOptions): React.ReactElement {
  const status = useModel(model, 'status', it => it.status);
  const reach = useModel(model, 'status', it => it.reach);
  const starting = useModel(model, 'status', it => it.starting);
  const running = useModel(model, 'status', it => it.running);
  const runs = useModel(model, 'runs', it => it.runs);
  const { tone, word, sentence, warning } = connectionWords(reach, starting, status, trans);
  const live = running ? (runs ?? []).filter(run => !hasEnded(run)).length : 0;
  const busy = live > 0 ? trans._n('%1 run', '%1 runs', live, live) : null;
  const shown = busy && tone === 'good' ? 'busy' : tone;
  const Icon = toneIcon(shown);
  const text =
    shown === 'busy' && busy
      ? busy
      : [word, warning ? trans.__('with a warning') : '', busy].filter(Boolean).join(', ');
  return (
    <button
      className={`jp-agent-StatusItem-button jp-agent-mod-${shown}`}
      title={`${word}: ${[sentence, warning].filter(Boolean).join('\n')}`}
      aria-label={trans.__('Agent: %1. Show its panel', text)}
      onClick={() => void commands.execute(CommandIDs.openPanel)}
    >
      <Icon.react tag="span" className={`jp-agent-Mark-icon ${shown === 'busy' ? 'jp-agent-mod-turning' : ''}`} />
      <span>{trans.__('Agent: %1', text)}</span>
    </button>
  );
}
