/**
 * Parameters as they are typed: rows of a name and a value.
 */

export interface IRow {
  readonly name: string;
  readonly value: string;
}

export interface IParameters {
  /** The values as text: YAML scalars, which the agent reads. */
  readonly values: Readonly<Record<string, string>>;
  /** Names that are none, or that were given twice; a value without a name stands here as the empty text. */
  readonly wrong: readonly string[];
}

const NAME = /^[\p{L}_][\p{L}\p{N}_.-]*$/u;

/** What the rows say; empty ones are passed over. */
export function readParameters(rows: readonly IRow[]): IParameters {
  const values = new Map<string, string>();
  const wrong: string[] = [];
  for (const row of rows) {
    const name = row.name.trim();
    if (!name && !row.value.trim()) {
      continue;
    }
    if (!NAME.test(name) || values.has(name)) {
      wrong.push(name);
    } else {
      values.set(name, row.value.trim());
    }
  }
  return { values: Object.fromEntries(values), wrong };
}
