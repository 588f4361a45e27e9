// The heads by size of effect: the mean with its interval, the direct part as a tick, a faint dot for each prompt, and
// what the effect is of the clean value.

const FIRST = 8;
const ORDERS = {
  'size of effect': (metric, state) => (a, b) => Math.abs(state.meanOf(metric, b)) - Math.abs(state.meanOf(metric, a)),
  'what helps first': (metric, state) => (a, b) => (metric.sense || 1) * (state.meanOf(metric, b) - state.meanOf(metric, a)),
  'what hurts first': (metric, state) => (a, b) => (metric.sense || 1) * (state.meanOf(metric, a) - state.meanOf(metric, b)),
  'size of direct effect': (metric, state) => (a, b) => Math.abs(state.directOf(metric, b)) - Math.abs(state.directOf(metric, a)),
  layer: () => () => 0,
};

function mountRanking(place, state) {
  let all = false, order = 'size of effect';
  const heads = headsOf(state);
  let shown = [];
  const key = make('span', { class: 'note' });
  const list = make('div', { class: 'ranking' });
  const holder = make('div', { class: 'scroll', tabindex: -1 }, list);
  const some = make('button', { type: 'button', class: 'tool', onclick: () => { all = !all; draw(); } });
  const orders = Object.keys(ORDERS).filter((name) => name !== 'size of direct effect' || state.data.metrics.some(({ direct }) => direct));
  const sort = select('Sort by', orders.map((name) => [name, name]), (name) => { order = name; draw(); });
  const tools = withFigureTools(list, { name: 'strongest_heads', caption: () => rankCaption(state), rows: () => [['head', 'mean', 'low', 'high', 'direct', 'p'], ...shown.map(({ head, mean, low, high, direct, claim }) => [named(head), mean, low === null ? '' : low, high === null ? '' : high, Number.isFinite(direct) ? direct : '', Number.isFinite(claim.p) ? claim.p : ''])] });
  place.append(make('div', { class: 'controls ranks' }, key, some, sort.label), holder, make('div', { class: 'foot' }, make('span'), tools));
  const draw = () => {
    const metric = state.metric(), known = heads.filter((head) => Number.isFinite(state.meanOf(metric, head)));
    const sorted = [...known].sort(ORDERS[order](metric, state)), spreads = new Map(metric.strongest.map((entry) => [named(entry.head), entry]));
    const rows = (all ? sorted : sorted.slice(0, FIRST)).map((head) => rankRow(state, metric, head, spreads.get(named(head))));
    shown = rows;
    const ends = rows.flatMap(({ mean, low, high, direct, values }) => [mean, low, high, direct, ...values]).filter(Number.isFinite);
    const low = Math.min(0, ...ends), high = Math.max(0, ...ends), span = high - low || 1;
    const x = (value) => 1 + ((value - low) / span) * 98 + '%';
    const places = decimals(rows.flatMap(({ mean, low, high }) => [mean, low, high]));
    for (const row of rows) row.places = places;
    key.textContent = ['● mean', rows.some((row) => row.low !== null) ? '― ' + (rows.find((row) => row.low !== null) || {}).kind : '', metric.direct ? '┊ direct' : '', '· one prompt', metric.tested ? '○ not shown' : ''].filter(Boolean).join('   ');
    some.textContent = all ? 'first ' + FIRST : 'all ' + known.length;
    some.hidden = known.length <= FIRST;
    sort.label.hidden = known.length <= 2;
    holder.classList.toggle('all', all);
    list.replaceChildren(...rows.flatMap((row) => drawRow(state, metric, row, x)), make('span'), rankAxis(low, high, x, metric), make('span'), make('span'));
    mark();
  };
  const mark = () => { for (const button of list.querySelectorAll('button')) button.setAttribute('aria-pressed', String(button.dataset.head === named(state.head))); };
  state.on('metric', draw);
  state.on('head', mark);
  draw();
}

