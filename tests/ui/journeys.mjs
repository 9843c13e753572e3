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
    await page.locator('.jp-agent-Empty', { hasText: 'jupyter agent demo' }).waitFor();
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await agentIs(page, '1 run');
    await page.locator('.jp-agent-Run [role=progressbar][aria-valuetext*="cell"]').waitFor(LONG);
    await runIs(view, 'Succeeded', LONG);
    await seePlot(view);
    assert.ok((await view.locator('.jp-agent-Results tr').count()) > 0, 'results are shown');
    await row(page, name, 'succeeded').waitFor();
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
    await line(view, 'tick 3').waitFor();
    await page.getByRole('button', { name: `Cancel ${name}` }).click();
    await runIs(view, 'Cancelled');
    await row(page, name, 'cancelled').waitFor();
    assert.equal(await page.getByRole('button', { name: `Cancel ${name}` }).count(), 0);
    assert.match(await view.locator('.jp-agent-Trouble').textContent(), /cancel/i);
  },

  /** The agent is killed: the page says so, and goes on with the next one without being loaded again. */
  async killed(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await line(view, 'tick 1').waitFor();
    await ask('kill');
    await agentIs(page, 'Not running');
    await runIs(view, 'Out of contact');
    await page.getByRole('button', { name: 'Start agent' }).click();
    await agentIs(page, 'Connected');
    await runIs(view, 'Lost');
    assert.ok((await view.locator('.jp-agent-Trouble').textContent()).length > 10, 'why it was lost is said');
    const next = await runPackage(page, name);
    await line(next, 'tick 1').waitFor();
    await row(page, name, 'running').waitFor();
  },

  /** Jupyter is restarted: the run goes on, and the page follows it again without being loaded again. */
  async restarted(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await line(view, 'tick 1').waitFor();
    await ask('stop');
    await agentIs(page, 'No connection');
    const before = await view.locator('.jp-agent-Console-line').count();
    await ask('start');
    await agentIs(page, '1 run');
    await runIs(view, 'Running');
    await view.locator('.jp-agent-Console-line').nth(before + 20).waitFor();
    // Of the last line only a part may have come yet.
    const lines = (await view.locator('.jp-agent-Console-line[data-stream=stdout]').allTextContents()).slice(0, -1);
    const wrong = lines.findIndex((text, index) => text !== `tick ${index}`);
    assert.equal(wrong, -1, `every line once, in order: ${lines.slice(Math.max(0, wrong - 3), wrong + 4).join(' | ')}`);
  },

  /** An error is said in words, in the view and in the list. */
  async failure(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    await runIs(view, 'Failed');
    assert.match(await view.locator('.jp-agent-Trouble').textContent(), /no such column/);
    await line(view, 'ValueError', '[data-stream=stderr]').waitFor();
    await row(page, name, 'failed').filter({ hasText: 'no such column' }).waitFor();
  },

  /** Parameters are typed; a name that is none is refused before anything runs; the next time they are there again. */
  async parameters(page) {
    await openPanel(page);
    const name = await ask('publish');
    const open = async () => {
      await page.locator('.jp-agent-Item', { hasText: name }).first().hover();
      await page.getByRole('button', { name: `Run ${name} with parameters` }).click();
    };
    await open();
    const cell = (row, label) => page.locator('.jp-Dialog').getByLabel(label).nth(row);
    await cell(0, 'Parameter').fill('level');
    await cell(0, 'Value').fill('3');
    await cell(1, 'Parameter').fill('re gion');
    await page.locator('.jp-agent-Parameters-complaint', { hasText: 're gion' }).waitFor();
    assert.equal(await page.locator('.jp-Dialog button.jp-mod-accept').isDisabled(), true);
    await cell(1, 'Parameter').fill('region');
    await cell(1, 'Value').fill('"the north"');
    await cell(1, 'Value').press('Enter');
    const view = page.locator('.jp-agent-RunView:visible');
    await runIs(view, 'Succeeded');
    await line(view, "level=3 region='the north'").waitFor();
    await view.locator('.jp-agent-Facts', { hasText: 'level = 3' }).waitFor();
    await open();
    assert.equal(await cell(1, 'Value').inputValue(), '"the north"');
    await page.keyboard.press('Escape');
    await page.locator('.jp-Dialog').waitFor({ state: 'detached' });
  },

  /** Much output: the end is followed, the page stays small, and somebody who reads further up is left in peace. */
  async flood(page) {
    await openPanel(page);
    const name = await ask('publish');
    const view = await runPackage(page, name);
    const lines = view.locator('.jp-agent-Console-line');
    await line(view, 'line 59999').waitFor();
    assert.ok((await lines.count()) < 6000, 'what is far above is taken out of the page');
    await view.locator('.jp-agent-Console-note', { hasText: 'earlier lines' }).waitFor();
    const scroller = view.locator('.jp-agent-Console-scroller');
    const toEnd = () => scroller.evaluate(it => it.scrollHeight - it.scrollTop - it.clientHeight);
    assert.ok((await toEnd()) < 30, 'the end is in view');
    await scroller.evaluate(it => (it.scrollTop -= 2000));
    await view.getByRole('button', { name: 'Follow the end' }).waitFor();
    await ask('go on');
    await line(view, 'the very end').waitFor({ state: 'attached' });
    assert.ok((await toEnd()) > 1000, 'the reader is not carried away');
    await view.getByRole('button', { name: 'Follow the end' }).click();
    assert.ok((await toEnd()) < 30);
    await runIs(view, 'Succeeded');
  },

  /** Without a mouse: palette, panel, list, tabs; and what a screen reader is told. */
  async keyboard(page) {
    const palette = page.locator('.lm-CommandPalette-input:visible');
    while (!(await palette.isVisible())) {
      // JupyterLab reads its shortcuts after it shows itself.
      await page.keyboard.press('Control+Shift+C');
      await palette.waitFor({ timeout: 1000 }).catch(() => undefined);
    }
    await palette.fill('Show the Agent Panel');
    await page.keyboard.press('Enter');
    await agentIs(page, 'Connected');
    const name = await ask('publish');
    await page.getByRole('button', { name: `Run ${name}`, exact: true }).focus();
    await page.keyboard.press('Enter');
    const view = page.locator('.jp-agent-RunView:visible');
    await runIs(view, 'Succeeded');
    await row(page, name, 'succeeded').locator('.jp-agent-Item-open').focus();
    await page.keyboard.press('Enter');
    await view.getByRole('tab', { name: 'Console' }).waitFor();
    assert.equal(await view.getByRole('tab', { name: 'Console' }).getAttribute('aria-selected'), 'true');
    await page.getByRole('status').filter({ hasText: 'Connected' }).first().waitFor();
    await view.getByRole('status').filter({ hasText: 'Succeeded' }).waitFor();
    await view.getByRole('log').waitFor();
    const { runs } = await api(page, 'runs');
    assert.equal(runs.filter(run => run.package === name).length, 1, 'opening a run does not start another');
  }
};

/** A run in the panel's list. */
function row(page, name, state) {
  return page.locator(`.jp-agent-Run[data-state=${state}]`, { hasText: name });
}

/** The first line of the console with this text. */
function line(view, text, kind = '') {
  return view.locator(`.jp-agent-Console-line${kind}`, { hasText: text }).first();
}

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
