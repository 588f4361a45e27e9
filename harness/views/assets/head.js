// One head on one prompt: the layer's heads as thumbnails, the picked one in CircuitsVis, its numbers beside it.

const QUICK = 160; // tokens that CircuitsVis draws in about a second

function mountHead(place, state) {
  const parts = {
    title: make('h3', { id: 'picked', tabindex: -1 }),
    thumbs: make('div', { class: 'thumbs', role: 'group', 'aria-label': 'Heads of this layer' }),
    picture: make('div', { class: 'circuitsvis' }),
    facts: make('div', { 'aria-live': 'polite' }),
  };
  place.append(headControls(state), parts.title, parts.thumbs, make('div', { class: 'pair' }, parts.picture, parts.facts));
  let latest = 0;
  const draw = async () => {
    const mine = ++latest;
    const matrices = await state.matrices();
    if (mine !== latest) return;
    parts.title.textContent = named(state.head) + ' on prompt ' + state.prompt;
    drawThumbs(parts.thumbs, state, matrices);
    drawPattern(parts.picture, state, matrices && matrices.of(state.head));
    parts.facts.replaceChildren(...headFacts(state, matrices && matrices.of(state.head)));
  };
  for (const event of ['head', 'prompt', 'colors']) state.on(event, draw);
  draw();
}

function headControls(state) {
  const { layers, prompts } = state.data.offered, { stacks, heads } = state.data;
  const controls = make('div', { class: 'controls' });
  const fill = () => {
    const here = layers || state.stack(state.head[2]).layers;
    const choices = [
      ['Stack', layers ? [] : stacks.map(({ name }) => [name, name]), 2],
      ['Layer', here.map((value) => [value, 'Layer ' + value]), 0],
      ['Head', heads.map((value) => [value, 'Head ' + value]), 1],
    ].filter(([, options]) => options.length > 1);
    controls.replaceChildren(...choices.map(([name, options, at]) => {
      const { box, label } = select(name, options, (value) => state.open(moved(state, at, at === 2 ? value : Number(value)), null, false));
      box.value = state.head[at];
      return label;
    }), ...(prompts.length > 1 ? [prompt.label] : []));
  };
  const prompt = promptSelect(state);
  state.on('head', () => {
    const name = controls.contains(document.activeElement) && document.activeElement.dataset.name;
    fill();
    if (name) controls.querySelector('[data-name="' + name + '"]').focus();
  });
  fill();
  return controls;
}

// The picked head with another stack, layer or number; a stack that has fewer layers gives its last.
function moved(state, at, value) {
  const head = [...state.head];
  head[at] = value;
  head[0] = Math.min(head[0], Math.max(...state.stack(head[2]).layers));
  return head;
}

function promptSelect(state) {
  const options = state.data.offered.prompts.map((index) => [index, index + ': ' + cut(state.data.prompts[index].tokens.join(''), 90)]);
  const prompt = select('Prompt', options, (value) => state.setPrompt(Number(value)));
  const sync = () => { prompt.box.value = state.prompt; };
  state.on('prompt', sync);
  sync();
  return prompt;
}

function select(name, options, changed) {
  const box = make('select', { 'data-name': name, onchange: (event) => changed(event.target.value) });
  for (const [value, text] of options) box.append(make('option', { value }, text));
  return { box, label: make('label', {}, name, box) };
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
  weights.forEach((weight, index) => {
    image.data.set([29, 92, 150, Math.round(255 * Math.sqrt(weight))], index * 4);
  });
  pen.putImageData(image, 0, 0);
}

// CircuitsVis writes the same tokens on both sides; what reads another text is drawn by us.
function drawPattern(place, state, pattern) {
  place.replaceChildren();
  if (!pattern) {
    place.append(make('p', {}, 'This page does not hold the pattern of ' + named(state.head) + ' on prompt ' + state.prompt + '. ' + state.leftOut));
    return;
  }
  if (pattern.stack === 'cross') return drawLarge(place, state, pattern);
  const draw = () => showInCircuitsVis(place, state, pattern);
  if (pattern.queries.length <= QUICK) return draw();
  place.append(make('button', { type: 'button', class: 'plain', onclick: draw }, 'Draw all ' + pattern.queries.length + ' tokens in CircuitsVis (takes some seconds)'));
}

// A pattern as one large matrix; the mouse and the arrow keys read its weights.
function drawLarge(place, state, pattern) {
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' }, 'Hover, or focus the matrix and use the arrow keys, to read a weight.');
  const canvas = make('canvas', { class: 'large', tabindex: 0, role: 'img', 'aria-label': 'Attention pattern of ' + named(state.head) + '; its numbers are in the table beside it. Arrow keys read it.' });
  const most = pattern.weights.reduce((a, b) => Math.max(a, b), 0), { queries, keys } = pattern;
  let at = [0, 0];
  const read = (query, key) => {
    at = [Math.min(queries.length - 1, Math.max(0, query)), Math.min(keys.length - 1, Math.max(0, key))];
    drawMatrix(canvas, pattern, most, at);
    readout.textContent = 'from “' + cut(queries[at[0]], 24) + '” (' + at[0] + ') to “' + cut(keys[at[1]], 24) + '” (' + at[1] + '): ' + pattern.weights[at[0] * keys.length + at[1]].toFixed(3);
  };
  canvas.addEventListener('pointermove', (event) => { const cell = cellAt(canvas, event, pattern); if (cell) read(...cell); });
  canvas.addEventListener('keydown', (event) => {
    const by = step(event);
    if (!by) return;
    event.preventDefault();
    read(at[0] + by[0], at[1] + by[1]);
  });
  place.append(canvas, readout);
  drawMatrix(canvas, pattern, most, null);
}

