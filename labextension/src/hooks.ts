/**
 * Between the model's signals and React.
 */

import * as React from 'react';

import type { Change, IAgentModel } from './model';
import type { IRun } from './shapes';

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

/** A run, followed; `undefined` while it is not known. */
export function useRun(model: IAgentModel, id: string): IRun | undefined {
  const subscribe = React.useCallback(
    (changed: () => void) => {
      const slot = (_: IAgentModel, run: IRun): void => {
        if (run.id === id) {
          changed();
        }
      };
      model.runChanged.connect(slot);
      return () => {
        model.runChanged.disconnect(slot);
      };
    },
    [model, id]
  );
  return React.useSyncExternalStore(subscribe, () => model.find(id));
}

/**
 * The server's time, anew each second (twice a minute where seconds are not shown). All who use it tick together, so
 * that one duration does not show two values.
 */
export function useNow(model: IAgentModel, everySecond: boolean): number {
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
