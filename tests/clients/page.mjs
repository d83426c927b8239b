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

// Words that are cut off, and tables of which some is out of sight.
const cut = () => [...document.querySelectorAll('.row .state, .row .when, .row .what, .table, select, dialog')]
  .filter((one) => one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.className || one.id}: ${one.textContent.trim().slice(0, 60)}`);

// The page, and the details of a source with restore points and of one without protection.
const VIEWS = [['', null, ''], ['-protected', '', '.row[aria-posinset]:not(.bare) button'], ['-unprotected', 'unprotected', '.row.bare[aria-posinset] button']];

async function view(page, state, button) {
  if (!button) return;
  await page.evaluate(() => document.getElementById('detail').close());
  await page.select('#by-state', state);
  await page.evaluate((wanted) => document.querySelector(wanted).click(), button);
}

async function check(what, url, width, scheme) {
  const { page, said, elsewhere } = await open(url, width, scheme);
  for (const [name, state, button] of VIEWS) {
    await view(page, state, button);
    await page.screenshot({ path: `${pictures}/${what}-${scheme}-${width}${name}.png`, fullPage: !button });
    for (const text of await page.evaluate(cut)) wrong.push(`${what} ${width}${name}: cut off: ${text}`);
  }
  const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (over > 0) wrong.push(`${what} ${width}: ${over} px too wide`);
  for (const text of said) wrong.push(`${what}: ${text}`);
  for (const text of elsewhere) wrong.push(`${what}: asks for ${text}`);
  await page.close();
  // What examines it is no script of the page: only here its policy is not held to.
  const examined = (await open(url, width, scheme, true)).page;
  await examined.evaluate(axe);
  for (const [name, state, button] of VIEWS) {
    await view(examined, state, button);
    const found = await examined.evaluate(async () => (await window.axe.run()).violations.map((one) => [one.impact, one.id, one.nodes[0].html.slice(0, 200)]));
    for (const [impact, id, html] of found) {
      const line = `${what}${name} ${scheme} ${width}: ${impact} ${id}: ${html}`;
      if (['serious', 'critical'].includes(impact)) wrong.push(line); else console.log(`axe: ${line}`);
    }
  }
  await examined.close();
}

for (const scheme of ['light', 'dark']) {
  for (const width of [1200, 400]) {
    await check('few', served, width, scheme);
    await check('many', many, width, scheme);
  }
}

// An outage: the page says that nobody answers, and of when what it shows is, until somebody does. Its
// clock runs ahead, and it asks sixty times as often.
async function outage() {
  const page = await browser.newPage();
  await page.evaluateOnNewDocument(() => {
    const [every, time] = [setInterval, Date.now];
    window.setInterval = (what, pause) => every(what, pause / 60);
    Date.now = () => time() + (window.ahead || 0);
  });
  await page.goto(served, { waitUntil: 'load' });
  const text = (id) => page.$eval(id, (element) => element.textContent);
  const until = async (what, test, ...given) => {
    try { await page.waitForFunction(test, { timeout: 10000 }, ...given); } catch { wrong.push(`outage: ${what}: "${await text('#state')}", "${await text('#as-of')}"`); }
  };
  await until('at first nothing is wrong', () => document.getElementById('as-of').textContent.startsWith('As of ') && !document.getElementById('state').textContent);
  const before = await text('#as-of');
  await page.setOfflineMode(true);
  await page.evaluate(() => { window.ahead = 300000; });
  await until('nobody answers', () => document.getElementById('state').textContent.includes('does not answer'));
  if (await text('#as-of') !== before) wrong.push(`outage: "${before}" has become "${await text('#as-of')}", and nobody has answered`);
  await page.setOfflineMode(false);
  await until('somebody answers again', (old) => !document.getElementById('state').textContent && document.getElementById('as-of').textContent !== old, before);
  console.log(`after an outage: ${await text('#as-of')}`);
  await page.close();
}
await outage();

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
  for (const text of ['s', 'se', 'server-09', 'zone-3 nightly-7', 'nothing at all', '']) {
    const all = [];
    for (let turn = 0; turn < 5; turn += 1) {
      // What is there already would be drawn again at once.
      await timed('', write(text ? '' : 'server-09'));
      all.push((await timed('', write(text)))[1]);
    }
    results.push([`search "${text}", the best of ${all.length}`, Math.min(...all), Math.max(...all)]);
  }
  const frames = [];
  for (let step = 0; step < 200; step += 1) frames.push((await timed('', () => { list.scrollTop += 3000; }))[1]);
  frames.sort((one, other) => one - other);
  results.push(['the median of 200 frames while scrolling', frames[100], frames[199]]);
  return { results, rows: document.querySelectorAll('.row').length, setsize: document.querySelector('.row[aria-setsize]').getAttribute('aria-setsize'), title: document.title };
});
for (const [what, time, longest] of times.results) {
  console.log(`${what}: ${time} ms, the longest ${longest} ms`);
  // One of many may have waited for something else on the machine.
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
