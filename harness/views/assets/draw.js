// Small helpers to make nodes and to write numbers. Text only ever goes in as text.

const SVG = 'http://www.w3.org/2000/svg';

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  return fill(node, attributes, children);
}

function makeSvg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith('on')) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
}

function plain(value) {
  if (!Number.isFinite(value)) return 'not measured';
  const size = Math.abs(value);
  const digits = size === 0 || (size >= 1000 && size < 1e6) ? size.toFixed(0) : size >= 1e-4 && size < 1000 ? size.toPrecision(3) : size.toExponential(2);
  return (value < 0 ? '−' : '') + digits;
}

// Two digits, for a number in a cell.
function brief(value) {
  const size = Math.abs(value);
  return size >= 10 ? size.toFixed(0) : size >= 0.995 ? size.toFixed(1) : size.toPrecision(1).replace(/^0/, '');
}

// The decimals with which the largest of some numbers has three digits: a column of numbers has one precision.
function decimals(values) {
  const most = largest(values.filter(Number.isFinite));
  return most ? Math.min(6, Math.max(0, 2 - Math.floor(Math.log10(most)))) : 0;
}

function fixed(value, places, plus = false) {
  if (!Number.isFinite(value)) return 'not measured';
  return (Number(value.toFixed(places)) < 0 ? '−' : plus && Number(value.toFixed(places)) > 0 ? '+' : '') + Math.abs(value).toFixed(places);
}

function chance(p) {
  return p < 0.001 ? '<0.001' : String(Number(p.toPrecision(2)));
}

function signed(value) {
  return (value > 0 ? '+' : '') + plain(value);
}

function withUnit(value, metric) {
  return signed(value) + (metric.unit && Number.isFinite(value) ? ' ' + metric.unit : '');
}

// The side of an estimate, whatever its uncertainty, which sets its colour. Rounding is no effect.
function side(metric, effect) {
  if (Math.abs(effect) <= 1e-7) return 'no effect';
  if (metric.sense === 0) return 'matters';
  return metric.sense * effect > 0 ? 'helps' : 'hurts';
}

function sideClass(metric, effect) {
  return side(metric, effect).replace(' ', '-');
}

// The verdict on a head: its side where an effect is shown, else unsure. It sets the words.
function verdict(state, metric, head) {
  const about = side(metric, state.meanOf(metric, head));
  return about === 'no effect' || state.claimOf(metric, head).shown ? about : 'unsure';
}

// The interval and p of a head's mean effect, in brackets; empty without them.
function claimText(state, metric, head) {
  const { low, high, p } = state.claimOf(metric, head), parts = [];
  if (Number.isFinite(low)) parts.push(state.data.interval + ' ' + signed(low) + ' to ' + signed(high));
  if (Number.isFinite(p)) parts.push('max-T p ' + chance(p) + (p < state.data.level ? '' : ': not shown'));
  return parts.length ? ' (' + parts.join('; ') + ')' : '';
}

function named([layer, head, stack]) {
  return (stack ? stack + '.' : '') + 'L' + layer + 'H' + head;
}

// A token or word of an axis between quotation marks, with its position; a learnt sink has none.
function quoted(unit, limit) {
  return unit.sink ? 'the learnt sink' : '“' + cut(unit.text, limit) + '” (' + unit.at[0] + ')';
}

function cut(token, limit) {
  const text = token.trim() || token;
  const letters = Array.from(text);
  return letters.length > limit ? letters.slice(0, limit - 1).join('') + '…' : text;
}

