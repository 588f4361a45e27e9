// One head on one prompt, beside everything else: its effect, the text shaded by what a token looks at, its pattern with
// the cause of each token beside the rows, and a second head or prompt to compare it with.

const TALLEST = 380;   // pixels of a pattern
const MOST_LINES = 200; // tokens that lines are drawn for
const COLLAPSED = 0.5;  // of the mean share of the first token: the sink is offered to be hidden

function mountInspector(place, state) {
  const parts = {
    name: make('h2', { id: 'picked', tabindex: -1 }),
    chips: make('span', { class: 'chips' }),
    facts: make('div', { class: 'facts', 'aria-live': 'polite' }),
    prompt: make('div', { class: 'prompt-line' }),
    tokens: make('p', { class: 'tokens shaded' }),
    modes: make('div', { class: 'controls modes' }),
    note: make('p', { class: 'note' }),
    stage: make('div', { class: 'pattern-stage' }),
    readout: make('p', { class: 'readout', 'aria-live': 'polite' }),
    pinned: make('div', { class: 'pinned' }),
    more: make('details', { class: 'all-numbers' }, make('summary', {}, 'All numbers of this head')),
  };
  const bar = make('div', { class: 'inspector-bar' }, parts.name, moveButtons(state), parts.chips);
  const sheet = make('button', { type: 'button', class: 'sheet', 'aria-expanded': 'false', onclick: () => unfold(!place.classList.contains('unfolded')) }, 'Show the pattern');
  const unfold = (on) => { place.classList.toggle('unfolded', on); sheet.setAttribute('aria-expanded', String(on)); sheet.textContent = on ? 'Close' : 'Show the pattern'; if (on) drawPatterns(); };
  let latest = 0, pattern = null, causes = null;
  const tools = withFigureTools(parts.stage, { name: () => named(state.head) + '_prompt_' + state.prompt, caption: () => patternCaption(state), rows: () => patternRows(pattern) });
  const foot = make('div', { class: 'foot' }, parts.readout, tools);
  const body = make('div', { class: 'inspector-body' }, parts.prompt, parts.tokens, parts.modes, parts.note, parts.stage, foot, parts.pinned, parts.more);
  place.append(bar, parts.facts, sheet, body);
  const held = Object.keys(state.data.patterns).length > 0;
  if (held) modesOf(parts.modes, state);
  tools.hidden = !held;
  const drawHead = () => {
    parts.name.textContent = named(state.head);
    parts.chips.replaceChildren(...chipsOf(state));
    parts.facts.replaceChildren(...factsOf(state));
  };
  const paint = () => {
    paintTokens(parts, state, pattern);
    paintStage(parts, state, pattern, causes);
  };
  const drawPatterns = async () => {
    const mine = ++latest;
    const [matrices, sources] = await Promise.all([state.matrices(), state.sources()]);
    if (mine !== latest) return;
    const valued = state.how === 'values' && matrices ? matrices.values(state.head) : null;
    pattern = valued || (matrices && matrices.of(state.head));
    causes = pattern && sources ? causesOf(state, pattern, sources) : null;
    drawPrompt(parts.prompt, state, pattern);
    drawNote(parts.note, state, pattern, valued);
    paint();
    await drawPinned(parts.pinned, state, pattern);
    if (mine === latest) fillMore(parts.more, state, pattern);
  };
  const draw = () => { drawHead(); return drawPatterns(); };
  for (const event of ['head', 'prompt', 'metric']) state.on(event, draw);
  for (const event of ['view', 'how', 'pinned', 'row']) state.on(event, drawPatterns);
  state.on('colors', paint);
  state.on('opened', () => { if (window.matchMedia('(max-width: 820px)').matches) unfold(true); });
  new ResizeObserver(() => paintStage(parts, state, pattern, causes)).observe(place);
  return draw();
}

function patternCaption(state) {
  return 'Attention pattern of ' + named(state.head) + ' on “' + textOf(state.data.prompts[state.prompt]).trim() + '”: queries down, keys across, shade by square root' + (state.how === 'values' ? ', weights times the norms of the values' : '') + '. ' + viewNote(state);
}

function patternRows(pattern) {
  if (!pattern) return [];
  return [['query \\ key', ...pattern.keys.map(({ text }) => text)], ...pattern.queries.map(({ text }, row) => [text, ...pattern.weights.subarray(row * pattern.keys.length, (row + 1) * pattern.keys.length)])];
}

