// What a user does and sees. Each journey is started by name from test_page.py.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

import { journeys as ofEnvironments } from './environments.mjs';
import { agentIs, api, ask, openLab, openPanel, runIs, runPackage, travel } from './page.mjs';

/** Runs of a package that has an environment to make. */
const LONG = { timeout: 240_000 };

/** So often an agent that is unfolded is asked what runs there. */
const OTHERS_ASKED_MS = 5500;

const journeys = {
  /** The demo package from the panel to its plot, its results, its report; then the page is loaded again. */
  async demo(page) {
    await agentIs(page, 'Not running');
    await openPanel(page);
    await agentIs(page, 'Connected');
    await page.locator('.jp-agent-Empty', { hasText: 'jupyter agent demo' }).waitFor();
    const name = await ask('publish');
    const first = await runPackage(page, name);
    await agentIs(page, '1 run');
    const cells = page.locator('.jp-agent-Run [role=progressbar][aria-valuetext*="cell"]');
    const offer = first.getByRole('button', { name: 'Make it from PyPI instead' });
    await cells.or(offer).first().waitFor(LONG);
    if (await offer.isVisible()) {
      // Where no conda channel can be reached.
      await offer.click();
    }
    await cells.waitFor(LONG);
    const view = page.locator('.jp-agent-RunView:visible');
    await runIs(view, 'Succeeded', LONG);
    await seePlot(view);
    assert.ok((await view.locator('.jp-agent-Results tr').count()) > 0, 'results are shown');
    await row(page, name, 'succeeded').waitFor();
    await view.locator('.jp-agent-Facts .jp-agent-Link').waitFor();
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
    await seePlot(page.locator('.jp-agent-RunView:visible'));
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

/** A package runs on another agent: chosen, followed live, cancelled there, prepared there; without loading the page. */
journeys.others = async page => {
  await openPanel(page);
  const name = await ask('publish');
  const other = page.locator(`.jp-agent-Other[data-agent="${await ask('slug')}"]`);
  await other.locator('.jp-agent-Mark', { hasText: 'Online' }).waitFor();
  assert.equal(await page.locator('.jp-agent-Other').count(), 1, 'this agent is not one of the others');

  await page.locator('.jp-agent-Item[data-package]', { hasText: name }).waitFor();

  // By the keyboard: unfold it, open its menu, choose.
  const fold = other.locator('.jp-agent-Item-open').first();
  await fold.focus();
  await page.keyboard.press('Enter');
  await other.locator('.jp-agent-Empty', { hasText: 'Nothing runs there' }).waitFor();
  assert.equal(await fold.getAttribute('aria-expanded'), 'true');
  await page.keyboard.press('Shift+F10');
  await page.locator('.lm-Menu-item', { hasText: 'Run a Package on' }).waitFor();
  await page.keyboard.press('Escape');
  await page.locator('.lm-Menu').waitFor({ state: 'detached' });
  assert.ok(await fold.evaluate(it => it === document.activeElement), 'the focus is where it was');

  const run = async () => {
    await other.getByRole('button', { name: 'Run a package on' }).click();
    await page.locator('.jp-Dialog select').selectOption({ label: `${name} 1.0.0` });
    await page.keyboard.press('Enter');
    await page.locator('.jp-Dialog', { hasText: `Run ${name} on` }).locator('.jp-mod-accept').click();
    const view = page.locator('.jp-agent-RunView:visible');
    await line(view, 'tick 3').waitFor(LONG);
    return view;
  };
  const view = await run();
  await runIs(view, 'Running');
  assert.match(await view.locator('.jp-agent-Facts').textContent(), new RegExp(await ask('slug')));
  await other.locator('.jp-agent-Run', { hasText: name }).waitFor();
  await page.getByRole('button', { name: `Cancel ${name} on` }).click();
  await runIs(view, 'Cancelled');
  await other.locator('.jp-agent-Empty', { hasText: 'Nothing runs there' }).waitFor();
  assert.equal(await page.getByRole('button', { name: 'Cancel', exact: true }).isDisabled(), true);
  const lines = await view.locator('.jp-agent-Console-line').allTextContents();
  const ticks = lines.filter(text => text.startsWith('tick'));
  assert.deepEqual(ticks.slice(0, -1), ticks.slice(0, -1).map((_, index) => `tick ${index}`), 'each line once, in order');

  // Everything there is cancelled, after a question.
  const second = await run();
  await menu(page, fold, 'Cancel All Runs on');
  await page.locator('.jp-Dialog', { hasText: 'whoever started it' }).locator('.jp-mod-warn').click();
  await runIs(second, 'Cancelled');

  await menu(page, fold, 'Prepare a Package on');
  await page.locator('.jp-Dialog select').selectOption({ label: `${name} 1.0.0` });
  await page.keyboard.press('Enter');
  const prepared = page.locator('.jp-agent-RunView:visible', { hasText: 'preparation' });
  await runIs(prepared, 'Succeeded', LONG);

  // It goes away and comes back; the page says so by itself.
  await ask('end there');
  await other.locator('.jp-agent-Mark', { hasText: 'Offline' }).waitFor();
  assert.equal(await other.getByRole('button', { name: 'Run a package on' }).isDisabled(), true);
  await other.locator('.jp-agent-Empty', { hasText: 'when it is online' }).waitFor();
  await ask('begin there');
  await page.locator('.jp-SidePanel-toolbar, .jp-agent-Panel').getByRole('button', { name: 'Ask OpenFlow' }).click();
  await other.locator('.jp-agent-Mark', { hasText: 'Online' }).waitFor();
};

/** A package from its folder to its removal: published, prepared, its runs cancelled, reinstalled; errors are told. */
journeys.packages = async page => {
  await openPanel(page);
  await agentIs(page, 'Connected');
  const [folder, name] = [await ask('folder'), await ask('name')];
  const type = async path => {
    await page.getByRole('button', { name: 'Publish a folder' }).click();
    await page.locator('.jp-Dialog input').fill(path);
    await page.keyboard.press('Enter');
  };
  await type('not/a/whole/path');
  await page.locator('.jp-toast-message, .Toastify__toast', { hasText: 'absolute' }).first().waitFor();
  await type(folder);
  const item = page.locator('.jp-agent-Item[data-package]', { hasText: name });
  await item.waitFor();

  await menu(page, item, `Prepare ${name}`);
  const prepared = page.locator('.jp-agent-RunView:visible', { hasText: 'preparation' });
  await runIs(prepared, 'Succeeded', LONG);
  await row(page, name, 'succeeded').filter({ hasText: 'preparation' }).waitFor();

  await menu(page, item, `Run ${name}`);
  const view = page.locator('.jp-agent-RunView:visible');
  await line(view, 'tick 1').waitFor();
  await menu(page, item, 'Cancel All Runs of');
  await runIs(view, 'Cancelled');

  await page.getByRole('button', { name: 'Run again' }).click();
  await line(view, 'tick 1').waitFor();
  await menu(page, item, 'Reinstall');
  await page.locator('.jp-Dialog', { hasText: 'One run of it is cancelled' }).locator('.jp-mod-warn').click();
  await runIs(view, 'Cancelled');

  await menu(page, item, 'Remove');
  await page.locator('.jp-Dialog', { hasText: 'cannot be undone' }).waitFor();
  await page.keyboard.press('Enter');
  await page.locator('.jp-Dialog').waitFor({ state: 'detached' });
  assert.equal(await item.count(), 1, 'Enter keeps it');
  await menu(page, item, 'Remove');
  await page.locator('.jp-Dialog .jp-mod-warn').click();
  await item.waitFor({ state: 'detached' });
};

/** The second attempt succeeds; then the same is run again, with its parameters. Meanwhile nobody looks at agents. */
journeys.attempts = async page => {
  await openPanel(page);
  await page.locator('.jp-agent-Other .jp-agent-Item-open').click();
  await page.locator('.jp-agent-There .jp-agent-Empty', { hasText: 'Nothing runs there' }).waitFor();
  const agents = page.locator('.lm-AccordionPanel-title', { hasText: 'Agents' });
  await agents.click();
  let asked = 0;
  page.on('request', request => (asked += /\/api\/v1\/agents/.test(request.url())));
  const begun = Date.now();
  const name = await ask('publish');
  const id = await ask('run with retries');
  const first = page.locator(`.jp-agent-Run[data-run="${id}"]`);
  await first.filter({ hasText: 'attempt 2 of 3' }).waitFor(LONG);
  await row(page, name, 'succeeded').waitFor(LONG);
  await first.locator('.jp-agent-Item-open').click();
  const view = page.locator('.jp-agent-RunView:visible');
  await view.locator('.jp-agent-Facts', { hasText: '2 of 3' }).waitFor();
  await line(view, 'no such column').waitFor();
  await line(view, 'found it').waitFor();
  await menu(page, first, 'Run Again');
  const again = page.locator('.jp-agent-RunView:visible', { hasText: id });
  await runIs(again, 'Succeeded');
  assert.match(await again.locator('.jp-agent-Facts').textContent(), /level = 3/);
  while (Date.now() - begun < OTHERS_ASKED_MS) {
    await page.waitForTimeout(100);
  }
  assert.equal(asked, 0, 'other agents are not asked for while their section is folded');
  const answer = page.waitForResponse(/\/api\/v1\/agents\/[^/]+\/runs/);
  await agents.click();
  assert.equal((await answer).status(), 200);
};

/** A token that ends soon, and an agent that is not let listen. */
journeys.unwell = async page => {
  await openPanel(page);
  await agentIs(page, 'with a warning');
  await page.getByRole('status').filter({ hasText: 'ends in 9 days' }).waitFor();
  await ask('refuse');
  await agentIs(page, 'Hears nothing');
  const state = page.locator('.jp-agent-Connection-state');
  await state.filter({ hasText: 'Hears nothing' }).filter({ hasText: 'does not let the agent listen' }).waitFor();
  await ask('allow');
  await agentIs(page, 'Connected');
};

/** Choose from the menu of a row. */
async function menu(page, row, entry) {
  await row.click({ button: 'right' });
  await page.locator('.lm-Menu-item', { hasText: entry }).first().click();
}

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

const journey = { ...journeys, ...ofEnvironments }[process.argv[2]];
assert.ok(journey, `There is no journey ${process.argv[2]}.`);
await travel(journey);
