// Model view: every head of every layer as a small picture; a click opens it. There are across what there are more of,
// layers or heads; a view of one prompt has only layers it holds.

function mountModelView(place, state) {
  const narrow = window.matchMedia('(max-width: 820px)');
  const readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  const holder = make('div', { class: 'models' });
  let how = 'matrices', latest = 0;
  const draw = whenShown(place, state, async () => {
    const mine = ++latest, matrices = await state.matrices();
    if (mine !== latest) return;
    shown = matrices;
    holder.replaceChildren(...(matrices ? shownStacks(state).map((stack) => modelCanvas(state, stack, matrices, how, narrow.matches, readout)) : [make('p', {}, notHeld(state))]));
    readout.textContent = 'Point at a picture, or focus it and use the arrow keys, to read a head; click or press Enter to open it.';
    for (const canvas of holder.querySelectorAll('canvas')) canvas.paint(); // an observer waits until it is on screen
  });
  const kinds = radios('As', [['matrices', 'matrices'], ['lines', 'lines']], how, (kind) => { how = kind; draw(); });
  let shown = null;
  const tools = withFigureTools(holder, { name: () => 'patterns_prompt_' + state.prompt, caption: () => 'Attention patterns of all heads on “' + textOf(state.data.prompts[state.prompt]).trim() + '”, shade by square root. ' + viewNote(state), rows: () => modelRows(state, shown) });
  place.append(make('div', { class: 'controls' }, kinds), holder, make('div', { class: 'foot' }, readout, tools));
  for (const event of ['prompt', 'view', 'how', 'colors']) state.on(event, draw);
  state.on('head', () => { for (const canvas of holder.querySelectorAll('canvas')) canvas.paintMark(); });
  narrow.addEventListener('change', draw);
  return draw();
}

// A row for every head and query: its weights on the keys.
function modelRows(state, matrices) {
  const held = matrices ? headsOf(state).map((head) => ({ head, pattern: matrices.of(head) })).filter(({ pattern }) => pattern) : [];
  return [['head', 'query', 'weights on the keys in order'], ...held.flatMap(({ head, pattern }) => patternRows(pattern).slice(1).map((row) => [named(head), ...row]))];
}

function shownStacks({ data }) {
  const { stacks, offered } = data;
  if (!offered.layers) return stacks;
  const held = stacks.map((stack) => ({ ...stack, layers: stack.layers.filter((layer) => stack.slots.some(([each]) => each === layer)) }));
  return held.filter(({ layers }) => layers.length);
}

