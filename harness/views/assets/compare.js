// Rollout, mean pattern and one head on the same tokens, with one cursor for all three.

function mountCompare(place, state) {
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  const grid = make('div', { class: 'three' });
  const below = make('div');
  const controls = make('div', { class: 'controls' });
  if (state.data.offered.prompts.length > 1) controls.append(promptSelect(state).label);
  place.append(controls, grid, readout, below);
  let panels = [], cursor = [0, 0];
  const paint = () => panels.forEach((panel) => drawMatrix(panel.canvas, panel.weights, state.tokens(), panel.most, state.data.causal, cursor));
  const move = (query, key, said) => {
    const size = state.tokens().length;
    cursor = [Math.min(size - 1, Math.max(0, query)), Math.min(size - 1, Math.max(0, key))];
    paint();
    if (said) readout.textContent = cursorText(state, panels, cursor);
    below.replaceChildren(rowTable(state, panels, cursor[0]));
  };
  const draw = async () => {
    const matrices = await state.matrices();
    if (!matrices) {
      grid.replaceChildren(make('p', {}, 'This page does not hold the patterns of prompt ' + state.prompt + '. ' + state.leftOut));
      panels = [];
      below.replaceChildren();
      return;
    }
    panels = panelsOf(state, matrices).map((panel) => ({ ...panel, most: panel.weights.reduce((a, b) => Math.max(a, b), 0) }));
    grid.replaceChildren(...panels.map((panel) => panelFigure(panel, () => cursor, move)));
    const scored = state.data.prompts[state.prompt].scored, query = scored.length ? scored[scored.length - 1] : state.tokens().length - 1;
    readout.textContent = 'Hover, or focus a matrix and use the arrow keys, to read a cell in all of them; the table shows its row.';
    move(query, strongestKey(panels[0].weights, query, state.tokens().length), false);
  };
  for (const event of ['head', 'prompt', 'metric']) state.on(event, draw);
  state.on('colors', paint);
  window.addEventListener('resize', paint);
  draw();
}

function panelsOf(state, matrices) {
  const panels = [
    { name: 'Attention rollout', weights: matrices.rollout },
    { name: 'Mean pattern', weights: matrices.mean },
  ];
  const top = state.topHead(), weights = top && matrices.of(top);
  if (weights) panels.push({ name: named(top) + (state.data.metrics.length ? ', largest effect on ' + state.metric().name : ''), weights });
  return panels;
}

function panelFigure(panel, cursor, move) {
  const canvas = make('canvas', { tabindex: 0, role: 'img', 'aria-label': panel.name + ': a matrix of weights, query tokens down, key tokens across. Arrow keys read it.' });
  const read = (event) => {
    const { room, cell } = canvas.geometry, box = canvas.getBoundingClientRect();
    const query = Math.floor((event.clientY - box.top - room) / cell), key = Math.floor((event.clientX - box.left - room) / cell);
    if (query >= 0 && key >= 0 && (query !== cursor()[0] || key !== cursor()[1])) move(query, key, true);
  };
  canvas.addEventListener('pointermove', read);
  canvas.addEventListener('pointerdown', read);
  canvas.addEventListener('keydown', (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(cursor()[0] + step[0], cursor()[1] + step[1], true);
  });
  panel.canvas = canvas;
  return make('figure', {}, make('h3', {}, panel.name), canvas, make('figcaption', {}, 'darkest = ' + panel.most.toFixed(2) + '; shade by square root'));
}

function cursorText(state, panels, [query, key]) {
  const tokens = state.tokens(), size = tokens.length;
  const where = 'from “' + cut(tokens[query], 24) + '” (' + query + ') to “' + cut(tokens[key], 24) + '” (' + key + '): ';
  return where + panels.map((panel) => panel.name.split(',')[0] + ' ' + panel.weights[query * size + key].toFixed(3)).join(' · ');
}

function strongestKey(weights, query, size) {
  let best = 0;
  for (let key = 1; key < size; key++) if (weights[query * size + key] > weights[query * size + best]) best = key;
  return best;
}

function rowTable(state, panels, query) {
  const tokens = state.tokens(), size = tokens.length, last = state.data.causal ? query : size - 1;
  const shown = Array.from({ length: last + 1 }, (_, key) => key)
    .sort((a, b) => largest(panels, query * size + b) - largest(panels, query * size + a)).slice(0, 12);
  const titles = [make('th', { scope: 'col', class: 'text' }, 'to token'), ...panels.map((panel) => make('th', { scope: 'col' }, panel.name.split(',')[0]))];
  const rows = shown.map((key) => make('tr', {}, make('th', { class: 'text', scope: 'row' }, make('bdi', {}, cut(tokens[key], 24)), ' (' + key + ')'), ...panels.map((panel) => weightCell(panel.weights[query * size + key]))));
  const scored = state.data.prompts[state.prompt].scored.includes(query) ? ', whose prediction is scored' : '';
  const title = make('h3', {}, 'From “', make('bdi', {}, cut(tokens[query], 30)), '” (position ' + query + scored + ')' + (last >= 12 ? ': the 12 largest in any of them' : ''));
  return make('div', {}, title, make('div', { class: 'scroll' }, make('table', { class: 'numbers' }, make('thead', {}, make('tr', {}, ...titles)), make('tbody', {}, ...rows))));
}

function largest(panels, index) {
  return Math.max(...panels.map((panel) => panel.weights[index]));
}

function weightCell(weight) {
  const bar = make('span', { class: 'bar', 'aria-hidden': 'true' });
  bar.style.width = Math.round(weight * 70) + 'px';
  const shown = weight > 0 && weight < 0.0005 ? '<0.001' : weight.toFixed(3);
  return make('td', {}, make('span', { class: 'track' }, bar), ' ' + shown);
}
