/**
 * The extension's icons. Those of states take the colour of the text beside them.
 */

import { LabIcon } from '@jupyterlab/ui-components';

import type { RunState } from './shapes';
import type { Tone } from './words';

/** A 24 x 24 drawing in lines. */
function drawing(name: string, lines: string): LabIcon {
  return new LabIcon({
    name: `jupyter-agent:${name}`,
    svgstr:
      '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">' +
      '<g fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">' +
      `${lines}</g></svg>`
  });
}

const CIRCLE = '<circle cx="12" cy="12" r="9"/>';
const OCTAGON = '<path d="M8.3 3h7.4L21 8.3v7.4L15.7 21H8.3L3 15.7V8.3z"/>';
const EXCLAMATION = '<path d="M12 7.5v5.5M12 16.4v.1"/>';

/** The sidebar's: a hexagon (OpenFlow) that runs. */
export const agentIcon = new LabIcon({
  name: 'jupyter-agent:agent',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">' +
    '<path class="jp-icon3" fill="#616161" fill-rule="evenodd" ' +
    'd="M12 1.5l9.1 5.25v10.5L12 22.5l-9.1-5.25V6.75zM12 4L5 8v8l7 4 7-4V8z"/>' +
    '<path class="jp-icon3" fill="#616161" d="M9.6 7.9v8.2l6.6-4.1z"/></svg>'
});

const arc = drawing('running', '<path d="M12 3a9 9 0 1 1-9 9"/>');
const dots = drawing('preparing', '<circle cx="12" cy="12" r="9" stroke-dasharray="0.1 5.55"/>');
const clock = drawing('queued', `${CIRCLE}<path d="M12 7v5l3.2 2"/>`);
const check = drawing('succeeded', `${CIRCLE}<path d="M8 12.3l2.8 2.8 5.2-5.6"/>`);
const cross = drawing('failed', `${CIRCLE}<path d="M9 9l6 6M15 9l-6 6"/>`);
const hourglass = drawing(
  'timed-out',
  '<path d="M6 3h12M6 21h12M7.5 3v3.5l4.5 5.5 4.5-5.5V3M7.5 21v-3.5l4.5-5.5 4.5 5.5V21"/>'
);
const bar = drawing('cancelled', `${CIRCLE}<path d="M8 12h8"/>`);
const stopped = drawing('killed', `${OCTAGON}${EXCLAMATION}`);
const chip = drawing(
  'kernel-died',
  '<rect x="6" y="6" width="12" height="12" rx="1"/>' +
    '<path d="M10 10l4 4M14 10l-4 4M9 3v3M15 3v3M9 18v3M15 18v3M3 9h3M3 15h3M18 9h3M18 15h3"/>'
);
const question = drawing('lost', `${CIRCLE}<path d="M9.6 9.6a2.5 2.5 0 1 1 3.4 2.3c-.7.3-1 .7-1 1.5M12 16.6v.1"/>`);
const ring = drawing('off', CIRCLE);
const triangle = drawing('trouble', `<path d="M12 3.5L2.5 20h19z"/><path d="M12 10v4.5M12 17.3v.1"/>`);

/** Throws away; in the colours of Lab's own icons. */
export const removeIcon = new LabIcon({
  name: 'jupyter-agent:remove',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">' +
    '<path class="jp-icon3" fill="#616161" d="M6 19a2 2 0 0 0 2 2h8a2 2 0 0 0 2-2V7H6zM8 9h8v10H8zm7.5-5-1-1h-5l-1 1H5v2h14V4z"/>' +
    '</svg>'
});

/** A drawing in lines, in the colours of Lab's own icons. */
function tool(name: string, lines: string): LabIcon {
  return new LabIcon({
    name: `jupyter-agent:${name}`,
    svgstr:
      '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24"><g fill="none">' +
      '<g class="jp-icon3" stroke="#616161" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">' +
      `${lines}</g></g></svg>`
  });
}

/** Layers that stand on one another. */
export const environmentIcon = tool(
  'environment',
  '<path d="M12 3l9 4.5-9 4.5-9-4.5zM3 12l9 4.5 9-4.5M3 16.5L12 21l9-4.5"/>'
);
export const foreignIcon = tool(
  'foreign-environment',
  '<path d="M12 3l9 4.5-9 4.5-9-4.5zM3 7.5v9L12 21l9-4.5v-9M12 12v9"/>'
);
export const lockIcon = tool(
  'lock',
  '<rect x="5" y="11" width="14" height="9" rx="1"/><path d="M8 11V8a4 4 0 0 1 8 0v3"/>'
);
export const verifyIcon = tool(
  'verify',
  '<path d="M12 3l8 3v6c0 4.5-3.2 7.6-8 9-4.800-1.400-8-4.500-8-9V6zM8.500 12l2.500 2.500 4.500-5"/>'
);
export const repairIcon = tool(
  'repair',
  '<path d="M14.500 6.500a4 4 0 0 1 5-3.900l-2.400 2.500 1.700 1.700 2.500-2.400a4 4 0 0 1-5.200 4.900L7.500 18a2 2 0 0 1-2.800-2.800l8.700-8.600"/>'
);
export const cleanIcon = tool('clean-up', '<path d="M14.500 3l-4 8M7 11h8l2 10H4zM8.500 16v5M12.500 16v5"/>');

const OF_STATE: Readonly<Record<RunState, LabIcon>> = {
  queued: clock,
  preparing: dots,
  running: arc,
  succeeded: check,
  failed: cross,
  timed_out: hourglass,
  cancelled: bar,
  killed: stopped,
  kernel_died: chip,
  lost: question
};

export function stateIcon(state: RunState): LabIcon {
  return OF_STATE[state] ?? question;
}

const OF_TONE: Readonly<Record<Tone, LabIcon>> = {
  quiet: ring,
  busy: arc,
  good: check,
  warn: triangle,
  bad: triangle
};

/** The icon of the agent's own state. */
export function toneIcon(tone: Tone): LabIcon {
  return OF_TONE[tone];
}
