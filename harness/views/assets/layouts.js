// Where everything of a chart stands, in pixels: from its description and a width to shapes and marks, no page.
//
// A layout is { width, height, shapes, marks }. A shape is { tag, at, text, open }: an SVG element, its attributes, its
// text and the [head, prompt] that a click opens. A mark is what can be read: { x, y, w, h, text(), open }.

// Letters are 12 pixels high (page.css); bold ones are wider, as if they were higher.
const LETTERS = 12, BOLD = 13.5, GAP = 28, WIDE = 640;

function layoutOf(chart, width, panel = 0) {
  const layout = { heat: layoutHeat, dots: layoutDots, bars: layoutBars, curves: layoutCurves, 'pairs-of-dots': layoutPairs }[chart.kind];
  const shapes = [], marks = [];
  const height = layout(chart, width, { shapes, marks, panel });
  return { width: chart.kind === 'heat' ? Math.min(width, rightmost(shapes)) : width, height: Math.ceil(height), shapes, marks };
}

// Where the last shape ends: a map of few heads is narrower than its place.
function rightmost(shapes) {
  const end = ({ tag, at, text: words }) => (tag === 'text' ? at.x + textWidth(words) / (at['text-anchor'] === 'middle' ? 2 : 1) : tag === 'rect' || tag === 'pixels' ? at.x + at.width : 0);
  return Math.ceil(Math.max(...shapes.map(end))) + 2;
}

function text(x, y, words, at = {}, open = null) {
  return { tag: 'text', at: { x, y, ...at }, text: words, open };
}

function straight(x1, y1, x2, y2, name) {
  return { tag: 'line', at: { x1, y1, x2, y2, class: name } };
}

// The mark of a series: each has a shape of its own, so that no two are told apart by their colour alone.
function symbol(series, x, y, size = 4) {
  const paths = [
    `M${x - size} ${y}a${size} ${size} 0 1 0 ${2 * size} 0a${size} ${size} 0 1 0 ${-2 * size} 0Z`,
    `M${x - size} ${y - size}h${2 * size}v${2 * size}h${-2 * size}Z`,
    `M${x} ${y - size * 1.2}L${x + size * 1.15} ${y + size * 0.9}H${x - size * 1.15}Z`,
    `M${x} ${y - size * 1.3}L${x + size * 1.3} ${y}L${x} ${y + size * 1.3}L${x - size * 1.3} ${y}Z`,
    `M${x - size} ${y - size}L${x + size} ${y + size}M${x + size} ${y - size}L${x - size} ${y + size}`,
    `M${x - size * 1.2} ${y}H${x + size * 1.2}M${x} ${y - size * 1.2}V${y + size * 1.2}`,
  ];
  return { tag: 'path', at: { d: paths[series % paths.length], class: 'symbol s' + (series % paths.length) } };
}

// A row of legend entries that breaks where it is full: each is { wide, draw(x, y) }. Returns the height.
function legendInto(shapes, entries, left, top, width) {
  let x = left, y = top + 8;
  for (const { wide, draw } of entries) {
    if (x > left && x + wide > left + width) { x = left; y += 20; }
    shapes.push(...draw(x, y));
    x += wide + 18;
  }
  return entries.length ? y + 14 - top : 0;
}

function legendEntry(series, name, room) {
  const shown = fitted(name, room - 18);
  return { wide: 16 + textWidth(shown), draw: (x, y) => [symbol(series, x + 6, y), text(x + 16, y + 4, shown)] };
}

// Words below or above an axis, in as many lines as they need. Returns the height.
function words(shapes, lines, x, y, at = {}) {
  lines.forEach((line, index) => shapes.push(text(x, y + 12 + index * 15, line, { class: 'label', ...at })));
  return lines.length * 15;
}

