// A page of JupyterLab in a real browser, and the way to ask the test that started it for something (a kill, a
// restart): one JSON line out, one line in.
import readline from 'node:readline';

import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync'
];

const lines = readline.createInterface({ input: process.stdin });
const answers = lines[Symbol.asyncIterator]();

/** Ask the test for something and wait until it is done; gives back what it says. */
export async function ask(what) {
  process.stdout.write(`${JSON.stringify({ ask: what })}\n`);
  return JSON.parse((await answers.next()).value);
}

/** Run a journey on a fresh page of the server at `JUPYTER_URL`; on failure a picture of it is left. */
export async function travel(journey) {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: FLAGS });
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, acceptDownloads: true });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const errors = [];
  page.on('pageerror', error => errors.push(error.stack));
  try {
    await openLab(page);
    await journey(page);
    if (errors.length) {
      throw new Error(`Errors on the page:\n${errors.join('\n')}`);
    }
  } catch (error) {
    await page.screenshot({ path: process.env.PICTURE }).catch(() => undefined);
    throw error;
  } finally {
    await browser.close();
    lines.close();
    process.stdin.destroy();
  }
}

/** Load JupyterLab; done when it can be used. */
export async function openLab(page, { reset = true } = {}) {
  const url = new URL(`lab?token=${process.env.TOKEN}${reset ? '&reset' : ''}`, process.env.JUPYTER_URL);
  await page.goto(url.href);
  await page.locator('#jupyterlab-splash').waitFor({ state: 'detached' });
}

export async function openPanel(page) {
  await page.locator('.jp-SideBar [data-id="jupyter-agent-panel"]').click();
  await page.locator('#jupyter-agent-panel').waitFor();
}

/** Wait until the status bar says this of the agent. */
export async function agentIs(page, word, options = {}) {
  await page.locator('.jp-agent-StatusItem', { hasText: word }).waitFor(options);
}

/** Press a package's run button; gives back the locator of the view that opens. */
export async function runPackage(page, name) {
  await page.getByRole('button', { name: `Run ${name}`, exact: true }).click();
  const view = page.locator('.jp-agent-RunView:visible');
  await view.waitFor();
  return view;
}

const ENDED = ['Succeeded', 'Failed', 'Timed out', 'Cancelled', 'Killed', 'Kernel died', 'Lost'];

/** Wait until the run in this view is in this state; one that ended otherwise is an error at once. */
export async function runIs(view, word, options = {}) {
  const mark = view.locator('.jp-agent-Header .jp-agent-Mark-word', {
    hasText: new RegExp(`^(${[word, ...ENDED].join('|')})$`)
  });
  await mark.waitFor(options);
  const state = await mark.textContent();
  if (state !== word) {
    throw new Error(`${state} instead of ${word}: ${await view.locator('.jp-agent-Header').innerText()}`);
  }
}

/** An answer of the agent's API, through the gate, as the page itself would get it. */
export async function api(page, path) {
  return page.evaluate(async path => {
    const config = JSON.parse(document.getElementById('jupyter-config-data').textContent);
    const response = await fetch(`${config.baseUrl}jupyter-agent/api/v1/${path}`);
    return response.json();
  }, path);
}
