/**
 * Parameters as they are typed: a line each, `name = value`.
 */

export interface IParameters {
  /** The values as text: YAML scalars, which the agent reads. */
  readonly values: Readonly<Record<string, string>>;
  /** Line numbers (from 1) that are not of the form. */
  readonly wrong: readonly number[];
}

/** Read the lines; empty ones and those that begin with `#` are passed over. A name given twice: the last counts. */
export function parseParameters(text: string): IParameters {
  const values = new Map<string, string>();
  const wrong: number[] = [];
  text.split(/\r?\n/).forEach((line, index) => {
    if (!line.trim() || line.trim().startsWith('#')) {
      return;
    }
    const match = /^\s*([\p{L}_][\p{L}\p{N}_.-]*)\s*=\s*(.*?)\s*$/u.exec(line);
    const [, name, given] = match ?? [];
    if (name === undefined || given === undefined) {
      wrong.push(index + 1);
    } else {
      values.set(name, given);
    }
  });
  return { values: Object.fromEntries(values), wrong };
}
