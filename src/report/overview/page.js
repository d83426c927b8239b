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
  const name = (text) => make('bdi', {}, text);
  const pad = (number) => String(number).padStart(2, '0');
  const minute = (minutes) => {
    const date = new Date(minutes * 60000);
    return `${date.getUTCFullYear()}-${pad(date.getUTCMonth() + 1)}-${pad(date.getUTCDate())} ${pad(date.getUTCHours())}:${pad(date.getUTCMinutes())}Z`;
  };
  const minutes = (text) => Math.floor(Date.parse(text) / 60000);
  const at = (text) => minute(minutes(text));
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
  // The colour of a restore point is that of the rule that keeps it longest.
  const LANES = [
    ['yearly', 'yearly'], ['monthly', 'monthly'], ['weekly', 'weekly'], ['daily', 'daily'],
    ['other', 'hourly, last or by age'], ['let-go', 'let go'], ['delete', 'predicted delete'], ['drill', 'drill passed'], ['next', 'next run'],
  ];

  let overview = null, items = [], shown = [], bits = {}, now = 0, taken = 0;

  const has = (point, word) => (point[1] >> bits[word] & 1) === 1;
  const lane = (point) => {
    if (has(point, 'let-go')) return 'let-go';
    return ['yearly', 'monthly', 'weekly', 'daily'].find((word) => has(point, word)) || 'other';
  };
  const rulesOf = (point) => overview.bits.filter((_, bit) => point[1] >> bit & 1).join(', ') || 'nothing';

  function take(document) {
    overview = document;
    now = minutes(overview.at);
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

  function legend() {
    get('legend').replaceChildren(...LANES.map(([word, text]) => {
      const mark = draw('svg', { viewBox: '0 0 10 10', 'aria-hidden': 'true' });
      mark.append(word === 'delete' ? draw('path', { d: 'M1 1 l8 8 m0 -8 l-8 8', class: word }) : draw('rect', { x: 1, y: 1, width: 8, height: 8, class: word }));
      return make('li', {}, mark, text);
    }));
  }

  function timeline(item) {
    const days = Number(get('span').value);
    const before = days * 1440, after = Math.max(before * 0.25, 2880), width = 1000;
    const x = (when) => (when - now + before) / (before + after) * width;
    const first = now - before;
    const svg = draw('svg', { viewBox: `0 0 ${width} 40`, preserveAspectRatio: 'none', role: 'img' });
    svg.append(draw('rect', { x: 0, y: 19.5, width, height: 1, class: 'axis' }));
    svg.append(draw('rect', { x: x(now), y: 2, width: 2, height: 36, class: 'now' }));
    const thick = Math.max(2, Math.min(8, width / (item.points.length * 2 + 10)));
    let inside = 0;
    for (const point of item.points) {
      if (point[0] < first) continue;
      inside += 1;
      const isSmall = has(point, 'not-ready');
      svg.append(draw('rect', { x: x(point[0]) - thick / 2, y: isSmall ? 17 : 8, width: thick, height: isSmall ? 6 : 24, class: lane(point) }));
      if (has(point, 'drilled')) svg.append(draw('rect', { x: x(point[0]) - thick / 2, y: 2, width: thick, height: 4, class: 'drill' }));
    }
    for (const [, when] of item.deletes) {
      if (when < first || when > now + after) continue;
      svg.append(draw('path', { d: `M${x(when) - 4} 30 l8 8 m0 -8 l-8 8`, class: 'delete' }));
    }
    if (item.next) {
      const next = x(minutes(item.next));
      if (next < width) svg.append(draw('rect', { x: next - 3, y: 8, width: 6, height: 24, class: 'next' }));
    }
    const earlier = item.points.length - inside;
    svg.setAttribute('aria-label', `${many(inside, 'restore point')} in ${days} days${earlier ? `, ${earlier} earlier` : ''}, ${many(item.deletes.length, 'predicted delete')}`);
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

  function row(item, position, height) {
    const state = stateOf[item.state] || { text: item.state, style: '' };
    const button = make('button', { type: 'button', title: item.name }, name(item.name || item.id));
    button.addEventListener('click', () => open(item));
    const what = item.policy ? make('span', { class: 'what dim' }, name(item.policy), ' on ', name(item.engine)) : make('span', { class: 'what dim' }, 'on ', name(item.engine));
    const element = make('div', { class: 'row', role: 'listitem', 'aria-posinset': position + 1, 'aria-setsize': shown.length },
      button, make('span', { class: `state ${state.style}` }, state.text), what, make('span', { class: 'when dim' }, about(item)));
    if (item.points.length || item.policy) element.append(timeline(item));
    element.style.top = `${position * height}px`;
    return element;
  }

  let drawn = '';
  function render() {
    const list = get('list'), rows = get('rows');
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const height = (matchMedia('(max-width: 48rem)').matches ? 6.5 : 4) * rem;
    rows.style.height = `${shown.length * height}px`;
    list.style.height = `min(70vh, 48rem, ${Math.max(1, shown.length) * height + 2}px)`;
    const first = Math.max(0, Math.floor(list.scrollTop / height) - 5);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / height) + 5);
    const wanted = `${first} ${last} ${height} ${get('span').value}`;
    if (wanted === drawn) return;
    drawn = wanted;
    const held = document.activeElement && document.activeElement.closest ? document.activeElement.closest('.row') : null;
    const focus = held ? held.getAttribute('aria-posinset') : null;
    const fresh = [];
    for (let position = first; position < last; position += 1) fresh.push(row(shown[position], position, height));
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
    get('list').scrollTop = 0;
    render();
  }

  function table(columns, rows, label) {
    const head = make('tr', {}, ...columns.map((column) => make('th', { scope: 'col' }, column)));
    const body = rows.map((cells) => make('tr', {}, ...cells.map((cell) => make('td', {}, cell))));
    const inside = make('table', {}, make('thead', {}, head), make('tbody', {}, ...body));
    return make('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': label }, inside);
  }

  function open(item) {
    const dialog = get('detail');
    const close = make('button', { type: 'button' }, 'Close');
    close.addEventListener('click', () => dialog.close());
    const facts = [['state', (stateOf[item.state] || item).text || item.state], ['engine', name(item.engine)], ['id', name(item.id)]];
    if (item.zone) facts.push(['zone', name(item.zone)]);
    if (item.policy) facts.push(['policy', name(item.policy)]);
    if (item.breach_at) facts.push(['objective', `${minutes(item.breach_at) <= now ? 'broken since' : 'kept until'} ${at(item.breach_at)}`]);
    if (item.next) facts.push(['next run', at(item.next)]);
    if (item.reason) facts.push(['why', name(item.reason)], ['who answers for it', name(item.owner)], ['until', at(item.until)]);
    if (item.excluded_by) facts.push(['excluded by', name(item.excluded_by)]);
    const deletes = new Map(item.deletes);
    const points = item.points.slice().reverse().map((point) => [minute(point[0]), span(now - point[0]), rulesOf(point), deletes.has(point[0]) ? minute(deletes.get(point[0])) : '']);
    const parts = [make('h2', { id: 'detail-title' }, name(item.name || item.id)), close, table(['', ''], facts, 'Facts')];
    if (points.length) parts.push(make('h3', {}, many(points.length, 'restore point')), table(['of', 'age', 'kept by', 'predicted delete'], points, 'Restore points'));
    if (item.policy) parts.push(make('p', { class: 'dim' }, 'Predicted deletes hold if nothing changes, and are those that come next; stillframe explain says them of every image.'));
    dialog.replaceChildren(...parts);
    // A head without words says nothing.
    dialog.querySelector('thead').remove();
    dialog.showModal();
  }

  function put(id, parts, empty) {
    const section = get(id);
    section.querySelector('.body').replaceChildren(...(parts.length ? parts : [make('p', { class: 'dim' }, empty)]));
    section.hidden = false;
  }

  function sections() {
    const plans = [];
    for (const engine of overview.engines) {
      const plan = engine.plan;
      plans.push(make('h3', {}, name(engine.name)), make('p', { class: 'dim' }, `Plan ${plan.id.slice(0, 12)}, seen ${at(engine.seen_at)}: ${many(plan.count, 'change')}${plan.count > plan.changes.length ? `, of which ${plan.changes.length} are shown` : ''}.`));
      if (plan.notes.length) plans.push(make('ul', {}, ...plan.notes.map((note) => make('li', { class: 'notice' }, name(note)))));
      if (plan.changes.length) plans.push(table(['action', 'source', 'policy', 'image', 'why'], plan.changes.map((one) => [make('span', one.action === 'delete' ? { class: 'danger' } : {}, one.action), name(one.source), name(one.policy), name(one.image), name(one.why)]), `Plan of ${engine.name}`));
    }
    put('plan', plans, 'Nothing was planned yet.');
    put('rounds', overview.rounds.length ? [table(['engine', 'began', 'ended', 'plan', 'to be done', 'came of it'], overview.rounds.map((one) => [name(one.engine), at(one.began_at), one.ended_at ? at(one.ended_at) : '', one.plan.slice(0, 12), one.planned, one.results]), 'Rounds as a table')] : [], 'No round is known.');
    const drills = overview.engines.flatMap((engine) => engine.drills.map((one) => [at(one.at), name(one.source), name(one.policy), name(one.image), name(engine.name)]));
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
    get('state').textContent = `As of ${at(overview.at)}`;
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
        get('state').textContent = token ? 'That token is not the right one.' : 'A token is needed.';
        return;
      }
      if (answer.status === 304) {
        pass();
        return;
      }
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      etag = answer.headers.get('ETag') || '';
      show(await answer.text());
    } catch (error) {
      pass();
      get('state').textContent = `stillframe does not answer (${error.message})${overview ? `; this is as of ${at(overview.at)}` : ''}`;
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
