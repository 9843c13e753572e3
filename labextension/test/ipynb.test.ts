import assert from 'node:assert/strict';
import { describe, it } from 'node:test';

import { fenced, readNotebook } from '../src/ipynb';

void describe('a notebook file', () => {
  void it('is read with its texts joined', () => {
    const notebook = readNotebook({
      nbformat: 4,
      metadata: { kernelspec: { language: 'R' } },
      cells: [
        {
          cell_type: 'code',
          source: ['a\n', 'b'],
          execution_count: 3,
          metadata: { tags: ['injected-parameters', 1] },
          outputs: [
            { output_type: 'stream', name: 'stdout', text: ['one\n', 'two'] },
            { output_type: 'display_data', data: { 'text/html': ['<b>', '</b>'], 'application/x+json': [1, 2] } },
            { output_type: 'error', ename: 'E', evalue: '', traceback: ['l1', 'l2'] }
          ]
        },
        {
          cell_type: 'markdown',
          source: '![x](attachment:x.png)',
          attachments: { 'x.png': { 'image/png': ['AA', 'BB'] } }
        }
      ]
    });
    assert.equal(notebook?.language, 'R');
    const [code, text] = notebook.cells;
    assert.equal(code?.source, 'a\nb');
    assert.equal(code.count, 3);
    assert.deepEqual(code.tags, ['injected-parameters']);
    assert.equal(code.failed, true);
    assert.equal(code.outputs[0]?.['text'], 'one\ntwo');
    assert.deepEqual(code.outputs[1]?.['data'], { 'text/html': '<b></b>', 'application/x+json': [1, 2] });
    assert.deepEqual(text?.attachments, { 'x.png': { 'image/png': 'AABB' } });
  });

  void it('that is broken shows what it has', () => {
    assert.equal(readNotebook(null), null);
    assert.equal(readNotebook({ worksheets: [] }), null);
    assert.deepEqual(readNotebook({ cells: [null, {}, { cell_type: 'code', outputs: 'x' }] })?.cells.length, 2);
  });

  void it('shows code that has fences in it', () => {
    assert.equal(fenced('x', 'python'), '```python\nx\n```');
    assert.equal(fenced('"""\n```\n"""', 'python\n<b>'), '````pythonb\n"""\n```\n"""\n````');
  });
});