function moveButtons(state) {
  const go = (label, sign, by) => make('button', { type: 'button', class: 'tool', 'aria-label': label, title: label, onclick: () => stepHead(state, by) }, sign);
  const pin = make('button', { type: 'button', class: 'tool', title: 'keep this head and prompt beside the next (p)', onclick: () => pinHere(state) }, '+ compare');
  const other = make('button', { type: 'button', class: 'tool', title: 'this head in the other model', onclick: () => state.set('pinned', state.pinned && state.pinned.other ? null : { other: true }) }, 'other model');
  return make('span', { class: 'moves' }, go('layer before', '◀', [0, -1]), go('next layer', '▶', [0, 1]), go('head before', '▲', [-1, 0]), go('next head', '▼', [1, 0]), pin, ...(Object.keys(state.data.others).length ? [other] : []));
}

// Pin the head and prompt that are shown; pinned already, let them go.
function pinHere(state) {
  const same = state.pinned && !state.pinned.other && named(state.pinned.head) === named(state.head) && state.pinned.prompt === state.prompt;
  state.set('pinned', same ? null : { head: state.head, prompt: state.prompt });
}

function chipsOf(state) {
  const metric = state.data.metrics.length ? state.metric() : null, chips = [];
  if (metric && Number.isFinite(state.meanOf(metric, state.head))) {
    const word = metric.tested ? verdict(state, metric, state.head) : 'not tested';
    const tone = word === 'unsure' || word === 'not tested' ? 'unsure' : sideClass(metric, state.meanOf(metric, state.head));
    chips.push(make('span', { class: 'chip ' + tone }, word + (state.claimOf(metric, state.head).important ? ', important' : '')));
  }
  const card = 'card-' + named(state.head);
  if (document.getElementById(card)) chips.push(make('a', { class: 'chip', href: '#' + card }, 'why this head'));
  for (const role of state.data.rolesOf[named(state.head)] || []) chips.push(make('button', { type: 'button', class: 'chip', title: 'show this role on the map', onclick: () => state.set('score', role) }, role));
  return chips;
}

// The effect on the metric that is shown: its direct part and the rest as a bar, the interval, this prompt's.
function factsOf(state) {
  if (!state.data.metrics.length) return [];
  const metric = state.metric(), { head } = state, mean = state.meanOf(metric, head);
  if (!Number.isFinite(mean)) return [make('p', {}, 'This head was not ablated.')];
  const direct = state.directOf(metric, head), later = mean - direct, known = Number.isFinite(direct);
  const whole = known ? Math.abs(direct) + Math.abs(later) : Math.abs(mean);
  const piece = (value, name) => {
    const bit = make('i', { class: sideClass(metric, value) + ' ' + name });
    bit.style.width = whole ? (100 * Math.abs(value)) / whole + '%' : '0';
    return bit;
  };
  const bar = make('div', { class: 'split', role: 'img', 'aria-label': known ? 'direct ' + signed(direct) + ', later layers ' + signed(later) : 'mean effect ' + signed(mean) }, ...(known ? [piece(direct, 'direct'), piece(later, 'later')] : [piece(mean, 'direct')]));
  const effects = state.effectsOf(metric, head), here = effects[state.prompt];
  const place = 1 + effects.filter((value) => Math.abs(value) > Math.abs(here)).length, n = effects.filter(Number.isFinite).length;
  const first = make('p', {}, make('b', {}, withUnit(mean, metric)), ' on ' + metric.name + claimText(state, metric, head));
  const said = [known ? 'direct ' + signed(direct) + ' · later layers ' + signed(later) : '', Number.isFinite(here) ? 'this prompt ' + signed(here) + (n > 1 ? ' (' + ordinal(place) + ' of ' + n + ')' : '') : 'not measured on this prompt'];
  return [bar, first, make('p', {}, said.filter(Boolean).join(' · '))];
}

function ordinal(number) {
  const end = number % 100 > 10 && number % 100 < 14 ? 'th' : { 1: 'st', 2: 'nd', 3: 'rd' }[number % 10] || 'th';
  return number + end;
}

function drawPrompt(place, state, pattern) {
  const { prompts } = state.data.offered, prompt = state.data.prompts[state.prompt];
  const go = (label, sign, by) => make('button', { type: 'button', class: 'tool', 'aria-label': label, title: label, onclick: () => stepPrompt(state, by) }, sign);
  const at = pattern ? rowOf(state, pattern) : null;
  const count = prompts.length > 1 ? ['Prompt ', make('b', {}, String(state.prompt)), ' of ' + state.data.prompts.length + ' ', go('prompt before', '◀', -1), go('next prompt', '▶', 1)] : [];
  const answer = prompt.answer ? [' → ', make('b', {}, make('bdi', {}, cut(prompt.answer, 24))), ...(prompt.distractor ? [', not ', make('bdi', {}, cut(prompt.distractor, 24))] : [])] : [];
  const looks = at === null || !pattern.queries.length ? [] : [' · what ', make('bdi', {}, '“' + cut(pattern.queries[at].text, 20) + '”'), ' looks at'];
  place.replaceChildren(...count, ...answer, ...looks);
}

