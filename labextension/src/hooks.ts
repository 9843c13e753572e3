/**
 * Between the model's signals and React.
 */

import type { ISignal } from '@lumino/signaling';
import * as React from 'react';

import type { Change, IAgentModel } from './model';

/** A part of the model, followed. What `select` gives must stay the same object as long as it does not change. */
export function useModel<T>(model: IAgentModel, change: Change, select: (model: IAgentModel) => T): T {
  const subscribe = React.useCallback(
    (changed: () => void) => {
      const slot = (_: IAgentModel, what: Change): void => {
        if (what === change) {
          changed();
        }
      };
      model.changed.connect(slot);
      return () => {
        model.changed.disconnect(slot);
      };
    },
    [model, change]
  );
  return React.useSyncExternalStore(subscribe, () => select(model));
}

/** Render again each time a signal is emitted. */
export function useSignal(signal: ISignal<unknown, unknown>): void {
  const [, render] = React.useReducer((count: number) => count + 1, 0);
  React.useEffect(() => {
    const slot = (): void => render();
    signal.connect(slot);
    // What changed between the first rendering and now.
    render();
    return () => {
      signal.disconnect(slot);
    };
  }, [signal]);
}

/**
 * The server's time, anew each second (twice a minute where seconds are not shown). All who use it tick together, so
 * that one duration does not show two values.
 */
export function useNow(model: Pick<IAgentModel, 'now'>, everySecond: boolean): number {
  const [now, setNow] = React.useState(() => model.now());
  React.useEffect(() => {
    const pace = everySecond ? 1000 : 30_000;
    let timer = 0;
    const tick = (): void => {
      setNow(model.now());
      timer = window.setTimeout(tick, pace - (Date.now() % pace));
    };
    tick();
    return () => window.clearTimeout(timer);
  }, [model, everySecond]);
  return now;
}
