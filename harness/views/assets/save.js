// Any figure on the page as a file: SVG or PNG as it stands on the screen, its numbers as CSV, its caption as text.

// A row of tools for a node. `name`, `caption` and `rows` (of cells, titles first) are values, or functions that give
// them. A frame of a notebook may save no files: there what can be copied is.
function withFigureTools(node, { name, caption, rows }) {
  const now = (value) => (typeof value === 'function' ? value() : value);
  const status = make('span', { class: 'status', role: 'status' });
  const tool = (title, about, act) => make('button', { type: 'button', class: 'tool', 'aria-label': about, onclick: async () => { status.textContent = (await act()) || ''; } }, title);
  const copying = async (text) => ((await copied(text)) ? 'copied' : 'could not be copied');
  const words = tool('Caption', 'Copy the caption', () => copying(now(caption)));
  if (window.origin === 'null' && window.parent !== window) {
    return make('p', { class: 'tools figure-tools' }, tool('Copy data', 'Copy the numbers', () => copying(asCsv(now(rows), '\t'))), words, status);
  }
  return make('p', { class: 'tools figure-tools' },
    tool('SVG', 'Save as SVG', () => download(svgText(node), now(name) + '.svg', 'image/svg+xml')),
    tool('PNG', 'Save as PNG', async () => download(await pngOf(node), now(name) + '.png', 'image/png')),
    tool('CSV', 'Save the numbers as CSV', () => download(asCsv(now(rows), ','), now(name) + '.csv')),
    words, status);
}

function asCsv(rows, separator) {
  const cell = (value) => {
    const text = String(value);
    return text.includes(separator) || /["\n\r]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };
  return rows.map((row) => row.map(cell).join(separator)).join('\n') + '\n';
}

const TIMES = 3, LONGEST = 16000;

// The same SVG drawn on a canvas, three times as large.
function pngOf(node) {
  const { svg, width, height } = svgOf(node), times = Math.min(TIMES, LONGEST / Math.max(width, height));
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => {
      const canvas = make('canvas', { width: Math.round(width * times), height: Math.round(height * times) });
      canvas.getContext('2d').drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob(done, 'image/png');
    };
    image.onerror = () => failed(new Error('The figure could not be drawn.'));
    image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(xmlOf(svg));
  });
}

function svgText(node) {
  return xmlOf(svgOf(node).svg);
}

function xmlOf(svg) {
  return '<?xml version="1.0" encoding="UTF-8"?>\n' + new XMLSerializer().serializeToString(svg) + '\n';
}

// --- what is on the screen, as SVG ------------------------------------------------------------------------------------

// What is on the page for the reader alone.
const NOT_SAVED = '.tools, .readout, .status, .skip, .frame, select, input, textarea, fieldset, noscript, script, style, title';
// Attributes of a shape that its style may set, and the value that needs no mention.
const SHAPE_STYLE = {
  fill: 'rgb(0, 0, 0)', stroke: 'none', 'stroke-width': '1px', 'stroke-dasharray': 'none', 'stroke-linecap': 'butt', 'stroke-linejoin': 'miter',
  opacity: '1', 'fill-opacity': '1', 'stroke-opacity': '1', 'text-anchor': 'start', 'font-family': '', 'font-size': '', 'font-weight': '400', 'image-rendering': 'auto',
};
const TEXT_STYLE = new Set(['text-anchor', 'font-family', 'font-size', 'font-weight']);

// A node as { svg, width, height }: text stays text, cells become rectangles, canvases pictures.
function svgOf(node) {
  const origin = node.getBoundingClientRect(), into = { parts: [], right: 0, bottom: 0, origin };
  savedElement(node, into);
  const width = Math.ceil(into.right), height = Math.ceil(into.bottom), back = rgbOf(getComputedStyle(document.body).backgroundColor);
  const svg = makeSvg('svg', { width, height, viewBox: `0 0 ${width} ${height}` });
  svg.append(makeSvg('rect', { x: 0, y: 0, width, height, fill: back ? back.color : 'white' }), ...into.parts);
  return { svg, width, height };
}

function savedElement(element, into) {
  const style = getComputedStyle(element);
  if (element.matches(NOT_SAVED) || style.display === 'none' || style.visibility === 'hidden') return;
  const box = element.getBoundingClientRect();
  const at = { x: box.left - into.origin.left, y: box.top - into.origin.top, width: box.width, height: box.height };
  const made = savedPicture(element, at) || savedBox(element, style, at);
  into.parts.push(...made);
  if (made.length) grow(into, at.x + at.width, at.y + at.height);
  if (isPicture(element)) return;
  for (const child of element.childNodes) {
    if (child.nodeType === Node.ELEMENT_NODE) savedElement(child, into);
    else if (child.nodeType === Node.TEXT_NODE && child.data.trim()) into.parts.push(...savedText(child, style, into));
  }
}