// The row that is read: the one that was chosen, else that of the last prediction that is scored, else the last.
function rowOf(state, { queries }) {
  if (state.row !== null && state.row < queries.length) return state.row;
  const { scored } = state.data.prompts[state.prompt], last = scored[scored.length - 1];
  const at = scored.length ? queries.findLastIndex((unit) => unit.at.includes(last)) : -1;
  return at < 0 ? queries.length - 1 : at;
}

function drawNote(place, state, pattern, valued) {
  const notes = [viewNote(state)];
  if (state.how === 'values' && pattern && !valued) notes.push('This run kept no values of this head (cache.also=[v]): its pattern is shown.');
  if (valued) notes.push('Each weight times the norm of the key’s value, before W_O: what is moved, and not only looked at.');
  const share = pattern && state.view.sink ? sinkShare(pattern) : 0;
  place.replaceChildren(notes.filter(Boolean).join(' '));
  if (share >= COLLAPSED && !valued) {
    const hide = make('button', { type: 'button', class: 'link', onclick: () => state.setView({ sink: false }) }, 'Hide it');
    place.append(' The first token takes ' + Math.round(100 * share) + ' % of this head’s attention. ', hide);
  }
}

function modesOf(place, state) {
  const hows = [['matrix', 'matrix'], ['lines', 'lines'], ...(Object.keys(state.data.norms).length ? [['values', 'values']] : [])];
  const how = radios('Draw', hows, state.how, (value) => state.set('how', value));
  place.replaceChildren(how, ...viewControls(state));
  state.on('how', () => { for (const input of how.querySelectorAll('input')) input.checked = input.dataset.value === state.how; });
}

// The causes of the prediction that is read: { name, values by unit, most }; null without any.
function causesOf(state, pattern, sources) {
  const { queries, keys } = pattern, at = rowOf(state, pattern), of = pattern.stack === 'cross' ? 'source' : 'scores';
  if (pattern.stack === 'encoder' || !queries.length) return null;
  const target = sources.whole ? sources.targets[0] : sources.targets.find((position) => queries[at].at.includes(position));
  const row = sources.names.findIndex((_, index) => sources.isCause(index));
  if (target === undefined || row < 0) return null;
  const values = keys.map((unit) => (unit.sink ? NaN : sources.score(row, target, unit, of)));
  return { name: sources.names[row], values, most: largest(values.filter(Number.isFinite)) };
}

// The texts of the prompt, shaded by the weights of the row that is read; a click on a token reads its row.
function paintTokens({ tokens }, state, pattern) {
  const side = state.data.prompts[state.prompt];
  if (!pattern) {
    tokens.replaceChildren(...side.tokens.map((token) => make('bdi', {}, token)));
    return;
  }
  const at = rowOf(state, pattern), width = pattern.keys.length, row = pattern.weights.subarray(at * width, (at + 1) * width);
  const most = state.how === 'values' ? largest(row) : 1, apart = pattern.stack === 'cross';
  const unit = ({ text, at: positions }, index, weight, isQuery) => {
    const token = make('button', { type: 'button', class: 'unit' + (isQuery ? ' reads' : ''), title: (weight === null ? '' : 'weight ' + weight.toFixed(3) + ', ') + 'position ' + positions[0], onclick: () => state.set('row', index) }, make('bdi', {}, text));
    if (weight !== null) token.style.setProperty('--share', shade(weight, most));
    return token;
  };
  const keys = pattern.keys.filter(({ sink }) => !sink).map((key, index) => unit(key, index, row[index], !apart && index === at));
  const queries = apart ? [make('span', { class: 'soft' }, ' → '), ...pattern.queries.map((query, index) => unit(query, index, null, index === at))] : [];
  const held = [...tokens.querySelectorAll('.unit')].indexOf(document.activeElement);
  tokens.replaceChildren(...keys, ...queries);
  if (held >= 0) [...tokens.querySelectorAll('.unit')][held]?.focus({ preventScroll: true });
}

