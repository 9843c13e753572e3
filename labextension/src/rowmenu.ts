/**
 * The menu of a row in the panel: what can be done with what it shows. Opened by a right click, the keyboard's menu key
 * or the row's button. Lab's context menus cannot tell a command which row was meant, so this one names it.
 */

import type { CommandRegistry } from '@lumino/commands';
import type { ReadonlyJSONObject } from '@lumino/coreutils';
import { Menu } from '@lumino/widgets';
import type * as React from 'react';

export interface IEntry {
  readonly command: string;
  readonly args: ReadonlyJSONObject;
}

/** A menu; `null` stands for a line between two groups. */
export type Entries = readonly (IEntry | null)[];

/** Open the menu where the event happened; afterwards the focus is where it was. */
export function openMenu(commands: CommandRegistry, entries: Entries, event: React.MouseEvent<HTMLElement>): void {
  event.preventDefault();
  event.stopPropagation();
  const origin = event.currentTarget;
  const focused = document.activeElement instanceof HTMLElement ? document.activeElement : null;
  const menu = new Menu({ commands });
  menu.addClass('jp-agent-Menu');
  for (const entry of entries) {
    menu.addItem(entry === null ? { type: 'separator' } : { ...entry });
  }
  menu.aboutToClose.connect(() => {
    if (focused && origin.contains(focused)) {
      focused.focus();
    }
    // The command that was chosen is executed after this.
    window.setTimeout(() => menu.dispose(), 0);
  });
  const { x, y } = placeOf(event, origin);
  menu.open(x, y);
}

/** Below what has the focus when the event has no place of its own, as one of the keyboard. */
function placeOf(event: React.MouseEvent, origin: HTMLElement): { x: number; y: number } {
  if (event.type === 'contextmenu' && (event.clientX || event.clientY)) {
    return { x: event.clientX, y: event.clientY };
  }
  const { left, bottom } = origin.getBoundingClientRect();
  return { x: left, y: bottom };
}