// What is drawn sets the size of the whole, not the empty boxes around it.
function grow(into, right, bottom) {
  into.right = Math.max(into.right, right);
  into.bottom = Math.max(into.bottom, bottom);
}

function isPicture(element) {
  return element instanceof SVGSVGElement || element instanceof HTMLCanvasElement || element instanceof HTMLImageElement;
}

// A drawing, a canvas or an image; null for other elements.
function savedPicture(element, at) {
  if (element instanceof SVGSVGElement) return [savedDrawing(element, at)];
  if (!isPicture(element)) return null;
  return [makeSvg('image', { ...round(at), href: element instanceof HTMLCanvasElement ? element.toDataURL() : element.src, preserveAspectRatio: 'none' })];
}

function round(at) {
  return Object.fromEntries(Object.entries(at).map(([key, value]) => [key, Number(value.toFixed(2))]));
}

// The background, the border and the dot of a box.
function savedBox(element, style, at) {
  const made = [], fill = rgbOf(style.backgroundColor), blend = gradientOf(style.backgroundImage, at), line = rgbOf(style.borderBottomColor);
  const corner = parseFloat(style.borderTopLeftRadius) || 0, lines = ['Top', 'Right', 'Bottom', 'Left'].map((edge) => parseFloat(style['border' + edge + 'Width']) || 0);
  const all = lines.every((wide) => wide === lines[0]) && lines[0] > 0;
  const hatched = blend && fill && style.backgroundImage.startsWith('repeating');
  if (hatched) made.push(makeSvg('rect', { ...round(at), rx: corner || null, ...painting('fill', fill), ...(all ? { ...painting('stroke', line), 'stroke-width': lines[0] } : {}) }), hatching(at));
  else if (blend) made.push(...blend);
  else if (fill || (all && line)) made.push(makeSvg('rect', { ...round(at), rx: corner || null, ...painting('fill', fill), ...(all ? { ...painting('stroke', line), 'stroke-width': lines[0] } : {}) }));
  if (!all && line && lines[2]) made.push(makeSvg('line', { x1: at.x, x2: at.x + at.width, y1: at.y + at.height, y2: at.y + at.height, ...painting('stroke', line), 'stroke-width': lines[2] }));
  const dot = getComputedStyle(element, '::after'), wide = parseFloat(dot.width), tone = rgbOf(dot.backgroundColor);
  if (dot.content !== 'none' && dot.content !== 'normal' && tone && wide) made.push(makeSvg('circle', { cx: at.x + at.width / 2, cy: at.y + at.height / 2, r: wide / 2, ...painting('fill', tone) }));
  return made;
}

// Diagonal lines over a box, cut off at its edges.
function hatching({ x, y, width, height }) {
  let d = '';
  for (let at = 5 - height; at < width; at += 5) {
    const before = Math.max(0, -at), after = Math.max(0, at + height - width);
    d += 'M' + (x + at + before).toFixed(1) + ' ' + (y + height - before).toFixed(1) + 'L' + (x + at + height - after).toFixed(1) + ' ' + (y + after).toFixed(1);
  }
  return makeSvg('path', { d, stroke: 'black', 'stroke-opacity': 0.35, 'stroke-width': 1, fill: 'none' });
}

function painting(name, tone) {
  return tone ? { [name]: tone.color, [name + '-opacity']: tone.alpha < 1 ? tone.alpha : null } : { [name]: 'none' };
}

// A gradient of two or more colours from left to right, as strips; hatching as its first colour. Null where there is none.
function gradientOf(image, at) {
  const tones = (image.match(/(?:rgba?|oklab|oklch|lab|color)\([^()]*\)/g) || []).map(rgbOf).filter(Boolean);
  if (!image.includes('gradient') || !tones.length) return null;
  const strips = image.startsWith('repeating') || tones.length < 2 ? 1 : 24, mixed = (share) => {
    const place = share * (tones.length - 1), from = tones[Math.floor(place)], to = tones[Math.min(tones.length - 1, Math.floor(place) + 1)];
    const part = place - Math.floor(place), [a, b] = [from, to].map(({ color: tone }) => tone.match(/\d+/g).map(Number));
    return 'rgb(' + a.map((value, channel) => Math.round(value + part * (b[channel] - value))).join(', ') + ')';
  };
  return Array.from({ length: strips }, (_, strip) => makeSvg('rect', round({ x: at.x + (strip * at.width) / strips, y: at.y, width: at.width / strips + 0.3, height: at.height })))
    .map((rect, strip) => fill(rect, { fill: strips === 1 ? tones[0].color : mixed(strip / (strips - 1)) }, []));
}