// The ticks of a horizontal axis, with its label beneath. Returns the height below the plot.
function axisBelow(shapes, ends, x, { left, right, top, bottom }, label, zero = true) {
  const room = right - left, ticks = niceTicks(ends[0], ends[1], Math.max(2, Math.floor(room / 64)));
  for (const value of ticks) {
    shapes.push(straight(x(value), top, x(value), bottom, zero && value === 0 ? 'zero' : 'track'));
    shapes.push(text(x(value), bottom + 15, tickText(value), { 'text-anchor': 'middle', 'data-tick': value }));
  }
  if (zero && !ticks.includes(0) && ends[0] <= 0 && ends[1] >= 0) shapes.push(straight(x(0), top, x(0), bottom, 'zero'));
  return 20 + words(shapes, wrapped(label, room), (left + right) / 2, bottom + 18, { 'text-anchor': 'middle' });
}

// --- rows: dots and bars ---------------------------------------------------------------------------------------------

// Panels of rows on a shared or own axis. `drawRow(row, panel, x, y)` adds what stands in a row.
function layoutRows(chart, width, { shapes }, panels, rowHeight, top, drawRow) {
  const labels = panels.flatMap(({ rows }) => rows.map(({ label }) => label));
  const room = Math.min(Math.max(...labels.map((label) => textWidth(label)), 20) + 14, Math.max(90, width * 0.34));
  const beside = width >= WIDE && panels.length > 1, share = beside ? (width - room - GAP * (panels.length - 1)) / panels.length : width - room;
  let below = top;
  panels.forEach((panel, index) => {
    const left = room + (beside ? index * (share + GAP) : 0), start = beside ? top : below;
    const first = start + (panels.length > 1 || panel.name ? 20 : 0), bottom = first + panel.rows.length * rowHeight;
    if (first > start) shapes.push(text(beside ? left : 0, start + 12, fitted(panel.name, beside ? share : width, BOLD), { class: 'name' }));
    const ends = chart.sharedX === false ? panel.ends : extent(panels.flatMap((each) => each.ends), true);
    const x = scaleOf(ends, left, left + share, 8);
    const box = { left, right: left + share, top: first, bottom };
    const axis = axisBelow(shapes, ends, x, box, (panel.x || chart.x).label);
    panel.rows.forEach((row, at) => {
      const y = first + (at + 0.5) * rowHeight;
      if (!beside || index === 0) shapes.push(text(room - 10, y + 4, fitted(row.label, room - 12), { 'text-anchor': 'end', class: row.open ? 'opens' : null }, row.open));
      drawRow(row, panel, x, y);
    });
    below = Math.max(below, bottom + axis + (beside ? 0 : 12));
  });
  return below;
}

function layoutDots(chart, width, into) {
  const { shapes, marks } = into, most = Math.max(1, ...chart.panels.flatMap(({ rows }) => rows.map(({ points }) => points.length)));
  const named = chart.series.length > 1 ? chart.series.map((name, series) => legendEntry(series, name, width)) : [];
  const top = legendInto(shapes, named, 0, 0, width), apart = Math.min(11, 36 / most), rowHeight = Math.max(28, apart * most + 10);
  const panels = chart.panels.map((panel) => ({ ...panel, ends: extent(panel.rows.flatMap(({ points }) => points.flatMap(({ mean, low, high, prompts }) => [mean, low ?? mean, high ?? mean, ...(prompts || [])])), true) }));
  const unit = chart.x.unit ? ' ' + chart.x.unit : '';
  return layoutRows(chart, width, into, panels, rowHeight, top, (row, panel, x, y) => row.points.forEach((point, index) => {
    if (point.mean === null) return;
    const at = y + (index - (row.points.length - 1) / 2) * apart, { mean, low, high, prompts } = point;
    (prompts || []).forEach((value, prompt) => {
      if (value === null) return;
      const spot = { x: x(value), y: at + spread(prompt), w: 8, h: 8, open: [null, prompt] };
      shapes.push({ tag: 'circle', at: { cx: spot.x, cy: spot.y, r: 4, class: 'dot ' + sideClass(chart, mean) }, open: spot.open });
      marks.push({ ...spot, text: () => row.label + ', prompt ' + prompt + ': ' + signed(value) + unit });
    });
    if (low !== null && high !== null) shapes.push(straight(x(low), at, x(high), at, 'range'));
    if (prompts) shapes.push(straight(x(mean), at - 9, x(mean), at + 9, 'mean'));
    else shapes.push(symbol(point.series, x(mean), at));
    const of = chart.series.length > 1 ? ', ' + chart.series[point.series] : '';
    const where = panel.name && chart.panels.length > 1 ? ' (' + panel.name + ')' : '';
    const bounds = low !== null && high !== null ? ' [' + plain(low) + ', ' + plain(high) + ']' : '';
    marks.push({ x: x(mean), y: at, w: 10, h: prompts ? 20 : 10, open: row.open || null, text: () => row.label + of + where + ': ' + (prompts ? 'mean ' : '') + plain(mean) + unit + bounds });
  }));
}

