// Signing in to the hub in a real browser: a program waits, a user opens its page, signs in, and the program gets its
// token; a second program is let in by a click. What the programs got is printed as JSON.
import { chromium } from 'playwright-core';

const { HUB, CHROMIUM, USERNAME, PASSWORD, PICTURE } = process.env;

const asked = async key => {
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch(`${HUB}/AddTokenRequest`, { method: 'POST', headers, body: JSON.stringify({ key }) });
  return (await answer.json()).message;
};
const token = async key => (await (await fetch(`${HUB}/GetTokenRequest?key=${key}`)).json()).jwt;

const browser = await chromium.launch({
  executablePath: CHROMIUM,
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking']
});
const page = await browser.newPage();
page.setDefaultTimeout(30_000);
const elsewhere = [];
page.on('request', request => request.url().startsWith(HUB) || elsewhere.push(request.url()));
const broken = [];
page.on('console', message => message.text().includes('Content Security Policy') && broken.push(message.text()));
try {
  const [first, second] = ['first-program-1234567890', 'second-program-1234567890'];
  const said = [await asked(first), await asked(second), await asked(first)];
  await page.goto(`${HUB}/login?key=${first}`);
  const before = await token(first);
  await page.keyboard.type(USERNAME); // the first field has the focus
  await page.keyboard.press('Tab');
  await page.keyboard.type('not the password');
  await page.keyboard.press('Enter');
  const alert = await page.getByRole('alert').innerText();
  await page.getByLabel('Password').fill(PASSWORD);
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByRole('status').waitFor();
  const tokens = [await token(first)];
  await page.goto(`${HUB}/login?key=${second}`);
  await page.getByText(`You are signed in as ${USERNAME}`).waitFor();
  await page.getByRole('button', { name: 'Allow' }).click();
  await page.getByRole('status').waitFor();
  tokens.push(await token(second));
  const user = JSON.parse(await (await page.goto(`${HUB}/user`)).text()).username;
  await page.goto(`${HUB}/login?key=${second}`);
  const used = await page.getByRole('alert').innerText();
  await page.goto(`${HUB}/login`);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByLabel('Username').waitFor();
  const after = (await page.goto(`${HUB}/user`)).status();
  console.log(JSON.stringify({ said, before, alert, tokens, user, used, after, elsewhere, broken }));
} catch (error) {
  await page.screenshot({ path: PICTURE }).catch(() => undefined);
  throw error;
} finally {
  await browser.close();
}
