/**
 * Colours and weights of terminal text: "select graphic rendition" codes to Lab's CSS classes.
 */

/** CSS classes of Lab's rendered text, such as `ansi-red-fg ansi-bold`, and colours that have no class. */
export interface IStyle {
  readonly classes: string;
  readonly color?: string;
  readonly background?: string;
}

export const PLAIN: IStyle = { classes: '' };

/** What the codes seen so far add up to. */
export interface IStyleState {
  readonly bold?: boolean;
  readonly underline?: boolean;
  readonly inverse?: boolean;
  /** 0-15: the named colours; a string: CSS. */
  readonly foreground?: number | string;
  readonly background?: number | string;
}

const NAMES = ['black', 'red', 'green', 'yellow', 'blue', 'magenta', 'cyan', 'white'] as const;

/** The state after a "select graphic rendition" with these `;`-separated codes (ECMA-48 §8.3.117). */
export function restyled(state: IStyleState, parameters: string): IStyleState {
  const codes = parameters.split(/[;:]/).map(code => Number.parseInt(code || '0', 10));
  let next = state;
  for (let index = 0; index < codes.length; index++) {
    const code = codes[index] ?? 0;
    if (code === 38 || code === 48) {
      const [color, used] = extended(codes.slice(index + 1));
      index += used;
      if (color !== undefined) {
        next = code === 38 ? { ...next, foreground: color } : { ...next, background: color };
      }
    } else {
      next = simple(next, code);
    }
  }
  return next;
}

function simple(state: IStyleState, code: number): IStyleState {
  const { foreground: _, ...noForeground } = state;
  const { background: __, ...noBackground } = state;
  switch (code) {
    case 0:
      return {};
    case 1:
      return { ...state, bold: true };
    case 22:
      return { ...state, bold: false };
    case 4:
      return { ...state, underline: true };
    case 24:
      return { ...state, underline: false };
    case 7:
      return { ...state, inverse: true };
    case 27:
      return { ...state, inverse: false };
    case 39:
      return noForeground;
    case 49:
      return noBackground;
  }
  if (code >= 30 && code <= 37) {
    return { ...state, foreground: code - 30 };
  }
  if (code >= 40 && code <= 47) {
    return { ...state, background: code - 40 };
  }
  if (code >= 90 && code <= 97) {
    return { ...state, foreground: code - 90 + 8 };
  }
  if (code >= 100 && code <= 107) {
    return { ...state, background: code - 100 + 8 };
  }
  return state;
}

/** The colour after 38 or 48 (`5;n` or `2;r;g;b`), and how many codes it took. */
function extended(codes: readonly number[]): [number | string | undefined, number] {
  const [kind, first, second, third] = codes;
  if (kind === 5 && first !== undefined) {
    return [indexed(first), 2];
  }
  if (kind === 2 && first !== undefined && second !== undefined && third !== undefined) {
    return [rgb(first, second, third), 4];
  }
  return [undefined, codes.length];
}

/** xterm's palette: 16 named colours, a cube of 6 x 6 x 6, 24 greys. */
function indexed(index: number): number | string | undefined {
  if (index < 0 || index > 255) {
    return undefined;
  }
  if (index < 16) {
    return index;
  }
  if (index >= 232) {
    const grey = 8 + 10 * (index - 232);
    return rgb(grey, grey, grey);
  }
  const level = (part: number): number => (part === 0 ? 0 : 55 + 40 * part);
  const cube = index - 16;
  return rgb(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

function rgb(red: number, green: number, blue: number): string {
  const clamp = (part: number): number => Math.min(255, Math.max(0, part));
  return `rgb(${clamp(red)}, ${clamp(green)}, ${clamp(blue)})`;
}

/** How a state is shown: Lab's classes, and CSS colours where there is no class. */
export function styleOf(state: IStyleState): IStyle {
  const classes: string[] = [];
  const style: { classes: string; color?: string; background?: string } = { classes: '' };
  const foreground = state.inverse ? (state.background ?? 'inverse') : state.foreground;
  const background = state.inverse ? (state.foreground ?? 'inverse') : state.background;
  if (typeof foreground === 'number') {
    classes.push(`ansi-${named(foreground)}-fg`);
  } else if (foreground === 'inverse') {
    classes.push('ansi-default-inverse-fg');
  } else if (foreground !== undefined) {
    style.color = foreground;
  }
  if (typeof background === 'number') {
    classes.push(`ansi-${named(background)}-bg`);
  } else if (background === 'inverse') {
    classes.push('ansi-default-inverse-bg');
  } else if (background !== undefined) {
    style.background = background;
  }
  if (state.bold) {
    classes.push('ansi-bold');
  }
  if (state.underline) {
    classes.push('ansi-underline');
  }
  style.classes = classes.join(' ');
  return style;
}

function named(color: number): string {
  return color < 8 ? `${NAMES[color]}` : `${NAMES[color - 8]}-intense`;
}
