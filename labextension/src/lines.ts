/**
 * JSON lines as they come in pieces over the network.
 */

/** Puts pieces of text together to lines; what follows the last line's end waits for more. */
export class Lines {
  /** The lines that are whole with this piece, without their ends. */
  push(piece: string): string[] {
    const parts = (this._rest + piece).split('\n');
    this._rest = parts.pop() ?? '';
    return parts;
  }

  private _rest = '';
}

/**
 * The objects in a stream of JSON lines. Empty lines are heartbeats and passed over; a half line at the end is dropped,
 * for the other side went away in the midst of it. Rejects with `SyntaxError` when a line is no JSON.
 */
export async function* jsonLines(body: ReadableStream<Uint8Array>): AsyncGenerator<unknown, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const lines = new Lines();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      for (const line of lines.push(decoder.decode(value, { stream: true }))) {
        if (line.trim()) {
          yield JSON.parse(line) as unknown;
        }
      }
    }
  } finally {
    // Also when who follows has seen enough: the other side is to stop writing.
    await reader.cancel().catch(() => undefined);
  }
}
