// node page.mjs SERVED MANY PICTURES: what Chromium and axe-core say of the page. Ends with 1 where
// something is wrong.
import { readFileSync, statSync } from 'node:fs';
import puppeteer from 'puppeteer-core';

const [, , served, many, pictures] = process.argv;
const axe = readFileSync('node_modules/axe-core/axe.min.js', 'utf8');
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
  args: ['--no-sandbox', '--disable-gpu'],
});
const wrong = [];

async function open(url, width, scheme, bypass = false) {
  const page = await browser.newPage();
  const said = [];
  const elsewhere = [];
  page.on('console', (message) => { if (['error', 'warn'].includes(message.type())) said.push(message.text()); });
  page.on('pageerror', (error) => said.push(String(error)));
  page.on('request', (request) => { if (!request.url().startsWith(new URL(url).origin === 'null' ? 'file:' : new URL(url).origin)) elsewhere.push(request.url()); });
  await page.setBypassCSP(bypass);
  await page.setViewport({ width, height: 1000 });
  await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await page.goto(url, { waitUntil: 'load' });
  await page.waitForFunction(() => !document.getElementById('sources').hidden, { timeout: 60000 });
  return { page, said, elsewhere };
}

async function check(what, url, width, scheme, detail) {
  const { page, said, elsewhere } = await open(url, width, scheme);
  if (detail) await page.click('.row button');
  await page.screenshot({ path: `${pictures}/${what}-${scheme}-${width}${detail ? '-detail' : ''}.png` });
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (over > 0) wrong.push(`${what} ${width}: ${over} px too wide`);
  for (const text of said) wrong.push(`${what}: ${text}`);
  for (const text of elsewhere) wrong.push(`${what}: asks for ${text}`);
  await page.close();
  // What examines it is no script of the page: only here its policy is not held to.
  const examined = (await open(url, width, scheme, true)).page;
  if (detail) await examined.click('.row button');
  await examined.evaluate(axe);
  const found = await examined.evaluate(async () => (await window.axe.run()).violations.map((one) => [one.impact, one.id, one.nodes[0].html.slice(0, 200)]));
  for (const [impact, id, html] of found) {
    const line = `${what} ${scheme} ${width}: ${impact} ${id}: ${html}`;
    if (['serious', 'critical'].includes(impact)) wrong.push(line); else console.log(`axe: ${line}`);
  }
  await examined.close();
}

for (const scheme of ['light', 'dark']) {
  for (const width of [1200, 400]) {
    await check('few', served, width, scheme, false);
    await check('few', served, width, scheme, true);
    await check('many', many, width, scheme, width === 400);
  }
}

// 10,000 sources: searching and scrolling, each until it is on the screen.
const { page } = await open(many, 1200, 'light');
const times = await page.evaluate(async () => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const timed = async (what, act) => {
    const began = performance.now();
    act();
    await frame();
    return [what, Math.round(performance.now() - began)];
  };
  const search = document.getElementById('search');
  const list = document.getElementById('list');
  const write = (text) => () => { search.value = text; search.dispatchEvent(new Event('input')); };
  const results = [];
  for (const text of ['s', 'se', 'server-09', 'zone-3 nightly-7', 'nothing at all', '']) results.push(await timed(`search "${text}"`, write(text)));
  let longest = 0;
  for (let step = 0; step < 200; step += 1) {
    const [, time] = await timed('', () => { list.scrollTop += 3000; });
    longest = Math.max(longest, time);
  }
  results.push(['longest frame of 200 while scrolling', longest]);
  return { results, rows: document.querySelectorAll('.row').length, setsize: document.querySelector('.row').getAttribute('aria-setsize'), title: document.title };
});
for (const [what, time] of times.results) {
  console.log(`${what}: ${time} ms`);
  if (time > 200) wrong.push(`${what} takes ${time} ms`);
}
if (times.rows > 60) wrong.push(`${times.rows} rows stand in the document at once`);
if (times.title !== 'stillframe') wrong.push(`a name has become the title: ${times.title}`);
const marked = await page.evaluate(() => document.querySelectorAll('.row img, .row script').length);
if (marked) wrong.push(`${marked} names have become markup`);
const loading = await page.evaluate(() => Math.round(performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart));
console.log(`${times.setsize} rows, drawn after ${loading} ms, ${(statSync(new URL(many)).size / 1048576).toFixed(1)} MiB`);
await browser.close();
for (const one of wrong) console.error(`wrong: ${one}`);
process.exit(wrong.length ? 1 : 0);