// Dots that would cover each other stand a little apart; the height has no meaning.
function spread(prompt) {
  return ((prompt * 7) % 5) * 2.6 - 5.2;
}

function layoutBars(chart, width, into) {
  const { shapes, marks } = into, ends = extent(chart.bars.map(({ value }) => value), true), unit = chart.unit ? ' ' + chart.unit : '';
  const top = legendInto(shapes, effectEntries(chart, Math.max(-ends[0], ends[1]), chart.bars.some(({ value }) => strikes(chart, value, 0))), 0, 0, width);
  const rows = chart.bars.map((bar) => ({ ...bar, open: [bar.heads[0], null] }));
  return layoutRows(chart, width, into, [{ name: '', rows, ends }], 22, top, (row, panel, x, y) => {
    if (row.value === null) return;
    const [from, to] = [x(0), x(row.value)].sort((a, b) => a - b), struck = strikes(chart, row.value, 0);
    shapes.push({ tag: 'rect', at: { x: from, y: y - 6, width: to - from, height: 12, class: 'bar ' + sideClass(chart, row.value), 'data-value': row.value }, open: row.open });
    if (struck) shapes.push(straight(from, y, to, y, 'strike'));
    marks.push({ x: x(row.value), y, w: 10, h: 16, open: row.open, text: () => row.label + ': ' + chart.value + ' ' + signed(row.value) + unit });
  });
}

// --- curves ----------------------------------------------------------------------------------------------------------

// The plot of a y axis: ticks and zero line; returns the scale and the box. The label stands above, upright.
function axisBeside(shapes, ends, label, { left, right, top, height }, zero) {
  const ticks = niceTicks(ends[0], ends[1], Math.max(2, Math.floor(height / 40)));
  const room = Math.max(...ticks.map((value) => textWidth(tickText(value)))) + 10;
  const start = top + words(shapes, wrapped(label, right - left), left, top - 2) + 6, bottom = start + height;
  const y = scaleOf(ends, bottom, start);
  for (const value of ticks) {
    shapes.push(straight(left + room, y(value), right, y(value), zero && value === 0 ? 'zero' : 'track'));
    shapes.push(text(left + room - 6, y(value) + 4, tickText(value), { 'text-anchor': 'end', 'data-tick': value }));
  }
  return { y, left: left + room, right, top: start, bottom };
}

// Labels of whole steps below a plot, and the label of the axis. Returns the height.
function stepsBelow(shapes, values, x, { left, right, bottom }, label) {
  const need = Math.max(...values.map((value) => textWidth(String(value)))) + 8;
  const step = every(need, values.length > 1 ? Math.abs(x(1) - x(0)) : right - left);
  values.forEach((value, at) => {
    if (at % step === 0) shapes.push(text(x(at), bottom + 15, String(value), { 'text-anchor': 'middle', 'data-step': at }));
  });
  return 20 + words(shapes, wrapped(label, right - left), (left + right) / 2, bottom + 18, { 'text-anchor': 'middle' });
}

