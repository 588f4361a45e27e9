// The charts of the page: each description (harness/views/charts) becomes an SVG in its place, as wide as that is.

function mountCharts(state) {
  const described = new Map(state.data.charts.map((chart) => [chart.name, chart]));
  for (const place of document.querySelectorAll('.chart[data-chart]')) {
    const chart = described.get(place.dataset.chart);
    const alone = place.parentNode.querySelectorAll(':scope > .chart').length === 1;
    if (chart) mountChart(place, chart, state, !alone);
  }
}

function mountChart(place, chart, state, titled) {
  const holder = make('div', { class: 'plot' }), readout = make('p', { class: 'readout', 'aria-live': 'polite' });
  let panel = 0, width = 0;
  const draw = () => {
    if (width < 40) return;
    const layout = layoutOf(chart, width, panel), svg = painted(layout, chart, state);
    holder.replaceChildren(svg);
    readout.textContent = chart.switch ? chart.panels[panel].about : HINT;
    explore(svg, layout, readout, state);
  };
  const tools = withFigureTools(holder, { name: () => chart.name + (chart.switch ? '_' + chart.panels[panel].name.replaceAll(' ', '_') : ''), caption: chart.caption, rows: () => rowsOf(chart) });
  const pick = chart.switch && chart.panels.length > 1 ? make('div', { class: 'controls' }, select(chart.switch, chart.panels.map(({ name }, at) => [at, name]), (at) => { panel = Number(at); draw(); }).label) : '';
  place.append(...(titled ? [make('h3', {}, chart.title)] : []), pick, holder, make('div', { class: 'foot' }, readout, tools));
  new ResizeObserver(() => {
    const now = Math.floor(holder.clientWidth);
    if (now !== width) { width = now; draw(); }
  }).observe(holder);
  state.on('colors', draw);
}

const HINT = 'Hover, or move with the arrow keys, to read a value.';

// The layout as an SVG of its own size, so that letters are as large as they say.
function painted({ width, height, shapes }, chart, state) {
  const svg = makeSvg('svg', { width, height, viewBox: `0 0 ${width} ${height}`, class: 'drawing', role: 'group', tabindex: 0, 'aria-label': chart.title + '. ' + HINT });
  for (const { tag, at, text: words, open, cells } of shapes) {
    const node = tag === 'pixels' ? makeSvg('image', { ...rounded(at), href: pixels(cells), preserveAspectRatio: 'none', class: 'pixels' }) : makeSvg(tag, rounded(at));
    if (words !== undefined) node.textContent = words;
    if (open) {
      node.classList.add('clicks');
      node.addEventListener('click', () => openMark(open, state));
    }
    svg.append(node);
  }
  return svg;
}

// Places to a hundredth of a pixel.
function rounded(at) {
  const short = (value) => (typeof value === 'number' ? Number(value.toFixed(2)) : value);
  const entries = Object.entries(at).map(([key, value]) => [key, key === 'd' ? value.replace(/-?\d+\.\d{3,}/g, (each) => short(Number(each))) : key.startsWith('data-') ? value : short(value)]);
  return Object.fromEntries(entries);
}

// A mark of a prompt alone opens the head that is picked, on that prompt.
function openMark([head, prompt], state) {
  state.open(head || state.head, prompt);
}

// A picture with a pixel for each cell.
function pixels(cells) {
  const canvas = make('canvas', { width: cells[0].length, height: cells.length }), pen = canvas.getContext('2d');
  pen.fillStyle = color('neutral');
  pen.fillRect(0, 0, canvas.width, canvas.height);
  cells.forEach((row, down) => row.forEach(({ name, share }, across) => {
    pen.globalAlpha = name === 'unknown' ? 1 : share;
    pen.fillStyle = color(name === 'unknown' ? 'hatch' : name);
    pen.fillRect(across, down, 1, 1);
  }));
  return canvas.toDataURL();
}

// Read the marks by mouse and by keyboard: the nearest is framed, and its value stands in the line below.
function explore(svg, { marks }, readout, state) {
  const frame = makeSvg('rect', { class: 'frame', rx: 2, visibility: 'hidden' });
  svg.append(frame);
  let current = null;
  const show = (mark) => {
    current = mark;
    frame.setAttribute('visibility', mark ? 'visible' : 'hidden');
    if (!mark) return;
    for (const [key, value] of Object.entries({ x: mark.x - mark.w / 2 - 2, y: mark.y - mark.h / 2 - 2, width: mark.w + 4, height: mark.h + 4 })) frame.setAttribute(key, value);
    readout.textContent = mark.text();
  };
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const mark = nearest(marks, (event.clientX - box.left) * scale, (event.clientY - box.top) * scale, 24);
    if (mark && mark !== current) show(mark);
  });
  svg.addEventListener('focus', () => { if (!current && marks.length) show(marks[0]); });
  svg.addEventListener('keydown', (event) => {
    const move = step(event);
    if (move && current) { event.preventDefault(); show(nextMark(marks, current, move) || current); }
    else if (event.key === 'Enter' && current && current.open) openMark(current.open, state);
  });
}

// The data of a chart as rows of a table, titles first; empty for what was not measured.
function rowsOf(chart) {
  const cell = (value) => (value === null || value === undefined ? '' : value);
  if (chart.kind === 'heat') {
    const [row, column] = chart.axes.map((axis, at) => axis || ['row', 'column'][at]);
    return [['panel', row, column, chart.value], ...chart.panels.flatMap(({ name, rows, columns, values }) => values.flatMap((line, r) => line.map((value, c) => [name, rows[r], columns[c], cell(value)])))];
  }
  if (chart.kind === 'bars') return [[chart.rows, chart.value], ...chart.bars.map(({ label, value }) => [label, cell(value)])];
  if (chart.kind === 'pairs-of-dots') return [[chart.x.label, ...chart.series], ...chart.pairs.map((pair, prompt) => [prompt, ...pair.map(cell)])];
  if (chart.kind === 'curves') {
    const lines = (panel) => [...panel.series, ...(panel.band ? [panel.band] : [])];
    return [['series', chart.panels[0].x.label, 'head', 'value', 'low', 'high'], ...chart.panels.flatMap((panel) => lines(panel).flatMap(({ name, values, low, high, notes }) => panel.x.values.map((x, at) => [name, x, ...[notes, values, low, high].map((each) => cell(each && each[at]))])))];
  }
  const points = chart.panels.flatMap((panel) => panel.rows.flatMap((row) => row.points.map((point) => [panel.name, row, point])));
  const prompts = Math.max(0, ...points.map(([, , point]) => (point.prompts || []).length));
  const titles = ['panel', chart.rows, 'series', 'mean', 'low', 'high', ...Array.from({ length: prompts }, (_, prompt) => 'prompt ' + prompt)];
  return [titles, ...points.map(([panel, { label }, { series, mean, low, high, prompts: values }]) => [panel, label, chart.series[series], ...[mean, low, high, ...(values || [])].map(cell)])];
}