function paintStage({ stage, readout }, state, pattern, causes) {
  if (!stage.clientWidth) return;
  if (!pattern) { stage.replaceChildren(make('p', { class: 'note' }, notHeld(state))); readout.textContent = ''; return; }
  if (!pattern.queries.length || !pattern.keys.length) { stage.replaceChildren(make('p', { class: 'note' }, 'Nothing is left to show.')); return; }
  const at = rowOf(state, pattern);
  const canvas = make('canvas', { class: 'inspected', tabindex: 0, role: 'img', 'aria-label': 'Attention pattern of ' + named(state.head) + ', query tokens down, key tokens across. Arrow keys read it.' });
  const legend = make('p', { class: 'key note' });
  const focused = stage.contains(document.activeElement); // who reads by keyboard goes on in the new drawing
  stage.replaceChildren(canvas, legend);
  if (focused) canvas.focus({ preventScroll: true });
  readout.textContent = 'Point at the pattern to read a weight; click a row to read it.';
  if (state.how === 'lines' && pattern.queries.length <= MOST_LINES) return paintSides(canvas, legend, readout, state, pattern, at);
  const most = state.how === 'values' ? largest(pattern.weights) : 1, room = causes ? Math.min(110, stage.clientWidth * 0.24) : 0;
  const options = { top: pattern.stack === 'cross', right: room, high: TALLEST };
  let cell = [at, null];
  const paint = () => { drawMatrix(canvas, pattern, most, cell, options); if (causes) drawCauses(canvas, pattern, causes, room); };
  const read = (query, key) => {
    cell = [Math.min(pattern.queries.length - 1, Math.max(0, query)), Math.min(pattern.keys.length - 1, Math.max(0, key))];
    paint();
    readout.textContent = fromTo(pattern, cell) + plain(pattern.weights[cell[0] * pattern.keys.length + cell[1]]) + causeText(causes, cell[1]);
  };
  canvas.addEventListener('pointermove', (event) => { const under = cellAt(canvas, event, pattern); if (under) read(...under); });
  canvas.addEventListener('pointerleave', () => { cell = [at, null]; paint(); });
  canvas.addEventListener('click', (event) => { const under = cellAt(canvas, event, pattern); if (under) state.set('row', under[0]); });
  canvas.addEventListener('keydown', (event) => {
    const by = step(event);
    if (!by) return;
    event.preventDefault();
    read(cell[0] + by[0], (cell[1] === null ? -1 : cell[1]) + by[1]);
  });
  paint();
  const end = most === 1 ? '1' : plain(most);
  const ramp = make('i', { class: 'ramp', 'aria-hidden': 'true' });
  legend.append('looked at (key) →  0 ', ramp, ' ' + end + ' by √', ...(causes ? [make('span', { class: 'cause-name' }, 'cause: ', causes.name)] : []));
}

function causeText(causes, key) {
  return causes && Number.isFinite(causes.values[key]) ? ' · ' + causes.name + ' ' + signed(causes.values[key]) : '';
}

// A bar for each token, on the row of that token: what changing it does to the prediction that is read.
function drawCauses(canvas, { queries, keys, stack }, { values, most }, room) {
  const pen = canvas.getContext('2d'), { left, top, cell } = canvas.geometry, start = left + cell * keys.length + 12, across = stack === 'cross';
  const low = Math.min(0, ...values.filter(Number.isFinite)), span = Math.max(0, ...values.filter(Number.isFinite)) - low || 1;
  const x = (value) => start + ((value - low) / span) * (room - 16);
  if (across || !most) return; // of cross attention the rows are not the tokens that were changed
  pen.fillStyle = color('soft');
  pen.fillRect(x(0), top, 1, cell * queries.length);
  queries.forEach((query, row) => {
    const key = keys.findIndex(({ at }) => at[0] === query.at[0]), value = values[key];
    if (!Number.isFinite(value)) return;
    pen.fillStyle = color(value < 0 ? 'hurts' : 'ink');
    pen.fillRect(Math.min(x(0), x(value)), top + (row + 0.2) * cell, Math.abs(x(value) - x(0)), Math.max(1, cell * 0.6));
  });
}