function modelCanvas(state, stack, matrices, how, narrow, readout) {
  const { heads } = state.data, { layers } = stack, tall = narrow || heads.length >= layers.length;
  const [across, down] = tall ? [heads, layers] : [layers, heads];
  const headAt = (column, row) => (tall ? [layers[row], heads[column], stack.name] : [layers[column], heads[row], stack.name]);
  const base = make('canvas'), canvas = make('canvas', { class: 'model', tabindex: 0, role: 'img', 'aria-label': 'Patterns of all heads' + (stack.name ? ' of the ' + stack.name + ' stack' : '') + (tall ? ': layers down, heads across' : ': heads down, layers across') + '. Arrow keys move, Enter opens a head.' });
  const figure = make('figure', { class: 'model' }, ...(stack.name ? [make('figcaption', {}, stack.name)] : []), canvas);
  figure.style.setProperty('--wide', Math.min(100, 8 * across.length) + '%');
  const [any] = across.flatMap((_, column) => down.map((_, row) => matrices.shown(headAt(column, row)))).filter(Boolean);
  const shape = any ? Math.max(0.3, Math.min(1, any.queries.length / any.keys.length)) : 1;
  let at = null, size = 0, high = 0;
  const paint = () => {
    const ratio = window.devicePixelRatio || 1, room = 30;
    if (!figure.clientWidth) return;
    size = Math.min(80, (figure.clientWidth - room) / across.length);
    high = size * shape;
    const [width, height] = [room + size * across.length, 18 + high * down.length];
    for (const each of [base, canvas]) { each.width = Math.round(width * ratio); each.height = Math.round(height * ratio); }
    canvas.style.width = width + 'px';
    canvas.style.height = height + 'px';
    const pen = base.getContext('2d');
    pen.scale(ratio, ratio);
    labelAxes(pen, across, down, tall, room, size, high);
    down.forEach((_, row) => across.forEach((_, column) => {
      const pattern = matrices.shown(headAt(column, row)), x = room + column * size + 1.5, y = 18 + row * high + 1.5;
      pen.fillStyle = color(pattern ? 'card' : 'hatch');
      pen.fillRect(x, y, size - 3, high - 3);
      if (pattern) (how === 'lines' ? paintStrokes : paintSmall)(pen, pattern, x, y, size - 3, high - 3);
    }));
    canvas.paintMark();
  };
  canvas.paintMark = () => {
    if (!size) return;
    const pen = canvas.getContext('2d'), ratio = window.devicePixelRatio || 1;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(base, 0, 0);
    pen.scale(ratio, ratio);
    pen.lineWidth = 2;
    const frame = (column, row, tone) => { pen.strokeStyle = color(tone); pen.strokeRect(30 + column * size + 0.5, 18 + row * high + 0.5, size - 1, high - 1); };
    const [layer, head, name] = state.head;
    if (name === stack.name && layers.includes(layer)) frame(...(tall ? [heads.indexOf(head), layers.indexOf(layer)] : [layers.indexOf(layer), heads.indexOf(head)]), 'ink');
    if (at) frame(...at, 'accent');
  };
  const read = (column, row) => {
    at = [Math.max(0, Math.min(across.length - 1, column)), Math.max(0, Math.min(down.length - 1, row))];
    const head = headAt(...at), metric = state.data.metrics.length && state.metric();
    const mean = metric ? state.meanOf(metric, head) : NaN;
    readout.textContent = named(head) + (Number.isFinite(mean) ? ' ' + verdict(state, metric, head) + ': mean effect on ' + metric.name + ' ' + withUnit(mean, metric) : '');
    canvas.paintMark();
  };
  const under = (event) => { const box = canvas.getBoundingClientRect(); return [Math.floor((event.clientX - box.left - 30) / size), Math.floor((event.clientY - box.top - 18) / high)]; };
  canvas.addEventListener('pointermove', (event) => read(...under(event)));
  canvas.addEventListener('click', (event) => { read(...under(event)); state.open(headAt(...at)); });
  canvas.addEventListener('keydown', (event) => {
    const by = step(event);
    if (event.key === 'Enter' && at) state.open(headAt(...at));
    if (!by) return;
    event.preventDefault();
    read((at ? at[0] : 0) + (at ? by[1] : 0), (at ? at[1] : 0) + (at ? by[0] : 0));
  });
  canvas.paint = paint;
  new ResizeObserver(paint).observe(figure);
  return figure;
}

function labelAxes(pen, across, down, tall, room, size, high) {
  pen.clearRect(0, 0, 1e4, 1e4);
  pen.fillStyle = color('soft');
  pen.font = '11px system-ui, "Hiragino Sans", "Yu Gothic", Meiryo, "Noto Sans CJK JP", IPAexGothic, sans-serif';
  pen.textAlign = 'center';
  across.forEach((value, column) => pen.fillText((tall ? 'H' : 'L') + value, room + (column + 0.5) * size, 12));
  pen.textAlign = 'right';
  pen.textBaseline = 'middle';
  down.forEach((value, row) => pen.fillText((tall ? 'L' : 'H') + value, room - 4, 18 + (row + 0.5) * high));
  pen.textBaseline = 'alphabetic';
}

let scratch = null;
function paintSmall(pen, pattern, x, y, width, height) {
  scratch ||= make('canvas');
  paintPixels(scratch, pattern);
  const cell = Math.min(width / pattern.keys.length, height / pattern.queries.length);
  pen.imageSmoothingEnabled = cell < 1;
  pen.drawImage(scratch, x, y, cell * pattern.keys.length, cell * pattern.queries.length);
}

function paintStrokes(pen, { weights, queries, keys }, x, y, width, height) {
  pen.strokeStyle = color('attention');
  pen.lineWidth = 0.7;
  const [fall, rise] = [height / Math.max(1, queries.length), height / Math.max(1, keys.length)];
  weights.forEach((weight, index) => {
    if (weight < 0.1) return;
    pen.globalAlpha = Math.min(1, weight);
    pen.beginPath();
    pen.moveTo(x + 1, y + (Math.floor(index / keys.length) + 0.5) * fall);
    pen.lineTo(x + width - 1, y + ((index % keys.length) + 0.5) * rise);
    pen.stroke();
  });
  pen.globalAlpha = 1;
}