function showInCircuitsVis(place, state, { weights, queries, causal }) {
  const tokens = queries.map((token) => cut(token, 18)), size = tokens.length;
  const attention = tokens.map((_, query) => Array.from(weights.subarray(query * size, (query + 1) * size), (weight) => Number(weight.toFixed(3))));
  const holder = make('div', { id: 'pattern' });
  holder.setAttribute('role', 'img');
  holder.setAttribute('aria-label', 'Attention pattern of ' + named(state.head) + '; its numbers are in the table beside it');
  place.replaceChildren(holder);
  CircuitsVis.render('pattern', CircuitsVis.AttentionPattern, { tokens, attention, maskUpperTri: causal, positiveColor: '#1d5c96', minValue: -1, maxValue: 1 });
}

function headFacts(state, pattern) {
  const facts = [effectTable(state), promptText(state)];
  if (pattern) facts.push(weightTable(pattern));
  return facts.filter(Boolean);
}

function effectTable(state) {
  if (!state.data.metrics.length) return null;
  const names = ['effect on', 'this prompt', 'mean of ' + state.data.prompts.length, 'so it', state.data.interval, 'max\u2011T\u00a0p'];
  const cells = state.data.metrics.map((metric) => effectCells(state, metric));
  const shown = names.map((_, index) => index).filter((index) => cells.some((row) => row[index]));
  const rows = cells.map((row) => make('tr', {}, ...shown.map((index) => make(index ? 'td' : 'th', index ? {} : { class: 'text', scope: 'row' }, row[index]))));
  const titles = shown.map((index) => make('th', { scope: 'col', class: index ? '' : 'text' }, names[index]));
  return make('div', { class: 'scroll' }, make('table', { class: 'numbers', id: 'effects-of-head' }, make('thead', {}, make('tr', {}, ...titles)), make('tbody', {}, ...rows)));
}

// The metric, its effect here and on average, the word for that, and what is claimed of the average.
function effectCells(state, metric) {
  const mean = state.meanOf(metric, state.head), here = state.effectsOf(metric, state.head)[state.prompt];
  const claim = state.claimOf(metric, state.head);
  return [
    metric.name + (metric.unit ? ', ' + metric.unit : ''),
    Number.isFinite(here) ? signed(here) : plain(here),
    Number.isFinite(mean) ? signed(mean) : '',
    !Number.isFinite(mean) ? '' : claim.doubtful ? 'unsure' : verdict(metric, mean),
    Number.isFinite(claim.low) ? signed(claim.low) + ' to ' + signed(claim.high) : '',
    Number.isFinite(claim.p) ? chance(claim.p) : '',
  ];
}

function promptText(state) {
  const prompt = state.data.prompts[state.prompt];
  const line = make('p', { class: 'tokens' });
  prompt.tokens.forEach((token, index) => {
    const scored = prompt.scored.includes(index);
    line.append(make('bdi', { class: scored ? 'scored' : null, title: 'position ' + index + (scored ? ', scored' : '') }, token));
  });
  const box = make('div', { style: 'margin-top:16px' }, make('h3', {}, 'Prompt ' + state.prompt));
  if (prompt.source) box.append(make('p', { class: 'tokens' }, 'reads: ', ...prompt.source.map((token) => make('bdi', {}, token))), 'writes:');
  box.append(line);
  const note = make('p', { class: 'note' });
  if (prompt.answer) note.append('Right answer: “', make('bdi', {}, cut(prompt.answer, 60)), '”. ');
  if (prompt.distractor) note.append('Wrong one: “', make('bdi', {}, cut(prompt.distractor, 60)), '”. ');
  if (prompt.scored.length) note.append('Thick underline: the prediction made there is scored.');
  box.append(note);
  return box;
}

function weightTable({ weights, queries, keys, causal }) {
  const details = make('details', {}, make('summary', {}, 'The weights as a table'));
  details.addEventListener('toggle', () => {
    if (!details.open || details.children.length > 1) return;
    const head = make('tr', {}, make('th', { class: 'text' }, 'query \\ key'), ...keys.map((token) => make('th', { scope: 'col' }, cut(token, 12))));
    const rows = queries.map((token, query) => make('tr', {}, make('th', { class: 'text', scope: 'row' }, cut(token, 20)), ...keys.map((_, key) => make('td', {}, causal && key > query ? '' : weights[query * keys.length + key].toFixed(3)))));
    details.append(make('div', { class: 'tall', tabindex: 0 }, make('table', { class: 'numbers' }, make('thead', {}, head), make('tbody', {}, ...rows))));
  });
  return details;
}