// A pattern on a canvas: the shade is the square root of the share of `most`, or all but the first rows would be white.
// Labels where there is room for them; `top: false` leaves out those of the keys, `right` keeps room beside the rows,
// and cells are as large as fit into the width and `high` pixels.
function drawMatrix(canvas, { weights, queries, keys, causal }, most, marked, { top: labelled = true, right = 0, high = Infinity } = {}) {
  const width = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  const pen = canvas.getContext('2d');
  const left = labelRoom(pen, queries, width), top = labelled ? labelRoom(pen, keys, width) : 2;
  const cell = Math.min((width - left - right) / keys.length, Math.max(1, high / queries.length), labelled ? 64 : 24), height = top + cell * queries.length + 1;
  canvas.style.height = height + 'px';
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  pen.scale(ratio, ratio);
  pen.fillStyle = color('card');
  pen.fillRect(left, top, cell * keys.length, cell * queries.length);
  const tone = color('attention'), less = color('less'), hatch = color('hatch');
  for (let query = 0; query < queries.length; query++) {
    for (let key = 0; key < keys.length; key++) {
      const hidden = causal && key > query, weight = weights[query * keys.length + key];
      pen.globalAlpha = hidden ? 1 : shade(weight, most);
      pen.fillStyle = hidden ? hatch : weight < 0 ? less : tone;
      if (pen.globalAlpha > 0.002) pen.fillRect(left + key * cell, top + query * cell, cell, cell);
    }
  }
  pen.globalAlpha = 1;
  canvas.geometry = { left, top, cell };
  drawLabels(pen, queries, labelled ? keys : [], canvas.geometry);
  if (marked) drawMark(pen, marked, canvas.geometry, cell * keys.length);
}

// The one scale of attention: the square root of the weight's share of `most`, which is 1 for weights.
function shade(weight, most) {
  return Math.sqrt(Math.min(1, Math.abs(weight) / (most || 1))) || 0;
}

// As much as the longest label needs, but not more than a quarter of the picture.
function labelRoom(pen, tokens, width) {
  pen.font = '13px system-ui, "Hiragino Sans", "Yu Gothic", Meiryo, "Noto Sans CJK JP", IPAexGothic, sans-serif';
  const longest = tokens.reduce((most, { text }) => Math.max(most, pen.measureText(cut(text, 14)).width), 0);
  return Math.min(longest + 12, width * 0.25);
}

function drawLabels(pen, queries, keys, { left, top, cell }) {
  const step = Math.max(1, Math.ceil(12 / cell));
  const font = Math.max(11, Math.min(13, cell * 0.72));
  const label = ({ text }, room) => cut(text, Math.max(4, Math.floor((room - 8) / (font * 0.56))));
  pen.fillStyle = color('soft');
  pen.font = font + 'px system-ui, "Hiragino Sans", "Yu Gothic", Meiryo, "Noto Sans CJK JP", IPAexGothic, sans-serif';
  pen.textBaseline = 'middle';
  pen.textAlign = 'right';
  queries.forEach((token, index) => {
    if (index % step === 0) pen.fillText(label(token, left), left - 5, top + (index + 0.5) * cell, left - 6);
  });
  pen.textAlign = 'left';
  keys.forEach((token, index) => {
    if (index % step) return;
    pen.save();
    pen.translate(left + (index + 0.5) * cell, top - 5);
    pen.rotate(-Math.PI / 2);
    pen.fillText(label(token, top), 0, 0, top - 6);
    pen.restore();
  });
}

// A frame round the row that is read, and round a cell where there is one.
function drawMark(pen, [query, key], { left, top, cell }, width) {
  pen.strokeStyle = color('ink');
  pen.lineWidth = 1.5;
  pen.strokeRect(left + 0.5, top + query * cell, width - 1, cell);
  pen.lineWidth = 2;
  if (key !== null && key !== undefined) pen.strokeRect(left + key * cell, top + query * cell, cell, cell);
}

// The cell under the mouse, or null.
function cellAt(canvas, event, { queries, keys }) {
  const { left, top, cell } = canvas.geometry, box = canvas.getBoundingClientRect();
  const query = Math.floor((event.clientY - box.top - top) / cell), key = Math.floor((event.clientX - box.left - left) / cell);
  return query >= 0 && key >= 0 && query < queries.length && key < keys.length ? [query, key] : null;
}

function step(event) {
  return { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
}
