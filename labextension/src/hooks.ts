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

/** The server's time, anew each second (each minute where seconds are not shown). */
export function useNow(model: IAgentModel, everySecond: boolean): number {
  const [now, setNow] = React.useState(() => model.now());
  React.useEffect(() => {
    setNow(model.now());
    const timer = window.setInterval(() => setNow(model.now()), everySecond ? 1000 : 30_000);
    return () => window.clearInterval(timer);
  }, [model, everySecond]);
  return now;
}
