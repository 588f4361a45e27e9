// Head view: the tokens twice, those that look on the left and those looked at on the right, a line for each weight.
// Heads of the layer can be switched on and off; pointing at a token, or moving to it with the arrow keys, shows where
// it looks (left) or who looks at it (right). The idea of Vig 2019 (arXiv:1906.05714).

const THIN = 0.01; // weights below this are not drawn as lines
const HUES = ['#0072b2', '#e69f00', '#009e73', '#cc79a7', '#d55e00', '#56b4e9', '#8f7fd6', '#a89f00', '#7f7f7f', '#b22222', '#20a0a0', '#806040'];

function mountHeadView(place, state) {
  const shown = { on: new Set([state.head[1]]), side: null, index: 0, held: false };
  const parts = {
    heads: make('div', { class: 'heads', role: 'group', 'aria-label': 'Heads on and off' }),
    lines: make('canvas', { 'aria-hidden': 'true' }),
    left: make('div', { class: 'column left', role: 'listbox', 'aria-label': 'Tokens that look' }),
    right: make('div', { class: 'column right', role: 'listbox', 'aria-label': 'Tokens looked at' }),
    readout: make('p', { class: 'readout', 'aria-live': 'polite' }),
  };
  const stage = make('div', { class: 'stage' }, parts.left, parts.lines, parts.right);
  place.append(layerSteps(state), parts.heads, make('div', { class: 'tall lines' }, stage), parts.readout); // what grows stands below
  let patterns = new Map(), latest = 0;
  const paint = () => paintLines(parts, state, patterns, shown);
  const point = (side, index) => { if (!shown.held) { shown.side = side; shown.index = index; paint(); } };
  const hold = (side, index) => { // a click holds the token that is pointed at; a second one lets it go
    const same = shown.held && shown.side === side && shown.index === index;
    Object.assign(shown, { side: same ? null : side, index, held: !same });
    paint();
  };
  const draw = whenShown(place, state, async () => {
    const mine = ++latest, matrices = await state.matrices();
    if (mine !== latest) return;
    patterns = new Map();
    for (const number of state.data.heads) {
      const pattern = matrices && matrices.shown([state.head[0], number, state.head[2]]);
      if (pattern) patterns.set(number, pattern);
    }
    Object.assign(shown, { side: null, held: false });
    const [any] = patterns.values();
    fillHeads(parts.heads, patterns, shown, paint);
    fillColumn(parts.left, any ? any.queries : [], 'left', point, hold);
    fillColumn(parts.right, any ? any.keys : [], 'right', point, hold);
    paint();
    if (!any) parts.readout.textContent = notHeld(state);
  });
  stage.addEventListener('pointerleave', () => point(null, 0));
  state.on('head', () => { shown.on = new Set([state.head[1]]); draw(); });
  for (const event of ['prompt', 'view', 'how']) state.on(event, draw);
  state.on('colors', paint);
  new ResizeObserver(paint).observe(stage);
  return draw();
}

function notHeld(state) {
  return 'This page does not hold the pattern of ' + named(state.head) + ' on prompt ' + state.prompt + '. ' + state.leftOut;
}

// One layer back or on, with the same head on.
function layerSteps(state) {
  const { offered } = state.data;
  const go = (by) => () => {
    const layers = offered.layers || state.stack(state.head[2]).layers, next = layers[layers.indexOf(state.head[0]) + by];
    if (next !== undefined) state.open([next, state.head[1], state.head[2]], null, false);
  };
  const title = make('b');
  const retitle = () => { title.textContent = (state.head[2] ? state.head[2] + ', ' : '') + 'layer ' + state.head[0]; };
  state.on('head', retitle);
  retitle();
  if (offered.layers && offered.layers.length < 2) return make('div', { class: 'steps' }, title);
  return make('div', { class: 'steps' },
    make('button', { type: 'button', class: 'tool', onclick: go(-1), 'aria-label': 'layer before' }, '◀'), title,
    make('button', { type: 'button', class: 'tool', onclick: go(1), 'aria-label': 'next layer' }, '▶'));
}

function fillHeads(place, patterns, shown, paint) {
  const buttons = [];
  const sync = () => { buttons.forEach((button) => button.setAttribute('aria-pressed', String(shown.on.has(Number(button.dataset.number))))); paint(); };
  for (const number of patterns.keys()) {
    const button = make('button', {
      type: 'button', class: 'swatch', 'data-number': number, 'aria-label': 'head ' + number, 'aria-pressed': String(shown.on.has(number)), title: 'head ' + number + ' on or off; double-click: only this one',
      onclick: () => { shown.on[shown.on.has(number) ? 'delete' : 'add'](number); sync(); },
      ondblclick: () => { shown.on = new Set([number]); sync(); },
    }, 'H' + number);
    button.style.setProperty('--hue', HUES[number % HUES.length]);
    buttons.push(button);
  }
  const all = (on) => () => { shown.on = new Set(on ? patterns.keys() : []); sync(); };
  place.replaceChildren(...buttons, ...(buttons.length > 1 ? [make('button', { type: 'button', class: 'tool', onclick: all(true) }, 'All'), make('button', { type: 'button', class: 'tool', onclick: all(false) }, 'None')] : []));
}