function pathOf(points) {
  return points.map(([x, y], at) => (at ? 'L' : 'M') + x.toFixed(2) + ' ' + y.toFixed(2)).join('');
}

function layoutCurves(chart, width, into) {
  const { shapes } = into, series = chart.panels[0].series, { band } = chart.panels[0];
  const entries = series.map(({ name }, at) => lineEntry(chart, at, name, width));
  if (band) entries.push({ wide: 26 + textWidth(band.name), draw: (x, y) => [{ tag: 'rect', at: { x, y: y - 6, width: 20, height: 12, class: 'band' } }, text(x + 26, y + 4, band.name)] });
  const top = legendInto(shapes, entries, 0, 0, width), beside = width >= WIDE && chart.panels.length > 1;
  const all = chart.panels.flatMap((panel) => [...panel.series, ...(panel.band ? [panel.band] : [])].flatMap(({ values, low, high }) => [...(values || []), ...(low || []), ...(high || [])]));
  const ends = extent(all, true), share = beside ? (width - GAP * (chart.panels.length - 1)) / chart.panels.length : Math.min(width, 900);
  let below = top;
  chart.panels.forEach((panel, index) => {
    const left = beside ? index * (share + GAP) : 0, start = beside ? top : below;
    const box = axisBeside(shapes, ends, chart.y.label, { left, right: left + share, top: start + 4, height: 210 }, true);
    const x = scaleOf([0, Math.max(1, panel.x.values.length - 1)], box.left, box.right, 10);
    curvesInto(chart, panel, x, box.y, into);
    below = Math.max(below, box.bottom + stepsBelow(shapes, panel.x.values, x, box, panel.x.label) + 10);
  });
  return below;
}

function lineEntry(chart, series, name, room) {
  const shown = fitted(name, room - 34);
  return { wide: 34 + textWidth(shown), draw: (x, y) => [{ tag: 'path', at: { d: `M${x} ${y}H${x + 28}`, class: 'curve d' + (series % 4) + ' s' + (series % 6) } }, symbol(series, x + 14, y), text(x + 34, y + 4, shown)] };
}

function curvesInto(chart, panel, x, y, { shapes, marks }) {
  const { values: steps } = panel.x, unit = chart.y.unit ? ' ' + chart.y.unit : '';
  if (panel.band) {
    const { low, high } = panel.band, there = low.map((_, at) => at).filter((at) => low[at] !== null);
    const around = [...there.map((at) => [x(at), y(high[at])]), ...there.reverse().map((at) => [x(at), y(low[at])])];
    shapes.push({ tag: 'path', at: { d: pathOf(around) + 'Z', class: 'band' } });
  }
  panel.series.forEach(({ name, values, low, high, notes, heads }, series) => {
    const there = values.map((_, at) => at).filter((at) => values[at] !== null);
    shapes.push({ tag: 'path', at: { d: pathOf(there.map((at) => [x(at), y(values[at])])), class: 'curve d' + (series % 4) + ' s' + (series % 6), 'data-series': series } });
    const size = there.length > 60 ? 2 : 3.5;
    for (const at of there) {
      const open = heads && heads[at] ? [heads[at], null] : null;
      if (low) shapes.push(straight(x(at), y(low[at]), x(at), y(high[at]), 'range'));
      shapes.push({ ...symbol(series, x(at), y(values[at]), size), open });
      const bounds = low ? ' ± ' + Number(((high[at] - low[at]) / 2).toPrecision(2)) + ' (standard error)' : '';
      const note = notes && notes[at] ? ' (' + notes[at] + ')' : '';
      marks.push({ x: x(at), y: y(values[at]), w: 10, h: 10, open, text: () => name + ', ' + panel.x.label + ' ' + steps[at] + note + ': ' + signed(values[at]) + unit + bounds });
    }
  });
}

