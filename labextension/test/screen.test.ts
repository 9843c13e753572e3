import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import type { ILine } from '../src/screen';
import { LINE_LIMIT, Screen } from '../src/screen';
import type { IChunk, Stream } from '../src/shapes';

function chunk(text: string, stream: Stream = 'stdout'): IChunk {
  return { stream, time: 1, text };
}

/** The lines after all chunks, each as `stream|text`. */
function lines(...chunks: IChunk[]): string[] {
  return [...all(...chunks).values()].map(line => `${line.stream}|${line.spans.map(span => span.text).join('')}`);
}

function all(...chunks: IChunk[]): Map<number, ILine> {
  const screen = new Screen();
  const known = new Map<number, ILine>();
  for (const it of chunks) {
    for (const line of screen.write(it)) {
      known.set(line.key, line);
    }
  }
  return known;
}

function styles(text: string): [string, string][] {
  const [line] = all(chunk(text)).values();
  return (line?.spans ?? []).map(span => [
    span.text,
    [span.style.classes, span.style.color, span.style.background].filter(Boolean).join(' ')
  ]);
}

void describe('the screen', () => {
  void it('makes lines, whatever the cuts between chunks', () => {
    const text = 'one\r\ntwo\n\nthree';
    const expected = ['stdout|one', 'stdout|two', 'stdout|', 'stdout|three'];
    assert.deepEqual(lines(chunk(text)), expected);
    assert.deepEqual(lines(...[...text].map(letter => chunk(letter))), expected);
  });

  void it('lets a progress bar overwrite itself', () => {
    assert.deepEqual(lines(chunk('  1%\r 50%'), chunk('\r100%\n')), ['stdout|100%']);
    assert.deepEqual(lines(chunk('long text\rshort')), ['stdout|shorttext']);
    assert.deepEqual(lines(chunk('long text\r\x1b[Kshort')), ['stdout|short']);
    assert.deepEqual(lines(chunk('long text\x1b[2K\rx')), ['stdout|x']);
    assert.deepEqual(lines(chunk('abc\b\bX\n')), ['stdout|aXc']);
  });

  void it('keeps the lines of two streams apart', () => {
    const got = lines(chunk('10%', 'stderr'), chunk('print\n'), chunk('\r20%', 'stderr'), chunk('more'));
    assert.deepEqual(got, ['stderr|20%', 'stdout|print', 'stdout|more']);
  });

  void it('returns only what a chunk began or changed, in order', () => {
    const screen = new Screen();
    screen.write(chunk('a\nb'));
    assert.deepEqual(
      screen.write(chunk('c\nd')).map(line => [line.key, line.spans.map(span => span.text).join('')]),
      [
        [1, 'bc'],
        [2, 'd']
      ]
    );
    assert.deepEqual(screen.write(chunk('')), []);
  });

  void it('shows a gap as a line of its own and begins anew after it', () => {
    const screen = new Screen();
    screen.write(chunk('cut off he'));
    const [gap] = screen.write({ stream: 'agent', time: 2, text: '… 9 bytes dropped …', gap: 9 });
    assert.equal(gap?.gap, 9);
    const [after] = screen.write(chunk('re'));
    assert.equal(after?.spans[0]?.text, 're');
  });

  void it('colours text by classes and drops what it does not know', () => {
    assert.deepEqual(styles('\x1b[31mred\x1b[0m plain'), [
      ['red', 'ansi-red-fg'],
      [' plain', '']
    ]);
    assert.deepEqual(styles('\x1b[1;4;92;44mx'), [
      ['x', 'ansi-green-intense-fg ansi-blue-bg ansi-bold ansi-underline']
    ]);
    assert.deepEqual(styles('\x1b[7mx'), [['x', 'ansi-default-inverse-fg ansi-default-inverse-bg']]);
    assert.deepEqual(styles('\x1b[38;5;196mx'), [['x', 'rgb(255, 0, 0)']]);
    assert.deepEqual(styles('\x1b[38;2;1;2;3;48;5;2mx'), [['x', 'ansi-green-bg rgb(1, 2, 3)']]);
    assert.deepEqual(styles('a\x1b[2Jb\x1b]0;title\x07c\x1b]8;;http://x\x1b\\d\x1b(B'), [['abcd', '']]);
    assert.deepEqual(styles('\x1b[39;49;999mx'), [['x', '']]);
  });

  void it('puts control sequences together that were cut', () => {
    const pieces = ['a\x1b', '[3', '1mred\x1b[', '0mb', '\r', '\nnext'];
    assert.deepEqual(lines(...pieces.map(piece => chunk(piece))), ['stdout|aredb', 'stdout|next']);
  });

  void it('does not hold back text behind a sequence that never ends', () => {
    const got = lines(chunk(`\x1b]0;${'x'.repeat(5000)}`), chunk('\nnext'));
    assert.equal(got.at(-1), 'stdout|next');
  });

  void it('keeps the beginning of a line that is too long and tells of the rest', () => {
    const [line] = lines(chunk('y'.repeat(LINE_LIMIT)), chunk('z'.repeat(50)), chunk('\n'));
    assert.equal(line, `stdout|${'y'.repeat(LINE_LIMIT)} … 50 more characters`);
  });
});