function rankCaption(state) {
  const metric = state.metric();
  return 'The heads with the largest mean effects on ' + metric.name + (metric.units ? ' (' + metric.units + ')' : '') + ', with ' + state.data.interval + 's, over ' + state.data.prompts.length + ' prompts (faint dots)' + (metric.direct ? '; dashed: direct effects' : '') + (metric.tested ? '; hollow: not shown to have an effect' : '') + '.';
}

// The interval is the table's; without one, the standard error of those heads that the page holds one for.
function rankRow(state, metric, head, spread) {
  const claim = state.claimOf(metric, head), mean = state.meanOf(metric, head);
  const [low, high, kind] = Number.isFinite(claim.low) ? [claim.low, claim.high, state.data.interval] : spread && spread.low !== null ? [spread.low, spread.high, spread.kind] : [null, null, spread ? spread.kind : ''];
  return { head, mean, low, high, kind, claim, direct: state.directOf(metric, head), values: state.effectsOf(metric, head) };
}

function drawRow(state, metric, row, x) {
  const { head, mean, low, high, direct } = row, name = named(head), word = verdict(state, metric, head);
  const label = name + ' ' + word + ': mean effect ' + withUnit(mean, metric) + ' over ' + row.values.length + ' prompts' + claimText(state, metric, head) + (Number.isFinite(direct) ? ', direct ' + signed(direct) : '');
  const svg = makeSvg('svg', { class: sideClass(metric, mean) + (word === 'unsure' ? ' doubtful' : ''), role: 'img', 'aria-label': label, onclick: () => state.open(head) });
  svg.append(rule('0%', 12, '100%', 12, 'track'), rule(x(0), 0, x(0), 24, 'zero'));
  row.values.forEach((value, prompt) => {
    if (!Number.isFinite(value)) return;
    const dot = makeSvg('circle', { class: 'dot', cx: x(value), cy: 12 + jitter(prompt), r: 2.5, onclick: (event) => { event.stopPropagation(); state.open(head, prompt); } });
    dot.append(makeSvg('title', {}, 'prompt ' + prompt + ': ' + withUnit(value, metric)));
    svg.append(dot);
  });
  if (low !== null) svg.append(rule(x(low), 12, x(high), 12, 'range'));
  if (Number.isFinite(direct)) svg.append(rule(x(direct), 3, x(direct), 21, 'direct'));
  svg.append(makeSvg('circle', { class: 'mean', cx: x(mean), cy: 12, r: 5 }));
  const button = make('button', { type: 'button', class: 'link', 'data-head': name, onclick: () => state.open(head), 'aria-label': 'open ' + name }, name);
  const value = make('span', { class: 'value' }, fixed(mean, row.places, true) + ' ', make('small', {}, intervalText(row) + doubt(row.claim)));
  const percent = Math.round(100 * Math.abs(mean / metric.cleanMean));
  const share = metric.sense && percent < 1000 ? percent + ' % of clean' : word; // of a clean value near 0 it says nothing
  return [button, svg, value, make('span', { class: 'of-clean' }, share)];
}

function intervalText({ low, high, mean, kind, places }) {
  if (low === null) return kind;
  if (kind === 'standard error') return '± ' + Number((high - mean).toPrecision(2));
  return '[' + fixed(low, places) + ', ' + fixed(high, places) + ']';
}

function doubt({ p, shown }) {
  return !shown && Number.isFinite(p) ? ' p ' + chance(p) : '';
}

function rule(x1, y1, x2, y2, name) {
  return makeSvg('line', { x1, y1, x2, y2, class: name });
}

// Spread out dots that would cover each other; the height has no meaning.
function jitter(prompt) {
  return ((prompt * 7) % 5) * 2.6 - 5.2;
}

function rankAxis(low, high, x, metric) {
  const scale = make('div', { class: 'axis' });
  for (const value of niceTicks(low, high)) {
    const label = make('span', {}, (value > 0 ? '+' : value < 0 ? '−' : '') + Math.abs(value));
    label.style.left = x(value);
    scale.append(label);
  }
  return make('div', { class: 'axis-of' }, scale, make('div', {}, 'effect on ' + metric.name + (metric.units ? ', ' + metric.units : '')));
}
