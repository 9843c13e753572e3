/**
 * What a notebook file holds, brought into the one form in which it is shown.
 *
 * Files store long texts as lists of lines; here a text is a string. What is not of the format is left out rather
 * than an error: a file that was written after a crash should still show what it has.
 */

type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };
type JsonObject = { readonly [name: string]: Json };

export interface ICell {
  readonly kind: 'code' | 'markdown' | 'raw';
  readonly source: string;
  readonly count: number | null;
  /** As nbformat 4 has them, texts joined. */
  readonly outputs: readonly JsonObject[];
  /** Name to MIME bundle, texts joined. */
  readonly attachments: Readonly<Record<string, JsonObject>>;
  readonly tags: readonly string[];
  /** One of the outputs is an error. */
  readonly failed: boolean;
}

export interface INotebook {
  /** The name by which the language's highlighter is found, such as `python`. */
  readonly language: string;
  readonly cells: readonly ICell[];
}

/** Read a notebook; `null` for what is none (nbformat 4). */
export function readNotebook(file: unknown): INotebook | null {
  if (!isObject(file) || !Array.isArray(file['cells'])) {
    return null;
  }
  const metadata = object(file['metadata']);
  const info = object(metadata['language_info']);
  const kernel = object(metadata['kernelspec']);
  return {
    language: text(info['name']) || text(kernel['language']),
    cells: file['cells'].filter(isObject).map(readCell)
  };
}

function readCell(cell: JsonObject): ICell {
  const kind = cell['cell_type'];
  const outputs = Array.isArray(cell['outputs']) ? cell['outputs'].filter(isObject).map(readOutput) : [];
  const attachments = Object.entries(object(cell['attachments'])).map(
    ([name, bundle]) => [name, readBundle(object(bundle))] as const
  );
  const tags = object(cell['metadata'])['tags'];
  return {
    kind: kind === 'code' || kind === 'markdown' ? kind : 'raw',
    source: joined(cell['source']),
    count: typeof cell['execution_count'] === 'number' ? cell['execution_count'] : null,
    outputs,
    attachments: Object.fromEntries(attachments),
    tags: Array.isArray(tags) ? tags.filter(tag => typeof tag === 'string') : [],
    failed: outputs.some(output => output['output_type'] === 'error')
  };
}

function readOutput(output: JsonObject): JsonObject {
  if (output['output_type'] === 'stream') {
    return { ...output, text: joined(output['text']) };
  }
  return 'data' in output ? { ...output, data: readBundle(object(output['data'])) } : output;
}

/** JSON types keep their lists; all others are texts. */
function readBundle(bundle: JsonObject): JsonObject {
  const entries = Object.entries(bundle).map(([type, data]) => [type, isJsonType(type) ? data : joined(data)] as const);
  return Object.fromEntries(entries);
}

function isJsonType(type: string): boolean {
  return type === 'application/json' || type.endsWith('+json');
}

function joined(given: Json | undefined): string {
  return Array.isArray(given) ? given.map(text).join('') : text(given);
}

function text(given: Json | undefined): string {
  return typeof given === 'string' ? given : '';
}

function object(given: Json | undefined): JsonObject {
  return isObject(given) ? given : {};
}

function isObject(given: unknown): given is JsonObject {
  return typeof given === 'object' && given !== null && !Array.isArray(given);
}

/** Code as a Markdown block that Lab's renderer colours. The fence is longer than any run of backticks inside. */
export function fenced(code: string, language: string): string {
  const longest = Math.max(2, ...(code.match(/`+/g) ?? []).map(run => run.length));
  const fence = '`'.repeat(longest + 1);
  return `${fence}${language.replace(/[^\w+#.-]/g, '')}\n${code}\n${fence}`;
}