// The tokens on both sides and a line for each weight; those of the row that is read are drawn full.
function paintSides(canvas, legend, readout, state, { weights, queries, keys }, at) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1, tall = Math.max(13, Math.min(18, TALLEST / Math.max(queries.length, keys.length)));
  const height = tall * Math.max(queries.length, keys.length) + 4, edge = Math.min(120, width * 0.3);
  canvas.style.height = height + 'px';
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext('2d');
  pen.scale(ratio, ratio);
  pen.font = '12px system-ui, "Hiragino Sans", "Yu Gothic", Meiryo, "Noto Sans CJK JP", IPAexGothic, sans-serif';
  pen.textBaseline = 'middle';
  const middle = (row) => (row + 0.5) * tall + 2, ink = color('ink'), soft = color('soft'), tone = color('attention');
  const write = (units, x, align, strong) => {
    pen.textAlign = align;
    units.forEach((unit, row) => { pen.fillStyle = row === strong ? ink : soft; pen.fillText(cut(unit.text, 16), x, middle(row), edge - 8); });
  };
  write(queries, edge - 6, 'right', at);
  write(keys, width - edge + 6, 'left', null);
  pen.strokeStyle = tone;
  const most = state.how === 'values' ? largest(weights) : 1;
  queries.forEach((_, query) => keys.forEach((__, key) => {
    const share = shade(weights[query * keys.length + key], most);
    if (share < 0.1) return;
    pen.globalAlpha = query === at ? share : share * 0.25;
    pen.lineWidth = query === at ? 0.8 + 3 * share : 0.6 + share;
    pen.beginPath();
    pen.moveTo(edge, middle(query));
    pen.lineTo(width - edge, middle(key));
    pen.stroke();
  }));
  pen.globalAlpha = 1;
  const under = (event) => Math.max(0, Math.min(queries.length - 1, Math.floor((event.clientY - canvas.getBoundingClientRect().top - 2) / tall)));
  canvas.addEventListener('click', (event) => state.set('row', under(event)));
  canvas.addEventListener('keydown', (event) => {
    const by = step(event), next = by ? at + by[0] : at;
    if (!by || !by[0] || next < 0 || next >= queries.length) return;
    event.preventDefault();
    state.set('row', next);
  });
  const row = weights.subarray(at * keys.length, (at + 1) * keys.length);
  const best = Array.from(row.keys()).sort((a, b) => row[b] - row[a]).slice(0, 3);
  readout.textContent = quoted(queries[at], 20) + ' looks at ' + best.map((key) => quoted(keys[key], 16) + ' ' + row[key].toFixed(2)).join(', ');
  legend.textContent = 'queries left, keys right; full lines are those of the row that is read, weights under 0.01 are left out';
}

// The pinned pattern, and the shown one less it where both have the same tokens.
async function drawPinned(place, state, pattern) {
  if (!state.pinned) return place.replaceChildren();
  const { head, prompt } = state.pinned.other ? state : state.pinned, unpin = make('button', { type: 'button', class: 'tool', onclick: () => state.set('pinned', null) }, 'unpin');
  const matrices = await state.matrices(prompt);
  const other = matrices && (state.pinned.other ? matrices.other(head) : matrices.of(head));
  const whose = named(head) + (state.pinned.other ? ' of ' + state.data.otherName : '');
  const title = make('h3', {}, whose + ' on prompt ' + prompt + ' ', unpin);
  if (!other) return place.replaceChildren(title, make('p', { class: 'note' }, notHeld({ ...state, head, prompt })));
  const same = pattern && other.queries.length === pattern.queries.length && other.keys.length === pattern.keys.length && [...other.keys, ...other.queries].every(({ text }, at) => text === [...pattern.keys, ...pattern.queries][at].text);
  const figure = (name, shown, most, caption) => {
    const canvas = make('canvas', { role: 'img', 'aria-label': name });
    return { canvas, paint: () => drawMatrix(canvas, shown, most, null, { top: false, high: 220 }), node: make('figure', {}, canvas, make('figcaption', {}, caption)), shown };
  };
  const drawn = [figure('pinned pattern', other, 1, 'pinned: ' + whose)];
  if (same) {
    const less = { ...pattern, weights: pattern.weights.map((weight, index) => weight - other.weights[index]) }, most = largest(less.weights);
    const made = figure('difference of the patterns', less, most, named(state.head) + ' less ' + whose + ': purple more, green less, up to ' + plain(most));
    made.canvas.difference = less.weights;
    drawn.push(made);
  }
  const note = same ? [] : [make('p', { class: 'note' }, 'The two have other tokens, so there is no difference to draw.')];
  place.replaceChildren(title, make('div', { class: 'beside' }, ...drawn.map(({ node }) => node)), ...note);
  for (const { paint } of drawn) paint();
}

function fillMore(details, state, pattern) {
  details.replaceChildren(details.firstChild, ...headFacts(state, pattern));
}
