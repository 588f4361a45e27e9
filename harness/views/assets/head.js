// One head on one prompt: the layer's heads as thumbnails, the picked one in CircuitsVis, its numbers beside it.

const QUICK = 100; // tokens that CircuitsVis draws in about a second

function mountHead(place, state) {
  const parts = {
    title: make('h3', { id: 'picked-in-layer', tabindex: -1 }),
    thumbs: make('div', { class: 'thumbs', role: 'group', 'aria-label': 'Heads of this layer' }),
    picture: make('div', { class: 'circuitsvis' }),
    facts: make('div', { 'aria-live': 'polite' }),
  };
  place.append(parts.title, parts.thumbs, make('div', { class: 'pair' }, parts.picture, parts.facts));
  let latest = 0;
  const draw = whenShown(place, state, async () => {
    const mine = ++latest;
    const matrices = await state.matrices();
    if (mine !== latest) return;
    const pattern = matrices && matrices.of(state.head);
    parts.title.textContent = named(state.head) + ' on prompt ' + state.prompt;
    drawThumbs(parts.thumbs, state, matrices);
    await drawPattern(parts.picture, state, pattern);
    if (mine === latest) parts.facts.replaceChildren(...headFacts(state, pattern));
  });
  for (const event of ['head', 'prompt', 'view', 'metric', 'colors']) state.on(event, draw);
  return draw();
}

function drawThumbs(place, state, matrices) {
  place.replaceChildren();
  for (const number of state.data.heads) {
    const head = [state.head[0], number, state.head[2]], pattern = matrices && matrices.of(head);
    if (!pattern) continue;
    const canvas = make('canvas', { 'aria-hidden': 'true' });
    const pressed = String(named(head) === named(state.head));
    place.append(make('button', { type: 'button', 'aria-pressed': pressed, 'aria-label': 'show ' + named(head), onclick: () => state.open(head, null, false) }, canvas, named(head)));
    paintPixels(canvas, pattern);
  }
}

function paintPixels(canvas, { weights, queries, keys }) {
  canvas.width = keys.length;
  canvas.height = queries.length;
  const pen = canvas.getContext('2d'), image = pen.createImageData(keys.length, queries.length);
  const [red, green, blue] = color('attention').match(/\w\w/g).map((part) => parseInt(part, 16));
  weights.forEach((weight, index) => {
    image.data.set([red, green, blue, Math.round(255 * Math.sqrt(weight))], index * 4);
  });
  pen.putImageData(image, 0, 0);
}

// CircuitsVis writes the same tokens on both sides: cross attention and learnt sinks are drawn here instead.
async function drawPattern(place, state, pattern) {
  if (!pattern) return place.replaceChildren(make('p', {}, notHeld(state)));
  const square = pattern.stack !== 'cross' && !state.data.sink && ['all', 'AA', 'BB'].includes(state.view.part);
  if (square && hasCircuitsVis() && pattern.queries.length <= QUICK) return showInCircuitsVis(place, state, pattern);
  drawLarge(place, state, pattern);
  if (square && hasCircuitsVis()) place.append(make('button', { type: 'button', class: 'plain', onclick: () => showInCircuitsVis(place, state, pattern) }, 'Draw all ' + pattern.queries.length + ' tokens in CircuitsVis (takes some seconds)'));
}

function hasCircuitsVis() {
  return typeof CircuitsVis !== 'undefined' || document.getElementById('circuitsvis') !== null;
}

// The library is packed in the page; the page's policy names its hash, and no other script would run.
async function loadCircuitsVis() {
  const packed = document.getElementById('circuitsvis');
  if (!packed) return;
  packed.remove();
  const script = make('script', {}, new TextDecoder().decode(await unpack(JSON.parse(packed.textContent))));
  document.head.append(script);
  script.remove();
}

// A pattern as one large matrix; the mouse and the arrow keys read its weights.
function drawLarge(place, state, pattern) {
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' }, 'Hover, or focus the matrix and use the arrow keys, to read a weight.');
  const canvas = make('canvas', { class: 'large', tabindex: 0, role: 'img', 'aria-label': 'Attention pattern of ' + named(state.head) + '; its numbers are in the table beside it. Arrow keys read it.' });
  const most = 1, { queries, keys } = pattern;
  let at = [0, 0];
  const read = (query, key) => {
    at = [Math.min(queries.length - 1, Math.max(0, query)), Math.min(keys.length - 1, Math.max(0, key))];
    drawMatrix(canvas, pattern, most, at);
    readout.textContent = fromTo(pattern, at) + pattern.weights[at[0] * keys.length + at[1]].toFixed(3);
  };
  canvas.addEventListener('pointermove', (event) => { const cell = cellAt(canvas, event, pattern); if (cell) read(...cell); });
  canvas.addEventListener('keydown', (event) => {
    const by = step(event);
    if (!by) return;
    event.preventDefault();
    read(at[0] + by[0], at[1] + by[1]);
  });
  place.replaceChildren(canvas, readout);
  drawMatrix(canvas, pattern, most, null);
}

async function showInCircuitsVis(place, state, { weights, queries, causal }) {
  await (state.library ||= loadCircuitsVis());
  const tokens = queries.map(({ text }) => cut(text, 18)), size = tokens.length;
  const attention = tokens.map((_, query) => Array.from(weights.subarray(query * size, (query + 1) * size), (weight) => Number(weight.toFixed(3))));
  const holder = make('div', { id: 'pattern' });
  const label = 'Attention pattern of ' + named(state.head) + '; its numbers are in the table beside it';
  const name = () => { for (const canvas of holder.querySelectorAll('canvas:not([aria-label])')) canvas.setAttribute('aria-label', label); };
  new MutationObserver(name).observe(holder, { childList: true, subtree: true });
  place.replaceChildren(holder);
  CircuitsVis.render('pattern', CircuitsVis.AttentionPattern, { tokens, attention, maskUpperTri: causal, positiveColor: '#4b3b8f', minValue: -1, maxValue: 1 });
}

