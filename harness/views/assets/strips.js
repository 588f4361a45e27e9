// The strongest heads: one dot for each prompt, a line for the mean, a bar for its interval.

function mountStrips(place, state) {
  const draw = () => {
    const metric = state.metric();
    const rows = metric.strongest.map((entry) => ({ ...entry, values: state.effectsOf(metric, entry.head) }));
    const all = rows.flatMap((row) => row.values).filter(Number.isFinite);
    const low = Math.min(0, ...all), high = Math.max(0, ...all), span = high - low || 1;
    const x = (value) => ((value - low) / span) * 100 + '%';
    const grid = make('div', { class: 'strips' });
    for (const row of rows) grid.append(...stripRow(state, metric, row, x));
    grid.append(make('span', { class: 'axis' }), axis(low, high, x, metric), make('span', { class: 'axis' }));
    place.replaceChildren(grid);
  };
  state.on('metric', draw);
  draw();
}

function stripRow(state, metric, row, x) {
  const mean = state.meanOf(metric, row.head), name = named(row.head), word = verdict(state, metric, row.head);
  const label = name + ' ' + word + ': mean effect ' + withUnit(mean, metric) + ' over ' + row.values.length + ' prompts' + claimText(state, metric, row.head);
  const svg = makeSvg('svg', { class: sideClass(metric, mean) + (word === 'unsure' ? ' doubtful' : ''), role: 'img', 'aria-label': label });
  svg.append(line('0%', 14, '100%', 14, 'track'), line(x(0), 2, x(0), 26, 'zero'));
  row.values.forEach((value, prompt) => {
    if (!Number.isFinite(value)) return;
    const dot = makeSvg('circle', { class: 'dot', cx: x(value), cy: 14 + jitter(prompt), r: 4, onclick: () => state.open(row.head, prompt) });
    dot.append(makeSvg('title', {}, 'prompt ' + prompt + ': ' + withUnit(value, metric)));
    svg.append(dot);
  });
  if (row.low !== null) svg.append(line(x(row.low), 14, x(row.high), 14, 'range'));
  svg.append(line(x(mean), 5, x(mean), 23, 'mean'));
  const button = make('button', { type: 'button', class: 'link', onclick: () => state.open(row.head), 'aria-label': 'open ' + name }, name);
  const value = make('span', { class: 'value' }, word + ' ' + withUnit(mean, metric) + ' ');
  value.append(make('small', {}, intervalText(row, mean) + doubt(state.claimOf(metric, row.head))));
  return [button, svg, value];
}

function intervalText(row, mean) {
  if (row.low === null) return row.kind;
  if (row.kind === 'standard error') return '± ' + Number((row.high - mean).toPrecision(2));
  return '[' + plain(row.low) + ', ' + plain(row.high) + ']';
}

function doubt({ p, shown }) {
  return !shown && Number.isFinite(p) ? ' p ' + chance(p) : '';
}

function line(x1, y1, x2, y2, name) {
  return makeSvg('line', { x1, y1, x2, y2, class: name });
}

// Spread out dots that would cover each other; the height has no meaning.
function jitter(prompt) {
  return ((prompt * 7) % 5) * 2.6 - 5.2;
}

function axis(low, high, x, metric) {
  const holder = make('div', { class: 'axis' });
  const scale = make('div', { style: 'position:relative;height:20px' });
  for (const value of niceTicks(low, high)) {
    const label = make('span', {}, (value > 0 ? '+' : value < 0 ? '−' : '') + Math.abs(value));
    label.style.cssText = 'position:absolute;transform:translateX(-50%);left:' + x(value);
    scale.append(label);
  }
  holder.append(scale, make('div', {}, 'effect on ' + metric.name + (metric.units ? ', ' + metric.units : '') + ' (one dot per prompt)'));
  return holder;
}