function fillColumn(place, tokens, side, point, hold) {
  const cells = tokens.map((unit, index) => make('div', {
    role: 'option', tabindex: index ? -1 : 0, 'aria-selected': 'false', title: unit.text + ' (' + whereOf(unit) + ')',
    onpointerenter: () => point(side, index), onfocus: () => point(side, index), onclick: () => hold(side, index),
  }, make('bdi', {}, cut(unit.text, 16)), make('span', { class: 'boxes', 'aria-hidden': 'true' }), make('span', { class: 'weight' })));
  place.replaceChildren(...cells);
  place.onkeydown = (event) => {
    const next = cells[cells.indexOf(document.activeElement) + (step(event) || [0])[0]];
    if (!step(event) || !step(event)[0] || !next) return;
    event.preventDefault();
    document.activeElement.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  };
}

function whereOf(unit) {
  if (unit.sink) return 'no token: what the learnt sink of the softmax takes';
  return unit.at.length > 1 ? 'positions ' + unit.at[0] + '–' + unit.at[unit.at.length - 1] : 'position ' + unit.at[0];
}

function paintLines({ lines, left, right, readout }, state, patterns, shown) {
  const on = [...patterns].filter(([number]) => shown.on.has(number)), ratio = window.devicePixelRatio || 1;
  const rows = Math.max(left.children.length, right.children.length), tall = rows > 160 ? 15 : 23;
  const width = lines.clientWidth, height = rows * tall + 1;
  for (const column of [left, right]) column.style.setProperty('--tall', tall + 'px');
  lines.style.height = height + 'px';
  lines.width = Math.round(width * ratio);
  lines.height = Math.round(height * ratio);
  const pen = lines.getContext('2d');
  pen.scale(ratio, ratio);
  const sums = { left: new Float64Array(left.children.length), right: new Float64Array(right.children.length) };
  const each = { left: [], right: [] }, strokes = []; // of each head, what the tokens of a side get
  for (const [number, pattern] of on) {
    const columns = pattern.keys.length, own = { left: new Float64Array(sums.left.length), right: new Float64Array(sums.right.length) };
    pattern.weights.forEach((weight, index) => {
      const query = Math.floor(index / columns), key = index % columns;
      if ((shown.side === 'left' && query !== shown.index) || (shown.side === 'right' && key !== shown.index)) return;
      own.left[query] += weight;
      own.right[key] += weight;
      sums.left[query] += weight / on.length;
      sums.right[key] += weight / on.length;
      if (weight >= THIN) strokes.push({ weight, query, key, number });
    });
    for (const side of ['left', 'right']) each[side].push({ number, weights: own[side] });
  }
  strokes.sort((a, b) => a.weight - b.weight); // large weights on top, whichever head's they are
  for (const { weight, query, key, number } of strokes) {
    pen.strokeStyle = HUES[number % HUES.length];
    pen.globalAlpha = Math.min(1, 0.08 + Math.sqrt(weight)) * (on.length > 3 ? 0.75 : 1);
    pen.lineWidth = 0.6 + 2.4 * weight;
    pen.beginPath();
    pen.moveTo(0, (query + 0.5) * tall);
    pen.lineTo(width, (key + 0.5) * tall);
    pen.stroke();
  }
  tellWeights(left, shown, 'left', sums, each.left);
  tellWeights(right, shown, 'right', sums, each.right);
  readout.textContent = lineText(state, on, shown, sums, patterns);
}

// Beside the tokens on the other side of the one pointed at: its weights, a box of its hue for each head; with nothing
// pointed at, what each head gives a key in all, since lines of many heads cover each other.
function tellWeights(column, shown, side, sums, heads) {
  [...column.children].forEach((cell, index) => {
    const other = shown.side !== null && shown.side !== side, mine = shown.side === side && shown.index === index;
    cell.setAttribute('aria-selected', String(mine));
    cell.style.setProperty('--share', other ? Math.min(1, sums[side][index]) : 0);
    cell.lastChild.textContent = other && sums[side][index] >= 0.005 ? sums[side][index].toFixed(2) : '';
    const boxed = heads.length > 1 && (other || (shown.side === null && side === 'right'));
    cell.querySelector('.boxes').replaceChildren(...(boxed ? heads.map(({ number, weights }) => headBox(number, weights[index], other ? 1 : column.children.length / 4)) : []));
  });
}

function headBox(number, weight, most) {
  const box = make('i', { title: 'H' + number + ': ' + weight.toFixed(2) });
  box.style.background = HUES[number % HUES.length];
  box.style.opacity = shade(weight, most);
  return box;
}

function lineText(state, on, shown, sums, patterns) {
  const whose = on.map(([number]) => 'H' + number).join(', ');
  if (!on.length) return patterns.size ? 'No head is on.' : notHeld(state);
  if (shown.side === null) return 'Lines of ' + whose + ', thicker for larger weights; those under ' + THIN + ' are left out. Point at a token, or move to it with Tab and the arrow keys; a click holds it.';
  const { queries, keys } = on[0][1], mean = on.length > 1 ? ' on average' : '';
  const [own, others, verb] = shown.side === 'left' ? [queries, keys, ' looks at '] : [keys, queries, ' is looked at by '];
  const far = sums[shown.side === 'left' ? 'right' : 'left'];
  const best = Array.from(far.keys()).sort((a, b) => far[b] - far[a]).slice(0, 3).filter((at) => far[at] >= 0.005);
  return quoted(own[shown.index], 24) + verb + (best.map((at) => quoted(others[at], 20) + ' ' + far[at].toFixed(2)).join(', ') || 'nothing') + mean + ': ' + whose;
}