function layoutPairs(chart, width, into) {
  const { shapes, marks } = into, { pairs } = chart, unit = chart.y.unit ? ' ' + chart.y.unit : '';
  const top = legendInto(shapes, chart.series.map((name, series) => legendEntry(series, name, width)), 0, 0, width);
  const ends = extent(pairs.flat(), false), right = Math.min(width, 900);
  const box = axisBeside(shapes, ends, chart.y.label, { left: 0, right, top: top + 4, height: 210 }, true);
  const x = scaleOf([0, Math.max(1, pairs.length - 1)], box.left, box.right, 10);
  pairs.forEach((pair, prompt) => {
    const [base, other] = pair;
    if (base !== null && other !== null) shapes.push(straight(x(prompt), box.y(base), x(prompt), box.y(other), 'between'));
    [1, 0].forEach((series) => {
      const value = pair[series];
      if (value === null) return;
      const open = [null, prompt], change = base !== null && other !== null ? ' (change ' + signed(other - base) + ')' : '';
      shapes.push({ ...symbol(series, x(prompt), box.y(value)), open });
      marks.push({ x: x(prompt), y: box.y(value), w: 10, h: 10, open, text: () => 'prompt ' + prompt + ', ' + chart.series[series] + ': ' + plain(value) + unit + change });
    });
  });
  return box.bottom + stepsBelow(shapes, pairs.map((_, prompt) => prompt), x, box, chart.x.label) + 8;
}

// --- heat maps -------------------------------------------------------------------------------------------------------

// The class and the share of the full colour of a value: effects by their side, attention by the square root, and what is a share
// of it, such as a role's score, in its hue.
function shadeOf(chart, value, most) {
  if (value === null) return { name: 'unknown', share: 0 };
  if (chart.scale === 'effect') return { name: sideClass(chart, value), share: most ? Math.min(1, Math.abs(value) / most) : 0 };
  const share = most ? Math.min(1, Math.max(0, value) / most) : 0;
  return { name: 'attention', share: chart.scale === 'attention' ? Math.sqrt(share) : share };
}

// Whether a cell is struck through, so that the sign can be told without colours: a tenth of the largest or more that
// hurts, or is negative where no side is known.
function strikes(chart, value, most) {
  return value !== null && chart.scale !== 'score' && chart.scale !== 'attention' && Math.abs(value) >= 0.1 * most && (chart.sense ? side(chart, value) === 'hurts' : value < 0);
}

function mostOf(chart) {
  return chart.most || largest(chart.panels.flatMap(({ values }) => values.flat()).map((value) => value ?? 0)) || 1;
}

// The colours from one end to the other, and what the signs in a cell mean.
function heatEntries(chart, most) {
  const values = chart.panels.flatMap(({ values: rows }) => rows.flat()), struck = values.some((value) => strikes(chart, value, most));
  const made = chart.scale === 'effect' ? effectEntries(chart, most, struck) : [rampEntry(chart, [0, most])];
  if (chart.dot) made.push(signEntry('spot', chart.dot));
  if (values.includes(null)) made.push(signEntry('unknown', 'not measured'));
  return made;
}

// The colours of effects from negative to positive, and what each side means, by words of the chart's own if it has some.
function effectEntries(chart, most, struck) {
  const ramp = rampEntry({ ...chart, scale: 'effect' }, [-most, most]);
  if (!chart.sense) return [ramp, ...(struck ? [signEntry('plain', 'negative', true)] : [])];
  return [ramp, ...['helps', 'hurts'].map((name) => signEntry(name, (chart.words || {})[name] || name, name === 'hurts' && struck))];
}

function rampEntry(chart, [low, high]) {
  const steps = 24, wide = 110, unit = chart.unit ? ' ' + chart.unit : '', first = low ? '−' + plain(-low) : '0', last = (low ? '+' : '') + plain(high) + unit;
  const before = textWidth(first) + 6;
  return {
    wide: before + wide + 6 + textWidth(last),
    draw: (x, y) => [
      text(x, y + 4, first),
      ...Array.from({ length: steps }, (_, at) => cellShape(chart, low + ((at + 0.5) / steps) * (high - low), high, { x: x + before + (at * wide) / steps, y: y - 5, width: wide / steps + 0.3, height: 10 })),
      text(x + before + wide + 6, y + 4, last),
    ],
  };
}

