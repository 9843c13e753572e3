/**
 * What the lists of the panel are made of.
 */

import type { TranslationBundle } from '@jupyterlab/translation';
import type { LabIcon } from '@jupyterlab/ui-components';
import { ellipsesIcon } from '@jupyterlab/ui-components';
import type { CommandRegistry } from '@lumino/commands';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';
import * as React from 'react';

import type { Entries } from './rowmenu';
import { openMenu } from './rowmenu';

/** A list in which the arrow keys move between the rows' main buttons. */
export function List(props: { label: string; children: React.ReactNode }): React.ReactElement {
  return (
    <ul className="jp-agent-List" aria-label={props.label} onKeyDown={moveFocus}>
      {props.children}
    </ul>
  );
}

/** The rows are those of this list and of lists inside it, as they stand below one another. */
function moveFocus(event: React.KeyboardEvent<HTMLUListElement>): void {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step === undefined || event.defaultPrevented) {
    return;
  }
  const panel = event.currentTarget.closest('.jp-agent-Section') ?? event.currentTarget;
  const rows = [...panel.querySelectorAll<HTMLElement>('.jp-agent-Item')];
  const here = rows.findIndex(row => row.contains(document.activeElement));
  const next = rows[here + step]?.querySelector<HTMLElement>('[data-main]');
  if (next) {
    next.focus();
    event.preventDefault();
  }
}

export function IconButton(props: {
  icon: LabIcon;
  label: string;
  onClick: (event: React.MouseEvent<HTMLButtonElement>) => void;
  className?: string;
  disabled?: boolean;
  main?: boolean;
  menu?: boolean;
}): React.ReactElement {
  return (
    <button
      className={`jp-agent-IconButton ${props.className ?? ''}`}
      title={props.label}
      aria-label={props.label}
      aria-haspopup={props.menu ? 'menu' : undefined}
      data-main={props.main ? '' : undefined}
      disabled={props.disabled ?? false}
      onClick={props.onClick}
    >
      <props.icon.react tag="span" />
    </button>
  );
}

/** The button that opens a row's menu. */
export function MenuButton(props: {
  commands: CommandRegistry;
  entries: Entries;
  name: string;
  trans: TranslationBundle;
}): React.ReactElement {
  return (
    <IconButton
      icon={ellipsesIcon}
      label={props.trans.__('More for %1', props.name)}
      className="jp-agent-mod-onHover"
      menu
      onClick={event => openMenu(props.commands, props.entries, event)}
    />
  );
}

export function Empty(props: { children: React.ReactNode }): React.ReactElement {
  return <div className="jp-agent-Empty">{props.children}</div>;
}

/** What went wrong, in words. */
export function Trouble(props: { children: React.ReactNode }): React.ReactElement {
  return (
    <div className="jp-agent-Trouble" role="alert">
      {props.children}
    </div>
  );
}

export function act(commands: CommandRegistry, id: string, args: ReadonlyPartialJSONObject = {}): void {
  void commands.execute(id, args);
}
