'use strict';
(() => {
  // Whatever comes from names goes through textContent: nothing of it is ever read as markup.
  const get = (id) => document.getElementById(id);
  const SVG = 'http://www.w3.org/2000/svg';
  const make = (name, attributes, ...inside) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    for (const one of inside) element.append(one);
    return element;
  };
  const draw = (name, attributes) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  // A short name is kept on one line, a long one may break anywhere.
  const name = (text) => make('bdi', text.length > 30 ? { class: 'long' } : {}, text);
  const time = (text) => make('span', { class: 'time' }, text);
  // A day and its time, which may stand below each other.
  const day = (at) => make('span', {}, time(minute(at).slice(0, 10)), ' ', time(clock(at)));
  // A sentence: what is written like a time stays on one line.
  const said = (text) => make('bdi', { class: 'said' }, ...text.split(/(\d{4}-\d\d-\d\d(?:[ T][\d:.]+Z?)?)/).filter(Boolean).map((part) => (/^\d{4}-\d\d-/.test(part) ? time(part) : part)));
  const pad = (number) => String(number).padStart(2, '0');
  const minute = (minutes) => {
    const date = new Date(minutes * 60000);
    return `${date.getUTCFullYear()}-${pad(date.getUTCMonth() + 1)}-${pad(date.getUTCDate())} ${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}Z`;
  };
  const minutes = (text) => Math.floor(Date.parse(text) / 60000);
  const at = (text) => minute(minutes(text));
  const clock = (at) => minute(at).slice(11);
  const span = (length) => {
    const size = Math.abs(length);
    if (size < 120) return `${size} min`;
    if (size < 2880) return `${Math.round(size / 60)} h`;
    return `${Math.round(size / 1440)} d`;
  };
  const many = (count, word) => `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;

  const STATES = [
    ['broken', 'objective broken', 'danger'],
    ['met-until-broken', 'will be broken', 'danger'],
    ['unprotected', 'unprotected', 'danger'],
    ['met-unless-next-fails', 'met unless the next fails', ''],
    ['met', 'met', 'good'],
    ['none', 'no objective', ''],
    ['exempt', 'exempt', 'dim'],
    ['unseen', 'not seen', 'dim'],
    ['gone', 'source gone', 'dim'],
  ];
  const stateOf = Object.fromEntries(STATES.map(([word, text, style], order) => [word, { text, style, order }]));
  // The colour and the height of a restore point are those of the rule that keeps it longest.
  const LANES = [
    ['yearly', 'yearly'], ['monthly', 'monthly'], ['weekly', 'weekly'], ['daily', 'daily'],
    ['other', 'hourly, last or by age'], ['let-go', 'let go'], ['drill', 'drill passed'], ['delete', 'predicted delete'], ['next', 'next run'], ['now', 'now'],
  ];
  const HEIGHTS = { yearly: 24, monthly: 21, weekly: 18, daily: 15, other: 11, 'let-go': 8 };

  let overview = null, items = [], shown = [], tops = [], sizes = '', bits = {}, now = 0, seen = 0, taken = 0;

  const has = (point, word) => (point[1] >> bits[word] & 1) === 1;
  const lane = (point) => {
    if (has(point, 'let-go')) return 'let-go';
    return ['yearly', 'monthly', 'weekly', 'daily'].find((word) => has(point, word)) || 'other';
  };
  const rulesOf = (point) => overview.bits.filter((_, bit) => point[1] >> bit & 1).join(', ') || 'nothing';

  function take(document) {
    overview = document;
    now = seen = minutes(overview.at);
    taken = Date.now();
    bits = Object.fromEntries(overview.bits.map((word, bit) => [word, bit]));
    items = [];
    for (const engine of overview.engines) {
      for (const source of engine.sources) items.push({ engine: engine.name, ...source });
      for (const one of engine.unprotected) items.push({ engine: engine.name, policy: '', zone: '', state: 'unprotected', points: [], deletes: [], ...one });
      for (const one of engine.exempt) items.push({ engine: engine.name, policy: '', zone: '', state: 'exempt', points: [], deletes: [], ...one });
    }
    age();
    for (const item of items) item.text = `${item.name}\n${item.id}\n${item.policy}\n${item.zone}\n${item.engine}`.toLowerCase();
    sort();
  }

  // An objective that nothing has met since is broken when its time has come, and a pause ends.
  function age() {
    let isOther = false;
    for (const item of items) {
      if (!item.breach_at || !item.state.startsWith('met') || minutes(item.breach_at) > now) continue;
      item.state = 'broken';
      isOther = true;
    }
    for (const policy of overview.policies) {
      if (!policy.paused_until || minutes(policy.paused_until) > now) continue;
      policy.paused = '';
      policy.paused_until = undefined;
      isOther = true;
    }
    return isOther;
  }

  function sort() {
    const order = (item) => stateOf[item.state] ? stateOf[item.state].order : 99;
    items.sort((one, other) => order(one) - order(other) || (one.name < other.name ? -1 : one.name > other.name ? 1 : 0));
  }

  function options(select, all, values) {
    const before = select.value;
    select.replaceChildren(make('option', { value: '' }, all), ...values.map(([value, text]) => make('option', { value }, text)));
    select.value = before;
    if (select.selectedIndex < 0) select.selectedIndex = 0;
  }

  function verdict() {
    const lines = [];
    const line = (style, ...inside) => lines.push(make('li', style ? { class: style } : {}, ...inside));
    const count = (state) => items.filter((item) => item.state === state).length;
    if (overview.mistakes.length) {
      line('danger', `The policies in the files are not valid: what was in force stays in force.`);
      for (const mistake of overview.mistakes.slice(0, 10)) line('danger', name(mistake));
    }
    for (const [state, text] of [['broken', 'with a broken objective'], ['met-until-broken', 'whose objective will be broken even if the next run succeeds'], ['unprotected', 'that no policy protects']]) {
      const number = count(state);
      if (number) line('danger', `${many(number, 'source')} ${text}.`);
    }
    for (const engine of overview.unseen || []) line('danger', 'Nothing is known of the engine ', name(engine), ' yet.');
    for (const engine of overview.engines) {
      if (engine.gaps.length) line('danger', 'The engine ', name(engine.name), ` was not seen whole: `, name(engine.gaps[0]), engine.gaps.length > 1 ? ` and ${engine.gaps.length - 1} more` : '');
      if (engine.instances_unseen) line('danger', 'Instances of the engine ', name(engine.name), engine.instances_unseen_since ? ` have not been seen since ${at(engine.instances_unseen_since)}: of those it is said what was known then.` : ' were never seen whole: of those that are missing nothing is known.');
    }
    if (!lines.length) line('good', 'Every source is protected, and every objective that is stated is met.');
    const total = overview.engines.reduce((sum, engine) => sum + engine.sources.reduce((own, source) => own + source.points.length, 0), 0);
    line('', `${many(overview.engines.reduce((sum, engine) => sum + engine.instances, 0), 'instance')}, ${many(total, 'restore point')}, ${many(overview.policies.length, 'policy').replace(/policys$/, 'policies')}.`);
    get('verdict').replaceChildren(...lines);
    get('verdict').hidden = false;
  }

  // What is drawn at a place of a timeline, which is 40 px high and has its axis at 30 px: restore points
  // stand on the axis, a drill above them; what is to come has places of its own, so that nothing is covered.
  const cross = (x, y) => `M${x - 3} ${y - 3}l6 6m0 -6l-6 6`;
  const arrow = (x, y) => `M${x} ${y}l4 6h-8z`;
  const bar = (x, from, height) => `M${x} ${from}v${-height}`;

  function legend() {
    get('legend').replaceChildren(...LANES.map(([word, text]) => {
      const mark = draw('svg', { viewBox: '0 0 12 26', width: 12, height: 26, 'aria-hidden': 'true' });
      const own = { delete: cross(6, 13), next: arrow(6, 10), now: bar(6, 24, 22), drill: bar(6, 15, 4) };
      mark.append(draw('path', { d: own[word] || bar(6, 25, HEIGHTS[word]), class: word, 'stroke-width': word === 'drill' ? 6 : 5 }));
      return make('li', {}, mark, text);
    }));
  }

  function timeline(item, width) {
    const days = Number(get('span').value);
    const before = days * 1440, after = Math.max(before * 0.25, 2880);
    // What lies at either end is seen whole.
    const x = (when) => Math.round(((when - now + before) / (before + after) * (width - 8) + 4) * 2) / 2;
    const first = now - before;
    const svg = draw('svg', { width, height: 40, role: 'img' });
    const thick = Math.max(2, Math.min(5, Math.floor(width / (before + after) * 1440 * 0.7)));
    // One path for each colour: an element for each restore point takes many times as long.
    const paths = { axis: 'M0 30.5h' + width, now: bar(x(now), 40, 40) };
    const add = (word, path) => { paths[word] = (paths[word] || '') + path; };
    let inside = 0;
    for (const point of item.points) {
      if (point[0] < first) continue;
      inside += 1;
      const word = lane(point), place = x(point[0]);
      add(word, bar(place, 30, has(point, 'not-ready') ? 4 : HEIGHTS[word]));
      if (has(point, 'drilled')) add('drill', bar(place, 4, 4));
    }
    let going = 0;
    for (const [, when] of item.deletes) {
      if (when < first || when > now + after) continue;
      going += 1;
      add('delete', cross(x(when), 20));
    }
    const next = item.next ? Math.max(now, minutes(item.next)) : null;
    if (next !== null && next <= now + after) add('next', arrow(x(next), 33));
    for (const [word, d] of Object.entries(paths)) svg.append(draw('path', { d, class: word, 'stroke-width': thick }));
    const earlier = item.points.length - inside;
    svg.setAttribute('aria-label', `${many(inside, 'restore point')} in ${days} days${earlier ? `, ${earlier} earlier` : ''}, ${many(going, 'predicted delete')}`);
    return svg;
  }

  function newest(item) {
    for (let index = item.points.length - 1; index >= 0; index -= 1) {
      if (!has(item.points[index], 'not-ready') && item.points[index][0] <= now + 5) return item.points[index][0];
    }
    return null;
  }

  function about(item) {
    if (item.state === 'unprotected') return item.excluded_by ? `excluded by ${item.excluded_by}` : 'no policy selects it';
    if (item.state === 'exempt') return `until ${at(item.until)}`;
    const last = newest(item);
    const age = last === null ? 'no restore point' : `newest ${span(now - last)} old`;
    return item.next ? `${age}, next ${minutes(item.next) <= now ? 'now' : `in ${span(minutes(item.next) - now)}`}` : age;
  }

  const hasLine = (item) => item.points.length > 0 || item.policy !== '';

  function row(item, position, width) {
    const state = stateOf[item.state] || { text: item.state, style: '' };
    const button = make('button', { type: 'button', title: item.name }, name(item.name || item.id));
    button.addEventListener('click', () => open(item));
    const what = item.policy ? make('span', { class: 'what dim' }, name(item.policy), ' on ', name(item.engine)) : make('span', { class: 'what dim' }, 'on ', name(item.engine));
    const element = make('div', { class: hasLine(item) ? 'row' : 'row bare', role: 'listitem', 'aria-posinset': position + 1, 'aria-setsize': shown.length },
      button, make('span', { class: `state ${state.style}` }, state.text), what, make('span', { class: 'when dim' }, about(item)));
    if (hasLine(item)) element.append(timeline(item, width));
    element.style.top = `${tops[position]}px`;
    return element;
  }

  // Where each row begins, and where the last one ends: those without a timeline may be lower.
  function place() {
    const [full, bare] = ['ruler', 'ruler-bare'].map((id) => get(id).offsetHeight);
    const wanted = `${full} ${bare} ${shown.length}`;
    if (wanted === sizes) return;
    sizes = wanted;
    let top = 0;
    tops = shown.map((item) => {
      const own = top;
      top += hasLine(item) ? full : bare;
      return own;
    });
    tops.push(top);
    get('rows').style.height = `${top}px`;
    get('list').style.height = `min(70vh, 48rem, ${Math.max(bare, top) + 2}px)`;
  }

  // The row at a height.
  function rowAt(height) {
    let low = 0, high = shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tops[middle + 1] <= height) low = middle + 1; else high = middle;
    }
    return low;
  }

  let drawn = '';
  function render() {
    const list = get('list'), rows = get('rows');
    place();
    const width = Math.floor(get('ruler').lastElementChild.getBoundingClientRect().width);
    const first = Math.max(0, rowAt(list.scrollTop) - 5);
    const last = Math.min(shown.length, rowAt(list.scrollTop + list.clientHeight) + 6);
    const wanted = `${first} ${last} ${width} ${sizes} ${get('span').value}`;
    if (wanted === drawn) return;
    drawn = wanted;
    const held = document.activeElement && document.activeElement.closest ? document.activeElement.closest('.row') : null;
    const focus = held ? held.getAttribute('aria-posinset') : null;
    const fresh = [];
    for (let position = first; position < last; position += 1) fresh.push(row(shown[position], position, width));
    rows.replaceChildren(...fresh);
    if (focus) {
      const again = rows.querySelector(`[aria-posinset="${focus}"] button`);
      if (again) again.focus({ preventScroll: true });
    }
  }

  function filter() {
    const words = get('search').value.toLowerCase().split(/\s+/).filter(Boolean);
    const [state, policy, engine] = ['by-state', 'by-policy', 'by-engine'].map((id) => get(id).value);
    shown = items.filter((item) => (!state || item.state === state) && (!policy || item.policy === policy) && (!engine || item.engine === engine) && words.every((word) => item.text.includes(word)));
    get('count').textContent = shown.length === items.length ? many(items.length, 'entry').replace(/entrys$/, 'entries') : `${shown.length.toLocaleString('en')} of ${many(items.length, 'entry').replace(/entrys$/, 'entries')}`;
    drawn = '';
    sizes = '';
    get('list').scrollTop = 0;
    render();
  }

  // The roles stand there because a narrow window shows each row as lines of its own.
  function table(columns, rows, label, style = '') {
    const head = make('tr', { role: 'row' }, ...columns.map((column) => make('th', { scope: 'col', role: 'columnheader' }, column)));
    const cell = (inside, column) => {
      const element = make('td', { role: 'cell', 'data-label': columns[column] }, inside);
      if (!element.textContent) element.className = 'empty';
      return element;
    };
    const body = rows.map((cells) => make('tr', { role: 'row' }, ...cells.map(cell)));
    const inside = make('table', { role: 'table' }, make('thead', { role: 'rowgroup' }, head), make('tbody', { role: 'rowgroup' }, ...body));
    return make('div', { class: `table ${style}`, tabindex: '0', role: 'region', 'aria-label': label }, inside);
  }

  function open(item) {
    const dialog = get('detail');
    const close = make('button', { type: 'button' }, 'Close');
    close.addEventListener('click', () => dialog.close());
    const state = stateOf[item.state] || { text: item.state, style: '' };
    const facts = [['state', make('span', { class: state.style }, state.text)], ['engine', name(item.engine)], ['id', name(item.id)]];
    if (item.zone) facts.push(['zone', name(item.zone)]);
    if (item.policy) facts.push(['policy', name(item.policy)]);
    if (item.breach_at) facts.push(['objective', `${minutes(item.breach_at) <= now ? 'broken since' : 'kept until'} ${at(item.breach_at)}`]);
    if (item.next) facts.push(['next run', at(item.next)]);
    if (item.reason) facts.push(['why', said(item.reason)], ['who answers for it', name(item.owner)], ['until', at(item.until)]);
    if (item.excluded_by) facts.push(['excluded by', name(item.excluded_by)]);
    const list = make('dl', {}, ...facts.flatMap(([what, text]) => [make('dt', {}, what), make('dd', {}, text)]));
    const deletes = new Map(item.deletes);
    const points = item.points.slice().reverse().map((point) => [time(minute(point[0])), time(span(now - point[0])), rulesOf(point), deletes.has(point[0]) ? day(deletes.get(point[0])) : '']);
    const parts = [make('div', { class: 'head' }, make('h2', { id: 'detail-title' }, name(item.name || item.id)), close), list];
    if (points.length) parts.push(make('h3', {}, many(points.length, 'restore point')), table(['of', 'age', 'kept by', 'predicted delete'], points, 'Restore points', 'points'));
    if (item.policy) parts.push(make('p', { class: 'dim' }, 'Predicted deletes hold if nothing changes, and are those that come next; stillframe explain says them of every image.'));
    dialog.replaceChildren(...parts);
    dialog.showModal();
  }

  function put(id, parts, empty) {
    const section = get(id);
    section.querySelector('.body').replaceChildren(...(parts.length ? parts : [make('p', { class: 'dim' }, empty)]));
    section.hidden = false;
  }

  const NOTES_SHOWN = 10;
  const RESULTS = { done: 'good', found: 'good', failed: 'danger', skipped: 'notice', refused: 'notice', left: 'notice', 'given up': 'notice' };

  // What a plan is: that of a round is over, that of a file has not begun.
  function aboutPlan(plan) {
    const id = plan.id.slice(0, 12), made = at(plan.at);
    if (!plan.carried_out) return `Plan ${id}: ${plan.count ? `${many(plan.count, 'change')} that a run at ${made} would make` : `a run at ${made} would change nothing`}.`;
    const results = Object.entries(plan.results).map(([word, count]) => `${count.toLocaleString('en')} ${word}`);
    return `Plan ${id} of the last round, which began ${made}: ${plan.count ? many(plan.count, 'change') : 'nothing was to be done'}${results.length ? `, ${results.join(', ')}` : ''}. The next round plans anew.`;
  }

  function came(change) {
    const element = make('span', { class: RESULTS[change.result] || '' }, change.result || '');
    return change.message ? make('span', {}, element, ': ', said(change.message)) : element;
  }

  function sections() {
    const plans = [];
    for (const engine of overview.engines) {
      const plan = engine.plan;
      const some = plan.count > plan.changes.length ? ` ${plan.changes.length.toLocaleString('en')} of them are shown.` : '';
      plans.push(make('h3', {}, name(engine.name)), make('p', { class: 'dim' }, said(`${aboutPlan(plan)}${some}`)));
      const notes = plan.notes.map((note) => make('li', { class: 'notice' }, said(note)));
      const more = notes.splice(NOTES_SHOWN);
      if (notes.length) plans.push(make('ul', {}, ...notes));
      if (more.length) plans.push(make('details', {}, make('summary', {}, `${more.length} more`), make('ul', {}, ...more)));
      const action = (one) => make('span', one.action === 'delete' ? { class: 'danger' } : {}, one.action);
      const columns = ['action', 'source', 'policy', 'image', 'why'];
      const cells = plan.changes.map((one) => [action(one), name(one.source), name(one.policy), name(one.image), said(one.why)]);
      if (plan.carried_out) {
        columns.splice(1, 0, 'came of it');
        plan.changes.forEach((one, index) => cells[index].splice(1, 0, came(one)));
      }
      if (cells.length) plans.push(table(columns, cells, `Plan of ${engine.name}`));
    }
    put('plan', plans, 'Nothing was planned yet.');
    put('rounds', overview.rounds.length ? [table(['engine', 'began', 'ended', 'plan', 'to be done', 'came of it'], overview.rounds.map((one) => [name(one.engine), time(at(one.began_at)), one.ended_at ? time(at(one.ended_at)) : '', one.plan.slice(0, 12), one.planned, one.results]), 'Rounds as a table')] : [], 'No round is known.');
    const drills = overview.engines.flatMap((engine) => engine.drills.map((one) => [time(at(one.at)), name(one.source), name(one.policy), name(one.image), name(engine.name)]));
    put('drills', drills.length ? [table(['passed', 'source', 'policy', 'image', 'engine'], drills, 'Drills as a table')] : [], 'No restore point has passed a drill.');
    put('policies', overview.policies.length ? [table(['policy', 'engine', 'owner', 'schedule', 'keeps', 'objective', 'paused'], overview.policies.map((one) => [name(one.name), name(one.engine), name(one.owner), one.schedule, one.retention, one.objective, one.paused]), 'Policies as a table')] : [], 'There is no policy.');
    const links = [['sources', 'Sources'], ['plan', 'Plan'], ['rounds', 'Rounds'], ['drills', 'Drills'], ['policies', 'Policies']];
    get('nav').replaceChildren(...links.map(([id, text]) => make('a', { href: `#${id}` }, text)));
  }

  function show(text) {
    take(JSON.parse(text));
    const title = overview.name ? `stillframe ${overview.name}` : 'stillframe';
    document.title = title;
    get('title').replaceChildren(name(title));
    tell('');
    asOf();
    get('footer').replaceChildren(make('p', {}, 'Policies with the digest ', name(overview.policies_digest), '.'));
    states();
    options(get('by-policy'), 'all', overview.policies.map((one) => [one.name, one.name]));
    options(get('by-engine'), 'all', overview.engines.map((one) => [one.name, one.name]));
    get('token').hidden = true;
    get('sources').hidden = false;
    verdict();
    legend();
    const before = get('list').scrollTop;
    filter();
    get('list').scrollTop = before;
    render();
    sections();
  }

  function tell(text, style = '') {
    get('state').className = style;
    get('state').textContent = text;
  }

  // Whoever reads the page aloud is told what goes wrong, and not each minute that nothing does.
  function asOf() {
    const first = minutes(overview.at);
    get('as-of').textContent = `As of ${minute(seen)}${seen > first ? `; nothing has changed since ${minute(first).slice(0, 10) === minute(seen).slice(0, 10) ? clock(first) : minute(first)}` : ''}`;
  }

  // Who was asked says that nothing has changed.
  function confirm() {
    tell('');
    pass();
    seen = now;
    asOf();
  }

  function states() {
    options(get('by-state'), 'all', STATES.filter(([word]) => items.some((item) => item.state === word)).map(([word, label]) => [word, label]));
  }

  // Nothing new is known: only time has passed.
  function pass() {
    if (!overview) return;
    const then = minutes(overview.at) + Math.floor((Date.now() - taken) / 60000);
    if (then <= now) return;
    now = then;
    if (age()) {
      sort();
      states();
      sections();
    }
    verdict();
    const before = get('list').scrollTop;
    filter();
    get('list').scrollTop = before;
    render();
  }

  for (const id of ['by-state', 'by-policy', 'by-engine', 'span']) get(id).addEventListener('change', filter);
  get('search').addEventListener('input', filter);
  get('filter').addEventListener('submit', (event) => event.preventDefault());
  get('list').addEventListener('scroll', () => requestAnimationFrame(render), { passive: true });
  addEventListener('resize', () => requestAnimationFrame(render));

  const data = get('data');
  if (data) {
    show(data.textContent);
    return;
  }
  let token = '', etag = '';
  async function load() {
    try {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      if (etag) headers['If-None-Match'] = etag;
      const answer = await fetch('page.json', { headers, cache: 'no-store' });
      if (answer.status === 401) {
        get('token').hidden = false;
        tell(token ? 'That token is not the right one.' : 'A token is needed.');
        return;
      }
      if (answer.status === 304) {
        confirm();
        return;
      }
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      etag = answer.headers.get('ETag') || '';
      show(await answer.text());
    } catch (error) {
      pass();
      tell(`stillframe does not answer (${error.message})${overview ? `; what is shown is as of ${minute(seen)}` : ''}`, 'danger');
    }
  }
  get('token').addEventListener('submit', (event) => {
    event.preventDefault();
    token = get('secret').value.trim();
    load();
  });
  load();
  setInterval(() => { if (!document.hidden && get('token').hidden) load(); }, 30000);
})();