// Any colour of a style, such as color-mix in oklab, as one that every program reads; null if it cannot be seen.
const knownColours = new Map();
function rgbOf(value) {
  if (!value || value === 'none' || value === 'transparent') return null;
  if (!knownColours.has(value)) {
    const pen = make('canvas', { width: 1, height: 1 }).getContext('2d');
    pen.fillStyle = value;
    pen.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = pen.getImageData(0, 0, 1, 1).data;
    knownColours.set(value, alpha ? { color: `rgb(${red}, ${green}, ${blue})`, alpha: Number((alpha / 255).toFixed(3)) } : null);
  }
  return knownColours.get(value);
}

// A drawing with the styles of the page written into it.
function savedDrawing(svg, at) {
  const viewBox = svg.getAttribute('viewBox');
  const font = getComputedStyle(svg).fontFamily;
  const copy = makeSvg('svg', { ...round(at), viewBox, overflow: 'visible', 'font-family': font, ...(viewBox ? { preserveAspectRatio: 'none' } : {}) });
  copy.append(...[...svg.children].map((shape) => savedShape(shape, font)).filter(Boolean));
  return copy;
}

function savedShape(shape, font) {
  const style = getComputedStyle(shape);
  if (shape.matches(NOT_SAVED) || style.display === 'none' || style.visibility === 'hidden') return null;
  const copy = shape.cloneNode(false), isText = shape instanceof SVGTextContentElement;
  for (const { name } of [...copy.attributes]) if (/^(class|style|tabindex|role|aria-|data-)/.test(name)) copy.removeAttribute(name);
  for (const [name, usual] of Object.entries(SHAPE_STYLE)) {
    const value = style.getPropertyValue(name);
    if ((!isText && TEXT_STYLE.has(name)) || !value || value === usual || value === font) continue;
    const tone = name === 'fill' || name === 'stroke' ? rgbOf(value) : null;
    copy.setAttribute(name, name === 'fill' || name === 'stroke' ? (tone ? tone.color : 'none') : value);
    if (tone && tone.alpha < 1) copy.setAttribute(name + '-opacity', tone.alpha * Number(style.getPropertyValue(name + '-opacity')));
  }
  for (const child of shape.childNodes) {
    const inside = child.nodeType === Node.ELEMENT_NODE ? savedShape(child, font) : child.nodeType === Node.TEXT_NODE ? child.cloneNode() : null;
    if (inside) copy.append(inside);
  }
  return copy;
}

// The words of a text node, a line of the page at a time, each at its place; what a box cuts off is left out.
function savedText(node, style, into) {
  const range = document.createRange(), lines = [], edge = edgeOf(node.parentElement), pen = make('canvas').getContext('2d');
  pen.font = style.font;
  for (const { index, 0: word } of node.data.matchAll(/\S+/g)) {
    range.setStart(node, index);
    range.setEnd(node, index + word.length);
    const box = range.getBoundingClientRect(), last = lines[lines.length - 1];
    if (!box.width || box.left >= edge) continue;
    const shown = box.right > edge + 1 ? cutAt(node, index, word, edge, range) : word;
    if (last && Math.abs(last.box.top - box.top) < 3) { last.words.push(shown); last.right = Math.min(box.right, edge); }
    else lines.push({ box, words: [shown], right: Math.min(box.right, edge) });
  }
  const { fontBoundingBoxAscent: above, fontBoundingBoxDescent: below } = pen.measureText('x');
  return lines.map(({ box, words, right }) => {
    const y = box.top - into.origin.top + (box.height - above - below) / 2 + above, whole = words.join(' ');
    grow(into, right - into.origin.left, box.bottom - into.origin.top);
    const line = makeSvg('text', { ...round({ x: box.left - into.origin.left, y }), 'font-family': style.fontFamily, 'font-size': style.fontSize, 'font-weight': style.fontWeight, ...painting('fill', rgbOf(style.color)) });
    line.textContent = style.textTransform === 'uppercase' ? whole.toUpperCase() : whole;
    return line;
  });
}

// The right edge of the nearest box that cuts off its text.
function edgeOf(element) {
  for (let box = element; box && box !== document.body; box = box.parentElement) {
    if (['hidden', 'clip'].includes(getComputedStyle(box).overflowX)) return box.getBoundingClientRect().right;
  }
  return Infinity;
}

// The letters of a word before an edge.
function cutAt(node, index, word, edge, range) {
  let end = word.length;
  do range.setEnd(node, index + --end); while (end > 1 && range.getBoundingClientRect().right > edge - 12);
  return word.slice(0, end) + '…';
}
