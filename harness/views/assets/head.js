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
  const { layers, heads, prompts } = state.data.offered;
  const layer = select('Layer', layers.map((value) => [value, 'Layer ' + value]), (value) => state.open([Number(value), state.head[1]], null, false));
  const head = select('Head', heads.map((value) => [value, 'Head ' + value]), (value) => state.open([state.head[0], Number(value)], null, false));
  const prompt = promptSelect(state);
  const sync = () => { layer.box.value = state.head[0]; head.box.value = state.head[1]; };
  state.on('head', sync);
  sync();
  const wanted = [[layers, layer], [heads, head], [prompts, prompt]].filter(([choices]) => choices.length > 1);
  return make('div', { class: 'controls' }, ...wanted.map(([, control]) => control.label));
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
  const box = make('select', { onchange: (event) => changed(event.target.value) });
  for (const [value, text] of options) box.append(make('option', { value }, text));
  return { box, label: make('label', {}, name, box) };
}

function drawThumbs(place, state, matrices) {
  place.replaceChildren();
  for (const number of state.data.heads) {
    const head = [state.head[0], number], weights = matrices && matrices.of(head);
    if (!weights) continue;
    const canvas = make('canvas', { 'aria-hidden': 'true' });
    const pressed = String(named(head) === named(state.head));
    place.append(make('button', { type: 'button', 'aria-pressed': pressed, 'aria-label': 'show ' + named(head), onclick: () => state.open(head, null, false) }, canvas, named(head)));
    paintPixels(canvas, weights, state.tokens().length);
  }
}

function paintPixels(canvas, weights, size) {
  canvas.width = canvas.height = size;
  const pen = canvas.getContext('2d'), image = pen.createImageData(size, size);
  weights.forEach((weight, index) => {
    image.data.set([29, 92, 150, Math.round(255 * Math.sqrt(weight))], index * 4);
  });
  pen.putImageData(image, 0, 0);
}

function drawPattern(place, state, weights) {
  place.replaceChildren();
  if (!weights) {
    place.append(make('p', {}, 'This page does not hold the pattern of ' + named(state.head) + ' on prompt ' + state.prompt + '. ' + state.leftOut));
    return;
  }
  const draw = () => showInCircuitsVis(place, state, weights);
  if (state.tokens().length <= QUICK) return draw();
  place.append(make('button', { type: 'button', class: 'plain', onclick: draw }, 'Draw all ' + state.tokens().length + ' tokens in CircuitsVis (takes some seconds)'));
}

function showInCircuitsVis(place, state, weights) {
  const tokens = state.tokens().map((token) => cut(token, 18)), size = tokens.length;
  const attention = tokens.map((_, query) => Array.from(weights.subarray(query * size, (query + 1) * size), (weight) => Number(weight.toFixed(3))));
  const holder = make('div', { id: 'pattern' });
  holder.setAttribute('role', 'img');
  holder.setAttribute('aria-label', 'Attention pattern of ' + named(state.head) + '; its numbers are in the table beside it');
  place.replaceChildren(holder);
  CircuitsVis.render('pattern', CircuitsVis.AttentionPattern, { tokens, attention, maskUpperTri: state.data.causal, positiveColor: '#1d5c96', minValue: -1, maxValue: 1 });
}

function headFacts(state, weights) {
  const facts = [effectTable(state), promptText(state)];
  if (weights) facts.push(weightTable(state, weights));
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
  const box = make('div', { style: 'margin-top:16px' }, make('h3', {}, 'Prompt ' + state.prompt), line);
  const note = make('p', { class: 'note' });
  if (prompt.answer) note.append('Right answer: “', make('bdi', {}, cut(prompt.answer, 60)), '”. ');
  if (prompt.distractor) note.append('Wrong one: “', make('bdi', {}, cut(prompt.distractor, 60)), '”. ');
  if (prompt.scored.length) note.append('Thick underline: the prediction made there is scored.');
  box.append(note);
  return box;
}

function weightTable(state, weights) {
  const tokens = state.tokens(), size = tokens.length;
  const details = make('details', {}, make('summary', {}, 'The weights as a table'));
  details.addEventListener('toggle', () => {
    if (!details.open || details.children.length > 1) return;
    const head = make('tr', {}, make('th', { class: 'text' }, 'query \\ key'), ...tokens.map((token) => make('th', { scope: 'col' }, cut(token, 12))));
    const rows = tokens.map((token, query) => make('tr', {}, make('th', { class: 'text', scope: 'row' }, cut(token, 20)), ...tokens.map((_, key) => make('td', {}, state.data.causal && key > query ? '' : weights[query * size + key].toFixed(3)))));
    details.append(make('div', { class: 'tall', tabindex: 0 }, make('table', { class: 'numbers' }, make('thead', {}, head), make('tbody', {}, ...rows))));
  });
  return details;
}
