// What a user does and sees of environments. Started by name from test_environments.py, through journeys.mjs.
import assert from 'node:assert/strict';

import { agentIs, ask, openPanel, runIs } from './page.mjs';

/** Until an environment is made. */
const LONG = { timeout: 240_000 };

export const journeys = {
  /** From a requirements.txt: made from the file browser, looked at, verified, repaired, removed. */
  async environment(page) {
    await openPanel(page);
    await agentIs(page, 'Connected');
    await page.locator('.jp-agent-Empty', { hasText: 'No environments yet' }).waitFor();
    await ask('write');
    await chooseFile(page, ['pip', 'requirements.txt'], 'Make This Environment');
    const view = page.locator('.jp-agent-RunView:visible');
    await runIs(view, 'Succeeded', LONG);
    await openPanel(page);
    const row = page.locator('.jp-agent-Environment[data-state=ready]', { hasText: 'requirements.txt' });
    await row.filter({ hasText: '1 package' }).waitFor();

    // By the keyboard: its details.
    await row.locator('.jp-agent-Item-open').focus();
    await page.keyboard.press('Enter');
    const details = page.locator('.jp-agent-EnvironmentView:visible');
    await details.locator('tr[data-installed=six]', { hasText: '1.16.0' }).waitFor();
    await details.getByRole('status').filter({ hasText: 'Ready' }).waitFor();
    assert.match(await details.locator('.jp-agent-Path code').textContent(), /^(\/|[A-Z]:).*environments/);
    await details.getByLabel('Find a package').fill('no such thing');
    await details.locator('.jp-agent-Empty').waitFor();

    // Verified: well, then not, then well again.
    await row.locator('.jp-agent-Item-open').focus();
    await page.keyboard.press('Shift+F10');
    await page.locator('.lm-Menu-item', { hasText: 'Verify' }).click();
    await details.getByRole('status').filter({ hasText: 'Every file is as it was installed' }).waitFor();
    await ask('damage');
    await page.getByRole('button', { name: 'Verify', exact: true }).click();
    await details.locator('.jp-agent-Faults tr', { hasText: 'six.py' }).waitFor();
    await details.getByRole('button', { name: 'Repair' }).click();
    await runIs(page.locator('.jp-agent-RunView:visible'), 'Succeeded', LONG);
    await row.locator('.jp-agent-Item-open').click();
    await page.getByRole('button', { name: 'Verify', exact: true }).click();
    await details.getByRole('status').filter({ hasText: 'Every file is as it was installed' }).waitFor();

    // What a clean-up would free is said, and kept when the user says so.
    await page.getByRole('button', { name: 'Remove what nothing has used' }).click();
    await page.locator('.jp-Dialog', { hasText: 'requirements.txt' }).filter({ hasText: 'frees' }).waitFor();
    await page.keyboard.press('Enter');
    await page.locator('.jp-Dialog').waitFor({ state: 'detached' });
    assert.equal(await row.count(), 1, 'Enter keeps it');

    await row.click({ button: 'right' });
    await page.locator('.lm-Menu-item', { hasText: 'Remove' }).click();
    await page.locator('.jp-Dialog', { hasText: 'requirements.txt' }).locator('.jp-mod-warn').click();
    await row.waitFor({ state: 'detached' });
    await details.waitFor({ state: 'detached' });
  },

  /** A conda environment: its making is cancelled, then done and followed step by step; a file runs in it. */
  async conda(page) {
    await openPanel(page);
    await agentIs(page, 'Connected');
    await ask('write');
    await chooseFile(page, ['weather', 'environment.yml'], 'Make This Environment');
    const view = page.locator('.jp-agent-RunView:visible');
    await view.locator('.jp-agent-Step[aria-current=step]').waitFor(LONG);
    await page.getByRole('button', { name: 'Cancel', exact: true }).click();
    await runIs(view, 'Cancelled');
    await page.getByRole('button', { name: 'Run again' }).click();
    await view.locator('.jp-agent-Step[data-phase=link][data-state=done]').waitFor(LONG);
    assert.equal(await view.locator('.jp-agent-Step').count(), 6);
    await runIs(view, 'Succeeded', LONG);
    await view.locator('.jp-agent-Facts .jp-agent-Link').click();
    const details = page.locator('.jp-agent-EnvironmentView:visible');
    await details.locator('tr[data-installed=python]').waitFor();
    await details.locator('.jp-agent-Facts', { hasText: 'RAIN' }).waitFor();
    await details.locator('.jp-agent-Asked code', { hasText: 'pip' }).waitFor();
    const prefix = await details.locator('.jp-agent-Path code').textContent();

    await chooseFile(page, ['where.py'], 'Run in Environment');
    const choice = page.locator('.jp-Dialog select');
    await choice.selectOption(await choice.locator('option', { hasText: 'weather' }).textContent());
    await page.locator('.jp-Dialog .jp-mod-accept').click();
    const run = page.locator('.jp-agent-RunView:visible', { hasText: 'where.py' });
    await runIs(run, 'Succeeded', LONG);
    await run.locator('.jp-agent-Console-line', { hasText: prefix }).waitFor();
    await run.locator('.jp-agent-Facts .jp-agent-Link').waitFor();
  },

  /** A channel that cannot be reached: the lock is made from PyPI instead, and opened. */
  async fallback(page) {
    await openPanel(page);
    await agentIs(page, 'Connected');
    await ask('write');
    await chooseFile(page, ['away', 'environment.yml'], 'Lock This Environment');
    const view = page.locator('.jp-agent-RunView:visible');
    await runIs(view, 'Failed', LONG);
    assert.match(await view.getByRole('alert').textContent(), /cannot be reached/);
    await view.getByRole('button', { name: 'Make it from PyPI instead' }).click();
    await page.locator('.jp-FileEditor:visible', { hasText: 'content_hash' }).waitFor(LONG);

    // A file that asks for an environment can be made into one from its editor, too; its lock again cannot be locked.
    await page.getByRole('button', { name: 'Make this environment' }).waitFor();
    assert.equal(await page.getByRole('button', { name: 'Lock this environment' }).isVisible(), false);
    await chooseFile(page, ['impossible', 'environment.yml'], 'Make This Environment');
    await runIs(view, 'Failed', LONG);
    assert.match(await view.getByRole('alert').textContent(), /no-such-package-anywhere/);
  }
};

/** Choose from the menu of a file in the file browser; the path is from the folder that Lab serves. */
async function chooseFile(page, path, entry) {
  const home = page.locator('.jp-BreadCrumbs-home');
  if (!(await home.isVisible())) {
    await page.locator('.jp-SideBar [data-id="filebrowser"]').click();
  }
  await home.click();
  const item = name => page.locator('.jp-DirListing-item', { has: page.getByText(name, { exact: true }) });
  await page.locator('.jp-BreadCrumbs-item').waitFor({ state: 'detached' });
  for (const folder of path.slice(0, -1)) {
    await item(folder).dblclick();
    await page.locator('.jp-BreadCrumbs-item', { hasText: folder }).waitFor();
  }
  await item(path.at(-1)).click({ button: 'right' });
  await page.locator('.lm-Menu-item', { hasText: entry }).click();
}
