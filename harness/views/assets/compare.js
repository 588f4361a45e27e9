// Rollout, mean pattern and one head on the same tokens, with one cursor for all three.

function mountCompare(place, state) {
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  const grid = make('div', { class: 'three' });
  const below = make('div');
  const collapsed = make('p', { class: 'note' });
  const tools = withFigureTools(grid, { name: () => 'rollout_prompt_' + state.prompt, caption: () => panels.map(({ name }) => name).join(', ') + ' on “' + textOf(state.data.prompts[state.prompt]).trim() + '”, shade by square root. ' + viewNote(state), rows: () => panels.flatMap(({ name, pattern }) => patternRows(pattern).map((row, at) => [at ? name : 'matrix', ...row])) });
  place.append(collapsed, grid, make('div', { class: 'foot' }, readout, tools), below);
  let panels = [], attributions = null, cursor = [0, 0], latest = 0;
  const paint = () => panels.forEach((panel) => drawMatrix(panel.canvas, panel.pattern, panel.most, cursor));
  const move = (query, key, announce) => {
    const { queries, keys } = panels[0].pattern;
    cursor = [Math.min(queries.length - 1, Math.max(0, query)), Math.min(keys.length - 1, Math.max(0, key))];
    paint();
    if (announce) readout.textContent = cursorText(state, panels, cursor);
    below.replaceChildren(rowTable(state, panels, causesAt(state, panels, attributions, cursor[0]), cursor[0]));
  };
  const draw = whenShown(place, state, async () => {
    const mine = ++latest, matrices = await state.matrices(), scores = await state.sources();
    if (mine !== latest) return;
    attributions = scores;
    if (!matrices) {
      grid.replaceChildren(make('p', {}, notHeld(state)));
      panels = [];
      below.replaceChildren();
      return;
    }
    panels = panelsOf(state, matrices).map((panel) => ({ ...panel, most: 1 }));
    collapsed.replaceChildren(...collapseOf(state, panels));
    grid.replaceChildren(...panels.map((panel) => panelFigure(panel, () => cursor, move)));
    const { queries } = panels[0].pattern, { scored } = state.data.prompts[state.prompt];
    const query = Math.max(0, scored.length ? queries.findLastIndex(({ at }) => at.includes(scored[scored.length - 1])) : queries.length - 1);
    if (!queries.length || !panels[0].pattern.keys.length) return;
    readout.textContent = 'Hover, or focus a matrix and use the arrow keys, to read a cell in all of them; the table shows its row.';
    move(query, strongestKey(panels[0].pattern, query), false);
  });
  for (const event of ['head', 'prompt', 'metric', 'view']) state.on(event, draw);
  state.on('colors', paint);
  window.addEventListener('resize', paint);
  return draw();
}

// A sentence where the first token takes most of rollout or of the mean: a picture of them is one dark column.
function collapseOf(state, panels) {
  const shares = panels.slice(0, 2).map(({ name, pattern }) => ({ name, share: sinkShare(pattern) })).filter(({ share }) => share >= COLLAPSED);
  if (!state.view.sink || !shares.length) return [];
  const hide = make('button', { type: 'button', class: 'link', onclick: () => state.setView({ sink: false }) }, 'Hide it');
  return [shares.map(({ name, share }) => name + ' has collapsed onto the first token, which takes ' + Math.round(100 * share) + ' % of a row on average').join('; ') + '. ', hide];
}

// Compared patterns have the same tokens; in an encoder-decoder they are cross attention.
function panelsOf(state, matrices) {
  const panels = [];
  if (matrices.rollout) panels.push({ name: 'Attention rollout', pattern: matrices.rollout });
  panels.push({ name: matrices.rollout ? 'Mean pattern' : 'Mean cross pattern', pattern: matrices.mean });
  const same = (head) => head[2] === matrices.mean.stack;
  const tops = state.data.metrics.length ? state.metric().strongest.map((each) => each.head).filter(same) : [state.head].filter(same);
  for (const top of tops.slice(0, 2)) {
    const pattern = matrices.of(top);
    if (pattern) panels.push({ name: named(top) + (state.data.metrics.length ? (top === tops[0] ? ', largest effect on ' : ', next on ') + state.metric().name : ''), pattern });
  }
  return panels;
}