// A sign of a cell, a spot or a filled square, and its meaning.
function signEntry(name, meaning, struck = false) {
  const square = (x, y) => ({ tag: 'rect', at: { x, y: y - 6, width: 12, height: 12, class: 'cell ' + name, style: '--share:1' } });
  const sign = (x, y) => (name === 'spot' ? { tag: 'circle', at: { cx: x + 6, cy: y, r: 3, class: 'spot' } } : square(x, y));
  return { wide: 18 + textWidth(meaning), draw: (x, y) => [sign(x, y), ...(struck ? [straight(x + 1, y + 5, x + 11, y - 5, 'strike')] : []), text(x + 18, y + 4, meaning)] };
}

function cellShape(chart, value, most, at) {
  const { name, share } = shadeOf(chart, value, most);
  return { tag: 'rect', at: { ...at, class: 'cell ' + name, style: '--share:' + share.toFixed(3) } };
}

function layoutHeat(chart, width, into) {
  const { shapes, panel } = into, most = mostOf(chart), shown = chart.switch ? [chart.panels[panel]] : chart.panels;
  const top = legendInto(shapes, heatEntries(chart, most), 0, 0, width) + 4;
  const beside = shown.length > 1 && width >= WIDE && shown.every(({ columns }) => columns.length * 14 < width / shown.length);
  const room = beside ? (width - GAP * (shown.length - 1)) / shown.length : width;
  let below = top;
  shown.forEach((each, index) => {
    const start = beside ? top : below, left = beside ? index * (room + GAP) : 0;
    const turned = chart.axes[1] === 'layer' && room < 560 && each.columns.length > 14 ? turn(each) : each;
    const axes = turned === each ? chart.axes : [...chart.axes].reverse();
    below = Math.max(below, heatInto(chart, turned, axes, most, left, start, room, into) + 12);
  });
  return below;
}

// Layers down and heads across, where there is no room for them the other way.
function turn(panel) {
  const values = panel.columns.map((_, column) => panel.values.map((row) => row[column]));
  return { ...panel, rows: panel.columns, columns: panel.rows, values, dots: (panel.dots || []).map(([row, column]) => [column, row]), turned: true };
}

// One map of a heat chart. Returns where it ends.
function heatInto(chart, panel, axes, most, left, top, room, { shapes, marks }) {
  const { rows, columns } = panel, upright = typeof columns[0] === 'string';
  const rowRoom = Math.min(Math.max(...rows.map((row) => textWidth(String(row)))) + 10, room * 0.3);
  const columnRoom = upright ? Math.min(Math.max(...columns.map((column) => textWidth(column.trim()))) + 8, 110) : 0;
  const wide = Math.max(3, Math.min(columns.length < 8 ? 44 : 32, (room - rowRoom) / columns.length)), high = Math.min(wide, 26) < 15 && rows.length < 30 ? 18 : Math.min(wide, 26);
  let y = top;
  if (panel.name && !chart.switch) { shapes.push(text(left, y + 12, fitted(panel.name, room, BOLD), { class: 'name' })); y += 22; }
  const x = left + rowRoom, start = y + columnRoom, bottom = start + high * rows.length;
  cellsInto(chart, panel, most, { x, y: start, wide, high }, { shapes, marks });
  const rowStep = every(LETTERS + 1, high), columnStep = upright ? every(LETTERS + 1, wide) : every(textWidth(String(columns.length)) + 6, wide);
  rows.forEach((row, at) => {
    const open = openOf(panel, at, -1);
    if (at % rowStep === 0) shapes.push(text(x - 6, start + (at + 0.5) * high + 4, fitted(String(row), rowRoom - 8), { 'text-anchor': 'end', class: open ? 'opens' : null }, open));
  });
  columns.forEach((column, at) => {
    if (at % columnStep) return;
    const middle = x + (at + 0.5) * wide;
    if (upright) shapes.push(text(0, 0, fitted(column, columnRoom - 6), { transform: `translate(${middle + 4} ${start - 5}) rotate(-90)` }));
    else shapes.push(text(middle, bottom + 15, String(column), { 'text-anchor': 'middle' }));
  });
  const numbered = upright ? '' : axes[1];
  if (numbered) shapes.push(text(x, bottom + 32, numbered + 's across, ' + axes[0] + 's down', { class: 'label' }));
  return bottom + (upright ? 6 : 36);
}

