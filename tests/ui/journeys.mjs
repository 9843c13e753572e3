// What a user does and sees. Each journey is started by name from test_page.py.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

import { agentIs, api, ask, openLab, openPanel, runIs, runPackage, travel } from './page.mjs';

/** Runs of a package that has an environment to make. */
const LONG = { timeout: 240_000 };

const journeys = {
  /** The demo package from the panel to its plot, its results, its report; then the page is loaded again. */
  async demo(page) {
    await agentIs(page, 'Not running');
    await openPanel(page);
    await agentIs(page, 'Connected');
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await page.locator('.jp-agent-StatusItem', { hasText: '1 run' }).waitFor();
    await page.locator('.jp-agent-Run [role=progressbar][aria-valuetext*="cell"]').waitFor(LONG);
    await runIs(view, 'Succeeded', LONG);
    await seePlot(view);
    assert.ok((await view.locator('.jp-agent-Results tr').count()) > 0, 'results are shown');
    await page.locator('.jp-agent-Run[data-state=succeeded]').waitFor();
    await agentIs(page, 'Connected');

    const [report] = await Promise.all([
      page.context().waitForEvent('page'),
      page.getByRole('button', { name: 'HTML report' }).click()
    ]);
    await report.locator('img').first().waitFor();
    await report.close();

    const [download] = await Promise.all([
      page.waitForEvent('download'),
      view.getByRole('link', { name: 'output.ipynb' }).click()
    ]);
    assert.equal(JSON.parse(await readFile(await download.path())).nbformat, 4);

    await openLab(page, { reset: false });
    await seePlot(page.locator('.jp-agent-RunView'));
  },

  /** A run is cancelled from the panel. */
  async cancel(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await view.locator('.jp-agent-Console-line', { hasText: 'tick 3' }).waitFor();
    await page.getByRole('button', { name: `Cancel ${name}` }).click();
    await runIs(view, 'Cancelled');
    await page.locator('.jp-agent-Run[data-state=cancelled]').waitFor();
    assert.equal(await page.locator('.jp-agent-Run').getByRole('button', { name: 'Cancel' }).count(), 0);
    assert.match(await view.locator('.jp-agent-Trouble').textContent(), /cancel/i);
  },

  /** The agent is killed: the page says so, and goes on with the next one without being loaded again. */
  async killed(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await view.locator('.jp-agent-Console-line', { hasText: 'tick 1' }).waitFor();
    await ask('kill');
    await agentIs(page, 'Not running');
    await runIs(view, 'Out of contact');
    await page.getByRole('button', { name: 'Start agent' }).click();
    await agentIs(page, 'Connected');
    await runIs(view, 'Lost');
    assert.ok((await view.locator('.jp-agent-Trouble').textContent()).length > 10, 'why it was lost is said');
    const next = await runPackage(page, name);
    await next.locator('.jp-agent-Console-line', { hasText: 'tick 1' }).waitFor();
    await page.locator('.jp-agent-Run[data-state=running]').waitFor();
  },

  /** Jupyter is restarted: the run goes on, and the page follows it again without being loaded again. */
  async restarted(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await view.locator('.jp-agent-Console-line', { hasText: 'tick 1' }).waitFor();
    await ask('stop');
    await agentIs(page, 'No connection');
    const before = await view.locator('.jp-agent-Console-line').count();
    await ask('start');
    await agentIs(page, '1 run');
    await runIs(view, 'Running');
    await view.locator('.jp-agent-Console-line').nth(before + 20).waitFor();
    const lines = await view.locator('.jp-agent-Console-line[data-stream=stdout]').allTextContents();
    assert.deepEqual(
      lines,
      lines.map((_, index) => `tick ${index}`),
      'every line once, in order'
    );
  },

  /** From nothing: the empty panel says what to do, packages appear by themselves, an error is said in words. */
  async failure(page) {
    await openPanel(page);
    await page.locator('.jp-agent-Empty', { hasText: 'jupyter agent demo' }).waitFor();
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await runIs(view, 'Failed');
    assert.match(await view.locator('.jp-agent-Trouble').textContent(), /no such column/);
    await view.locator('.jp-agent-Console-line[data-stream=stderr]', { hasText: 'ValueError' }).waitFor();
    await page.locator('.jp-agent-Run[data-state=failed]', { hasText: 'no such column' }).waitFor();
  },

  /** Parameters are typed; a line that is none is refused before anything runs. */
  async parameters(page) {
    await openPanel(page);
    const name = await ask('publish');
    await page.locator('.jp-agent-Item', { hasText: name }).hover();
    await page.getByRole('button', { name: `Run ${name} with parameters` }).click();
    await page.locator('.jp-Dialog textarea').fill('level = 3\nnonsense');
    await page.locator('.jp-agent-Parameters-complaint', { hasText: 'Line 2' }).waitFor();
    assert.equal(await page.locator('.jp-Dialog button.jp-mod-accept').isDisabled(), true);
    await page.locator('.jp-Dialog textarea').fill('level = 3\nregion = "the north"');
    await page.locator('.jp-Dialog textarea').press('Control+Enter');
    const view = page.locator('.jp-agent-RunView:visible');
    await runIs(view, 'Succeeded');
    await view.locator('.jp-agent-Console-line', { hasText: "level=3 region='the north'" }).waitFor();
    await view.locator('.jp-agent-Facts', { hasText: 'level = 3' }).waitFor();
  },

  /** Much output: the end is followed, the page stays small, and somebody who reads further up is left in peace. */
  async flood(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    const lines = view.locator('.jp-agent-Console-line');
    await view.locator('.jp-agent-Console-line', { hasText: 'line 59999' }).waitFor();
    assert.ok((await lines.count()) < 6000, 'what is far above is taken out of the page');
    await view.locator('.jp-agent-Console-note', { hasText: 'earlier lines' }).waitFor();
    const scroller = view.locator('.jp-agent-Console-scroller');
    const toEnd = () => scroller.evaluate(it => it.scrollHeight - it.scrollTop - it.clientHeight);
    assert.ok((await toEnd()) < 30, 'the end is in view');
    await scroller.evaluate(it => (it.scrollTop -= 2000));
    await view.getByRole('button', { name: 'Follow the end' }).waitFor();
    await ask('go on');
    await view.locator('.jp-agent-Console-line', { hasText: 'the very end' }).waitFor({ state: 'attached' });
    assert.ok((await toEnd()) > 1000, 'the reader is not carried away');
    await view.getByRole('button', { name: 'Follow the end' }).click();
    assert.ok((await toEnd()) < 30);
    await runIs(view, 'Succeeded');
  },

  /** Without a mouse: palette, panel, list, tabs; and what a screen reader is told. */
  async keyboard(page) {
    await page.keyboard.press('Control+Shift+C');
    await page.locator('.lm-CommandPalette-input:visible').fill('Show the Agent Panel');
    await page.keyboard.press('Enter');
    await agentIs(page, 'Connected');
    const name = await ask('publish');
    await page.getByRole('button', { name: `Run ${name}`, exact: true }).focus();
    await page.keyboard.press('Enter');
    const view = page.locator('.jp-agent-RunView:visible');
    await runIs(view, 'Succeeded');
    await page.locator('.jp-agent-Run .jp-agent-Item-open').first().focus();
    await page.keyboard.press('Enter');
    await view.getByRole('tab', { name: 'Console' }).waitFor();
    assert.equal(await view.getByRole('tab', { name: 'Console' }).getAttribute('aria-selected'), 'true');
    await page.getByRole('status').filter({ hasText: 'Connected' }).first().waitFor();
    await view.getByRole('status').filter({ hasText: 'Succeeded' }).waitFor();
    await view.getByRole('log').waitFor();
    const runs = await api(page, 'runs');
    assert.equal(runs.runs.length, 1, 'opening a run does not start another');
  }
};

/** The plot is in the view, and it is a picture that was loaded, not the mark of a broken one. */
async function seePlot(view) {
  const plot = view.locator('.jp-agent-Notebook .jp-RenderedImage img').first();
  await plot.waitFor(LONG);
  await plot.scrollIntoViewIfNeeded();
  assert.ok((await plot.evaluate(image => image.naturalWidth)) > 100, 'the plot is a picture');
}

const journey = journeys[process.argv[2]];
assert.ok(journey, `There is no journey ${process.argv[2]}.`);
await travel(journey);