function fromTo({ queries, keys }, [query, key]) {
  return 'from ' + quoted(queries[query], 24) + ' to ' + quoted(keys[key], 24) + ': ';
}

function headFacts(state, pattern) {
  const facts = [effectTable(state), whereItMatters(state), promptText(state)];
  if (pattern) facts.push(weightTable(state, pattern));
  return facts.filter(Boolean);
}

function effectTable(state) {
  if (!state.data.metrics.length) return null;
  const names = ['effect on', 'this prompt', 'mean of ' + state.data.prompts.length, 'so it', state.data.interval, 'max\u2011T\u00a0p'];
  const cells = state.data.metrics.map((metric) => effectCells(state, metric));
  const shown = names.map((_, index) => index).filter((index) => cells.some((row) => row[index]));
  const rows = cells.map((row) => make('tr', {}, ...shown.map((index) => make(index ? 'td' : 'th', index ? {} : { class: 'text', scope: 'row' }, row[index]))));
  const titles = shown.map((index) => make('th', { scope: 'col', class: index ? '' : 'text' }, names[index]));
  return make('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': 'Effects of this head' }, make('table', { class: 'numbers', id: 'effects-of-head' }, make('thead', {}, make('tr', {}, ...titles)), make('tbody', {}, ...rows)));
}

// The metric, the head's effect on this prompt and on average, the verdict, and the average's interval and p.
function effectCells(state, metric) {
  const mean = state.meanOf(metric, state.head), here = state.effectsOf(metric, state.head)[state.prompt];
  const claim = state.claimOf(metric, state.head);
  return [
    metric.name + (metric.unit ? ', ' + metric.unit : ''),
    Number.isFinite(here) ? signed(here) : plain(here),
    Number.isFinite(mean) ? signed(mean) : '',
    Number.isFinite(mean) ? verdict(state, metric, state.head) : '',
    Number.isFinite(claim.low) ? signed(claim.low) + ' to ' + signed(claim.high) : '',
    Number.isFinite(claim.p) ? chance(claim.p) : '',
  ];
}

// The prompts on which the head's effect is largest and smallest, each a button that opens it.
function whereItMatters(state) {
  const { prompts } = state.data;
  if (!state.data.metrics.length || prompts.length < 2) return null;
  const metric = state.metric(), effects = state.effectsOf(metric, state.head);
  const order = Array.from(prompts.keys()).filter((prompt) => Number.isFinite(effects[prompt])).sort((a, b) => Math.abs(effects[b]) - Math.abs(effects[a]));
  if (!order.length) return null;
  const link = (prompt) => make('li', {}, make('button', { type: 'button', class: 'link', 'aria-label': 'show prompt ' + prompt, onclick: () => state.setPrompt(prompt) }, String(prompt)), ' ' + signed(effects[prompt]) + ' ', make('bdi', { class: 'soft' }, cut(textOf(prompts[prompt]), 48)));
  const n = Math.min(3, Math.floor(order.length / 2));
  const list = (title, some) => make('div', {}, make('h3', {}, title), make('ul', { class: 'bare' }, ...some.map(link)));
  return make('div', { class: 'most-least' }, list('It matters most to ' + metric.name + ' on prompt', order.slice(0, n)), list('and least on', order.slice(-n).reverse()));
}

function promptText(state) {
  const prompt = state.data.prompts[state.prompt];
  const line = make('p', { class: 'tokens' });
  prompt.tokens.forEach((token, index) => {
    const scored = prompt.scored.includes(index);
    line.append(make('bdi', { class: scored ? 'scored' : null, title: 'position ' + index + (scored ? ', scored' : '') }, token));
  });
  const box = make('div', { style: 'margin-top:16px' }, make('h3', {}, 'Prompt ' + state.prompt));
  if (prompt.source) box.append(make('p', { class: 'tokens' }, 'reads: ', ...prompt.source.tokens.map((token) => make('bdi', {}, token))), 'writes:');
  box.append(line);
  const note = make('p', { class: 'note' });
  if (prompt.answer) note.append('Right answer: “', make('bdi', {}, cut(prompt.answer, 60)), '”. ');
  if (prompt.distractor) note.append('Wrong one: “', make('bdi', {}, cut(prompt.distractor, 60)), '”. ');
  if (prompt.scored.length) note.append('Thick underline: the prediction made there is scored.');
  box.append(note);
  return box;
}

function weightTable(state, { weights, queries, keys, causal }) {
  const details = make('details', {}, make('summary', {}, 'The weights as a table'));
  details.addEventListener('toggle', () => {
    if (!details.open || details.children.length > 1) return;
    const head = make('tr', {}, make('th', { class: 'text' }, 'query \\ key'), ...keys.map(({ text }) => make('th', { scope: 'col' }, cut(text, 12))));
    const rows = queries.map(({ text }, query) => make('tr', {}, make('th', { class: 'text', scope: 'row' }, cut(text, 20)), ...keys.map((_, key) => make('td', {}, causal && key > query ? '' : weights[query * keys.length + key].toFixed(3)))));
    const table = make('table', { class: 'numbers' }, make('thead', {}, head), make('tbody', {}, ...rows));
    details.append(withTools(table, named(state.head) + '-prompt-' + state.prompt), make('div', { class: 'tall', tabindex: 0, role: 'region', 'aria-label': 'Weights of ' + named(state.head) }, table));
  });
  return details;
}
