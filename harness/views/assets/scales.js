// Scales, ticks, and text that fits: numbers in, numbers out, no page.

// About `most` values at round distances from low to high.
function niceTicks(low, high, most = 6) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  const values = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step / 1e6; at++) values.push(Number((at * step).toPrecision(6)) + 0);
  return values;
}

function tickText(value) {
  return (value < 0 ? '−' : '') + Math.abs(value);
}

// The ends of an axis: of all finite values, with 0 where the sign matters; never both the same.
function extent(values, zero) {
  const known = values.filter((value) => Number.isFinite(value)), low = Math.min(...known, ...(zero ? [0] : [])), high = Math.max(...known, ...(zero ? [0] : []));
  if (!Number.isFinite(low)) return [0, 1];
  const room = low === high ? Math.abs(low) || 1 : 0;
  return [low - (zero ? 0 : room), high + room];
}

// The place of a value between two pixels; a little room at both ends, so that marks at the ends are whole.
function scaleOf([low, high], from, to, room = 6) {
  const start = from + Math.sign(to - from) * room, end = to - Math.sign(to - from) * room;
  return (value) => start + ((value - low) / (high - low)) * (end - start);
}

// The width of a text in pixels, estimated: a wide sign is as wide as it is high.
function textWidth(text, size = 12) {
  let width = 0;
  for (const sign of text) width += sign.codePointAt(0) >= 0x1100 ? 1 : /[mwMW@%—…]/.test(sign) ? 0.98 : /[A-Z&]/.test(sign) ? 0.74 : /[iljtf.,:;'|!()[\] ]/.test(sign) ? 0.36 : 0.62;
  return width * size;
}

// The text, cut to the room it has, with an ellipsis where it was cut.
function fitted(text, room, size = 12) {
  const letters = Array.from(text.trim() || text);
  if (textWidth(letters.join(''), size) <= room) return letters.join('');
  while (letters.length > 1 && textWidth(letters.join('') + '…', size) > room) letters.pop();
  return letters.join('').trimEnd() + '…';
}

// The text in lines of at most `room` pixels, broken between words.
function wrapped(text, room, size = 12) {
  const lines = [''];
  for (const word of text.split(' ')) {
    const longer = lines[lines.length - 1] ? lines[lines.length - 1] + ' ' + word : word;
    if (lines[lines.length - 1] && textWidth(longer, size) > room) lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}

// Every how many labels one fits, if each needs `need` pixels and stands `apart` pixels from the next.
function every(need, apart) {
  return Math.max(1, Math.ceil(need / apart));
}

// Of marks the one nearest to a point; null where none is within reach.
function nearest(marks, x, y, reach) {
  let best = null, least = reach * reach;
  for (const mark of marks) {
    const distance = (mark.x - x) ** 2 + (mark.y - y) ** 2;
    if (distance <= least) { best = mark; least = distance; }
  }
  return best;
}

// The next mark in a direction [down, across]: the nearest, marks off the straight way later.
function nextMark(marks, from, [down, across]) {
  let best = null, least = Infinity;
  for (const mark of marks) {
    const x = mark.x - from.x, y = mark.y - from.y;
    const ahead = x * across + y * down, aside = Math.abs(x * down) + Math.abs(y * across);
    if (ahead < 0.5 || ahead + 3 * aside >= least) continue;
    best = mark;
    least = ahead + 3 * aside;
  }
  return best;
}