function panelFigure(panel, cursor, move) {
  const canvas = make('canvas', { tabindex: 0, role: 'img', 'aria-label': panel.name + ': a matrix of weights, query tokens down, key tokens across. Arrow keys read it.' });
  const read = (event) => {
    const at = cellAt(canvas, event, panel.pattern);
    if (at && (at[0] !== cursor()[0] || at[1] !== cursor()[1])) move(...at, true);
  };
  canvas.addEventListener('pointermove', read);
  canvas.addEventListener('pointerdown', read);
  canvas.addEventListener('keydown', (event) => {
    const by = step(event);
    if (!by) return;
    event.preventDefault();
    move(cursor()[0] + by[0], cursor()[1] + by[1], true);
  });
  panel.canvas = canvas;
  return make('figure', {}, make('h3', {}, panel.name), canvas, make('figcaption', {}, 'shade by square root, 0 to 1'));
}

function cursorText(state, panels, [query, key]) {
  const { keys } = panels[0].pattern;
  return fromTo(panels[0].pattern, [query, key]) + panels.map(({ name, pattern }) => name.split(',')[0] + ' ' + pattern.weights[query * keys.length + key].toFixed(3)).join(' · ');
}

function strongestKey({ weights, keys }, query) {
  let best = 0;
  for (let key = 1; key < keys.length; key++) if (weights[query * keys.length + key] > weights[query * keys.length + best]) best = key;
  return best;
}

// The causes of the prediction made at a query (or of the whole text's vector), one column each: { name, score: key => number }.
function causesAt(state, panels, attributions, query) {
  const { queries, keys } = panels[0].pattern, of = panels[0].pattern.stack === 'cross' ? 'source' : 'scores';
  const target = attributions && (attributions.whole ? attributions.targets[0] : attributions.targets.find((at) => queries[query].at.includes(at)));
  if (!attributions || target === undefined) return [];
  return attributions.names.map((name, row) => ({ name: name + ' (cause)', row })).filter(({ row }) => attributions.isCause(row))
    .map(({ name, row }) => ({ name, score: (key) => (keys[key].sink ? NaN : attributions.score(row, target, keys[key], of)) }));
}

function rowTable(state, panels, causes, query) {
  const { queries, keys, causal } = panels[0].pattern, last = causal ? query : keys.length - 1;
  const largestCause = causes.map(({ score }) => largest(keys.map((_, key) => score(key)).filter(Number.isFinite)) || 1);
  const most = (key) => Math.max(...panels.map(({ pattern }) => pattern.weights[query * keys.length + key]), ...causes.map(({ score }, at) => (Math.abs(score(key)) || 0) / largestCause[at]));
  const shown = Array.from({ length: last + 1 }, (_, key) => key).sort((a, b) => most(b) - most(a)).slice(0, 12);
  const titles = [make('th', { scope: 'col', class: 'text' }, 'to token'), ...panels.map((panel) => make('th', { scope: 'col' }, panel.name.split(',')[0])), ...causes.map(({ name }) => make('th', { scope: 'col' }, name))];
  const rows = shown.map((key) => make('tr', {}, make('th', { class: 'text', scope: 'row' }, make('bdi', {}, cut(keys[key].text, 24)), keys[key].sink ? '' : ' (' + keys[key].at[0] + ')'), ...panels.map(({ pattern }) => weightCell(pattern.weights[query * keys.length + key])), ...causes.map(({ score }, at) => causeCell(score(key), largestCause[at]))));
  const scored = queries[query].at.some((at) => state.data.prompts[state.prompt].scored.includes(at)) ? ', whose prediction is scored' : '';
  const title = make('h3', {}, 'From “', make('bdi', {}, cut(queries[query].text, 30)), '” (' + whereOf(queries[query]) + scored + ')' + (last >= 12 ? ': the 12 largest in any of them' : ''));
  const table = make('table', { class: 'numbers' }, make('thead', {}, make('tr', {}, ...titles)), make('tbody', {}, ...rows));
  return make('div', {}, title, make('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': 'Weights of the row, token by token' }, table), withTools(table, 'prompt-' + state.prompt + '-row-' + query));
}

function causeCell(score, most) {
  const bar = make('span', { class: 'bar' + (score < 0 ? ' against' : ''), 'aria-hidden': 'true' });
  bar.style.width = Math.round((Math.abs(score) / most || 0) * 70) + 'px';
  return make('td', {}, make('span', { class: 'track' }, bar), ' ' + (Number.isFinite(score) ? signed(score) : ''));
}

function weightCell(weight) {
  const bar = make('span', { class: 'bar', 'aria-hidden': 'true' });
  bar.style.width = Math.round(weight * 70) + 'px';
  const shown = weight > 0 && weight < 0.0005 ? '<0.001' : weight.toFixed(3);
  return make('td', {}, make('span', { class: 'track' }, bar), ' ' + shown);
}