// With more cells than this the map is one picture of pixels, not a rectangle each.
const MANY_CELLS = 3000;

function cellsInto(chart, panel, most, { x, y, wide, high }, { shapes, marks }) {
  const { rows, columns, values } = panel, gap = Math.min(wide, high) > 9 ? 1 : 0;
  const many = rows.length * columns.length > MANY_CELLS;
  if (many) shapes.push({ tag: 'pixels', at: { x, y, width: wide * columns.length, height: high * rows.length }, cells: values.map((row) => row.map((value) => shadeOf(chart, value, most))) });
  const dotted = new Set((panel.dots || []).map(([row, column]) => row + ' ' + column));
  values.forEach((row, r) => row.forEach((value, c) => {
    const left = x + c * wide, above = y + r * high, open = openOf(panel, r, c);
    if (!many) shapes.push({ ...cellShape(chart, value, most, { x: left, y: above, width: wide - gap, height: high - gap, 'data-cell': r + ' ' + c }), open });
    if (strikes(chart, value, most)) shapes.push(straight(left + 1, above + high - 1 - gap, left + wide - 1 - gap, above + 1, 'strike'));
    if (dotted.has(r + ' ' + c)) shapes.push({ tag: 'circle', at: { cx: left + (wide - gap) / 2, cy: above + (high - gap) / 2, r: Math.min(3, wide / 3), class: 'spot' } });
    marks.push({ x: left + (wide - gap) / 2, y: above + (high - gap) / 2, w: wide - gap, h: high - gap, open, text: () => cellText(chart, panel, r, c, dotted.has(r + ' ' + c)) });
  }));
}

// The head of a cell, or of a row's label (column -1): [head, null]; null where it has none.
function openOf(panel, row, column) {
  if (panel.head) return column < 0 ? null : [panel.head, null];
  if (panel.rowHeads) return panel.rowHeads[row] ? [panel.rowHeads[row], null] : null;
  if (panel.cells === undefined || column < 0) return null;
  return [panel.turned ? [panel.rows[row], panel.columns[column], panel.cells] : [panel.columns[column], panel.rows[row], panel.cells], null];
}

function cellText(chart, panel, row, column, dotted) {
  const value = panel.values[row][column], unit = chart.unit ? ' ' + chart.unit : '';
  const token = (label, at) => '“' + cut(label, 20) + '” (' + at + ')';
  let where = '';
  if (panel.cells !== undefined) where = named(openOf(panel, row, column)[0]);
  else if (panel.columnHeads) where = panel.rows[row] + ' and ' + panel.columns[column];
  else if (chart.scale === 'attention') where = panel.name + ': ' + token(panel.rows[row], row) + ' looks at ' + token(panel.columns[column], column);
  else where = panel.rows[row] + ' at ' + token(panel.columns[column], column);
  const what = chart.switch ? panel.name + ' score' : chart.value;
  const said = (panel.notes || {})[row + ' ' + column], note = (dotted && chart.dot ? '; ' + chart.dot : '') + (said ? '; ' + said : '');
  return where + (chart.scale === 'attention' ? ', ' : ': ') + what + ' ' + (value === null ? 'not measured' : (chart.scale === 'effect' ? signed(value) : plain(value)) + unit) + note;
}
